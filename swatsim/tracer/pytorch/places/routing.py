"""Rules for what picks entries by an index, and puts them back.

Rows that an index picks are in an order that only the index knows, so their samples are in no
place. Put back by the same index, or by its inverse, they are where they were: so are tokens that
went through their experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from swatsim.tracer.pytorch.places.call import Call, Rule
from swatsim.tracer.pytorch.places.place import (
    MIXED,
    Count,
    Index,
    Known,
    Order,
    Place,
    Routed,
    State,
    along,
    join,
    moved,
)
from swatsim.tracer.pytorch.places.pointwise import pointwise


@dataclass(frozen=True)
class _Picked:
    """How indices read the axes of a tensor.

    Attributes
    ----------
    moves : dict
        The result's axis of each axis that no index reads.
    read : dict
        The index that reads each of the others, and the number of that axis in it, if it is a mask.
    start, dims : int
        The result's axes that indices make.
    """

    moves: dict[int, int]
    read: dict[int, tuple[Tensor, int]]
    start: int
    dims: int


def _is_mask(index: Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


def _picked(dims: int, indices: Sequence[Tensor | None]) -> _Picked:
    read: dict[int, tuple[Tensor, int]] = {}
    axis = 0
    for index in indices:
        width = index.dim() if index is not None and _is_mask(index) else 1
        if index is not None:
            read |= {axis + part: (index, part) for part in range(width)}
        axis += width
    made = max(1 if _is_mask(index) else index.dim() for index, _ in read.values())
    first, last = min(read), max(read)
    start = first if last - first + 1 == len(read) else 0
    left = [axis for axis in range(dims) if axis not in read]
    moves = {axis: i if i < start else i + made for i, axis in enumerate(left)}
    return _Picked(moves, read, start, made)


def _from_indices(call: Call, picked: _Picked) -> Iterator[State]:
    """Yield where the samples of the indices themselves are in the result."""
    for index, _ in dict.fromkeys(picked.read.values()):
        state = call.at(index)
        axis = along(state)
        shift = picked.start + picked.dims - index.dim()
        yield state if axis is None or _is_mask(index) else moved(state, axis + shift)


def _index(call: Call) -> Known:
    """Of self[indices]."""
    x, indices = call.arg("self"), call.arg("indices")
    if indices is None:  # index_select
        indices = [*[None] * (call.arg("dim") % x.dim()), call.arg("index")]
    picked, state = _picked(x.dim(), indices), call.at(x)
    axis = along(state)
    if axis is None:
        masks = any(_is_mask(index) for index, _ in picked.read.values())
        return MIXED if masks else join((state, *_from_indices(call, picked)))
    if axis in picked.moves:
        # an index that is mixed is the same for all samples
        own = [one for one in _from_indices(call, picked) if one is not MIXED]
        return join((moved(state, picked.moves[axis]), *own))
    counted = _counted(call, picked, axis)
    if counted is not None:  # entry n for index n, whatever the others read of it
        own = [one for one in _from_indices(call, picked) if one is not MIXED]
        return join((moved(state, counted), *own))
    return _rows(call, state, axis, picked) if picked.dims == 1 else MIXED


def _counted(call: Call, picked: _Picked, axis: int) -> int | None:
    """Return the result's axis of an axis that is read from its first entry to its last."""
    index, _ = picked.read[axis]
    known = call.raw(index)
    if not isinstance(known, Count) or known.step != 1:
        return None
    if index.shape[known.axis] != call.arg("self").shape[axis]:
        return None
    return picked.start + picked.dims - index.dim() + known.axis


def _rows(call: Call, state: State, axis: int, picked: _Picked) -> State:
    """Return the samples of rows that an index picks from their axis."""
    index, part = picked.read[axis]
    known, size = call.raw(index), call.first.shape[picked.start]
    if isinstance(known, Index) and known.inverse:
        return _restored(state, known, picked.start)
    if not isinstance(state, Place):
        return MIXED
    order, divisor = _order(call, index, known)
    inner = state.inner * divisor
    return Routed(picked.start, size, order, size, part, state.outer, inner)


