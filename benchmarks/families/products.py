"""What multiplies by a weight in a forward pass, found from outside: by two batches.

A factor that lies in a parameter, or that is the same whatever the batch, is a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from swatsim.tracer.pytorch.products import macs


@dataclass(frozen=True)
class Factor:
    """A factor of a product.

    Parameters
    ----------
    content : int
        The hash of its shape and values.
    is_stored : bool
        Whether it lies in a parameter or buffer.
    """

    content: int
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
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        owned = [*model.parameters(), *model.buffers()]
        self._places = {each.untyped_storage().data_ptr() for each in owned}
        self.found: list[Product] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        # a fused kernel of attention multiplies activations, whatever its query is computed from
        if (size := macs(func, args, kwargs, out)) and "attention" not in func.name():
            factors = tuple(map(self._factor, _factors(func, args)))
            self.found.append(Product(size, factors))
        return out

    def _factor(self, tensor: Tensor) -> Factor:
        values = tensor.detach().contiguous().flatten().view(torch.uint8).numpy()
        place = tensor.untyped_storage().data_ptr()
        return Factor(hash((tuple(tensor.shape), values.tobytes())), place in self._places)


def _factors(func: Any, arguments: Sequence[Any]) -> Iterable[Tensor]:
    """Yield what an operation multiplies: no bias, nor what its product is added to."""
    added = {"bias", "self"} if func.name().startswith(("aten::add", "aten::badd")) else {"bias"}
    named = zip(func._schema.arguments, arguments, strict=False)
    read = [value for argument, value in named if argument.name not in added]
    return (each for each in pytree.tree_leaves(read) if isinstance(each, Tensor))


def by_weights(run: Callable[[int, Products], Any], model: nn.Module) -> tuple[int, int]:
    """Return how much a forward pass multiplies by weights.

    Parameters
    ----------
    run : callable
        Runs the model on a batch of a seed's, in a context.
    model : torch.nn.Module

    Returns
    -------
    least, most : int
        Multiply-accumulates, without and with products of two constants that are no parameters.
    """
    lists = [Products(model) for _ in range(2)]
    for seed, listed in enumerate(lists):
        run(seed, listed)
    other = {factor.content for product in lists[1].found for factor in product.factors}
    least = most = 0
    for product in lists[0].found:
        constant = [it.is_stored or it.content in other for it in product.factors]
        sure = any(it.is_stored for it in product.factors) or not all(constant)
        most += product.macs * any(constant)
        least += product.macs * (any(constant) and sure)
    return least, most
