"""How much of a step's multiplications a trace holds, and what it does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from swatsim.errors import SwatsimError, TraceError
from swatsim.validation import FrozenRecord, Whole

#: Of one direction, so that the sum of both is below 2**63.
MAX_MACS = 2**62 - 1
#: Of one list: a step's header is read as a whole.
MAX_NAMED = 100_000

Count = Annotated[Whole, Field(ge=0, le=MAX_MACS)]
Named = Annotated[tuple[Annotated[str, Field(strict=True)], ...], Field(max_length=MAX_NAMED)]


class Macs(FrozenRecord):
    """Multiply-accumulates of a step's whole batch.

    Parameters
    ----------
    forward, backward : int
        What the forward and the backward pass multiply.
    """

    error_type: ClassVar[type[SwatsimError]] = TraceError

    forward: Count
    backward: Count

    @property
    def total(self) -> int:
        """Of both passes."""
        return self.forward + self.backward


class Unheld(FrozenRecord):
    """What multiplied in a step and is in no mask.

    Parameters
    ----------
    module : str
        In which module of the model; "" in none of its parts.
    what : str
        What it is, in words.
    forward, backward : int
        Multiply-accumulates of the whole batch.
    """

    error_type: ClassVar[type[SwatsimError]] = TraceError

    module: Annotated[str, Field(strict=True)]
    what: Annotated[str, Field(strict=True)]
    forward: Count
    backward: Count

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return the module's name, for refusals."""
        return f"not_held of {data.get('module')!r}"


class Coverage(FrozenRecord):
    """The multiply-accumulates of a step, as the framework ran them, and how many of them are held.

    They are those of the whole batch, whatever number of its samples is kept.

    Parameters
    ----------
    seen : Macs
        Of everything that multiplied matrices.
    held : Macs
        Of those, what the step has masks of.
    not_held : tuple of Unheld
        The others, by module.
    left_alone : tuple of str
        Modules and layers that were left alone: by the user's ``skip=``, or dense under a tracer.
    unseen : tuple of str
        Parameters of two axes or more that got a gradient and are in no op; not tables that were
        looked up in, nor what was only added to data or put beside it: these multiply nothing.
    """

    error_type: ClassVar[type[SwatsimError]] = TraceError

    seen: Macs
    held: Macs
    not_held: Annotated[tuple[Unheld, ...], Field(max_length=MAX_NAMED)] = ()
    left_alone: Named = ()
    unseen: Named = ()

    @model_validator(mode="after")
    def _relations(self) -> Coverage:
        for name in ("forward", "backward"):
            seen, held = getattr(self.seen, name), getattr(self.held, name)
            if held > seen:
                raise ValueError(f"{name}: held={held} is more than seen={seen}")
            named = sum(getattr(part, name) for part in self.not_held)
            if named > seen - held:
                raise ValueError(
                    f"{name}: not_held adds up to {named}, but seen={seen} less held={held} is "
                    f"{seen - held}"
                )
        return self

    @property
    def share(self) -> float:
        """Held of seen multiply-accumulates; 1.0 if nothing multiplied."""
        return self.held.total / self.seen.total if self.seen.total else 1.0
