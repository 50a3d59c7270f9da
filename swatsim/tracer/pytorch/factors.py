"""The factors of an operation that multiplies: which is the weight, and what its gradients read.

Speaks convolution letters; R is a number of rows that a weight is applied to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from swatsim.tracer.pytorch.modules import Depth, Geometry, linear, size_of
from swatsim.tracer.pytorch.naming import split_projections
from swatsim.tracer.pytorch.samples import MIXED, Place
from swatsim.workload.layer import Layer

aten = torch.ops.aten

#: Where the two factors of a product of matrices are among an operation's arguments.
_MATRICES: dict[Any, tuple[int, int]] = {
    **dict.fromkeys((aten.mm, aten.bmm, aten.mv, aten._int_mm, aten._scaled_mm), (0, 1)),
    aten.matmul: (0, 1),  # of nested tensors alone: others come as products of matrices
    **dict.fromkeys((aten.dot, aten.vdot), (0, 1)),
    **dict.fromkeys((aten._grouped_mm, aten._scaled_grouped_mm, aten.linear), (0, 1)),
    **dict.fromkeys((aten.addmm, aten.baddbmm, aten.addmv, aten.addbmm), (1, 2)),
}
_CONVOLUTIONS = (aten.convolution, aten._convolution)
_RAGGED = (aten._grouped_mm, aten._scaled_grouped_mm)

_NOTHING = torch.empty(0)

#: Gives a factor, or its gradient, in another shape.
View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """One layer of a product.

    Parameters
    ----------
    layer : Layer
        Without the positions that a linear layer is applied to.
    act : torch.Tensor, shape (R, C) or (N, C, ..)
    weight : torch.Tensor
        As `Layer.shape_of` has it.
    place : Place, MIXED or None
        Where the samples are in act.
    grads, acts, weights : callable
        Give grad_out, act and weight of this part, of the gradient of the product's output, and of
        its two factors.
    depth : Depth, optional
    """

    layer: Layer
    act: Tensor
    weight: Tensor
    place: Any
    grads: View
    acts: View
    weights: View
    depth: Depth | None = None

    def bare(self) -> Part:
        """Return it without its tensors: who needs them holds them."""
        return replace(self, act=_NOTHING, weight=_NOTHING)


@dataclass(frozen=True)
class Factors:
    """What an operation multiplies.

    Parameters
    ----------
    left, right : torch.Tensor
        Matrices: a vector has one column.
    given : two of torch.Tensor
        What the operation was given of them.
    at : two of int
        Which arguments they are; gradients come in that order.
    convolution : bool
    rest : tuple
        What else decides: of a convolution its geometry, of experts where their rows end.
    sums : bool
        Whether the products of a batch are added up.
    vectors : bool
        Whether both are: their gradients are products of single values.
    """

    left: Tensor
    right: Tensor
    given: tuple[Tensor, Tensor]
    at: tuple[int, int]
    convolution: bool = False
    rest: tuple[Any, ...] = field(default=(), repr=False)
    sums: bool = False
    vectors: bool = False


def factors(func: Any, arguments: Any, named: Any) -> Factors | None:
    """Return the factors of an operation; None of one that is no product of two tensors."""
    packet = func._overloadpacket
    if packet in _CONVOLUTIONS:
        x, weight = arguments[:2]
        return Factors(x, weight, (x, weight), (0, 1), True, tuple(arguments[2:9]))
    at = _MATRICES.get(packet)
    if at is None:
        return None
    left, right = given = arguments[at[0]], arguments[at[1]]
    if packet is aten.linear:
        right = right.mT
    vectors = left.dim() == right.dim() == 1
    if left.dim() == 1:
        left = left[None]
    if right.dim() == 1:
        right = right[:, None]
    ragged = packet in _RAGGED and left.dim() != right.dim()
    offs = named.get("offs", arguments[2] if len(arguments) > 2 else None) if ragged else None
    rest = () if offs is None else (offs,)
    return Factors(left, right, given, at, False, rest, packet is aten.addbmm, vectors)


Place_of = Callable[[Tensor], Any]


def parts(found: Factors, weight_is_right: bool, name: str, place_of: Place_of) -> list[Part]:
    """Return the layers of a product that has a weight.

    Parameters
    ----------
    found : Factors
    weight_is_right : bool
    name : str
        The weight's.
    place_of : callable
        Where the samples are in a tensor.
    """
    if found.convolution:
        return [_convolution(found, name, place_of)]
    if found.rest:
        return _ragged(found, name)
    if found.right.dim() == 3:
        return _batched(found, weight_is_right, name, place_of)
    return _matrix(found, weight_is_right, name, place_of)


def _convolution(found: Factors, name: str, place_of: Place_of) -> Part:
    x, weight = found.left, found.right
    _, stride, padding, dilation, transposed, output_padding, groups = found.rest
    more = output_padding if transposed else None
    geometry = Geometry.called(weight, stride, padding, dilation, groups, more)
    layer = geometry.layer(name, size_of(name, x, weight.dim() - 2))
    depth = Depth.of(geometry) if weight.dim() == 5 else None
    return Part(layer, x, weight, place_of(x), _same, _same, _same, depth)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _matrix(found: Factors, weight_is_right: bool, name: str, place_of: Place_of) -> list[Part]:
    """Return the layers of act (R, C) times weight (C, K), or of weight (K, C) times act (C, R)."""
    act, weight = found.left, found.right
    turn = _same
    if not weight_is_right:
        act, weight, turn = weight, act, _turned
    place = place_of(act)
    if not weight_is_right and isinstance(place, Place):
        place = Place(1 - place.axis, place.outer, place.inner) if place.axis < 2 else MIXED
    columns = split_projections(name, weight.shape[1] if weight_is_right else weight.shape[0])
    to_weight = _turned if weight_is_right else _same
    return [_rows_of(rows, each, act, weight, place, turn, to_weight) for each, rows in columns]


def _rows_of(
    rows: slice, name: str, act: Tensor, weight: Tensor, place: Any, turn: View, to_weight: View
) -> Part:
    """Return the layer of some rows of a weight (K, C)."""

    def gradient(dy: Tensor) -> Tensor:
        return turn(dy)[:, rows]

    def own_rows(values: Tensor) -> Tensor:
        return to_weight(values)[rows]

    own = own_rows(weight)
    return Part(linear(name, *own.shape), turn(act), own, place, gradient, turn, own_rows)


def _turned(tensor: Tensor) -> Tensor:
    return tensor.mT


def _batched(found: Factors, weight_is_right: bool, name: str, place_of: Place_of) -> list[Part]:
    """Return the layer of B products of matrices: one weight for all, or one for each (groups)."""
    act, weight = found.left, found.right
    turn, to_weight = _same, _turned
    if not weight_is_right:
        act, weight, turn, to_weight = weight, act, _turned, _same
    if weight.stride(0) == 0 or len(weight) == 1:
        return [_shared(turn, to_weight, act, weight, name, place_of(act), weight_is_right)]
    B, R, C = turn(act).shape
    own = to_weight(weight)
    K = own.shape[1]
    layer = Layer(name=name, C=B * C, K=B * K, H=R, groups=B)

    def image(values: Tensor) -> Tensor:  # (B, R, C) -> (1, B * C, R, 1)
        return turn(values).mT.reshape(1, -1, R, 1)

    def filters(values: Tensor) -> Tensor:
        return to_weight(values).reshape(B * K, C, 1, 1)

    return [Part(layer, image(act), filters(weight), MIXED, image, image, filters)]


def _shared(
    turn: View, to_weight: View, act: Tensor, weight: Tensor, name: str, place: Any, right: bool
) -> Part:
    def flat(values: Tensor) -> Tensor:
        return turn(values).flatten(0, 1)

    def one(values: Tensor) -> Tensor:
        return to_weight(values)[0]

    own = one(weight)
    rows = turn(act).shape[1]
    return Part(
        linear(name, *own.shape),
        flat(act),
        own,
        _flat(place, len(act), rows, right),
        flat,
        flat,
        one,
    )


def _flat(place: Any, batches: int, rows: int, right: bool) -> Any:
    """Return where samples are in (B, R) taken as one axis."""
    if not isinstance(place, Place):
        return MIXED if place is MIXED or batches != 1 else place
    if place.axis == 0:
        return Place(0, place.outer, place.inner * rows)
    if place.axis == (1 if right else 2):
        return Place(0, batches * place.outer, place.inner)
    return MIXED


def _ragged(found: Factors, name: str) -> list[Part]:
    """Return a layer for each weight of several, each with rows of its own: (R, C) x (E, C, K)."""
    ends = [int(end) for end in found.rest[0].tolist()]
    rows = [slice(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True)]
    if found.left.dim() == 3:  # weights (E, K, C) on the left of (C, R)
        made = [_expert(found, f"{name}[{e}]", e, each, left=True) for e, each in enumerate(rows)]
    else:
        made = [_expert(found, f"{name}[{e}]", e, each) for e, each in enumerate(rows)]
    return [part for part in made if len(part.act)]


def _expert(found: Factors, name: str, e: int, rows: slice, left: bool = False) -> Part:
    turn, to_weight = (_turned, _same) if left else (_same, _turned)
    act, weight = (found.right, found.left) if left else (found.left, found.right)

    def own_rows(values: Tensor) -> Tensor:
        return turn(values)[rows]

    def own_weight(values: Tensor) -> Tensor:
        return to_weight(values)[e]

    own = own_weight(weight)
    layer = linear(name, *own.shape)
    return Part(layer, own_rows(act), own, MIXED, own_rows, own_rows, own_weight)
