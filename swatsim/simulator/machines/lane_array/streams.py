"""Streams, cut into lines and sets: what every op comes down to on a `lane_array`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from swatsim.simulator.machines.lane_array.kernel import Counts, Words, pack_lines
from swatsim.workload.windows import Mask


@dataclass(frozen=True)
class Pass:
    """Row streams and column streams: a part of an op, or several alike that follow one another.

    Parameters
    ----------
    lines : callable returning numpy.ndarray of uint64, shape (groups * row sets, rows, T)
        Packed when asked for; the dense baseline never asks.
    lanes_in_use : callable returning numpy.ndarray of uint64, shape (1 or rows, T)
        The lanes of each line that hold an element, zero or not: free lanes are none.
    mapped : numpy.ndarray of int64, shape (row sets,)
        Rows of each set of a group that hold a stream.
    groups : int
        Parts alike: groups of a layer, each with row streams of its own.
    length : int
        Lines of a stream, T.
    elements : int
        Elements of all row streams of all groups; the free lanes of partly filled lines are none.
    column_sets, following : int
        Sets of column streams, and the streams in them.
    followed : int
        Elements of one column stream, over all row sets of all groups.
    repeats : int
        Times that the same pass runs: samples, where the rows hold weights.
    tiles : int
        Tiles over which row sets are spread.
    """

    lines: Callable[[], Words]
    lanes_in_use: Callable[[], Words]
    mapped: Counts
    groups: int
    length: int
    elements: int
    column_sets: int
    following: int
    followed: int
    repeats: int
    tiles: int


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
