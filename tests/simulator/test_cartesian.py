"""What a `cartesian` does that its twin alone would not show: rules counted by hand, and limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

import swatsim
from swatsim.counters import Counters
from swatsim.simulator.machines.cartesian import kernel_banks, sides
from swatsim.simulator.machines.cartesian.kernel_patterns import find_patterns
from swatsim.simulator.machines.cartesian.kernel_queue import (
    DEEPEST_BYTE,
    issue,
    longest,
    rest,
    words_of_queues,
)
from swatsim.simulator.machines.cartesian.machine import convolve, simulate_op
from swatsim.simulator.machines.cartesian.mapping import groups, planar, square
from swatsim.workload.layer import OPERANDS_OF, OPS, Layer, OpName
from swatsim.workload.lowering import LoweredOp

TOKENS = Layer(name="tokens", C=256, K=256, H=256, W=1)
ONE_PE = {"pe_h": 1, "pe_w": 1, "act_vector": 1, "weight_vector": 1, "accumulator": 64, "banks": 1}


def random_op(layer: Layer, name: OpName, samples: int = 1, **density: float) -> LoweredOp:
    rng = np.random.default_rng(4)
    shapes = {it: layer.shape_of(it, samples) for it in OPERANDS_OF[name]}
    masks: Any = {it: rng.random(shapes[it]) < density.get(it, 0.5) for it in shapes}
    return LoweredOp(layer, name, **masks)


# ---- large kernels -------------------------------------------------------------------------------


def test_how_many_classes_are_laid_out_at_once_changes_no_cost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    op = random_op(Layer(name="x", C=1, K=5, H=9, W=8, R=4, S=3, padding=2), "fprop")
    part = next(planar(op, swatsim.machine("scnn", pe_h=1, pe_w=1).config))
    axes, pixels = (part.rows, part.columns, part.array), np.flatnonzero(part.data[0, 0])
    classes = part.rows.pixel_class[:, None] * len(part.columns.place)
    queue = (classes + part.columns.pixel_class).ravel()[pixels]
    number = len(part.rows.place) * len(part.columns.place)
    starts = np.array([0, len(queue)])
    _, _, patterns = find_patterns(queue, starts, number, part.array.act_vector)
    taps, filters = part.weight.shape[2:], np.argwhere(part.weight[0].transpose(1, 2, 0))
    assert max(taps) == 4
    found = []
    for most in (2**14, 8, 4):
        monkeypatch.setattr(kernel_banks, "MOST_CLASSES", most)
        counters = np.empty(min(number, most) * 32 * 8, np.uint64)
        each = np.zeros((len(patterns), -(-len(filters) // part.array.weight_vector)), np.uint8)
        run = counters, patterns, filters, 3, *axes, each
        uncompiled: Any = kernel_banks.cost_patterns  # compiled, the constant is one
        found.append((uncompiled.py_func(*run).tolist(), each.tolist()))
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize("most", [2**20, 1])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 2), (2, 4), (1, 5)])
def test_pixels_of_a_class_meet_the_same_taps_in_the_same_way(
    monkeypatch: pytest.MonkeyPatch, stride: int, dilation: int, most: int
) -> None:
    monkeypatch.setattr(sides, "MOST_MET", most)
    for size, taps, outputs in ((40, 3, 40), (40, 7, 9), (23, 1, 23), (9, 9, 1), (12, 4, 3)):
        side, met = sides.Side(size, taps, stride, dilation, outputs), {}
        for pixel, tap in product(range(size), range(taps)):
            output, rest = divmod(pixel - tap * dilation, stride)
            there = not rest and 0 <= output < outputs
            met[pixel, tap] = output % 4 if there else -1
        ways = [tuple(met[pixel, tap] for tap in range(taps)) for pixel in range(size)]
        side.axis.cache_clear()
        axis = side.axis(2, False)
        by_class = sides.bits_by_tap(axis).T
        assert [tuple(by_class[it]) for it in axis.pixel_class] == ways
        assert len(axis.place) == len(set(ways))
        apart = side.axis(2, True)
        assert [tuple(it) for it in sides.bits_by_tap(apart).T] == ways


# ---- outputs that nobody wants -------------------------------------------------------------------


def of_one_pixel(wanted: list[bool], **changed: int) -> Counters:
    """One pixel, a channel, a pair of blocks of four filters each: all products into one bank."""
    layer = Layer(name="x", C=1, K=len(wanted), H=1, W=1)
    output = np.array(wanted).reshape(1, -1, 1, 1)
    op = replace(LoweredOp.dense(layer, "fprop", 1), output=output)
    return swatsim.machine("scnn", **{**ONE_PE, "weight_vector": 4, **changed}).simulate_op(op)


def test_a_product_that_nobody_wants_takes_a_multiplier_and_no_bank() -> None:
    found = of_one_pixel([True, False, False, False, False, True, True, True])
    assert found.cycles_compute == 1 + 3
    assert (found.words_a, found.words_b, found.accumulations) == (8, 1, 2 * 4)
    assert (found.lane_cycles_effectual, found.lane_cycles_ineffectual) == (4, 4)
    queued = of_one_pixel([True, False, False, False, False, True, True, True], bank_queue=3)
    assert queued.cycles_compute == 2 + 3  # one retires before three enter; they drain


def test_a_chunk_that_nobody_wants_costs_nothing() -> None:
    wanted = [False] * 4 + [True] + [False] * 3 + [False] * 4
    found = of_one_pixel(wanted, accumulator=4, bank_queue=1)
    assert found.cycles_compute == 1 + 1
    assert (found.words_a, found.words_b) == (4, 1)


def test_a_pe_whose_sums_nobody_wants_owns_nothing() -> None:
    layer = Layer(name="x", C=2, K=2, H=2, W=1, R=2)
    wanted = np.zeros((2, 2, 2, 1), bool)
    wanted[1, 0, 1, 0] = True  # of one pair of channels, at one tap
    op = replace(LoweredOp.dense(layer, "wgrad", 3), output=wanted)
    found = swatsim.machine("scnn", **{**ONE_PE, "pe_h": 2, "pe_w": 2}).simulate_op(op)
    assert found.cycles_compute == 3
    assert (found.words_a, found.words_b) == (3, 3)
    assert found.lane_cycles_unmapped == 3 * 3


def test_of_channels_that_are_alike_one_is_run() -> None:
    """A product of activations below a diagonal, with a channel that is not like the others."""
    layer = Layer(name="x", C=4, K=9, H=9, W=1)
    op = random_op(layer, "fprop", weight=1.0, act=1.0)
    act = np.array(op.act)
    act[:, 2, ::2] = False
    causal = np.tri(9, dtype=bool).T.reshape(1, 9, 9, 1)
    run = replace(op.with_masks({"weight": op.weight, "act": act}), output=causal)
    for preset in ("swat", "scnn-queued"):
        config = swatsim.machine(preset, pe_h=2, pe_w=2).config
        (group,) = groups(run, config)
        every, found = convolve(group.whole()), simulate_op(run, config)
        assert found.cycles_compute == every.cycles + group.halo_cycles
        assert (found.words_a, found.words_b) == (every.words_a, every.words_b)


# ---- queues --------------------------------------------------------------------------------------


def on_one_pe(filters: int, channels: int, depth: int, **changed: int) -> Counters:
    """One pixel, all filters: a pair of blocks for each, all of them into one bank."""
    layer = Layer(name="x", C=channels, K=filters, H=1, W=1)
    op = LoweredOp.dense(layer, "fprop", 1)
    machine = swatsim.machine("scnn", **{**ONE_PE, **changed}, bank_queue=depth)
    return machine.simulate_op(op)


@pytest.mark.parametrize("depth", [1, 2, 127, 128, 1000])
def test_a_bank_keeps_up_with_one_product_a_cycle(depth: int) -> None:
    found = on_one_pe(filters=6, channels=2, depth=depth)
    assert found.cycles_compute == 6 * 2 + 1  # the last product drains
    assert found.lane_cycles_bank_conflict == 1


@pytest.mark.parametrize(
    ("depth", "issued", "drain"),
    [
        (1, 1 + 4, 4),  # four fit into an empty queue, the next four into an empty one again
        (5, 1 + 3, 5),  # or where they make five with the one that is left
        (7, 1 + 1, 7),  # or seven, at once
    ],
)
def test_stalls_by_hand(depth: int, issued: int, drain: int) -> None:
    """Two blocks of four filters on one bank."""
    found = on_one_pe(filters=8, channels=1, depth=depth, weight_vector=4)
    assert found.cycles_compute == issued + drain
    assert found.lane_cycles_bank_conflict == (issued + drain - 2) * 4


@pytest.mark.parametrize("name", OPS)
def test_how_deep_an_endless_queue_is_makes_no_difference(name: OpName) -> None:
    layer = Layer(name="x", C=32, K=64, H=14, W=14, R=3, S=3, padding=1)
    op = random_op(layer, name)
    found = {
        depth: swatsim.machine("scnn", bank_queue=depth).simulate_op(op)
        for depth in (0, 8, 2**20, 2**24)
    }
    assert found[2**20] == found[2**24]
    assert found[8].cycles_compute < found[0].cycles_compute
    for counter in ("words_a", "words_b", "accumulations", "products", "lane_cycles_idle"):
        assert len({getattr(it, counter) for it in found.values()}) == 1


@pytest.mark.parametrize("depth", [1, 5, 8, 64, DEEPEST_BYTE])
def test_queues_of_bytes_are_queues_of_words(depth: int) -> None:
    """The same products, counted by hand and in bytes."""
    rng = np.random.default_rng(depth)
    products = rng.integers(0, 2, (300, 32)) * rng.integers(0, 65, (300, 32)).astype(np.uint8)
    products = np.ascontiguousarray(products, np.uint8)
    queues, each = np.zeros(words_of_queues(depth, 32), np.uint64), np.empty(300, np.int64)
    issue(products.view(np.uint64).reshape(-1), queues, depth, each)
    held = np.zeros(32, np.int64)
    for pair, taken in zip(products.astype(np.int64), each, strict=True):
        waited = 0
        while True:
            waited += 1
            held = np.maximum(held - 1, 0)
            if not np.any((pair > 0) & (held > 0) & (held + pair > depth)):
                break
        held += pair
        assert waited == taken
    assert longest(queues, depth) == held.max()
    rest(queues, depth, 3)
    np.testing.assert_array_equal(queues.view(np.uint8), np.maximum(held - 3, 0))
    rest(queues, depth, 10**6)
    assert not queues.any()


@pytest.mark.parametrize("name", OPS)
def test_queues_make_no_difference_to_the_first_baseline(name: OpName) -> None:
    layer = Layer(name="x", C=20, K=24, H=7, W=7, R=3, S=3, padding=1)
    op = random_op(layer, name)
    queued, held = (swatsim.machine(it) for it in ("scnn-queued", "scnn"))
    assert queued.simulate_dense(op) == held.simulate_dense(op)
    (ours,) = queued.simulate_alternatives(op).values()
    assert ours.cycles_compute > queued.simulate_dense(op).cycles_compute  # it drains at least


# ---- borders -------------------------------------------------------------------------------------


def halo_of(layer: Layer, name: OpName, **parameters: Any) -> int:
    config = swatsim.machine("scnn", **parameters).config
    return next(planar(LoweredOp.dense(layer, name, 1), config)).halo


@pytest.mark.parametrize("name", ["fprop", "dgrad"])
def test_a_linear_layer_has_no_border(name: OpName) -> None:
    layer = Layer(name="fc", kind="linear", C=300, K=256)
    assert halo_of(layer, name) == 15 * 15
    assert halo_of(layer, name, halo="output") == 0
    assert swatsim.machine("swat").simulate_op(random_op(layer, name)).lane_cycles_halo == 0


@pytest.mark.parametrize(
    ("changed", "reach", "output"),
    [
        ({}, 8, 8),  # tiles of 58 / 8, one row of sums beyond
        ({"stride": 2}, 8, 4),  # every other pixel leads to a sum
        ({"R": 7, "S": 7, "padding": 3}, 3 * 8, 3 * 8),
        ({"H": 1, "W": 1}, 1, 0),  # no sums but a PE's own
        ({"H": 9, "W": 1}, 2, 1),  # none along the second axis
    ],
)
def test_borders_by_hand(changed: dict[str, Any], reach: int, output: int) -> None:
    sizes = {"C": 1, "K": 1, "H": 56, "W": 56, "R": 3, "S": 3, "padding": 1}
    layer = Layer(name="x", **{**sizes, **changed})
    assert halo_of(layer, "fprop") == reach
    assert halo_of(layer, "fprop", halo="output") == output


# ---- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positions", "pes", "plane"),
    [
        (256, (8, 8), (16, 16)),
        (197, (8, 8), (15, 14)),  # a ViT's: tiles of 2 x 2, and 15 is nearer than 16 x 13
        (1, (8, 8), (1, 1)),
        (7, (8, 1), (7, 1)),
        (7, (1, 8), (1, 7)),
        (2, (8, 8), (2, 1)),  # the larger first side
        (64, (4, 16), (4, 16)),
    ],
)
def test_planes_of_tokens(positions: int, pes: tuple[int, int], plane: tuple[int, int]) -> None:
    assert square(positions, *pes) == plane


@pytest.mark.parametrize("name", ["fprop", "dgrad"])
def test_tokens_take_what_their_plane_takes(name: OpName) -> None:
    layer = TOKENS.model_copy(update={"H": 16, "W": 16})
    op = random_op(TOKENS, name, weight=0.2)
    ours: Any = {it: mask.reshape(layer.shape_of(it, 1)) for it, mask in op.operands.items()}
    ours["weight"] = op.weight
    machine = swatsim.machine("swat")
    found = machine.simulate_op(op)
    assert found == machine.simulate_op(LoweredOp(layer, name, **ours))
    assert found.lane_cycles_unmapped == 0
    as_recorded = swatsim.machine("swat", positions="as_recorded").simulate_op(op)
    assert as_recorded.cycles_compute > 10 * found.cycles_compute
    assert as_recorded.lane_cycles_unmapped == as_recorded.lane_cycles * 7 // 8


def test_images_and_kernels_lie_as_they_are() -> None:
    shapes = ({"H": 12, "W": 12}, {"H": 1, "W": 70, "S": 3}, {"H": 9, "W": 1, "stride": (2, 1)})
    for changed in shapes:
        layer = Layer(name="x", C=3, K=9, **changed)
        op = random_op(layer, "fprop")
        one, other = (
            swatsim.machine("swat", positions=it).simulate_op(op)
            for it in ("square", "as_recorded")
        )
        assert one == other
