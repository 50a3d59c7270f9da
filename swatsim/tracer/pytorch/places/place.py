"""Where samples are in a tensor, and where they go when its axes are cut, merged and moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise
from math import prod
from typing import TypeAlias


class Mixed(Enum):
    """The type of `MIXED`."""

    MIXED = "mixed"


#: Samples are in the tensor, but in no place: mixed, reordered, or some of them.
MIXED = Mixed.MIXED


@dataclass(frozen=True, slots=True)
class Place:
    """The samples of a tensor.

    Its axis `axis` has outer x N x inner entries in C order, and what has the middle index n is
    of sample n: (N, T) merged are one axis of `inner` T, (heads, N) of `outer` heads.

    Attributes
    ----------
    axis : int
        From 0.
    outer, inner : int
        How many times the samples follow each other, and how many entries of each do.
    """

    axis: int
    outer: int = 1
    inner: int = 1


class Order:
    """Some order of the entries of an axis, such as that of an index tensor.

    Attributes
    ----------
    size : int | None
        The number of entries if each of them is in it once, else None.
    """

    __slots__ = ("size",)

    def __init__(self, size: int | None = None) -> None:
        self.size = size


@dataclass(frozen=True, slots=True)
class Routed:
    """Rows picked by an index, whose samples are known once they are put back by the same.

    Row j of the axis comes from the entry ``order[first + j]`` of an axis of outer x N x inner.

    Attributes
    ----------
    axis, rows : int
        The axis, and its size.
    order : Order
    part : int
        Which axis of a mask counts those entries, 0 for an index.
    outer, inner : int
        As in `Place`, of the axis that they were picked from.
    total, first : int
        The rows that were picked, and the first of a slice of them.
    """

    axis: int
    rows: int
    order: Order
    total: int
    part: int = 0
    outer: int = 1
    inner: int = 1
    first: int = 0


#: What rules work with.
State: TypeAlias = Place | Routed | Mixed | None


@dataclass(frozen=True, slots=True)
class Index:
    """An index tensor of one axis, or a mask.

    Attributes
    ----------
    order : Order
        What it holds: its entries divided by `divisor`; or, if `inverse`, where each of them is.
    state : State
        What is known of its own samples.
    """

    order: Order
    divisor: int = 1
    inverse: bool = False
    state: State = MIXED


@dataclass(frozen=True, slots=True)
class Count:
    """The numbers 0, step, 2 step, .. along one axis, the same along all others.

    Attributes
    ----------
    axis, step : int
    """

    axis: int = 0
    step: int = 1


@dataclass(frozen=True, slots=True)
class Single:
    """All of a tensor is of one sample.

    Attributes
    ----------
    sample : int
        From 0.
    """

    sample: int


#: What is kept of a tensor.
Known: TypeAlias = State | Index | Count | Single


def own_samples(known: Known) -> State:
    """Return the samples of a tensor's own values; numbers that count have none."""
    if isinstance(known, Single):
        return MIXED
    if isinstance(known, Index):
        return known.state
    return None if isinstance(known, Count) else known


def join(states: Iterable[State]) -> State:
    """Return what tensors of the same axes agree on; those that hold no samples agree to all."""
    found: State = None
    for state in states:
        if found is None:
            found = state
        elif state is not None and state is not found and state != found:
            return MIXED
    return found


def moved(state: State, axis: int | None) -> State:
    """Return samples on another axis; None for one that is summed over."""
    if state is None or state is MIXED:
        return state
    if axis is None or axis < 0:
        return MIXED
    return state if axis == state.axis else replace(state, axis=axis)


def along(state: State) -> int | None:
    """Return the axis of samples, if there is one."""
    return None if state is None or state is MIXED else state.axis


def fitted(state: State, shape: Sequence[int], batch: int) -> State:
    """Return samples if an axis of that size can hold them, else MIXED."""
    if state is None or state is MIXED:
        return state
    size = shape[state.axis] if state.axis < len(shape) else -1
    if isinstance(state, Routed):
        return state if size == state.rows else MIXED
    if size == state.outer * batch * state.inner:
        return state
    return Place(state.axis, 1, size) if batch == 1 and size > 0 else MIXED


