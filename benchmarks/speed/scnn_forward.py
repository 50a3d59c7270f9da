"""Time SCNN's forward pass of ResNet-50's 53 convolutions, 90 %. Prints one line.

    python benchmarks/speed/scnn_forward.py [--batch 8]

The cases that DNNsim was timed on. CPU seconds of the simulation alone: masks in memory, kernels
compiled, no baselines; the least of several runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import swatsim
from swatsim.policies import SwatU
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.networks import network

SPARSITY, RUNS = 0.9, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1)
    batch = parser.parse_args().batch
    layers = [layer for layer in network("resnet50").layers if layer.kind == "conv"]
    machine = swatsim.machine("scnn")
    with tempfile.TemporaryDirectory() as folder:
        trace = synthesize(layers, Path(folder) / "t", policy=SwatU(SPARSITY), batch=batch, seed=1)
        step = trace.step(0)
        seconds = []
        for _ in range(RUNS):
            ops = [step.op(layer, "fprop") for layer in layers]  # anew: an op remembers its MACs
            begin = time.process_time()
            cycles = sum(swatsim.simulate_op(op, machine).cycles_compute for op in ops)
            seconds.append(time.process_time() - begin)
    print(
        f"scnn, forward, batch {batch}, {SPARSITY:.0%}: CPU {min(seconds):.2f} s, {cycles:,} cycles"
    )


if __name__ == "__main__":
    main()
