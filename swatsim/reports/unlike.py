"""In what compared results differ, beside what one wants to compare; each with its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from swatsim.reports import differences
from swatsim.reports.among import among, in_brief
from swatsim.reports.common_baseline import Reference, Unit
from swatsim.reports.compared import Compared
from swatsim.reports.compared_names import SAME_WORK
from swatsim.reports.labels import trimmed
from swatsim.reports.remarks import apart, unequal

#: How a label is called in a sentence.
Call = Callable[[str], str]
#: Steps that are named one by one.
LISTED = 6


def unlike(
    whole: Mapping[str, Compared], alike: Mapping[str, Compared], unit: Unit, reference: Reference
) -> list[str]:
    """Return warnings of what differs unasked, the weightiest first.

    Parameters
    ----------
    whole, alike : mapping of label to Compared
        As they are; as far as all have the same.
    unit : Unit
    reference : Reference
    """
    call = in_brief(alike)
    work = list(different_work(alike, reference, call))
    return [
        *work,
        *filter(None, [unequal({label: one.span for label, one in whole.items()}, call)]),
        *_ops(whole, call),
        *_images(alike, unit, call),
        *([] if work else _steps(alike, call)),
        *filter(None, [apart({label: one.span for label, one in alike.items()}, call)]),
        *differences.warning([one.ranked for one in alike.values()], _remedy),
        *_energies(alike, call),
        *_versions(alike, call),
    ]


def different_work(
    every: Mapping[str, Compared], reference: Reference, call: Call = str
) -> Iterator[str]:
    """Yield a warning of results whose layers multiply more or less than the baseline's do."""
    macs = {label: one.macs for label, one in every.items()}
    own = [*every.values()][reference.whose].macs
    if any(abs(value - own) > SAME_WORK * own for value in macs.values()):
        said = {label: f"{trimmed(value / 1e9)} GMAC" for label, value in macs.items()}
        yield (
            f"different work: an image is {among(said, call)}, dense; times and energies compare "
            "that too, and the own speed-ups do not"
        )


def _remedy(settings: Mapping[str, Any]) -> str:
    words = " ".join(f"--set {name}={value}" for name, value in settings.items())
    return f"simulate the others with {words}"


def _where_unlike(values: Mapping[str, str], words: str, call: Call) -> list[str]:
    """Return the words with the values in place of "{}", if these are not all the same."""
    return [words.format(among(values, call))] if len(set(values.values())) > 1 else []


def _ops(every: Mapping[str, Compared], call: Call) -> list[str]:
    return _where_unlike(
        {label: " and ".join(one.span.ops) for label, one in every.items()},
        "they are of different ops, {}: only those that all have are compared; simulate all "
        "without --op",
        call,
    )


def _images(every: Mapping[str, Compared], unit: Unit, call: Call) -> list[str]:
    if unit.per_image:
        return _where_unlike(
            {label: f"{one.span.images}" for label, one in every.items()},
            "steps are of different numbers of images, {}: an image is compared; weights are read "
            "and updated once a step, so that few images pay more of that each: record as many",
            call,
        )
    return _where_unlike(
        {label: f"{one.span.batch_size}" for label, one in every.items()},
        "the images are of different batches, {}: what a step does once, for all of its batch, "
        "weighs as much in each; record runs of one batch size",
        call,
    )


def _steps(every: Mapping[str, Compared], call: Call) -> list[str]:
    return _where_unlike(
        {label: _listed(one.numbers) for label, one in every.items()},
        "the recorded steps are others, {}: what zeros there are changes over a run; simulate the "
        "same ones (--step)",
        call,
    )


def _listed(steps: Sequence[int]) -> str:
    if len(steps) <= LISTED:
        return f"step{'s' * (len(steps) != 1)} {', '.join(map(str, steps))}"
    return f"{len(steps)} steps from {steps[0]} to {steps[-1]}"


def _energies(every: Mapping[str, Compared], call: Call) -> list[str]:
    dram = {True: "with a DRAM", False: "without"}
    return [
        *_where_unlike(
            {label: dram[one.machine.has_dram] for label, one in every.items()},
            "the energies don't compare, {}: simulate the others with a memory system, and a DRAM "
            "that is not ideal",
            call,
        ),
        *_where_unlike(
            {label: one.energy_table or "none" for label, one in every.items()},
            "the energies are of different tables, {}: simulate all with one",
            call,
        ),
    ]


def _versions(every: Mapping[str, Compared], call: Call) -> list[str]:
    return _where_unlike(
        {label: one.version or "none that is noted" for label, one in every.items()},
        "different versions of swatsim simulated them, {}: simulate all again with one",
        call,
    )
