"""What autograd saves for the backward pass, measured."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from swatsim.tracer.pytorch.private import has_saved_tensor_hooks
from swatsim.tracer.pytorch.watch import Stack, checked_names


class Kept:
    """Measures what autograd saves while a model's modules run, by module.

    Counted are the storages of the tensors that it saves (saved-tensor hooks), whole, but for those
    of parameters and buffers, which are there anyway. What the loss keeps, outside of the model, is
    not counted, nor what is saved in the region of a checkpoint, which is not kept. `workload.
    measured.compare` sets it beside the model of `workload.footprint`.

    Where others have saved-tensor hooks already when the model runs, such as ``save_on_cpu`` or a
    checkpoint around it, what is kept is theirs, and nothing is counted. A model that itself calls
    a gradient of torch.func can't be measured: torch raises, for that allows no such hooks.

    ::

        with Kept(model) as kept:
            loss = criterion(model(x), y)
        kept.modules, kept.total

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
        If `model` is no module, or this torch lacks what tells that others have hooks.
    """

    def __init__(self, model: nn.Module) -> None:
        checked_names(model)
        self.modules: dict[str, int] = {}
        self.total = 0
        self._root = model
        own = (*model.parameters(), *model.buffers())
        self._own = {_place(part) for tensor in own for part in _parts(tensor)}
        self._hooks: Any = None
        self._seen: set[tuple[str, int]] = set()
        self._alive: dict[int, Tensor] = {}
        self._stack = Stack(model, self._moved)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop measuring."""
        self._stack.remove()

    def describe(self) -> Mapping[str, Any]:
        """Return what was measured, as JSON; empty if nothing ran."""
        return {"modules": self.modules, "total": self.total} if self.modules else {}

    def _moved(self) -> None:
        depth = len(self._stack.frames)
        if depth == 1 and self._hooks is None:
            self._begin()
        elif not depth:
            self._end()

    def _begin(self) -> None:
        if has_saved_tensor_hooks():
            return
        hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)
        with suppress(RuntimeError):  # where torch allows none, as in a transform of torch.func
            hooks.__enter__()
            self._hooks = hooks

    def _end(self) -> None:
        if self._hooks is not None:
            self._hooks.__exit__(None, None, None)
        self._hooks = None
        self._alive.clear()
        self._seen.clear()

    def _pack(self, tensor: Tensor) -> Tensor:
        for part in _parts(tensor):
            self._count(part)
        return tensor

    def _count(self, tensor: Tensor) -> None:
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


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return the tensors that have the storages of one that is sparse, or made of others."""
    flatten = getattr(tensor, "__tensor_flatten__", None)  # of a tensor that is made of others
    if flatten is not None:
        return [part for name in flatten()[0] for part in _parts(getattr(tensor, name))]
    if tensor.layout == torch.strided:
        return [tensor]
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return []  # a layout that shows no storage


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
