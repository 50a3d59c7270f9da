"""What runs in a model, and in which of its modules, without changing any of it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import local
from typing import Any, cast

from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from swatsim.errors import RecordingError
from swatsim.tracer.pytorch.private import check_torch, in_function, named_arguments


def names(model: nn.Module) -> dict[str, nn.Module]:
    """Return a model's modules by name; a compiled one by its own, not by that of its wrapper."""
    named = {}
    for name, module in model.named_modules():
        parts = [part for part in name.split(".") if part != "_orig_mod"]
        named[".".join(parts) or type(module).__name__] = module
    return named


def trains(model: nn.Module, module: nn.Module) -> bool:
    """Whether a module runs in training, as a part in eval mode of a model that trains does.

    A backbone whose statistics are frozen is such a part.
    """
    while list(model._modules) in (["_orig_mod"], ["module"]):  # wrappers have modes of their own
        (model,) = model.children()
    return module.training or model.training


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
    in_function : bool
        Whether a custom autograd function called it, such as a checkpoint.
    products : Counter of str
        Of each kind of products of activations, how many have a name in this run of the module.
    """

    name: str
    module: nn.Module
    in_function: bool
    products: Counter[str] = field(default_factory=Counter)


class _Thread(local):
    def __init__(self) -> None:
        self.frames: list[Frame] = []


class Stack:
    """The modules of a model that are running, the innermost last; each thread has its own.

    Hooks are torch's global ones: a copy of the model made meanwhile has none, and torch's fast
    paths, which look for a module's hooks, are taken as ever.

    Parameters
    ----------
    model : torch.nn.Module
    moved : callable, optional
        Called when another module is the innermost, and when none is any more.
    entered : callable, optional
        Called with a module that runs in none other, and its arguments.
    """

    def __init__(
        self,
        model: nn.Module,
        moved: Callable[[], Any] | None = None,
        entered: Callable[[nn.Module, Any], Any] | None = None,
    ) -> None:
        self._running = _Thread()
        self._moved, self._entered = moved, entered
        self._model = model
        self._strangers: set[int] = set()
        self.refresh()
        # torch.compile warns that its wrapper calls them too, which is no module of `named`
        warnings.filterwarnings("ignore", ".*when there are global hooks on modules")
        self._filter = warnings.filters[0]
        # also after an exception: a checkpoint ends its recomputation with one
        ended = register_module_forward_hook(self._after, always_call=True)
        self._handles = [register_module_forward_pre_hook(self._before), ended]

    @property
    def frames(self) -> list[Frame]:
        """The modules that run in this thread."""
        return self._running.frames

    def knows(self, module: nn.Module) -> bool:
        """Whether a module is one of the model's."""
        return id(module) in self._named

    def refresh(self) -> None:
        """Look for modules that were put into the model meanwhile."""
        self._named = {id(module): (name, module) for name, module in names(self._model).items()}

    def clear(self) -> None:
        """Forget what runs in this thread: an interrupt leaves modules without a word."""
        self._drop(0)

    def remove(self) -> None:
        """Remove the hooks, also while the model runs, or was interrupted."""
        for handle in self._handles:
            handle.remove()
        with suppress(ValueError):  # already gone with a block of catch_warnings
            cast(list[Any], warnings.filters).remove(self._filter)
        self._drop(0)

    def _before(self, module: nn.Module, arguments: Any) -> None:
        frames = self.frames
        known = self._known(module, bool(frames))
        if known is None:
            return
        if not frames and self._entered is not None:
            self._entered(module, (arguments, named_arguments(2)))
        frames.append(Frame(*known, in_function()))
        if self._moved is not None:
            self._moved()

    def _known(self, module: nn.Module, inside: bool) -> tuple[str, nn.Module] | None:
        """Return a module's name, and itself; None for one that is not the model's.

        One that runs inside may have been put in meanwhile.
        """
        if inside and id(module) not in self._named and id(module) not in self._strangers:
            self.refresh()
            self._strangers.add(id(module))
        known = self._named.get(id(module))
        return known if known is not None and known[1] is module else None

    def _after(self, module: nn.Module, arguments: Any, output: Any) -> None:
        frames = self.frames
        for depth in reversed(range(len(frames))):  # not the last if one inside was interrupted
            if frames[depth].module is module:
                self._drop(depth)
                return

    def _drop(self, depth: int) -> None:
        """Drop the modules above a depth from the stack."""
        if len(self.frames) > depth:
            del self.frames[depth:]
            if self._moved is not None:
                self._moved()
