"""Run the documentation's recipe for Ray on a Ray of this machine alone; kill one of its workers.

    pip install ray && python benchmarks/ray_node.py

The executor is the block of docs/howto/clusters.md, as it stands there. A Ray is started for it
and taken down again (`ray stop` ends any other of this machine too). While the sweep runs, a worker
at a task is killed (`kill -9`). Prints what became of it, and exits with 1 unless the results are
those of a pool of processes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import ray
from slurm_node import TRACE, rows_of, until

import swatsim

PAGE = Path(__file__).parents[1] / "docs/howto/clusters.md"
SWEEP = {
    "traces": [str(TRACE)],
    "steps": [0],
    "machines": [
        {"preset": "scale-sim-ws", "grid": {"rows": [4, 8], "dram": ["hbm2", "ddr4-3200"]}}
    ],
}
#: What Ray calls a process that is at a task of the recipe.
TASK = b"ray::<lambda>"
RAY = str(Path(sys.executable).with_name("ray"))


def recipe() -> type[Executor]:
    """Return the executor that the page has."""
    (block,) = re.findall(
        r"```python\n(import concurrent.futures, ray.*?)```", PAGE.read_text(), re.S
    )
    names: dict[str, type[Executor]] = {}
    exec(block.partition("ray.init")[0], names)
    return names["Ray"]


def at_a_task() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(TASK):
                found.append(int(process.name))
    return found


def disturb(killed: list[int]) -> None:
    until(at_a_task, "a worker at a task")
    killed.append(at_a_task()[0])
    os.kill(killed[0], signal.SIGKILL)


def on_ray(folder: Path) -> tuple[float, int]:
    """Sweep while a worker is killed; return wall seconds and the worker."""
    ray.init("auto", log_to_driver=False)
    killed: list[int] = []
    disturber = threading.Thread(target=disturb, args=(killed,))
    begun = time.monotonic()
    disturber.start()
    swatsim.sweep(SWEEP, folder, executor=recipe()(), workers=4, store=False)
    wall = time.monotonic() - begun
    disturber.join()
    ray.shutdown()
    return wall, killed[0]


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        plain, swept = Path(temporary) / "plain", Path(temporary) / "ray"
        swatsim.sweep(SWEEP, plain, store=False)
        subprocess.run([RAY, "start", "--head"], check=True, capture_output=True)
        try:
            wall, killed = on_ray(swept)
        finally:
            subprocess.run([RAY, "stop"], check=True, capture_output=True)
        ours, theirs = rows_of(swept), rows_of(plain)
    if ours != theirs:
        raise SystemExit(f"{len(ours)} points of {len(theirs)}, and not equal to a pool's")
    print(
        f"Ray {ray.__version__}, one node of {os.cpu_count()} CPUs: {len(ours)} points in "
        f"{wall:.0f} s; worker {killed} was killed; results equal a pool's"
    )


if __name__ == "__main__":
    main()
