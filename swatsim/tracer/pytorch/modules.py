"""PyTorch's modules as layers, and their tensors in the shapes of a trace.

Speaks convolution letters; T is a number of positions (tokens) that a linear layer is applied to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from swatsim.errors import RecordingError
from swatsim.workload.layer import Layer, Operand

Convolutional: TypeAlias = (
    nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
)
Plain: TypeAlias = Convolutional | nn.Linear

_FORWARD = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def is_plain(module: nn.Module) -> bool:
    """Whether a module computes what one of torch's own that can be recorded does."""
    for kind in (*_FORWARD, *_TRANSPOSED, nn.Linear):
        if isinstance(module, kind):
            inner = "_conv_forward" if kind in _FORWARD else "forward"
            same = getattr(type(module), inner) is getattr(kind, inner)
            return same and type(module).forward is kind.forward
    return False


@dataclass(frozen=True)
class Geometry:
    """A convolution of one to three dimensions, as torch's modules and functions have it.

    Parameters
    ----------
    C, K : int
    kernel, stride, dilation : tuple of int
    padding : tuple of pairs of int
        Zeros before and after, along each axis.
    groups : int
    output_padding : tuple of int, optional
        Of a transposed convolution.
    """

    C: int
    K: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[int, ...] | None = None

    @classmethod
    def of(cls, module: Any) -> Geometry:
        """Return a module's geometry."""
        extra = tuple(module.output_padding) if isinstance(module, _TRANSPOSED) else None
        kernel, dilation = tuple(module.kernel_size), tuple(module.dilation)
        padding = _both_ends(module.padding, kernel, dilation)
        C, K = module.in_channels, module.out_channels
        return cls(C, K, kernel, tuple(module.stride), padding, dilation, module.groups, extra)

    @classmethod
    def called(
        cls,
        weight: Tensor,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        output_padding: Any = None,
    ) -> Geometry:
        """Return the geometry of a call of a function such as F.conv2d."""
        kernel = tuple(weight.shape[2:])
        dilation = _each(dilation, kernel)
        sides = padding if isinstance(padding, str) else _each(padding, kernel)
        inner, outer = weight.shape[1] * groups, weight.shape[0]
        C, K = (inner, outer) if output_padding is None else (outer, inner)
        extra = None if output_padding is None else _each(output_padding, kernel)
        both = _both_ends(sides, kernel, dilation)
        return cls(C, K, kernel, _each(stride, kernel), both, dilation, groups, extra)

    def layer(self, name: str, size: tuple[int, ...] | None = None) -> Layer:
        """Return the layer for an input of a size; by default the smallest one.

        One of one dimension has H = R = 1; one of three is `Depth`'s of two. Output padding is
        taken off the padding at the end.

        Raises
        ------
        RecordingError
            If there is less padding than that.
        """
        if len(self.kernel) == 3:
            return Depth.of(self).flat(self).layer(name, size and size[1:])
        span = (d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))
        (R, S), (H, W) = _pair(self.kernel, 1), _pair(size or tuple(span), 1)
        sizes = {"C": self.C, "K": self.K, "H": H, "W": W, "R": R, "S": S}
        return _layer(
            name=name,
            kind="conv" if self.output_padding is None else "conv_transpose",
            stride=_pair(self.stride, 1),
            dilation=_pair(self.dilation, 1),
            padding=_pair(self._less(name), (0, 0)),
            groups=self.groups,
            **sizes,
        )

    def _less(self, name: str) -> tuple[tuple[int, int], ...]:
        extra = self.output_padding or (0,) * len(self.kernel)
        sides = zip(self.padding, extra, strict=True)
        less = tuple((first, last - more) for (first, last), more in sides)
        if any(last < 0 for _, last in less):
            raise RecordingError(
                f"layer {name!r}: its output_padding {extra} is more than its padding: rows that "
                f"no weight reaches can't be recorded; leave it alone with skip=({name!r},)"
            )
        return less


