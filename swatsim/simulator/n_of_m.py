"""The n:m pattern of an operand: a parameter of machines, and what they keep of a sum by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator

from swatsim.errors import WorkloadError
from swatsim.workload import storage

#: No operand is looked at.
NONE = "none"


def packing_of(pattern: str) -> tuple[int, int] | None:
    """Return the n and m of a pattern; None: there is none."""
    if pattern == NONE:
        return None
    format = storage.named(pattern)
    return format.n, format.m


def kept_of(depth: int, packing: tuple[int, int] | None) -> int:
    """Return how many of so many summed values an operand that obeys n:m keeps; None: all."""
    if packing is None:
        return depth
    n, m = packing
    return min(depth, n * -(-depth // m))


def pattern_multiplexers(packing: tuple[int, int] | None, multipliers: int) -> Mapping[str, float]:
    """Return the front end of multipliers that take the other operand's value by a place of m.

    In multiplexers of four inputs, which are of 2:4; others in proportion.
    """
    return {"pattern_multiplexer": multipliers * (packing[1] - 1) / 3} if packing else {}


def _pattern(value: str) -> str:
    try:
        sparse = value == NONE or storage.named(value).entries == "slots"
    except WorkloadError:
        sparse = False
    if not sparse:
        raise ValueError(f"must be {NONE}, or {storage.N_OF_M}")
    return value


PatternName = Annotated[str, AfterValidator(_pattern)]