def _on(axis: int) -> Callable[[State], State]:
    return lambda state: state if along(state) is None else moved(state, axis)


def _restored(state: State, index: Index, axis: int) -> State:
    """Return the samples of rows that the inverse of their own index puts back."""
    if not isinstance(state, Routed) or state.order is not index.order or not _is_whole(state):
        return MIXED
    return Place(axis, state.outer, state.inner)


def _is_whole(rows: Routed) -> bool:
    return rows.first == 0 and rows.rows == rows.total


def _order(call: Call, index: Tensor, known: Known) -> tuple[Order, int]:
    """Return the order that an index holds, and its divisor; noted from its first use on."""
    if isinstance(known, Index):
        return known.order, known.divisor
    order = Order()
    call.notes.append((index, Index(order, state=call.at(index))))
    return order, 1


def _index_put(call: Call) -> Known:
    picked = _picked(call.arg("self").dim(), call.arg("indices"))
    return _put(call, picked, call.arg("values"), bool(call.arg("accumulate")))


def _index_add(call: Call) -> Known:
    x, adds = call.arg("self"), call.arg("alpha") is not None
    indices = [*[None] * (call.arg("dim") % x.dim()), call.arg("index")]
    return _put(call, _picked(x.dim(), indices), call.arg("source"), adds)


def _put(call: Call, picked: _Picked, values: Any, adds: bool) -> Known:
    """Of self[indices] = values, or += values."""
    x = call.arg("self")
    state, source = call.at(x), call.at(values)
    if source is None or not values.numel():
        index = next(iter(picked.read.values()))[0]
        return _inverse(call, index, values) or _marked(state)
    shift = x.dim() - len(picked.read) + picked.dims - values.dim()
    source = _on((along(source) or 0) + shift)(source)
    if isinstance(source, Routed):
        return _put_back(call, picked, source, adds)
    counted = {axis: _counted(call, picked, axis) for axis in picked.read}
    axis = next((a for a, to in (picked.moves | counted).items() if to == along(source)), None)
    own = join([source, *(one for one in _from_indices(call, picked) if one is not MIXED)])
    return MIXED if axis is None or own is MIXED else join((state, moved(source, axis)))


def _marked(state: State) -> State:
    """Return the samples of a tensor with constants at some places: no value moves."""
    return MIXED if state is None else state


