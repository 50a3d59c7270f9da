"""The pipeline of an op's blocks: what is loaded and drained at each, and how long it takes.

A block's period depends on its neighbours alone, so all is arrays over positions, and nothing has
to be compiled for it.

Legend of dimensions: b positions, in the order of the loops; k filters, c channels, n rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.simulator.memory.kernel import Counts

#: The loop (K, C, N) that weight, act and grad_out each lack.
LACKS = (2, 0, 1)
#: Rows and columns of their tables, as `_positions` numbers them: c of weights is within a group.
AXES = ((0, 4), (1, 2), (0, 2))
#: What fits in 64 bits; as much of each `MOST_AT_ONCE` of an op's blocks, of which there are eight
#: times as many at most, can be added up.
LARGEST = 2**57
#: Blocks that are run at once (some 64 MiB).
MOST_AT_ONCE = 2**18
#: Bytes of a partial sum.
SUM_BYTES = 4


class Blocks(NamedTuple):
    """The blocks of an op.

    Parameters
    ----------
    tables : three of numpy.ndarray of int64
        Bytes of each block of weight (k, c), act (c, n), grad_out (k, n); their rows are counted
        over groups. Of the tensor that the op makes, its elements.
    output : int
        That tensor.
    order : numpy.ndarray of int64, shape (3,)
        Loops K, C, N (0, 1, 2), outermost first.
    groups : numpy.ndarray of int64
        Where blocks of groups end, from 0 on.
    ends : three of numpy.ndarray of int64
        The same of the loops K, C, N.
    """

    tables: Sequence[Counts]
    output: int
    order: Counts
    groups: Counts
    ends: Sequence[Counts]


class PipelineRun(NamedTuple):
    """Times and traffic of all blocks of an op.

    Parameters
    ----------
    start, end, total : int
        When the first block is there, the last is computed, the last is drained; in units of
        1 / MB/s cycles.
    weight, act, grad_out, result, partial : int
        Bytes loaded, written, and of partial sums in both directions.
    """

    start: int
    end: int
    total: int
    weight: int
    act: int
    grad_out: int
    result: int
    partial: int


class Slots(NamedTuple):
    """What happens between two blocks' turns, in order: arrays of all blocks, and two more.

    In slot 0 the first block is loaded, in slot i block i is computed (counted from 1) while the
    next is loaded and the one before drained, in the last slot the last block is drained.

    Parameters
    ----------
    loaded, drained : numpy.ndarray of int64, shape (blocks + 2,)
        Bytes, partial sums included.
    computing : numpy.ndarray of int64, shape (blocks + 2,)
        Cycles in which the PEs compute.
    lasts : numpy.ndarray, shape (blocks + 2,)
        How long it takes, in units of 1 / MB/s cycles; whole numbers of any size where 64 bits are
        too few.
    """

    loaded: Counts
    drained: Counts
    computing: Counts
    lasts: npt.NDArray[Any]


class _Moved(NamedTuple):
    """Bytes that some blocks move: of operands, of results, of partial sums out and back."""

    operands: list[Counts]
    results: Counts
    partial: Counts
    back: Counts

    @property
    def sums(self) -> list[int]:
        """Of weight, act, grad_out, of results and of partial sums."""
        partial = int(self.partial.sum()) + int(self.back.sum())
        return [*(int(one.sum()) for one in self.operands), int(self.results.sum()), partial]


def run_pipeline(
    blocks: Blocks, on_chip_cycles: int, per_cycle: tuple[int, int, int], value_bytes: int
) -> PipelineRun:
    """Run all blocks: while one is computed, the next is loaded and the one before drained.

    Parameters are those of `slots_of`.
    """
    start, total, last, carried = None, 0, 0, [0] * 5
    for moved, slots in _run(blocks, on_chip_cycles, per_cycle, value_bytes):
        start = int(slots.lasts[0]) if start is None else start
        total, last = total + int(slots.lasts.sum()), int(slots.lasts[-1])
        carried = [one + more for one, more in zip(carried, moved.sums, strict=True)]
    assert start is not None, "there is a block"
    return PipelineRun(start, total - last, total, *carried)


def slots_of(
    blocks: Blocks, on_chip_cycles: int, per_cycle: tuple[int, int, int], value_bytes: int
) -> Slots:
    """Return the same run, slot by slot.

    Parameters
    ----------
    blocks : Blocks
    on_chip_cycles : int
        Cycles to compute in all.
    per_cycle : (int, int, int)
        MB/s, MHz, latency in cycles. Time is counted in units of 1 / MB/s cycles, in which a byte
        takes MHz of them: whole numbers throughout.
    value_bytes : int
        Of a result.
    """
    parts = [slots for _, slots in _run(blocks, on_chip_cycles, per_cycle, value_bytes)]
    return Slots(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _run(
    blocks: Blocks, on_chip_cycles: int, per_cycle: tuple[int, int, int], value_bytes: int
) -> Iterator[tuple[_Moved, Slots]]:
    """Yield what blocks move, and the slots that they are loaded in; the last has two slots more.

    So many at a time that a million of them take no more room than their cycles.
    """
    computing = spread(blocks, on_chip_cycles)
    before = np.zeros(2, np.int64)  # what the two blocks before drain
    for begin in range(0, len(computing), MOST_AT_ONCE):
        end = min(begin + MOST_AT_ONCE, len(computing))
        moved = _moved(blocks, value_bytes, range(begin, end))
        more = 2 if end == len(computing) else 0
        computes = computing[max(begin - 1, 0) : end - 1 + more]
        computes = np.pad(computes, (begin == 0, more // 2))
        drains = np.concatenate((before, moved.results + moved.partial))
        load = np.pad(sum(moved.operands) + moved.back, (0, more))
        slots = _slots(load, drains[: len(load)], computes, per_cycle)
        if begin == 0:
            slots.lasts[0] += per_cycle[2] * per_cycle[0]
        yield moved, slots
        before = drains[-2:]


def _moved(blocks: Blocks, value_bytes: int, which: range) -> _Moved:
    count = prod(len(ends) - 1 for ends in (blocks.groups, *blocks.ends))
    # with their neighbours: a block is loaded if the one before it is another, and so leaves
    around = np.arange(max(which.start - 1, 0), min(which.stop + 1, count))
    at = _positions(blocks, around)
    own = slice(which.start - int(around[0]), which.stop - int(around[0]))
    keys = [at[d1] * blocks.tables[t].shape[1] + at[d2] for t, (d1, d2) in enumerate(AXES)]
    new = [np.concatenate(([True], key[1:] != key[:-1], [True])) for key in keys]
    sizes = [table.reshape(-1)[key[own]] for table, key in zip(blocks.tables, keys, strict=True)]
    loads = [size * there[:-1][own] for size, there in zip(sizes, new, strict=True)]
    output, inside = blocks.output, at[3 + LACKS[blocks.output]][own]
    complete = inside == len(blocks.ends[LACKS[output]]) - 2
    leaves = new[output][1:][own] * sizes[output]
    back = loads[output] * (inside > 0) * SUM_BYTES
    loads[output] = back * 0
    return _Moved(loads, leaves * complete * value_bytes, leaves * ~complete * SUM_BYTES, back)


def _slots(
    loaded: Counts, drained: Counts, computing: Counts, per_cycle: tuple[int, int, int]
) -> Slots:
    fast, slow, _ = per_cycle
    # whole numbers of any size, where they are needed: slower, and as exact
    largest = int(computing.sum()) * fast + (int(loaded.sum()) + int(drained.sum())) * slow
    kind: Any = object if largest > LARGEST else np.int64
    moves = (loaded.astype(kind) + drained.astype(kind)) * slow
    return Slots(loaded, drained, computing, np.maximum(computing.astype(kind) * fast, moves))


def _positions(blocks: Blocks, which: Counts) -> tuple[Counts, ...]:
    """Return which block of each loop a position has: K, C over groups, N; then within a group."""
    sizes = [len(ends) - 1 for ends in blocks.ends]
    shape = (len(blocks.groups) - 1, *(sizes[d] for d in blocks.order))
    group, *nested = np.unravel_index(which, shape)
    k, c, n = (nested[list(blocks.order).index(d)] for d in range(3))
    return group * sizes[0] + k, group * sizes[1] + c, n, k, c, n


def spread(blocks: Blocks, total: int) -> Counts:
    """Return the cycles of each block: its share of all, by its extents, loop by loop."""
    shares = np.array([total], np.int64)
    for ends in (blocks.groups, *(blocks.ends[d] for d in blocks.order)):
        kind = object if total * int(ends[-1]) > LARGEST else np.int64
        given = (shares[:, None].astype(kind) * ends // ends[-1]).astype(np.int64)
        shares = np.diff(given, axis=1).reshape(-1)
    return shares
