"""Time a sweep without a store, with an empty one, and with what that kept. Prints a line each.

    python benchmarks/speed/stored_sweep.py [SPEC]

By default the example sweep. Its points are done anew each time; CPU seconds are of all of its
processes, which each load the package. Kernels are compiled.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import swatsim
from swatsim.store import Where, open_store

EXAMPLE = Path(__file__).parents[1] / "sweep.toml"


class Taken(NamedTuple):
    """What a sweep took, and what it says."""

    wall: float
    cpu: float
    rows: list[dict[str, object]]


def cpu_seconds() -> float:
    both = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def run(spec: Path, store: Where) -> Taken:
    begun, before = time.perf_counter(), cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        rows = swatsim.sweep(spec, folder, store=store).rows
    return Taken(time.perf_counter() - begun, cpu_seconds() - before, rows)


def lines(spec: Path) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        run(spec, False)  # compiles, and fills the cache of the disk
        plain, first, second = run(spec, False), run(spec, folder), run(spec, folder)
        store = open_store(folder)
        assert store is not None
        size = store.size()
    assert plain.rows == first.rows == second.rows, "a store changed a figure"
    return [
        f"sweep of {len(plain.rows)} points, without a store: {plain.wall:.1f} s, "
        f"CPU {plain.cpu:.1f} s",
        f"with an empty one: {first.wall:.1f} s, CPU {first.cpu:.1f} s "
        f"({first.cpu / plain.cpu - 1:+.0%}); {size.entries} counts, {size.bytes / 2**20:.1f} MiB",
        f"again: {second.wall:.1f} s, CPU {second.cpu:.1f} s, "
        f"{first.cpu / second.cpu:.1f} times as little CPU as the first",
    ]


if __name__ == "__main__":
    print(*lines(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLE), sep="\n")
