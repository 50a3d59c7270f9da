"""Which of a layer's runs in a step keep something at once: runs of one pass, or of several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from math import inf, prod

from swatsim.tracefile.schema import MaskRecord


def alive(records: Iterable[MaskRecord]) -> frozenset[str]:
    """Return the layers' runs that a step keeps at once, where it keeps the most.

    A run keeps what it needs from its first mask until its gradient comes. Masks stand in a step in
    the order in which they came. So gradient accumulation keeps one run of a layer, the first of
    those that keep the most; a layer that runs twice before the backward pass both; of a region
    that a checkpoint recomputes the run whose gradient comes, for the other one kept nothing. Where
    masks came layer by layer, as in a synthetic trace, their order tells nothing: all are alive.

    Parameters
    ----------
    records : iterable of MaskRecord
        Of one step, in its order. `NAME@2` is the second run of `NAME`.

    Returns
    -------
    frozenset of str
        Names of layers.
    """
    runs: dict[str, dict[str, _Run]] = {}
    for time, record in enumerate(record for record in records if not record.is_output):
        of_layer = runs.setdefault(record.layer.partition("@")[0], {})
        run = of_layer.setdefault(record.layer, _Run(time))
        if record.operand == "grad_out":
            run.end = min(run.end, time)
        else:
            run.masks += 1
        if (record.op, record.operand) == ("wgrad", "act"):
            run.elements = prod(record.shape)
    if len(runs) > 1 and not any(run.spans for each in runs.values() for run in each.values()):
        return frozenset(name for each in runs.values() for name in each)
    return frozenset(name for each in runs.values() for name in _most(each))


class _Run:
    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.end: float = inf
        self.masks = 0  # before the gradient
        self.elements = 0  # of the input that is kept

    @property
    def spans(self) -> bool:
        """Whether other layers' masks came before its gradient; so they do in a training."""
        return self.masks < self.end - self.begin < inf


def _most(runs: Mapping[str, _Run]) -> list[str]:
    """Return the runs of a layer that are alive when they keep the most, the first such moment."""
    if any(run.end < inf for run in runs.values()):
        runs = {name: run for name, run in runs.items() if run.end < inf}
    size, most, when = 0, -1, 0
    ends: list[tuple[float, int]] = []
    for run in runs.values():  # as they begin
        while ends and ends[0][0] <= run.begin:
            size -= heappop(ends)[1]
        if run.end > run.begin:
            size += run.elements
            heappush(ends, (run.end, run.elements))
        if size > most:
            most, when = size, run.begin
    return [name for name, run in runs.items() if run.begin <= when < run.end]
