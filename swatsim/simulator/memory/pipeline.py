"""The pipeline of an op's blocks: what is loaded and drained at each, and how long it takes.

A block's period depends on its neighbours alone, so all is arrays over positions, and nothing has
to be compiled for it.

Legend of dimensions: b positions, in the order of the loops; k filters, c channels, n rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from swatsim.simulator.memory.kernel import Counts

#: The loop (K, C, N) that weight, act and grad_out each lack.
LACKS = (2, 0, 1)
#: Rows and columns of their tables, as `_positions` numbers them: c of weights is within a group.
AXES = ((0, 4), (1, 2), (0, 2))
#: What fits in 64 bits, with room to add.
LARGEST = 2**61
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


def run_pipeline(
    blocks: Blocks, on_chip_cycles: int, per_cycle: tuple[int, int, int], value_bytes: int
) -> PipelineRun:
    """Run all blocks: while one is computed, the next is loaded and the one before drained.

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
    fast, slow, latency = per_cycle
    at = _positions(blocks)
    keys = [at[d1] * blocks.tables[t].shape[1] + at[d2] for t, (d1, d2) in enumerate(AXES)]
    moved = [np.append(True, key[1:] != key[:-1]) for key in keys]
    sizes = [table.reshape(-1)[key] for table, key in zip(blocks.tables, keys, strict=True)]
    loads = [size * there for size, there in zip(sizes, moved, strict=True)]
    output, inside = blocks.output, at[3 + LACKS[blocks.output]]
    complete = inside == len(blocks.ends[LACKS[output]]) - 2
    leaves = np.append(moved[output][1:], True) * sizes[output]
    results = leaves * complete * value_bytes
    partial = leaves * ~complete * SUM_BYTES
    back = loads[output] * (inside > 0) * SUM_BYTES
    loads[output] = back * 0
    load, drain, computing = sum(loads) + back, results + partial, spread(blocks, on_chip_cycles)
    if on_chip_cycles * fast + (int(load.sum()) + int(drain.sum())) * slow > LARGEST:
        # whole numbers of any size: slower, and as exact
        load, drain, computing = (one.astype(object) for one in (load, drain, computing))
    return _timed(load, drain, computing * fast, (slow, latency * fast))._replace(
        **{name: int(one.sum()) for name, one in zip(PipelineRun._fields[3:6], loads, strict=True)},
        result=int(results.sum()),
        partial=int(partial.sum() + back.sum()),
    )


def _timed(
    load: Counts, drain: Counts, computing: Counts, per_byte: tuple[int, int]
) -> PipelineRun:
    """Return the times of the blocks, their periods added up; bytes are left 0."""
    slow, latency = per_byte
    carried = np.append(load[1:], 0) + np.append(0, drain[:-1])
    start = latency + int(load[0]) * slow
    end = start + int(np.maximum(computing, carried * slow).sum())
    return PipelineRun(start, end, end + int(drain[-1]) * slow, 0, 0, 0, 0, 0)


def _positions(blocks: Blocks) -> tuple[Counts, ...]:
    """Return which block of each loop a position has: K, C over groups, N; then within a group."""
    sizes = [len(ends) - 1 for ends in blocks.ends]
    shape = (len(blocks.groups) - 1, *(sizes[d] for d in blocks.order))
    group, *nested = np.unravel_index(np.arange(int(np.prod(shape))), shape)
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
