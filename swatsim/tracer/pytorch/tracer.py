"""Training a PyTorch model with a sparse policy, and recording what it computes.

In three lines of a user's script::

    with Tracer(model, SwatU(0.8), "runs/mine", steps=(0, 500, 999), images=8) as tracer:
        for x, y in loader:
            ...; loss.backward(); optimizer.step()
            tracer.step()
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from swatsim.errors import RecordingError
from swatsim.policies import allocate_once, begin_run
from swatsim.policies.interface import Policy, first_convolution
from swatsim.tracer.arguments import Steps, describe_policy
from swatsim.tracer.pytorch.forward_patch import AttentionPatch, ForwardPatch
from swatsim.tracer.pytorch.layers import Call
from swatsim.tracer.pytorch.modules import Plain, is_convolution, is_plain, linear, weight_layer
from swatsim.tracer.pytorch.run import Run
from swatsim.tracer.pytorch.watch import checked_names, checked_skip, names
from swatsim.workload.layer import Layer

log = logging.getLogger(__name__)


class Tracer(Run):
    """Trains a model's layers sparsely, and records some of the steps.

    Layers are its modules Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d and Linear, and the
    projections of MultiheadAttention. While the tracer is open, each reads what the policy leaves
    of its operands. With `SwatU`: Top-K weights forward and for the input gradient, Top-K
    activations for the weight gradient, gradients and bias dense; the weights themselves stay
    dense and all of them are trained. In eval mode and under ``no_grad`` the layers are as sparse,
    and nothing is recorded. The model's parameters, state and optimizer are not touched, unless
    the policy keeps masks (`RigL`, ..): then weights outside them are set to zero by `step`. A
    deepcopy or pickle made meanwhile is an ordinary dense model; so is the model after `close`.

    Modules whose class overrides ``forward`` are left alone, dense and unrecorded, as are other
    modules with weights; a warning names them. So are modules in `skip`. A convolution among them
    that comes first in the model, such as a stem whose weights are standardised, is the network's
    first convolution all the same.

    A recorded step holds, for each layer, the non-zeros of what fprop, dgrad and wgrad read, in
    the shapes of `Layer.shape_of`; dgrad only where the layer's input needs a gradient. A linear
    layer that is applied to T positions of each sample is a convolution of T x 1. A layer that
    runs again in the same step (shared weights, gradient accumulation, recomputation in a
    checkpoint) is recorded again, as ``NAME@2``; a step with more than 256 runs of one is left out,
    for its end seems forgotten. A step after the first whose layers have inputs of
    other sizes than those recorded before, which a trace can't hold, is left out with a warning. A
    disk that fails stops the recording, never the training: see `error`.

    Parameters
    ----------
    model : torch.nn.Module
    policy : Policy
        For example ``SwatU(0.8)``. One with an ``allocate`` method is given all layers.
    path : path
        Where the trace goes: a directory that is empty or does not exist.
    steps : collection of int, range, or callable of int to bool
        Which training steps are recorded, counted from 0.
    images : int, optional
        How many samples of a batch are recorded, the first ones, or all of a smaller batch; all by
        default. Top-K is over the whole batch all the same.
    skip : collection of str
        Names, as in ``model.named_modules()``, of modules to leave alone. None of them counts as
        the network's first convolution.
    batch_axis : {0, 1}
        Where the samples are in a linear layer's input of three axes or more: 1 for a transformer
        with ``batch_first=False``.
    measure_memory : bool
        Store in a recorded step what autograd saves for its backward pass, as `Kept` measures it.
    append : bool
        Go on with the trace at `path`, if there is one of the same policy and images.
        Its steps are not recorded again.
    start : int
        The first step's number: a run that goes on from a checkpoint after 5000 steps says 5000,
        unless it calls `load_state_dict`, which knows.

    Raises
    ------
    RecordingError
        If an argument is not allowed, or a layer can't be run sparsely. In the first step, unless
        `steps` is empty: if its input can't be recorded.
    PolicyError
        If the policy can't be allocated to the model's layers.
    TraceError
        If something is at `path` already that is not continued, or can't be, or another run is
        writing it.
    """

    def __init__(
        self,
        model: nn.Module,
        policy: Policy,
        path: str | os.PathLike[str],
        *,
        steps: Steps,
        images: int | None = None,
        skip: Collection[str] = (),
        batch_axis: int = 0,
        measure_memory: bool = False,
        append: bool = False,
        start: int = 0,
    ) -> None:
        skipped = checked_skip(skip, checked_names(model))
        modules = sparse_modules(model, skipped)
        layers = [layer for pair in modules.items() for layer in _layers(*pair)]
        chosen = allocate_once(policy, layers)
        self._policy, self._sparsifier = chosen, begin_run(chosen)
        self._first_convolution = _foreign_stem(model, modules, skipped)
        self._patches = [_patch(self._call, name, module) for name, module in modules.items()]
        if self._sparsifier.keeps_masks:
            _check_own_weights(self._patches, type(policy).__name__)
            _say_shared(model, self._patches)
        recording = {"steps": steps, "images": images, "append": append, "start": start}
        super().__init__(model, chosen, path, skipped, batch_axis, measure_memory, **recording)
        for patch in self._patches:
            patch.attach()

    def report(self) -> dict[str, Any]:
        """Return, as JSON, what the policy did and no mask shows: the drift of densities, say."""
        return self._sparsifier.report()

    def step(self) -> None:
        """End a training step, after the optimizer's: write it if it is one of `steps`.

        A policy that keeps masks sets the weights outside them to zero. After `close` it does
        nothing.
        """
        if not self._open:
            return
        number = self.number
        super().step()
        weights = {name: w.detach() for patch in self._patches for name, w in patch.weights.items()}
        for name, new in self._sparsifier.end_step(number, weights).items():
            weights[name].copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """Return what a restarted run needs beside the model's and the optimizer's states.

        That is the number of the step, and the masks, thresholds and momenta that the policy keeps:
        dicts, numbers, strings and tensors, for ``torch.save``. The states of random generators and
        of the order of the data are yours to keep.
        """
        described = describe_policy(self._policy)
        return {"step": self.number, "policy": described, "kept": self._sparsifier.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, before the first step.

        The next step has the number that was saved, whatever `start` said. Tensors are moved to the
        model's device.

        Raises
        ------
        RecordingError
            If it is not of this policy.
        """
        described = describe_policy(self._policy)
        if not isinstance(state, dict) or state.get("policy") != described:
            got = state.get("policy") if isinstance(state, dict) else type(state).__name__
            raise RecordingError(
                f"the state is of the policy {got}, expected one of {described}: pass what "
                "state_dict() gave, of a run with the same policy"
            )
        self._end()
        self._session.go_on(state["step"])
        device = next(self._model.parameters()).device
        self._sparsifier.load(_moved(state["kept"], device))
        if self._open:
            self._begin()

    def close(self) -> None:
        """Restore the model's own forward; a step that was not ended is not recorded."""
        if self._open:
            for patch in reversed(self._patches):
                patch.detach()
        super().close()

    def _layers(self) -> list[str]:
        return [name for patch in self._patches for name in patch.names]

    def _notes(self) -> dict[str, Any]:
        return {"policy": self._sparsifier.report()}

    def _call(
        self, layer: Layer, x: Tensor, arithmetic: Any, training: bool, axis: int | None
    ) -> Call:
        """Return how a layer runs on an input, and begin to record that."""
        if x.is_nested:
            raise RecordingError(
                f"layer {layer.name!r}: its input is a nested tensor, which no mask of one shape "
                f"fits: pad it, or leave it alone with skip=({layer.name!r},)"
            )
        self._first_convolution = self._first_convolution or first_convolution([layer])
        first = layer.name == self._first_convolution
        training = training and torch.is_grad_enabled()
        recording = self._recording(layer, x, axis) if training else None
        where = (first, self.number, self._session.run(layer.name), training, recording)
        return Call(layer, arithmetic, self._sparsifier, *where)


