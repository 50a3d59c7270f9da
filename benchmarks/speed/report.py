"""Measure what a page says of speed, on the machine at hand, and write it there.

    python benchmarks/speed/report.py

Some minutes on two cores. CPU seconds say more than wall seconds on a machine that is shared.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import first_run
import memory_system
import resnet50_step
import sweep100
from pages import machine, put

from swatsim.policies import topk_mask
from swatsim.workload.networks import network

BATCH, SPARSITY = 32, 0.9
MACHINES = ("swat", "tensordash", "bit-tactical")


def top_k() -> str:
    values = np.random.default_rng(1).standard_normal(25_700_000, dtype=np.float32)
    topk_mask(values[:1000], 100)
    begin = time.process_time()
    topk_mask(values, values.size // 5)
    rate = values.size / (time.process_time() - begin) / 1e6
    return f"exact Top-K of {values.size / 1e6:.1f} M floats: {rate:.0f} M elements/s on one core"


def lines() -> Iterator[str]:
    yield f"On {machine()}:\n"
    for name in ("tensordash", "swat"):
        yield f"- {first_run.line(name)}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        small, large = network("resnet8").layers, network("resnet50").layers
        warm = resnet50_step.record(folder, "warm", small, 1, SPARSITY)
        trace = resnet50_step.record(folder, "trace", large, BATCH, SPARSITY)
        for name in MACHINES:
            found = resnet50_step.measure(trace, name, warm)
            yield f"- {resnet50_step.line(BATCH, name, SPARSITY, found)}"
        for name in memory_system.MACHINES:
            yield f"- the same trace, {memory_system.line(trace, name)}"
        yield f"- {sweep100.line()}"
        yield f"- {top_k()}\n"
        yield f"How `swat` grows, ResNet-50 at {SPARSITY:.0%}:\n"
        yield from resnet50_step.growth(folder, "swat", SPARSITY, warm)


if __name__ == "__main__":
    found = list(lines())
    put("speed", found)
    print("\n".join(found))
