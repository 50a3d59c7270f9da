"""Measure the memory that an op takes to simulate, beside its bound, and write a page's table.

    python benchmarks/memory.py [CASE ..] [--presets NAME ..] [--ops NAME ..] [--limit SECONDS]

Takes what is known from memory.csv beside this script, and measures what is not; of cases that are
named all is measured anew (`all`: of every case). A row there is an op of a layer on a preset: by
how much a process grows at most that reads the op from a trace and simulates it with all of its
baselines, which CONTRIBUTING.md promises to be within `FREE` and `TIMES` its packed masks; and CPU
seconds. Exits with 1 if one is above, or is not done in time. Up to 3 GiB. Linux only.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import machine, put

import swatsim
from swatsim.errors import SwatsimError
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer, OpName
from swatsim.workload.windows import Mask

#: The bound: so many bytes, and so many times the packed masks.
FREE, TIMES = 256 * 2**20, 8
TABLE = Path(__file__).with_name("memory.csv")
#: Of each machine, and what lays ops out in a way of its own.
PRESETS = ["dadiannao", "bit-tactical", "tensordash", "scnn", "scnn-queued", "swat", "sparten"]
PRESETS += ["scale-sim-ws", "stc", "ideal"]
#: Of a case that takes long on each: one of each machine.
ONE_EACH = ["tensordash", "swat", "sparten", "scale-sim-ws", "stc", "ideal"]


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
    "taps": (_conv(C=4, K=4, W=6000, S=4096), 1, IMAGES),
    "image": (_conv(C=16, K=16, H=1024, W=1024, R=3, S=3, padding=1), 1, IMAGES),
    "plane": (_conv(C=1, K=1, H=16_384, W=1024, R=3, S=3, padding=1), 1, IMAGES),
    "kernel": (_conv(C=1, K=1, H=64, W=64, R=89, S=89, padding=44), 1, IMAGES),
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
    "points": (_conv(kind="linear", C=64, K=64), 393_216, SPARSE),
    "labels": (_conv(kind="linear", C=16, K=3_000_000), 1, SPARSE),
    "head": (_conv(kind="linear", C=8192, K=151_936), 1, SPARSE),
    "head, tokens": (_conv(C=8192, K=128_256, H=64), 1, SPARSE),
}
#: By default on `ONE_EACH` alone: with above a billion weights an op takes up to minutes.
LONG = {"head", "head, tokens"}
TINY = Layer(name="tiny", C=4, K=4, H=4, W=4, R=3, S=3, padding=1)
#: Beside linear layers, which may have many samples.
NARROW = Layer(name="tiny", C=4, K=4, kind="linear")


class Taken(NamedTuple):
    """What a process took: the bytes by which it grew at most, or none if it was not done; CPU."""

    peak: int | None
    seconds: float


class Row(NamedTuple):
    """An op on a preset: its packed masks, its peak in bytes (-1: not done), CPU seconds."""

    case: str
    op: str
    preset: str
    packed: int
    peak: int
    seconds: float

    @property
    def bound(self) -> int:
        """Bytes that it may take."""
        return FREE + TIMES * self.packed

    @property
    def share(self) -> float:
        """Of its bound."""
        return self.peak / self.bound if self.peak >= 0 else float("inf")


def main() -> int:
    arguments = _arguments()
    known = {row[:3]: row for row in load()}
    anew = set(CASES) if "all" in arguments.cases else set(arguments.cases)
    for case in CASES if anew in (set(), set(CASES)) else sorted(anew):
        presets = arguments.presets or (ONE_EACH if case in LONG else PRESETS)
        pairs = [(op, preset) for op in arguments.ops for preset in presets]
        todo = [pair for pair in pairs if case in anew or (case, *pair) not in known]
        for row in _measured(case, todo, arguments.limit):
            print(*row, f"{row.share:.0%}", flush=True)
            known[row[:3]] = row
            save(known.values())
    put("memory", lines(known.values()))
    return int(any(row.share > 1 for row in known.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(["all", *CASES]))
    parser.add_argument("--presets", nargs="*", help="by default of each machine one or all")
    parser.add_argument("--ops", nargs="*", default=list(OPS), choices=OPS)
    parser.add_argument("--limit", type=int, default=600, help="seconds that an op may take")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - {"all", *CASES}:
        parser.error(f"no case: {', '.join(sorted(unknown))}; there are all, {', '.join(CASES)}")
    return arguments


def load() -> Iterator[Row]:
    """Yield what is known."""
    if TABLE.exists():
        with TABLE.open(newline="") as file:
            for it in csv.DictReader(file):
                sizes = int(it["packed"]), int(it["peak"]), float(it["seconds"])
                yield Row(it["case"], it["op"], it["preset"], *sizes)


def save(rows: Iterable[Row]) -> None:
    """Write the table, in the order of cases, ops and presets."""
    order = [(case, op, preset) for case in CASES for op in OPS for preset in PRESETS]
    known = {row[:3]: row for row in rows}
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(known[key] for key in order if key in known)


def lines(rows: Iterable[Row]) -> Iterator[str]:
    """Write a row a case: what comes nearest to its bound, and what all of its ops take."""
    known = list(rows)
    yield f"On {machine()}:\n"
    yield "| layer | batch | ops on presets | of its bound | MiB | of MiB | which | all: CPU s |"
    yield "|---|---:|---:|---:|---:|---:|---|---:|"
    for case, (layer, samples, _) in CASES.items():
        own = [row for row in known if row.case == case]
        if own:
            most = max(own, key=lambda row: row.share)
            seconds = sum(row.seconds for row in own)
            pairs = f"{len(own)} of {len(OPS) * len(ONE_EACH if case in LONG else PRESETS)}"
            head = f"| {case}: {_words(layer)} | {samples} | {pairs} "
            yield f"{head}| {_cells(most)} | {seconds:.0f} |"
    without = ", ".join(f"`{it}`" for it in PRESETS if it not in ONE_EACH)
    long = " and ".join(f"*{it}*" for it in CASES if it in LONG)
    yield f"\nPresets: {', '.join(f'`{it}`' for it in PRESETS)}; {long}, whose ops take up to"
    yield f"minutes on each, without {without}."


def _words(layer: Layer) -> str:
    """Return a layer's shape in a few words."""
    if layer.kind == "linear":
        return f"{layer.C:,} to {layer.K:,}"
    of = f", {layer.groups} groups" if layer.groups > 1 else ""
    return f"{layer.R} x {layer.S} on {layer.H} x {layer.W}, {layer.C} to {layer.K}{of}"


