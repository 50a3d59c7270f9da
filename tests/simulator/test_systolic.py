"""A systolic array takes what SCALE-Sim 3 takes, and what its README's closed forms say."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.simulator.interface import Event
from swatsim.simulator.machines.systolic import SYSTOLIC, SystolicConfig
from swatsim.workload.layer import OPERANDS_OF, Layer, OpName
from swatsim.workload.lowering import LoweredOp
from tests.naive import systolic as naive
from tests.strategies import ops, systolic_configs

FOLDER = Path(__file__).parents[1] / "data" / "peer_systolic"
ROWS = list(csv.DictReader((FOLDER / "cases.csv").read_text().splitlines()))


# ---- the peer ------------------------------------------------------------------------------------


def behind(size: int, taps: int, stride: int) -> int:
    """Zeros behind an input that make the peer's last, partial window a whole one."""
    windows = -(-(size - taps) // stride) + 1
    return (windows - 1) * stride + taps - size


def peer_op(row: dict[str, str]) -> LoweredOp:
    H, W, R, S = (int(row[name]) for name in ("ifmap_h", "ifmap_w", "filter_h", "filter_w"))
    stride = int(row["stride"])
    layer = Layer(
        name=row["layer"],
        C=int(row["channels"]),
        K=int(row["num_filters"]),
        **{"H": H, "W": W, "R": R, "S": S},
        stride=stride,
        padding=((0, behind(H, R, stride)), (0, behind(W, S, stride))),
    )
    assert int(row["M_ofmap_px"]) == layer.P * layer.Q
    return LoweredOp.dense(layer, "fprop", 1)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['layer']}-{row['dataflow']}")
def test_equals_the_peer(row: dict[str, str]) -> None:
    rows, columns = int(row["array_rows"]), int(row["array_cols"])
    preset = f"scale-sim-{row['dataflow']}"
    found = swatsim.machine(preset, rows=rows, columns=columns).simulate_op(peer_op(row))
    assert found.cycles_compute == int(row["total_cycles"]) + 1
    assert found.words_b == int(row["sram_ifmap_reads"])
    assert found.words_a == int(row["sram_filter_reads"])
    added_shapes = 0
    if row["dataflow"] == "os":
        lines = int(row["K_window"]) + rows + columns - 2
        added_shapes = found.cycles_compute // lines * (rows + columns)
    assert found.sums_written == int(row["sram_ofmap_writes"]) - added_shapes


# ---- closed forms of every op --------------------------------------------------------------------

#: Two groups; of the input's rows the phases of stride 2 have 3 and 2, and taps 1 and 2.
CONV = Layer(
    name="c", C=6, K=10, H=5, W=4, R=3, S=1, stride=(2, 1), padding=((1, 1), (0, 0)), groups=2
)
LINEAR = Layer(name="fc", kind="linear", C=7, K=5)
UP = Layer(name="up", kind="conv_transpose", C=4, K=3, H=2, W=3, R=2, S=1, stride=(2, 1))

#: Of two samples, the GEMMs of each op as (M, N, K, how many), by hand.
GEMMS: dict[tuple[str, str, str], list[tuple[int, int, int, int]]] = {
    ("c", "fprop", "split"): [(2 * 3 * 4, 5, 3 * 3, 2)],
    ("c", "dgrad", "split"): [(2 * 3 * 4, 3, 1 * 5, 2), (2 * 2 * 4, 3, 2 * 5, 2)],
    ("c", "dgrad", "dilated"): [(2 * 5 * 4, 3, 3 * 5, 2)],
    ("c", "wgrad", "split"): [(3 * 3, 5, 2 * 3 * 4, 2)],
    ("fc", "fprop", "split"): [(2, 5, 7, 1)],
    ("fc", "dgrad", "split"): [(2, 7, 5, 1)],
    ("fc", "wgrad", "split"): [(7, 5, 2, 1)],
    # the adjoint's: 3 channels in, 4 filters, 4 x 3 to 2 x 3
    ("up", "fprop", "split"): [(2 * 2 * 3, 3, 4, 1), (2 * 2 * 3, 3, 4, 1)],
    ("up", "dgrad", "split"): [(2 * 2 * 3, 4, 2 * 3, 1)],
    ("up", "wgrad", "split"): [(2 * 3, 4, 2 * 2 * 3, 1)],
}


