"""A timeline has no rule of its own: it takes what the kernels take, and follows where they go."""

from __future__ import annotations

import ast
import inspect
import sys
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.simulator.elements import element
from swatsim.simulator.interface import Event, Timeline
from swatsim.simulator.machines import MACHINES, presets
from swatsim.simulator.machines.cartesian import logged, mapping
from swatsim.simulator.machines.cartesian import machine as cartesian
from swatsim.simulator.machines.lane_array import machine as lane_array
from swatsim.simulator.runnable import ConfiguredMachine
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer, OpName
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.training_ops import Op
from tests.strategies import SOME_PRESETS

LAYER = Layer(name="c", C=5, K=7, H=6, W=5, R=3, S=2, padding=1)
DENSITY = {"weight": 0.3, "act": 0.5, "grad_out": 0.7}

#: What a machine's rules are made of: parameters, tables, and what is queued by them.
RULES = {
    "lane_array": {"LEVELS", "levels", "lookahead", "lookaside", "dt", "dl", "scheduler", "most"},
    "cartesian": {
        *("act_vector", "weight_vector", "accumulator", "bank", "bank_table", "queue", "convolve"),
        *("pixel_class", "place", "through", "output_bits", "tap_phase", "stride"),
        *("outer_product", "block_c"),
        *("bank_queue", "convolve_queued", "outer_product_queued", "product_table", "issue"),
    },
    "systolic": {
        *("dataflow", "Dataflow", "pattern", "packing", "layout", "before", "kept", "slot"),
        *("windows", "convolutions", "stride", "dilation", "origin"),
    },
    "tensor_core": {"tile_m", "tile_n", "k_step", "macs", "pattern", "packing", "allowed"},
    "inner_join": {
        *("chunk", "balancing", "Balancing", "filters_per_round", "WORD", "popcount"),
        *("add_costs", "bitwise_count", "argsort"),
    },
}


def an_op(name: OpName) -> LoweredOp:
    rng = np.random.default_rng(3)
    shapes = {it: LAYER.shape_of(it, 2) for it in OPERANDS_OF[name]}
    return LoweredOp(LAYER, name, **{it: rng.random(shapes[it]) < DENSITY[it] for it in shapes})


def drawn(mechanism: Any, op: LoweredOp, config: Any, tile: int) -> tuple[Timeline, list[Event]]:
    found = mechanism.timeline(op, config, tile)
    return found, list(found.events(range(found.cycles + 1)))


def cycles_of_row_sets(op: LoweredOp, machine: ConfiguredMachine) -> int:
    total, (first, events) = 0, drawn(machine.mechanism, op, machine.config, 0)
    for tile in range(first.about["tiles"]):
        found = machine.timeline(op, tile)
        if found.about["runs_on_tile"] == 0:
            total += found.cycles * found.about["repeats"] * found.about["column_sets"]
    busy = {it.begin for it in events if it.category in ("product", "tile_sync")}
    assert busy.issuperset(range(first.about["lines_scheduled"]))
    return total


def cycles_of_steps(op: LoweredOp, machine: ConfiguredMachine) -> int:
    _, events = drawn(machine.mechanism, op, machine.config, 0)
    return sum(event.cycles for event in events if event.category == "step")


def cycles_of_folds(op: LoweredOp, machine: ConfiguredMachine) -> int:
    first = machine.timeline(op, 0)
    return sum(machine.timeline(op, tile).cycles for tile in range(first.about["tiles"]))


def cycles_of_clusters(op: LoweredOp, machine: ConfiguredMachine) -> int:
    """All PEs of all clusters together do what the buckets say."""
    spent: Counter[str] = Counter()
    for tile in range(machine.config.clusters):
        found, events = drawn(machine.mechanism, op, machine.config, tile)
        assert sum(event.cycles for event in events if not event.thread) == found.cycles
        for event in filter(lambda it: it.thread, events):
            spent[event.category] += event.cycles
    spent["effectual"] = spent.pop("product")
    counted = machine.simulate_op(op).buckets.items()
    assert spent == {name.removeprefix("lane_cycles_"): n for name, n in counted if n}
    return found.cycles


#: How the op's compute cycles follow from a machine's timelines: a new one says how its do.
CYCLES = {
    "lane_array": cycles_of_row_sets,
    "cartesian": cycles_of_steps,
    "systolic": cycles_of_folds,
    "tensor_core": cycles_of_steps,
    "inner_join": cycles_of_clusters,
}
DRAWN = [it for it in MACHINES if it.timeline]


@pytest.mark.parametrize("preset", [name for name, _, _ in presets(DRAWN)])
@pytest.mark.parametrize("name", OPS)
def test_cycles_of_every_preset_are_the_kernels(preset: str, name: OpName) -> None:
    op, machine = an_op(name), swatsim.machine(preset)
    total = CYCLES[machine.mechanism.name](op, machine)
    assert total == machine.simulate_op(op).cycles_compute


def some_outputs_of(op: LoweredOp) -> LoweredOp:
    """Half of them, and none of whole rows and columns of an output."""
    wanted = np.random.default_rng(4).random(op.output_shape) < 0.5
    wanted[-1, :2], wanted[:, 1] = False, False
    return replace(op, output=wanted)


def of_activations(name: OpName) -> LoweredOp:
    layer, rng = Layer(name="qk", kind="matmul", C=6, K=10, H=7, groups=2), np.random.default_rng(5)
    masks = {it: rng.random(layer.shape_of(it, 2)) < DENSITY[it] for it in OPERANDS_OF[name]}
    return swatsim.lower(Op(layer, name, **masks))