def _cells(row: Row) -> str:
    which = f"{row.op}, `{row.preset}`"
    if row.peak < 0:
        return f"not done | | {row.bound / 2**20:.0f} | {which}"
    return f"{row.share:.0%} | {row.peak / 2**20:.0f} | {row.bound / 2**20:.0f} | {which}"


def _measured(case: str, todo: Sequence[tuple[OpName, str]], limit: int) -> Iterator[Row]:
    """Yield what ops of a case take on presets, in this order."""
    layer, samples, densities = CASES[case]
    for name in dict.fromkeys(op for op, _ in todo):
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / name
            in_a_process(partial(write, trace, layer, samples, name, densities), limit)
            packed = sum(-(-prod(layer.shape_of(it, samples)) // 8) for it in OPERANDS_OF[name])
            for preset in (preset for op, preset in todo if op == name):
                _simulate(trace, preset, name, 0)
                taken = in_a_process(partial(_simulate, trace, preset, name, 1), limit)
                peak = -1 if taken.peak is None else taken.peak
                yield Row(case, name, preset, packed, peak, round(taken.seconds, 1))


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
    rng, tiny = np.random.default_rng(3), NARROW if layer.kind == "linear" else TINY
    with swatsim.Recorder(path, batch_size=samples) as recorder:
        for one in (layer, tiny):
            recorder.declare(one)
        for number, one in enumerate((tiny, layer)):
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
