"""Training a PyTorch model with a sparse policy, and recording what it computes.

Sparse Weight Activation Training (Raihan and Aamodt, NeurIPS 2020, arXiv:2001.01969, Algorithm 1),
in three lines of a user's script::

    with Tracer(model, SwatU(0.8), "runs/mine", steps=(0, 500, 999), images=8) as tracer:
        for x, y in loader:
            ...; loss.backward(); optimizer.step()
            tracer.step()

Speaks convolution letters.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from swatsim.errors import RecordingError, TraceError, unknown
from swatsim.policies.interface import Policy
from swatsim.tracer.pytorch.arithmetic import Arithmetic, arithmetic_of, autocast, keep
from swatsim.tracer.pytorch.modules import describe, is_plain
from swatsim.tracer.recorder import StepRecord
from swatsim.tracer.session import Densities, Session, Steps
from swatsim.workload.layer import Layer, Operand, OpName

log = logging.getLogger(__name__)


class Tracer:
    """Trains a model's Conv2d and Linear modules sparsely, and records some of the steps.

    While it is open, each of them reads what the policy leaves of its operands. With `SwatU`:
    Top-K weights forward and for the input gradient, Top-K activations for the weight gradient,
    gradients and bias dense; the weights themselves stay dense and all of them are trained. In
    eval mode and under ``no_grad`` the layers are as sparse, and nothing is recorded. The model's
    parameters, state and optimizer are not touched. A deepcopy or pickle made meanwhile is an
    ordinary dense model.

    Modules whose class overrides ``forward`` are left alone, dense and unrecorded, as are other
    kinds of convolution; a warning names them. So are modules in `skip`.

    A recorded step holds, for each layer, the non-zeros of what fprop, dgrad and wgrad read, in
    the shapes of `Layer.shape_of`; dgrad only where the layer's input needs a gradient. A disk
    that fails stops the recording, never the training: see `error`.

    Parameters
    ----------
    model : torch.nn.Module
    policy : Policy
        For example ``SwatU(0.8)``.
    path : path
        Where the trace goes: a directory that is empty or does not exist.
    steps : collection of int, range, or callable of int to bool
        Which training steps are recorded, counted from 0.
    images : int, optional
        How many samples of the batch are recorded, the first ones; all by default. Top-K is over
        the whole batch all the same. A step with a smaller batch is not recorded.
    skip : collection of str
        Names, as in ``model.named_modules()``, of Conv2d and Linear modules to leave alone. None
        of them counts as the network's first convolution.
    append : bool
        Go on with the trace at `path`, if there is one of the same policy, batch size and images.
        Its steps are not recorded again.
    start : int
        The first step's number: a run that goes on from a checkpoint after 5000 steps says 5000.

    Raises
    ------
    RecordingError
        If an argument is not allowed, or a layer can't be run sparsely. In the first step, unless
        `steps` is empty: if a layer runs twice in a step, or its input can't be recorded.
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
        append: bool = False,
        start: int = 0,
    ) -> None:
        modules = _sparse_modules(model, skip)
        parameters = {"model": type(model).__name__, "skip": sorted(skip)}
        self._session = Session(
            policy,
            path,
            steps=steps,
            images=images,
            parameters=parameters,
            append=append,
            start=start,
        )
        self._taps = [_Tap(self._session, name, module) for name, module in modules.items()]
        for tap in self._taps:
            tap.attach()

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def number(self) -> int:
        """The current training step's, counted from 0."""
        return self._session.number

    @property
    def error(self) -> TraceError | None:
        """What stopped the recording, if anything did."""
        return self._session.error

    def step(self) -> None:
        """End a training step: write it if it is one of `steps`. After `close` it does nothing."""
        if self._taps:
            self._session.step()

    def close(self) -> None:
        """Give the model its own forward back; a step that was not ended is not recorded."""
        taps, self._taps = self._taps, []
        for tap in taps:
            tap.detach()
        if taps:
            self._session.close([tap.name for tap in taps])


def _sparse_modules(model: nn.Module, skip: Collection[str]) -> dict[str, nn.Conv2d | nn.Linear]:
    """Find the modules to run sparsely; name in the log those that look alike and are not."""
    if not isinstance(model, nn.Module):
        raise RecordingError(f"model is a {type(model).__name__}, must be a torch.nn.Module")
    named = {name or type(module).__name__: module for name, module in model.named_modules()}
    for name in skip:
        if name not in named:
            raise RecordingError(unknown("module to skip", name, named))
    found = {}
    for name, module in named.items():
        if name in skip:
            continue
        if is_plain(module):
            found[name] = _checked_module(name, module)
        elif isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            kind = type(module).__name__
            log.warning("module %r (%s) is left alone, dense and unrecorded", name, kind)
    if not found:
        raise RecordingError(
            f"{type(model).__name__} has no Conv2d or Linear module to run sparsely"
        )
    return found


