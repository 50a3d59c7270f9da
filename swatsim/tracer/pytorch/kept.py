"""What autograd keeps for the backward pass, measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from swatsim.errors import RecordingError
from swatsim.tracer.pytorch.watch import Stack


class Kept:
    """Measures what autograd keeps while a model's modules run, by module.

    Counted are the storages of the tensors that it saves (saved-tensor hooks), whole, but for those
    of parameters and buffers, which are there anyway. What the loss keeps, outside of the model, is
    not counted, nor what is saved in the region of a checkpoint, which is not kept. `workload.
    measured.compare` sets it beside the model of `workload.footprint`.

    ::

        with Kept(model) as kept:
            loss = criterion(model(x), y)
        kept.modules, kept.total

    While it is open, other saved-tensor hooks outside of the model, such as ``save_on_cpu``, are
    not in effect in it.

    Parameters
    ----------
    model : torch.nn.Module

    Attributes
    ----------
    modules : mapping of str to int
        Module, as in ``model.named_modules()`` -> bytes of what it keeps, each storage once, shared
        with other modules or not. A function counts for the module that calls it; "" is the model.
    total : int
        Bytes of all, each storage once.

    Raises
    ------
    RecordingError
        If `model` is no module.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise RecordingError(f"model is a {type(model).__name__}, must be a torch.nn.Module")
        self.modules: dict[str, int] = {}
        self.total = 0
        self._root = model
        self._own = {_place(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._hooks: Any = None
        self._seen: set[tuple[str, int]] = set()
        self._alive: dict[int, Tensor] = {}
        self._stack = Stack(model, self._begin, self._end)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Measure no longer."""
        self._stack.remove()

    def describe(self) -> Mapping[str, Any]:
        """Give what was measured as JSON."""
        return {"modules": self.modules, "total": self.total} if self.modules else {}

    def _begin(self) -> None:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        self._hooks.__enter__()

    def _end(self) -> None:
        self._hooks.__exit__(None, None, None)
        self._alive.clear()
        self._seen.clear()

    def _pack(self, tensor: Tensor) -> Tensor:
        place = _place(tensor)
        if place not in self._own:
            frame, size = self._stack.frames[-1], tensor.untyped_storage().nbytes()
            module = "" if frame.module is self._root else frame.name
            if place not in self._alive:
                self._alive[place] = tensor  # so that no other storage takes its place
                self.total += size
            if (module, place) not in self._seen:
                self._seen.add((module, place))
                self.modules[module] = self.modules.get(module, 0) + size
        return tensor


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
