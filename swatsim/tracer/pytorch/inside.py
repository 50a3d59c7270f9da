"""Where a model runs: which of its modules, in each thread, with a mode of torch's functions on.

Hooks are torch's global ones: a copy of the model has none, and nothing of the model's is touched.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

from swatsim.tracer.pytorch.private import engine, is_forward_grad_on, is_on, leave
from swatsim.tracer.pytorch.watch import Frame, names

#: All that are open; what they put in the place of torch's function that runs a backward pass, and
#: what was there before.
_open: list[Inside] = []
_ours: Callable[..., Any] | None = None
_theirs: Callable[..., Any] | None = None
_lock = threading.Lock()


@dataclass
class Entered(Frame):
    """A module that runs.

    Parameters
    ----------
    in_function : bool
        Whether a custom autograd function called it, such as a checkpoint.
    """

    in_function: bool = False


class Inside:
    """Keeps a mode on in every thread that runs a model, and in backward passes.

    A checkpoint of a plain function runs it again in the backward pass, with no module around it.

    Parameters
    ----------
    model : torch.nn.Module
    mode : torch.overrides.TorchFunctionMode
        On from where a thread enters the model to where it leaves it.
    entered : callable
        Called before the mode is on: a thread enters the model.
    started : callable
        Called with whether the graph of gradients is kept, as a backward pass starts.
    """

    def __init__(
        self,
        model: nn.Module,
        mode: TorchFunctionMode,
        entered: Callable[[], None],
        started: Callable[[bool], None],
    ) -> None:
        self.mode, self.started = mode, started
        self._entered = entered
        self._local = threading.local()
        self._named = {id(module): (name, module) for name, module in names(model).items()}
        self._model = model
        # torch.compile warns that its wrapper calls them too
        warnings.filterwarnings("ignore", ".*when there are global hooks on modules")
        self._filter = warnings.filters[0]
        # also after an exception: a checkpoint ends its recomputation with one
        ended = register_module_forward_hook(self._after, always_call=True)
        self._handles = [register_module_forward_pre_hook(self._before), ended]
        _stand_in(self)

    @property
    def frame(self) -> Entered | None:
        """The innermost module that runs in this thread."""
        frames = self._frames
        return frames[-1] if frames else None

    @property
    def runs_custom_function(self) -> bool:
        """Whether this is the forward of a custom function, whose backward is its author's.

        There gradients are off in both modes. A checkpoint is one too, but runs all of it again;
        so do others that run modules.
        """
        if not self.is_in_function:
            return False
        frame = self.frame
        return not (frame is not None and frame.in_function) and not in_checkpoint(forward=True)

    @property
    def is_in_function(self) -> bool:
        """Whether the forward of a custom autograd function runs, a checkpoint's among them."""
        return not (is_forward_grad_on() or torch.is_inference_mode_enabled())

    def knows(self, module: nn.Module) -> bool:
        """Whether a module is one of the model's."""
        return id(module) in self._named

    def refresh(self) -> None:
        """Look for modules that were put into the model meanwhile."""
        self._named = {id(module): (name, module) for name, module in names(self._model).items()}

    def reset(self) -> None:
        """Forget what runs in this thread: an interrupt leaves modules without a word."""
        self._frames.clear()
        leave(self.mode)

    def close(self) -> None:
        """Remove the hooks, and the mode from this thread; in others it ends with the module."""
        for handle in self._handles:
            handle.remove()
        with suppress(ValueError):  # already gone with a block of catch_warnings
            cast(list[Any], warnings.filters).remove(self._filter)
        self.reset()
        _stand_down(self)

    @property
    def _frames(self) -> list[Entered]:
        local = self._local
        if not hasattr(local, "frames"):
            local.frames = []
        frames: list[Entered] = local.frames
        return frames

    def _before(self, module: nn.Module, arguments: Any) -> None:
        known = self._named.get(id(module))
        if known is None or known[1] is not module:
            return
        frames = self._frames
        if not frames:
            self._entered()
            if not is_on(self.mode):
                self.mode.__enter__()
                self._local.pushed = True
        frames.append(Entered(*known, in_function=not is_forward_grad_on()))

    def _after(self, module: nn.Module, arguments: Any, output: Any) -> None:
        frames = self._frames
        if not any(frame.module is module for frame in frames):
            return
        while frames.pop().module is not module:
            pass  # one inside was interrupted
        if not frames and getattr(self._local, "pushed", False):
            self._local.pushed = False
            leave(self.mode)


def traced(module: nn.Module) -> bool:
    """Whether a module is one of a model that an open tracer runs."""
    return any(inside.knows(module) for inside in _open)


def in_checkpoint(*, forward: bool = False) -> bool:
    """Whether this runs inside a checkpoint of torch's.

    Parameters
    ----------
    forward : bool
        Only in the forward pass of one that is a custom function (``use_reentrant=True``).
    """
    own = checkpoint.CheckpointFunction.forward.__code__
    frame: Any = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code is own or (not forward and code.co_filename == checkpoint.__file__):
            return True
        frame = frame.f_back
    return False


def _stand_in(inside: Inside) -> None:
    """Have a mode on in backward passes too; all that are open share what stands there."""
    global _ours, _theirs
    with _lock:
        if not _open:
            _theirs = engine()._engine_run_backward
            _ours = partial(_run_backward, _theirs)
            engine()._engine_run_backward = _ours
        _open.append(inside)


def _stand_down(inside: Inside) -> None:
    with _lock, suppress(ValueError):
        _open.remove(inside)
        # whoever stood in for ours meanwhile calls it, and it does nothing any more
        if not _open and engine()._engine_run_backward is _ours:
            engine()._engine_run_backward = _theirs


def _run_backward(own: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Run a backward pass with the modes on: torch hands them on to the threads of its engine."""
    keeps_graph = named.get("create_graph", arguments[3] if len(arguments) > 3 else False)
    with ExitStack() as stack:
        for inside in tuple(_open):
            inside.started(bool(keeps_graph))
            stack.enter_context(_turned_on(inside.mode))
        return own(*arguments, **named)


@contextmanager
def _turned_on(mode: TorchFunctionMode) -> Iterator[None]:
    if is_on(mode):
        yield
        return
    mode.__enter__()
    try:
        yield
    finally:
        leave(mode)
