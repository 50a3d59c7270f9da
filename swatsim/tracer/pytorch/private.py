"""What is asked of torch that it has no public function for: all of it is here.

A recording that can't be told from none needs every one of these. Where torch has one no more (or
not yet: the youngest is of 2.8), nothing is recorded, for it would change the run unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from swatsim.errors import RecordingError

#: What packs a tensor that autograd saves, and what unpacks it.
Hooks: TypeAlias = tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]

#: All below `torch._C`.
_NEEDED = (
    "_functorch.is_functorch_wrapped_tensor",
    "_functorch.is_legacy_batchedtensor",
    "_len_torch_function_stack",
    "_pop_torch_function_stack",
    "_push_on_torch_function_stack",
    "_autograd._top_saved_tensors_default_hooks",
    "_current_graph_task_id",
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


def leave(mode: TorchFunctionMode) -> None:
    """Remove a mode from torch's stack, also from below others, such as another observer's."""
    own = _functions()
    above: list[Any] = []
    while own._len_torch_function_stack() and (top := own._pop_torch_function_stack()) is not mode:
        above.append(top)
    for other in reversed(above):
        own._push_on_torch_function_stack(other)


def _functions() -> Any:
    return torch._C


def _found(name: str) -> Any:
    return reduce(lambda place, part: getattr(place, part, None), name.split("."), _functions())
