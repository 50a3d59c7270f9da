"""A layer whose ops read what a policy leaves of their operands. Speaks convolution letters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from swatsim.policies.interface import Site
from swatsim.policies.sparsifier import Sparsifier
from swatsim.tracer.pytorch.arithmetic import Arithmetic, Linear, autocast, rows
from swatsim.tracer.pytorch.modules import Layout
from swatsim.tracer.recorder import StepRecord
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

    def record(self, op: OpName, operands: Mapping[Operand, Tensor]) -> None:
        """Record the non-zeros of an op's operands; of a second backward pass, say that it ran."""
        name = self.layout.layer.name
        if any((name, op, operand) in self.step.masks for operand in operands):
            message = "step %d: %s of %s ran again, by another backward pass: not recorded"
            log.warning(message, self.step.number, op, name)
            return
        for operand, values in operands.items():
            laid = self.layout.lay(operand, values.detach(), self.samples)
            mask = (laid != 0).numpy(force=True)
            self.step.operand(name, op, operand, mask)


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
        """Run the layer."""
        dense = weight
        x, weight, bias = autocast(x, weight, bias)
        if torch.is_grad_enabled():
            y: Tensor = _Sparse.apply(x, weight, bias, dense.detach(), self)
            return y
        act, kept = self.reads(x, "act", "fprop")[0], self.reads(weight, "weight", "fprop")[0]
        return self.arithmetic.fprop(act, kept, bias)

    def reads(self, values: Tensor, operand: Operand, *ops: OpName) -> list[Tensor]:
        """Tell what each of the ops that read an operand reads of it."""
        sites = [
            Site(self.layer, op, operand, self.first_convolution, self.step, self.run) for op in ops
        ]
        flat = isinstance(self.arithmetic, Linear)
        viewed = rows(values) if flat else values
        masks = self.sparsifier.masks(sites, viewed.detach(), training=self.training)
        kept: dict[int, Tensor] = {}
        for mask in masks:
            if id(mask) not in kept:
                kept[id(mask)] = _only(values, mask)
        return [kept[id(mask)] for mask in masks]

    def record(self, op: OpName, operands: Mapping[Operand, Tensor]) -> None:
        """Record the non-zeros of an op's operands, if this run is recorded."""
        if self.recording is not None:
            self.recording.record(op, operands)

    def weight_gradient(self, dense: Tensor, dw: Tensor) -> Tensor:
        """Give what the optimizer gets."""
        found: Tensor = self.sparsifier.weight_gradient(self.layer, dense.to(dw.dtype), dw)
        return found


def _only(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else torch.where(mask.reshape(values.shape), values, 0)


class _Sparse(torch.autograd.Function):
    """What is kept for the backward pass is what it reads: the Top-K activations, for example."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dense: Tensor, call: Call
    ) -> Tensor:
        """Run fprop."""
        weights = call.reads(weight, "weight", "fprop", "dgrad")
        acts = call.reads(x, "act", "fprop", "wgrad")
        call.record("fprop", {"weight": weights[0], "act": acts[0]})
        ctx.call, ctx.dense = call, dense  # the parameter itself, which is kept anyway
        ctx.save_for_backward(weights[1], acts[1])
        return call.arithmetic.fprop(acts[0], weights[0], bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Run dgrad where the input needs it, and wgrad."""
        call: Call = ctx.call
        weight, act = ctx.saved_tensors
        grads = call.reads(dy, "grad_out", "dgrad", "wgrad")
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            call.record("dgrad", {"weight": weight, "grad_out": grads[0]})
            dx = call.arithmetic.dgrad(grads[0], act, weight)
        if ctx.needs_input_grad[1]:
            call.record("wgrad", {"act": act, "grad_out": grads[1]})
            dw = call.weight_gradient(ctx.dense, call.arithmetic.wgrad(grads[1], act, weight))
        if ctx.needs_input_grad[2]:
            db = call.arithmetic.bias_gradient(dy)
        return dx, dw, db, None, None
