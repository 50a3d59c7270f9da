"""What a sparse layer computes: its three ops, on whatever operands they are given.

Speaks convolution letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from swatsim.tracer.pytorch.modules import Geometry, Plain


@dataclass(frozen=True)
class Convolution:
    """The three ops of a convolution of one or two dimensions, transposed or not.

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
    def of(cls, module: Any, output_padding: tuple[int, ...] | None) -> Convolution:
        """Return a module's convolution, its padding split into both ends."""
        geometry = Geometry.of(module, output_padding)
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

    def dgrad(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the input gradient; of x only the shape is read."""
        dx = self._backward(dy, x, weight, (True, False, False))[0]
        return functional.pad(dx, [-side for side in self.extra]) if any(self.extra) else dx

    def wgrad(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the weight gradient; of the weight only the shape is read."""
        dw: Tensor = self._backward(dy, x, weight, (False, True, False))[1]
        return dw

    def bias_gradient(self, dy: Tensor) -> Tensor:
        """Return the gradient of the bias."""
        return dy.sum([axis for axis in range(dy.dim()) if axis != 1])

    @property
    def _geometry(self) -> tuple[Any, ...]:
        same = (self.stride, self.padding, self.dilation)
        return (*same, self.transposed, self.output_padding, self.groups)

    def _pad(self, x: Tensor) -> Tensor:
        return functional.pad(x, self.extra) if any(self.extra) else x

    def _backward(self, dy: Tensor, x: Tensor, w: Tensor, which: tuple[bool, bool, bool]) -> Any:
        return torch.ops.aten.convolution_backward(
            dy, self._pad(x), w, None, *self._geometry, which
        )


class Linear:
    """The three ops of a linear layer, applied to rows: all axes but the last."""

    def fprop(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output."""
        y: Tensor = torch.ops.aten.linear(x, weight, bias)
        return y

    def dgrad(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of the input."""
        return dy @ weight

    def wgrad(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of the weight."""
        return rows(dy).T @ rows(x)

    def bias_gradient(self, dy: Tensor) -> Tensor:
        """Return the gradient of the bias."""
        return rows(dy).sum(0)


Arithmetic: TypeAlias = Convolution | Linear


def arithmetic_of(module: Plain, output_padding: tuple[int, ...] | None = None) -> Arithmetic:
    """Return a module's arithmetic.

    Parameters
    ----------
    module : torch.nn.Module
    output_padding : tuple of int, optional
        Of a transposed convolution that is told its output's size.
    """
    if isinstance(module, nn.Linear):
        return Linear()
    return Convolution.of(module, output_padding)


def rows(values: Tensor) -> Tensor:
    """Return a view as a matrix, all axes but the last in one."""
    return values.reshape(-1, values.shape[-1])


def autocast(*tensors: Tensor | None) -> list[Any]:
    """Return tensors cast as torch's own convolutions do under autocast: all but float64."""
    device = tensors[0].device.type if tensors[0] is not None else "cpu"
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [x.to(dtype) if x is not None and _is_cast(x) else x for x in tensors]


def _is_cast(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.double