def _moved(state: Any, device: torch.device) -> Any:
    """Return a copy of a state of dicts, its tensors on a device."""
    if isinstance(state, dict):
        return {key: _moved(value, device) for key, value in state.items()}
    return state.to(device) if isinstance(state, Tensor) else state


def sparse_modules(model: nn.Module, skip: Collection[str] = ()) -> dict[str, Any]:
    """Return the modules to run sparsely; log which others have weights."""
    named = names(model)
    inner = {id(module.out_proj) for module in named.values() if _is_attention(module)}
    sparse = {}
    for name, module in named.items():
        if name in skip or id(module) in inner:
            continue
        if is_plain(module) or _is_attention(module):
            sparse[name] = _checked_module(name, module)
        elif weights := _own_weights(module):
            message = "module %r (%s): %s left alone, dense and unrecorded"
            log.warning(message, name, type(module).__name__, ", ".join(weights))
    if not sparse:
        raise RecordingError(
            f"{type(model).__name__} has no Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, "
            "Linear or MultiheadAttention module to run sparsely"
        )
    return sparse


def _foreign_stem(model: nn.Module, modules: Collection[str], skip: Collection[str]) -> str | None:
    """Return a model's first convolution if it is left alone, having its own forward, else None."""
    convolutions = (name for name, module in names(model).items() if is_convolution(module))
    first = next((name for name in convolutions if name not in skip), None)
    return None if first in modules else first


