"""Compare the bytes of the blocks that are chosen with the fewest of blocks tried one by one.

    python benchmarks/blocks.py [--preset scnn] [--ops 40] [--random 300] [--batch 4]

Of ops of ResNet-50 (SWAT-U at 90 %) the blocks tried are all of ceil(n / j) elements of an axis of
n, for every j, in any loop order; of small random ops every block there is. What they move is
counted by `tests/naive/blocks.py`, which shares no code with the simulator. Prints one line a
preset, the share of a simulation's CPU time that choosing blocks takes, and one of the random ops.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # tests are no part of the package

import swatsim  # noqa: E402
from swatsim.errors import ConfigError, WorkloadError  # noqa: E402
from swatsim.policies import SwatU  # noqa: E402
from swatsim.simulator.machines import presets  # noqa: E402
from swatsim.simulator.memory.config import MemoryConfig  # noqa: E402
from swatsim.simulator.memory.plan import find  # noqa: E402
from swatsim.simulator.memory.simulate import NO_DEMAND, simulate_memory  # noqa: E402
from swatsim.simulator.memory.stores import stores_of  # noqa: E402
from swatsim.simulator.memory.tensors import shape_of  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.synthetic import synthesize  # noqa: E402
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer  # noqa: E402
from swatsim.workload.lowering import LoweredOp, lower  # noqa: E402
from swatsim.workload.networks import network  # noqa: E402
from tests.naive.blocks import even, every, fewest  # noqa: E402

FORMATS = ("dense", "bitmask", "csr", "csc", "run-length")


def above(op: LoweredOp, config: MemoryConfig, grid: Any) -> float:
    """Return by which share the chosen blocks move more than the fewest bytes."""
    chosen = simulate_memory(op, NO_DEMAND, config).dram_bytes
    best = fewest(op.name, op.layer, config, op.operands, grid)
    assert best is not None, "the chosen blocks fit"
    return chosen / best.moved - 1


def in_words(above: list[float]) -> str:
    far = sum(it > 1 / 64 for it in above)
    return f"at most {100 * max(above):.2f} % above the fewest, {far} of {len(above)} above 1/64"


def share(trace: Path, ops: list[LoweredOp], machine: str) -> str:
    """Return the CPU time of choosing blocks beside that of a simulation of the same step."""
    config = swatsim.machine(machine).config
    shapes = [shape_of(op) for op in ops]
    stores = [stores_of(op, it, config, False) for op, it in zip(ops, shapes, strict=True)]
    taken = []
    for _ in range(2):  # the first compiles
        begin = time.process_time()
        for shape, store in zip(shapes, stores, strict=True):
            find(shape, store, config)
        chosen = time.process_time()
        swatsim.simulate(trace, machine, store=False)
        taken = [chosen - begin, time.process_time() - chosen]
    return (
        f"choosing takes {taken[0]:.2f} of {taken[1]:.2f} CPU s, {100 * taken[0] / taken[1]:.0f} %"
    )


def random_ops(number: int, seed: int) -> Iterator[tuple[LoweredOp, MemoryConfig]]:
    """Yield small ops, ragged, strided, grouped, some channels denser, on small buffers."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    for _ in range(number):
        groups, kernel = draw.choice([1, 1, 1, 2, 3, 12]), draw.choice([1, 1, 2, 3, 5])
        most = 32 if groups == 1 else 12
        layer = Layer(
            name="x",
            C=groups * draw.randint(1, most),
            K=groups * draw.randint(1, most),
            H=draw.randint(kernel, 20),
            W=draw.choice([1, 4, 9]),
            R=kernel,
            stride=(draw.choice([1, 1, 2, kernel]), 1),
            padding=((draw.randint(0, kernel // 2),) * 2, (0, 0)),
            groups=groups,
        )
        name, samples = draw.choice(OPS), draw.choice([1, 2, 3, 5])
        masks = {}
        for operand in OPERANDS_OF[name]:
            size = layer.shape_of(operand, samples)
            uneven = rng.random((1, size[1], 1, 1)) ** draw.choice([0, 1])
            masks[operand] = rng.random(size) < draw.choice([0.1, 0.3, 0.6, 1.0]) * uneven
        formats = {f"format_{it}": draw.choice(FORMATS) for it in ("weight", "act", "grad_out")}
        sizes = {f"buffer_{it}_kib": draw.choice([1, 1, 2]) for it in ("a", "b", "out")}
        types = {"dtype": draw.choice(["fp32", "bf16", "int8"])}
        yield LoweredOp(layer, name, **masks), MemoryConfig(**formats, **sizes, **types)


def of_random(number: int) -> str:
    found = []
    for op, config in random_ops(number, seed=1):
        try:
            found.append(above(op, config, every))
        except (ConfigError, WorkloadError):
            continue  # nothing fits
    return f"{len(found)} random ops, all blocks there are: {in_words(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--preset", action="append", choices=[name for name, _, _ in presets()])
    parser.add_argument("--ops", type=int, default=40)
    parser.add_argument("--random", type=int, default=300)
    given = parser.parse_args()
    print(of_random(given.random), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        synthesize(network("resnet50").layers, trace, policy=SwatU(0.9), batch=given.batch, seed=1)
        step = open_trace(trace).step(0)
        ops = [lower(step.op(layer, op)) for layer, op in step.ops()]
        distinct = list({shape_of(op): op for op in ops}.values())
        some = random.Random(1).sample(distinct, min(given.ops, len(distinct)))
        for name in given.preset or [name for name, _, _ in presets()]:
            config = swatsim.machine(name).config
            tried = in_words([above(op, config, even) for op in some])
            print(f"ResNet-50, batch {given.batch}, 90 %, {name}: {tried}; ", end="")
            print(share(trace, ops, name), flush=True)


if __name__ == "__main__":
    main()
