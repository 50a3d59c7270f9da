"""Measure the memory that an op takes to simulate, on every preset, beside its bound.

    python benchmarks/memory.py [CASE ..] [--presets NAME ..] [--ops NAME ..]

A row is an op of a layer on a preset: by how much a process grows at most that reads the op from a
trace and simulates it with all of its baselines; its masks, packed; and what is above `FREE`, in
these. Exits with 1 if that is more than `TIMES`, which CONTRIBUTING.md promises. An hour, up to 2
GiB; Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import swatsim
from swatsim.simulator.machines import presets
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer, OpName
from swatsim.workload.windows import Mask

#: The bound: so many bytes, and so many times the packed masks.
FREE, TIMES = 256 * 2**20, 8


def _conv(**sizes: Any) -> Layer:
    return Layer(name="layer", **sizes)


WEIGHTS, IMAGES = {"weight": 0.1}, {"act": 0.1, "grad_out": 0.1}

#: Of each case: its layer, samples, and what of its operands is not half zero.
CASES: dict[str, tuple[Layer, int, dict[str, float]]] = {
    "depthwise": (_conv(C=128, K=128, groups=128, H=56, W=56, R=31, S=31, padding=15), 1, IMAGES),
    "conv1d": (_conv(C=64, K=64, W=8192, S=1024, padding=((0, 0), (511, 512))), 1, IMAGES),
    "image": (_conv(C=32, K=32, H=1024, W=1024, R=3, S=3, padding=1), 1, IMAGES),
    "unet": (_conv(C=64, K=64, H=1024, W=1024, R=3, S=3, padding=1), 1, IMAGES),
    "plane": (_conv(C=1, K=1, H=16384, W=1024, R=3, S=3, padding=1), 1, {}),
    "kernel": (_conv(C=1, K=1, H=64, W=64, R=131, S=131, padding=65), 1, IMAGES),
    "stem": (_conv(C=3, K=32, H=1024, W=1024, R=7, S=7, stride=2, padding=3), 8, WEIGHTS),
    "batch": (_conv(C=256, K=64, H=56, W=56), 128, WEIGHTS),
    "grouped": (_conv(C=256, K=256, groups=32, H=56, W=56, R=3, S=3, padding=1), 64, IMAGES),
    "strided": (_conv(C=128, K=128, H=112, W=112, R=3, S=3, stride=2, padding=1), 32, IMAGES),
    "dilated": (_conv(C=128, K=128, H=64, W=64, R=3, S=3, padding=8, dilation=8), 32, IMAGES),
    "transposed": (
        _conv(kind="conv_transpose", C=64, K=64, H=128, W=128, R=4, S=4, stride=2, padding=1),
        4,
        IMAGES,
    ),
    "scores": (_conv(kind="matmul", C=8 * 64, K=8 * 2048, H=2048, groups=8), 2, IMAGES),
    "tokens": (_conv(kind="linear", C=4096, K=4096), 2048, IMAGES),
    "head": (_conv(kind="linear", C=8192, K=128_256), 16, WEIGHTS),
    "largest": (_conv(kind="linear", C=8192, K=151_936), 16, WEIGHTS),
}
TINY = Layer(name="tiny", C=4, K=4, H=4, W=4, R=3, S=3, padding=1)


def main() -> int:
    arguments = _arguments()
    print(f"{'case':12} {'op':6} {'preset':16} {'MiB':>6} {'packed':>7} {'times':>6} {'s':>6}")
    above = 0
    for case in arguments.cases or CASES:
        with tempfile.TemporaryDirectory() as folder:
            for name, preset, peak, packed, seconds in _measured(case, arguments, Path(folder)):
                times = (peak - FREE) / packed
                above += times > TIMES
                sizes = f"{peak / 2**20:6.0f} {packed / 2**20:7.1f} {times:6.1f} {seconds:6.1f}"
                mark = "  ABOVE" if times > TIMES else ""
                print(f"{case:12} {name:6} {preset:16} {sizes}{mark}", flush=True)
    return int(above > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--presets", nargs="*", default=[name for name, _, _ in presets()])
    parser.add_argument("--ops", nargs="*", default=OPS, choices=OPS)
    return parser.parse_args()


def _measured(
    case: str, arguments: argparse.Namespace, folder: Path
) -> Iterator[tuple[OpName, str, int, int, float]]:
    """Yield op, preset, the peak in bytes, packed masks in bytes, and seconds."""
    layer, samples, densities = CASES[case]
    for name in arguments.ops:
        trace = folder / name
        in_a_process(partial(write, trace, layer, samples, name, densities))
        packed = sum(-(-prod(layer.shape_of(it, samples)) // 8) for it in OPERANDS_OF[name])
        for preset in arguments.presets:
            _simulate(trace, preset, name, 0)
            begin = time.perf_counter()
            peak = in_a_process(partial(_simulate, trace, preset, name, 1))
            yield name, preset, peak, packed, time.perf_counter() - begin


def in_a_process(function: Callable[[], object]) -> int:
    """Return by how many bytes a copy of this process grows at most that calls a function."""
    read, written = os.pipe()
    if not (child := os.fork()):
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
            before = _memory("VmRSS")
            function()
            os.write(written, str(_memory("VmHWM") - before).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(written)
    with os.fdopen(read) as pipe:
        return int(pipe.read())


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
