"""A product of two activations, from where it is done to where it has a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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
