"""A model whose products with parameters are sparse while it is open, whatever runs them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from swatsim.errors import PolicyError, SwatsimError
from swatsim.policies.interface import Site, first_convolution
from swatsim.policies.sparsifier import Sparsifier
from swatsim.tracer.pytorch.arithmetic import LINEAR, Arithmetic, Convolution
from swatsim.tracer.pytorch.inside import Inside, in_checkpoint
from swatsim.tracer.pytorch.layers import Call, PolicyFailedError
from swatsim.tracer.pytorch.modules import Depth, Geometry, linear, policy_layer
from swatsim.tracer.pytorch.multiplying import HANDLERS, Handler, LeftAloneError
from swatsim.tracer.pytorch.private import ends_recomputation, in_function, in_transform
from swatsim.tracer.pytorch.projections import Projection, Projections, redirected_linear
from swatsim.tracer.pytorch.recording import Recording
from swatsim.tracer.pytorch.skipping import is_skipped
from swatsim.tracer.pytorch.watch import names, trains
from swatsim.tracer.pytorch.weights import Weight, Weights
from swatsim.workload.layer import Layer

log = logging.getLogger(__name__)

#: What a trace has of a layer's run: shape, axis of the samples if known, depth of a convolution.
Asked: TypeAlias = tuple[Layer, int | None, Depth | None]

#: Begins to record a layer's run: (layer, input, axis of its samples, depth); None where it is not
#: recorded.
Recorder: TypeAlias = Callable[[Layer, Tensor, int | None, Depth | None], Recording | None]

#: Functions whose products can't be told apart from outside.
_FUSED = {
    *(torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu),
    *(torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell),
}


class SparseModel:
    """Runs whatever multiplies by a parameter of a model as a sparse layer, while it is open.

    Parameters
    ----------
    model : torch.nn.Module
    sparsifier : Sparsifier
    skip : collection of str
        Modules and parameters to leave alone, each by its name.
    recorder : callable
        Begins to record a layer's run in training; None where it is not recorded.
    failed : callable
        Called with what went wrong in recording.
    entered : callable
        Called whenever a thread enters the model.

    Attributes
    ----------
    alone : dict of str to str
        What multiplies and is left dense, by layer or module, and why.
    unrecorded : dict of str to str
        What is sparse, and can't be in a trace, and why.
    weights : dict of str to torch.Tensor
        By layer, those that are parameters, or parts of one, and that have run.
    """

    def __init__(
        self,
        model: nn.Module,
        sparsifier: Sparsifier,
        skip: Collection[str],
        recorder: Recorder,
        failed: Callable[[Exception], None],
        entered: Callable[[], None],
    ) -> None:
        self.alone = _scripted(model, skip)
        self.unrecorded: dict[str, str] = {}
        self.weights: dict[str, Tensor] = {}
        self.step = 0
        self._runs: dict[str, int] = {}
        self._model, self._sparsifier, self._skip = model, sparsifier, skip
        self._recorder, self._failed = recorder, failed
        self._first_convolution: str | None = None
        self._allocated: dict[str, bool] = {}
        self._keeps_graph = False
        self._lock = threading.RLock()
        self._entered = entered
        self._looked_up = -1
        self._weights = Weights(names(model))
        self._inside = Inside(model, _Mode(self), entered, self._starts)

    def close(self) -> None:
        """Leave the model as dense as it is without, whoever holds a part of it."""
        self._inside.close()

    def end_step(self, number: int) -> None:
        """Forget what an interrupted forward pass left, and take the next step's number."""
        self._inside.reset()
        self._runs.clear()
        self.step = number

    # ---- what runs ------------------------------------------------------------------------------

    def handled(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return what a function gives, run as sparse layers where it multiplies by weights."""
        handler = HANDLERS.get(function)
        if handler is None and function is functional.multi_head_attention_forward:
            return self._attention(function, arguments, named)
        if not self._is_here():
            return function(*arguments, **named)
        if handler is None:
            self._leave(self._path, "its kernel multiplies all at once")
            return function(*arguments, **named)
        return self._tried(handler, function, arguments, named)

    def _tried(
        self, handler: Handler, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """Return a handler's result; torch's own if there is no weight, or we failed."""
        wrong: Exception | None = None
        chosen = {key: value for key, value in named.items() if key != "out" or value is not None}
        try:
            y = handler(self, *arguments, **chosen)
            if y is not NotImplemented:
                return y
        except LeftAloneError as left:
            self._leave(*left.args)
        except PolicyFailedError as fault:
            raise fault.error from None
        except Exception as error:  # no fault of ours ends a training
            if ends_recomputation(error):
                raise
            wrong = error
        y = function(*arguments, **named)  # if torch refuses it too, it says so best
        if wrong is not None:
            self._leave(self._path, f"{type(wrong).__name__}: {wrong}")
        return y

    def _attention(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return what torch's attention gives, its projections run as layers."""
        if not self._is_here():
            return function(*arguments, **named)
        module: Any = getattr(self._inside.frame, "module", None)
        if not isinstance(module, nn.MultiheadAttention):
            size = named.get("embed_dim_to_check", arguments[3] if len(arguments) > 3 else 0)
            module = SimpleNamespace(embed_dim=size)
        with redirected_linear(Projections(module, self._project)):
            return function(*arguments, **named)

    def _project(
        self, tokens: Tensor, parts: Sequence[Projection], run: Callable[[], Tensor]
    ) -> Tensor:
        def layers(_: Any) -> Any:
            made = (self._projection(tokens, part) for part in parts)
            outputs = [y for y in made if y is not NotImplemented]
            if len(outputs) < len(parts):
                return NotImplemented
            return torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]

        y: Tensor = self._tried(layers, run, (), {})
        return y

    def _projection(self, tokens: Tensor, part: Projection) -> Any:
        found = self.argument(part.weight)
        if found is None:
            return NotImplemented
        own = isinstance(getattr(self._inside.frame, "module", None), nn.MultiheadAttention)
        if own or not found.is_stored:
            found = Weight(f"{self._path}.{part.name}", found.rank, found.is_stored)
        return self.linear(tokens, part.weight, part.bias, found, 1)

    # ---- what `multiplying` asks for ------------------------------------------------------------

    def weight(self, tensor: Any) -> Weight | None:
        """Return what weight a factor is; None for an activation."""
        found = self._weights.of(tensor, self._path)
        if found is None and isinstance(tensor, nn.Parameter) and self._look_again():
            found = self._weights.of(tensor, self._path)
        # torch's older spectral_norm looks for the largest singular value
        return None if found and found.is_stored and found.name.endswith("weight_orig") else found

    def argument(self, tensor: Any) -> Weight | None:
        """Return the weight that stands where a function takes its weight."""
        if isinstance(tensor, nn.Parameter):
            return self.weight(tensor)
        return self._weights.argument(tensor, self._path)

    def linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, found: Weight, axis: int | None = None
    ) -> Tensor:
        """Return the output of a linear layer, of inputs (.., C) and a weight (K, C)."""
        if x.shape[-1] != weight.shape[1]:
            raise LeftAloneError("", "torch refuses it, and says so best")
        layer = linear(found.name, *weight.shape)
        return self._run(layer, LINEAR, x, weight, bias, found, (layer, axis, None))

    def convolution(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, found: Weight, geometry: Geometry
    ) -> Tensor:
        """Return the output of a convolution of a batch."""
        if x.shape[1] != geometry.C:
            raise LeftAloneError("", "torch refuses it, and says so best")
        layer, wrong = policy_layer(found.name, geometry, tuple(x.shape[2:]))
        if wrong:
            self.unrecorded.setdefault(found.name, wrong)
        depth = Depth.of(geometry) if len(geometry.kernel) == 3 else None
        shape = layer if depth is None else geometry.layer(found.name, tuple(x.shape[2:]))
        asked = (shape, None, depth)
        return self._run(layer, Convolution.of(geometry), x, weight, bias, found, asked)

    def _run(
        self,
        layer: Layer,
        arithmetic: Arithmetic,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        found: Weight,
        asked: Asked,
    ) -> Tensor:
        kind, x = type(x), _plain(x)
        self._check(found, x, weight)
        with self._lock:
            call = self._call(layer, arithmetic, x, weight, found, asked)
        y = call(x, weight, bias)
        return y if kind in (Tensor, nn.Parameter) else y.as_subclass(kind)

    def _call(
        self,
        layer: Layer,
        arithmetic: Arithmetic,
        x: Tensor,
        weight: Tensor,
        found: Weight,
        asked: Asked,
    ) -> Call:
        """Return how a layer runs on an input, and begin to record that."""
        self._first_convolution = self._first_convolution or first_convolution([layer])
        first = layer.name == self._first_convolution
        if not self._is_allocated(layer, first):
            raise LeftAloneError(layer.name, "it was not known when the policy allocated densities")
        known = self.weights.get(layer.name)
        if known is not None and known.shape != weight.shape:
            self._sparsifier.forget(layer.name)
        if found.is_stored:
            self.weights[layer.name] = weight.detach()
        training = self._is_training and torch.is_grad_enabled()
        run = self._runs.get(layer.name, 0) + training
        self._runs[layer.name] = run
        # a checkpoint may run its region without gradients first
        again = self._is_training and in_function()
        recording = self._recording(x, asked) if training or again else None
        where = (first, self.step, max(run, 1), training, recording, self._failed)
        return Call(layer, arithmetic, self._sparsifier, *where, self._keeps_graph)

    def _recording(self, x: Tensor, asked: Asked) -> Recording | None:
        layer, axis, depth = asked
        if layer.name in self.unrecorded:
            return None
        try:
            return self._recorder(layer, x, axis, depth)
        except SwatsimError as error:
            self.unrecorded[layer.name] = str(error)
        except Exception as error:  # noqa: BLE001  (no fault of recording ends a training)
            self._failed(error)
        return None

    # ---- what is left alone ---------------------------------------------------------------------

    def _check(self, found: Weight, x: Tensor, weight: Tensor) -> None:
        """Raise if a product can't be run as a sparse layer."""
        if is_skipped(found.name, self._skip) or not x.numel() or x.device.type == "meta":
            raise LeftAloneError("", "nobody need hear of it")
        if not (torch.is_grad_enabled() or not self._inside.runs_custom_function):
            raise LeftAloneError(found.name, "a custom autograd function computes it")
        if why := _unfit(x, weight):
            raise LeftAloneError(found.name, why)
        if self._sparsifier.keeps_masks and not found.is_stored:
            raise LeftAloneError(
                found.name, "its weight is computed anew, and the policy keeps masks"
            )

    def _is_allocated(self, layer: Layer, first: bool) -> bool:
        """Whether a policy that shared its densities out knows a layer."""
        known = self._allocated.get(layer.name)
        if known is None:
            policy = self._sparsifier.policy
            known = True
            if hasattr(policy, "allocate"):
                try:
                    policy.density(Site(layer, "fprop", "weight", first, self.step))
                except PolicyError:
                    known = False
            self._allocated[layer.name] = known
        return known

    def _leave(self, name: str, why: str) -> None:
        if name:
            self.alone.setdefault(name, why)

    # ---- where ----------------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        frame = self._inside.frame
        return frame.name if frame is not None else ""

    @property
    def _is_training(self) -> bool:
        frame = self._inside.frame
        return trains(self._model, self._model if frame is None else frame.module)

    def _is_here(self) -> bool:
        """Whether a function runs in the model, in a module that is not left alone.

        In a backward pass only what a checkpoint runs again does.
        """
        path = self._path
        if not path:
            return in_checkpoint()
        # a parametrization computes a weight, and no layer's output
        computes = ".parametrizations." in path or path.startswith("parametrizations.")
        return not computes and path not in self._skip

    def _look_again(self) -> bool:
        """Look for parameters and modules that were put in since, once a step at most."""
        if self._looked_up == self.step:
            return False
        self._looked_up = self.step
        self._weights = Weights(names(self._model))
        self._inside.refresh()
        return True

    def _starts(self, keeps_graph: bool) -> None:
        """Note that a backward pass starts, and whether its gradients will be differentiated."""
        if keeps_graph and not self._keeps_graph:
            self._keeps_graph = True
            message = "step %d: gradients of gradients take the masks as they are"
            log.warning(message + " (a gradient penalty, say); said once", self.step)


