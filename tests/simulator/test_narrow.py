"""Packed and narrow integers at their limits: none runs over."""

from __future__ import annotations

import numpy as np
import pytest

import swatsim
from swatsim.simulator.elements import assemble, numbered
from swatsim.simulator.machines.cartesian import kernel_banks
from swatsim.simulator.machines.cartesian.config import MAX_VECTOR
from swatsim.simulator.machines.cartesian.kernel_banks import larger
from swatsim.simulator.machines.cartesian.kernel_patterns import (
    MAX_CLASSES,
    find_patterns,
    key_of,
)
from swatsim.workload.layer import Layer


@pytest.mark.parametrize("classes", [16, 17, 2**15, 2**15 + 1, MAX_CLASSES - 1])
def test_blocks_of_different_classes_have_different_keys(classes: int) -> None:
    """With 15 bits a class, one above 2**15 ran into its neighbour."""
    rng = np.random.default_rng(classes)
    last = np.minimum(classes - 1, rng.integers(0, 3, (500, MAX_VECTOR)) * (classes - 2) // 2)
    blocks = np.sort(np.unique(last, axis=0), axis=1)
    seen: dict[tuple[int, int], tuple[int, ...]] = {}
    for block in blocks:
        for length in (1, 4, 5, MAX_VECTOR):
            part = np.ascontiguousarray(block[:length])
            key = tuple(map(int, key_of(part, classes)))
            assert seen.setdefault(key, tuple(part)) == tuple(part)


def test_where_classes_have_no_room_in_a_key_every_block_is_a_pattern_of_its_own() -> None:
    queue = np.array([65_535, 65_536, 7, 65_535, 65_536, 7, 7], np.int64)
    starts = np.array([0, 4, 7], np.int64)
    found, begins, patterns = find_patterns(queue, starts, MAX_CLASSES + 1, 2)
    blocks = [[65_535, 65_536], [7, 65_535], [65_536, 7], [7, -1]]
    assert patterns[found].tolist() == blocks
    assert begins.tolist() == [0, 2, 4]
    shared = find_patterns(queue % 17, starts, 17, 2)
    assert shared[2][shared[0]].tolist() == [[0, 1], [7, 0], [1, 7], [7, -1]]


def test_the_bytes_of_counters_hold_the_largest_block() -> None:
    """A byte is a bank's products of one block of weights: compared as numbers below 128."""
    most = MAX_VECTOR * MAX_VECTOR
    assert most < 128
    words = [
        np.uint64(sum(value << 8 * i for i, value in enumerate(values)))
        for values in (
            [0, 1, most, most - 1, 127, 0, 64, 63],
            [1, 0, most - 1, most, 126, 127, 63, 64],
        )
    ]
    found = int(larger(*words))
    assert [found >> 8 * i & 255 for i in range(8)] == [1, 1, most, most, 127, 127, 64, 64]
    assert kernel_banks.sum_of_bytes(np.uint64(0x4040404040404040)) == 8 * most


@pytest.mark.parametrize("size", [1, 127, 128, 254, 255, 256, 257, 65_535, 65_536])
def test_elements_are_numbered_up_to_the_last(size: int) -> None:
    layer = Layer(name="fc", kind="linear", C=size, K=1)
    ones = np.ones((1, size), bool)
    op = swatsim.LoweredOp(layer, "fprop", weight=ones, act=ones)
    numbers = assemble(part.operands["weight"] for part in numbered(op))
    assert numbers.tolist() == [list(range(1, size + 1))]


@pytest.mark.parametrize("lanes", [1, 2, 63, 64])
def test_words_of_as_many_lanes_as_there_are_bits(lanes: int) -> None:
    layer = Layer(name="fc", kind="linear", C=2 * lanes, K=2)
    weight = np.ones((2, 2 * lanes), bool)
    weight[:, ::2] = False
    op = swatsim.Op(layer, "fprop", weight=weight, act=np.ones((1, 2 * lanes), bool))
    given = {"tiles": 1, "rows": 2, "columns": 1, "lanes": lanes, "scheduled": "weight"}
    moves = {"lookahead": 1, "lookaside": 0, "move_shape": "L", "scheduler": "most_candidates"}
    machine = swatsim.machine("bit-tactical", **given, **moves)
    counters = swatsim.simulate_op(op, machine)
    assert counters.lane_cycles_effectual == 2 * lanes
    assert counters.cycles_compute == 1 + (lanes % 2 == 0)  # odd: the next line fills the gaps
