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

_PLAIN = (Tensor, Parameter, torch.nn.Buffer)


class Dispatch:
    """Shows operations to `see`, in the threads that entered it, until it is closed.

    It runs each as it would have run, and changes nothing of it.
    """

    def __init__(self, see: See) -> None:
        self._mode = _Operations(see)
        self._here = local()

    def enter(self) -> bool:
        """Show this thread's operations; return whether that is new."""
        if getattr(self._here, "entered", False):
            return False
        self._here.entered = True
        enter_dispatch(self._mode)
        return True

    def leave(self) -> None:
        """Show this thread's operations no more."""
        self._here.entered = False
        leave_dispatch(self._mode)

    def close(self) -> None:
        """Show none any more, in whichever thread."""
        self._mode.see = None
        if getattr(self._here, "entered", False):
            self.leave()


class _Operations(TorchDispatchMode):
    #: Whole functions are operations too, such as torch's flexible attention.
    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Whether torch.compile may go on with the mode on."""
        return True

    def __init__(self, see: See) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.see: See | None = see

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named = kwargs or {}
        if self.see is None:
            return func(*args, **named)
        if any(kind not in _PLAIN and _is_composed(kind) for kind in types):
            return NotImplemented  # its own dispatch comes first: what that runs is seen
        out = func(*args, **named)
        if are_seen():
            with unseen():
                self.see(func, args, named, out)
        else:
            self.see(func, args, named, out)
        return out


@cache
def _is_composed(kind: type) -> bool:
    own = getattr(kind, "__torch_dispatch__", None)
    return (
        own is not Tensor.__torch_dispatch__ and own is not torch._C._disabled_torch_dispatch_impl
    )
