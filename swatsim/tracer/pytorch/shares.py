"""How much of what a step multiplies is in the trace, counted as it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Literal, TypeAlias

from swatsim.tracefile.coverage import Coverage, Macs, Unheld

Phase: TypeAlias = Literal["forward", "backward"]


class Shares:
    """Adds up multiply-accumulates: of all, and of what is not in the trace by module."""

    def __init__(self) -> None:
        self._seen: Counter[Phase] = Counter()
        self._not_held: Counter[tuple[str, str, Phase]] = Counter()

    def add(self, phase: Phase, macs: int, where: tuple[str, str] | None = None) -> None:
        """Add what an operation multiplies.

        Parameters
        ----------
        phase : {"forward", "backward"}
        macs : int
        where : (module, what), optional
            Of what is not in the trace.
        """
        self._seen[phase] += macs
        if where is not None:
            self._not_held[(*where, phase)] += macs

    def coverage(self, left_alone: Collection[str], unseen: Collection[str]) -> Coverage:
        """Return what a step stores."""
        named = dict.fromkeys((module, what) for module, what, _ in self._not_held)
        missed = [self._unheld(module, what) for module, what in named]
        forward = self._seen["forward"] - sum(each.forward for each in missed)
        backward = self._seen["backward"] - sum(each.backward for each in missed)
        return Coverage(
            seen=Macs(forward=self._seen["forward"], backward=self._seen["backward"]),
            held=Macs(forward=forward, backward=backward),
            not_held=tuple(sorted(missed, key=lambda each: -(each.forward + each.backward))),
            left_alone=tuple(sorted(left_alone)),
            unseen=tuple(sorted(unseen)),
        )

    def _unheld(self, module: str, what: str) -> Unheld:
        forward, backward = (self._not_held[module, what, phase] for phase in _PHASES)
        return Unheld(module=module, what=what, forward=forward, backward=backward)


_PHASES: tuple[Phase, Phase] = ("forward", "backward")
