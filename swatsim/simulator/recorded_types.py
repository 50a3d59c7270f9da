"""Which types values had in a recorded run, and which they are of on a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from swatsim.simulator.runnable import ConfiguredMachine, Runnable
from swatsim.tracefile import Step
from swatsim.workload.layer import OPERANDS_OF, Layer, OpName
from swatsim.workload.value_types import of_recorded, widest


def type_of(step: Step, layer: Layer, name: OpName) -> str | None:
    """Return the value type of an op's operands in the run, the wider one; None: it is not known.

    Where one is not known, or none that there is here, it is the other's.
    """
    records = (step.record(layer.name, name, operand) for operand in OPERANDS_OF[name])
    return widest(of_recorded(record.dtype) for record in records)


def types_of_layers(step: Step) -> set[str | None]:
    """Return the types of a step's ops, as `type_of` has them."""
    return {type_of(step, *op) for op in step.ops()}


def types_of_others(step: Step) -> set[str | None]:
    """Return those of what it does beside multiplying matrices; none where that is not noted."""
    return {of_recorded(work.dtype) for work in step.others or ()}


def type_on(recorded: str | None, machine: Runnable, compared: Runnable) -> str | None:
    """Return the type of a machine's values; None: its own.

    Parameters
    ----------
    recorded : str or None
        The trace's.
    machine : ConfiguredMachine or OwnMachine
    compared : ConfiguredMachine or OwnMachine
        The one that it is the baseline of, or itself.
    """
    for one in (machine, compared):
        if isinstance(one, ConfiguredMachine) and one.dtype_is_set:
            return one.config.dtype
    return recorded


def type_among(
    recorded: Iterable[str | None],
    machine: Runnable,
    compared: Runnable,
    which: Callable[[Iterable[str]], str | None] = widest,
) -> str | None:
    """Return which of a machine's types of values it is, of several recorded ones; see `type_on`.

    None: there are none, or the machine has no type.
    """
    types = {type_on(one, machine, compared) for one in recorded}
    if machine.config is None or not types:
        return None
    return which({one or machine.config.dtype for one in types})
