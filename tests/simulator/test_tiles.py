"""What machines say of their tiles: by their lane-cycles, and by the timelines of single tiles."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.simulator.interface import Busy, checked_busy
from swatsim.simulator.machines import MACHINES
from swatsim.simulator.machines.cartesian.timeline import WAITS
from swatsim.simulator.machines.tensor_core.timeline import CORE
from swatsim.simulator.mechanism import Mechanism
from swatsim.simulator.step_tiles import spread, words
from swatsim.workload.layer import OPS, OpName
from swatsim.workload.lowering import LoweredOp, lower
from tests.simulator.test_machines import takes_long
from tests.simulator.test_timeline_rules import an_op, drawn
from tests.strategies import CONFIGS, matmuls, ops, ops_of_some_outputs

#: One that runs all that there is, and so has no tiles.
WITHOUT = {"ideal"}
SAYING = [it for it in MACHINES if it.busy]
#: Of each machine whose tiles have several PEs, what makes each of them one.
ONE_PE = {"lane_array": {"rows": 1, "columns": 1}, "inner_join": {"pes_per_cluster": 1}}
#: A single core's blocks are whole, and so is the array: what they leave free is unmapped in them.
WHOLE = {"tensor_core", "systolic"}
QUICK = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_every_machine_of_tiles_says_what_they_do() -> None:
    assert {it.name for it in MACHINES} - {it.name for it in SAYING} == WITHOUT


def waiting(counters: Counters, name: str) -> int:
    """Add up the lane-cycles in which tiles wait: those of `cartesian` are its PEs."""
    of_pes = counters.lane_cycles_pe_sync if name == "cartesian" else 0
    return counters.lane_cycles_tile_sync + of_pes


@pytest.mark.parametrize("mechanism", SAYING, ids=lambda it: it.name)
@QUICK
@given(data=st.data())
def test_tiles_add_up_to_the_lane_cycles(mechanism: Mechanism, data: st.DataObject) -> None:
    """Of tiles of one PE exactly; in others PEs may have nothing to do while their tile has."""
    some = data.draw(st.sampled_from([ops, ops_of_some_outputs, matmuls]))()
    op = lower(data.draw(some)[0])
    assume(mechanism.name != "cartesian" or not takes_long(op))
    name, config = mechanism.name, data.draw(CONFIGS[mechanism.name]())
    single = name in ONE_PE and data.draw(st.booleans())
    config = config.model_copy(update=ONE_PE[name]) if single else config
    assert mechanism.busy is not None
    counters, busy = mechanism.simulate_op(op, config), mechanism.busy(op, config)
    checked_busy(busy, counters.cycles_compute)
    lanes, left = divmod(config.pes * config.lanes, busy.own.size)
    assert left == 0
    free = counters.cycles_compute - busy.own - busy.waits
    waits, unmapped = waiting(counters, name), counters.lane_cycles_unmapped
    works = counters.lane_cycles - waits - unmapped
    found = [lanes * int(of.sum()) for of in (busy.own, busy.waits, free)]
    if single or name == "cartesian":
        assert found == [works, waits, unmapped]
    assert found[0] >= works
    assert found[1] >= waits
    assert found[2] <= unmapped
    if name in WHOLE:
        assert not busy.waits.any()
        assert busy.own[0] == counters.cycles_compute
    if op.output is None:  # the first tile always has something
        assert free[0] == 0


def by_row_sets(op: LoweredOp, machine: Any) -> dict[str, list[int]]:
    own, waits = np.zeros((2, machine.config.tiles), np.int64)
    for number in range(machine.timeline(op, 0).about["tiles"]):
        found = machine.timeline(op, number)
        about = found.about
        runs = about["repeats"] * about["column_sets"]
        own[about["runs_on_tile"]] += runs * about["lines_scheduled"]
        waits[about["runs_on_tile"]] += runs * (found.cycles - about["lines_scheduled"])
    return {"own": own.tolist(), "waits": waits.tolist()}


def by_events(thread: int, sync: str) -> Any:
    """Return what adds up what a thread of each tile's own timeline waits, and has to do."""

    def add_up(op: LoweredOp, machine: Any) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {"own": [], "waits": []}
        for tile in range(machine.timeline(op, 0).about["tiles"]):
            spent: Counter[str] = Counter()
            shown, events = drawn(machine.mechanism, op, machine.config, tile)
            for event in events:
                spent[event.category] += event.cycles * (event.thread == thread)
            found["waits"].append(spent[sync])
            found["own"].append(shown.cycles - spent[sync] - spent["unmapped"])
        return found

    return add_up


#: How the tiles' cycles follow from timelines of single tiles.
BY_TIMELINE = {
    "lane_array": by_row_sets,
    "cartesian": by_events(WAITS, "pe_sync"),
    "inner_join": by_events(1, "tile_sync"),  # the first PE of a cluster, in use in every round
    "tensor_core": by_events(CORE, "tile_sync"),
}
SMALL: dict[str, dict[str, Any]] = {
    "tensordash": {"tiles": 3},
    "bit-tactical": {},
    "scnn": {"pe_h": 2, "pe_w": 3},
    "scnn-queued": {"pe_h": 3, "pe_w": 2},
    "sparten": {"clusters": 3},
    "a100": {"tile_m": 4, "tile_n": 4, "cores": 5},
}


@pytest.mark.parametrize("preset", SMALL)
@pytest.mark.parametrize("name", OPS)
def test_each_tile_does_what_its_timeline_shows(preset: str, name: OpName) -> None:
    op, machine = an_op(name), swatsim.machine(preset, **SMALL[preset])
    busy, shown = machine.busy(op), BY_TIMELINE[machine.mechanism.name](op, machine)
    assert busy is not None
    for key, of in shown.items():
        every = getattr(busy, key).tolist()
        assert every == of + [0] * (len(every) - len(of))
    assert busy.own.max() > 0


def test_tiles_are_spread_over_the_machine() -> None:
    assert [*spread(64, 4)] == [0, 21, 42, 63]
    assert [*spread(5, 4)] == [0, 1, 2, 4]
    assert [*spread(64, 1)] == [0]
    assert [*spread(3, 4)] == [*spread(3, 3)] == [0, 1, 2]
    assert not [*spread(3, 0)]
    busy = Busy("PE", np.zeros(64, np.int64), np.zeros(64, np.int64))
    assert (words(busy, 4), words(busy, 64)) == ("4 of 64 PEs, evenly spread", "64 PEs")


@pytest.mark.parametrize(
    ("own", "waits", "message"),
    [
        ([1.0], [0], "a swatsim.Busy, its own and waits arrays of int64"),
        ([[1]], [[0]], "a swatsim.Busy, its own and waits arrays of int64"),
        ([1, 2], [0], "own and waits are 0 or more, of all tiles"),
        ([-1], [0], "own and waits are 0 or more, of all tiles"),
        ([4, 1], [1, 5], "must be at most the op's compute cycles, 5"),
    ],
)
def test_what_can_not_be_a_tiles_is_refused(own: Any, waits: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_busy(Busy("tile", np.array(own), np.array(waits)), 5)


def test_what_is_no_busy_is_refused() -> None:
    nothing: Any = (1, 2)
    with pytest.raises(ConfigError, match="must give a swatsim.Busy"):
        checked_busy(nothing, 5)
