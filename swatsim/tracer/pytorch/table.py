"""A layer table from a PyTorch model: what it runs, in order, and what each module saves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from swatsim.errors import RecordingError
from swatsim.tracer.pytorch.layout import Layout
from swatsim.tracer.pytorch.modules import describe, is_plain
from swatsim.workload.layer import Layer
from swatsim.workload.networks import Network, Saved, SavedKind

log = logging.getLogger(__name__)

#: Functions that save a tensor, in whichever way they are written. Modules such as nn.ReLU call
#: the first of each kind.
_KINDS: dict[Any, SavedKind] = {
    **dict.fromkeys(
        (functional.relu, functional.relu_, torch.relu, Tensor.relu, Tensor.relu_), "relu"
    ),
    **dict.fromkeys(
        (functional.max_pool2d, functional.max_pool2d_with_indices, torch.max_pool2d), "max_pool"
    ),
    functional.avg_pool2d: "avg_pool",
    functional.adaptive_avg_pool2d: "avg_pool",
    **dict.fromkeys((functional.dropout, torch.dropout), "dropout"),
}

#: What a function is called in a table that is called directly, not by a module of its own.
_NAMES = {"max_pool": "max_pool2d", "avg_pool": "avg_pool2d"}

#: Modules that save nothing, or do so in one of the functions above.
_FUNCTIONS = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout)
_QUIET = (*_FUNCTIONS, nn.Identity, nn.Flatten)


def layer_table(model: nn.Module, example_input: Tensor, name: str = "") -> Network:
    """Return the layers that a model runs and what its modules save for the backward pass.

    Runs the model once, in eval mode and without gradients; its parameters, state and mode are
    as before afterwards. Listed are modules Conv2d, Linear and BatchNorm2d, and, as modules or as
    functions, ReLU, max pooling, average pooling and dropout. Of anything else that may keep
    something a warning is logged.

    Parameters
    ----------
    model : torch.nn.Module
    example_input : torch.Tensor, shape (N, ...)
        Only its shape and type matter.
    name : str
        The network's; the model's class by default.

    Returns
    -------
    Network
        Layers named as in ``model.named_modules()``, functions after the module that calls them:
        ``block.relu``, ``block.relu_1``.

    Raises
    ------
    RecordingError
        If an argument is no module or tensor, a layer runs twice or its input has no batch, or
        there is no layer.
    """
    _check(model, example_input)
    forward = _ForwardPass()
    with torch.no_grad(), _eval(model), _watched(model, forward):
        forward.name_of(example_input, "input")
        forward.batch = len(example_input)
        model(example_input)
    kind = type(model).__name__
    if not forward.layers:
        raise RecordingError(f"{kind} runs no Conv2d or Linear module: there is nothing to list")
    citation = f"{kind}, as it ran on an input of {tuple(example_input.shape)}"
    layers, saved = tuple(forward.layers), tuple(forward.saved)
    return Network(name or kind, citation, layers, saved, frozenset(forward.biased), forward.inputs)


def _check(model: Any, example_input: Any) -> None:
    if not isinstance(model, nn.Module):
        raise RecordingError(f"model is a {type(model).__name__}, must be a torch.nn.Module")
    if not isinstance(example_input, Tensor):
        got = type(example_input).__name__
        raise RecordingError(f"example_input is a {got}, must be a tensor such as the model reads")


class _ForwardPass:
    """Layers and saved tensors of one forward pass, as far as it went."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.saved: list[Saved] = []
        self.biased: set[str] = set()
        self.inputs: dict[str, str] = {}
        self.running: list[tuple[str, nn.Module]] = []  # the innermost module last
        self.batch: int | None = None
        self._names: dict[tuple[int, int, int], str] = {}
        self._alive: list[Tensor] = []
        self._calls: dict[str, int] = {}

    def name_of(self, x: Tensor, new: str | None = None) -> str:
        """Return a tensor's name: after what made it (`new`), a number if that is not listed.

        A tensor is a place in memory, and how often that was written: a view is the same tensor,
        one that was changed in place is another. All stay alive, so that no place is used twice.
        """
        key = (x.untyped_storage()._cdata, int(x.storage_offset()), x._version)
        if new is not None or key not in self._names:
            self._names[key] = new or f"tensor {len(self._names)}"
            self._alive.append(x)
        return self._names[key]

    def call(self, name: str) -> str:
        """Return a name for one call: the second call of a name gets the suffix _1, and so on."""
        count = self._calls[name] = self._calls.get(name, -1) + 1
        return f"{name}_{count}" if count else name

    def function(self, kind: SavedKind) -> str:
        """Return the name of a call of a function: its own module's, else after its caller."""
        path, module = self.running[-1]
        if isinstance(module, _FUNCTIONS):
            return self.call(path)
        return self.call(f"{path}.{_NAMES.get(kind, kind)}".lstrip("."))

    def keep(self, kind: SavedKind, name: str, x: Tensor, tensor: str) -> None:
        C, H, W = (*x.shape[1:], 1, 1, 1)[:3]
        self.saved.append(Saved(name, kind, C, H, W, tensor))

    def layer(self, name: str, module: Any, x: Tensor) -> None:
        if name in self.inputs:
            raise RecordingError(
                f"layer {name!r} runs twice: a layer table holds each layer once; give each run a "
                "module of its own"
            )
        self.layers.append(Layout.of(describe(name, module, x), x, None, self.batch).layer)
        self.inputs[name] = self.name_of(x)
        if module.bias is not None:
            self.biased.add(name)


