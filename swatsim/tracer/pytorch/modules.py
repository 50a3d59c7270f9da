"""PyTorch's modules as layers. Speaks convolution letters."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from swatsim.errors import RecordingError
from swatsim.workload.layer import Layer


def is_plain(module: nn.Module) -> bool:
    """Whether a module computes what nn.Conv2d or nn.Linear does."""
    if isinstance(module, nn.Conv2d):
        ours = type(module)._conv_forward is nn.Conv2d._conv_forward
        return ours and type(module).forward is nn.Conv2d.forward
    return isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward


def describe(name: str, module: nn.Conv2d | nn.Linear, x: Tensor) -> Layer:
    """Tell the layer that a module is for an input.

    Raises
    ------
    RecordingError
        If the input of a convolution has no batch.
    """
    if isinstance(module, nn.Linear):
        C, K = module.in_features, module.out_features
        return Layer(name=name, kind="linear", C=C, K=K)
    if x.dim() != 4:
        raise RecordingError(
            f"layer {name!r}: its input is {tuple(x.shape)}, only (N, C, H, W) can be run sparsely;"
            " give it a batch"
        )
    C, K, (H, W), (R, S) = module.in_channels, module.out_channels, x.shape[2:], module.kernel_size
    same: dict[str, Any] = {key: getattr(module, key) for key in ("stride", "dilation", "groups")}
    sizes = {"C": C, "K": K, "H": H, "W": W, "R": R, "S": S}
    return Layer(name=name, padding=_padding(module), **sizes, **same)


def _padding(module: nn.Conv2d) -> tuple[tuple[int, int], ...]:
    """Tell the zeros around the input; 'same' puts an odd one at the end, as torch does."""
    if module.padding == "same":
        spans = (d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True))
        return tuple((span // 2, span - span // 2) for span in spans)
    if isinstance(module.padding, str):
        return (0, 0), (0, 0)
    return tuple((side, side) for side in module.padding)
