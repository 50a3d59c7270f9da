"""What a sparse layer computes: its three ops, on whatever operands they are given.

Speaks convolution letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from swatsim.tracer.pytorch.modules import Geometry

#: Of input, weight and bias: which gradients are computed, and what they are.
Needed: TypeAlias = tuple[bool, bool, bool]
Gradients: TypeAlias = list[Tensor | None]


@dataclass(frozen=True)
class Convolution:
    """The three ops of a convolution of one to three dimensions, transposed or not.

    A padding that differs between the two ends is split: `extra`, in the order of
    `functional.pad`, is added to the input, and `padding` is the rest, the same at both ends.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    extra: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, geometry: Geometry) -> Convolution:
        """Return a geometry's convolution, its padding split into both ends."""
        sides = geometry.padding
        both = tuple(min(side) for side in sides)
        extra = [
            end - side for ends, side in zip(sides[::-1], both[::-1], strict=True) for end in ends
        ]
        none = (0,) * len(both)
        more, transposed = geometry.output_padding or none, geometry.output_padding is not None
        steps = (geometry.stride, both, tuple(extra), geometry.dilation)
        return cls(*steps, transposed, more, geometry.groups)

    def fprop(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output."""
        return torch.convolution(self._pad(x), weight, bias, *self._geometry)

    def gradients(
        self, dys: Sequence[Tensor], dy: Tensor, x: Tensor, weight: Tensor, needs: Needed
    ) -> Gradients:
        """Return the gradients of input, weight and bias.

        Parameters
        ----------
        dys : two of torch.Tensor
            What dgrad and wgrad read of the output's gradient; the same object if it is the same.
        dy : torch.Tensor
            The output's gradient.
        x, weight : torch.Tensor
            What wgrad reads of the input, and dgrad of the weight; else only shapes are read.
        needs : tuple of bool
        """
        dx, dw, db = needs
        if dys[0] is dys[1] or not (dx and dw):
            read = dys[0] if dx else dys[1]
            found = self._backward(read, x, weight, (dx, dw, db and read is dy))
        else:
            first = self._backward(dys[0], x, weight, (True, False, False))
            found = [first[0], *self._backward(dys[1], x, weight, (False, True, db))[1:]]
            found[2] = None
        if db and found[2] is None:
            found[2] = dy.sum([axis for axis in range(dy.dim()) if axis != 1])
        return found

    @cached_property
    def _geometry(self) -> tuple[Any, ...]:
        same = (self.stride, self.padding, self.dilation)
        return (*same, self.transposed, self.output_padding, self.groups)

    def _pad(self, x: Tensor) -> Tensor:
        return functional.pad(x, self.extra) if any(self.extra) else x

    def _backward(self, dy: Tensor, x: Tensor, w: Tensor, which: Needed) -> Gradients:
        if not any(which):
            return [None, None, None]
        sizes = [dy.shape[1]] if which[2] else None
        found: Gradients = list(
            torch.ops.aten.convolution_backward(dy, self._pad(x), w, sizes, *self._geometry, which)
        )
        if found[0] is not None and any(self.extra):
            found[0] = functional.pad(found[0], [-side for side in self.extra])
        return found

    def planes(self, values: Tensor) -> Tensor:
        """Return values as a policy is shown them: of three axes of space the first two as one."""
        return values.flatten(2, 3) if values.dim() == 5 else values


class Linear:
    """The three ops of a linear layer, applied to rows: all axes but the last."""

    def fprop(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output, which is no view: whoever gets it may change it in place."""
        y: Tensor = torch.ops.aten.linear(x, weight, bias)
        return torch.ops.aten._unsafe_view(y, y.shape) if y._is_view() else y

    def gradients(
        self, dys: Sequence[Tensor], dy: Tensor, x: Tensor, weight: Tensor, needs: Needed
    ) -> Gradients:
        """Return the gradients of input, weight and bias; parameters as of `Convolution`."""
        dx = dys[0] @ weight if needs[0] else None
        dw = rows(dys[1]).T @ rows(x) if needs[1] else None
        return [dx, dw, rows(dy).sum(0) if needs[2] else None]

    def planes(self, values: Tensor) -> Tensor:
        """Return values as a policy is shown them: rows."""
        return rows(values)


Arithmetic: TypeAlias = Convolution | Linear
LINEAR = Linear()


def rows(values: Tensor) -> Tensor:
    """Return a view as a matrix, all axes but the last in one."""
    if values.dim() == 2:
        return values
    return values.reshape(prod(values.shape[:-1]), values.shape[-1])


def autocast(*tensors: Tensor | None) -> list[Any]:
    """Return tensors cast as torch's own convolutions do under autocast: all but float64."""
    device = tensors[0].device.type if tensors[0] is not None else "cpu"
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [x.to(dtype) if x is not None and _is_cast(x) else x for x in tensors]


def _is_cast(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.double
