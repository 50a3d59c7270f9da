"""A layer whose ops read what a policy leaves of their operands. Speaks convolution letters."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swatsim.errors import RecordingError
from swatsim.policies.interface import Site
from swatsim.policies.sparsifier import Sparsifier
from swatsim.tracer.pytorch.arithmetic import Arithmetic, Linear, autocast, rows
from swatsim.tracer.pytorch.modules import Layout
from swatsim.tracer.pytorch.private import in_transform
from swatsim.tracer.step_record import StepRecord
from swatsim.workload.layer import Layer, Operand, OpName

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """Where one run of a layer is recorded.

    Parameters
    ----------
    step : StepRecord
    layout : Layout
    samples : int
        How many are recorded, the first ones.
    """

    step: StepRecord
    layout: Layout
    samples: int

    def record(self, operand: Operand, reads: Mapping[OpName, Tensor]) -> None:
        """Record the non-zeros of an operand as ops read it; warn of a second backward pass.

        Parameters
        ----------
        operand : str
        reads : mapping of op to torch.Tensor
            The same object for ops that read it alike.
        """
        name = self.layout.layer.name
        if any((name, op, operand) in self.step.masks for op in reads):
            message = "step %d: %s of %s comes again, by another backward pass: not recorded"
            log.warning(message, self.step.number, operand, name)
        elif not self.step.is_over:
            for values in {id(values): values for values in reads.values()}.values():
                ops = [op for op, read in reads.items() if read is values]
                mask = self.layout.nonzero(operand, values.detach(), self.samples)
                self.step.operand(name, ops, operand, mask.contiguous().numpy(force=True))


@dataclass(frozen=True)
class Call:
    """One run of a layer: who decides what its ops read, and where that is recorded.

    Parameters
    ----------
    layer : Layer
        As the policy knows it.
    arithmetic : Arithmetic
    sparsifier : Sparsifier
    first_convolution : bool
    step : int
        The training step's number.
    run : int
        Which run of the layer in this step, counted from 1.
    training : bool
    recording : Recording or None
    """

    layer: Layer
    arithmetic: Arithmetic
    sparsifier: Sparsifier
    first_convolution: bool
    step: int
    run: int
    training: bool
    recording: Recording | None

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the layer's output.

        Raises
        ------
        RecordingError
            If it is asked for in a transform of torch.func.
        """
        self.check(x, weight)
        dense = weight
        x, weight, bias = autocast(x, weight, bias)
        if torch.is_grad_enabled():
            y: Tensor = _Sparse.apply(x, weight, bias, dense.detach(), self)  # type: ignore[no-untyped-call]
            return y
        sparse_x = self.reads(x, "act", "fprop")[0]
        sparse_weight = self.reads(weight, "weight", "fprop")[0]
        return self.arithmetic.fprop(sparse_x, sparse_weight, bias)

    def check(self, *tensors: Tensor) -> None:
        """Refuse tensors that hold no values to choose from."""
        if in_transform(*tensors):
            raise RecordingError(
                f"layer {self.layer.name!r} runs in a transform of torch.func (grad, vmap, ..), or "
                "with is_grads_batched, which a sparse layer has no rules for: use "
                f"loss.backward(), or leave it alone with skip=({self.layer.name!r},)"
            )

    def reads(self, values: Tensor, operand: Operand, *ops: OpName) -> list[Tensor]:
        """Return what each of the ops that read an operand reads of it."""
        sites = [
            Site(self.layer, op, operand, self.first_convolution, self.step, self.run) for op in ops
        ]
        flat = isinstance(self.arithmetic, Linear)
        viewed = rows(values) if flat else values
        masks = self.sparsifier.masks(sites, viewed.detach(), training=self.training)
        masked: dict[int, Tensor] = {}
        for mask in masks:
            if id(mask) not in masked:
                masked[id(mask)] = _only(values, mask)
        return [masked[id(mask)] for mask in masks]

    def record(self, operand: Operand, reads: Sequence[Tensor], ops: Mapping[OpName, bool]) -> None:
        """Record what the ops that run read of an operand, if this run is recorded."""
        if self.recording is not None:
            pairs = zip(ops.items(), reads, strict=True)
            self.recording.record(operand, {op: read for (op, runs), read in pairs if runs})

    def weight_gradient(self, dense: Tensor, dw: Tensor) -> Tensor:
        """Return the weight gradient that the optimizer gets."""
        changed: Tensor = self.sparsifier.weight_gradient(self.layer, dense.to(dw.dtype), dw)
        return changed


def _only(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else torch.where(mask.reshape(values.shape), values, 0)


class _Sparse(torch.autograd.Function):
    """A layer that saves what its backward pass reads: the Top-K activations, for example."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dense: Tensor, call: Call
    ) -> Tensor:
        """Return the output of fprop."""
        weights = call.reads(weight, "weight", "fprop", "dgrad")
        acts = call.reads(x, "act", "fprop", "wgrad")
        needs = ctx.needs_input_grad
        call.record("weight", weights, {"fprop": True, "dgrad": needs[0]})
        call.record("act", acts, {"fprop": True, "wgrad": needs[1]})
        ctx.call, ctx.dense = call, dense  # the parameter itself, which stays in memory anyway
        ctx.shape = x.shape
        ctx.save_for_backward(weights[1] if needs[0] else None, acts[1] if needs[1] else None)
        return call.arithmetic.fprop(acts[0], weights[0], bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input (if it needs one), weight and bias."""
        ctx.call.check(dy)
        with torch.no_grad():
            gradients = _Sparse._gradients(ctx, dy)
        if torch.is_grad_enabled():  # create_graph=True
            name = ctx.call.layer.name
            gradients = [None if each is None else _once(each, name) for each in gradients]
        return (*gradients, None, None)

    @staticmethod
    def _gradients(ctx: Any, dy: Tensor) -> list[Tensor | None]:
        call: Call = ctx.call
        weight, act = ctx.saved_tensors
        weight = _shaped(dy, ctx.dense.shape) if weight is None else weight
        act = _shaped(dy, ctx.shape) if act is None else act
        grads = call.reads(dy, "grad_out", "dgrad", "wgrad")
        dx = dw = db = None
        needs = ctx.needs_input_grad
        call.record("grad_out", grads, {"dgrad": needs[0], "wgrad": needs[1]})
        if needs[0]:
            dx = call.arithmetic.dgrad(grads[0], act, weight)
        if needs[1]:
            dw = call.weight_gradient(ctx.dense, call.arithmetic.wgrad(grads[1], act, weight))
        if needs[2]:
            db = call.arithmetic.bias_gradient(dy)
        return [dx, dw, db]


def _shaped(like: Tensor, shape: torch.Size) -> Tensor:
    """Return a tensor of which only the shape is read, and that takes no memory."""
    return like.new_zeros(()).expand(shape)


def _once(gradient: Tensor, name: str) -> Tensor:
    once: Tensor = _Once.apply(gradient.detach().requires_grad_(), name)  # type: ignore[no-untyped-call]
    return once


class _Once(torch.autograd.Function):
    """A gradient that can't be differentiated again: trying it is an error that says so."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, name: str) -> Tensor:
        """Return the gradient as it is."""
        ctx.name = name
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Refuse the gradient of a gradient."""
        raise RecordingError(
            f"layer {ctx.name!r}: a gradient of a gradient (a gradient penalty, say) is asked for, "
            "and only dense layers have one: leave it alone with "
            f"skip=({ctx.name.partition('@')[0]!r},), or record a run as it is with Observer"
        )
