"""A product in the graph: what its gradients read, and which of them are computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from swatsim.tracer.pytorch.factors import Factors, Part, factors
from swatsim.tracer.pytorch.private import in_transform, unseen
from swatsim.tracer.pytorch.recording import Recording
from swatsim.tracer.pytorch.shares import Shares
from swatsim.workload.layer import OpName

aten = torch.ops.aten


class Product:
    """One product of the forward pass, and what its node in the graph does.

    Parameters
    ----------
    shares : Shares
    module : str
        The innermost that ran.
    what : str
        What it is called if it is in no layer.
    """

    def __init__(self, shares: Shares, module: str, what: str) -> None:
        self.module, self.what = module, what
        self.held = self.packs = False
        self.weight_is_right = True
        #: Names of the parameters that either factor is computed from.
        self.sources: set[str] = set()
        self.parts: list[tuple[Part, Recording]] = []
        #: Of the left and the right factor.
        self.shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
        #: Of two activations, where left and right lie; None of a weight and an activation.
        self.factors: tuple[StorageWeakRef, StorageWeakRef] | None = None
        #: Which of the node's inputs the two factors are.
        self.at = (0, 1)
        #: Whether both are vectors, whose gradients are no products of matrices.
        self.vectors = False
        #: Multiplications of the forward pass that count only if a backward pass follows.
        self.late = 0
        #: Called before gradients come: a product without a name gets one.
        self.settle: Callable[[], None] | None = None
        #: Whether its gradients are in no graph.
        self.is_unlinked = False
        self._shares = shares
        self._turned: dict[int, tuple[Tensor, bool]] = {}
        self._read: dict[str, Tensor] = {}
        self._ended = False
        #: Why the gradients that are computed now are in no layer.
        self._missed = ""

    @property
    def where(self) -> tuple[str, str] | None:
        """Module and what, of a product that is in no layer, or of gradients that are in none."""
        if self.held:
            return (self.module, self._missed) if self._missed else None
        return self.module, self.what

    def operands(self, found: Factors, linked: bool) -> None:
        """Record what fprop reads, and dgrad and wgrad, if those are sure to read the same."""
        act, weight = (
            (found.left, found.right) if self.weight_is_right else (found.right, found.left)
        )
        sure = linked and not self.packs
        for part, recording in self.parts:
            reads = part.weights(weight)
            ops: dict[OpName, Tensor] = {"fprop": reads}
            recording.record(
                "weight", ops | ({"dgrad": reads} if sure and act.requires_grad else {})
            )
            reads = part.acts(act)
            ops = {"fprop": reads}
            recording.record(
                "act", ops | ({"wgrad": reads} if sure and weight.requires_grad else {})
            )

    def attach(self, node: Any, passes: Any) -> None:
        """Add hooks to the node that computes the product's gradients."""

        def before(gradients: tuple[Tensor | None, ...]) -> None:
            with passes.guarded(), unseen():
                self._begin(gradients, passes)

        def after(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> None:
            with passes.guarded(), unseen():
                self._end(inputs, outputs, passes)

        node.register_prehook(before)
        node.register_hook(after)

    def sees(self, func: Any, arguments: tuple[Any, ...], named: Any, out: Any) -> None:
        """Find what the node's own products read, where that may not be what fprop read."""
        if not (self.held and self.packs):
            return
        if func._overloadpacket is aten.convolution_backward:
            self._read = {"left": arguments[1], "right": arguments[2]}
        elif (found := factors(func, arguments, named)) is not None:
            self._factor(found)
        elif isinstance(out, Tensor):
            self._follow(func, arguments, out)

    def counted(self, size: int) -> int:
        """Return how much of what its node's operation multiplies was asked for: all of it."""
        return size

    def gradient(self, dy: Tensor, ops: Mapping[OpName, bool]) -> None:
        """Record the gradient of the output for the ops that ran, and what else they read."""
        ran = [op for op, runs in ops.items() if runs]
        if not self.held or not ran or in_transform(dy):
            return
        dy = dy[:, None] if dy.dim() == 1 else dy  # of a vector
        sides = ("right", "left") if self.weight_is_right else ("left", "right")
        weight, act = (self._read.get(side) for side in sides)
        for part, recording in self.parts:
            if "dgrad" in ran and weight is not None:
                recording.complete("weight", "dgrad", part.weights(weight))
            if "wgrad" in ran and act is not None:
                recording.complete("act", "wgrad", part.acts(act))
            recording.record("grad_out", dict.fromkeys(ran, part.grads(dy)))
        self._read = {}

    def reads(self, side: str, factor: Tensor) -> None:
        """Note what a factor is where its gradient's product reads it."""
        self._read[side] = factor

    def _begin(self, gradients: tuple[Tensor | None, ...], passes: Any) -> None:
        passes.begins(self)
        if self.settle is not None:
            self.settle()
        if self.late:
            self._shares.add("forward", self.late, self.where)
            self.late = 0
        dy = gradients[0] if gradients else None
        self._turned = {} if dy is None else {id(dy): (dy, False)}
        if dy is not None and in_transform(dy):
            self._missed = "a batch of gradients"
        elif self._ended:
            self._missed = "another backward pass"

    def _end(self, inputs: Any, outputs: Any, passes: Any) -> None:
        passes.ends(self)
        self._turned, self._ended = {}, True
        if not outputs or outputs[0] is None or self.vectors:
            return
        left, right = (at < len(inputs) and inputs[at] is not None for at in self.at)
        act, weight = (left, right) if self.weight_is_right else (right, left)
        self.gradient(outputs[0], {"dgrad": act, "wgrad": weight})

    def _factor(self, found: Factors) -> None:
        """Note which factor a product with the gradient reads: dL = dy R', dR = L' dy."""
        pairs = ((found.left, found.right, True), (found.right, found.left, False))
        for gradient, other, is_left in pairs:
            if (known := self._turned.get(id(gradient))) is not None:
                turned = known[1]
                side = "right" if is_left != turned else "left"
                self._read[side] = other if turned else other.mT
                return

    def _follow(self, func: Any, arguments: tuple[Any, ...], out: Tensor) -> None:
        """Follow the gradient through transposes and the like."""
        for each in arguments:
            known = self._turned.get(id(each)) if isinstance(each, Tensor) else None
            if known is not None and out.numel() == each.numel():
                turns = func._overloadpacket in (aten.t, aten.transpose, aten.mT, aten.permute)
                self._turned[id(out)] = out, known[1] != turns
                return
