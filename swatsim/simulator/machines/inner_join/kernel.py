"""Joins of packed streams: how many cycles each PE of a cluster takes for a window.

Legend: streams are packed into words of 64 values, value i in bit i % 64 of word i // 64; bits past
the end are 0. A cluster holds the filters of a round in *slots*: the first filter of each PE in
use, then the second ones, in the same order of PEs.

What `join` decides it can also write down, into a `Log`. Without one its type is none, and Numba
leaves all of that out when it compiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner, jit, popcount

Words = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]


class Rounds(NamedTuple):
    """Which slots of a cluster are in use in each round; the same in all passes alike.

    Parameters
    ----------
    filters, used : numpy.ndarray of int64, shape (rounds,)
        Filters of the round, and PEs that hold one; where there are more filters than PEs in use,
        the others lie in the second slots of the first PEs.
    """

    filters: Counts
    used: Counts


class Wanted(NamedTuple):
    """Which joins are begun: those whose output somebody wants.

    Of several parts, each field has an axis of parts before the others.

    Parameters
    ----------
    outputs : numpy.ndarray of bool, shape (windows, filters)
    filters : numpy.ndarray of int64, shape (rounds, chunks, slots)
        Which filter lies in a slot; one chunk, if it is the same one in all.
    """

    outputs: Bits
    filters: Counts


class Log(NamedTuple):
    """What each pair of chunks takes.

    Parameters
    ----------
    joined, costs : numpy.ndarray of int64, shape (rounds, windows, chunks, slots)
        Products, and cycles.
    """

    joined: Counts
    costs: Counts


@jit
def pack_channels(sample: Bits, groups: int) -> Words:
    """Return (C, H, W) with the channels of each group packed: (groups, words, H, W)."""
    channels = sample.shape[0] // groups
    packed = np.zeros((groups, (channels + 63) // 64, *sample.shape[1:]), np.uint64)
    for c in range(sample.shape[0]):
        group, own = c // channels, c % channels
        shift = np.uint64(own % 64)
        for h in range(sample.shape[1]):
            for v in range(sample.shape[2]):
                packed[group, own // 64, h, v] |= np.uint64(sample[c, h, v]) << shift
    return packed


@inner
def append(stream: Words, at: int, word: np.uint64) -> None:
    """Write a word into a stream from bit `at` on, where there are zeros."""
    shift = np.uint64(at % 64)
    stream[at // 64] |= word << shift
    if shift and at // 64 + 1 < stream.size:
        stream[at // 64 + 1] |= word >> (np.uint64(64) - shift)


@jit
def gather(
    packed: Words,
    channels: int,
    taps: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    origin: tuple[int, int],
    streams: Words,
) -> None:
    """Fill the streams of one sample's windows: r, s, then channels; zeros outside.

    ``packed`` is (groups, words, H, W), ``streams`` (groups, P, Q, words), all 0 before.
    """
    groups, blocks, height, width = packed.shape
    for g in range(groups):
        for p in range(streams.shape[1]):
            for q in range(streams.shape[2]):
                stream = streams[g, p, q]
                for r in range(taps[0]):
                    h = p * stride[0] + r * dilation[0] + origin[0]
                    if h < 0 or h >= height:
                        continue
                    for s in range(taps[1]):
                        v = q * stride[1] + s * dilation[1] + origin[1]
                        if v < 0 or v >= width:
                            continue
                        at = (r * taps[1] + s) * channels
                        for block in range(blocks):
                            append(stream, at + 64 * block, packed[g, block, h, v])


@jit
def pack_rows(
    sample: Bits, taps: int, stride: int, dilation: int, origin: int, output: int
) -> Words:
    """Return (C, H, W) as what each tap of a row meets, packed: (taps, C, H, words)."""
    channels, height, width = sample.shape
    packed = np.zeros((taps, channels, height, (output + 63) // 64), np.uint64)
    for s in range(taps):
        for c in range(channels):
            for h in range(height):
                for q in range(output):
                    v = q * stride + s * dilation + origin
                    if 0 <= v < width:
                        bit = np.uint64(sample[c, h, v]) << np.uint64(q % 64)
                        packed[s, c, h, q // 64] |= bit
    return packed


@jit
def gather_rows(
    packed: Words, output: tuple[int, int], stride: int, dilation: int, origin: int, streams: Words
) -> None:
    """Fill the streams that one sample's taps meet: p, then q; zeros outside.

    ``packed`` is of `pack_rows`, ``streams`` (groups, channels of a group, R, S, words), all 0
    before; the last three integers are of the axis of R.
    """
    groups, channels, taps, _, _ = streams.shape
    _, _, height, blocks = packed.shape
    for g in range(groups):
        for r in range(taps):
            for s in range(packed.shape[0]):
                for c in range(channels):
                    for p in range(output[0]):
                        h = p * stride + r * dilation + origin
                        if h < 0 or h >= height:
                            continue
                        for block in range(blocks):
                            word = packed[s, g * channels + c, h, block]
                            append(streams[g, c, r, s], p * output[1] + 64 * block, word)


@inner
def add_costs(sums: Counts, window: Words, filters: Words, slots: int) -> None:
    """Add to the first slots what their pairs of chunks cost: the products, at least a cycle.

    ``window`` is (words,), ``filters`` (words, slots): whole arrays, for a cut row is no vector.
    """
    if window.size == 1:
        a, first = window[0], filters[0]
        for slot in range(slots):
            joined = popcount(a & first[slot])
            sums[slot] += max(np.int64(joined), 1)
    elif window.size == 2:
        a, b, first, second = window[0], window[1], filters[0], filters[1]
        for slot in range(slots):
            joined = popcount(a & first[slot]) + popcount(b & second[slot])
            sums[slot] += max(np.int64(joined), 1)
    else:
        for slot in range(slots):
            joined = np.uint64(0)
            for word in range(window.size):
                joined += popcount(window[word] & filters[word, slot])
            sums[slot] += max(np.int64(joined), 1)


@inner
def add_wanted(sums: Counts, window: Words, filters: Words, keep: Bits) -> None:
    """Do what `add_costs` does, for slots that are kept alone."""
    for slot in range(keep.size):
        if keep[slot]:
            joined = np.uint64(0)
            for word in range(window.size):
                joined += popcount(window[word] & filters[word, slot])
            sums[slot] += max(np.int64(joined), 1)


@inner
def note_chunk(
    log: Log, at: tuple[int, int, int], window: Words, filters: Words, keep: Bits
) -> None:
    """Write down what the pairs of one chunk join and cost, nothing where none is begun."""
    costs = np.zeros(filters.shape[1], np.int64)
    add_wanted(costs, window, filters, keep)
    for slot in range(costs.size):
        if not keep[slot]:
            continue
        joined = np.uint64(0)
        for word in range(window.size):
            joined += popcount(window[word] & filters[word, slot])
        log.joined[at[0], at[1], at[2], slot] = np.int64(joined)
        log.costs[at[0], at[1], at[2], slot] = costs[slot]


@inner
def find_kept(keep: Bits, wanted: Wanted, round_: int, window: int, chunk: int) -> None:
    """Write which slots of a round join a chunk of a window."""
    if chunk < wanted.filters.shape[1]:
        for slot in range(keep.size):
            keep[slot] = wanted.outputs[window, wanted.filters[round_, chunk, slot]]


@jit
def join(
    windows: Words,
    held: Words,
    rounds: Rounds,
    first: int,
    cycles: Counts,
    wanted: Wanted | None = None,
    log: Log | None = None,
) -> int:
    """Run windows through all rounds; add to ``cycles``, and return the cycles that PEs work.

    Parameters
    ----------
    windows : numpy.ndarray of uint64, shape (windows, words)
    held : numpy.ndarray of uint64, shape (rounds, chunks, words of a chunk, slots)
        The filters.
    rounds : Rounds
    first : int
        Number of the first window in its pass: window i runs on cluster i % clusters.
    cycles : numpy.ndarray of int64, shape (clusters, rounds)
        What each cluster takes: its slowest PE of each window, added up.
    wanted : Wanted, optional
        By default all.
    log : Log, optional
    """
    size, total = held.shape[2], windows.shape[1]
    sums, keep = np.empty(held.shape[3], np.int64), np.ones(held.shape[3], np.bool_)
    working = 0
    for r in range(held.shape[0]):
        filters, used = rounds.filters[r], rounds.used[r]
        for i in range(windows.shape[0]):
            sums[:filters] = 0
            for chunk in range(held.shape[1]):
                begin = chunk * size
                own = windows[i, begin : min(begin + size, total)]
                if wanted is None:
                    add_costs(sums, own, held[r, chunk], filters)
                else:
                    find_kept(keep[:filters], wanted, r, i, chunk)
                    add_wanted(sums, own, held[r, chunk], keep[:filters])
                if log is not None:
                    note_chunk(log, (r, i, chunk), own, held[r, chunk], keep)
            for pe in range(filters - used):
                sums[pe] += sums[used + pe]
            slowest = 0
            for pe in range(used):
                slowest = max(slowest, sums[pe])
                working += sums[pe]
            cycles[(first + i) % cycles.shape[0], r] += slowest
    return working


@jit
def join_parts(
    windows: Words,
    held: Words,
    rounds: Rounds,
    first: int,
    cycles: Counts,
    wanted: Wanted | None = None,
) -> int:
    """Run windows of several parts, each on its own filters; arguments as of `join`, by part."""
    working = 0
    for part in range(windows.shape[0]):
        one = windows[part], held[part], rounds, first, cycles[part]
        if wanted is None:
            working += join(*one)
        else:
            working += join(*one, Wanted(wanted.outputs[part], wanted.filters[part]))
    return working