def ceil(a: int, b: int) -> int:
    return -(-a // b)


def closed(dataflow: str, H: int, W: int, M: int, N: int, K: int) -> tuple[int, ...]:
    """Return cycles, words of left and right, sums written and read, lane-cycles of `skew`."""
    if dataflow == "os":
        folds, lines = ceil(M, H) * ceil(N, W), K + H + W - 2
        return folds * lines, ceil(N, W) * M * K, ceil(M, H) * K * N, M * N, 0, M * N * (H + W - 2)
    along, other = ceil(K, H), N if dataflow == "ws" else M
    lines = (M if dataflow == "ws" else N) + 2 * H + W - 2
    words = (ceil(N, W) * M * K, K * N) if dataflow == "ws" else (M * K, ceil(M, W) * K * N)
    cycles, held = along * ceil(other, W) * lines, K * other
    sums = (along * M * N, (along - 1) * M * N)
    return cycles, *words, *sums, held * (2 * H + W - 2)


def an_op(layer: Layer, name: OpName, density: float = 0.5) -> LoweredOp:
    rng = np.random.default_rng(7)
    masks = {it: rng.random(layer.shape_of(it, 2)) < density for it in OPERANDS_OF[name]}
    return swatsim.lower(swatsim.Op(layer, name, **masks))


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize("case", GEMMS, ids="-".join)
def test_closed_forms(case: tuple[str, OpName, Any], dataflow: str) -> None:
    layer = {"c": CONV, "fc": LINEAR, "up": UP}[case[0]]
    op = an_op(layer, case[1])
    config = SystolicConfig(rows=4, columns=3, dataflow=dataflow, dgrad_lowering=case[2])
    found = SYSTOLIC.simulate_op(op, config)
    totals, products = [0] * 6, 0
    for *sizes, times in GEMMS[case]:
        values = closed(dataflow, 4, 3, *sizes)
        totals = [total + times * value for total, value in zip(totals, values, strict=True)]
        products += times * int(np.prod(sizes))
    words = (found.words_a, found.words_b)
    left, right = words if op.name == "wgrad" else words[::-1]
    sums = found.sums_written, found.sums_read
    assert [found.cycles_compute, left, right, *sums, found.lane_cycles_skew] == totals
    assert found.products == products
    assert found == SYSTOLIC.simulate_dense(op, config)
    assert found == SYSTOLIC.simulate_op(op.without_zeros(), config)._replace(
        lane_cycles_effectual=op.macs_effectual,
        lane_cycles_ineffectual=products - op.macs_effectual,
    )


# ---- n:m weights ---------------------------------------------------------------------------------


def kept(layer: Layer, name: OpName, along: int) -> LoweredOp:
    """An op whose weights keep the first two of each four along an axis."""
    index = np.arange(layer.shape_of("weight", 1)[along]) % 4 < 2
    shape = [1, 1, 1, 1]
    shape[along] = -1
    weight = np.broadcast_to(index.reshape(shape), layer.shape_of("weight", 1))
    other = OPERANDS_OF[name][1]
    return LoweredOp(layer, name, weight=weight, **{other: np.ones(layer.shape_of(other, 2), bool)})


WIDE = Layer(name="w", C=16, K=24, H=4, W=4, R=3, S=3, padding=1)


def run(op: LoweredOp, dataflow: str, pattern: str, **more: Any) -> Counters:
    config = SystolicConfig(rows=8, columns=6, dataflow=dataflow, pattern=pattern, **more)
    return SYSTOLIC.simulate_op(op, config)


@pytest.mark.parametrize("dataflow", ["os", "ws"])
@pytest.mark.parametrize(("name", "along"), [("fprop", 1), ("dgrad", 0)])
def test_weights_that_obey_run_as_half_of_them(name: OpName, along: int, dataflow: str) -> None:
    op = kept(WIDE, name, along)
    dense, packed = run(op, dataflow, "none"), run(op, dataflow, "2:4")
    half = {"C": 8} if name == "fprop" else {"K": 12}
    smaller = run(LoweredOp.dense(WIDE.model_copy(update=half), name, 2), dataflow, "none")
    assert packed.cycles_compute == smaller.cycles_compute < dense.cycles_compute
    assert packed.products == dense.products // 2 == packed.multiplexed
    assert (packed.words_a, packed.words_b) == (smaller.words_a, dense.words_b)
    assert (packed.sums_written, packed.sums_read) == (smaller.sums_written, smaller.sums_read)
    assert (packed.compressed, dense.compressed) == ("weight", "")
    groups = WIDE.weights // 4
    assert (packed.pattern_groups_a, packed.pattern_obeying_a) == (groups, groups)


@pytest.mark.parametrize("dataflow", ["os", "ws"])
def test_weights_that_miss_run_dense_and_say_by_how_much(dataflow: str) -> None:
    op = kept(WIDE, "fprop", 1)
    weight = np.array(op.weight)
    weight[5, 4:8, 1, 2] = True
    missed = run(op.with_masks({"weight": weight, "act": op.act}), dataflow, "2:4")
    dense = run(op, dataflow, "none")
    assert missed.cycles_compute == dense.cycles_compute
    assert (missed.compressed, missed.multiplexed) == ("", 0)
    groups = WIDE.weights // 4
    assert (missed.pattern_groups_a, missed.pattern_obeying_a) == (groups, groups - 1)
    along_k = run(kept(WIDE, "dgrad", 1), dataflow, "2:4")  # of no use to dgrad
    assert along_k.compressed == ""
    assert 0 < along_k.pattern_obeying_a < along_k.pattern_groups_a


def test_nothing_is_looked_at_where_no_weights_are_read() -> None:
    op = an_op(WIDE, "wgrad", 0.2)
    assert run(op, "ws", "2:4") == run(op, "ws", "none")


def test_too_few_to_pack_run_dense() -> None:
    layer = Layer(name="thin", C=2, K=4, H=3, W=3, R=1, S=1)
    found = run(an_op(layer, "fprop"), "ws", "2:4")
    assert found.pattern_obeying_a == found.pattern_groups_a == 4
    assert (found.compressed, found.multiplexed) == ("", 0)


def pruned(op: LoweredOp, weight: np.ndarray, slots: int, of: int) -> np.ndarray:
    """Keep the first values of each group along what the op sums, where one product sums it all."""
    groups = op.layer.groups
    k, c, r, s = (*weight.shape, 1, 1)[:4]
    by_group = weight.reshape(groups, k // groups, c, r, s)
    order = (0, 1, 3, 4, 2) if op.name == "fprop" else (0, 2, 3, 4, 1)
    columns = by_group[:, :, :, ::-1, ::-1] if op.name == "dgrad" else by_group
    columns = columns.transpose(order)
    flat = columns.reshape(groups * columns.shape[1], -1).copy()
    for first in range(0, flat.shape[1], of):
        some = flat[:, first : first + of]
        some[np.cumsum(some != 0, axis=1) > slots] = 0
    columns = flat.reshape(columns.shape).transpose(np.argsort(order))
    columns = columns[:, :, :, ::-1, ::-1] if op.name == "dgrad" else columns
    return columns.reshape(weight.shape)


def test_packed_weights_give_the_twins_counters() -> None:
    """Weights that are pruned for it run packed; the twin carries their values."""
    packed: list[str] = []

    @settings(
        max_examples=60, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck]
    )
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        op, values = data.draw(ops().filter(lambda drawn: drawn[0].name != "wgrad"))
        config = data.draw(systolic_configs().filter(lambda drawn: drawn.packing is not None))
        values["weight"] = pruned(op, values["weight"], *config.packing)
        op = op.with_masks({name: array != 0 for name, array in values.items()})
        ours = SYSTOLIC.simulate_op(op, config)
        theirs = naive.simulate(op.name, op.layer, config, **values)
        packed.append(ours.compressed)
        assert ours.compressed == theirs.compressed
        assert ours.cycles_compute == theirs.cycles
        lane_cycles = {name: n for name, n in theirs.lane_cycles.items() if n}
        assert {name: n for name, n in _buckets(ours).items() if n} == lane_cycles
        assert {name: getattr(ours, name) for name in theirs.events} == theirs.events
        right = naive.reference(op.name, op.layer, **values)
        np.testing.assert_array_equal(theirs.output, right)

    check()
    assert packed.count("weight") > len(packed) / 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataflow": "ms"}, "dataflow='ms' is not allowed"),
        ({"pattern": "4:2"}, "pattern='4:2' is not allowed: must be none, or N:M with 1 <= N"),
        ({"pattern": "dense"}, "pattern='dense' is not allowed"),
        ({"pattern": "2:10000"}, "pattern='2:10000' is not allowed: .*1 <= N <= M <= 9999"),
        ({"pattern": "2:4", "dataflow": "is"}, "'2:4' is at odds with dataflow='is'.* choose"),
        ({"pattern": "3:4", "dataflow": "ws"}, "rows=8 is at odds with pattern='3:4'.* of 3$"),
        ({"rows": 0}, "rows=0 is not allowed"),
        ({"lanes": 2}, "lanes"),
    ],
)
def test_what_is_no_array_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SystolicConfig(**{"rows": 8, "columns": 6, "dataflow": "os", **changed})
    assert "\n" not in str(caught.value)


