"""Time kernels with pytest-benchmark: pytest benchmarks/speed."""

from __future__ import annotations

import numpy as np
import pytest

import swatsim
from swatsim.policies import topk_mask
from swatsim.simulator.machines import presets
from swatsim.workload.layer import OPERANDS_OF, OPS

DENSITY = {"weight": 0.2, "act": 0.4, "grad_out": 0.8}


@pytest.mark.parametrize("preset", [name for name, _, _ in presets()])
@pytest.mark.parametrize("name", OPS)
def test_convolution(benchmark, preset: str, name: str) -> None:
    rng = np.random.default_rng(5)
    layer = swatsim.Layer(name="c", C=64, K=64, H=56, W=56, R=3, S=3, padding=1)
    masks = {
        operand: rng.random(layer.shape_of(operand, 2)) < DENSITY[operand]
        for operand in OPERANDS_OF[name]
    }
    op, machine = swatsim.Op(layer, name, **masks), swatsim.machine(preset)
    expected = swatsim.simulate_op(op, machine)  # compiles
    assert benchmark(swatsim.simulate_op, op, machine) == expected


def test_top_k(benchmark) -> None:
    values = np.random.default_rng(5).standard_normal(2**22, dtype=np.float32)
    assert topk_mask(values, 2**19).sum() == 2**19  # compiles
    benchmark(topk_mask, values, 2**19)
