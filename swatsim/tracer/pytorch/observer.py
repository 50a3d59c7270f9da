"""Recording a run as it is, its masks made by whoever trains it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from swatsim.errors import RecordingError, SwatsimError
from swatsim.tracer.arguments import Steps
from swatsim.tracer.pytorch.arithmetic import autocast
from swatsim.tracer.pytorch.forward_patch import (
    ForwardPatch,
    Projection,
    Projections,
    redirected_linear,
)
from swatsim.tracer.pytorch.modules import Geometry, linear, size_of
from swatsim.tracer.pytorch.private import in_transform
from swatsim.tracer.pytorch.run import Run
from swatsim.tracer.pytorch.watch import Handler, checked_names, checked_skip
from swatsim.workload.layer import Layer, OpName

log = logging.getLogger(__name__)

#: The arguments of each function that is a layer, in torch's order.
_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    functional.linear: ("input", "weight", "bias"),
    **dict.fromkeys(
        (functional.conv1d, functional.conv2d),
        ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
    **dict.fromkeys(
        (functional.conv_transpose1d, functional.conv_transpose2d),
        (
            *("input", "weight", "bias", "stride", "padding"),
            *("output_padding", "groups", "dilation"),
        ),
    ),
}
_TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d)


class Observer(Run):
    """Records some steps of a run that is sparse already, and changes nothing about it.

    Whatever made zeros is seen as it is computed: pruned weights, `torch.nn.utils.prune`, a mask
    that a module of its own multiplies with, structured 2:4 tensors, a ReLU. Every call of
    F.linear, F.conv1d, F.conv2d and their transposed kinds by a module of the model is a layer,
    those in MultiheadAttention too, with the weight and the input that it is given. It is called
    after the parameter that the weight is, or after the module that calls; a second one in the
    same module ``NAME.linear_1``, and a second run in the same step ``NAME@2``. Steps that are not
    recorded run without any hook.

    Under `torch.compile` a recorded step runs uncompiled.

    ::

        with Observer(model, "runs/mine", steps=(0, 500, 999), images=8) as observer:
            for x, y in loader:
                ...; loss.backward(); optimizer.step()
                observer.step()

    Parameters
    ----------
    model : torch.nn.Module
    path, steps, images, batch_axis, measure_memory, append, start
        As in `Tracer`.
    skip : collection of str
        Names, as in ``model.named_modules()``, of modules whose calls are not recorded.

    Raises
    ------
    RecordingError
        If an argument is not allowed. A layer that a trace can't hold is left out of it, with a
        warning.
    TraceError
        If something is at `path` already.
    """

    def __init__(
        self,
        model: nn.Module,
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
        modules = checked_names(model)
        for name, module in modules.items():
            if isinstance(vars(module).get("forward"), ForwardPatch):
                raise RecordingError(
                    f"layer {name!r} is run by a Tracer, which records it: close that first, or "
                    "observe another model"
                )
        self._names, self._skip = _weight_names(modules), checked_skip(skip, modules)
        self._left_out: set[str] = set()
        recording: dict[str, Any] = {"steps": steps, "images": images, "sees_all": False}
        recording |= {"append": append, "start": start}
        policy, alone = _Observed(), self._skip
        super().__init__(model, policy, path, alone, batch_axis, measure_memory, **recording)

    def _handlers(self) -> dict[Any, Handler]:
        own: dict[Any, Handler] = {functional.multi_head_attention_forward: self._attention}
        return {**dict.fromkeys(_ARGUMENTS, self._layer), **own}

    def _layer(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return what a function that is a layer gives, and record it."""
        y = function(*arguments, **named)
        given = dict(zip(_ARGUMENTS[function], arguments, strict=False)) | named
        if self._is_seen(given["input"], y):
            name = self._name(function, given["weight"])
            x, weight = given["input"], given["weight"]
            with self._leaving_out(name):
                self._record(_layer_of(name, function, given), x, weight, y)
        return y

    def _attention(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return what torch's attention gives, and record its projections."""
        assert self._watch is not None, "a function is only seen while watching"
        self._watch.note(function)
        module = self._watch.frame.module
        if not isinstance(module, nn.MultiheadAttention) or "forward" in vars(module):
            return function(*arguments, **named)  # a Tracer runs it, whose layers these are
        with redirected_linear(Projections(module, self._projection)):
            return function(*arguments, **named)

    def _projection(
        self, tokens: Tensor, parts: Sequence[Projection], run: Callable[[], Tensor]
    ) -> Tensor:
        """Return what torch computes as one, and record its parts."""
        y = run()
        if self._is_seen(tokens, y):
            assert self._watch is not None, "an attention module is only seen while watching"
            for name, weight, _, first in parts:
                layer = linear(f"{self._watch.frame.name}.{name}", *weight.shape)
                columns = slice(first, first + len(weight))
                view = _Columns(tokens.shape[1], y.shape[-1], columns)
                with self._leaving_out(layer.name):
                    self._record(layer, tokens, weight, y, 1, view)
        return y

    @contextmanager
    def _leaving_out(self, name: str) -> Iterator[None]:
        """Leave a layer that can't be in the trace out of it, from the first step on; warn once.

        Whoever trains must not be stopped by being observed.
        """
        try:
            yield
        except SwatsimError as error:
            log.warning("layer %r is not recorded: %s", name, error)
            self._left_out.add(name)
        if name in self._left_out and self._watch is not None:
            self._watch.unmodelled.setdefault(name, set()).add("a layer that can't be recorded")

    def _is_seen(self, x: Tensor, y: Tensor) -> bool:
        """Whether a call is part of training, and of a module that is not skipped."""
        assert self._watch is not None, "a function is only seen while watching"
        frame = self._watch.frame
        training = torch.is_grad_enabled() and frame.module.training
        if not training or frame.name in self._skip:
            return False
        what = "torch.func" if in_transform(y) else "nested tensors" if x.is_nested else None
        if what is not None:  # no values to look at, or no shape that a mask could have
            self._watch.unmodelled.setdefault(frame.name, set()).add(what)
        return what is None

    def _name(self, function: Any, weight: Tensor) -> str:
        """Return a call's name: its parameter's, or its module's and the number of the call."""
        assert self._watch is not None, "a function is only seen while watching"
        frame, own = self._watch.frame, self._names.get(id(weight))
        if own is not None:
            return own
        frame.calls += 1
        kind = getattr(function, "__name__", "layer")
        return frame.name if frame.calls == 1 else f"{frame.name}.{kind}_{frame.calls - 1}"

    def _record(
        self,
        layer: Layer,
        x: Tensor,
        weight: Tensor,
        y: Tensor,
        axis: int | None = None,
        view: Callable[[Tensor], Tensor] = lambda dy: dy,
    ) -> None:
        """Record fprop now, and the gradients when they come: of y's, what `view` selects."""
        known = layer.name in self._left_out
        recording = None if known else self._recording(layer, x, axis)
        if recording is None:
            return
        act, read = autocast(_with_zeros(x), _with_zeros(weight))
        ops = _backward_ops(x, weight)
        recording.record("weight", {"fprop": read} | {op: read for op in ops if op == "dgrad"})
        recording.record("act", {"fprop": act} | {op: act for op in ops if op == "wgrad"})

        def gradient(dy: Tensor) -> None:
            if not in_transform(dy):  # such as is_grads_batched
                recording.record("grad_out", dict.fromkeys(ops, view(dy.reshape(y_shape))))

        y_shape = y.shape if weight.dim() > 1 else (*y.shape, 1)
        if y.requires_grad:
            _unviewed(y).register_hook(gradient)


def _unviewed(y: Tensor) -> Tensor:
    """Return the tensor that an output is a view of, if the view is all of it.

    What changes a view in place, such as a ReLU, makes autograd forget the view's own hooks.
    """
    base = y._base
    if base is None or base.numel() != y.numel():
        return y
    return base if y.is_contiguous() and base.is_contiguous() else y


def _backward_ops(x: Tensor, weight: Tensor) -> list[OpName]:
    needed: dict[OpName, bool] = {"dgrad": x.requires_grad, "wgrad": weight.requires_grad}
    return [op for op, runs in needed.items() if runs]


@dataclass(frozen=True)
class _Columns:
    """The columns of one projection among those that are computed together, as (T, N, K)."""

    samples: int
    width: int
    columns: slice

    def __call__(self, dy: Tensor) -> Tensor:
        return dy.reshape(-1, self.samples, self.width)[..., self.columns]


def _layer_of(name: str, function: Any, given: dict[str, Any]) -> Layer:
    weight, x = given["weight"], given["input"]
    if function is functional.linear:
        return linear(name, *(weight if weight.dim() > 1 else weight[None]).shape)
    keys: tuple[str, ...] = ("stride", "padding", "dilation", "groups")
    rest = {key: given[key] for key in keys if key in given}
    if function in _TRANSPOSED:
        rest["output_padding"] = given.get("output_padding", 0)
    return Geometry.called(weight, **rest).layer(name, size_of(name, x, weight.dim() - 2))


def _with_zeros(values: Tensor) -> Tensor:
    """Return values with their zeros: of sparse layouts and structured 2:4 dense copies."""
    stored = torch.sparse.SparseSemiStructuredTensor
    if values.layout == torch.strided and not isinstance(values, stored):
        return values
    with torch.no_grad():
        return values.detach().to_dense()


def _weight_names(modules: Mapping[str, nn.Module]) -> dict[int, str]:
    """Return the names of weights, by the parameter's id: those of their modules."""
    return {
        id(parameter): path if name == "weight" else f"{path}.{name}"
        for path, module in modules.items()
        for name, parameter in module.named_parameters(recurse=False)
    }


class _Observed:
    """In place of a policy: it is not known what made the zeros."""

    def density(self, site: object) -> None:
        """Leave every operand as it is: no share is chosen."""

    def describe(self) -> dict[str, Any]:
        """Return the name under which a trace has such a run."""
        return {"name": "observed"}
