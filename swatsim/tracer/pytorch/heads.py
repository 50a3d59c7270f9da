"""How the tensors of a product of two activations lie in a trace: left, right, and what it gives.

B products of matrices at once, left (B, R, C) times right (B, C, K), of samples and their heads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor

from swatsim.tracer.pytorch.factors import Factors, Part, View
from swatsim.tracer.pytorch.layout import Layout, among_rows
from swatsim.tracer.pytorch.places.place import join
from swatsim.tracer.pytorch.samples import MIXED, Place
from swatsim.workload.layer import Layer, Operand


@dataclass(frozen=True)
class Heads(Layout):
    """A layout whose heads and samples lie along one axis.

    Of `nonzero` act is left (B, R, C), weight the transpose of right (B, K, C), grad_out the
    gradient of what the product gives (B, R, K).
    """

    @classmethod
    def laid(cls, layer: Layer, products: int, place: Any) -> Heads:
        """Return the layout of so many products.

        Parameters
        ----------
        layer : Layer
            As `matmul` returns it.
        products : int
            B, of all samples.
        place : Place or MIXED
            Where the samples are among them.
        """
        found = place if isinstance(place, Place) else None
        batch = products // layer.groups
        return cls(layer, batch, 0 if found is None else 1, True, found or Place(0, 1, products))

    def nonzero(self, operand: Operand, values: Tensor, kept: int) -> Tensor:
        """Return a mask of the non-zeros of an operand, of the first `kept` of N."""
        place = self.place
        if self.each:
            apart = values.unflatten(0, (place.outer, -1, place.inner)).movedim(1, 0)
        else:
            apart = values[None, None]
        mask = apart[:kept].bool().flatten(1, 2)  # N, heads, rows, columns
        if operand != "weight":
            mask = mask.mT
        laid: Tensor = mask.reshape(self.layer.shape_of(operand, len(mask)))
        return laid


def matmul(name: str, place: Any, *sizes: int) -> Layer:
    """Return the layer of products of activations.

    Parameters
    ----------
    name : str
    place : Place or MIXED
        Where the samples are among the products; MIXED: all are heads of one sample.
    *sizes : int
        B, R, C, K.

    Raises
    ------
    WorkloadError
        If such a layer can't be recorded, for its size.
    """
    B, R, C, K = sizes
    heads = place.outer * place.inner if isinstance(place, Place) else B
    return Layer(name=name, kind="matmul", C=heads * C, K=heads * K, H=R, groups=heads)


def among_products(states: Iterable[Any], lead: tuple[int, ...]) -> Any:
    """Return where samples are among products that `lead` axes make, taken as one; else MIXED.

    Parameters
    ----------
    states : iterable of Place, MIXED or None
        Where they are in the factors.
    lead : tuple of int
    """
    return among_rows(join(states), lead) or MIXED


def pairs(found: Factors, name: str, place_of: Any) -> list[Part]:
    """Return the layers of a product of two activations: of nested tensors one for each part.

    Raises
    ------
    WorkloadError
        If one can't be recorded, for its size.
    """
    if not found.left.is_nested:
        return [_pair(found, name, place_of)]
    both = enumerate(zip(found.left.unbind(), found.right.unbind(), strict=True))
    made = [(i, replace(found, left=left, right=right)) for i, (left, right) in both]
    return [
        _part_of(i, _pair(each, name, lambda _: MIXED))
        for i, each in made
        if each.left.numel() and each.right.numel()
    ]


def _part_of(i: int, part: Part) -> Part:
    def view(own: View) -> View:
        return lambda values: own(values.unbind()[i])

    grads, acts, weights = map(view, (part.grads, part.acts, part.weights))
    return replace(part, grads=grads, acts=acts, weights=weights)


def _pair(found: Factors, name: str, place_of: Any) -> Part:
    """Return the layer of a product of two activations.

    Matrices are one product. Of a sum over products (`addbmm`) each matrix lies behind the one
    before, along what is summed.
    """
    sums = found.sums
    batched = found.right.dim() == 3 and not sums

    def left(values: Tensor) -> Tensor:
        return values if batched else _one(values.movedim(0, 1).flatten(1) if sums else values)

    def right(values: Tensor) -> Tensor:
        return (values if batched else _one(values)).mT

    def gradient(dy: Tensor) -> Tensor:
        return dy if batched else _one(dy)

    act, weight = left(found.left), right(found.right)
    states = map(place_of, found.given if batched else ())
    place = among_products(states, (len(act),))
    layer = matmul(name, place, *act.shape, weight.shape[1])
    return Part(layer, act, weight, place, gradient, left, right)


def _one(values: Tensor) -> Tensor:
    """Return values (.., X) as one matrix."""
    return values.reshape(1, prod(values.shape[:-1]), values.shape[-1])
