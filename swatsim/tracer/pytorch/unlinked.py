"""Products in a function of the user's own, whose backward pass is written out by hand.

torch.autograd.Function runs its forward without a graph: which product of its backward belongs to
which of its forward shows in what they read, and in their shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from swatsim.tracer.pytorch.factors import Factors, factors
from swatsim.tracer.pytorch.gradients import Product
from swatsim.tracer.pytorch.origins import Origins
from swatsim.workload.layer import OpName

aten = torch.ops.aten


@dataclass
class _Open:
    """A product of a forward pass whose gradients have not come yet."""

    product: Product
    left: tuple[int, ...]
    right: tuple[int, ...]
    ran: set[str] = field(default_factory=set)

    def fits(self, reading: _Reading, with_weight: bool) -> bool:
        """Whether a product of a backward pass that can be a gradient of this one is."""
        product = self.product
        if reading.side in self.ran:
            return False
        if product.factors is None:
            weight_side = "right" if product.weight_is_right else "left"
            return (reading.side == weight_side) == with_weight
        own = product.factors[reading.side == "right"]
        same = own == StorageWeakRef(reading.factor.untyped_storage())
        return same and not with_weight and not own.expired()


@dataclass(frozen=True)
class _Reading:
    """A product of a backward pass, read as the gradient of one factor of another product.

    Parameters
    ----------
    gradient : torch.Tensor
        Of that product's output.
    factor : torch.Tensor
        The factor that is read.
    side : {"left", "right"}
        Which that is.
    """

    gradient: Tensor
    factor: Tensor
    side: str


class Unlinked:
    """The products of a step that are in no graph."""

    def __init__(self) -> None:
        self._open: list[_Open] = []

    def add(self, product: Product) -> None:
        """Add one of a forward pass."""
        self._open.append(_Open(product, *product.shapes))

    def match(self, func: Any, arguments: Any, named: Any, origins: Origins) -> Product | None:
        """Record a product of a backward pass as the gradient that it is; None if that is unknown.

        The last one that fits is taken: gradients come in reverse. Of two activations it must read
        one of them, from where it lay: shapes say too little.
        """
        if func._overloadpacket is aten.convolution_backward:
            return self._convolution(*arguments)
        if func._overloadpacket is aten.matmul_backward:
            return self._matmul(*arguments)
        found = factors(func, arguments, named)
        if found is None or found.convolution:
            return None
        reads = [origins.weight(each, "") for each in found.given]
        with_weight = any(origin is not None and origin.name for origin in reads)
        for each in reversed(self._open):
            for reading in _readings(each, found):
                if each.fits(reading, with_weight):
                    return self._take(each, reading)
        return None

    def _take(self, each: _Open, reading: _Reading) -> Product:
        weight_side = "right" if each.product.weight_is_right else "left"
        op: OpName = "dgrad" if reading.side == weight_side else "wgrad"
        each.ran.add(reading.side)
        each.product.reads(reading.side, reading.factor)
        each.product.gradient(reading.gradient, {op: True})
        return each.product

    def _matmul(self, dy: Tensor, left: Tensor, right: Tensor, runs: list[bool]) -> Product | None:
        """Of nested tensors."""
        own = tuple(StorageWeakRef(each.untyped_storage()) for each in (left, right))
        for each in reversed(self._open):
            if each.product.factors == own:
                self._open.remove(each)
                each.product.gradient(dy, {"dgrad": runs[0], "wgrad": runs[1]})
                return each.product
        return None

    def _convolution(self, dy: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> Product | None:
        runs = rest[-1]
        for each in reversed(self._open):
            if (each.left, each.right) == (tuple(x.shape), tuple(weight.shape)):
                self._open.remove(each)
                each.product.reads("left", x)
                each.product.reads("right", weight)
                each.product.gradient(dy, {"dgrad": runs[0], "wgrad": runs[1]})
                return each.product
        return None


def _readings(each: _Open, found: Factors) -> Iterator[_Reading]:
    """Yield how a product may be a gradient of another, by shapes: dL = dy R', dR = L' dy."""
    left, right = found.left, found.right
    if left.dim() == 3 and len(each.left) == 2:  # of a batch, which is summed afterwards
        left, right = left.mT.flatten(0, 1).mT, right.flatten(0, 1)
    if left.dim() != len(each.left) or right.dim() != len(each.right):
        return
    (a, b), c = each.left[-2:], each.right[-1]
    sizes = (*left.shape[-2:], right.shape[-1])
    if sizes == (a, c, b):
        yield _Reading(left, right.mT, "right")
    if sizes == (b, c, a):
        yield _Reading(right.mT, left, "right")
    if sizes == (b, a, c):
        yield _Reading(right, left.mT, "left")
    if sizes == (c, a, b):
        yield _Reading(left.mT, right, "left")
