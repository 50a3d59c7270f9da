"""The tracks of some of a machine's tiles in a step: what each does in each op.

A machine says how long a tile works in an op and how long it waits, not when: its own work is drawn
first, then waiting for slower tiles, then the cycles in which nothing is mapped on it. What the op
takes beyond its compute cycles comes last: memory is late for all tiles alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from swatsim.simulator.interface import Busy
from swatsim.simulator.trace_run import Scheduled

#: Spans of an op and tile, at most.
EVENTS_OF_TILE = 4


class Doing(NamedTuple):
    """What a tile does for some cycles of an op: in words, and by category."""

    name: str
    category: str
    cycles: int


def spread(tiles: int, most: int) -> Sequence[int]:
    """Return at most so many of a machine's tiles, evenly spread: the first and the last too."""
    if tiles <= most:
        return range(tiles)
    return [i * (tiles - 1) // max(1, most - 1) for i in range(most)]


def doing(op: Scheduled, busy: Busy, tile: int, cycles: int) -> Iterator[Doing]:
    """Yield what a tile does in an op, that takes so many cycles once it is pruned."""
    own, waits = int(busy.own[tile]), int(busy.waits[tile])
    compute = op.counters.cycles_compute
    yield Doing("computes", "work", own)
    yield Doing(f"waits for the slowest {busy.tile}", "waiting", waits)
    yield Doing("nothing mapped", "unmapped", compute - own - waits)
    yield Doing("waits for memory", "memory", cycles - compute)


def words(busy: Busy, most: int) -> str:
    """Return in words which tiles are drawn."""
    tiles, name = busy.own.size, f"{busy.tile}{'s' if busy.own.size > 1 else ''}"
    return f"{tiles} {name}" if tiles <= most else f"{most} of {tiles} {name}, evenly spread"
