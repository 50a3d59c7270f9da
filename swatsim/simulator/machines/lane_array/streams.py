"""Streams, cut into lines and sets: what every op comes down to on a `lane_array`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from swatsim.simulator.machines.lane_array.kernel import Counts, Words, pack_lines
from swatsim.workload.windows import Mask


@dataclass(frozen=True)
class Pass:
    """Row streams and column streams: a part of an op, or several alike that follow one another.

    Parameters
    ----------
    pieces : sequence of callable returning numpy.ndarray of uint64, shape (row sets, rows, T)
        The lines of the row sets of all groups in order, some at a time. Packed when asked for; the
        dense baseline never asks.
    at_once : int
        Row sets of a piece; the last one may have fewer.
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
    wanted : callable returning numpy.ndarray of bool, optional
        Of shape (repeats, groups, column sets, row sets): which have an output that somebody wants
        with each other. By default all.
    """

    pieces: Sequence[Callable[[], Words]]
    at_once: int
    lanes_in_use: Callable[[], Words]
    mapped: Counts
    groups: int
    length: int
    elements: int
    columns: Counts
    followed: Counts
    repeats: int
    tiles: int
    wanted: Callable[[], Mask] | None = None

    @property
    def following(self) -> int:
        """Column streams of all column sets."""
        return int(self.columns.sum())

    def lines(self) -> Iterator[tuple[slice, Words]]:
        """Yield the lines of row sets, and where these lie among those of all groups."""
        for number, piece in enumerate(self.pieces):
            lines, first = piece(), number * self.at_once
            yield slice(first, first + len(lines)), lines

    def lines_of(self, sets: Sequence[int]) -> Words:
        """Return the lines of some row sets, which are counted over all groups."""
        pieces = {number: self.pieces[number]() for number in {i // self.at_once for i in sets}}
        return np.array([pieces[i // self.at_once][i % self.at_once] for i in sets])


def ceil_of(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def pack(mask: Mask, lanes: int) -> Words:
    """Return the last axis as lines: (.., n) as (.., ceil(n/lanes)) words, lane l in bit l."""
    rows = np.require(mask, requirements=["C", "W"]).reshape(-1, mask.shape[-1])
    return pack_lines(rows, lanes).reshape(*mask.shape[:-1], -1)


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
