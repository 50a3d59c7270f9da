"""What a step does beside multiplying matrices: noted, so that a step's time is all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from swatsim.errors import SwatsimError, TraceError
from swatsim.tracefile.coverage import Count
from swatsim.tracefile.schema import ValueType
from swatsim.validation import FrozenRecord, Whole
from swatsim.workload.phases import Phase

#: Of a step: its header is read as a whole.
MAX_OTHERS = 100_000
MAX_TIMES = 2**31

Times = Annotated[Whole, Field(ge=1, le=MAX_TIMES)]
Word = Annotated[str, Field(strict=True, max_length=1000)]


class Operation(FrozenRecord):
    """One operation that multiplies no matrices.

    Parameters
    ----------
    function : str
        As the framework calls it, such as ``native_layer_norm``.
    elements : int
        Values that it works on: of its largest tensor, read or written.
    read, written : int
        Bytes of the tensors that it reads and writes, alone.
    """

    error_type: ClassVar[type[SwatsimError]] = TraceError

    function: Word
    elements: Count
    read: Count
    written: Count


class OtherWork(FrozenRecord):
    """Operations of a step's whole batch that multiply no matrices, one after another.

    They are one operation, or a chain of element-wise ones, each of which reads what the one before
    it made: run together, they could keep that in registers.

    Parameters
    ----------
    module : str
        The innermost module that ran; "" in none.
    phase : {"forward", "backward", "optimizer", "policy"}
        policy: what a sparse training method does for itself, such as Top-K.
    operations : tuple of Operation
        More than one: a chain.
    read, written : int
        Bytes that the chain reads and writes if what one operation makes for the next is neither
        written nor read; of one operation its own.
    dtype : str
        Type of most of the values, in torch's names, for machines that take another one.
    times : int
        How often the step does just this.
    per_sample : bool, optional
        Whether it grows with the batch. None: in the phases forward and backward it does; what an
        optimizer or a policy does with weights does not.
    """

    error_type: ClassVar[type[SwatsimError]] = TraceError

    module: Annotated[str, Field(strict=True)]
    phase: Phase
    operations: Annotated[tuple[Operation, ...], Field(min_length=1, max_length=MAX_OTHERS)]
    read: Count
    written: Count
    dtype: ValueType = "float32"
    times: Times = 1
    per_sample: Annotated[bool, Field(strict=True)] | None = None

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return the module's name, for refusals."""
        return f"other work of {data.get('module')!r}"

    @property
    def name(self) -> str:
        """Its functions, in order."""
        return "+".join(operation.function for operation in self.operations)

    @property
    def grows_with_batch(self) -> bool:
        """Whether half the batch is half of the work."""
        if self.per_sample is None:
            return self.phase in ("forward", "backward")
        return self.per_sample