def _is_attention(module: nn.Module) -> bool:
    own = nn.MultiheadAttention
    return isinstance(module, own) and type(module).forward is own.forward


def _own_weights(module: nn.Module) -> list[str]:
    """Return the parameters that a module may multiply by; norms and embeddings do not."""
    quiet = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm)
    if isinstance(module, quiet):
        return []
    own = module.named_parameters(recurse=False)
    return [name for name, parameter in own if parameter.dim() > 1]


def _checked_module(name: str, module: Any) -> Any:
    own = vars(module).get("forward")
    if own is not None and getattr(own, "__func__", None) is not type(module).forward:
        raise RecordingError(
            f"layer {name!r} has a forward of its own already: close the other Tracer first"
        )
    if any(isinstance(weight, UninitializedParameter) for weight in module.parameters()):
        raise RecordingError(
            f"layer {name!r} has no shape yet: run the model once before, or leave it alone with "
            f"skip=({name!r},)"
        )
    mode = getattr(module, "padding_mode", "zeros")
    if mode != "zeros":
        raise RecordingError(
            f"layer {name!r} has padding_mode={mode!r}: only 'zeros' can be recorded; "
            f"leave it alone with skip=({name!r},)"
        )
    return module


def _check_own_weights(patches: list[ForwardPatch], policy: str) -> None:
    """Refuse layers that share a weight, which would have several masks."""
    owners: dict[int, str] = {}
    for name, weight in (pair for patch in patches for pair in patch.weights.items()):
        owner = owners.setdefault(weight.data_ptr(), name)
        if owner != name and weight.data_ptr():
            raise RecordingError(
                f"layers {owner!r} and {name!r} share a weight, and {policy} keeps a mask for each "
                f"layer: leave one of them alone with skip=({name!r},)"
            )


def _say_shared(model: nn.Module, patches: list[ForwardPatch]) -> None:
    """Warn of weights that are set to zero outside a mask, and that other modules share."""
    ours = {id(weight): name for patch in patches for name, weight in patch.weights.items()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        layer = ours.get(id(parameter))
        if layer is not None and name != f"{layer}.weight":
            message = "layer %r shares its weight with %s, which becomes sparse with it: skip=(%r,)"
            log.warning(message + " leaves it dense", layer, name, layer)


def _patch(call: Any, name: str, module: Any) -> ForwardPatch:
    kind = AttentionPatch if isinstance(module, nn.MultiheadAttention) else ForwardPatch
    return kind(call, name, module)


def _layers(name: str, module: Any) -> list[Layer]:
    """Return the layers of a module, for the smallest inputs that its weights allow."""
    if not isinstance(module, nn.MultiheadAttention):
        plain: Plain = module
        return [weight_layer(name, plain)]
    patch = AttentionPatch(_no_call, name, module)
    return [linear(each, *weight.shape) for each, weight in patch.weights.items()]


def _no_call(*arguments: Any) -> Any:
    raise AssertionError("only asked for its weights")
