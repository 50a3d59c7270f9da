"""How the tensors of one run of a layer lie in a trace: which rows are samples.

Speaks convolution letters; T is a number of positions (tokens) that a linear layer is applied to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from torch import Tensor

from swatsim.tracer.pytorch.modules import Depth, linear
from swatsim.tracer.pytorch.samples import MIXED, Place
from swatsim.workload.layer import Layer, Operand


@dataclass(frozen=True)
class Layout:
    """How the tensors of one run of a layer lie in a trace.

    A linear layer that is applied to T positions of each sample is recorded as a convolution with
    a kernel of 1 x 1 and an input of T x 1: the same products, and the samples stay apart. Rows
    that can't be told apart by samples are positions of one sample.

    Parameters
    ----------
    layer : Layer
        As recorded.
    batch : int
        N of the layer, in the whole batch.
    each : int
        How many of N belong to one sample of the batch, one after the other; 0 if that is not
        known: then all are kept.
    rows : bool
        Whether tensors are a linear layer's, with C or K last.
    place : Place
        Where the samples are among the rows; the axis is 0, rows are one axis.
    depth : Depth, optional
        Of a convolution of three dimensions.
    """

    layer: Layer
    batch: int
    each: int = 0
    rows: bool = False
    place: Place = field(default_factory=lambda: Place(0))
    depth: Depth | None = None

    @classmethod
    def of(
        cls,
        layer: Layer,
        x: Tensor,
        place: Any,
        batch: int | None,
        axis: int = 0,
        depth: Depth | None = None,
    ) -> Layout:
        """Return the layout for an input.

        Parameters
        ----------
        layer : Layer
            As `describe` returns it, without the positions that a linear layer is applied to.
        x : torch.Tensor
            Its input: (.., C) of a linear layer, else (N, C, ..).
        place : Place, MIXED or None
            Where the samples are in it; None if nobody knows: then its first axis (`axis`, if it
            has three or more) holds them if it has as many entries as the batch.
        batch : int, optional
            Samples of the batch, if known.
        axis : int
        depth : Depth, optional
        """
        flat = layer.kind == "linear"
        lead = tuple(x.shape[:-1]) if flat else tuple(x.shape[:1])
        found = among_rows(place, lead) or _assumed(place, lead, batch, axis)
        if flat:
            return cls._linear(layer, prod(lead), found)
        planes = 1 if depth is None else depth.planes(x.shape[2])
        each = 0 if found is None else found.outer * found.inner * planes
        return cls(layer, len(x) * planes, each, False, found or Place(0), depth)

    @classmethod
    def _linear(cls, layer: Layer, rows: int, found: Place | None) -> Layout:
        positions = rows if found is None else found.outer * found.inner
        batch = 1 if found is None else rows // positions
        shape = linear(layer.name, layer.K, layer.C, positions)
        return cls(shape, batch, 0 if found is None else 1, True, found or Place(0, 1, rows))

    def called(self, layer: Layer) -> Layout:
        """Return the layout of the same layer by another name."""
        return replace(self, layer=layer)

    def kept(self, samples: int) -> int:
        """Return how many of N are recorded, where so many samples of the batch are."""
        return min(self.batch, samples * self.each) if self.each else self.batch

    def nonzero(self, operand: Operand, values: Tensor, kept: int) -> Tensor:
        """Return a mask of the non-zeros of an operand, of the first `kept` of N.

        Returns
        -------
        torch.Tensor of bool
            In the shape of `Layer.shape_of`; memory of its own.
        """
        # `bool` takes a tenth of the time of `!= 0`, and is the same, NaN included; it comes before
        # anything that copies, for a bool is a quarter of a value
        if operand == "weight":
            mask = values.bool()
            mask = mask if self.depth is None else self.depth.unroll(operand, mask, 0)
            return mask.reshape(self.layer.shape_of("weight", 1))
        if self.rows:
            return self._rows(values, kept)
        return self._images(operand, values, kept)

    def _rows(self, values: Tensor, kept: int) -> Tensor:
        apart = self._apart(values.reshape(-1, values.shape[-1]))
        mask = apart[:kept].bool().reshape(kept, -1, values.shape[-1])
        laid: Tensor = mask[:, 0] if self.layer.kind == "linear" else mask.mT.unsqueeze(-1)
        return laid

    def _images(self, operand: Operand, values: Tensor, kept: int) -> Tensor:
        planes = 1 if self.depth is None else self.batch // len(values)
        apart = self._apart(values)
        each = max(self.each // planes, 1)
        mask = apart.flatten(0, 1)[: -(-kept // planes)] if each > 1 else apart[:kept]
        mask = mask.reshape(-1, *values.shape[1:]).bool()
        if self.depth is not None:
            mask = self.depth.unroll(operand, mask, planes).flatten(0, 1)
        return mask[:kept] if mask.dim() == 4 else mask[:kept].unsqueeze(2)

    def _apart(self, values: Tensor) -> Tensor:
        """Return values with the samples first, and the rest of their axis, if any, behind them."""
        outer, inner = self.place.outer, self.place.inner
        if outer * inner == 1:
            return values
        apart: Tensor = values.unflatten(0, (outer, -1, inner)).movedim(1, 0).flatten(1, 2)
        return apart


def among_rows(place: Any, lead: tuple[int, ...]) -> Place | None:
    """Return where samples are among rows that `lead` axes make, taken as one axis."""
    if not isinstance(place, Place) or place.axis >= len(lead):
        return None
    before, behind = prod(lead[: place.axis]), prod(lead[place.axis + 1 :])
    return Place(0, before * place.outer, place.inner * behind)


def _assumed(place: Any, lead: tuple[int, ...], batch: int | None, axis: int) -> Place | None:
    """Return where samples are in a tensor that nobody followed, if its sizes allow them there."""
    axis = axis if len(lead) > 1 else 0
    if place is MIXED or isinstance(place, Place) or not lead or lead[axis] != batch:
        return None
    return among_rows(Place(axis), lead)
