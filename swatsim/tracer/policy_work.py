"""What a sparse training method does of its own: choosing masks, and applying those that it keeps.

Counted as what any implementation has to do, whatever ours does; a machine is charged for it, its
dense baseline is not:

- ``topk``: a choice among all values of an operand: reads them, writes a mask of one bit each;
- ``threshold``: a comparison of all values with a threshold of an earlier step: the same;
- ``mask``: a mask that is kept is applied: reads its bits; the values are read by the op anyway;
- ``momentum``: a smoothed gradient of each weight is updated: reads it and the gradient, writes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from swatsim.policies.interface import Work
from swatsim.tracefile.others import Operation, OtherWork
from swatsim.workload.layer import Layer, Operand
from swatsim.workload.value_types import DTYPES, of_recorded


def policy_work(
    layer: Layer,
    samples: int,
    operands: Mapping[Operand, Sequence[Work]],
    dtype: str = "float32",
) -> list[OtherWork]:
    """Return what a method does of its own in one step with a layer's operands.

    Parameters
    ----------
    layer : Layer
        As it runs; its name is the module's.
    samples : int
        N of its whole batch: Top-K is over all of it, whatever a trace holds.
    operands : mapping of {"weight", "act", "grad_out"} to sequence of Work
        What `Sparsifier.work` says of each.
    dtype : str
        The values' type, in torch's names; of one that is not known, 32 bits.

    Returns
    -------
    list of OtherWork
        Of the phase "policy", one operation each, equal ones of an operand added up.
    """
    return [
        one
        for operand, works in operands.items()
        for one in operand_work(
            layer.name, operand, prod(layer.shape_of(operand, samples)), works, dtype
        )
    ]


def operand_work(
    layer: str, operand: Operand, values: int, works: Sequence[Work], dtype: str = "float32"
) -> list[OtherWork]:
    """Return what a method does of its own in one step with an operand of so many values.

    Parameters are those of `policy_work`.
    """
    size = -(-values * DTYPES[of_recorded(dtype) or "fp32"] // 8)
    times = Counter(works)
    grows = operand != "weight" or None
    same: dict[str, Any] = {
        "module": layer,
        "phase": "policy",
        "dtype": dtype,
        "per_sample": grows,
    }
    done = {work: _operation(work, values, size) for work in times}
    return [
        OtherWork(operations=(one,), read=one.read, written=one.written, times=times[work], **same)
        for work, one in done.items()
    ]


def _operation(work: Work, values: int, size: int) -> Operation:
    """Return what is done with so many values of so many bytes."""
    mask = -(-values // 8)
    read, written = {
        "topk": (size, mask),
        "threshold": (size, mask),
        "mask": (mask, 0),
        "momentum": (2 * size, size),
    }[work]
    return Operation(function=work, elements=values, read=read, written=written)
