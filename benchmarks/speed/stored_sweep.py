"""Measure what the store takes and spares, for the page of it: a sweep, and a run.

    python benchmarks/speed/stored_sweep.py [SPEC]

A sweep without a store, with an empty one, and with what that kept, its points done anew each time:
`stored_sweep.toml`, or SPEC, of which lines are printed and no page is written. Of a run, the
shipped trace on a machine with an empty store, over the same without one: pairs of processes that
alternate. CPU seconds are of all processes, which each load the package. Kernels are compiled.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import TRACE, machine, put

import swatsim
from swatsim.store import Where, open_store

SPEC = Path(__file__).with_suffix(".toml")
MACHINES = ("tensordash", "swat")
PAIRS = 5


class Taken(NamedTuple):
    """CPU seconds that a sweep took, and what it says."""

    cpu: float
    rows: list[dict[str, object]]


def cpu_seconds() -> float:
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def run(spec: Path, store: Where) -> Taken:
    before = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        rows = swatsim.sweep(spec, folder, store=store).rows
    return Taken(cpu_seconds() - before, rows)


def of_sweep(spec: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        run(spec, False)  # compiles, and fills the cache of the disk
        plain, first, second = run(spec, False), run(spec, folder), run(spec, folder)
        store = open_store(folder)
        assert store is not None
        size = store.size()
    assert plain.rows == first.rows == second.rows, "a store changed a figure"
    yield f"- sweep of {len(plain.rows)} points, without a store: CPU {plain.cpu:.1f} s"
    yield (
        f"- with an empty one: CPU {first.cpu:.1f} s, {first.cpu / plain.cpu:.2f} times as much; "
        f"it has {size.entries} entries then, {size.bytes / 2**20:.1f} MiB"
    )
    yield f"- again: CPU {second.cpu:.1f} s, {second.cpu / first.cpu:.2f} times the first"


def of_runs(name: str) -> str:
    """Return what a run on a machine takes with an empty store, over one without."""
    simulated(name, "")
    pairs = list[tuple[float, float]]()
    for _ in range(PAIRS):
        with tempfile.TemporaryDirectory() as store:
            pairs.append((simulated(name, store), simulated(name, "")))
    ratios = sorted(stored / plain for stored, plain in pairs)
    seconds = median(plain for _, plain in pairs)
    return (
        f"- the shipped trace on `{name}`, without a store: CPU {seconds:.1f} s; with an empty one "
        f"{median(ratios):.3f} times as much, median of {PAIRS} pairs "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def simulated(name: str, store: str) -> float:
    """Return the CPU seconds of a process that simulates the shipped trace."""
    before = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "swatsim", "simulate", TRACE, "-m", name, "-o", folder],
            env={**os.environ, "SWATSIM_STORE": store},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return cpu_seconds() - before


def lines() -> Iterator[str]:
    yield f"On {machine()}:\n"
    yield from of_sweep(SPEC)
    yield from map(of_runs, MACHINES)


def main() -> None:
    if len(sys.argv) > 1:
        print(*of_sweep(Path(sys.argv[1])), sep="\n")
        return
    found = list(lines())
    put("stored-sweep", found)
    print(*found, sep="\n")


if __name__ == "__main__":
    main()
