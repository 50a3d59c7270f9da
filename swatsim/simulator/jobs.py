"""The ops of some steps of a trace, one step after another: few steps are open at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from swatsim.tracefile import Step, Trace
from swatsim.workload.layer import Layer, OpName

Job = tuple[Step, Layer, OpName]


class Jobs:
    """Ops of steps whose two masks are recorded; a step is opened when its turn comes.

    Each walk opens the steps anew, but for those that `Trace.step` keeps; what is walked is held by
    nobody.

    Parameters
    ----------
    trace : Trace
    steps : sequence of int
        In the order in which they come.
    ops : sequence of {"fprop", "dgrad", "wgrad"}
    """

    def __init__(self, trace: Trace, steps: Sequence[int], ops: Sequence[OpName]) -> None:
        self._trace = trace
        self._steps = tuple(steps)
        self._ops = frozenset(ops)
        self._number: int | None = None

    def __iter__(self) -> Iterator[Job]:
        """Yield the ops.

        Raises
        ------
        TraceError
            If a step is missing or damaged.
        """
        number = 0
        for step in map(self._trace.step, self._steps):
            for layer, name in step.ops():
                if name in self._ops:
                    number += 1
                    yield step, layer, name
        self._number = number

    def some(self, steps: int) -> list[Job]:
        """Return the ops of so many of the steps, evenly spaced."""
        places = {len(self._steps) * i // steps for i in range(steps)}
        chosen = [self._steps[place] for place in sorted(places)]
        return [*Jobs(self._trace, chosen, tuple(self._ops))]

    def __len__(self) -> int:
        """How many there are; counted in a walk, unless one was to the end before."""
        if self._number is None:
            self._number = sum(1 for _ in self)
        return self._number

    def __bool__(self) -> bool:
        """Whether there is one; no more steps are opened than that takes."""
        return next(iter(self), None) is not None


#: What is run: of one step, or of many, a walk at a time.
Some = Jobs | Sequence[Job]
