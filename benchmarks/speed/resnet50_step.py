"""Time a whole training step of ResNet-50, exact, from a trace on disk. Prints one line.

    python benchmarks/speed/resnet50_step.py --batch 32 --machine swat [--growth]

Synthesizes the trace (SWAT-U), then simulates it in a fresh process: three ops of 53 convolutions
and the linear layer, on the machine and on its dense baselines. Kernels are compiled and imports
done before the clock starts; reading the trace is timed. --growth prints a table instead: how the
time grows with the batch, and with twice the filters.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from swatsim.policies import SwatU
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import Layer
from swatsim.workload.networks import network

CHILD = """
import json, sys, time, swatsim
trace, machine, warm = sys.argv[1:]
swatsim.simulate(warm, machine, store=False)
begin, cpu = time.perf_counter(), time.process_time()
results = swatsim.simulate(trace, machine, store=False)
wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
mine = [row for row in results.rows if row["role"] == "machine"]
print(json.dumps({
    "wall": wall, "cpu": cpu,
    # not ru_maxrss: it is inherited from the process that made the trace
    "peak": int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024,
    "cycles": sum(row["cycles_compute"] for row in mine),
    "macs": sum(row["macs_dense"] for row in mine),
}))
"""


def record(folder: Path, name: str, layers: tuple[Layer, ...], batch: int, sparsity: float) -> Path:
    path = folder / name
    synthesize(layers, path, policy=SwatU(sparsity), batch=batch, seed=1)
    return path


def measure(trace: Path, machine: str, warm: Path) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, str(trace), machine, str(warm)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def line(batch: int, machine: str, sparsity: float, found: dict[str, float]) -> str:
    return (
        f"ResNet-50, batch {batch}, SWAT-U {sparsity:.0%}, {machine}: CPU {found['cpu']:.1f} s, "
        f"wall {found['wall']:.1f} s, peak {found['peak']:.0f} MiB, "
        f"{found['cycles']:,.0f} cycles, {found['macs'] / found['wall'] / 1e9:.0f} G simulated "
        "MAC/s"
    )


def twice_the_filters(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    return tuple(layer.model_copy(update={"K": 2 * layer.K}) for layer in layers)


def growth(folder: Path, machine: str, sparsity: float, warm: Path) -> Iterator[str]:
    layers = network("resnet50").layers
    cases = {f"batch {batch}": (layers, batch) for batch in (1, 2, 4, 8, 16, 32)}
    cases["batch 8, filters x2"] = (twice_the_filters(layers), 8)
    yield "| | CPU s | wall s | peak MiB | CPU ms / image |\n|---|---:|---:|---:|---:|"
    for name, (table, batch) in cases.items():
        trace = record(folder, name.replace(" ", "-"), table, batch, sparsity)
        found = measure(trace, machine, warm)
        per_image = 1000 * found["cpu"] / batch
        numbers = f"{found['cpu']:.1f} | {found['wall']:.1f} | {found['peak']:.0f}"
        yield f"| {name} | {numbers} | {per_image:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--machine", default="swat")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--growth", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        warm = record(folder, "warm", network("resnet8").layers, 1, chosen.sparsity)
        if chosen.growth:
            for row in growth(folder, chosen.machine, chosen.sparsity, warm):
                print(row, flush=True)
            return
        layers = network("resnet50").layers
        trace = record(folder, "trace", layers, chosen.batch, chosen.sparsity)
        found = measure(trace, chosen.machine, warm)
        print(line(chosen.batch, chosen.machine, chosen.sparsity, found))


if __name__ == "__main__":
    main()
