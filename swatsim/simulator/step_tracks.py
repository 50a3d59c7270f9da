"""The tracks of a whole step: its ops, the blocks of each, and counters of what they wait for.

Nothing is simulated here: cycles, blocks and bytes of an op are those of its results. What the
model does not say is drawn so: while a block is computed the next one's loads come before the last
one's stores, and waiting comes after computing. Blocks beyond so many of an op are drawn several as
one, what they do added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from swatsim.counters import BUCKETS, OP_BYTES
from swatsim.simulator.interface import Busy
from swatsim.simulator.memory.simulate import Schedule
from swatsim.simulator.runnable import Runnable
from swatsim.simulator.step_tiles import doing, spread, words
from swatsim.simulator.systems import Row
from swatsim.simulator.trace_events import Json, counter, names, span
from swatsim.simulator.trace_run import Scheduled

#: Processes, and the threads of each.
STEP, MEMORY, LANES, TILES = 1, 2, 3, 4
PHASE, OPS, OTHERS = range(3)
LOADS, COMPUTES, WAITS, STORES = range(4)
THREADS = {
    STEP: ("phases", "ops", "everything else (vector unit)"),
    MEMORY: ("blocks loaded", "blocks computed", "PEs wait", "blocks stored"),
    LANES: (),
}
DRAM, WAITING, EFFECTUAL = "DRAM, GB/s", "PEs that wait for DRAM", "lanes with effectual work"
TITLES = {
    MEMORY: "blocks, between DRAM and PEs",
    LANES: "lanes of all PEs by what they do, the mean of each op",
}


class _Groups(NamedTuple):
    """Slots of an op's schedule, several in one: where each ends, and sums.

    `blocks` has the numbers of the blocks that are loaded, computed and stored in each, in words.
    """

    ends: list[int]
    loaded: list[int]
    drained: list[int]
    computing: list[int]
    blocks: list[tuple[str, str, str]]


class Tracks:
    """Events of a step, one op after another.

    Parameters
    ----------
    machine : ConfiguredMachine or OwnMachine
    title : str
        What is drawn, in words.
    blocks : int
        Of an op at most so many are drawn apart.
    tiles : int
        Of the machine at most so many are drawn.

    Attributes
    ----------
    now : int
        Cycles so far.
    merged : int
        Blocks that are drawn with others.
    """

    def __init__(self, machine: Runnable, title: str, blocks: int, tiles: int) -> None:
        self.now = self.merged = 0
        self._title, self._blocks, self._most_tiles = title, blocks, tiles
        self._busy: Busy | None = None
        self._events: list[Json] = []
        self._last: dict[tuple[int, str], float] = {}
        config = machine.config
        #: MHz and MB/s; 0: there is no clock, or no end to DRAM's speed.
        self._mhz = 0 if config is None else config.clock_mhz
        self._speed = 0 if config is None else config.finite_mb_per_s

    def phase(self, name: str, begin: int) -> None:
        """Draw a phase from a cycle to now."""
        self._span(STEP, PHASE, name, "phase", (begin, self.now))

    def op(self, op: Scheduled) -> None:
        """Draw an op, and what its blocks do."""
        begin, memory = self.now, op.memory
        end, lanes = begin + memory.cycles, op.counters.pes * op.counters.lanes
        self._span(STEP, OPS, f"{op.layer} {op.op}", op.op, (begin, end), **_about(op))
        spent = {**op.counters.buckets, **_lane_cycles(memory._asdict())}
        self._lanes(begin, {name: of / max(1, memory.cycles) for name, of in spent.items()})
        self._pruned(memory.lane_cycles_prune // lanes, memory.dram_bytes_prune)
        self._tiles(op, end)
        self._run(op, _groups(op.schedule, self._blocks))
        self.merged += max(0, len(op.schedule.ends) - 2 - self._blocks)
        self.now = end

    def other(self, row: Row) -> None:
        """Draw what the vector unit does, of one row of results."""
        slot, carried = (self.now, self.now + row["cycles"]), row["dram_bytes_vector"]
        about = {"values": row["vector_elements"], "dram_bytes": carried}
        about |= {"cycles_compute": row["cycles_compute"]}
        self._span(STEP, OTHERS, f"{row['layer']}: {row['function']}", "vector", slot, **about)
        self._rates([slot[0]], [slot[1]], [carried])
        self._state(slot[0], 0, 0)
        self._lanes(slot[0], {"lane_cycles_vector": float(row["pes"] * row["lanes"])})
        self.now = slot[1]

    def end(self) -> list[Json]:
        """Return all events, names first, then by their begin; counters end with the step."""
        for process, name in list(self._last):
            self._count(process, name, self.now, 0)
        titles, threads = {STEP: self._title, **TITLES}, dict(THREADS)
        if self._busy is not None:
            titles[TILES] = f"tiles: {self.tiles}; of each op own work first, then waiting"
            shown = spread(self._busy.own.size, self._most_tiles)
            threads[TILES] = tuple(f"{self._busy.tile} {tile}" for tile in shown)
        named = [one for key, of in titles.items() for one in names(key, of, threads[key])]
        return [*named, *sorted(self._events, key=itemgetter("ts"))]

    @property
    def tiles(self) -> str:
        """Which tiles are drawn, in words; empty: none of the ops drawn has them."""
        return "" if self._busy is None else words(self._busy, self._most_tiles)

    # ---- an op ---------------------------------------------------------------------------------

    def _pruned(self, cycles: int, carried: int) -> None:
        """Draw what is pruned before an op."""
        slot = self.now, self.now + cycles
        if cycles:
            self._state(slot[0], 0, 0)
            words = "read dense, written packed"
            self._span(MEMORY, LOADS, words, "prune", slot, bytes=carried)
            self._span(MEMORY, WAITS, "pruning in each step", "prune", slot)
            self._rates([slot[0]], [slot[1]], [carried])
        self.now = slot[1]

    def _tiles(self, op: Scheduled, end: int) -> None:
        """Draw what some tiles do until an op's end."""
        if op.busy is None:
            return
        self._busy = op.busy
        for thread, tile in enumerate(spread(op.busy.own.size, self._most_tiles)):
            begin = self.now
            for it in doing(op, op.busy, tile, end - begin):
                slot, begin = (begin, begin + it.cycles), begin + it.cycles
                if it.cycles:
                    about = {"cycles": it.cycles, "share": it.cycles / op.memory.cycles}
                    self._span(TILES, thread, it.name, it.category, slot, **about)

    def _run(self, op: Scheduled, groups: _Groups) -> None:
        """Draw an op's blocks, and how fast DRAM carries their bytes."""
        on_chip, pes = sum(groups.computing), op.counters.pes
        effectual = op.counters.lane_cycles_effectual / max(1, on_chip)
        ends = [self.now + end for end in groups.ends]
        begins = [self.now, *ends[:-1]]
        last = len(ends) - 1
        self._rates(begins, ends, list(map(sum, zip(groups.loaded, groups.drained, strict=True))))
        for i, slot in enumerate(zip(begins, ends, strict=True)):
            computed = slot[0] + groups.computing[i]
            self._moves(slot, groups, i)
            if computed > slot[0]:
                self._state(slot[0], 0, effectual)
                of = (slot[0], computed)
                self._span(MEMORY, COMPUTES, groups.blocks[i][1], "computing", of)
            if slot[1] > computed:
                why = {0: "first block in", last: "last block out"}.get(i, "waiting for DRAM")
                self._state(computed, pes, 0)
                category = "fill_drain" if i in (0, last) else "dram"
                self._span(MEMORY, WAITS, why, category, (computed, slot[1]))

    def _moves(self, slot: tuple[int, int], groups: _Groups, i: int) -> None:
        """Draw what is loaded in a slot, then what is stored; the latency is the first one's."""
        if not self._speed:
            return
        begin, end = slot
        loading, _, storing = groups.blocks[i]
        if loaded := groups.loaded[i]:
            until = end if i == 0 else min(end, begin + self._transfer(loaded))
            self._span(MEMORY, LOADS, loading, "load", (begin, until), bytes=loaded)
            begin = until
        if drained := groups.drained[i]:
            until = min(end, begin + self._transfer(drained))
            self._span(MEMORY, STORES, storing, "store", (begin, until), bytes=drained)

    def _transfer(self, carried: int) -> int:
        return -(-carried * self._mhz // self._speed)

    # ---- events --------------------------------------------------------------------------------

    def _span(
        self,
        process: int,
        thread: int,
        name: str,
        category: str,
        slot: tuple[int, int],
        **of: object,
    ) -> None:
        begin, end = slot
        self._events.append(span((process, thread), name, category, begin, end - begin, of))

    def _count(self, process: int, name: str, begin: int, value: float) -> None:
        """Draw a counter from a cycle on, if it changes."""
        if self._last.get((process, name), 0) != value:
            self._last[process, name] = value
            self._events.append(counter(process, name, begin, value))

    def _state(self, begin: int, waiting: float, effectual: float) -> None:
        self._count(STEP, WAITING, begin, waiting)
        self._count(STEP, EFFECTUAL, begin, effectual)

    def _lanes(self, begin: int, lanes: Mapping[str, float]) -> None:
        for name, bucket in BUCKETS.items():
            self._count(LANES, bucket.label, begin, lanes.get(name, 0.0))

    def _rates(self, begins: Sequence[int], ends: Sequence[int], carried: Sequence[int]) -> None:
        """Draw DRAM's bytes a second; a slot without a whole cycle adds its bytes to another's."""
        if not self._speed:
            return
        slots: list[list[int]] = []
        for begin, end, size in zip(begins, ends, carried, strict=True):
            if slots and end == begin:
                slots[-1][2] += size
            else:
                slots.append([begin, end, size])
        for begin, end, size in slots:
            if end > begin:
                self._count(STEP, DRAM, begin, size * self._mhz / (end - begin) / 1000)


def _groups(schedule: Schedule, at_most: int) -> _Groups:
    """Return a schedule of at most so many groups of blocks; first and last slot are their own."""
    blocks = len(schedule.ends) - 2
    many = min(blocks, at_most)
    firsts = np.array([0, *(1 + np.arange(many) * blocks // many), blocks + 1])
    stops = [*firsts[1:].tolist(), blocks + 2]
    loaded, drained, computing = (
        np.add.reduceat(of, firsts).tolist() for of in (schedule.loaded, *schedule[2:])
    )
    # loaded is the block after the one that is computed, stored the one before
    words = [
        (_words(a, b, blocks), _words(a - 1, b - 1, blocks), _words(a - 2, b - 2, blocks))
        for a, b in zip(firsts.tolist(), stops, strict=True)
    ]
    ends = [int(schedule.ends[stop - 1]) for stop in stops]
    return _Groups(ends, loaded, drained, computing, words)


def _words(begin: int, end: int, blocks: int) -> str:
    """Return which blocks of an op are meant, from one to before another; shown from 1 on."""
    first, last = max(0, begin) + 1, min(blocks, end)
    return f"block {first}" if first >= last else f"blocks {first} to {last}"


def _about(op: Scheduled) -> dict[str, object]:
    """Return the numbers of an op that are shown where it is clicked at."""
    counters, memory = op.counters, op.memory
    spent = {**counters.buckets, **_lane_cycles(memory._asdict())}
    carried = {name: of for name in OP_BYTES if (of := getattr(memory, name))}
    return {
        "cycles": memory.cycles,
        "cycles_compute": counters.cycles_compute,
        "blocks": memory.blocks,
        "loop_order": memory.loop_order,
        "dram_bytes": memory.dram_bytes,
        **carried,
        **{name: of for name, of in spent.items() if of},
    }


def _lane_cycles(counted: Mapping[str, object]) -> dict[str, int]:
    return {name: of for name, of in counted.items() if name in BUCKETS and isinstance(of, int)}
