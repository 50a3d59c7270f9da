"""A layer whose ops read what a policy leaves of their operands. Speaks convolution letters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swatsim.policies.arrays import only
from swatsim.policies.interface import Site
from swatsim.policies.sparsifier import Sparsifier
from swatsim.tracer.policy_work import operand_work
from swatsim.tracer.pytorch.arithmetic import Arithmetic, Gradients, Needed, autocast
from swatsim.tracer.pytorch.private import (
    apart,
    in_transform,
    is_asked_for,
    unseen,
    without_overrides,
)
from swatsim.tracer.pytorch.recording import Recording
from swatsim.workload.layer import OPERANDS_OF, Layer, Operand, OpName

log = logging.getLogger(__name__)


class PolicyFailedError(Exception):
    """What a policy raised: the user's to see, whatever else is kept from stopping a training."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


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
    failed : callable
        Called with what went wrong in recording.
    keeps_graph : bool
        Whether gradients of gradients are to be expected: input and weight are kept for them.
    """

    layer: Layer
    arithmetic: Arithmetic
    sparsifier: Sparsifier
    first_convolution: bool
    step: int
    run: int
    training: bool
    recording: Recording | None
    failed: Callable[[Exception], None]
    keeps_graph: bool = False

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the layer's output."""
        dense = weight
        x, weight, bias = autocast(x, weight, bias)
        if torch.is_grad_enabled() and not self.leaves_all:
            y: Tensor = _Sparse.apply(x, weight, bias, dense.detach(), self)  # type: ignore[no-untyped-call]
            return y
        sparse_x = self.reads(x, "act", "fprop")[0]
        sparse_weight = self.reads(weight, "weight", "fprop")[0]
        self.record("weight", [sparse_weight], {"fprop": True})
        self.record("act", [sparse_x], {"fprop": True})
        with self.computing():
            return self.arithmetic.fprop(sparse_x, sparse_weight, bias)

    @property
    def leaves_all(self) -> bool:
        """Whether nothing is recorded, and the policy leaves every operand as it is."""
        if self.recording is not None:
            return False
        sites = [self._site(op, operand) for op, read in OPERANDS_OF.items() for operand in read]
        try:
            return self.sparsifier.leaves(sites)
        except Exception as error:
            raise PolicyFailedError(error) from error

    def reads(self, values: Tensor, operand: Operand, *ops: OpName) -> list[Tensor]:
        """Return what each of the ops that read an operand reads of it."""
        sites = [self._site(op, operand) for op in ops]
        with unseen():
            try:
                shown = apart(self.arithmetic.planes(values.detach()))
                masks = self.sparsifier.masks(sites, shown, training=self.training)
                works = () if self.recording is None else self.sparsifier.work(sites)
            except Exception as error:
                raise PolicyFailedError(error) from error
            if self.recording is not None and self.training and works:
                dtype = str(values.dtype).removeprefix("torch.")
                own = operand_work(self.layer.name, operand, values.numel(), works, dtype)
                self.recording.worked(own)
            masked: dict[int, Tensor] = {}
            for site, mask in zip(sites, masks, strict=True):
                if id(mask) not in masked:
                    masked[id(mask)] = self._masked(site, values, shown, mask)
            return [masked[id(mask)] for mask in masks]

    def _masked(self, site: Site, values: Tensor, shown: Tensor, mask: Tensor | None) -> Tensor:
        """Return what an op reads of values, which a policy has been shown: an estimate, if any."""
        try:
            read = None if mask is None else self.sparsifier.estimate(site, shown, mask)
        except Exception as error:
            raise PolicyFailedError(error) from error
        masked = _only(values, mask) if read is None else _in_place_of(values, read)
        if self.recording is not None and masked is not values:
            self.recording.computed(values, masked)
        return masked

    def record(self, operand: Operand, reads: Sequence[Tensor], ops: Mapping[OpName, bool]) -> bool:
        """Record what the ops that run read of an operand; return whether that is in the trace."""
        if self.recording is None:
            return False
        pairs = zip(ops.items(), reads, strict=True)
        try:
            with unseen():
                return self.recording.record(
                    operand, {op: read for (op, runs), read in pairs if runs}
                )
        except Exception as error:  # noqa: BLE001  (no fault of recording ends a training)
            self.failed(error)
        return False

    def record_wanted(self, gradient: Tensor) -> None:
        """Record which weight gradients the policy wants, if not all."""
        if self.recording is None:
            return
        try:
            mask = self.sparsifier.output_mask(self._site("wgrad", "weight"))
        except Exception as error:
            raise PolicyFailedError(error) from error
        try:
            if mask is not None and mask.numel() == gradient.numel():
                with unseen():
                    self.recording.output("wgrad", mask.reshape(gradient.shape))
        except Exception as error:  # noqa: BLE001  (no fault of recording ends a training)
            self.failed(error)

    def computing(self) -> AbstractContextManager[Any]:
        """Return a context in which what is multiplied is in the trace, if it is recorded."""
        return nullcontext() if self.recording is None else self.recording.computing()

    def weight_gradient(self, dense: Tensor, dw: Tensor) -> Tensor:
        """Return the weight gradient that the optimizer gets."""
        try:
            with unseen():
                weight = dense.to(dw.dtype)
                changed: Tensor = self.sparsifier.weight_gradient(self.layer, weight, dw)
        except Exception as error:
            raise PolicyFailedError(error) from error
        return changed

    def _site(self, op: OpName, operand: Operand) -> Site:
        return Site(self.layer, op, operand, self.first_convolution, self.step, self.run)


