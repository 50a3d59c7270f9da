"""Measure the memory that an op takes to simulate, beside its bound.

    python benchmarks/memory.py [CASE ..] [--presets NAME ..] [--ops NAME ..] [--limit SECONDS]

A row is an op of a layer on a preset: by how much a process grows at most that reads the op from a
trace and simulates it with all of its baselines; its bound, `FREE` and `TIMES` its packed masks,
which CONTRIBUTING.md promises; and CPU seconds. Exits with 1 if one is above, or is not done in
time. By default on one preset of each kind of machine; up to 2 GiB. Linux only.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import swatsim
from swatsim.errors import SwatsimError
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer, OpName
from swatsim.workload.windows import Mask

#: The bound: so many bytes, and so many times the packed masks.
FREE, TIMES = 256 * 2**20, 8
#: One of each kind of machine, and what lays ops out in a way of its own.
PRESETS = ["dadiannao", "tensordash", "swat", "scnn-queued", "sparten", "scale-sim-ws", "stc"]
PRESETS += ["ideal"]


def _conv(**sizes: Any) -> Layer:
    return Layer(name="layer", **sizes)


WEIGHTS, IMAGES = {"weight": 0.1}, {"act": 0.1, "grad_out": 0.1}
SPARSE = WEIGHTS | IMAGES

#: Of each case: its layer, samples, and what of its operands is not half zero.
CASES: dict[str, tuple[Layer, int, dict[str, float]]] = {
    "depthwise": (_conv(C=128, K=128, groups=128, H=56, W=56, R=31, S=31, padding=15), 1, IMAGES),
    "conv1d": (_conv(C=16, K=16, W=8192, S=1024, padding=((0, 0), (511, 512))), 1, IMAGES),
    "conv1d, dilated": (
        _conv(C=8, K=8, W=4096, S=1024, dilation=(1, 2), stride=(1, 2)),
        1,
        IMAGES,
    ),
    "image": (_conv(C=16, K=16, H=1024, W=1024, R=3, S=3, padding=1), 1, IMAGES),
    "plane": (_conv(C=1, K=1, H=16_384, W=1024, R=3, S=3, padding=1), 1, IMAGES),
    "kernel": (_conv(C=1, K=1, H=64, W=64, R=131, S=131, padding=65), 1, IMAGES),
    "stem": (_conv(C=3, K=16, H=1024, W=1024, R=7, S=7, stride=2, padding=3), 2, WEIGHTS),
    "batch": (_conv(C=256, K=64, H=56, W=56), 64, WEIGHTS),
    "grouped": (_conv(C=256, K=256, groups=32, H=56, W=56, R=3, S=3, padding=1), 32, IMAGES),
    "strided": (_conv(C=64, K=64, H=112, W=112, R=3, S=3, stride=2, padding=1), 16, IMAGES),
    "transposed": (
        _conv(kind="conv_transpose", C=32, K=32, H=128, W=128, R=4, S=4, stride=2, padding=1),
        2,
        IMAGES,
    ),
    "scores": (_conv(kind="matmul", C=64, K=16_384, H=16_384), 1, SPARSE),
    "tokens": (_conv(C=2048, K=2048, H=2048), 1, SPARSE),
    "head": (_conv(kind="linear", C=8192, K=128_256), 1, SPARSE),
    "largest": (_conv(kind="linear", C=8192, K=151_936), 1, SPARSE),
    "head, tokens": (_conv(C=8192, K=128_256, H=64), 1, SPARSE),
}
TINY = Layer(name="tiny", C=4, K=4, H=4, W=4, R=3, S=3, padding=1)


class Taken(NamedTuple):
    """What a process took: the bytes by which it grew at most, or none if it was not done; CPU."""

    peak: int | None
    seconds: float


def main() -> int:
    arguments = _arguments()
    print("| case | op | preset | MiB | bound | CPU s |\n|---|---|---|---:|---:|---:|")
    above = 0
    for case in arguments.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            for name, preset, packed, taken in _measured(case, arguments, Path(folder)):
                bound = FREE + TIMES * packed
                above += taken.peak is None or taken.peak > bound
                peak = "not done" if taken.peak is None else f"{taken.peak / 2**20:.0f}"
                sizes = f"{peak} | {bound / 2**20:.0f} | {taken.seconds:.1f}"
                print(f"| {case} | {name} | {preset} | {sizes} |", flush=True)
    return int(above > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--presets", nargs="*", default=PRESETS)
    parser.add_argument("--ops", nargs="*", default=list(OPS), choices=OPS)
    parser.add_argument("--limit", type=int, default=600, help="seconds that an op may take")
    return parser.parse_args()


def _measured(
    case: str, arguments: argparse.Namespace, folder: Path
) -> Iterator[tuple[OpName, str, int, Taken]]:
    """Yield op, preset, packed masks in bytes, and what it took."""
    layer, samples, densities = CASES[case]
    for name in arguments.ops:
        trace = folder / name
        in_a_process(partial(write, trace, layer, samples, name, densities), arguments.limit)
        packed = sum(-(-prod(layer.shape_of(it, samples)) // 8) for it in OPERANDS_OF[name])
        for preset in arguments.presets:
            _simulate(trace, preset, name, 0)
            run = partial(_simulate, trace, preset, name, 1)
            yield name, preset, packed, in_a_process(run, arguments.limit)


def in_a_process(function: Callable[[], object], limit: int) -> Taken:
    """Return what a copy of this process takes that calls a function, for so many seconds."""
    read, written = os.pipe()
    if not (child := os.fork()):
        try:
            signal.alarm(limit)
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
            before = _memory("VmRSS")
            function()
            os.write(written, str(_memory("VmHWM") - before).encode())
        except (SwatsimError, MemoryError):
            traceback.print_exc()
        finally:
            os._exit(0)
    _, _, used = os.wait4(child, 0)
    os.close(written)
    with os.fdopen(read) as pipe:
        peak = pipe.read()
    return Taken(int(peak) if peak else None, used.ru_utime + used.ru_stime)


def _simulate(path: Path, preset: str, name: OpName, step: int) -> None:
    swatsim.simulate(
        str(path), preset, steps=(step,), ops=(name,), layers_only=True, store=False, workers=1
    )


def write(
    path: Path, layer: Layer, samples: int, name: OpName, densities: Mapping[str, float]
) -> None:
    """Write a trace of one op of a layer, and of the same one of a tiny layer."""
    rng = np.random.default_rng(3)
    with swatsim.Recorder(path, batch_size=samples) as recorder:
        for one in (layer, TINY):
            recorder.declare(one)
        for number, one in enumerate((TINY, layer)):
            with recorder.step(number) as step:
                for it in OPERANDS_OF[name]:
                    mask = _drawn(rng, one.shape_of(it, samples), densities.get(it, 0.5))
                    step.operand(one.name, name, it, mask)


def _drawn(rng: np.random.Generator, shape: Sequence[int], density: float) -> Mask:
    """Return a mask, drawn in pieces: as random numbers it would be large."""
    mask = np.empty(prod(shape), np.bool_)
    for first in range(0, mask.size, 2**24):
        some = mask[first : first + 2**24]
        some[:] = rng.integers(0, 256, some.size, np.uint8) < round(256 * density)
    return mask.reshape(shape)


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    sys.exit(main())
