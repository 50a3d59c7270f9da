"""The bound of all that skip zeros: cases counted by hand, and nothing passes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.errors import ConfigError
from swatsim.simulator.machines import MACHINES, presets
from swatsim.simulator.machines.ideal import IDEAL
from swatsim.simulator.mechanism import Mechanism
from swatsim.workload.layer import Layer
from tests.pictures import unpainted
from tests.strategies import CONFIGS, ops
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace

#: 3 x 3 pixels, padding all around: of 81 products of a filter and a channel 49 are inside.
LAYER = Layer(name="x", C=1, K=2, H=3, W=3, R=3, S=3, padding=1)


def padded() -> swatsim.LoweredOp:
    """Return an fprop: the middle tap of one filter, all of the other; one pixel, the middle."""
    weight = np.ones((2, 1, 3, 3), bool)
    weight[0] = False
    weight[0, 0, 1, 1] = True
    act = np.zeros((1, 1, 3, 3), bool)
    act[0, 0, 1, 1] = True
    return swatsim.LoweredOp(LAYER, "fprop", weight=weight, act=act)


@pytest.mark.parametrize(
    ("preset", "products", "words"),
    [
        # the middle pixel meets each of ten taps once
        ("ideal", 10, (10, 1)),
        # the middle tap meets nine pixels inside
        ("ideal-weight", 9 + 49, (10, 9)),
        # the middle pixel meets all taps of two filters
        ("ideal-act", 18, (18, 1)),
        # fprop reads no gradients
        ("ideal-grad-out", 98, (18, 9)),
    ],
)
def test_by_hand(preset: str, products: int, words: tuple[int, int]) -> None:
    machine = swatsim.machine(preset, multipliers=4)
    found = machine.simulate_op(padded())
    assert found.cycles_compute == -(-products // 4)
    assert (found.pes, found.lanes) == (1, 4)
    assert found.lane_cycles_effectual == 10
    assert found.lane_cycles_ineffectual == products - 10
    assert (found.words_a, found.words_b) == words
    dense = machine.simulate_dense(padded())
    assert dense.cycles_compute == -(-2 * 81 // 4)
    assert (dense.words_a, dense.words_b) == (18, 9)


def test_a_transposed_convolutions_operands_have_its_own_names() -> None:
    layer = Layer(name="x", kind="conv_transpose", C=2, K=3, H=2, W=2, R=2, S=2, stride=2)
    act = np.zeros((1, 2, 2, 2), bool)
    act[0, 0, 0, 0] = True
    weight = np.ones((2, 3, 2, 2), bool)
    op = swatsim.lower(swatsim.Op(layer, "fprop", weight=weight, act=act))
    found = {
        preset: swatsim.machine(preset, multipliers=1).simulate_op(op).cycles_compute
        for preset, _, _ in presets([IDEAL])
    }
    assert found == {"ideal": 12, "ideal-act": 12, "ideal-weight": 96, "ideal-grad-out": 96}


@pytest.mark.parametrize("mechanism", MACHINES, ids=lambda it: it.name)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_machine_passes_it(mechanism: Mechanism, data: st.DataObject) -> None:
    op, _ = data.draw(ops())
    config = data.draw(CONFIGS[mechanism.name]())
    bound = swatsim.machine("ideal", multipliers=config.multipliers)
    assert bound.simulate_op(op).cycles_compute <= mechanism.simulate_op(op, config).cycles_compute


def test_its_memory_takes_no_time(tmp_path: Any) -> None:
    trace = make_trace(tmp_path / "small")
    for preset, _, _ in presets([IDEAL]):
        for row in swatsim.simulate(trace, preset, workers=1).rows:
            assert row["cycles"] == row["cycles_compute"]
            assert row["dram_bytes_result"] > 0


def test_multipliers_are_its_parameter(tmp_path: Any) -> None:
    machine = swatsim.machine("ideal", multipliers="1024")
    assert machine.name == "ideal[multipliers=1024]"
    assert (machine.config.pes, machine.config.lanes) == (1, 1024)
    with pytest.raises(ConfigError, match="multipliers=0 is not allowed"):
        swatsim.machine("ideal", multipliers=0)
    trace = make_trace(tmp_path / "small")
    grid = {"dram": ["hbm2", "ideal"], "multipliers": [64, 1024]}
    spec = {"traces": [str(trace.path)], "machines": [{"preset": "ideal", "grid": grid}]}
    rows = swatsim.sweep(spec, tmp_path / "out", executor=Here()).rows
    assert [row["multipliers"] for row in rows] == [64, 1024, 64, 1024]
    with unpainted():
        assert swatsim.report(tmp_path / "out")
