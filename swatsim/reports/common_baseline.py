"""One unit and one baseline for results of any machines and traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swatsim.errors import ResultsError, shown, unknown
from swatsim.reports.among import among
from swatsim.reports.compared import Compared, Side
from swatsim.reports.tables import Row
from swatsim.results import Results

#: Behind a label: what those results are compared with themselves.
DENSE = " dense"


@dataclass(frozen=True)
class Unit:
    """What is compared of each: its time, or its cycles where no machine has a clock.

    Parameters
    ----------
    column : {"time_ms", "cycles"}
    per_image : bool
        Whether an image is what they have in common, or a step.
    subject : str
        What a step's figures are of: "a step", or "a step's layers".
    """

    column: str
    per_image: bool
    subject: str

    @property
    def word(self) -> str:
        """The unit itself: ms, or cycles."""
        return "ms" if self.column == "time_ms" else "cycles"

    @property
    def of_what(self) -> str:
        """Whose figures they are, in words."""
        if not self.per_image:
            return self.subject
        return "an image of " + self.subject

    def cost(self, taken: Row, images: int, column: str = "") -> float:
        """Return what is compared of what a machine takes a step; another column of it, if named.

        Parameters
        ----------
        taken : dict
            What of `swatsim.reports.rates.rates` it has, and cycles.
        images : int
        column : {"energy_pj", "energy_with_leakage_pj"}, optional
        """
        name = column or self.column
        value: float = taken[name]
        return value / images if self.per_image else value


@dataclass(frozen=True)
class Reference:
    """What all are compared with.

    Parameters
    ----------
    label : str
        As a user names it.
    words : str
        What it is.
    side : Side
    images : int
    whose : int
        Of which results.
    is_baseline : bool
        Whether it is their own baseline, or their machine.
    """

    label: str
    words: str
    side: Side
    images: int
    whose: int
    is_baseline: bool


def unit_of(every: Sequence[Compared], labels: Sequence[str]) -> Unit:
    """Return the unit in which all can be compared.

    Raises
    ------
    ResultsError
        If some have a clock and others none: cycles of one are no time of the other.
    """
    clocked = [bool(one.machine.clock_mhz) for one in every]
    if len(set(clocked)) > 1:
        of = {True: "a clock", False: "none"}
        words = among({label: of[it] for label, it in zip(labels, clocked, strict=True)})
        raise ResultsError(
            f"there is no unit in which all can be compared: of the machines some have {words}; "
            "leave out those without a clock, or compare these alone, in cycles",
            of_argument=True,
        )
    images = {one.span.images for one in every}
    column = "time_ms" if clocked[0] else "cycles"
    return Unit(column, len(images) > 1, every[0].span.subject)


def reference_of(
    chosen: Any, every: Sequence[Compared], labels: Sequence[str], unit: Unit
) -> Reference:
    """Return what all are compared with: a label, a number or results; by default see `compare`.

    Raises
    ------
    ResultsError
        If there is no such one, or it can't be put in the unit of the others.
    """
    whose, is_baseline = (0, True) if chosen is None else _chosen(chosen, every, labels)
    one = every[whose]
    side = one.baseline if is_baseline else one.machine
    label = labels[whose] + DENSE * is_baseline
    found = Reference(
        label, f"{side.name} on {one.trace}", side, one.span.images, whose, is_baseline
    )
    if unit.column == "time_ms" and not side.clock_mhz:
        raise ResultsError(
            f"baseline {label!r} has no clock, and the others' times can't be put beside its "
            f"cycles: choose another baseline; known are {', '.join(labels)}",
            of_argument=True,
        )
    return found


def _chosen(
    chosen: str | int | Results, every: Sequence[Compared], labels: Sequence[str]
) -> tuple[int, bool]:
    """Return whose baseline it is, and whether it is what these are compared with themselves."""
    if isinstance(chosen, Results):
        places = [i for i, one in enumerate(every) if one.source.kept is chosen]
        if not places:
            message = "baseline: these results are none of those that are compared"
            raise ResultsError(message, of_argument=True)
        return places[0], False
    if isinstance(chosen, int):
        if not 0 <= chosen < len(every):
            raise ResultsError(
                f"baseline={shown(chosen)} is not allowed: must be from 0 to {len(every) - 1}",
                of_argument=True,
            )
        return chosen, False
    if chosen in labels:
        return labels.index(chosen), False
    known = {f"{label}{DENSE}": i for i, label in enumerate(labels)}
    if chosen in known:
        return known[chosen], True
    raise ResultsError(unknown("baseline", chosen, [*labels, *known]), of_argument=True)
