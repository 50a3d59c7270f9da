"""Where one run of a layer is recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from swatsim.tracefile.others import OtherWork
from swatsim.tracer.pytorch.layout import Layout
from swatsim.tracer.step_record import StepRecord
from swatsim.workload.layer import OUTPUT_OF, Operand, OpName

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """Where one run of a layer is recorded.

    Parameters
    ----------
    step : StepRecord
    layout : Layout
    kept : int
        How many of its N are recorded, the first ones.
    computing : callable
        Gives a context in which what is multiplied is this layer's, and so in the trace.
    computed : callable
        Told of a tensor and what was computed from it, value by value, out of sight.
    worked : callable
        Told of what a policy does of its own.
    """

    step: StepRecord
    layout: Layout
    kept: int
    computing: Callable[[], AbstractContextManager[None]]
    computed: Callable[[Tensor, Tensor], None]
    worked: Callable[[Iterable[OtherWork]], None]

    def record(
        self, operand: Operand, reads: Mapping[OpName, Tensor], kind: torch.dtype | None = None
    ) -> bool:
        """Record the non-zeros of an operand as ops read it; warn of a second backward pass.

        Parameters
        ----------
        operand : str
        reads : mapping of op to torch.Tensor
            The same object for ops that read it alike.
        kind : torch.dtype, optional
            What its values are stored as, if the tensors are of another type.

        Returns
        -------
        bool
            Whether they are in the trace.
        """
        name = self.layout.layer.name
        if any((name, op, operand) in self.step.masks for op in reads):
            message = "step %d: %s of %s comes again, by another backward pass: not recorded"
            log.warning(message, self.step.number, operand, name)
            return False
        if self.step.is_over:
            return False
        for values in {id(values): values for values in reads.values()}.values():
            ops = [op for op, read in reads.items() if read is values]
            self._operand(operand, ops, with_zeros(values.detach()), kind or values.dtype)
        return True

    def output(self, op: OpName, wanted: Tensor) -> None:
        """Record which elements of what an op makes somebody wants, if that is not known already.

        Parameters
        ----------
        op : str
        wanted : torch.Tensor of bool
            As the gradient of what the op makes, or the operand that it is the gradient of.
        """
        name, operand = self.layout.layer.name, OUTPUT_OF[op]
        if (name, op, operand) in self.step.masks or self.step.is_over:
            return
        mask = self.layout.nonzero(operand, wanted, self.kept)
        if not bool(mask.all()):
            self.step.output(name, op, mask.contiguous().numpy(force=True))

    def complete(self, operand: Operand, op: OpName, values: Tensor) -> None:
        """Record what an op reads of an operand, unless that is known already."""
        if (self.layout.layer.name, op, operand) not in self.step.masks:
            self.record(operand, {op: values})

    def _operand(
        self, operand: Operand, ops: list[OpName], values: Tensor, kind: torch.dtype
    ) -> None:
        mask = self.layout.nonzero(operand, values, self.kept)
        dtype = str(kind).removeprefix("torch.")
        name = self.layout.layer.name
        self.step.operand(name, ops, operand, mask.contiguous().numpy(force=True), dtype)


def with_zeros(values: Tensor) -> Tensor:
    """Return values with their zeros: of sparse layouts and structured 2:4 dense copies."""
    stored = torch.sparse.SparseSemiStructuredTensor
    if values.layout == torch.strided and not isinstance(values, stored):
        return values
    with torch.no_grad():
        return values.to_dense()
