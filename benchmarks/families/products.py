"""What multiplies by a weight in a forward pass, found from outside.

A factor is a weight if it lies in a parameter, or is computed from parameters alone: by no
operation that reads the batch, and with the same values whatever the batch is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from swatsim.tracer.pytorch.products import macs


class Source(IntEnum):
    """What a tensor is computed from; the last of several."""

    CONSTANTS = 0
    PARAMETERS = 1
    THE_BATCH = 2


@dataclass(frozen=True)
class Factor:
    """A factor of a product.

    Parameters
    ----------
    content : int
        The hash of its shape and values.
    source : Source
    is_stored : bool
        Whether it lies in a parameter or a buffer.
    """

    content: int
    source: Source
    is_stored: bool


@dataclass(frozen=True)
class Product:
    """An operation that multiplies: multiply-accumulates, and its factors."""

    macs: int
    factors: tuple[Factor, ...]


class Products(TorchDispatchMode):
    """Lists the products of a forward pass.

    Parameters
    ----------
    model : torch.nn.Module
    batch : dict of str to object
        What the model is given.
    """

    def __init__(self, model: nn.Module, batch: dict[str, Any]) -> None:
        super().__init__()
        self._owned = [*model.parameters(), *model.buffers()]
        self._places = {each.untyped_storage().data_ptr() for each in self._owned}
        self.found: list[Product] = []
        #: By identity, which lasts as the tensors are kept.
        self._known: dict[int, tuple[Tensor, Source]] = {}
        self._note(self._owned, Source.PARAMETERS)
        self._note(batch, Source.THE_BATCH)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        size = macs(func, args, kwargs, out)
        # a fused kernel of attention multiplies activations, whatever its query is computed from
        if size and "attention" not in func.name():
            factors = tuple(map(self._factor, _factors(func, args)))
            self.found.append(Product(size, factors))
        read = [self._source(each) for each in _tensors((args, kwargs))]
        self._note(out, max(read, default=Source.CONSTANTS))
        return out

    def _note(self, values: Any, source: Source) -> None:
        self._known.update((id(each), (each, source)) for each in _tensors(values))

    def _source(self, tensor: Tensor) -> Source:
        if self._is_stored(tensor):
            return Source.PARAMETERS
        return self._known.get(id(tensor), (tensor, Source.CONSTANTS))[1]

    def _is_stored(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._places

    def _factor(self, tensor: Tensor) -> Factor:
        values = hash((tuple(tensor.shape), content(tensor)))
        return Factor(values, self._source(tensor), self._is_stored(tensor))


def content(tensor: Tensor) -> bytes:
    """Return a tensor's values."""
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in pytree.tree_leaves(values) if isinstance(each, Tensor)]


def _factors(func: Any, arguments: Sequence[Any]) -> Iterable[Tensor]:
    """Yield what an operation multiplies: no bias, nor what its product is added to."""
    added = {"bias", "self"} if func.name().startswith(("aten::add", "aten::badd")) else {"bias"}
    named = zip(func._schema.arguments, arguments, strict=False)
    read = [value for argument, value in named if argument.name not in added]
    return _tensors(read)


#: Runs a model on a batch, in a context.
Run = Callable[[dict[str, Any], AbstractContextManager[Any]], Any]


def by_weights(run: Run, model: nn.Module, batches: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Return how much a forward pass multiplies by weights.

    Parameters
    ----------
    run : callable
    model : torch.nn.Module
    batches : two of dict of str to object
        What the model is given; the first one's products are counted.

    Returns
    -------
    least, most : int
        Multiply-accumulates. The second also has those by constants, which may be taken for
        weights or not.
    """
    first, second = (Products(model, batch) for batch in batches)
    for batch, listed in zip(batches, (first, second), strict=True):
        run(batch, listed)
    same = {factor.content for product in second.found for factor in product.factors}
    least = most = 0
    for product in first.found:
        stays = [it for it in product.factors if it.is_stored or it.content in same]
        sources = {it.source for it in stays} - {Source.THE_BATCH}
        least += product.macs * (Source.PARAMETERS in sources)
        most += product.macs * bool(sources)
    return least, most