@pytest.mark.parametrize(
    "preset", [it for it in SOME_PRESETS if swatsim.machine(it).mechanism.timeline]
)
@pytest.mark.parametrize("name", OPS)
def test_cycles_of_some_outputs_and_of_products_of_activations_are_the_kernels(
    preset: str, name: OpName
) -> None:
    machine = swatsim.machine(preset)
    for op in (an_op(name), of_activations(name)):
        for run in (op, some_outputs_of(op)):
            total = CYCLES[machine.mechanism.name](run, machine)
            assert total == machine.simulate_op(run).cycles_compute


@pytest.mark.parametrize("name", OPS)
def test_a_row_set_runs_with_the_column_sets_that_want_something_of_it(name: OpName) -> None:
    op, machine = an_op(name), swatsim.machine("tensordash", tiles=1, rows=2)
    wanted = np.random.default_rng(6).random(op.output_shape) < 0.03
    run = replace(op, output=wanted)
    tiles = range(machine.timeline(run, 0).about["tiles"])
    about = [machine.timeline(run, tile).about for tile in tiles]
    total = sum(it["lines_scheduled"] * it["runs"] for it in about)
    assert total == machine.simulate_op(run).cycles_compute
    never = [it["lines_scheduled"] for it in about if not it["runs"]]
    assert never == [0] * len(never)


@pytest.mark.parametrize("preset", ["scnn", "scnn-queued"])
@pytest.mark.parametrize("name", OPS)
def test_products_that_nobody_wants_are_drawn_without_a_bank(preset: str, name: OpName) -> None:
    run, machine = some_outputs_of(an_op(name)), swatsim.machine(preset, pe_h=1, pe_w=1)
    _, events = drawn(machine.mechanism, run, machine.config, 0)
    products = [event for event in events if event.category == "product"]
    banks = [bank for it in products for row in it.details["banks"] for bank in row]
    assert sum(bank is not None for bank in banks) == run.macs_effectual
    assert None in banks
    if preset == "scnn":
        for event in products:
            hits = Counter(it for row in event.details["banks"] for it in row if it is not None)
            assert event.cycles == max(1, *hits.values(), 1)


@pytest.mark.parametrize("name", OPS)
def test_elements_of_a_product_of_activations_are_those_that_were_recorded(name: OpName) -> None:
    op = of_activations(name)
    shapes = {"weight": (2, 10, 3), "act": (2, 6, 7), "grad_out": (2, 10, 7)}
    for operand in op.operands:
        for number in (1, 23, op.operands[operand].size):
            place = np.unravel_index(number - 1, shapes[operand])
            assert tuple(element(op, operand, number).values()) == place


@pytest.mark.parametrize("mechanism", DRAWN, ids=lambda it: it.name)
def test_a_timeline_reads_nothing_that_rules_are_made_of(mechanism: Any) -> None:
    tree = ast.parse(inspect.getsource(sys.modules[mechanism.timeline.__module__]))
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    read |= {node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
    assert not read & RULES[mechanism.name]


def test_other_levels_are_drawn_as_they_are_played(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane after another, from the last: nothing but the table is changed."""
    machine = swatsim.machine("tensordash", tiles=1, scheduled="act")
    op = an_op("wgrad")

    def moves() -> Counter[tuple[int, ...]]:
        _, events = drawn(machine.mechanism, op, machine.config, 0)
        products = [it for it in events if it.category == "product"]
        return Counter((it.thread, it.begin, *it.details["move"]) for it in products)

    before = moves()
    levels = tuple((lane,) for lane in reversed(range(16)))
    monkeypatch.setattr(lane_array, "_PRIORITIES", {"levels": (False, levels)})
    assert moves() != before


@pytest.mark.parametrize("name", OPS)
def test_other_banks_are_drawn_as_they_are_played(
    monkeypatch: pytest.MonkeyPatch, name: OpName
) -> None:
    """One bank for all: each valid product waits for the others of its pair."""
    for module in (mapping, cartesian, logged):
        monkeypatch.setattr(module, "bank_table", lambda _: np.zeros((8, 4, 4), np.int64))
    monkeypatch.setattr(cartesian, "_table", lru_cache(cartesian._table.__wrapped__))
    machine, op = swatsim.machine("scnn", pe_h=2, pe_w=1), an_op(name)
    found, events = drawn(machine.mechanism, op, machine.config, 1)
    assert found.cycles == machine.simulate_op(op).cycles_compute
    products = [event for event in events if event.category == "product"]
    for event in products:
        valid = sum(bank is not None for row in event.details["banks"] for bank in row)
        assert event.cycles == max(1, valid)
    conflicts = [event for event in events if event.category == "bank_conflict"]
    assert len(conflicts) > len(products) / 2
    assert {event.details["bank"] for event in conflicts} == {0}


def test_a_log_is_as_long_as_the_window() -> None:
    config = swatsim.machine("scnn", pe_h=1, pe_w=1).config
    part = next(mapping.planar(an_op("fprop").with_masks(one_sample()), config))
    cycles, own = logged.log_steps(part, config, (0, 0))
    assert cycles.tolist() == own.tolist()
    assert cycles[2] > 9
    first, end = np.zeros((2, cycles.size), np.int64)
    first[2], end[2] = 3, 9
    log = logged.log_pairs(part, config, (0, 0), first, end)
    assert len(log.step) == 6
    pairs = range(log.size[1])
    assert 2 <= len(pairs) <= 6
    assert all(log.step[pair] == 2 for pair in pairs)
    assert log.begin[0] <= 3 < log.begin[0] + log.cost[0]
    assert log.begin[pairs[-1]] < 9 <= log.begin[pairs[-1]] + log.cost[pairs[-1]]


def one_sample() -> dict[Any, Any]:
    op = an_op("fprop")
    return {"weight": op.weight, "act": np.asarray(op.act)[:1]}