@contextmanager
def _eval(model: nn.Module) -> Iterator[None]:
    """Put all modules into eval mode, and each back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _watched(model: nn.Module, forward: _ForwardPass) -> Iterator[None]:
    """Add every module and function that runs to `forward`."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            for hook in _hooks(name, module, forward):
                stack.callback(hook.remove)
        with _Functions(forward):
            yield


def _hooks(name: str, module: nn.Module, forward: _ForwardPass) -> list[Any]:
    def before(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        forward.running.append((name, module))
        given = (*arguments, *named.values())
        x = next((value for value in given if isinstance(value, Tensor)), None)
        if x is not None and is_plain(module):
            forward.layer(name or type(module).__name__, module, x)
        elif x is not None and isinstance(module, nn.BatchNorm2d):
            forward.keep("batch_norm", forward.call(name), x, forward.name_of(x))
        elif not isinstance(module, _QUIET) and not list(module.children()):
            message = "module %r (%s) is not listed: what it keeps is not known"
            log.warning(message, name, type(module).__name__)

    def after(module: nn.Module, arguments: Any, output: Any) -> None:
        forward.running.pop()
        if is_plain(module) or isinstance(module, nn.BatchNorm2d):
            forward.name_of(output, name or type(module).__name__)

    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after),
    ]


class _Functions(TorchFunctionMode):
    """Adds the functions that save a tensor to `forward`."""

    def __init__(self, forward: _ForwardPass) -> None:
        super().__init__()
        self._forward = forward

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        kind = _KINDS.get(func)
        if kind is None:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        source = self._forward.name_of(x)  # before the call: a ReLU may write in place
        output = func(*args, **kwargs)
        y = output[0] if isinstance(output, tuple) else output
        name = self._forward.function(kind)
        self._forward.name_of(y, name)
        if func is not functional.adaptive_avg_pool2d or y.shape[-2:] != (1, 1):
            self._keep(kind, name, x, source, y)
        return output

    def _keep(self, kind: SavedKind, name: str, x: Tensor, source: str, y: Tensor) -> None:
        """Add what a call saves; a mean over all of H and W saves nothing, and is left out."""
        if kind == "relu":
            self._forward.keep(kind, name, y, name)
        elif kind == "dropout":
            self._forward.keep(kind, name, y, f"{name}.mask")
        else:
            self._forward.keep(kind, name, x, source)
        if kind == "max_pool":
            self._forward.keep("max_pool_indices", name, y, f"{name}.indices")
