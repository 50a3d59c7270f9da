"""Outputs that nobody wants, and products of two activations: on machines, equal to the twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from swatsim.simulator.machines import MACHINES
from swatsim.simulator.mechanism import Mechanism
from swatsim.workload.layer import OPS
from swatsim.workload.lowering import LoweredOp, lower
from tests.simulator.test_machines import (
    buckets,
    check_tiles,
    events,
    events_of_twin,
    takes_long,
    twin,
    variants,
)
from tests.strategies import CONFIGS, matmuls, ops_of_some_outputs

QUICK = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
    ],
)


@st.composite
def runs(draw: st.DrawFn, name: str) -> tuple[LoweredOp, dict[str, Any]]:
    """An op as machines take it, some of its outputs wanted, and its operands' values.

    Ops are named: of those that are drawn, hardly any was a wgrad of some outputs.
    """
    some = draw(st.sampled_from([ops_of_some_outputs, ops_of_some_outputs, matmuls]))()
    op, values = draw(some.filter(lambda it: it[0].name == name))
    run = lower(op)
    return run, {name: values[name].reshape(mask.shape) for name, mask in run.operands.items()}


@pytest.mark.parametrize("mechanism", MACHINES, ids=lambda it: it.name)
@pytest.mark.parametrize("name", OPS)
@QUICK
@given(data=st.data())
def test_a_machine_does_what_its_twin_does(
    mechanism: Mechanism, name: str, data: st.DataObject
) -> None:
    op, values = data.draw(runs(name))
    assume(mechanism.name != "cartesian" or not takes_long(op))
    config, naive = data.draw(CONFIGS[mechanism.name]()), twin(mechanism)
    right = naive.reference(op.name, op.layer, **values)
    wanted = np.ones(right.shape, bool) if op.output is None else op.output
    for simulate, options in variants(mechanism):
        ours = simulate(op, config)
        asked = {**values, **options, "wanted": op.output}
        theirs = naive.simulate(op.name, op.layer, config, **asked)
        assert ours.cycles_compute == theirs.cycles
        assert {name: n for name, n in buckets(ours).items() if n} == {
            ("idle" if name == "lane_idle" else name): n
            for name, n in theirs.lane_cycles.items()
            if n
        }
        assert events(ours) == events_of_twin(theirs)
        if simulate is mechanism.simulate_op:
            check_tiles(mechanism, op, config, theirs)
        made = wanted | (not options.get("skipping", True))  # a dense baseline makes all
        np.testing.assert_array_equal(theirs.output, np.where(made, right, 0))
