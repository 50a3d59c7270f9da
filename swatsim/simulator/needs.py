"""What a buffer would have to hold for every op of a run."""

from __future__ import annotations

from collections.abc import Iterable

from swatsim.simulator.interface import ConfiguredMachine
from swatsim.simulator.memory import plan
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.memory.stores import stores_of
from swatsim.simulator.memory.tensors import shape_of
from swatsim.workload.training_ops import Op


def for_all(
    error: BufferTooSmallError, machine: ConfiguredMachine, baseline: bool, ops: Iterable[Op]
) -> BufferTooSmallError:
    """Make of one op's refusal that of all ops: one capacity that will do.

    Parameters
    ----------
    error : BufferTooSmallError
    machine : ConfiguredMachine
        Whose buffer it is.
    baseline : bool
        Whether its dense baseline runs too.
    ops : iterable of Op
    """
    config, most, where = machine.config, error.needed, error.where
    for op in (it.as_convolution() for it in ops):
        shape = shape_of(op.layer, op.name, op.samples)
        for dense in (False, True) if baseline else (False,):
            needed = plan.needs(shape, stores_of(op, shape, config, dense), config)[error.name]
            if needed > most:
                most = needed
                where = op.title + (", dense" if dense else "")
    return BufferTooSmallError(where, error.blocks, error.name, error.got, most, machine.name)
