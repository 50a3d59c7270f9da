"""The window scheduler of `lane_array`, on lines of up to 64 lanes packed into words.

Legend: ``lines[i, r, t]`` is line t of row r of row set i; bit l is set where lane l holds a value
that is not zero. The kernels count what a row set takes; the values themselves don't matter.

What they decide they can also write down, into a `Log`. Without one its type is none, and Numba
leaves all of that out when it compiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner, jit

Words = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
Moves = npt.NDArray[np.int16]

ONE = np.uint64(1)

#: In a log: a lane that took nothing, and one that took the value of its own slot.
IDLE, OWN = -2, -1


class Schedule(NamedTuple):
    """What each row set of a tile takes.

    Parameters
    ----------
    lines : numpy.ndarray of int64, shape (row sets,)
        Lines that cost a cycle.
    waits : numpy.ndarray of int64, shape (row sets,)
        Pairs of (row, such a line) in which the row has no value.
    """

    lines: Counts
    waits: Counts


class Scheduler(NamedTuple):
    """The parameters of a kernel.

    Parameters
    ----------
    lanes, lookahead : int
    dt, dl : numpy.ndarray of int64
        The moves, in the order in which a lane looks at them; dl in 0..lanes-1.
    most : bool
        Serve the lane with the most candidates first, otherwise the one with the fewest.
    levels : numpy.ndarray of uint64
        The lanes of each level, as bits; empty for the schedulers that count candidates.
    """

    lanes: int
    lookahead: int
    dt: Counts
    dl: Counts
    most: bool
    levels: Words


class Log(NamedTuple):
    """What becomes of each line of one row set, and of each lane in some of its cycles.

    Parameters
    ----------
    cycles : numpy.ndarray of int64, shape (T,)
        The cycle in which a line comes up; a line that is dropped shares it with the next one.
    dropped : numpy.ndarray of bool, shape (T,)
    first : int
        The first cycle in which lanes are written down.
    moves : numpy.ndarray of int16, shape (cycles, rows, lanes)
        IDLE, OWN, or which of the scheduler's moves brought the value.
    taking : numpy.ndarray of int16, shape (lanes,)
        The same of the line that is being filled, where a lane moved something; else OWN.
    """

    cycles: Counts
    dropped: Bits
    first: int
    moves: Moves
    taking: Moves


class Runs(NamedTuple):
    """What row sets take together, with all column sets.

    Parameters
    ----------
    cycles : int
    sets, streams : numpy.ndarray of int64, shape (groups, row sets)
        With how many column sets a row set runs, and the streams in them.
    waits : numpy.ndarray of int64, shape (groups, row sets)
        The sum, over these streams, of the lines that the slowest tile takes more.
    tiles : numpy.ndarray of int64, shape (2, tiles)
        The lines that each tile takes, and for how many it waits for the slowest.
    """

    cycles: int
    sets: Counts
    streams: Counts
    waits: Counts
    tiles: Counts


@jit
def run_wanted(wanted: Bits, lines: Counts, columns: Counts, tiles: int) -> Runs:
    """Run those row sets with each column set that have an output with it that somebody wants.

    ``wanted[repeat, group, column set, row set]``, ``lines[group, row set]``,
    ``columns[column set]``. Those that are left go to consecutive tiles.
    """
    sets, streams = np.zeros_like(lines), np.zeros_like(lines)
    waits, of_tiles = np.zeros_like(lines), np.zeros((2, tiles), np.int64)
    left = np.empty(lines.shape[1], np.int64)
    cycles = 0
    for n in range(wanted.shape[0]):
        for g in range(wanted.shape[1]):
            for j in range(wanted.shape[2]):
                size = 0
                for i in range(wanted.shape[3]):
                    left[size] = i
                    size += int(wanted[n, g, j, i])
                for first in range(0, size, tiles):
                    together = left[first : min(first + tiles, size)]
                    slowest = 0
                    for i in together:
                        slowest = max(slowest, lines[g, i])
                    for tile in range(together.size):
                        i = together[tile]
                        sets[g, i] += 1
                        streams[g, i] += columns[j]
                        waits[g, i] += columns[j] * (slowest - lines[g, i])
                        of_tiles[0, tile] += lines[g, i]
                        of_tiles[1, tile] += slowest - lines[g, i]
                    cycles += slowest
    return Runs(cycles, sets, streams, waits, of_tiles)


@jit
def pack_lines(values: Bits, lanes: int) -> Words:
    """Return rows of values as lines: value i is lane i % lanes of line i // lanes."""
    rows, length = values.shape
    lines = np.empty((rows, -(-length // lanes)), np.uint64)
    for row in range(rows):
        for t in range(lines.shape[1]):
            word = np.uint64(0)
            for lane in range(min(lanes, length - t * lanes)):
                word |= np.uint64(values[row, t * lanes + lane]) << np.uint64(lane)
            lines[row, t] = word
    return lines


@inner
def rotate_down(word: np.uint64, by: int, lanes: int) -> np.uint64:
    """Return a line rotated: lane (l + by) % lanes comes to lane l."""
    if by == 0:
        return word
    every = ~np.uint64(0) >> np.uint64(64 - lanes)
    return ((word >> np.uint64(by)) | (word << np.uint64(lanes - by))) & every


@inner
def is_empty(window: Words, mapped: int, t: int) -> bool:
    """Whether no row has a value in line t."""
    values = np.uint64(0)
    for r in range(mapped):
        values |= window[r, t]
    return bool(values == 0)


@inner
def note_moves(log: Log, lanes: np.uint64, move: int) -> None:
    """Write down that some lanes, given as bits, took a move."""
    for lane in range(log.taking.size):
        if (lanes >> np.uint64(lane)) & ONE:
            log.taking[lane] = move


@inner
def note_row(log: Log, cycle: int, row: int, line: np.uint64) -> None:
    """Write down what a row's lanes did in a cycle; bits of `line` are the lanes that multiply."""
    at = cycle - log.first
    for lane in range(log.taking.size):
        if 0 <= at < log.moves.shape[0]:
            taken = (line >> np.uint64(lane)) & ONE
            log.moves[at, row, lane] = log.taking[lane] if taken else IDLE
        log.taking[lane] = OWN


@inner
def fill_by_levels(row: Words, t: int, s: Scheduler, log: Log | None) -> None:
    """Fill line t: level by level, each free lane takes its first candidate.

    TensorDash, MICRO 2020, section 3.2. Equivalent, lane by lane: for each level, for each lane l
    of it that is free, for each move: if slot (t+dt, (l+dl) % lanes) is set, move it and stop. As
    lanes of one level never share a candidate, all of them take move by move at once.
    """
    every = ~np.uint64(0) >> np.uint64(64 - s.lanes)
    for level in s.levels:
        free = ~row[t] & level
        for m in range(s.dt.size):
            u = t + s.dt[m]
            if free == 0:
                break
            if u < row.size and row[u] != 0:
                taken = rotate_down(row[u], s.dl[m], s.lanes) & free
                row[t] |= taken
                row[u] &= ~rotate_down(taken, s.lanes - s.dl[m], s.lanes) & every
                free &= ~taken
                if log is not None:
                    note_moves(log, taken, m)


@inner
def fill_by_candidates(row: Words, t: int, s: Scheduler, seen: Words, log: Log | None) -> None:
    """Fill line t one value at a time: the free lane with most (or fewest) candidates first.

    Lowest lane on ties; its first candidate in the moves' order; counts are kept up to date after
    every move. ``seen[m]`` holds, at bit l, whether lane l's m-th move finds a value.
    Bit-Tactical, ASPLOS 2019, section 3.
    """
    counts = np.zeros(s.lanes, np.int64)
    for m in range(s.dt.size):
        u = t + s.dt[m]
        seen[m] = rotate_down(row[u], s.dl[m], s.lanes) if u < row.size else np.uint64(0)
        for lane in range(s.lanes):
            counts[lane] += np.int64((seen[m] >> np.uint64(lane)) & ONE)
    while True:
        best = -1
        for lane in range(s.lanes):
            free = (row[t] >> np.uint64(lane)) & ONE == 0
            if (
                free
                and counts[lane] > 0
                and (
                    best < 0
                    or (s.most and counts[lane] > counts[best])
                    or (not s.most and counts[lane] < counts[best])
                )
            ):
                best = lane
        if best < 0:
            return
        m = 0
        while (seen[m] >> np.uint64(best)) & ONE == 0:
            m += 1
        source = (best + s.dl[m]) % s.lanes
        row[t] |= ONE << np.uint64(best)
        row[t + s.dt[m]] &= ~(ONE << np.uint64(source))
        if log is not None:
            note_moves(log, ONE << np.uint64(best), m)
        # every lane that saw the value, by whichever move, has one candidate less
        for other in range(s.dt.size):
            if s.dt[other] == s.dt[m]:
                lane = (source - s.dl[other]) % s.lanes
                seen[other] &= ~(ONE << np.uint64(lane))
                counts[lane] -= 1


@jit
def schedule(lines: Words, mapped: Counts, s: Scheduler, log: Log | None = None) -> Schedule:
    """Return the schedule of row sets: ``lines`` (row sets, rows, T) is used up.

    ``mapped[i]`` rows of set i hold a stream, the first ones. All rows of a set share the window:
    a line that is zero in every row is dropped, at most `lookahead` in a row. With a log there is
    one row set.
    """
    taken = np.zeros(lines.shape[0], np.int64)
    waits = np.zeros(lines.shape[0], np.int64)
    seen = np.zeros(s.dt.size, np.uint64)
    for i in range(lines.shape[0]):
        window = lines[i]
        skipped = 0
        for t in range(lines.shape[2]):
            dropped = skipped < s.lookahead and is_empty(window, mapped[i], t)
            if log is not None:
                log.cycles[t], log.dropped[t] = taken[i], dropped
            if dropped:
                skipped += 1
                continue
            skipped = 0
            for r in range(mapped[i]):
                if s.levels.size:
                    fill_by_levels(window[r], t, s, log)
                else:
                    fill_by_candidates(window[r], t, s, seen, log)
                waits[i] += window[r, t] == 0
                if log is not None:
                    note_row(log, taken[i], r, window[r, t])
            taken[i] += 1
    return Schedule(taken, waits)
