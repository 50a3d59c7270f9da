"""Streams, cut into lines and sets: what every op comes down to on a `lane_array`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from swatsim.simulator.machines.lane_array.kernel import Counts, Words, pack_lines
from swatsim.workload.windows import Mask

#: Lines are packed so many words at a time (16 MiB), or one row set at a time.
MOST_WORDS = 2**21
#: Row sets whose schedules are held at once, but for those of a group that has outputs left out.
MOST_SETS = 2**18


class Sets(NamedTuple):
    """Row sets of some groups; of several groups, all of them.

    Parameters
    ----------
    groups, sets : range
    """

    groups: range
    sets: range

    @property
    def shape(self) -> tuple[int, int]:
        """How many there are, as (groups, row sets)."""
        return len(self.groups), len(self.sets)


@dataclass(frozen=True)
class Pass:
    """Row streams and column streams: a part of an op, or several alike that follow one another.

    Parameters
    ----------
    lines : callable of Sets returning numpy.ndarray of uint64, shape (row sets, rows, T)
        The lines of some row sets, group by group. Packed when asked for; the dense baseline never
        asks.
    lanes_in_use : callable returning numpy.ndarray of uint64, shape (1 or rows, T)
        The lanes of each line that hold an element, zero or not: free lanes are none.
    mapped : numpy.ndarray of int64, shape (row sets,)
        Rows of each set of a group that hold a stream.
    groups : int
        Parts alike: groups of a layer, each with row streams of its own.
    length : int
        Lines of a stream, T.
    elements : int
        Elements of a row stream; the free lanes of partly filled lines are none.
    columns : numpy.ndarray of int64, shape (column sets,)
        Streams of each column set.
    followed : numpy.ndarray of int64, shape (row sets,)
        Elements that a column stream has for each row set of a group.
    repeats : int
        Times that the same pass runs: samples, where the rows hold weights.
    tiles : int
        Tiles over which row sets are spread.
    wanted : callable of range returning numpy.ndarray of bool, optional
        Of some groups, shape (repeats, groups, column sets, row sets): which have an output that
        somebody wants with each other. By default all.
    """

    lines: Callable[[Sets], Words]
    lanes_in_use: Callable[[], Words]
    mapped: Counts
    groups: int
    length: int
    elements: int
    columns: Counts
    followed: Counts
    repeats: int
    tiles: int
    wanted: Callable[[range], Mask] | None = None

    @property
    def following(self) -> int:
        """Column streams of all column sets."""
        return int(self.columns.sum())

    def slabs(self) -> Iterator[Sets]:
        """Yield all row sets in order, so many that what they take can be added up alone.

        Those of a group are cut between rounds of all tiles, if each row set runs with all columns.
        """
        sets = range(self.mapped.size)
        rounds = max(1, MOST_SETS // self.tiles) * self.tiles
        together = rounds if self.wanted is None else len(sets)
        yield from _cut(range(self.groups), sets, MOST_SETS, together)

    def pieces(self, slab: Sets) -> Iterator[Sets]:
        """Yield the row sets of a slab in order, so many that their lines can be held at once."""
        together = max(1, MOST_WORDS // (int(self.mapped.max()) * self.length))
        yield from _cut(slab.groups, slab.sets, together, together)

    def lines_of(self, sets: Sequence[int]) -> Words:
        """Return the lines of some row sets, which are counted over all groups."""
        places = (divmod(number, self.mapped.size) for number in sets)
        some = (Sets(range(group, group + 1), range(at, at + 1)) for group, at in places)
        return np.concatenate([self.lines(one) for one in some])


def _cut(groups: range, sets: range, most: int, together: int) -> Iterator[Sets]:
    """Yield some whole groups, of `most` row sets; of larger ones `together` at a time."""
    if len(sets) > max(most, together):
        for group in groups:
            for first in range(0, len(sets), together):
                yield Sets(range(group, group + 1), sets[first : first + together])
        return
    at_once = max(1, most // len(sets))
    for first in range(0, len(groups), at_once):
        yield Sets(groups[first : first + at_once], sets)


def streams_of(some: Sets, rows: int, streams: int) -> range:
    """Return the streams in some row sets, of all groups, each of so many."""
    first = some.groups.start * streams + some.sets.start * rows
    end = (some.groups.stop - 1) * streams + min(some.sets.stop * rows, streams)
    return range(first, end)


def rectangles(positions: range, width: int) -> Iterator[tuple[range, range]]:
    """Yield positions that lie row by row as rows and columns: two parts of rows, whole ones."""
    at = positions.start
    while at < positions.stop:
        row, column = divmod(at, width)
        rows = 1 if column else max(1, (positions.stop - at) // width)
        size = min(width - column, positions.stop - at)
        yield range(row, row + rows), range(column, column + size)
        at += rows * size


def ceil_of(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def pack(mask: Mask, lanes: int) -> Words:
    """Return the last axis as lines: (.., n) as (.., ceil(n/lanes)) words, lane l in bit l."""
    rows = np.require(mask, requirements=["C", "W"]).reshape(-1, mask.shape[-1])
    return pack_lines(rows, lanes).reshape(*mask.shape[:-1], ceil_of(mask.shape[-1], lanes))


def lanes_of(values: int, times: int, lanes: int) -> Words:
    """Return the lanes in use of a stream that takes `values` elements `times` times."""
    return np.tile(pack(np.ones((1, values), np.bool_), lanes), times)


def sets_of(streams: Words, rows: int) -> Words:
    """Cut streams (.., n, T) into sets of so many rows, the last one's missing ones empty.

    Shape (.. * sets, rows, T).
    """
    *outer, n, length = streams.shape
    sets = ceil_of(n, rows)
    cut = np.zeros((*outer, sets * rows, length), np.uint64)
    cut[..., :n, :] = streams
    return cut.reshape(-1, rows, length)


def rows_of(streams: int, rows: int) -> int:
    """Return the rows of a set: a single one has no use for rows without a stream."""
    return min(rows, streams)


def rows_in_use(streams: int, rows: int, times: int = 1) -> Counts:
    """Return the rows in use in each set of `streams` streams, for `times` such groups of sets."""
    counts = np.full(ceil_of(streams, rows), rows, np.int64)
    counts[-1] = streams - rows * (len(counts) - 1)
    return np.tile(counts, times)


def any_of_sets(wanted: Mask, axis: int, streams: int) -> Mask:
    """Return which sets of so many streams along an axis have one that is wanted."""
    along = np.moveaxis(wanted, axis, 0)
    sets = np.array(along[::streams])
    for i in range(1, min(streams, len(along))):
        others = along[i::streams]
        sets[: len(others)] |= others
    return np.moveaxis(sets, 0, axis)