@dataclass(frozen=True)
class Depth:
    """The first axis of a convolution of three dimensions, unrolled into one of two.

    The same products: each of the D' output planes (input planes, if transposed) is a sample of
    its own, and the kernel's T planes are channels of the side that it slides over.

    Parameters
    ----------
    kernel, stride, dilation : int
    padding : (int, int)
        Planes of zeros before and after.
    transposed : bool
    """

    kernel: int
    stride: int
    dilation: int
    padding: tuple[int, int]
    transposed: bool

    @classmethod
    def of(cls, geometry: Geometry) -> Depth:
        """Return the depth of a convolution of three dimensions."""
        first, last = geometry.padding[0]
        extra = geometry.output_padding
        sides = (first, last - (extra[0] if extra else 0))
        steps = geometry.kernel[0], geometry.stride[0], geometry.dilation[0]
        return cls(*steps, sides, extra is not None)

    def flat(self, geometry: Geometry) -> Geometry:
        """Return the convolution of two dimensions."""
        extra = geometry.output_padding
        wide = {"K" if self.transposed else "C": self.kernel}
        return replace(
            geometry,
            C=geometry.C * wide.get("C", 1),
            K=geometry.K * wide.get("K", 1),
            kernel=geometry.kernel[1:],
            stride=geometry.stride[1:],
            padding=geometry.padding[1:],
            dilation=geometry.dilation[1:],
            output_padding=extra[1:] if extra else None,
        )

    def planes(self, size: int) -> int:
        """Return D' for an input of a depth."""
        if self.transposed:
            return size
        return (size + sum(self.padding) - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def unroll(self, operand: Operand, mask: Tensor, planes: int) -> Tensor:
        """Return a mask (N, C, D, H, W) as (N, D', C', H, W); a weight as (K, C', R, S)."""
        if operand == "weight":
            return mask.flatten(1, 2)
        if (operand == "act") == self.transposed:
            return mask.movedim(2, 1)
        first, last = self.padding
        padded = functional.pad(mask, (0, 0, 0, 0, max(first, 0), max(last, 0)))
        starts = torch.arange(planes, device=mask.device) * self.stride
        taps = torch.arange(self.kernel, device=mask.device) * self.dilation
        rows = padded[:, :, starts[:, None] + taps]
        return rows.movedim(2, 1).flatten(2, 3)


def policy_layer(name: str, geometry: Geometry, size: tuple[int, ...]) -> tuple[Layer, str | None]:
    """Return a convolution's layer as a policy knows it, and why a trace can't hold it, if so.

    Of three axes of space the first two are as one: single weights, kernels, filters and channels
    are what they were.
    """
    if len(geometry.kernel) == 3:
        kernel = (geometry.kernel[0] * geometry.kernel[1], geometry.kernel[2])
        wide = (max(size[0] * size[1], kernel[0]), max(size[2], kernel[1]))
        return _unpadded(name, geometry, kernel, wide), None
    try:
        return geometry.layer(name, size), None
    except RecordingError as error:
        return _unpadded(name, geometry, geometry.kernel, geometry.kernel), str(error)


def _unpadded(
    name: str, geometry: Geometry, kernel: tuple[int, ...], size: tuple[int, ...]
) -> Layer:
    none = ((0, 0),) * len(kernel)
    ones = (1,) * len(kernel)
    extra = None if geometry.output_padding is None else (0,) * len(kernel)
    plain = replace(
        geometry, kernel=kernel, stride=ones, padding=none, dilation=ones, output_padding=extra
    )
    return plain.layer(name, size)


def describe(name: str, module: Plain, x: Tensor) -> Layer:
    """Return a module's layer for an input.

    A linear layer's is without the positions that it is applied to: see `Layout`.

    Raises
    ------
    RecordingError
        If the input of a convolution has no batch, or more output padding than padding.
    """
    if isinstance(module, nn.Linear):
        return linear(name, *module.weight.shape)
    size = size_of(name, x, len(module.kernel_size))
    return Geometry.of(module).layer(name, size)


def size_of(name: str, x: Tensor, axes: int) -> tuple[int, ...]:
    """Return H and W of a convolution's input.

    Raises
    ------
    RecordingError
        If it has no batch.
    """
    if x.dim() != axes + 2:
        letters = {1: "(N, C, L)", 2: "(N, C, H, W)", 3: "(N, C, D, H, W)"}[axes]
        raise RecordingError(
            f"layer {name!r}: its input is {tuple(x.shape)}, only {letters} is a layer's: "
            "give it a batch"
        )
    return tuple(x.shape[2:])


def linear(name: str, K: int, C: int, positions: int = 1) -> Layer:
    """Return the layer of a matrix of weights that is applied to some positions of each sample."""
    if positions > 1:
        return _layer(name=name, C=C, K=K, H=positions)
    return _layer(name=name, kind="linear", C=C, K=K)


@lru_cache(maxsize=10_000)
def _layer(**fields: Any) -> Layer:
    """Return a layer, made once: it is asked for in every step, and takes a while to check."""
    return Layer(**fields)


def _each(value: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Return one number for each axis; a single one is repeated."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * len(kernel) if len(values) == 1 else values


def _pair(values: tuple[Any, ...], missing: Any) -> Any:
    """Return values for H and W; a convolution of one dimension gets `missing` for H."""
    return values if len(values) == 2 else (missing, *values)


def _both_ends(
    padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Return the zeros around the input; 'same' puts an odd one at the end, as torch does."""
    if padding == "same":
        spans = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return tuple((span // 2, span - span // 2) for span in spans)
    if isinstance(padding, str):
        return ((0, 0),) * len(kernel)
    return tuple((side, side) for side in padding)
