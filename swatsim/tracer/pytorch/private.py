"""What is asked of torch that it has no public function for: all of it is here.

A recording that can't be told from none needs every one of these. Where torch has one no more (or
not yet: the youngest is of 2.8), nothing is recorded, for it would change the run unseen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.dlpack import from_dlpack

from swatsim.errors import RecordingError

#: What packs a tensor that autograd saves, and what unpacks it.
Hooks: TypeAlias = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]

#: All below `torch._C`.
_NEEDED = (
    "_functorch.is_functorch_wrapped_tensor",
    "_functorch.is_legacy_batchedtensor",
    "DisableTorchFunction",
    "_get_function_stack_at",
    "_is_fwd_grad_enabled",
    "_len_torch_function_stack",
    "_pop_torch_function_stack",
    "_push_on_torch_function_stack",
    "_autograd._top_saved_tensors_default_hooks",
    "_current_graph_task_id",
    "_current_autograd_node",
    "_autograd._get_sequence_nr",
    "_len_torch_dispatch_stack",
    "_pop_torch_dispatch_stack",
    "_push_on_torch_dispatch_stack",
    "_will_engine_execute_node",
)

#: Whose saved-tensor hooks hold what a checkpoint recomputes, until the backward pass has read it.
_RECOMPUTATION = ("torch.utils.checkpoint", "_recomputation_hook.")


def check_torch() -> None:
    """Refuse a torch in which a run can't be recorded without changing it.

    Raises
    ------
    RecordingError
        If it lacks one of the functions that are needed.
    """
    lacking = [name for name in _NEEDED if _found(name) is None]
    if lacking:
        raise RecordingError(
            f"torch {torch.__version__} lacks torch._C.{lacking[0]}, without which recording could "
            "change the run: install a torch that swatsim[torch] allows"
        )


def in_transform(*tensors: Tensor) -> bool:
    """Whether tensors are of a transform of torch.func, or a batch of gradients: without values."""
    own = _functions()._functorch
    asks = (own.is_functorch_wrapped_tensor, own.is_legacy_batchedtensor)
    return any(ask(tensor) for ask in asks for tensor in tensors)


def saved_tensor_hooks() -> Hooks | None:
    """Return the saved-tensor hooks that are in effect, which more would hide; None if none are."""
    hooks: Hooks | None = _functions()._autograd._top_saved_tensors_default_hooks(False)
    return hooks


def is_recomputation(hooks: Hooks) -> bool:
    """Whether saved-tensor hooks are those under which a checkpoint recomputes its region.

    Only of the kind that is not reentrant: the other one recomputes without hooks.
    """
    module, name = _RECOMPUTATION
    pack: Any = hooks[0]
    whose = (getattr(pack, "__module__", ""), getattr(pack, "__qualname__", ""))
    is_backward = _functions()._current_graph_task_id() != -1
    return is_backward and whose[0] == module and whose[1].startswith(name)


def ends_recomputation(error: Exception) -> bool:
    """Whether an exception is a checkpoint's, which has recomputed all that it needs."""
    return isinstance(error, getattr(checkpoint, "_StopRecomputationError", ()))


def others_pack() -> bool:
    """Whether somebody else's saved-tensor hooks may change what the backward pass reads."""
    hooks = saved_tensor_hooks()
    whose = "" if hooks is None else getattr(hooks[0], "__module__", "") or ""
    return hooks is not None and not whose.startswith("swatsim.")


def leave(mode: TorchFunctionMode) -> None:
    """Remove a mode from torch's stack, also from below others, such as another observer's."""
    own = _functions()
    above: list[Any] = []
    while own._len_torch_function_stack() and (top := own._pop_torch_function_stack()) is not mode:
        above.append(top)
    for other in reversed(above):
        own._push_on_torch_function_stack(other)


def enter_dispatch(mode: TorchDispatchMode) -> None:
    """Show a mode the operations of this thread, and of the backward passes that begin in it."""
    _functions()._push_on_torch_dispatch_stack(mode)


