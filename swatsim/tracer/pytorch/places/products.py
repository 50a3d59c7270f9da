"""Rules for what multiplies and sums up: matrices, convolutions, attention, recurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from swatsim.tracer.pytorch.places.call import Call, Rule, alike
from swatsim.tracer.pytorch.places.place import (
    MIXED,
    Known,
    Place,
    State,
    along,
    join,
    moved,
)


def _mapped(call: Call, tensor: Any, axes: Sequence[int | None]) -> State:
    """Return where an argument's samples are in the output; None is an axis that is summed over."""
    state = call.at(tensor)
    axis = along(state)
    return state if axis is None else moved(state, axes[axis])


def _broadcast(call: Call, tensor: Any) -> State:
    """Return where the samples are of what is added to an output."""
    state = call.at(tensor)
    axis = along(state)
    return state if axis is None else moved(state, axis + call.first.dim() - tensor.dim())


def _product(left: str, right: str, added: str = "", turned: bool = False) -> Rule:
    """Return a rule for products of matrices, or of many in leading axes.

    `turned`: the right one's axes are (columns, summed), as those of a linear layer's weight.
    """

    def rule(call: Call) -> State:
        a, b, c = call.arg(left), call.arg(right), call.arg(added)
        if not call.only(a, b, c):
            return MIXED
        dims = call.first.dim()
        lead = list(range(b.dim() - 2))
        columns: list[int | None] = [dims - 1, None] if turned else [None, dims - 1]
        rows = [*range(a.dim() - 1), None]
        first, second = _mapped(call, a, rows), _mapped(call, b, [*lead, *columns])
        return join((first, second, _broadcast(call, c)))

    return rule


def _vector(matrix: str) -> Rule:
    """Return a rule for products of a matrix and a vector."""

    def rule(call: Call) -> State:
        a, b, added = call.arg(matrix), call.arg("vec"), call.arg("self")
        rest = None if added is a else _broadcast(call, added)
        return join((_mapped(call, a, (0, None)), _mapped(call, b, (None,)), rest))

    return rule


def _grouped(call: Call) -> State:
    """Of products of groups of rows, each with a matrix of its own."""
    a, b = call.arg("self"), call.arg("mat2")
    if a.dim() == 2 == b.dim():
        return MIXED
    rows, columns = [*range(a.dim() - 1), None], call.first.dim() - 1
    if a.dim() == 2:
        return join((_mapped(call, a, rows), _mapped(call, b, (None, None, columns))))
    weight = (0, None, columns) if b.dim() == 3 else (None, columns)
    return join((_mapped(call, a, rows), _mapped(call, b, weight)))


def _convolution(call: Call) -> State:
    x, weight, bias = call.arg("input"), call.arg("weight"), call.arg("bias")
    state = call.at(x)
    axis = along(state)
    if axis == 1 or call.at(weight) is not None:
        return join((_channels(call, x, 1), _channels(call, weight, 0), _on_channels(call, bias)))
    if axis is not None and axis > 1 and not _is_apart(call, weight, axis):
        return MIXED
    return join((state, _on_channels(call, bias)))


def _on_channels(call: Call, bias: Tensor | None) -> State:
    return _mapped(call, bias, (1,))


def _channels(call: Call, tensor: Tensor, axis: int) -> State:
    """Return where samples are that were folded into channels, each with groups of its own."""
    state = call.at(tensor)
    if not isinstance(state, Place) or state.axis != axis:
        return None if state is None else MIXED
    groups, channels = call.arg("groups"), tensor.shape[axis]
    size, out = channels // groups, call.first.shape[1] // groups
    return Place(1, state.outer, state.inner // size * out) if state.inner % size == 0 else MIXED


def _is_apart(call: Call, weight: Tensor, axis: int) -> bool:
    """Whether a convolution leaves the entries of one of its spatial axes alone."""

    def of(name: str) -> int:
        given = call.arg(name)
        return int(given[axis - 2] if len(given) > 1 else given[0])

    still = weight.shape[axis] == 1 and of("stride") == 1
    return still and of("padding") == 0 and of("output_padding") == 0


def _attention(call: Call) -> State:
    """Of attention on (N, heads, T, E): the first two axes are each for itself."""
    q, k, v = call.arg("query"), call.arg("key"), call.arg("value")
    masks = [call.arg("attn_mask"), call.arg("attn_bias")]
    if not call.only(q, k, v, *masks):
        return MIXED
    state = join([*map(call.at, (q, k, v)), *(_broadcast(call, mask) for mask in masks)])
    return state if along(state) in (0, 1, None) else MIXED


def _recurrence(axis: int | None) -> Rule:
    """Return a rule for layers of an LSTM, GRU or RNN with the samples on an axis of the input.

    None for the first, if the layers are said to have the batch first, else the second. Their
    states are (layers, N, C), or (N, C) of one layer.
    """

    def rule(call: Call) -> list[Known]:
        x, names = call.arg("input"), ("hx", "cx", "hx_", "cx_")
        own = (0 if call.arg("batch_first") else 1) if axis is None else axis
        starts = [one for one in map(call.arg, names) if one is not None]
        if call.arg("batch_sizes") or along(call.at(x)) != own or not call.only(x, *starts):
            return [MIXED]
        hidden = join((moved(call.at(x), starts[0].dim() - 2), *map(call.at, starts)))
        return [moved(hidden, own), hidden, hidden]

    return rule


def _deformable(call: Call) -> State:
    state = join(state for _, state in call.states())
    return state if along(state) == 0 and call.at(call.arg("weight")) is None else MIXED


_ATTENTION = ("flash_attention", "efficient_attention", "cudnn_attention")
_FUSED = (
    *(f"_scaled_dot_product_{name}" for name in _ATTENTION),
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
)

PRODUCTS: dict[str, Rule] = {
    "mm": _product("self", "mat2"),
    "bmm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2", "self"),
    "_addmm_activation": _product("mat1", "mat2", "self"),
    "baddbmm": _product("batch1", "batch2", "self"),
    "_scaled_mm": _product("self", "mat2", "bias"),
    "linear": _product("input", "weight", "bias", turned=True),
    "mkldnn_linear": _product("self", "weight", "bias", turned=True),
    "_cdist_forward": _product("x1", "x2", turned=True),
    "mv": _vector("self"),
    "addmv": _vector("mat"),
    "_grouped_mm": _grouped,
    "convolution": _convolution,
    "_convolution": _convolution,
    **dict.fromkeys(_FUSED, alike(_attention)),
    "_cudnn_rnn": _recurrence(None),
    "mkldnn_rnn_layer": _recurrence(1),
    "torchvision::deform_conv2d": _deformable,
}
