"""Where the samples of a batch are in what a model is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

_SEQUENTIAL = (nn.MultiheadAttention, nn.RNNBase)


class Given(NamedTuple):
    """An input of a model.

    Parameters
    ----------
    tensor : torch.Tensor
    axis : int or None
        Of its samples; None of one that is a single sample's.
    sample : int
        That sample's number.
    """

    tensor: Tensor
    axis: int | None
    sample: int = 0


def samples_of(module: nn.Module, given: Any, axis: int) -> tuple[int | None, list[Given]]:
    """Return how many samples a forward pass is on, and on which axis of each input they are.

    The first input's samples count, or the tensors of a list.

    Parameters
    ----------
    module : torch.nn.Module
        In which the pass begins.
    given : (arguments, named arguments)
    axis : {0, 1}
        The one that the user named: of (T, N, ..), and of ids (T, N); images have theirs first.

    Returns
    -------
    int or None
        None if no input has any axis.
    list of Given
    """
    inputs = [each for each in _tensors(given) if each.dim()]
    listed = next(iter(given[0]), None) if given[0] else None
    if isinstance(listed, list | tuple) and all(isinstance(each, Tensor) for each in listed):
        return len(listed), [Given(each, None, n) for n, each in enumerate(listed)]
    inner = next((each for each in module.modules() if isinstance(each, _SEQUENTIAL)), None)
    if inner is not None and _is_torchs(module):
        if inputs and inputs[0].dim() == 2:  # (T, C), without a batch
            return 1, []
        axis = axis if inner.batch_first else 1
    images = any(isinstance(each, nn.modules.conv._ConvNd) for each in module.modules())
    found = [Given(each, _axis_of(each, axis, images)) for each in inputs]
    first = inputs[0].shape[_axis_of(inputs[0], axis, images)] if inputs else None
    return first if first is None else int(first), found


def _tensors(given: Any) -> Iterator[Tensor]:
    """Yield the tensors in a module's arguments, wherever they are."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping):
        yield from _tensors(list(given.values()))
    elif isinstance(given, list | tuple):
        for each in given:
            yield from _tensors(each)


def _is_torchs(module: nn.Module) -> bool:
    """Whether a module is one of torch's own for sequences, which take (T, N, C) by default."""
    named = isinstance(module, _SEQUENTIAL) or "Transformer" in type(module).__name__
    return named and type(module).__module__.startswith("torch.nn.")


def _axis_of(tensor: Tensor, axis: int, images: bool) -> int:
    ids = tensor.dim() == 2 and not tensor.is_floating_point()
    return axis if ids or tensor.dim() == 3 or (tensor.dim() > 3 and not images) else 0
