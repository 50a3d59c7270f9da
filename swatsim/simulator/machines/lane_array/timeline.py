"""One tile, cycle by cycle: which lane took which value from where, and who waited for whom.

The window scheduler in plain Python, on the elements' numbers: what the kernel counts, this shows.
A tile holds one row set; its schedule is the same for all columns and all column sets. The kernel
is asked only how long the other tiles of the group take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from swatsim.errors import ConfigError
from swatsim.simulator.elements import Numbers, element, numbered
from swatsim.simulator.interface import Event, Timeline
from swatsim.simulator.machines.lane_array import kernel
from swatsim.simulator.machines.lane_array.config import LEVELS, LaneArrayConfig, Move
from swatsim.simulator.machines.lane_array.kernel import Words
from swatsim.simulator.machines.lane_array.machine import scheduler_of
from swatsim.simulator.machines.lane_array.mapping import Pass, passes, scheduled_operand
from swatsim.workload.layer import OPERANDS_OF, Operand
from swatsim.workload.lowering import LoweredOp

#: Lines of one row, each the numbers of the elements in its lanes; None: nothing to multiply.
Row = list[list[int | None]]
#: A slot that a free lane may take its value from, and the move that leads there.
Candidate = tuple[int, int, Move]

#: Fills line t of a row, and tells which lane took which move.
Fill = Callable[[Row, int, tuple[Move, ...]], dict[int, Move]]

OWN: Move = (0, 0)


def timeline(op: LoweredOp, config: LaneArrayConfig, tile: int) -> Timeline:
    """Schedule one row set of an op: row sets are numbered in the order in which they run.

    Raises
    ------
    ConfigError
        If the op has no such row set.
    """
    return _Tile(op, config, tile).timeline()


@dataclass
class _Tile:
    op: LoweredOp
    config: LaneArrayConfig
    number: int

    def __post_init__(self) -> None:
        chosen = scheduled_operand(self.op, self.config)
        self.skips = chosen is not None
        self.rows_hold: Operand = chosen or OPERANDS_OF[self.op.name][0]
        parts = list(passes(self.op, self.config, self.rows_hold))
        sets = [part.groups * part.mapped.size for part in parts]
        _check(self.number, sum(sets), self.op)
        self.sets = sum(sets)
        self.place = 0
        self.index = self.number  # among the row sets of its pass
        while self.index >= sets[self.place]:
            self.index -= sets[self.place]
            self.place += 1
        self.part: Pass = parts[self.place]
        self.group, self.row_set = divmod(self.index, self.part.mapped.size)
        self.mapped = int(self.part.mapped[self.row_set])

    def timeline(self) -> Timeline:
        """Name the threads, tell how long it takes, and play it when asked."""
        return Timeline(self._threads(), max(self.together), self._events, self._about())

    @cached_property
    def words(self) -> Words:
        """The lines of its pass's row sets; True where a value is not zero."""
        return self.part.lines()

    @cached_property
    def together(self) -> list[int]:
        """Lines that each tile of its group takes."""
        tiles, sets = self.part.tiles, self.part.mapped.size
        first = self.row_set - self.row_set % tiles
        some = range(first, min(first + tiles, sets))
        if not self.skips:
            return [self.part.length] * len(some)
        begin = self.group * sets
        lines = self.words[begin + some.start : begin + some.stop].copy()
        mapped = self.part.mapped[some.start : some.stop]
        taken = kernel.schedule(lines, mapped, scheduler_of(self.config)).lines
        return [int(lines) for lines in taken]

    @property
    def own(self) -> int:
        """Lines that it takes itself."""
        return self.together[self.row_set % self.part.tiles]

    def _about(self) -> dict[str, Any]:
        part = self.part
        return {
            "tiles": self.sets,
            "operand_on_rows": self.op.called(self.rows_hold),
            "skips_zeros": self.skips,
            "pass": self.place,
            "group": self.group,
            "row_set": self.row_set,
            "runs_on_tile": self.row_set % part.tiles,
            "rows_in_use": self.mapped,
            "lines": part.length,
            "lines_scheduled": self.own,
            "column_sets": part.column_sets,
            "column_streams": part.following,
            "repeats": part.repeats,
        }

    # ---- threads: the tile's, then each row's, its lanes' after it

    def _threads(self) -> tuple[str, ...]:
        lanes = range(self.config.lanes)
        names = ["tile"]
        for row in range(self.config.rows):
            names += [f"row {row}", *(f"row {row} lane {lane}" for lane in lanes)]
        return tuple(names)

    def _thread(self, row: int, lane: int = -1) -> int:
        return 1 + row * (self.config.lanes + 1) + 1 + lane

    # ---- the schedule

    def _events(self, window: range) -> Iterator[Event]:
        yield from self._waiting()
        rows, cycle = self._rows(), 0
        for t, moves in play(rows, self.config, self.skips):
            if cycle > window.stop or (moves is not None and cycle == window.stop):
                return
            if moves is None:
                yield Event(0, "dropped line", "dropped", cycle, 0, {"line": t})
                continue
            if cycle in window:
                for row, of_row in enumerate(moves):
                    yield from self._row(row, rows[row], t, of_row, cycle)
            cycle += 1

    def _waiting(self) -> Iterator[Event]:
        """Rows without a stream, and the tile after its last line."""
        longest = max(self.together)
        for row in range(self.mapped, self.config.rows):
            yield Event(self._thread(row), "no stream", "unmapped", 0, longest, {})
        if longest > self.own:
            waits = longest - self.own
            yield Event(0, "waits for the slowest tile", "tile_sync", self.own, waits, {})

    def _row(
        self, number: int, row: Row, t: int, moves: dict[int, Move], cycle: int
    ) -> Iterator[Event]:
        """Draw what a row's lanes do in a line that costs a cycle."""
        if all(value is None for value in row[t]):
            yield Event(self._thread(number), "waits for other rows", "row_sync", cycle, 1, {})
            return
        for lane, value in enumerate(row[t]):
            thread = self._thread(number, lane)
            if value is None:
                yield Event(thread, "idle", "idle", cycle, 1, {})
            else:
                yield self._product(thread, cycle, value, (t, lane), moves.get(lane, OWN))

    def _product(
        self, thread: int, cycle: int, value: int, at: tuple[int, int], move: Move
    ) -> Event:
        (t, lane), (dt, dl) = at, move
        details = {
            "element": element(self.op, self.rows_hold, value),
            "line": t,
            "slot": [t + dt, (lane + dl) % self.config.lanes],
            "move": [dt, dl],
        }
        name = "own slot" if move == OWN else f"move ({dt:+d}, {dl:+d})"
        return Event(thread, name, "product", cycle, 1, details)

    def _rows(self) -> list[Row]:
        """Give each slot the number of its element, None where there is nothing to multiply."""
        words = self.words[self.index] if self.skips else self.part.held()
        shape = (self.mapped, self.part.length, self.config.lanes)
        used = np.broadcast_to(self._bits(words)[: self.mapped], shape)
        numbers = self._numbers().astype(object)
        numbers[~used] = None
        rows: list[Row] = numbers.tolist()
        return rows

    def _numbers(self) -> Numbers:
        """Find the number of the element in each slot: the same cut, bit by bit."""
        found = np.zeros((self.mapped, self.part.length, self.config.lanes), np.int64)
        for bit, plane in enumerate(numbered(self.op)):
            parts = passes(plane, self.config, self.rows_hold)
            lines = next(islice(parts, self.place, None)).lines()
            found |= self._bits(lines[self.index][: self.mapped]).astype(np.int64) << bit
        return found

    def _bits(self, words: Words) -> kernel.Bits:
        lanes = np.arange(self.config.lanes, dtype=np.uint64)
        bits: kernel.Bits = (words[..., None] >> lanes) & np.uint64(1) == 1
        return bits


