"""What a sparse layer computes: its three ops, and which values it keeps.

Speaks convolution letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from swatsim.policies.topk import exact, keep_count, topk_mask
from swatsim.tracer.session import Density
from swatsim.workload.layer import Layer

#: Types for which `topk_mask` is used on the CPU: for 1.6 million float32 behind a ReLU it takes
#: 13 ms on one thread, the same by torch.topk 47 ms, by torch.kthvalue 26 ms.
NUMPY_TYPES = (torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Convolution:
    """The three ops of a convolution, on whatever operands they are given.

    A padding that differs between the two ends is split: `extra`, in the order of
    `functional.pad`, is added to the input, and `padding` is the rest, the same at both ends.
    """

    stride: tuple[int, int]
    padding: tuple[int, ...]
    extra: tuple[int, ...]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, layer: Layer) -> Convolution:
        """Split the padding of a layer."""
        both = tuple(min(side) for side in layer.padding)
        (top, bottom), (left, right) = layer.padding
        extra = (left - both[1], right - both[1], top - both[0], bottom - both[0])
        return cls(layer.stride, both, extra, layer.dilation, layer.groups)

    def fprop(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the output."""
        return functional.conv2d(
            self._pad(x), weight, bias, self.stride, self.padding, self.dilation, self.groups
        )

    def dgrad(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Of x only the shape is read."""
        dx = self._backward(dy, x, weight, (True, False, False))[0]
        return functional.pad(dx, [-side for side in self.extra]) if any(self.extra) else dx

    def wgrad(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Of the weight only the shape is read."""
        return self._backward(dy, x, weight, (False, True, False))[1]

    def _pad(self, x: Tensor) -> Tensor:
        return functional.pad(x, self.extra) if any(self.extra) else x

    def _backward(self, dy: Tensor, x: Tensor, w: Tensor, which: tuple[bool, bool, bool]) -> Any:
        geometry = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)
        return torch.ops.aten.convolution_backward(dy, self._pad(x), w, None, *geometry, which)


class Linear:
    """The three ops of a linear layer."""

    def fprop(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Compute the output."""
        return functional.linear(x, weight, bias)

    def dgrad(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Compute the gradient of the input."""
        return dy @ weight

    def wgrad(self, dy: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """Compute the gradient of the weight."""
        return dy.T @ x


Arithmetic: TypeAlias = Convolution | Linear


def arithmetic_of(layer: Layer) -> Arithmetic:
    """Tell how a layer computes."""
    return Linear() if layer.kind == "linear" else Convolution.of(layer)


def autocast(*tensors: Tensor | None) -> list[Any]:
    """Cast as torch's own convolutions do under autocast."""
    device = tensors[0].device.type if tensors[0] is not None else "cpu"
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def keep(values: Tensor, density: Density) -> Tensor:
    """Zero all but the largest values; None keeps all."""
    if density is None:
        return values
    k = keep_count(values.numel(), 1 - exact(density))
    return values if k >= values.numel() else torch.where(largest(values, k), values, 0)


def largest(values: Tensor, k: int) -> Tensor:
    """Mark the k values of largest magnitude, 0 < k < size: the same bits as `topk_mask`."""
    if values.device.type == "cpu" and values.dtype in NUMPY_TYPES:
        return torch.from_numpy(topk_mask(values.numpy(force=True), k))
    magnitudes = values.detach().abs().flatten()
    threshold = magnitudes.topk(k).values[-1]
    if threshold.isnan():
        kept, ties = torch.zeros_like(magnitudes, dtype=torch.bool), magnitudes.isnan()
    else:
        kept, ties = ~(magnitudes <= threshold), magnitudes == threshold
    if threshold != 0:
        kept |= ties & (ties.cumsum(0) <= k - kept.sum())
    return kept.reshape(values.shape)
