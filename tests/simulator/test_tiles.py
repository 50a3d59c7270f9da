"""What single tiles have to do in an op: the events of their own timelines add up to it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.simulator.machines import MACHINES
from swatsim.simulator.tiles import spread
from swatsim.workload.layer import OpName
from swatsim.workload.lowering import LoweredOp
from tests.simulator.test_timeline_rules import an_op
from tests.strategies import CONFIGS, ops, ops_of_some_outputs

OF = {mechanism.name: mechanism for mechanism in MACHINES if mechanism.tiles is not None}
SAID = {"tile_sync", "unmapped", "halo"}


def own(op: LoweredOp, name: str, config: Any) -> list[int]:
    tiles = OF[name].tiles
    assert tiles is not None
    count = tiles.count(config)
    found = tiles.own(op, config, range(count))
    cycles = OF[name].simulate_op(op, config).cycles_compute
    assert all(0 <= one <= cycles for one in found)
    assert tiles.own(op, config, spread(count, 3)) == [found[at] for at in spread(count, 3)]
    return found


def waits(op: LoweredOp, name: str, config: Any, tile: int, thread: int) -> tuple[int, int]:
    """All cycles of a tile's own timeline, and those in which a thread of it only waits."""
    timeline = OF[name].timeline
    assert timeline is not None
    found, spent = timeline(op, config, tile), Counter[str]()
    for event in found.events(range(found.cycles + 1)):
        if event.thread == thread:
            spent[event.category] += event.cycles
    return found.cycles, sum(spent[category] for category in SAID)


def by_row_sets(op: LoweredOp, config: Any) -> list[int]:
    """What each tile of a lane array takes, row set by row set as their timelines say."""
    timeline, found, total = OF["lane_array"].timeline, [0] * config.tiles, 1
    assert timeline is not None
    number = 0
    while number < total:
        about = timeline(op, config, number).about
        lines = about["lines_scheduled"]
        found[about["runs_on_tile"]] += lines * about["repeats"] * about["column_sets"]
        number, total = number + 1, about["tiles"]
    return found


@pytest.mark.parametrize("name", OF)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_what_tiles_have_to_do(name: str, data: st.DataObject) -> None:
    op, _ = data.draw(ops())
    config = data.draw(CONFIGS[name]())
    found = own(op, name, config)
    counted = OF[name].simulate_op(op, config)
    if name == "lane_array":
        assert found == by_row_sets(op, config)
        if config.tiles == 1:
            assert found == [counted.cycles_compute]
    elif name == "cartesian":
        working = counted.cycles_compute * counted.pes * counted.lanes
        working -= counted.lane_cycles_pe_sync + counted.lane_cycles_unmapped
        working -= counted.lane_cycles_halo
        if config.bank_queue:  # and drains, which are no work
            assert sum(found) * counted.lanes <= working
        else:
            assert sum(found) * counted.lanes == working
    elif name == "systolic":
        assert found == [counted.cycles_compute]
    else:
        thread = 1 if name == "tensor_core" else 0
        for tile, one in enumerate(found[:3]):
            if name == "tensor_core" and not one:
                continue  # it has no block, and no timeline
            cycles, waited = waits(op, name, config, tile, thread)
            assert one == cycles - waited == counted.cycles_compute - waited


@pytest.mark.parametrize("name", OF)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_where_some_outputs_are_wanted(name: str, data: st.DataObject) -> None:
    op, _ = data.draw(ops_of_some_outputs())
    config = data.draw(CONFIGS[name]())
    found, counted = own(op, name, config), OF[name].simulate_op(op, config)
    if name == "lane_array" and counted.cycles_compute:
        assert max(found) * config.tiles >= counted.cycles_compute  # tiles wait for the slowest
        assert (config.tiles > 1) or found == [counted.cycles_compute]
    if name == "cartesian" and not config.bank_queue:
        idle = counted.lane_cycles_pe_sync + counted.lane_cycles_unmapped + counted.lane_cycles_halo
        total = counted.cycles_compute * counted.pes * counted.lanes
        assert sum(found) * counted.lanes == total - idle


@pytest.mark.parametrize("name", ["fprop", "dgrad", "wgrad"])
def test_queued_pes_have_what_their_timelines_say(name: OpName) -> None:
    """With queues: the cycles of products and of waiting for banks in the PE's own timeline."""
    op, config = an_op(name), swatsim.machine("scnn-queued").config
    mechanism = OF["cartesian"]
    for pe in (0, 9):
        assert mechanism.timeline is not None
        found, spent = mechanism.timeline(op, config, pe), 0
        for event in found.events(range(found.cycles + 1)):
            drains = event.name == "drains"
            if event.category in ("product", "bank_conflict") and not drains:
                spent += event.cycles
        assert mechanism.tiles is not None
        assert mechanism.tiles.own(op, config, [pe]) == [spent]
        assert spent > 0


def test_tiles_are_spread() -> None:
    assert spread(64, 4) == [0, 16, 32, 48]
    assert spread(3, 4) == [0, 1, 2]
    assert spread(1, 4) == [0]
    assert np.diff(spread(108, 7)).min() >= 15
