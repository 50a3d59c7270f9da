"""Time the README's main job in fresh processes: nothing cached, then cached. Prints one line.

    python benchmarks/speed/first_run.py [--write]

Wall and CPU seconds of the whole process, start-up, tables, files and plots included; peak memory.
The second figure is the median of five. --write puts the line into the README.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from readme import ROOT, TRACE, replace

RUNS = 5


def run(cache: str, output: str) -> tuple[float, float]:
    """Give wall and CPU seconds of one process."""
    command = [sys.executable, "-m", "swatsim", "simulate", str(TRACE), "-m", "tensordash"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(
        [*command, "-o", output],
        env={**os.environ, "SWATSIM_CACHE_DIR": cache},
        check=True,
        capture_output=True,
    )
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as output:
        first = run(cache, output)
        later = [run(cache, output) for _ in range(RUNS)]
    wall, cpu = (statistics.median(column) for column in zip(*later, strict=True))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    line = (
        f"First run {first[0]:.1f} s (CPU {first[1]:.1f} s), later runs {wall:.2f} s "
        f"(CPU {cpu:.2f} s), peak {peak:.0f} MiB; {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}"
    )
    print(line)
    if "--write" in sys.argv[1:]:
        readme = ROOT / "README.md"
        readme.write_text(replace(readme.read_text(), "speed", iter([line])))


if __name__ == "__main__":
    main()
