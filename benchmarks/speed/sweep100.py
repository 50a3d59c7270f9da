"""Time the example sweep, a hundred machines and more on the shipped trace. Prints one line.

    python benchmarks/speed/sweep100.py

A pool of processes, one a core; kernels compiled. All recorded steps are simulated.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import swatsim
from swatsim.sweeps.run import Plan

SPEC = Path(__file__).parents[1] / "sweep.toml"


def line() -> str:
    counted: list[Plan] = []
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        found = swatsim.sweep(SPEC, folder, announce=counted.append, store=False)
        wall = time.perf_counter() - begin
    done = len(found.rows) - len(found.failed)
    return (
        f"sweep of {done} machines on the shipped trace (6 steps), {len(counted[0].groups)} "
        f"different computations: {wall:.0f} s on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    swatsim.simulate(SPEC.parents[1] / "traces/resnet8-fashion-mnist-swat-u-80", "tensordash")
    print(line())
