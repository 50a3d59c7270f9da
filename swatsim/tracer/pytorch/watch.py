"""What runs in a model, and in which of its modules, without changing any of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from swatsim.errors import RecordingError
from swatsim.tracer.pytorch.private import check_torch, leave

log = logging.getLogger(__name__)

#: Runs a function in another's place: (function, arguments, named arguments).
Handler: TypeAlias = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

#: Functions that multiply and accumulate, and that no trace holds: what each is called.
PRODUCTS: dict[Any, str] = {
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__), "matmul"),
    **dict.fromkeys((torch.mm, Tensor.mm), "mm"),
    **dict.fromkeys((torch.bmm, Tensor.bmm, torch.baddbmm, Tensor.baddbmm), "bmm"),
    **dict.fromkeys((torch.addmm, Tensor.addmm), "addmm"),
    **dict.fromkeys((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu), "recurrence"),
    torch.einsum: "einsum",
    functional.scaled_dot_product_attention: "attention products",
    functional.multi_head_attention_forward: "attention products",
    functional.bilinear: "bilinear",
    functional.conv3d: "conv3d",
    functional.conv_transpose3d: "conv_transpose3d",
}


def names(model: nn.Module) -> dict[str, nn.Module]:
    """Return a model's modules by name; a compiled one by its own, not by that of its wrapper."""
    named = {}
    for name, module in model.named_modules():
        parts = [part for part in name.split(".") if part != "_orig_mod"]
        named[".".join(parts) or type(module).__name__] = module
    return named


def checked_names(model: Any) -> dict[str, nn.Module]:
    """Return a model's modules by name, if it is one that can be watched.

    Raises
    ------
    RecordingError
        If it is none, or this torch lets none be watched.
    """
    if not isinstance(model, nn.Module):
        raise RecordingError(f"model is a {type(model).__name__}, must be a torch.nn.Module")
    check_torch()
    return names(model)


@dataclass
class Frame:
    """A module that runs.

    Parameters
    ----------
    name : str
    module : torch.nn.Module
    calls : int
        What was counted in it by whoever watches.
    """

    name: str
    module: nn.Module
    calls: int = field(default=0)


class Stack:
    """The modules of a model that are running, the innermost last; of one thread at a time.

    Hooks are torch's global ones: a copy of the model made meanwhile has none, and torch's fast
    paths, which look for a module's hooks, are taken as ever.

    Parameters
    ----------
    model : torch.nn.Module
    moved : callable
        Called when another module is the innermost, and when none is any more.
    """

    def __init__(self, model: nn.Module, moved: Callable[[], Any]) -> None:
        self.frames: list[Frame] = []
        self._thread = get_ident()
        self._moved = moved
        self._named = {id(module): (name, module) for name, module in names(model).items()}
        # torch.compile warns that its wrapper calls them too, which is no module of `named`
        warnings.filterwarnings("ignore", ".*when there are global hooks on modules")
        self._filter = warnings.filters[0]
        # also after an exception: a checkpoint ends its recomputation with one
        ended = register_module_forward_hook(self._after, always_call=True)
        self._handles = [register_module_forward_pre_hook(self._before), ended]

    def remove(self) -> None:
        """Remove the hooks, also while the model runs, or was interrupted."""
        for handle in self._handles:
            handle.remove()
        with suppress(ValueError):  # already gone with a block of catch_warnings
            cast(list[Any], warnings.filters).remove(self._filter)
        self._drop(0)

    def _before(self, module: nn.Module, arguments: Any) -> None:
        if not self.frames:
            self._thread = get_ident()
        if id(module) in self._named and get_ident() == self._thread:
            self.frames.append(Frame(*self._named[id(module)]))
            self._moved()

    def _after(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if get_ident() != self._thread:
            return
        # more than one if a module inside was interrupted
        own = [depth for depth, frame in enumerate(self.frames) if frame.module is module]
        if own:
            self._drop(own[-1])

    def _drop(self, depth: int) -> None:
        """Drop the modules above a depth from the stack."""
        if len(self.frames) > depth:
            del self.frames[depth:]
            self._moved()


class Watch:
    """Hands chosen functions that a model's modules call to handlers, while it is open.

    Parameters
    ----------
    model : torch.nn.Module
    handlers : dict of function to callable
        Each calls the function itself, and gives what it gives.
    """

    def __init__(self, model: nn.Module, handlers: dict[Any, Handler]) -> None:
        self.unmodelled: dict[str, set[str]] = {}
        self._mode = _Functions({**dict.fromkeys(PRODUCTS, self._note), **handlers})
        self._is_on = False
        self._stack = Stack(model, self._moved)

    @property
    def frame(self) -> Frame:
        """The innermost module that runs."""
        return self._stack.frames[-1]

    @property
    def not_modelled(self) -> dict[str, list[str]]:
        """Module -> what ran in it that no trace holds."""
        return {name: sorted(kinds) for name, kinds in self.unmodelled.items()}

    def close(self) -> None:
        """Stop watching."""
        self._stack.remove()

    def note(self, function: Any) -> None:
        """Add a function that ran and that no trace holds."""
        self.unmodelled.setdefault(self.frame.name, set()).add(PRODUCTS[function])

    def _moved(self) -> None:
        """Watch modules in training only: of others nothing is recorded, and torch shows a mode."""
        wanted = bool(self._stack.frames) and self.frame.module.training
        if wanted and not self._is_on:
            self._mode.__enter__()  # type: ignore[no-untyped-call]
        elif self._is_on and not wanted:
            leave(self._mode)
        self._is_on = wanted

    def _note(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        self.note(function)
        return function(*arguments, **named)


class _Functions(TorchFunctionMode):
    def __init__(self, handlers: dict[Any, Handler]) -> None:
        super().__init__()
        self._handlers = handlers

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        handler = self._handlers.get(func)
        if handler is None:
            return func(*args, **(kwargs or {}))
        return handler(func, args, kwargs or {})