def viewed(state: State, shape: Sequence[int], to: Sequence[int]) -> State:
    """Return where samples are once a tensor's axes, in C order, are those of another shape.

    Index l of what is left of the samples, n, and index r of what is right of them stay; an axis
    has the samples if what is left of it divides the l, and what is right of it the r.
    """
    if state is None or state is MIXED:
        return state
    at, total = state.axis, prod(shape)
    if to[: at + 1] == shape[: at + 1] and prod(to) == total:
        return state  # the axis itself is as it was, the rest of C order too
    if not total or prod(to) != total:
        return MIXED
    outer, inner = (1, 1) if isinstance(state, Routed) else (state.outer, state.inner)
    left, right = prod(shape[:at]) * outer, prod(shape[at + 1 :]) * inner
    before, found = 1, []
    for axis, size in enumerate(to):
        after = total // (before * size)
        if left % before == 0 and right % after == 0:
            found.append(_at(state, axis, left // before, right // after))
        before *= size
    return next((one for one in found if one is not MIXED), MIXED)


def _at(state: Place | Routed, axis: int, outer: int, inner: int) -> State:
    if isinstance(state, Place):
        return Place(axis, outer, inner)
    return replace(state, axis=axis) if outer == inner == 1 else MIXED


def sliced(state: State, size: int, start: int, stop: int, step: int, batch: int) -> State:
    """Return the samples of a part of their own axis, of `size` entries before."""
    if state is None or state is MIXED or (start == 0 and stop >= size and step == 1):
        return state
    length = max(0, -((start - stop) // step))
    if isinstance(state, Routed):
        part = replace(state, rows=length, first=state.first + start)
        return part if step == 1 else MIXED
    period = batch * state.inner
    if step == 1:
        whole = length and start % period == 0 and length % period == 0
        return Place(state.axis, length // period, state.inner) if whole else MIXED
    each = state.inner % step == 0 and start < step and length == size // step
    return Place(state.axis, state.outer, state.inner // step) if each else MIXED


def single(state: State, start: int, stop: int, batch: int) -> Known:
    """Return the sample of a part of their own axis, if it is a part of one."""
    if not isinstance(state, Place) or start // state.inner != (stop - 1) // state.inner:
        return MIXED
    return Single(start // state.inner % batch)


def strided(
    state: State,
    shape: Sequence[int],
    to: Sequence[int],
    strides: Sequence[int],
    offset: int,
    batch: int,
) -> State:
    """Return where the samples of a contiguous tensor are in a view of any strides.

    Parameters
    ----------
    state, shape
        Of the tensor.
    to, strides : sequence of int
        Of the view, in elements.
    offset : int
        Of the view's first element, in elements from the tensor's.
    batch : int
    """
    if not isinstance(state, Place) or not prod(to):
        return None if state is None else MIXED
    right = prod(shape[state.axis + 1 :]) * state.inner
    for axis, (size, stride) in enumerate(zip(to, strides, strict=True)):
        if not stride or right % stride or size % (batch * (right // stride)):
            continue
        inner = right // stride
        rest = [pair for i, pair in enumerate(zip(to, strides, strict=True)) if i != axis]
        small = [(n - 1) * by for n, by in rest if by % (batch * right)]
        reach = offset % right + sum(small) + (inner - 1) * stride
        if offset // right % batch == 0 and reach < right:
            return Place(axis, size // (batch * inner), inner)
    return MIXED


def concatenated(states: Sequence[State]) -> State:
    """Return the samples of tensors that follow each other on their own axis."""
    if all(isinstance(state, Routed) for state in states):
        return _rejoined([state for state in states if isinstance(state, Routed)])
    places = [state for state in states if isinstance(state, Place)]
    if len(places) < len(states) or len({place.inner for place in places}) != 1:
        return MIXED
    return replace(places[0], outer=sum(place.outer for place in places))


def _rejoined(parts: Sequence[Routed]) -> State:
    follow = all(
        replace(b, rows=0, first=0) == replace(a, rows=0, first=0) and b.first == a.first + a.rows
        for a, b in pairwise(parts)
    )
    return replace(parts[0], rows=sum(part.rows for part in parts)) if follow else MIXED
