"""Compare the bytes of the blocks that are chosen with the fewest that any could move.

    python benchmarks/blocks.py [--batch 4]

Of every op of ResNet-50 (SWAT-U at 90 %) on every preset: by how much the chosen blocks move more
than a bound below all blocks of a fine grid, ceil(n / j) elements of an axis of n for every j, any
loop order. The bound is below the fewest: whether a block fits is judged by the mean of them.
Prints one line a preset.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import swatsim
from swatsim.policies import SwatU
from swatsim.simulator.machines import presets
from swatsim.simulator.mechanism import MachineConfig
from swatsim.simulator.memory.candidates import cut_axes, fine_extents, times_of
from swatsim.simulator.memory.config import ORDERS
from swatsim.simulator.memory.pipeline import LACKS, SUM_BYTES
from swatsim.simulator.memory.plan import buffers_of
from swatsim.simulator.memory.simulate import NO_DEMAND, simulate_memory
from swatsim.simulator.memory.stores import stores_of
from swatsim.simulator.memory.tensors import shape_of
from swatsim.tracefile import open_trace
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.networks import network
from swatsim.workload.value_types import DTYPES

#: Of tables of weight (k, c), act (c, n), grad_out (k, n): the axes among (k, c, n).
AXES = ((0, 1), (1, 2), (0, 2))


def bound(op: LoweredOp, config: MachineConfig) -> int:
    """Give bytes that no blocks of the fine grid can stay below."""
    shape = shape_of(op.layer, op.name, op.samples)
    ks, cs, ns = fine_extents(shape, "auto", "auto", "auto")
    rows, columns = cut_axes(shape, ks, cs, cs, ns)
    extents = np.array(ks), np.array(cs)
    k, c = (-(-size // it) for size, it in zip((shape.K, shape.C), extents, strict=True))
    n = columns[2 if shape.output != 1 else 1].blocks
    loops = k[:, None, None, None], c[None, :, None, None], n[None, None, :, None]
    fit, moved = np.bool_(True), np.int64(0)
    for tensor, store in enumerate(stores_of(op, shape, config, False)):
        name = f"buffer_{buffers_of(shape.output)[tensor]}_kib"
        limit = getattr(config, name) * 8 * 1024 // 2
        times = times_of(tuple(it[..., 0] for it in loops), ORDERS, LACKS[tensor])
        blocks = rows[tensor].blocks[:, None] * columns[tensor].blocks
        if tensor == shape.output:
            whole = int(rows[tensor].total[0] * columns[tensor].total[0]) * store.cell
            size = DTYPES[config.dtype] // 8 + 2 * SUM_BYTES * (times - 1)
            fits, part = whole * 8 * SUM_BYTES <= limit * blocks, whole * size
        else:
            fits = store.bits_in_all(rows[tensor], columns[tensor]) <= limit * blocks
            once, _ = store.bytes_in_all(rows[tensor], columns[tensor])
            part = np.expand_dims(once, 3 - sum(AXES[tensor]))[..., None] * times
        fit = fit & np.expand_dims(fits, 3 - sum(AXES[tensor]))
        moved = moved + part
    return int(np.where(fit[..., None], moved, 2**62).min())


def line(name: str, ops: list[LoweredOp]) -> str:
    config = swatsim.machine(name).config
    memory = [simulate_memory(op, NO_DEMAND, config).dram_bytes for op in ops]
    least = [bound(op, config) for op in ops]
    above = [chosen / below - 1 for chosen, below in zip(memory, least, strict=True)]
    far = sum(it > 1 / 64 for it in above)
    return (
        f"{name}: at most {100 * max(above):.1f} % above the bound, {far} of {len(ops)} ops above "
        f"1/64; all together {100 * (sum(memory) / sum(least) - 1):.2f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    batch = parser.parse_args().batch
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        synthesize(network("resnet50").layers, trace, policy=SwatU(0.9), batch=batch, seed=1)
        step = open_trace(trace).step(0)
        ops = [lower(step.op(layer, op)) for layer, op in step.ops()]
        for name, _, _ in presets():
            print(f"ResNet-50, batch {batch}, 90 %, {line(name, ops)}", flush=True)


if __name__ == "__main__":
    main()