def _only(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values
    if torch.is_grad_enabled():  # create_graph=True
        return torch.where(mask.reshape(values.shape), values, 0)
    masked: Tensor = only(apart(values.detach()), mask.reshape(values.shape))
    return masked


def _in_place_of(values: Tensor, read: Tensor) -> Tensor:
    """Return what is read in place of values, of which it is a multiple, each its own."""
    read = read.reshape(values.shape)
    if torch.is_grad_enabled():  # create_graph=True
        return values * torch.where(read != 0, read / values.detach(), 0)
    return read


class _Sparse(torch.autograd.Function):
    """A layer that saves what its backward pass reads: the Top-K activations, for example."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dense: Tensor, call: Call
    ) -> Tensor:
        """Return the output of fprop."""
        with without_overrides():
            weights = call.reads(weight, "weight", "fprop", "dgrad")
            acts = call.reads(x, "act", "fprop", "wgrad")
            needs = ctx.needs_input_grad
            call.record("weight", weights, {"fprop": True, "dgrad": needs[0]})
            call.record("act", acts, {"fprop": True, "wgrad": needs[1]})
            ctx.call, ctx.dense = call, dense  # the parameter itself, which stays in memory anyway
            ctx.shape = x.shape
            # of a parameter the graph is known at no cost, and of what is not masked
            is_parameter = weight.is_leaf or weight._is_view()
            ctx.weight = weight if call.keeps_graph or is_parameter else None
            handle = [x] if call.keeps_graph and acts[1] is not x else []
            reads = (weights[1] if needs[0] else None, acts[1] if needs[1] else None)
            ctx.save_for_backward(*reads, *handle)
            with call.computing():
                return call.arithmetic.fprop(acts[0], weights[0], bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of input (if it needs one), weight and bias."""
        weight, act, *handle = ctx.saved_tensors  # outside: a checkpoint may run all of it again
        with without_overrides():
            keeps_graph = torch.is_grad_enabled()  # create_graph=True
            if keeps_graph:
                weight = _joined(ctx.weight, weight)
                act = _joined(handle[0] if handle else None, act)
            weight = _shaped(dy, ctx.dense.shape) if weight is None else weight
            act = _shaped(dy, ctx.shape) if act is None else act
            try:
                return (*_gradients(ctx, dy, act, weight, keeps_graph), None, None)
            except PolicyFailedError as fault:
                raise fault.error from None


def _gradients(ctx: Any, dy: Tensor, act: Tensor, weight: Tensor, keeps_graph: bool) -> Gradients:
    """Return the gradients of input, weight and bias, those that this backward pass asks for."""
    call: Call = ctx.call
    has_values = not in_transform(dy)  # a batch of gradients has none to choose from
    needs = _needed(ctx) if has_values else ctx.needs_input_grad[:3]
    grads, is_held = [dy, dy], False
    if has_values and any(needs[:2]):
        grads = call.reads(dy, "grad_out", "dgrad", "wgrad")
        is_held = call.record("grad_out", grads, {"dgrad": needs[0], "wgrad": needs[1]})
    with call.computing() if is_held else nullcontext():
        found = call.arithmetic.gradients(grads, dy, act, weight, needs)
    if found[1] is not None and has_values:
        if is_held:
            call.record_wanted(found[1])
        changed = call.weight_gradient(ctx.dense, found[1].detach())
        found[1] = _joined(found[1], changed) if keeps_graph else changed
    return found


def _needed(ctx: Any) -> Needed:
    """Return which gradients this backward pass asks for: autograd.grad may want the input's only.

    The bias is no tensor if there is none, and then none of the node's inputs.
    """
    dx, dw, db = ctx.needs_input_grad[:3]
    return (dx and is_asked_for(ctx, 0), dw and is_asked_for(ctx, 1), db and is_asked_for(ctx, 2))


def _shaped(like: Tensor, shape: torch.Size) -> Tensor:
    """Return a tensor of which only the shape is read, and that takes no memory."""
    return like.new_empty(()).expand(shape)


def _joined(source: Tensor | None, values: Tensor | None) -> Tensor | None:
    """Return values whose gradient is that of another tensor, from which they were chosen."""
    if source is None or values is None or source is values or values.requires_grad:
        return values
    joined: Tensor = _Joined.apply(source, values)  # type: ignore[no-untyped-call]
    return joined


class _Joined(torch.autograd.Function):
    """Values in place of those that they were chosen from: the gradient passes as it is."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, values: Tensor) -> Tensor:
        """Return the values."""
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradient, as the source's."""
        return (*gradients, None)
