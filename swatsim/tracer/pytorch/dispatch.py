"""Every operation of a thread as torch dispatches it, and of the backward passes it begins."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import local
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

from swatsim.tracer.pytorch.private import are_seen, enter_dispatch, leave_dispatch, unseen

#: Sees an operation that was done: (operation, arguments, named arguments, output).
See = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]
#: Is told of one that will write into its arguments, before it does: (operation, both arguments).
Precede = Callable[[Any, tuple[Any, ...], dict[str, Any]], None]

_PLAIN = (Tensor, Parameter, torch.nn.Buffer)


class _Thread(local):
    """What a thread has entered and not left."""

    def __init__(self) -> None:
        self.modes: list[_Operations] = []


_thread = _Thread()


class Dispatch:
    """Shows operations to `see`, in the threads that entered it, until it is closed.

    It runs each as it would have run, and changes nothing of it.
    """

    def __init__(self, see: See, precede: Precede) -> None:
        self._mode = _Operations(see, precede)

    def enter(self) -> bool:
        """Show this thread's operations; return whether that is new."""
        if self._mode in _thread.modes:
            return False
        _thread.modes.append(self._mode)
        enter_dispatch(self._mode)
        return True

    def leave(self) -> None:
        """Show this thread's operations no more."""
        _thread.modes.remove(self._mode)
        leave_dispatch(self._mode)

    def close(self) -> None:
        """Show none any more, in whichever thread."""
        self._mode.see = None
        leave_closed()


def leave_closed() -> None:
    """Leave in this thread what it entered and another one closed: only a thread itself can."""
    for mode in [mode for mode in _thread.modes if mode.see is None]:
        _thread.modes.remove(mode)
        leave_dispatch(mode)


class _Operations(TorchDispatchMode):
    #: Whole functions are operations too, such as torch's flexible attention.
    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Whether torch.compile may go on with the mode on."""
        return True

    def __init__(self, see: See, precede: Precede) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.see: See | None = see
        self._precede = precede

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if self.see is None:
            return func(*args, **named)
        if any(kind not in _PLAIN and _is_composed(kind) for kind in types):
            return NotImplemented  # its own dispatch comes first: what that runs is seen
        if _writes(func):
            with unseen():
                self._precede(func, args, named)
        out = func(*args, **named)
        if are_seen():
            with unseen():
                self.see(func, args, named, out)
        else:
            self.see(func, args, named, out)
        return out


@cache
def _writes(func: Any) -> bool:
    schema = getattr(func, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


@cache
def _is_composed(kind: type) -> bool:
    own = getattr(kind, "__torch_dispatch__", None)
    return (
        own is not Tensor.__torch_dispatch__ and own is not torch._C._disabled_torch_dispatch_impl
    )
