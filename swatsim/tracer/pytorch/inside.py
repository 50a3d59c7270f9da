"""A mode of torch's functions, on wherever a model runs: in each thread, and in backward passes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from threading import local
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint

from swatsim.tracer.pytorch.private import engine, in_function, is_on, leave
from swatsim.tracer.pytorch.watch import Frame, Stack

#: All that are open; what they put in the place of torch's function that runs a backward pass, and
#: what was there before.
_open: list[Inside] = []
_ours: Callable[..., Any] | None = None
_theirs: Callable[..., Any] | None = None
_lock = threading.Lock()


class _Thread(local):
    """Whether the mode is on in this thread because it runs the model."""

    pushed = False


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
        self._thread = _Thread()
        self._stack = Stack(model, self._moved, self._enters)
        self.knows, self.refresh = self._stack.knows, self._stack.refresh
        _stand_in(self)

    @property
    def frame(self) -> Frame | None:
        """The innermost module that runs in this thread."""
        frames = self._stack.frames
        return frames[-1] if frames else None

    @property
    def runs_custom_function(self) -> bool:
        """Whether this is the forward of a custom function, whose backward is its author's.

        There gradients are off in both modes. A checkpoint is one too, but runs all of it again;
        so do others that run modules.
        """
        if not in_function():
            return False
        frame = self.frame
        return not (frame is not None and frame.in_function) and not in_checkpoint(forward=True)

    def reset(self) -> None:
        """Forget what runs in this thread: an interrupt leaves modules without a word."""
        self._stack.clear()
        leave(self.mode)

    def close(self) -> None:
        """Remove the hooks, and the mode from this thread; in others it ends with the module."""
        self._stack.remove()
        leave(self.mode)
        _stand_down(self)

    def _enters(self, module: nn.Module, given: Any) -> None:
        self._entered()
        if not is_on(self.mode):
            self.mode.__enter__()
            self._thread.pushed = True

    def _moved(self) -> None:
        if self._thread.pushed and not self._stack.frames:
            self._thread.pushed = False
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
