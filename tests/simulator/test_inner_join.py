"""`inner_join` by hand: chunks, rounds, pairs, clusters; its timeline where PEs share filters."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import swatsim
from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.jit import jit, popcount
from swatsim.simulator.machines.inner_join import INNER_JOIN, mapping
from swatsim.workload.layer import OPERANDS_OF, Layer, OpName
from swatsim.workload.lowering import LoweredOp
from tests.naive import inner_join as twin


def linear(counts: list[list[int]], samples: int = 1, chunk: int = 64) -> LoweredOp:
    """Return an fprop of dense activations; of each filter so many weights in each chunk."""
    weight = np.array([np.arange(chunk) < n for row in counts for n in row])
    weight = weight.reshape(len(counts), -1)
    layer = Layer(name="x", kind="linear", C=weight.shape[1], K=len(counts))
    return LoweredOp(layer, "fprop", weight=weight, act=np.ones((samples, layer.C), np.bool_))


def run(op: LoweredOp, balancing: str, clusters: int = 1, pes: int = 2) -> Counters:
    return swatsim.machine(
        "sparten", clusters=clusters, pes_per_cluster=pes, chunk=64, balancing=balancing
    ).simulate_op(op)


FILTERS = [[40, 2], [2, 30], [20, 2], [2, 10]]


@pytest.mark.parametrize(
    ("balancing", "cycles"),
    [
        ("none", (40 + 2) + (20 + 2)),  # two rounds, of two filters each
        ("greedy-software", (2 + 30) + (20 + 2)),  # 42 and 12 on a PE, 32 and 22 on the other
        ("greedy-hardware", (40 + 2) + (30 + 2)),  # 40+2 and 20+2, then 30+2 and 10+2
    ],
)
def test_filters_that_share_a_pe(balancing: str, cycles: int) -> None:
    found = run(linear(FILTERS), balancing)
    assert found.cycles_compute == cycles
    assert found.lane_cycles_effectual == np.sum(FILTERS)
    assert found.lane_cycles_pe_sync == 2 * cycles - np.sum(FILTERS)


def test_a_pair_that_joins_nothing_takes_a_cycle() -> None:
    found = run(linear([[0, 0, 3], [0, 0, 0]]), "none")
    assert found.cycles_compute == 1 + 1 + 3
    assert (found.lane_cycles_idle, found.lane_cycles_pe_sync) == (2 + 3, 2)


def test_what_fits_without_sharing_is_neither_paired_nor_moved() -> None:
    some = linear([[9, 1], [7, 8], [5, 2]])
    found = {it: run(some, it, pes=3) for it in ("none", "greedy-software", "greedy-hardware")}
    assert len(set(found.values())) == 1
    assert found["none"].cycles_compute == 7 + 8


@pytest.mark.parametrize("balancing", ["none", "greedy-software", "greedy-hardware"])
@pytest.mark.parametrize(("name", "chunk"), [("fprop", 64), ("dgrad", 128), ("wgrad", 64)])
def test_streams_of_several_chunks_are_the_twins(name: OpName, chunk: int, balancing: str) -> None:
    layer = Layer(name="x", C=45, K=13, H=9, W=9, R=2, S=3, stride=(1, 2), padding=1)
    rng, values = np.random.default_rng(4), {}
    for operand in OPERANDS_OF[name]:
        shape = layer.shape_of(operand, 2)
        values[operand] = rng.integers(1, 9, shape) * (rng.random(shape) < 0.2 * rng.random())
    op = LoweredOp(layer, name, **{it: own != 0 for it, own in values.items()})
    config = swatsim.machine(
        "sparten", clusters=5, pes_per_cluster=3, chunk=chunk, balancing=balancing
    ).config
    theirs = twin.simulate(name, layer, config, **values)
    ours = INNER_JOIN.simulate_op(op, config)
    assert ours.cycles_compute == theirs.cycles
    counted = {it.removeprefix("lane_cycles_"): n for it, n in ours.buckets.items() if n}
    assert counted == {it: n for it, n in theirs.lane_cycles.items() if n}


def test_the_middle_one_of_an_odd_round_is_alone() -> None:
    found = run(linear([[9], [20], [4]]), "greedy-software")
    assert found.cycles_compute == 20 + 4
    assert found.lane_cycles_pe_sync == 24 - 9


def test_software_takes_rounds_from_both_ends() -> None:
    """Six filters on two PEs: 60 with 10 and 50 with 20, then 40 and 30 alone."""
    found = run(linear([[10], [60], [20], [50], [30], [40]]), "greedy-software")
    assert found.cycles_compute == 70 + 40
    assert found.lane_cycles_pe_sync == 10


def test_clusters_wait_at_the_end_of_the_pass_alone() -> None:
    """Windows 0 and 2 on one cluster; the rounds of the other go on without it."""
    found = run(linear([[9], [7], [5]], samples=3), "none", clusters=2)
    assert found.cycles_compute == 2 * (9 + 5)
    assert found.lane_cycles_tile_sync == 2 * 14
    assert found.lane_cycles_unmapped == 3 * 5
    assert found.words_a == 2 * (9 + 7 + 5)
    assert found.words_b == 2 * 3 * 64


def test_rows_are_cut_as_the_streams_are() -> None:
    """wgrad's streams, from packed rows, against the formula: strides, dilation, uneven padding."""
    shape = {"C": 4, "K": 2, "H": 9, "W": 75, "R": 3, "S": 2, "groups": 2}
    layer = Layer(name="x", **shape, stride=(2, 1), dilation=(1, 3), padding=((1, 0), (0, 2)))
    rng = np.random.default_rng(2)
    act = rng.random((2, 4, 9, 75)) < 0.4
    grad = rng.random((2, 2, layer.P, layer.Q)) < 0.4
    op = LoweredOp(layer, "wgrad", act=act, grad_out=grad)
    (part,) = mapping.passes(op, swatsim.machine("sparten").config)
    (streams,) = part.window_streams(range(part.parts))
    bits = np.unpackbits(streams.view(np.uint8), axis=-1, bitorder="little")
    filled = np.pad(act, [(0, 0), (0, 0), (1, 9), (0, 9)])
    for n, group, r, s, c in np.ndindex(2, 2, 3, 2, 2):
        taps = filled[n, 2 * group + c, r : r + 2 * layer.P : 2, 3 * s : 3 * s + layer.Q]
        found = bits[2 * n + group, (c * 3 + r) * 2 + s]
        np.testing.assert_array_equal(found[: part.length], taps.ravel())
        assert not found[part.length :].any()


