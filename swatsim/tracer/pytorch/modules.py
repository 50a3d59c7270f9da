"""PyTorch's modules as layers, and their tensors in the shapes of a trace.

Speaks convolution letters; T is a number of positions (tokens) that a linear layer is applied to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

from torch import Tensor, nn

from swatsim.errors import RecordingError
from swatsim.workload.layer import Layer, Operand

Convolutional: TypeAlias = nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d | nn.ConvTranspose2d
Plain: TypeAlias = Convolutional | nn.Linear

_FORWARD = (nn.Conv1d, nn.Conv2d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)


def is_plain(module: nn.Module) -> bool:
    """Whether a module computes what one of torch's own that can be recorded does."""
    for kind in (*_FORWARD, *_TRANSPOSED, nn.Linear):
        if isinstance(module, kind):
            inner = "_conv_forward" if kind in _FORWARD else "forward"
            same = getattr(type(module), inner) is getattr(kind, inner)
            return same and type(module).forward is kind.forward
    return False


def describe(
    name: str, module: Plain, x: Tensor, output_padding: tuple[int, ...] | None = None
) -> Layer:
    """Tell the layer that a module is for an input.

    A one-dimensional convolution is one with H = R = 1. A linear layer is told without the
    positions that it is applied to: see `Layout`.

    Raises
    ------
    RecordingError
        If the input of a convolution has no batch, or the output padding can't be told by less
        padding.
    """
    if isinstance(module, nn.Linear):
        return linear(name, *module.weight.shape)
    axes = len(module.kernel_size)
    if x.dim() != axes + 2:
        letters = "(N, C, H, W)" if axes == 2 else "(N, C, L)"
        raise RecordingError(
            f"layer {name!r}: its input is {tuple(x.shape)}, only {letters} can be run sparsely;"
            " give it a batch"
        )
    return _convolution(name, module, tuple(x.shape[2:]), output_padding)


def weight_layer(name: str, module: Plain) -> Layer:
    """Tell the layer that a module is for the smallest input, which its weight knows."""
    if isinstance(module, nn.Linear):
        return linear(name, *module.weight.shape)
    size = tuple(d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True))
    return _convolution(name, module, size, None)


def linear(name: str, K: int, C: int) -> Layer:
    """Tell the layer of a matrix of weights."""
    return Layer(name=name, kind="linear", C=C, K=K)


def _convolution(
    name: str, module: Convolutional, size: tuple[int, ...], output_padding: tuple[int, ...] | None
) -> Layer:
    transposed = isinstance(module, _TRANSPOSED)
    R, S = _pair(tuple(module.kernel_size), 1)
    H, W = _pair(size, 1)
    padding = padding_of(module)
    if transposed:
        extra = module.output_padding if output_padding is None else output_padding
        padding = _less(name, padding, tuple(extra))
    return Layer(
        name=name,
        kind="conv_transpose" if transposed else "conv",
        **{"C": module.in_channels, "K": module.out_channels, "H": H, "W": W, "R": R, "S": S},
        stride=_pair(tuple(module.stride), 1),
        dilation=_pair(tuple(module.dilation), 1),
        padding=_pair(padding, (0, 0)),
        groups=module.groups,
    )


def _pair(values: tuple[Any, ...], missing: Any) -> Any:
    """Put H's value before the only one of a one-dimensional module."""
    return values if len(values) == 2 else (missing, *values)


def padding_of(module: Convolutional) -> tuple[tuple[int, int], ...]:
    """Tell the zeros around the input; 'same' puts an odd one at the end, as torch does."""
    if module.padding == "same":
        spans = (d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True))
        return tuple((span // 2, span - span // 2) for span in spans)
    if isinstance(module.padding, str):
        return ((0, 0),) * len(module.kernel_size)
    return tuple((side, side) for side in module.padding)


def _less(
    name: str, padding: tuple[tuple[int, int], ...], extra: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Tell output padding of a transposed convolution by less padding at the end."""
    less = tuple((first, last - more) for (first, last), more in zip(padding, extra, strict=True))
    if any(last < 0 for _, last in less):
        raise RecordingError(
            f"layer {name!r}: its output_padding {extra} is more than its padding: rows that no "
            f"weight reaches can't be recorded; leave it alone with skip=({name!r},)"
        )
    return less


@dataclass(frozen=True)
class Layout:
    """How the tensors of one run of a layer lie in a trace.

    A linear layer that is applied to T positions of each sample is recorded as a convolution with
    a kernel of 1 x 1 and an input of T x 1: the same products, and the samples stay apart.

    Parameters
    ----------
    layer : Layer
        As recorded.
    samples : int
        N, in the input.
    rows : bool
        Whether tensors are a linear layer's, with C or K last.
    axis : int
        The axis of N among those before C.
    """

    layer: Layer
    samples: int
    rows: bool = False
    axis: int = 0

    @classmethod
    def of(cls, layer: Layer, x: Tensor, batch: int | None, batch_axis: int) -> Layout:
        """Tell the layout for an input.

        Parameters
        ----------
        layer : Layer
            As `describe` tells it.
        x : torch.Tensor
            Its input.
        batch : int, optional
            Samples of the batch, if known. An input of a multiple of that many rows holds so many
            positions of each sample, one sample after the other.
        batch_axis : int
            Where N is in a linear layer's input of three axes or more.
        """
        if layer.kind != "linear":
            return cls(layer, len(x))
        lead = x.shape[:-1]
        axis = batch_axis if len(lead) > 1 else 0
        samples = lead[axis] if lead else 1
        if batch and samples != batch and samples % batch == 0:
            samples, axis = batch, 0
        positions = prod(lead) // samples if samples else 0
        if positions > 1:
            layer = Layer(name=layer.name, C=layer.C, K=layer.K, H=positions)
        return cls(layer, samples, True, axis)

    def called(self, layer: Layer) -> Layout:
        """Give the layout of the same layer by another name."""
        return replace(self, layer=layer)

    def lay(self, operand: Operand, values: Tensor, samples: int) -> Tensor:
        """View an operand in the shape of `Layer.shape_of`, of the first `samples` samples."""
        if operand == "weight":
            return values.reshape(self.layer.shape_of("weight", 1))
        if not self.rows:
            return values[:samples] if values.dim() == 4 else values[:samples].unsqueeze(2)
        rows = values.movedim(self.axis, 0) if self.axis else values
        split = rows.reshape(self.samples, -1, values.shape[-1])[:samples]
        return split[:, 0] if self.layer.kind == "linear" else split.mT.unsqueeze(-1)
