"""Rules for what cuts, merges and moves axes, or takes a part of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from torch import Tensor

from swatsim.tracer.pytorch.places.call import Call, Rule
from swatsim.tracer.pytorch.places.place import (
    MIXED,
    Count,
    Known,
    Place,
    Single,
    State,
    along,
    concatenated,
    join,
    moved,
    single,
    sliced,
    strided,
    viewed,
)


def _view(call: Call) -> Known:
    x = call.arg("self")
    known, shape, to = call.raw(x), call.shape(x), call.first.shape
    if isinstance(known, Count):
        return _counting(known, viewed(Place(known.axis), shape, to))
    return viewed(call.at(x), shape, to)


def _counting(count: Count, view: State) -> Known:
    """Return what is known of a view of numbers that count along an axis."""
    whole = isinstance(view, Place) and view.outer == view.inner == 1
    return Count(view.axis, count.step) if isinstance(view, Place) and whole else None


def _bits(call: Call) -> State:
    """Of values read as another type: the last axis may change, the others stay."""
    x, state = call.arg("self"), call.at(call.arg("self"))
    last = x.dim() - 1
    return state if along(state) != last or x.shape == call.first.shape else MIXED


def _expand(call: Call) -> Known:
    x = call.arg("self")
    known, more = call.raw(x), call.first.dim() - x.dim()
    if isinstance(known, Count):
        kept = x.shape[known.axis] == call.first.shape[known.axis + more]
        return Count(known.axis + more, known.step) if kept else None
    return _led(call, more)


def _led(call: Call, more: int) -> State:
    """Return the samples once so many axes come before."""
    state = call.at(call.arg("self"))
    axis = along(state)
    return state if axis is None else moved(state, axis + more)


def _repeat(call: Call) -> State:
    state = _led(call, call.first.dim() - call.arg("self").dim())
    axis = along(state)
    times = 1 if axis is None else call.arg("repeats")[axis]
    if times == 1 or state is None:
        return state
    return replace(state, outer=state.outer * times) if isinstance(state, Place) else MIXED


def _permute(call: Call) -> State:
    x = call.arg("self")
    state, dims = call.at(x), [dim % x.dim() for dim in call.arg("dims")]
    axis = along(state)
    return state if axis is None else moved(state, dims.index(axis))


def _transpose(call: Call) -> State:
    x = call.arg("self")
    return _swapped(call.at(x), call.arg("dim0") % x.dim(), call.arg("dim1") % x.dim())


def _t(call: Call) -> State:
    x = call.arg("self")
    return _swapped(call.at(x), 0, x.dim() - 1)


def _swapped(state: State, one: int, other: int) -> State:
    axis = along(state)
    return moved(state, {one: other, other: one}.get(axis, axis)) if axis is not None else state


def _slice(call: Call) -> Known:
    x, dim, step = call.arg("self"), call.arg("dim"), call.arg("step")
    state, size = call.at(x), x.shape[dim]
    if x.shape == call.first.shape and step == 1:
        return call.raw(x)
    if along(state) != dim % x.dim():
        return state
    start, stop, _ = slice(call.arg("start"), call.arg("end")).indices(size)
    part = sliced(state, size, start, stop, step, call.batch)
    return single(state, start, stop, call.batch) if part is MIXED and step == 1 else part


def _select(call: Call) -> Known:
    x = call.arg("self")
    state, dim = call.at(x), call.arg("dim") % x.dim()
    if along(state) != dim:
        return without(state, dim)
    index = call.arg("index") % x.shape[dim]
    return single(state, index, index + 1, call.batch)


def without(state: State, dim: int) -> State:
    """Return the samples of what has one axis less."""
    axis = along(state)
    if axis is None or axis < dim:
        return state
    return moved(state, axis - 1) if axis > dim else MIXED


def _unbind(call: Call) -> list[Known]:
    x, many = call.arg("self"), len(call.out)
    state, dim = call.at(x), call.arg("dim") % x.dim()
    if along(state) != dim:
        return [without(state, dim)] * many
    return [single(state, i, i + 1, call.batch) for i in range(many)]


def _split(call: Call) -> list[Known]:
    x, dim = call.arg("self"), call.arg("dim") % call.arg("self").dim()
    state = call.at(x)
    if along(state) != dim:
        return [state] * len(call.out)
    ends = list(accumulate(part.shape[dim] for part in call.out))
    starts = [0, *ends[:-1]]
    size, N = x.shape[dim], call.batch
    parts = [(sliced(state, size, a, b, 1, N), a, b) for a, b in zip(starts, ends, strict=True)]
    return [single(state, a, b, N) if part is MIXED else part for part, a, b in parts]


def _cat(call: Call) -> Known:
    # empty tensors of one axis are allowed, whatever the others have
    tensors = [one for one in call.arg("tensors") if one.dim() > 1 or one.numel()]
    dim = call.arg("dim") % call.first.dim()
    gathered = _gathered(call, tensors)
    if gathered is not None:
        sizes = {one.shape[dim] for one in tensors}
        whole = isinstance(gathered, Place) and len(sizes) == 1
        return Place(dim, 1, sizes.pop()) if whole else own_single(gathered)
    states = [call.at(one) for one in tensors]
    if all(along(state) != dim for state in states):
        return join(states)
    return concatenated(states)


def _gathered(call: Call, tensors: Sequence[Tensor]) -> Known:
    """Return what tensors of one sample each are together: all samples in order, or the same."""
    known = [call.raw(one) for one in tensors]
    if known == [Single(n) for n in range(call.batch)]:
        return Place(0)
    own = [one for one in known if one is not None]
    return own[0] if own and isinstance(own[0], Single) and own.count(own[0]) == len(own) else None


def own_single(known: Known) -> Known:
    """Return a sample if it is one, else MIXED."""
    return known if isinstance(known, Single) else MIXED


def _stack(call: Call) -> Known:
    dim, tensors = call.arg("dim") % call.first.dim(), call.arg("tensors")
    gathered = _gathered(call, tensors)
    if gathered is not None:
        return Place(dim) if isinstance(gathered, Place) else gathered
    state = join(map(call.at, tensors))
    axis = along(state)
    return state if axis is None else moved(state, axis + (axis >= dim))


def _unfold(call: Call) -> State:
    x = call.arg("self")
    state = call.at(x)
    return state if along(state) != call.arg("dimension") % x.dim() else MIXED


def _diagonal(call: Call) -> State:
    x = call.arg("self")
    one, other = sorted((call.arg("dim1") % x.dim(), call.arg("dim2") % x.dim()))
    return without(without(call.at(x), other), one)


def _as_strided(call: Call) -> State:
    x, to, strides = call.arg("self"), call.arg("size"), call.arg("stride")
    offset, state = call.arg("storage_offset"), call.at(call.arg("self"))
    offset = 0 if offset is None else offset - x.storage_offset()
    if not offset and tuple(to) == x.shape and tuple(strides) == x.stride():
        return state
    order = sorted(range(x.dim()), key=x.stride, reverse=True)  # the axes as memory has them
    inside = x.permute(order)
    axis = along(state)
    if axis is None or offset < 0 or not inside.is_contiguous():
        return state if axis is None else MIXED
    state = moved(state, order.index(axis))
    return strided(state, inside.shape, to, strides, offset, call.batch)


def _pad(call: Call) -> State:
    x, pad = call.arg("self"), call.arg("pad")
    state = call.at(x)
    axis = along(state)
    last = 0 if axis is None else 2 * (x.dim() - 1 - axis)
    return MIXED if axis is not None and any(pad[last : last + 2]) else state


def _roll(call: Call) -> State:
    x, dims, shifts = call.arg("self"), call.arg("dims"), call.arg("shifts")
    state = call.at(x)
    axis = along(state)
    if axis is None or (dims and axis not in [dim % x.dim() for dim in dims]):
        return state
    return MIXED if any(shifts) else state


def _slice_scatter(call: Call) -> State:
    x, y, dim = call.arg("self"), call.arg("src"), call.arg("dim") % call.first.dim()
    return _into(call.at(x), call.at(y), dim)


def _select_scatter(call: Call) -> State:
    x, y, dim = call.arg("self"), call.arg("src"), call.arg("dim") % call.first.dim()
    state = call.at(y)
    axis = along(state)
    return _into(call.at(x), state if axis is None else moved(state, axis + (axis >= dim)), dim)


def _into(target: State, source: State, dim: int) -> State:
    state = join((target, source))
    return state if source is None or along(state) != dim else MIXED


def _same(call: Call) -> Known:
    """Of the same values: all that is known stays."""
    return call.raw(call.arg("self"))


def _kept(call: Call) -> State:
    """Of what changes axes at the end alone."""
    return call.at(call.arg("self"))


def _copy(call: Call) -> State:
    """Of values that take the place of others."""
    x, y = call.arg("self"), call.arg("src")
    before, state = call.at(x), call.at(y)
    if state is None or (state is MIXED and not spans(y, before, x.dim())):
        return before
    axis = along(state)
    return state if axis is None else moved(state, axis + x.dim() - y.dim())


def spans(tensor: Tensor, state: State, dims: int) -> bool:
    """Whether a tensor, broadcast to `dims` axes, has values of its own along those samples.

    If not, it adds the same to all samples, and moves none.
    """
    axis = along(state)
    own = -1 if axis is None else axis - (dims - tensor.dim())
    return axis is None or (own >= 0 and tensor.shape[own] != 1)


def _restrided(call: Call) -> State:
    """Of strides changed in place, such as those of axes of one entry."""
    x = call.arg("self")
    same = x.shape == call.shape(x) and x.is_contiguous()
    return call.at(x) if same else MIXED


def _lost(call: Call) -> State:
    """Of a tensor that gets another's memory, or more of it."""
    return MIXED


