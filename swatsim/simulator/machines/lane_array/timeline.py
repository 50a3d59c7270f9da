"""One tile, cycle by cycle: which lane took which value from where, and who waited for whom.

The kernel schedules and logs; here its log is put into words. A tile holds one row set; its
schedule is the same for all columns and all column sets. Where outputs are skipped, shown is the
first column set that it runs with: with others, other tiles may run beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from swatsim.simulator.elements import Numbers, element, numbered
from swatsim.simulator.interface import Event, Timeline, check_tile
from swatsim.simulator.machines.lane_array import kernel
from swatsim.simulator.machines.lane_array.config import LaneArrayConfig, Move, Scheduled
from swatsim.simulator.machines.lane_array.kernel import IDLE, OWN, Log, Words
from swatsim.simulator.machines.lane_array.machine import scheduler_of, without_moves
from swatsim.simulator.machines.lane_array.mapping import passes, scheduled_operand
from swatsim.simulator.machines.lane_array.streams import Pass
from swatsim.workload.layer import OPERANDS_OF, Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask


def timeline(op: LoweredOp, config: LaneArrayConfig, tile: int) -> Timeline:
    """Return what one row set of an op does; they are numbered in the order in which they run.

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
        check_tile(self.number, sum(sets), self.op, "one of the row sets that it is cut into")
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
        """Return the timeline: its threads, how long it takes, its events when asked."""
        longest = max(self.together, default=0)
        return Timeline(self._threads(), longest, self._events, self._about())

    @cached_property
    def words(self) -> Words:
        """The lines of its rows; True where a value is not zero."""
        words: Words = self.part.lines_of([self.index])[0]
        return words

    @cached_property
    def wanted(self) -> Mask | None:
        """Which row sets of its group run with each column set, over all repeats; None: all do."""
        if self.part.wanted is None or self.config.scheduled is Scheduled.NONE:
            return None
        own = range(self.group, self.group + 1)
        return self.part.wanted(own).reshape(-1, self.part.mapped.size)

    @cached_property
    def beside(self) -> list[int]:
        """The row sets of its group of tiles, in order; none: it never runs."""
        left = np.arange(self.part.mapped.size)
        if self.wanted is not None:
            own = np.flatnonzero(self.wanted[:, self.row_set])
            if not own.size:
                return []
            left = np.flatnonzero(self.wanted[own[0]])
        at, tiles = int(np.searchsorted(left, self.row_set)), self.part.tiles
        first = at - at % tiles
        return [int(row_set) for row_set in left[first : first + tiles]]

    @cached_property
    def together(self) -> list[int]:
        """Lines that each tile of its group takes."""
        if not (self.skips and self.beside):
            return [self.part.length] * len(self.beside)
        begin = self.group * self.part.mapped.size
        lines = self.part.lines_of([begin + row_set for row_set in self.beside])
        mapped = self.part.mapped[self.beside]
        taken = kernel.schedule(lines, mapped, scheduler_of(self.config)).lines
        return [int(lines) for lines in taken]

    @property
    def tile(self) -> int:
        """The tile that it runs on."""
        return self.beside.index(self.row_set) if self.beside else 0

    @property
    def own(self) -> int:
        """Lines that it takes itself."""
        return self.together[self.tile] if self.beside else 0

    def _about(self) -> dict[str, Any]:
        part = self.part
        return {
            "tiles": self.sets,
            "operand_on_rows": self.op.called(self.rows_hold),
            "skips_zeros": self.skips,
            "pass": self.place,
            "group": self.group,
            "row_set": self.row_set,
            "runs_on_tile": self.tile,
            "rows_in_use": self.mapped,
            "lines": part.length,
            "lines_scheduled": self.own,
            "column_sets": part.columns.size,
            "column_streams": part.following,
            "repeats": part.repeats,
            **({} if self.wanted is None else {"runs": int(self.wanted[:, self.row_set].sum())}),
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
        if not self.beside:
            return
        yield from self._waiting()
        log, numbers = self._log(window), self._numbers()
        for t, (cycle, dropped) in enumerate(zip(log.cycles.tolist(), log.dropped, strict=True)):
            if dropped:
                yield Event(0, "dropped line", "dropped", cycle, 0, {"line": t})
            elif cycle in window:
                for row, moves in enumerate(log.moves[cycle - log.first]):
                    yield from self._row(row, numbers[row], t, moves.tolist(), cycle)

    def _log(self, window: range) -> Log:
        """Schedule the row set, and write down what its lanes do in a window's cycles."""
        lanes, scheduler = self.config.lanes, scheduler_of(self.config)
        cycles = max(0, min(window.stop, self.own) - window.start)
        log = Log(
            cycles=np.zeros(self.part.length, np.int64),
            dropped=np.zeros(self.part.length, np.bool_),
            first=window.start,
            moves=np.full((cycles, self.mapped, lanes), IDLE, np.int16),
            taking=np.full(lanes, OWN, np.int16),
        )
        words = self.words if self.skips else self.part.lanes_in_use()
        alike = np.broadcast_to(words, (self.part.mapped.max(), self.part.length))
        mapped = self.part.mapped[[self.row_set]]
        if not self.skips:
            scheduler = without_moves(scheduler)
        kernel.schedule(np.array(alike[None], order="C"), mapped, scheduler, log)
        return log

    def _waiting(self) -> Iterator[Event]:
        """Yield rows without a stream, and the tile after its last line."""
        longest = max(self.together)
        for row in range(self.mapped, self.config.rows):
            yield Event(self._thread(row), "no stream", "unmapped", 0, longest, {})
        if longest > self.own:
            waits = longest - self.own
            yield Event(0, "waits for the slowest tile", "tile_sync", self.own, waits, {})

    def _row(
        self, row: int, numbers: Numbers, t: int, moves: list[int], cycle: int
    ) -> Iterator[Event]:
        """Yield what a row's lanes do in a line that costs a cycle."""
        if all(move == IDLE for move in moves):
            yield Event(self._thread(row), "waits for other rows", "row_sync", cycle, 1, {})
            return
        for lane, move in enumerate(moves):
            thread = self._thread(row, lane)
            if move == IDLE:
                yield Event(thread, "idle", "idle", cycle, 1, {})
            else:
                way = (0, 0) if move == OWN else self.config.moves[move]
                yield self._product(thread, cycle, numbers, (t, lane), way)

    def _product(
        self, thread: int, cycle: int, numbers: Numbers, at: tuple[int, int], move: Move
    ) -> Event:
        (t, lane), (dt, dl) = at, move
        slot = t + dt, (lane + dl) % self.config.lanes
        details = {
            "element": element(self.op, self.rows_hold, int(numbers[slot])),
            "line": t,
            "slot": list(slot),
            "move": [dt, dl],
        }
        name = f"move ({dt:+d}, {dl:+d})" if any(move) else "own slot"
        return Event(thread, name, "product", cycle, 1, details)

    def _numbers(self) -> Numbers:
        """Return the number of the element in each slot: the same cut, bit by bit."""
        numbers = np.zeros((self.mapped, self.part.length, self.config.lanes), np.int64)
        for bit, plane in enumerate(numbered(self.op)):
            parts = passes(plane, self.config, self.rows_hold)
            lines = next(islice(parts, self.place, None)).lines_of([self.index])[0]
            numbers |= self._bits(lines[: self.mapped]).astype(np.int64) << bit
        return numbers

    def _bits(self, words: Words) -> kernel.Bits:
        lanes = np.arange(self.config.lanes, dtype=np.uint64)
        bits: kernel.Bits = (words[..., None] >> lanes) & np.uint64(1) == 1
        return bits