def leave_dispatch(mode: TorchDispatchMode) -> None:
    """Remove a mode from this thread's stack, if it is there, also from below others."""
    own = _functions()
    above: list[Any] = []
    while (
        own._len_torch_dispatch_stack() and (top := own._pop_torch_dispatch_stack(None)) is not mode
    ):
        above.append(top)
    for other in reversed(above):
        own._push_on_torch_dispatch_stack(other)


def current_node() -> Any:
    """Return the node of the graph that the backward pass of this thread is at; None outside."""
    return _functions()._current_autograd_node()


class StorageRef:
    """A weak reference to a tensor's memory."""

    def __init__(self, tensor: Tensor) -> None:
        own: Any = StorageWeakRef
        self._ref = own(tensor.untyped_storage())

    @property
    def is_held(self) -> bool:
        """Whether anybody holds the memory still, who may read it again."""
        return not self._ref.expired()


def next_node() -> int:
    """Return the number that the next node of the graph gets which this thread makes."""
    number: int = _functions()._autograd._get_sequence_nr()
    return number


def number_of(node: Any) -> int:
    """Return a node's number, ascending in the thread that made it."""
    number: int = node._sequence_nr()
    return number


def in_function() -> bool:
    """Whether an autograd.Function's forward runs: torch turns all gradients off in it.

    Those of forward mode are off nowhere else but in inference mode.
    """
    return not (_functions()._is_fwd_grad_enabled() or torch.is_inference_mode_enabled())


def named_arguments(depth: int) -> dict[str, Any]:
    """Return the named arguments of the module that calls a global hook, which gets only the rest.

    Parameters
    ----------
    depth : int
        How many calls above this one torch called the hook.
    """
    found = sys._getframe(depth).f_locals.get("kwargs")
    return found if isinstance(found, dict) else {}


def is_on(mode: TorchFunctionMode) -> bool:
    """Whether a mode is on torch's stack, in this thread."""
    own = _functions()
    return any(
        own._get_function_stack_at(depth) is mode
        for depth in range(own._len_torch_function_stack())
    )


def without_overrides() -> Any:
    """Return a context in which functions go past all modes and subclasses."""
    return _functions().DisableTorchFunction()


def apart(tensor: Tensor) -> Tensor:
    """Return a tensor that shares its values, and not its storage.

    A NumPy view of it forbids torch to resize a storage for good, as sharded training does.
    """
    plain = tensor.device.type == "cpu" and tensor.layout == torch.strided
    if not plain or not tensor.numel() or tensor.is_neg():
        return tensor
    shared: Tensor = from_dlpack(tensor)
    return shared


def is_asked_for(node: Any, place: int) -> bool:
    """Whether the backward pass that runs needs a node's gradient of one of its inputs.

    ``autograd.grad(loss, x)`` asks for no weight's.
    """
    target = node.next_functions[place][0]
    if target is None:
        return False
    try:
        return bool(_functions()._will_engine_execute_node(target))
    except RuntimeError:  # a leaf that autograd.grad was asked for
        return True


def are_seen() -> bool:
    """Whether modes see the operations of this thread; one that is shown an operation is off."""
    return bool(_functions()._len_torch_dispatch_stack())


@contextmanager
def unseen() -> Iterator[None]:
    """Hide what is computed meanwhile from modes that see operations or functions, all of them."""
    own, modes = _functions(), []
    while own._len_torch_dispatch_stack():
        modes.append(own._pop_torch_dispatch_stack(None))
    try:
        with without_overrides():
            yield
    finally:
        for mode in reversed(modes):
            own._push_on_torch_dispatch_stack(mode)


@contextmanager
def aside(device: str = "cpu") -> Iterator[None]:
    """Compute on plain tensors: without a graph, autocast, or functions of others."""
    with (
        unseen(),
        torch.no_grad(),
        torch.autocast(device, enabled=False),
    ):
        yield


def engine() -> Any:
    """Return the module whose ``_engine_run_backward`` runs every backward pass."""
    return torch.autograd


def _functions() -> Any:
    return torch._C


def _found(name: str) -> Any:
    return reduce(lambda place, part: getattr(place, part, None), name.split("."), _functions())