class _Mode(TorchFunctionMode):
    def __init__(self, model: SparseModel) -> None:
        super().__init__()
        self._model = model

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in _WATCHED:
            return self._model.handled(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


_WATCHED = {*HANDLERS, *_FUSED, functional.multi_head_attention_forward}


def _plain(x: Tensor) -> Tensor:
    """Return an input without a class that only wraps it, such as one of images."""
    own = type(x)
    if own in (Tensor, nn.Parameter):
        return x
    inherits = getattr(own.__torch_function__, "__func__", None)
    same = inherits is getattr(Tensor.__torch_function__, "__func__", Tensor.__torch_function__)
    return x.as_subclass(Tensor) if same and not hasattr(own, "__tensor_flatten__") else x


def _unfit(x: Tensor, weight: Tensor) -> str | None:
    """Return why no policy can choose among some values; None if it can."""
    for tensor in (x, weight):
        if tensor.is_complex():
            return "its numbers are complex"
        if tensor.is_nested:
            return "its input is a nested tensor"
        if not isinstance(tensor, Tensor) or type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
            return f"{type(tensor).__name__} is a tensor of its own kind"
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            return f"{tensor.layout} of {tensor.dtype} holds no values to choose from"
    return "a transform of torch.func runs it" if in_transform(x, weight) else None


def _scripted(model: nn.Module, skip: Collection[str]) -> dict[str, str]:
    """Return the scripted modules with matrices, in which no function can be seen."""
    return {
        name: "a scripted module"
        for name, module in names(model).items()
        if isinstance(module, torch.jit.ScriptModule)
        and name not in skip
        and any(each.dim() > 1 for each in module.parameters(recurse=False))
    }
