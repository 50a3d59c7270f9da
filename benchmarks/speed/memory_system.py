"""Measure what the memory system and the energy add to a simulation. Prints one line a machine.

    python benchmarks/speed/memory_system.py [--batch 32]

ResNet-50, 90 %, three ops, from disk, in one process: CPU seconds with the memory system by those
without, the median of the ratios of pairs that follow one another.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import swatsim
from swatsim.policies import SwatU
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.networks import network

MACHINES = ("bit-tactical", "tensordash", "swat")
PAIRS = 5


def cpu_seconds(trace: Path, machine: str, memory: str) -> float:
    begin = time.process_time()
    swatsim.simulate(trace, swatsim.machine(machine, memory=memory), store=False)
    return time.process_time() - begin


def line(trace: Path, machine: str) -> str:
    cpu_seconds(trace, machine, "modelled")  # compiles, and fills the cache of the disk
    pairs = [
        (cpu_seconds(trace, machine, "modelled"), cpu_seconds(trace, machine, "none"))
        for _ in range(PAIRS)
    ]
    ratio = statistics.median(modelled / alone for modelled, alone in pairs)
    modelled, alone = (statistics.median(times) for times in zip(*pairs, strict=True))
    return (
        f"{machine}: memory system and energy add {100 * (ratio - 1):.0f} % ({modelled:.2f} CPU s "
        f"against {alone:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    batch = parser.parse_args().batch
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        synthesize(network("resnet50").layers, trace, policy=SwatU(0.9), batch=batch, seed=1)
        for machine in MACHINES:
            print(f"ResNet-50, batch {batch}, 90 %, {line(trace, machine)}", flush=True)


if __name__ == "__main__":
    main()