def _check(number: int, sets: int, op: LoweredOp) -> None:
    what = f"{op.layer.name!r} {op.own_name}"
    if not sets:
        raise ConfigError(f"{what} has no tiles: it has no products at all; choose another op")
    if not isinstance(number, int) or number not in range(sets):
        raise ConfigError(
            f"tile={number!r} is not allowed: a tile holds one of the row sets that {what} is cut "
            f"into on this machine; choose one of 0 to {sets - 1}"
        )


def play(
    rows: list[Row], config: LaneArrayConfig, skips: bool
) -> Iterator[tuple[int, list[dict[int, Move]] | None]]:
    """Play a row set through the window, line by line; `rows` is used up.

    Yields
    ------
    int
        The line.
    list of dict of int to Move, or None
        The moves of each row, by the lane that took the value; None: the line is dropped.
    """
    moves, skipped = config.moves, 0
    fill = FILLS[config.scheduler]
    for t in range(len(rows[0])):
        empty = all(value is None for row in rows for value in row[t])
        if skips and empty and skipped < config.lookahead:
            skipped += 1
            yield t, None
            continue
        skipped = 0
        yield t, [fill(row, t, moves) if skips else {} for row in rows]


def _candidates(row: Row, t: int, lane: int, moves: tuple[Move, ...]) -> list[Candidate]:
    """List what a lane of line t could take, in the order in which it looks."""
    lanes = len(row[t])
    slots = [(t + dt, (lane + dl) % lanes, (dt, dl)) for dt, dl in moves if t + dt < len(row)]
    return [(u, other, move) for u, other, move in slots if row[u][other] is not None]


def _take(row: Row, t: int, lane: int, candidate: Candidate) -> Move:
    u, other, move = candidate
    row[t][lane], row[u][other] = row[u][other], None
    return move


def _fill_by_levels(row: Row, t: int, moves: tuple[Move, ...]) -> dict[int, Move]:
    """TensorDash: level by level, each free lane takes its first candidate."""
    taken = {}
    for lane in (lane for level in LEVELS for lane in level):
        found = _candidates(row, t, lane, moves) if row[t][lane] is None else []
        if found:
            taken[lane] = _take(row, t, lane, found[0])
    return taken


def _counting(best: Callable[..., int]) -> Fill:
    """Serve the free lane with most (or fewest) candidates first, the lowest one on ties."""

    def fill(row: Row, t: int, moves: tuple[Move, ...]) -> dict[int, Move]:
        free = [lane for lane, value in enumerate(row[t]) if value is None]
        found = {lane: _candidates(row, t, lane, moves) for lane in free}
        taken: dict[int, Move] = {}
        while found := {lane: slots for lane, slots in found.items() if slots}:
            lane = best(found, key=lambda lane: len(found[lane]))
            u, other, _ = first = found.pop(lane)[0]
            taken[lane] = _take(row, t, lane, first)
            for left, slots in found.items():
                found[left] = [slot for slot in slots if slot[:2] != (u, other)]
        return taken

    return fill


FILLS: Mapping[str, Fill] = {
    "most_candidates": _counting(max),
    "fewest_candidates": _counting(min),
    "levels": _fill_by_levels,
}
