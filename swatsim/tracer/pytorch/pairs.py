"""A product of two activations, from where it is done to where it has a name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from threading import get_ident

import torch
from torch import Tensor

from swatsim.tracer.pytorch.factors import Factors
from swatsim.tracer.pytorch.gradients import Product
from swatsim.tracer.pytorch.private import others_pack
from swatsim.tracer.pytorch.watch import Frame
from swatsim.workload.layer import OpName

#: What products are called: attention's two, and any other.
SCORES, VALUES, PLAIN = "scores", "values", "matmul"


@dataclass(eq=False)
class Pair:
    """A product of two activations.

    What it is called shows after it, in what becomes of its output: only then it is recorded.

    Parameters
    ----------
    product : Product
    size : int
        Multiplications of the forward pass.
    frame : Frame or None
        The module that runs; None outside of the model.
    factors : Factors or None
        None once it has a name.
    record : callable
        Records it under a name of a kind.
    """

    product: Product
    size: int
    frame: Frame | None
    factors: Factors | None
    record: Callable[[Pair, Factors, str], None]
    linked: bool = field(default_factory=torch.is_grad_enabled)
    packs: bool = field(default_factory=others_pack)
    thread: int = field(default_factory=get_ident)

    def keep(self, written: Collection[int]) -> None:
        """Copy a factor whose memory is about to be written, for it is recorded as it was read."""
        found = self.factors
        if found is not None and not found.left.is_nested:
            left, right = (_kept(each, written) for each in (found.left, found.right))
            self.factors = replace(found, left=left, right=right)

    def named(self, kind: str) -> None:
        """Record it under a name of a kind, if it has none yet."""
        found, self.factors = self.factors, None
        if found is not None:
            with torch.no_grad():
                self.record(self, found, kind)

    def output(self, op: OpName, wanted: Tensor) -> None:
        """Record which elements somebody wants of what an op makes.

        Parameters
        ----------
        op : str
        wanted : torch.Tensor of bool
            In the shape of the product's output, or of the factor whose gradient it is.
        """
        for part, recording in self.product.parts:
            views = {"fprop": part.grads, "dgrad": part.acts, "wgrad": part.weights}
            recording.output(op, views[op](wanted))


def _kept(factor: Tensor, written: Collection[int]) -> Tensor:
    if factor.untyped_storage()._cdata not in written:
        return factor
    return factor.detach().clone().requires_grad_(factor.requires_grad)
