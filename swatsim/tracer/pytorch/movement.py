"""What one operation reads and writes, as its schema and its tensors have it.

Views, shapes and whatever else returns the memory that it was given move nothing, nor do empty
tensors, answers that are no tensors (``item``), and what other processes are sent. A tensor that is
expanded is as large as its memory. What a schema does not show is a table here, by name: which
arguments are looked up or updated in a few places, and of which only the shape is read. Of sparse
layouts nothing is known. Running statistics of a batch norm are read, and written unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Where a tensor begins in which memory: (storage, offset).
Place = tuple[int, int]


class Kind(NamedTuple):
    """What an operation's schema says of it.

    Parameters
    ----------
    function : str
    elementwise : bool
        Whether each value that it makes is of the values in the same place.
    written, unread : frozenset
        Arguments that it writes into, and of which it reads no value, by place and by name.
    touches : bool
        Whether of its first argument as much is read, or read and written, as it looks up or puts.
    """

    function: str
    elementwise: bool
    written: frozenset[int | str]
    unread: frozenset[int | str]
    touches: bool


class Movement(NamedTuple):
    """What one operation reads and writes.

    Parameters
    ----------
    kind : Kind
    elements : int
        Values of its largest argument or output; those of a list count together.
    dtype : torch.dtype
        Of the largest one of floats, or of the largest.
    read : dict of Place to (bytes, tensor)
    written : dict of storage to (bytes, tensor)
    """

    kind: Kind
    elements: int
    dtype: torch.dtype
    read: dict[Place, tuple[int, Tensor]]
    written: dict[int, tuple[int, Tensor]]


def movement(func: Any, args: tuple[Any, ...], named: dict[str, Any], out: Any) -> Movement | None:
    """Return what an operation reads and writes; None of one that moves nothing.

    Parameters
    ----------
    func : torch._ops.OpOverload
    args, named : tuple, dict
        As a TorchDispatchMode got them.
    out
        What the operation returned.
    """
    kind = _kind(func)
    if kind is None:
        return None
    found = _Found(kind)
    for key, value in enumerate(args):
        if isinstance(value, Tensor):
            found.argument(key, (value,))
        elif type(value) in _LISTS:
            found.argument(key, _among(value))
    for name, value in named.items():
        if isinstance(value, Tensor | list | tuple):
            found.argument(name, _among(value))
    for made in out if type(out) is tuple else (out,):
        if isinstance(made, Tensor | list):
            found.output(_among(made))
    return found.movement()


class _Found:
    """What is known of an operation while its arguments are looked at."""

    __slots__ = ("dtype", "elements", "first", "given", "kind", "read", "typed", "written")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.read: dict[Place, tuple[int, Tensor]] = {}
        self.written: dict[int, tuple[int, Tensor]] = {}
        self.given: set[int] = set()
        self.elements, self.dtype = 0, torch.float32
        #: Of which the type is: whether its values are floats, how many.
        self.typed = (False, 0)
        #: Of an operation that looks up or updates places its first argument.
        self.first: Tensor | None = None

    def argument(self, key: int | str, tensors: Sequence[Tensor]) -> None:
        kind = self.kind
        if kind.touches and key in (0, "self"):
            (self.first,) = tensors
            self.given.add(self.first.untyped_storage()._cdata)
            return
        is_read, is_written, elements = key not in kind.unread, key in kind.written, 0
        for tensor in tensors:
            storage, count = tensor.untyped_storage(), tensor.numel()
            address = storage._cdata
            elements += count
            self.given.add(address)
            size = min(count * tensor.itemsize, storage.nbytes())
            if is_read:
                self.read[address, tensor.storage_offset()] = size, tensor  # type: ignore[index]
            if is_written:
                self._writes(address, size, tensor)
        if tensors and (is_read or is_written):
            self._largest(elements, tensors[0].dtype)

    def output(self, out: Sequence[Tensor]) -> None:
        elements, new = 0, None
        for tensor in out:
            address = tensor.untyped_storage()._cdata
            if address not in self.given:
                new, count = tensor, tensor.numel()
                elements += count
                self._writes(address, count * tensor.itemsize, tensor)
        if new is not None:
            self._largest(elements, new.dtype)

    def movement(self) -> Movement | None:
        if self.first is not None:
            self._touch(self.first)
        if not self.written or not self.elements:
            return None
        return Movement(self.kind, self.elements, self.dtype, self.read, self.written)

    def _touch(self, first: Tensor) -> None:
        """Add what is looked up in a tensor, or put into it: as much as in the others."""
        count, address = min(self.elements, first.numel()), first.untyped_storage()._cdata
        self.read[address, int(first.storage_offset())] = count * first.itemsize, first
        self._largest(count, first.dtype)
        if self.kind.written:
            self._writes(address, count * first.itemsize, first)

    def _writes(self, address: int, size: int, tensor: Tensor) -> None:
        known = self.written.get(address)  # of another part of the same memory
        self.written[address] = size if known is None else size + known[0], tensor

    def _largest(self, elements: int, dtype: torch.dtype) -> None:
        if elements > self.elements:
            self.elements = elements
        typed = dtype.is_floating_point, elements
        if typed > self.typed:
            self.dtype, self.typed = dtype, typed


_LISTS = (list, tuple)


def _among(value: Any) -> Sequence[Tensor]:
    if isinstance(value, Tensor):
        return (value,)
    if isinstance(value, list | tuple):
        return [each for each in value if isinstance(each, Tensor)]
    return ()


@cache
def _kind(func: Any) -> Kind | None:
    """Return what is known of an operation; None of one that moves nothing whatever it is given."""
    function, namespace = func._overloadpacket.__name__, func.namespace
    if torch.Tag.inplace_view in func.tags or "empty" in function or namespace in _ELSEWHERE:
        return None
    arguments, returned = func._schema.arguments, [it.alias_info for it in func._schema.returns]
    if returned and all(alias is not None and not alias.is_write for alias in returned):
        return None
    places = [*enumerate(arguments), *((each.name, each) for each in arguments)]
    written = frozenset(key for key, each in places if _is_written(function, each))
    made = frozenset(key for key, each in places if each.is_out) | _unread(function, arguments)
    fills = torch.Tag.nondeterministic_seeded in func.tags or function in _FILLS
    unread = made | written if fills else made
    touches = function in _LOOK_UP or function in _UPDATE
    return Kind(function, _is_elementwise(func, function), written, unread, touches)


def _is_written(function: str, argument: Any) -> bool:
    alias = argument.alias_info
    # fused optimizers unscale gradients in place under a loss scaler alone, which did so before
    unscaled = function.startswith("_fused_") and argument.name == "grads"
    return alias is not None and alias.is_write and not unscaled


def _unread(function: str, arguments: Any) -> frozenset[int | str]:
    """Return the arguments that give an operation a shape, and no values."""
    if function.endswith("_like") or function.startswith("new_"):
        return frozenset((0, "self"))
    name = _SHAPES.get(function)
    return frozenset(
        key for i, each in enumerate(arguments) if each.name == name for key in (i, each.name)
    )


def _is_elementwise(func: Any, function: str) -> bool:
    if torch.Tag.pointwise in func.tags or function in _ELEMENTWISE:
        return True
    if torch.Tag.nondeterministic_seeded in func.tags:
        return function.endswith("_")  # draws a value for each place
    if torch.Tag.reduction in func.tags or function in _FOREACH_REDUCES:
        return False
    plain = function.removeprefix("_foreach_")
    plain = plain.removesuffix("_") if plain != function else plain
    packet = getattr(torch.ops.aten, plain, None)
    return packet is not None and any(
        torch.Tag.pointwise in getattr(packet, each).tags for each in packet.overloads()
    )


#: What processes send each other, and what is written down of a run.
_ELSEWHERE = ("c10d", "_c10d_functional", "_dtensor", "profiler", "prim")
#: They write without reading what was there.
_FILLS = ("copy_", "fill_", "zero_", "_foreach_copy_", "_foreach_zero_")
#: They read of their first argument what comes out, or as many values as another one has.
_LOOK_UP = frozenset(
    [
        *("embedding", "index", "index_select", "gather", "take"),
        *("nll_loss_forward", "nll_loss2d_forward"),
    ]
)
#: They write of their first argument, in place, as many values as another one has.
_UPDATE = frozenset(
    [
        *("index_put_", "_index_put_impl_", "index_add_", "index_copy_", "index_fill_"),
        *("scatter_", "scatter_add_", "scatter_reduce_", "put_"),
    ]
)
#: Operation -> the argument of which only the shape is read.
_SHAPES = {
    "nll_loss_backward": "self",
    "nll_loss2d_backward": "self",
    "avg_pool2d_backward": "self",
    "avg_pool3d_backward": "self",
    "max_pool2d_with_indices_backward": "self",
    "max_pool3d_with_indices_backward": "self",
    "_adaptive_avg_pool2d_backward": "self",
    "_adaptive_avg_pool3d_backward": "self",
}
#: Value by value, though torch has no tag that says so.
_ELEMENTWISE = frozenset(
    [
        *("_to_copy", "copy_", "fill_", "zero_", "_foreach_copy_", "_foreach_zero_"),
        *("hardtanh_backward", "hardsigmoid_backward", "hardswish_backward", "mse_loss_backward"),
        *("smooth_l1_loss_backward", "binary_cross_entropy_backward", "leaky_relu_backward"),
        *("_prelu_kernel", "_prelu_kernel_backward", "masked_fill_"),
    ]
)
#: Among operations of lists: a value of each tensor.
_FOREACH_REDUCES = ("_foreach_norm", "_foreach_max", "_foreach_powsum")
