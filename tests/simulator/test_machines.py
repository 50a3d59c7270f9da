"""What holds for every machine in MACHINES: it equals its twin, and its lane-cycles add up."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from swatsim.counters import MACHINE_BUCKETS, SUMMED, Counters
from swatsim.simulator.interface import Machine
from swatsim.simulator.machines import MACHINES, machine, presets
from swatsim.simulator.machines.lane_array import LANE_ARRAY
from swatsim.simulator.machines.lane_array.config import Scheduled
from swatsim.simulator.mechanism import Mechanism
from swatsim.simulator.runnable import ConfiguredMachine
from swatsim.workload import flops
from swatsim.workload.lowering import LoweredOp
from tests.naive.common import NaiveResult
from tests.strategies import CONFIGS, ops

EACH_MECHANISM = pytest.mark.parametrize("mechanism", MACHINES, ids=lambda m: m.name)
#: What a machine counts beside cycles and buckets: its twin counts all of it.
EVENTS = set(SUMMED) - {"cycles_compute", *MACHINE_BUCKETS}
EACH_PRESET = pytest.mark.parametrize("preset", [name for name, _, _ in presets()])
QUICK = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def twin(mechanism: Mechanism) -> ModuleType:
    return importlib.import_module(f"tests.naive.{mechanism.name}")


def variants(mechanism: Mechanism) -> list[tuple[Callable[..., Counters], dict[str, bool]]]:
    """Pair what a machine computes with how its twin is asked for the same."""
    pairs: list[tuple[Callable[..., Counters], dict[str, bool]]]
    pairs = [(mechanism.simulate_op, {}), (mechanism.simulate_dense, {"skipping": False})]
    if mechanism.name == "cartesian":
        (with_conflicts,) = mechanism.alternatives.values()
        pairs[1] = (mechanism.simulate_dense, {"skipping": False, "conflicts": False})
        pairs.append((with_conflicts, {"skipping": False, "conflicts": True}))
    assert not mechanism.alternatives or mechanism.name in TWICE_DENSE, "ask the twin for them"
    return pairs


#: Machines of more than one dense baseline; that of `lane_array` has a test of its own.
TWICE_DENSE = {"cartesian", "lane_array"}


@settings(QUICK, max_examples=30)
@given(data=st.data())
def test_weights_on_rows_are_the_twins_where_nothing_is_chosen(data: st.DataObject) -> None:
    op, values = data.draw(ops())
    config = data.draw(CONFIGS["lane_array"]())
    (plain,) = LANE_ARRAY.alternatives.values()
    nothing = config.model_copy(update={"scheduled": Scheduled.NONE})
    ours = plain(op, config)
    theirs = twin(LANE_ARRAY).simulate(op.name, op.layer, nothing, **values, skipping=False)
    assert ours.cycles_compute == theirs.cycles
    assert events(ours) == events_of_twin(theirs)


def events(counters: Counters) -> dict[str, int]:
    return {name: getattr(counters, name) for name in EVENTS}


def events_of_twin(result: NaiveResult) -> dict[str, int]:
    """What a twin does not name is 0."""
    return {**dict.fromkeys(EVENTS, 0), **result.events}


def buckets(counters: Counters) -> dict[str, int]:
    return {key.removeprefix("lane_cycles_"): n for key, n in counters.buckets.items()}


def takes_long(op: LoweredOp) -> bool:
    """Whether a `cartesian` multiplies a linear layer's 256 pixels with thousands of weights."""
    outputs = op.layer.K if op.name == "fprop" else op.layer.C
    return op.is_matrix_product and op.name != "wgrad" and outputs * op.samples > 4


@EACH_MECHANISM
@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_equals_its_twin(mechanism: Mechanism, data: st.DataObject) -> None:
    op, values = data.draw(ops())
    assume(mechanism.name != "cartesian" or not takes_long(op))
    config = data.draw(CONFIGS[mechanism.name]())
    naive = twin(mechanism)
    right = naive.reference(op.name, op.layer, **values)
    for simulate, options in variants(mechanism):
        ours = simulate(op, config)
        theirs = naive.simulate(op.name, op.layer, config, **values, **options)
        assert ours.cycles_compute == theirs.cycles
        assert {name: n for name, n in buckets(ours).items() if n} == {
            ("idle" if name == "lane_idle" else name): n
            for name, n in theirs.lane_cycles.items()
            if n
        }
        assert events(ours) == events_of_twin(theirs)
        assert ours.compressed == theirs.compressed
        if simulate is mechanism.simulate_op:
            check_tiles(mechanism, op, config, theirs)
        np.testing.assert_array_equal(theirs.output, right)


def check_tiles(mechanism: Mechanism, op: LoweredOp, config: Any, theirs: NaiveResult) -> None:
    """Hold what each tile has to do, and what it waits for others, to the twin's."""
    found = mechanism.busy and mechanism.busy(op, config)
    if found:
        assert (found.own.tolist(), found.waits.tolist()) == (theirs.own, theirs.waits)
    else:
        assert not theirs.own, "the twin knows of tiles"


@EACH_MECHANISM
@QUICK
@given(data=st.data())
def test_every_lane_cycle_is_in_one_bucket(mechanism: Mechanism, data: st.DataObject) -> None:
    op, _ = data.draw(ops())
    config = data.draw(CONFIGS[mechanism.name]())
    for counters in (simulate(op, config) for simulate, _ in variants(mechanism)):
        assert sum(counters.buckets.values()) == counters.lane_cycles
        assert min(counters.buckets.values()) >= 0
        assert counters.lane_cycles_effectual == flops.macs_effectual(op)
        kinds = {name: type(value) for name, value in counters._asdict().items()}
        assert {name for name, kind in kinds.items() if kind is not int} == {"compressed"}


@EACH_MECHANISM
def test_is_complete(mechanism: Mechanism) -> None:
    assert mechanism.config_type.presets, "a machine comes with a published design"
    for field in mechanism.config_type.model_fields.values():
        assert field.description
    assert callable(twin(mechanism).simulate)
    assert (Path(inspect.getfile(mechanism.config_type)).parent / "README.md").is_file()
    assert bool(mechanism.tile) == bool(mechanism.timeline), "say what a timeline shows one of"
    for function in (mechanism.simulate_op, mechanism.simulate_dense):
        assert len(inspect.signature(function).parameters) == 2


@EACH_PRESET
def test_preset_is_a_machine(preset: str) -> None:
    built = machine(preset)
    assert isinstance(built, ConfiguredMachine)
    assert isinstance(built, Machine)
    assert built.name == preset
    assert built.describe()["parameters"] == built.config.model_dump(mode="json")


@EACH_MECHANISM
@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_dense_operands_are_those_of_the_op_mapped_as_it_is(
    mechanism: Mechanism, data: st.DataObject
) -> None:
    op, _ = data.draw(ops())
    config = data.draw(CONFIGS[mechanism.name]())
    found = ConfiguredMachine("x", mechanism, config).simulate_dense_operands(op)
    if getattr(config, "scheduled", "") == "sparser":  # of all-ones masks it is another, or a tie
        ones = {operand: op.counts[operand] / mask.size for operand, mask in op.operands.items()}
        sparser = min(ones, key=lambda operand: ones[operand])
        config = config.model_copy(update={"scheduled": Scheduled(sparser)})
    masks = {operand: np.ones(mask.shape, bool) for operand, mask in op.operands.items()}
    expected = mechanism.simulate_op(op.with_masks(masks), config)
    # who chooses weights in advance has no scheduler
    assert found._replace(schedules=0) == expected._replace(schedules=0)
