"""Timelines: they show what the kernels count, in the trace-event format."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.counters import BUCKETS
from swatsim.errors import ConfigError, SwatsimError, TraceError
from swatsim.simulator import timeline as module
from swatsim.simulator.elements import AXES, assemble, element, numbered
from swatsim.simulator.interface import Event, Timeline
from swatsim.simulator.machines import MACHINES, presets
from swatsim.simulator.machines.cartesian import CARTESIAN
from swatsim.simulator.machines.cartesian import timeline as cartesian
from swatsim.simulator.machines.lane_array import LANE_ARRAY
from swatsim.simulator.machines.lane_array import timeline as lane_array
from swatsim.simulator.machines.lane_array.config import LaneArrayConfig
from swatsim.simulator.machines.lane_array.mapping import scheduled_operand
from swatsim.tracefile import Trace
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.lowering import LoweredOp
from tests.strategies import CONFIGS, cartesian_configs, lane_array_configs, layers, ops
from tests.traces import make_trace

THOROUGH = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def whole(found: Timeline) -> list[Event]:
    return list(found.events(range(found.cycles + 1)))


def spent(events: list[Event]) -> Counter[str]:
    """Add up the cycles of each category."""
    cycles: Counter[str] = Counter()
    for event in events:
        cycles[event.category] += event.cycles
    return cycles


def document(events: list[Event], found: Timeline, window: range) -> list[dict[str, Any]]:
    kept = module._within(module._joined(events), window, found)
    return [module._as_json(event) for event in kept]


def validate(events: list[dict[str, Any]]) -> None:
    """Hold events to the trace-event format: keys of each phase, in order, none overlaps."""
    busy: dict[tuple[int, int], int] = {}
    previous = 0
    for event in events:
        assert isinstance(event["name"], str)
        assert all(isinstance(event[key], int) for key in ("ts", "pid", "tid"))
        assert isinstance(event["args"], dict)
        assert event["ts"] >= previous
        previous = event["ts"]
        if event["ph"] == "M":
            assert event["name"] in (
                "process_name",
                "thread_name",
                "process_sort_index",
                "thread_sort_index",
            )
            kind = int if event["name"].endswith("sort_index") else str
            (value,) = event["args"].values()
            assert isinstance(value, kind)
            continue
        assert event["cat"]
        if event["ph"] == "C":
            (value,) = event["args"].values()
            assert isinstance(value, int | float)
            continue
        if event["ph"] == "i":
            assert event["s"] in ("g", "p", "t")
            continue
        assert event["ph"] == "X"
        assert event["dur"] > 0
        thread = event["pid"], event["tid"]
        assert event["ts"] >= busy.get(thread, 0), "overlaps the one before"
        busy[thread] = event["ts"] + event["dur"]
    json.dumps(events)


# ---- elements --------------------------------------------------------------------------------


@THOROUGH
@given(drawn=ops())
def test_numbers_name_every_element(drawn: tuple[LoweredOp, dict[str, np.ndarray]]) -> None:
    op, _ = drawn
    planes = list(numbered(op))
    for operand, mask in op.operands.items():
        numbers = assemble(plane.operands[operand] for plane in planes)
        assert numbers.shape == mask.shape
        for where in np.ndindex(mask.shape):
            letters = AXES[operand][: mask.ndim]
            found = element(op, operand, int(numbers[where]))
            assert found == dict(zip(letters, where, strict=True))
        assert element(op, operand, 0) is None


# ---- lane_array ------------------------------------------------------------------------------


def row_sets(op: LoweredOp, config: LaneArrayConfig) -> list[Timeline]:
    try:
        first = lane_array(op, config, 0)
    except ConfigError as error:
        assert "no products at all" in str(error)
        return []
    return [first, *(lane_array(op, config, i) for i in range(1, first.about["tiles"]))]


def test_a_depthwise_layer_of_fewer_filters_than_rows_is_drawn_dense() -> None:
    layer = Layer(name="x", C=2, K=2, H=1, W=1, R=1, S=1, groups=2)
    op = LoweredOp.dense(layer, "fprop", 1)
    config = swatsim.machine("dadiannao", rows=4, columns=1, lanes=4, tiles=1).config
    (found,) = row_sets(op, config)
    assert spent(whole(found))["product"] == LANE_ARRAY.simulate_op(op, config).products == 2


@THOROUGH
@given(drawn=ops(), config=lane_array_configs())
def test_row_sets_add_up_to_the_counters(
    drawn: tuple[LoweredOp, dict[str, np.ndarray]], config: LaneArrayConfig
) -> None:
    op, _ = drawn
    counters = LANE_ARRAY.simulate_op(op, config)
    total: Counter[str] = Counter()
    for found in row_sets(op, config):
        about = found.about
        events = whole(found)
        cycles = spent(events)
        tile = found.cycles * config.rows * config.lanes
        waits = cycles["tile_sync"] * about["rows_in_use"] * config.lanes
        rows = (cycles["row_sync"] + cycles["unmapped"]) * config.lanes
        assert cycles["product"] + cycles["idle"] + rows + waits == tile
        times = about["repeats"] * about["column_streams"]
        total["products"] += times * cycles["product"]
        total["idle"] += times * cycles["idle"]
        total["row_sync"] += times * cycles["row_sync"] * config.lanes
        total["tile_sync"] += times * waits
        if about["runs_on_tile"] == 0:  # the others of its group run at the same time
            total["cycles"] += about["repeats"] * about["column_sets"] * found.cycles
        if about["skips_zeros"]:
            dropped = sum(event.category == "dropped" for event in events)
            assert dropped == about["lines"] - about["lines_scheduled"]
    assert total["cycles"] == counters.cycles_compute
    assert total["products"] == counters.products
    assert total["idle"] == counters.lane_cycles_idle
    assert total["row_sync"] == counters.lane_cycles_row_sync
    assert total["tile_sync"] == counters.lane_cycles_tile_sync


@THOROUGH
@given(drawn=ops(), config=lane_array_configs())
def test_products_name_values_their_slots_and_moves(
    drawn: tuple[LoweredOp, dict[str, np.ndarray]], config: LaneArrayConfig
) -> None:
    op, values = drawn
    chosen = scheduled_operand(op, config)
    operand = chosen or OPERANDS_OF[op.name][0]
    for found in row_sets(op, config):
        slots = set()
        for event in whole(found):
            if event.category != "product":
                continue
            (t, lane), (dt, dl) = event.details["slot"], event.details["move"]
            own = found.threads[event.thread].split()  # row r lane l
            assert t == event.details["line"] + dt
            assert lane == (int(own[3]) + dl) % config.lanes
            assert (dt, dl) == (0, 0) or (dt, dl) in config.moves
            assert (own[1], t, lane) not in slots, "taken twice"
            slots.add((own[1], t, lane))
            if chosen:
                assert values[operand][tuple(event.details["element"].values())] != 0


@THOROUGH
@given(layer=layers(), config=lane_array_configs(), data=st.data())
def test_weights_on_rows_are_taken_once(
    layer: Layer, config: LaneArrayConfig, data: st.DataObject
) -> None:
    config = LaneArrayConfig(**{**config.model_dump(), "scheduled": "weight"})
    name = data.draw(st.sampled_from(["fprop", "dgrad"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    masks = {it: rng.random(layer.shape_of(it, 1)) < 0.5 for it in OPERANDS_OF[name]}
    op = LoweredOp(layer, name, **masks)
    taken: Counter[tuple[int, ...]] = Counter()
    for found in row_sets(op, config):
        products = (event for event in whole(found) if event.category == "product")
        taken.update(tuple(event.details["element"].values()) for event in products)
    assert set(taken.values()) <= {1}
    if name == "fprop" or config.dgrad_lowering == "dilated":
        assert set(taken) == set(map(tuple, np.argwhere(masks["weight"]).tolist()))


def test_a_line_by_hand() -> None:
    """One row of two lanes: line 0 is (a, -), line 1 (b, c): c moves up, b has line 1 alone."""
    layer = Layer(name="x", kind="linear", C=4, K=1)
    weight = np.array([[True, False, True, True]])
    op = LoweredOp(layer, "fprop", weight=weight, act=np.ones((1, 4), np.bool_))
    given = {"lookahead": 1, "lookaside": 0, "scheduler": "most_candidates", "move_shape": "T"}
    config = swatsim.machine("bit-tactical", rows=1, lanes=2, tiles=1, **given).config
    found = lane_array(op, config, 0)
    drawn = [(event.name, event.thread, event.begin, event.details) for event in whole(found)]
    assert found.threads == ("tile", "row 0", "row 0 lane 0", "row 0 lane 1")
    what = {"element": {"k": 0, "c": 0}, "line": 0, "slot": [0, 0], "move": [0, 0]}
    moved = {"element": {"k": 0, "c": 3}, "line": 0, "slot": [1, 1], "move": [1, 0]}
    last = {"element": {"k": 0, "c": 2}, "line": 1, "slot": [1, 0], "move": [0, 0]}
    assert drawn == [
        ("own slot", 2, 0, what),
        ("move (+1, +0)", 3, 0, moved),
        ("own slot", 2, 1, last),
        ("idle", 3, 1, {}),
    ]


# ---- cartesian -------------------------------------------------------------------------------


@settings(THOROUGH, max_examples=50)
@given(drawn=ops(), config=cartesian_configs())
def test_pes_add_up_to_the_counters(
    drawn: tuple[LoweredOp, dict[str, np.ndarray]], config: Any
) -> None:
    op, values = drawn
    counters = CARTESIAN.simulate_op(op, config)
    total: Counter[str] = Counter()
    for pe in range(config.pes):
        found = cartesian(op, config, pe)
        events = whole(found)
        assert found.cycles == counters.cycles_compute
        cycles = spent(events)
        assert cycles["step"] == found.cycles
        busy = ["product", "pe_sync", "unmapped", "halo"]
        if config.bank_queue:  # a product then takes one cycle, and stalls are beside it
            busy.append("bank_conflict")
        assert sum(cycles[name] for name in busy) == found.cycles
        total.update(cycles)
        for event in (event for event in events if event.category == "product"):
            total["products"] += event.details["products"]
            # in the cycles of a conflict nothing multiplies, and nothing is idle
            total["idle"] += event.details["idle"]
            for operand in OPERANDS_OF[op.name]:
                for where in event.details[operand]:
                    assert values[operand][tuple(where.values())] != 0
            banks = Counter(b for row in event.details["banks"] for b in row if b is not None)
            assert event.cycles == (1 if config.bank_queue else max(1, *banks.values(), 1))
    assert total["products"] == counters.products
    assert total["idle"] == counters.lane_cycles_idle
    for name in ("bank_conflict", "pe_sync", "unmapped", "halo"):
        assert total[name] * config.lanes == getattr(counters, f"lane_cycles_{name}"), name


def place(at: int, by: int) -> int | None:
    """Divide, None if it does not come out even."""
    return at // by if at % by == 0 else None


def output_of(op: LoweredOp, config: Any, pixel: Any, weight: Any) -> tuple[int, int, int] | None:
    """Find the (k, w, h) that a product is added to, from its elements; None: outside."""
    layer = op.layer
    if op.name == "wgrad":
        return weight["k"] % (layer.K // layer.groups), pixel["c"] % (layer.C // layer.groups), 0
    forward = op.name == "fprop"
    group = weight["k"] // (layer.K // layer.groups)
    made = weight["k"] if forward else group * (layer.C // layer.groups) + weight["c"]
    if layer.kind == "linear":
        met = "c" if forward else "k"
        return (made, 0, 0) if pixel[met] == weight[met] else None
    found = []
    for axis, (here, tap) in enumerate(
        (("h" if forward else "p", "r"), ("v" if forward else "q", "s"))
    ):
        reach = weight[tap] * layer.dilation[axis] - layer.padding[axis][0]
        if forward:
            at = place(pixel[here] - reach, layer.stride[axis])
            size = (layer.P, layer.Q)[axis]
        else:
            at = pixel[here] * layer.stride[axis] + reach
            size = (layer.H, layer.W)[axis]
        if at is None or not 0 <= at < size:
            return None
        split = not forward and config.dgrad_lowering == "split"
        found.append(at // layer.stride[axis] if split else at)
    return made, *found


@THOROUGH
@given(drawn=ops(), config=cartesian_configs())
def test_banks_are_those_of_the_outputs(
    drawn: tuple[LoweredOp, dict[str, np.ndarray]], config: Any
) -> None:
    op, _ = drawn
    first, second = OPERANDS_OF[op.name]
    across, along = (first, second) if op.name == "wgrad" else (second, first)
    for event in whole(cartesian(op, config, config.pes // 2)):
        for i, pixel in enumerate(event.details.get(across, ())):
            for j, weight in enumerate(event.details[along]):
                got = event.details["banks"][i][j]
                if (output := output_of(op, config, pixel, weight)) is None:
                    assert got is None
                    continue
                k, w, h = output
                high = (4 * (k & 4)) ^ (8 * (w & 2)) ^ (8 * (h & 2))
                assert got == (high + 8 * (w & 1) + 4 * (h & 1) + (k & 3)) % config.banks


# ---- documents -------------------------------------------------------------------------------


DRAWN = [it for it in MACHINES if it.timeline]
CATEGORIES = {it.removeprefix("lane_cycles_") for it in BUCKETS} | {"product", "step", "dropped"}


@pytest.mark.parametrize("mechanism", DRAWN, ids=lambda it: it.name)
@THOROUGH
@given(data=st.data())
def test_every_window_is_a_valid_part_of_the_whole(mechanism: Any, data: st.DataObject) -> None:
    op, _ = data.draw(ops())
    try:
        found = mechanism.timeline(op, data.draw(CONFIGS[mechanism.name]()), 0)
    except ConfigError:
        return
    everything = document(whole(found), found, range(found.cycles + 1))
    validate(everything)
    assert {it["cat"] for it in everything if it["ph"] != "M"} <= CATEGORIES
    assert spent_json(everything) == spent(whole(found))
    middle = data.draw(st.integers(0, found.cycles))
    parts: Counter[str] = Counter()
    for window in (range(middle), range(middle, found.cycles + 1)):
        events = document(list(found.events(window)), found, window)
        validate(events)
        assert all(it["ts"] >= window.start for it in events)
        assert all(it["ts"] + it["dur"] <= window.stop for it in events if it["ph"] == "X")
        parts.update(spent_json(events))
    assert parts == spent(whole(found))


def spent_json(events: list[dict[str, Any]]) -> Counter[str]:
    cycles: Counter[str] = Counter()
    for event in events:
        cycles[event["cat"]] += event.get("dur", 0)
    return cycles


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(tmp_path_factory.mktemp("timeline") / "t")


@pytest.mark.parametrize("machine", [name for name, _, _ in presets(DRAWN)])
@pytest.mark.parametrize("op", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize("layer", ["block.conv", "depthwise", "fc"])
def test_a_document_says_what_it_shows(trace: Trace, machine: str, layer: str, op: Any) -> None:
    made = swatsim.timeline(trace, machine, layer=layer, op=op, step=7, cycles=300)
    validate(made["traceEvents"])
    json.dumps(made)
    about = made["otherData"]
    chosen = {"machine": machine, "layer": layer, "op": op, "step": 7, "tile": 0}
    assert {key: about[key] for key in chosen} == chosen
    assert about["trace_id"] == trace.id
    assert about["unit"] == "1 us is 1 cycle"
    assert about["provenance"]["parameters"]["machine"]["name"] == machine
    assert max(it["ts"] + it.get("dur", 0) for it in made["traceEvents"]) == about["window"][1]
    named = {it["tid"] for it in made["traceEvents"] if it["name"] == "thread_name"}
    assert {it["tid"] for it in made["traceEvents"]} == named


def test_by_default_it_is_the_first_step_and_tile(trace: Trace) -> None:
    made = swatsim.timeline(trace.path, "tensordash", layer="fc", op="fprop")["otherData"]
    assert (made["step"], made["tile"], made["window"][0]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("error", "changed", "message"),
    [
        (TraceError, {"layer": "block.con"}, "did you mean 'block.conv'"),
        (TraceError, {"layer": "stem", "op": "dgrad"}, "recorded are fprop, wgrad"),
        (ConfigError, {"op": "wgrat"}, "did you mean 'wgrad'"),
        (TraceError, {"step": 3}, "recorded are 0, 7"),
        (ConfigError, {"tile": 10_000}, "choose one of 0 to "),
        (ConfigError, {"tile": -1}, "choose one of 0 to "),
        (ConfigError, {"start": 10_000_000}, "the last cycle of this tile is "),
        (ConfigError, {"start": -1}, "begins at cycle 0"),
        (ConfigError, {"cycles": 0}, "must be 1 to 100000"),
        (ConfigError, {"cycles": 10**6}, "must be 1 to 100000"),
    ],
)
@pytest.mark.parametrize("machine", ["tensordash", "scnn"])
def test_what_is_not_there_is_refused(
    trace: Trace, machine: str, error: type[SwatsimError], changed: dict[str, Any], message: str
) -> None:
    wanted = {"layer": "block.conv", "op": "wgrad", **changed}
    with pytest.raises(error, match=message) as caught:
        swatsim.timeline(trace, machine, **wanted)
    assert "\n" not in str(caught.value)


def test_the_last_cycle_can_be_shown_and_the_next_can_not(trace: Trace) -> None:
    wanted: dict[str, Any] = {"layer": "block.conv", "op": "wgrad"}
    cycles = swatsim.timeline(trace, "scnn", **wanted)["otherData"]["cycles"]
    last = swatsim.timeline(trace, "scnn", **wanted, start=cycles - 1)
    assert last["otherData"]["window"] == [cycles - 1, cycles]
    with pytest.raises(ConfigError, match=f"is past the end: .* is {cycles - 1};"):
        swatsim.timeline(trace, "scnn", **wanted, start=cycles)


def test_too_many_events_are_refused(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 200)
    with pytest.raises(ConfigError, match="choose fewer cycles"):
        swatsim.timeline(trace, "tensordash", layer="block.conv", op="wgrad")


def test_a_machine_without_a_timeline_is_refused(trace: Trace, tmp_path: Path) -> None:
    class Ideal:
        name = "ideal"
        simulate_op = simulate_dense = describe = lambda *_: None

    with pytest.raises(ConfigError, match="ideal has no timeline"):
        swatsim.timeline(trace, Ideal(), layer="fc", op="fprop")  # type: ignore[arg-type]