# ---- what a timeline shows -----------------------------------------------------------------------


def events(op: LoweredOp, config: SystolicConfig, tile: int) -> list[Event]:
    assert SYSTOLIC.timeline is not None
    found = SYSTOLIC.timeline(op, config, tile)
    return list(found.events(range(found.cycles)))


@pytest.mark.parametrize(("dataflow", "before"), [("os", 0), ("ws", 4), ("is", 4)])
def test_the_front_moves_a_pe_a_cycle(dataflow: str, before: int) -> None:
    op, config = an_op(CONV, "fprop"), SystolicConfig(rows=4, columns=3, dataflow=dataflow)
    first: dict[int, int] = {}
    spent: Counter[str] = Counter()
    for event in events(op, config, 0):
        spent[event.category] += event.cycles
        if event.category == "product":
            first[event.thread] = min(event.begin, first.get(event.thread, event.begin))
    front = [0, 1, 2, 3, 1, 2]  # down the first column, along the first row
    assert first == {thread: before + at for thread, at in enumerate(front)}
    assert SYSTOLIC.timeline is not None
    assert sum(spent.values()) == 6 * SYSTOLIC.timeline(op, config, 0).cycles


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_all_pairs_of_an_op_meet_once(data: st.DataObject) -> None:
    """In an array of one column every PE is shown."""
    op, _ = data.draw(ops())
    config = data.draw(systolic_configs()).model_copy(update={"columns": 1})
    counters = SYSTOLIC.simulate_op(op, config)
    if not counters.cycles_compute or counters.cycles_compute > 1500:
        return
    assert SYSTOLIC.timeline is not None
    tiles = SYSTOLIC.timeline(op, config, 0).about["tiles"]
    every = [event for tile in range(tiles) for event in events(op, config, tile)]
    spent: Counter[str] = Counter()
    for event in every:
        spent[event.name if event.category == "product" else event.category] += event.cycles
    assert spent == {k: v for k, v in _buckets(counters).items() if v or k in spent}
    met = [event.details for event in every if event.name == "effectual"]
    assert len({str(pair) for pair in met}) == len(met)
    for pair in met:
        for operand, place in pair.items():
            assert op.operands[operand][tuple(place.values())]
        assert _agree(op, pair)


def _buckets(counters: Counters) -> dict[str, int]:
    return {name.removeprefix("lane_cycles_"): n for name, n in counters.buckets.items()}


def _agree(op: LoweredOp, pair: dict[str, dict[str, int]]) -> bool:
    """Whether two elements are factors of one product, as far as samples and channels tell."""
    channels, filters = op.layer.C // op.layer.groups, op.layer.K // op.layer.groups
    if op.name == "fprop":
        group = pair["weight"]["k"] // filters
        return pair["act"]["c"] == group * channels + pair["weight"]["c"]
    if op.name == "dgrad":
        return pair["grad_out"]["k"] == pair["weight"]["k"]
    act, grad = pair["act"], pair["grad_out"]
    return act["n"] == grad["n"] and act["c"] // channels == grad["k"] // filters
