"""Measure what the verbs take of long runs: CPU seconds and peak memory of a process of each.

    python benchmarks/long_runs.py [--steps 100 1000 10000] [--layers 20 200 2000] [--verbs info ..]

Traces are of tiny linear layers: many steps of the first number of layers, and one step of each of
the other numbers of layers. All steps of a trace are one file, linked. `report` and `estimate` read
the results that `simulate` wrote, two rows an op. Prints one line a size and verb: both should grow
as the rows do, and no faster.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from swatsim.policies import SwatU
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import Layer

VERBS = ("info", "check", "simulate", "report", "estimate")
MACHINE = "scale-sim-ws"


def make(folder: Path, steps: int, layers: int) -> Path:
    """Write a trace of so many equal steps."""
    trace = folder / f"{steps}x{layers}"
    every = [Layer(name=f"fc{i}", kind="linear", C=8, K=8) for i in range(layers)]
    synthesize(every, trace, policy=SwatU(0.5), batch=2, seed=1)
    first = trace / "steps" / "0.safetensors"
    for number in range(1, steps):
        os.link(first, first.with_name(f"{number}.safetensors"))
    return trace


def command(verb: str, trace: Path) -> list[str]:
    results = str(trace.with_name(f"{trace.name}.results"))
    more = {
        "info": [str(trace)],
        "check": [str(trace)],
        "simulate": [str(trace), "-m", MACHINE, "-o", results],
        "report": [results],
        "estimate": [results, "--run-steps", "100000"],
    }
    return [sys.executable, "-m", "swatsim", verb, *more[verb]]


def measured(words: list[str]) -> tuple[float, float, int]:
    """Run a command; return its CPU seconds, its peak memory in MiB, its exit status."""
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(run.pid, 0)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--layers", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=VERBS)
    given = parser.parse_args()
    sizes = [(steps, given.layers[0]) for steps in given.steps]
    sizes += [(1, layers) for layers in given.layers[1:]]
    with tempfile.TemporaryDirectory() as folder:
        for steps, layers in sizes:
            trace = make(Path(folder), steps, layers)
            for verb in given.verbs:
                seconds, peak, status = measured(command(verb, trace))
                failed = f", exit status {status}" if status else ""
                print(
                    f"{steps} steps of {layers} layers, {verb}: {seconds:.1f} CPU s, "
                    f"{peak:.0f} MiB{failed}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