def _put_back(call: Call, picked: _Picked, rows: Routed, adds: bool) -> State:
    """Return the samples of a tensor that rows are put back in by the index that picked them."""
    before = call.at(call.arg("self"))
    if rows.axis != picked.start or picked.dims != 1 or not _is_whole(rows):
        return MIXED
    for axis, (index, part) in picked.read.items():
        known = call.raw(index)
        if isinstance(known, Index) and known.order is rows.order and part == rows.part:
            if known.inverse or rows.inner % known.divisor:
                return MIXED
            found = Place(axis, rows.outer, rows.inner // known.divisor)
            # a buffer made like the rows holds nothing yet, and every entry of it is written
            over = isinstance(before, Routed) and rows.order.size is not None and not adds
            return found if over and known.divisor == 1 else join((before, found))
    return MIXED


def _inverse(call: Call, index: Tensor, values: Any) -> Index | None:
    """Return the inverse of an order, written as inverse[order] = 0, 1, 2, ..."""
    known, x = call.raw(index), call.arg("self")
    if not isinstance(known, Index) or call.raw(values) != Count():
        return None
    sizes = {*x.shape, *index.shape, *values.shape}
    whole = x.dim() == 1 and known.order.size is not None and sizes == {known.order.size}
    plain = known.divisor == 1 and not known.inverse and not call.arg("accumulate")
    return Index(known.order, inverse=True) if whole and plain else None


def _sort(call: Call) -> list[Known]:
    x, dim = call.arg("self"), call.arg("dim")
    known, state = call.raw(x), call.at(x)
    if along(state) not in (None, dim % x.dim()):
        return [state, state]
    if x.dim() != 1:
        return [MIXED, MIXED]
    size = x.shape[0]
    if isinstance(known, Index) and known.order.size == size and known.divisor == 1:
        return [MIXED, MIXED if known.inverse else Index(known.order, inverse=True)]
    order = Order(size)
    rows: State = MIXED
    if isinstance(state, Place):
        rows = Routed(0, size, order, size, 0, state.outer, state.inner)
    return [rows, Index(order)]


def _divided(call: Call) -> Known:
    """Of an index divided by a number: entries that were repeated one by one."""
    known, by = call.raw(call.arg("self")), call.arg("other")
    if isinstance(known, Index) and not known.inverse and isinstance(by, int) and by > 0:
        floors = call.arg("rounding_mode") in (None, "floor", "trunc")
        return replace(known, divisor=known.divisor * by) if floors else MIXED
    return pointwise(call)


def _gather(call: Call) -> State:
    x, index, dim = call.arg("self"), call.arg("index"), call.arg("dim") % call.first.dim()
    state, own = call.at(x), call.at(index)
    if state is None:
        return own
    if along(state) == dim:
        return MIXED
    return state if own is MIXED else join((state, own))  # it picks within a row, whichever


def _scatter(call: Call) -> Known:
    x, index, source = call.arg("self"), call.arg("index"), call.arg("src")
    dim, state, own = call.arg("dim") % max(1, x.dim()), call.at(x), call.at(call.arg("index"))
    if call.at(source) is None and state is not None:
        return _inverse(call, index, source) or state
    found = join((state, call.at(source), own))
    return found if along(found) != dim else MIXED


def _index_fill(call: Call) -> State:
    return _marked(call.at(call.arg("self")))


def _embedding(call: Call) -> State:
    weight, ids = call.at(call.arg("weight")), call.at(call.arg("indices"))
    if along(weight) != 1:
        return join((weight, ids)) if weight is None or weight is MIXED else MIXED
    return moved(weight, call.first.dim() - 1) if ids is None else MIXED


def _embedding_bag(call: Call) -> list[Known]:
    """Of the sums of an embedding over bags, one after another: all as long, or each a sample's."""
    ids, bags = call.at(call.arg("indices")), call.raw(call.arg("offsets"))
    if call.only(call.arg("indices"), call.arg("offsets")):
        if isinstance(bags, Count) and isinstance(ids, Place) and ids.inner % bags.step == 0:
            return [Place(0, ids.outer, ids.inner // bags.step)]
        if isinstance(bags, Place):
            return [bags]
    return [MIXED]


def _arange(call: Call) -> Known:
    start, step, whole = call.arg("start"), call.arg("step"), not call.first.is_floating_point()
    plain = start in (None, 0) and (step is None or step > 0) and whole
    return Count(0, 1 if step is None else int(step)) if plain else None


_SCATTER = ("scatter", "scatter_add", "scatter_reduce")

#: Operations that start something to follow, whatever they are given.
STARTS: dict[str, Rule] = {"arange": _arange}
ROUTING: dict[str, Rule] = {
    **dict.fromkeys(("index", "index_select", "_unsafe_index"), _index),
    **dict.fromkeys(("index_put", "_index_put_impl", "_unsafe_index_put"), _index_put),
    **dict.fromkeys(("index_add", "index_copy"), _index_add),
    **dict.fromkeys(_SCATTER, _scatter),
    **dict.fromkeys(("floor_divide", "div.Tensor_mode", "div.Scalar_mode"), _divided),
    "index_fill": _index_fill,
    "sort": _sort,
    "gather": _gather,
    "embedding": _embedding,
    "_embedding_bag": _embedding_bag,
    "_embedding_bag_forward_only": _embedding_bag,
}