@pytest.mark.parametrize("balancing", ["none", "greedy-software", "greedy-hardware"])
@pytest.mark.parametrize("name", ["fprop", "wgrad"])
def test_all_clusters_together_do_what_the_buckets_say(balancing: str, name: str) -> None:
    layer = Layer(name="x", C=8, K=14, H=4, W=3, R=3, S=3, groups=2, padding=1)
    full = LoweredOp.dense(layer, name, 2)
    draws = np.random.default_rng(3)
    masks = {it: draws.random(mask.shape) < 0.3 for it, mask in full.operands.items()}
    op = full.with_masks(masks)
    machine = swatsim.machine(
        "sparten", clusters=3, pes_per_cluster=3, chunk=64, balancing=balancing
    )
    spent: Counter[str] = Counter()
    for cluster in range(3):
        found = machine.timeline(op, cluster)
        for event in found.events(range(found.cycles)):
            if event.thread:
                spent[event.category] += event.cycles
    counted = machine.simulate_op(op)
    spent["effectual"] = spent.pop("product")
    assert spent == {it.removeprefix("lane_cycles_"): n for it, n in counted.buckets.items() if n}


def test_a_window_of_a_timeline_is_cut_out_of_the_whole() -> None:
    machine = swatsim.machine("sparten", clusters=2, pes_per_cluster=2, chunk=64)
    found = machine.timeline(linear(FILTERS, samples=5), 1)
    whole = set(map(repr, found.events(range(found.cycles))))
    cut = range(80, 90)
    some = list(found.events(cut))
    assert 0 < len(some) < len(whole)
    assert set(map(repr, some)) <= whole
    for thread in range(len(found.threads)):
        own = [range(it.begin, it.begin + it.cycles) for it in some if it.thread == thread]
        assert all(any(cycle in one for one in own) for cycle in cut)


def test_a_chunk_is_whole_words() -> None:
    with pytest.raises(ConfigError, match=r"chunk=100 is no whole number of words .* 64 or 128"):
        swatsim.machine("sparten", chunk=100)


@jit
def counted(words: np.ndarray, found: np.ndarray) -> None:
    for i in range(words.size):
        found[i] = popcount(words[i])


def test_a_kernel_counts_ones() -> None:
    words = np.random.default_rng(1).integers(0, 2**64, 100, np.uint64)
    words[:2] = 0, 2**64 - 1
    found = np.zeros(100, np.uint64)
    counted(words, found)
    np.testing.assert_array_equal(found, np.bitwise_count(words))
