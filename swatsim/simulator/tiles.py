"""What single tiles of a machine have to do in an op: for a step's timeline.

Totals alone, an op and tile: what a machine counts before it takes the slowest. Which cycle they
lie in is a timeline's of one tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swatsim.workload.lowering import LoweredOp


@dataclass(frozen=True)
class Tiles:
    """The parts of a machine that wait for each other.

    Parameters
    ----------
    name : str
        What a machine calls one, for people: "cluster".
    count : callable of config to int
        How many it has.
    own : callable of (LoweredOp, config, sequence of int) to list of int
        Compute cycles of an op in which each of some tiles has work of its own, at most those of
        the op: in the others it waits for slower ones, or has nothing at all.
    """

    name: str
    count: Callable[[Any], int]
    own: Callable[[LoweredOp, Any, Sequence[int]], list[int]]


def spread(tiles: int, at_most: int) -> list[int]:
    """Return so many tiles at most of all, evenly spread, the first one among them."""
    shown = min(tiles, at_most)
    return [place * tiles // shown for place in range(shown)]