def _new(call: Call) -> State:
    """Of a tensor that only takes another's type."""
    return None


#: Rules that what is of one sample doesn't stay of it by: put together with others, or new.
LEAVING = (_cat, _stack, _new)

_VIEWS = ("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten")
_SAME = ("clone", "detach", "detach_", "alias", "_to_copy", "lift_fresh", "contiguous")

_NEW = ("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided")

MOVES: dict[str, Rule] = {
    **dict.fromkeys(_VIEWS, _view),
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(("view_as_real", "view_as_complex"), _kept),
    **dict.fromkeys(("resize_", "set_"), _lost),
    **dict.fromkeys(_NEW, _new),
    "as_strided_": _restrided,
    **dict.fromkeys(("transpose", "transpose_", "swapaxes"), _transpose),
    **dict.fromkeys(("t", "t_"), _t),
    **dict.fromkeys(
        ("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes"), _split
    ),
    "view.dtype": _bits,
    "expand": _expand,
    "repeat": _repeat,
    "permute": _permute,
    "slice": _slice,
    "select": _select,
    "unbind": _unbind,
    "cat": _cat,
    "stack": _stack,
    "unfold": _unfold,
    "diagonal": _diagonal,
    "as_strided": _as_strided,
    "constant_pad_nd": _pad,
    "roll": _roll,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "copy": _copy,
    "copy_": _copy,
}