def _checked_module(name: str, module: Any) -> nn.Conv2d | nn.Linear:
    own = vars(module).get("forward")
    if own is not None and getattr(own, "__func__", None) is not type(module).forward:
        raise RecordingError(
            f"layer {name!r} has a forward of its own already: close the other Tracer first"
        )
    mode = getattr(module, "padding_mode", "zeros")
    if mode != "zeros":
        raise RecordingError(
            f"layer {name!r} has padding_mode={mode!r}: only 'zeros' can be recorded; "
            f"leave it alone with skip=({name!r},)"
        )
    assert isinstance(module, nn.Conv2d | nn.Linear), "as is_plain found"
    return module


class _Tap:
    """A module's forward while a tracer is open."""

    def __init__(self, session: Session, name: str, module: nn.Conv2d | nn.Linear) -> None:
        self.name = name
        self._session = session
        self._module = module

    def attach(self) -> None:
        vars(self._module)["forward"] = self

    def detach(self) -> None:
        if vars(self._module).get("forward") is self:
            del vars(self._module)["forward"]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle as the module's own forward, which is what its copy has by then."""
        return getattr, (self._module, "forward")

    def __call__(self, input: Tensor) -> Tensor:
        """Run the layer; `input` is called as in nn.Conv2d.forward."""
        layer = describe(self.name, self._module, input)
        training = self._module.training and torch.is_grad_enabled()
        step = self._session.record(layer, tuple(input.shape)) if training else None
        densities = self._session.densities(layer)
        call = _Call(layer, arithmetic_of(layer), densities, step, self._session.samples)
        x, weight, bias = autocast(input, self._module.weight, self._module.bias)
        flat = x.reshape(-1, layer.C) if layer.kind == "linear" else x
        run = _Sparse.apply if torch.is_grad_enabled() else _infer
        y: Tensor = run(flat, weight, bias, call)
        return y.reshape(*x.shape[:-1], layer.K) if layer.kind == "linear" else y


@dataclass(frozen=True)
class _Call:
    """One run of a layer: what its ops read, and where that is recorded."""

    layer: Layer
    arithmetic: Arithmetic
    densities: Densities
    step: StepRecord | None
    samples: int

    def reads(self, values: Tensor, operand: Operand, *ops: OpName) -> tuple[Tensor, Tensor]:
        """Tell what each of the two ops that read an operand reads of it."""
        first, second = (self.densities[op, operand] for op in ops)
        kept = keep(values, first)
        return kept, kept if first == second else keep(values, second)

    def record(self, op: OpName, operands: Mapping[Operand, Tensor]) -> None:
        """Record the non-zeros of an op's operands, of the samples kept."""
        if self.step is None:
            return
        for operand, values in operands.items():
            kept = values if operand == "weight" else values[: self.samples]
            self.step.operand(self.layer.name, op, operand, (kept != 0).numpy(force=True))


def _infer(x: Tensor, weight: Tensor, bias: Tensor | None, call: _Call) -> Tensor:
    """Run fprop alone."""
    act = keep(x, call.densities["fprop", "act"])
    return call.arithmetic.fprop(act, keep(weight, call.densities["fprop", "weight"]), bias)


class _Sparse(torch.autograd.Function):
    """A layer whose ops read what the policy leaves of their operands.

    What is kept for the backward pass is what it reads: the Top-K activations, not the dense ones.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, call: _Call) -> Tensor:
        """Run fprop."""
        weights = call.reads(weight, "weight", "fprop", "dgrad")
        acts = call.reads(x, "act", "fprop", "wgrad")
        call.record("fprop", {"weight": weights[0], "act": acts[0]})
        ctx.call = call
        ctx.save_for_backward(weights[1], acts[1])
        return call.arithmetic.fprop(acts[0], weights[0], bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Run dgrad where the input needs it, and wgrad."""
        call: _Call = ctx.call
        weight, act = ctx.saved_tensors
        grads = call.reads(dy, "grad_out", "dgrad", "wgrad")
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            call.record("dgrad", {"weight": weight, "grad_out": grads[0]})
            dx = call.arithmetic.dgrad(grads[0], act, weight)
        if ctx.needs_input_grad[1]:
            call.record("wgrad", {"act": act, "grad_out": grads[1]})
            dw = call.arithmetic.wgrad(grads[1], act, weight)
        if ctx.needs_input_grad[2]:
            db = dy.sum([axis for axis in range(dy.dim()) if axis != 1])
        return dx, dw, db, None
