"""What a buffer would have to hold for every op of a run."""

from __future__ import annotations

from collections.abc import Iterable

from swatsim.simulator.memory import plan
from swatsim.simulator.memory.config import MemoryConfig
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.memory.stores import stores_of
from swatsim.simulator.memory.tensors import shape_of
from swatsim.workload.lowering import LoweredOp


def of_all_ops(
    error: BufferTooSmallError, config: MemoryConfig, dense: bool, ops: Iterable[LoweredOp]
) -> BufferTooSmallError:
    """Return one op's refusal as that of all ops: one capacity that will do.

    Parameters
    ----------
    error : BufferTooSmallError
    config : MemoryConfig
        Of the machine whose buffer it is.
    dense : bool
        Whether its dense baseline runs too.
    ops : iterable of LoweredOp
    """
    most, where = error.needed, error.where
    for op in ops:
        shape = shape_of(op)
        for stored_dense in (False, True) if dense else (False,):
            stores = stores_of(op, shape, config, stored_dense)
            needed = plan.smallest_capacities(shape, stores, config)[error.name]
            if needed > most:
                most = needed
                where = op.title + (", dense" if stored_dense else "")
    return BufferTooSmallError(where, error.blocks, error.name, error.got, most, error.whose)
