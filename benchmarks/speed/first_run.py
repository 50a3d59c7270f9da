"""Time the README's main job in fresh processes: nothing cached, then cached. Prints one line.

    python benchmarks/speed/first_run.py [MACHINE]

Wall and CPU seconds of the whole process, start-up, tables, files and plots included; peak memory.
The second figure is the median of five, which find compiled kernels and what the first counted and
drew. Python keeps its own compiled code, as it does where swatsim is installed.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import TRACE

RUNS = 5


def environment(cache: Path) -> dict[str, str]:
    """Return the environment of a process that finds nothing but what others left in a folder.

    A store that this process is told to use would have counted it all before, and one that it is
    told not to use would keep nothing.
    """
    own = {"SWATSIM_CACHE_DIR": str(cache), "SWATSIM_STORE": str(cache / "store")}
    kept = {name: it for name, it in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **own}


def run(machine: str, cache: str, output: str) -> tuple[float, float]:
    """Give wall and CPU seconds of one process."""
    command = [sys.executable, "-m", "swatsim", "simulate", str(TRACE), "-m", machine]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(
        [*command, "-o", output],
        env=environment(Path(cache)),
        check=True,
        capture_output=True,
    )
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def line(machine: str) -> str:
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as output:
        first = run(machine, cache, output)
        later = [run(machine, cache, output) for _ in range(RUNS)]
    wall, cpu = (statistics.median(column) for column in zip(*later, strict=True))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return (
        f"shipped trace, {machine}: first run {first[0]:.1f} s (CPU {first[1]:.1f} s), later runs "
        f"{wall:.1f} s (CPU {cpu:.1f} s), peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    print(line(sys.argv[1] if len(sys.argv) > 1 else "tensordash"))
