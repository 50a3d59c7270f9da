"""Results of any machines and any traces, in time over one common baseline."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from swatsim.arguments import (
    arguments,
    either,
    flag,
    function,
    instance_of,
    maybe,
    path_like,
    several,
    string,
    whole_number,
)
from swatsim.errors import ResultsError, shown
from swatsim.outputs import check_folder, contents_of, refuse_existing, write_files
from swatsim.reports import compared_words
from swatsim.reports.common_baseline import Reference, Unit, reference_of, unit_of
from swatsim.reports.compared import Compared, Progress, all_of, restricted
from swatsim.reports.compared_names import labels_of, machines_of, methods_of
from swatsim.reports.inputs import Source, sources
from swatsim.reports.methods import method
from swatsim.reports.side_by_side import side_by_side
from swatsim.reports.tables import Row, quotient
from swatsim.reports.unlike import unlike
from swatsim.results import Results

if TYPE_CHECKING:
    import pandas as pd

_INPUT = either(path_like, instance_of(Results))


@dataclass(frozen=True, repr=False)
class Comparison:
    """Results beside each other, in time over one common baseline.

    Parameters
    ----------
    rows : list of dict
        One each, in the order given. `label`; `method`, as the trace has it, and `trace`;
        `machine`. Of one step, the mean of `steps` recorded ones, of `images` of a batch of
        `batch_size`: what `swatsim.reports.rates.rates` has, `time_ms` (not a number where no
        machine has a clock) and `energy_pj` for example, and `cycles`; `layers_ms` and
        `layers_cycles`, its layers alone. Over the common baseline: `speed_up`, in time, or in
        cycles where no machine has a clock; `speed_up_layers`, of the layers alone;
        `energy_efficiency`, the baseline's energy by its own, not a number where but one of them
        has a DRAM's in it. Over its own baseline,
        `own_baseline`: `own_speed_up`. `bound` and `bound_share`: what takes most of its time.
        `dtype`, `clock_mhz`, `dram_mb_per_s` (0: no end to it), `multipliers`, `energy_table`;
        `macs_per_image`, dense; `ops`; `share` of a step's multiplications that all this is of;
        `others_left_out`, why it is of layers alone, or "". `trace_id`, and `place`: its folder or
        file.
    unit : swatsim.reports.common_baseline.Unit
        In what they are compared.
    baseline : swatsim.reports.common_baseline.Reference
        What all are compared with.
    warnings : list of str
        In what they differ unasked.
    compared : mapping of label to Compared
        Where rows come from.
    places : sequence of (str, str)
        Of each, its method and its machine, where these tell them apart; empty where labels are a
        user's.
    """

    rows: list[Row]
    unit: Unit
    baseline: Reference
    warnings: list[str]
    compared: Mapping[str, Compared]
    places: Sequence[tuple[str, str]] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a pandas frame."""
        import pandas as pd  # not needed by whoever only reads the rows

        return pd.DataFrame(self.rows)

    @property
    def sentences(self) -> list[str]:
        """What the comparison says, without full stops: the fastest, the most frugal, why."""
        best = self.compared[compared_words.fastest(self)["label"]].verdict.sentence
        who = "The fastest" if len(self.rows) > 1 else "It"
        why = f"{who} is {best[:1].lower()}{best[1:]}"
        return [*compared_words.sentences(self), why]

    def layers(self) -> list[Row]:
        """Return each layer and op of each, in what one step takes; totals of all layers last.

        Returns
        -------
        list of dict
            A row a layer, op and results: `layer` ("all layers" in the last rows), `op` ("layers"
            is all ops; "other", everything else, and "step", all of it, where all results have
            that), `label`; of one step `cycles`, `time_ms`, `energy_pj`, `dram_bytes`, and
            `ms_per_image`; `speed_up` over the common baseline's layer and op of that name; over
            the own baseline `own_speed_up`, its parts `speed_up_dense_operands` and
            `speed_up_zeros`, `energy_efficiency`; `of_ideal`, `of_ideal_compute`.

        Raises
        ------
        ResultsError
            If they have no layer and op in common, or can't be read any more.
        """
        every = {
            label: restricted(one.source.read(), one.span.ops, not one.span.left_out)
            for label, one in self.compared.items()
        }
        return list(side_by_side(every, self.unit, self.baseline))

    @arguments(ResultsError, folder=path_like, overwrite=flag)
    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = True) -> list[Path]:
        """Write a page, ``report.html``, the rows as ``comparison.csv``, and a picture of them.

        Parameters
        ----------
        folder : path
        overwrite : bool
            Replace an earlier page there, and its parts; else refuse.

        Returns
        -------
        list of pathlib.Path
            What was written, the page first.

        Raises
        ------
        ResultsError
            If the folder can't be written to.
        """
        from swatsim.reports.compared_page import page_of  # matplotlib

        check_folder(folder)
        files = page_of(self).files()
        if not overwrite:
            refuse_existing(Path(folder), files)
        gone = set(contents_of(Path(folder))).difference(files)
        return write_files(Path(folder), files, gone)

    def __repr__(self) -> str:
        return compared_words.as_text(self)

    def _repr_html_(self) -> str:
        return compared_words.as_html(self)


@arguments(
    ResultsError,
    results=several(_INPUT, "results, or paths of folders or points that hold some"),
    baseline=either(string, whole_number, instance_of(Results), maybe(string)),
    labels=maybe(several(string, "a label for each of the results")),
    progress=maybe(function),
)
def compare(
    *results: Results | str | os.PathLike[str],
    baseline: str | int | Results | None = None,
    labels: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Return results of any machines and traces beside each other, over one common baseline.

    They are compared in time, by image where steps are of different numbers of images; in cycles
    where no machine has a clock. Where some are of a step's layers alone, or of some ops, that is
    compared which all have. Whatever else differs the comparison's warnings say.

    Parameters
    ----------
    *results : Results or path
        Results, folders that `simulate` wrote, folders that `sweep` wrote (all points that are
        done), and points of a sweep, ``SWEEP/points/KEY.parquet``, in any mix.
    baseline : str, int or Results, optional
        What all are compared with: a machine, by its label, its number from 0, or the results
        given; or what results are compared with themselves, by their label and "dense": "A dense".
        By default what the first results are.
    labels : sequence of str, optional
        A name for each of `results`; points of a sweep have their own behind it. By default what
        tells them apart: the method, the machine, or both.
    progress : callable of (int, int), optional
        Told how many of how many results are read; where not all have the same ops, or everything
        else, they are read twice.

    Returns
    -------
    Comparison

    Raises
    ------
    ResultsError
        If results can't be read; if they can't be put in one unit, because some machines have a
        clock and others none, or there is no op that all have; if a label or baseline is not
        allowed.
    """
    if not results:
        raise ResultsError("compare: no results are given: name two at least", of_argument=True)
    found = sources(results)
    whole, alike = all_of(found, progress)
    names = labels_of(alike) if labels is None else _labels(labels, found, len(results), alike)
    unit = unit_of(alike, names)
    reference = reference_of(baseline, alike, names, unit)
    every = dict(zip(names, alike, strict=True))
    before = dict(zip(names, whole, strict=True))
    return Comparison(
        [_row(label, one, unit, reference) for label, one in every.items()],
        unit,
        reference,
        unlike(before, every, unit, reference),
        every,
        [] if labels else list(zip(methods_of(alike), machines_of(alike), strict=True)),
    )


def _labels(
    labels: Sequence[str], found: Sequence[Source], inputs: int, every: Sequence[Compared]
) -> list[str]:
    """Return a user's labels, one a source: points of a sweep have their own behind it."""
    if len(labels) != inputs:
        message = f"there are {len(labels)} labels for {inputs} results: give each one"
        raise ResultsError(message, of_argument=True)
    wrong = [one for one in labels if not one.strip() or labels.count(one) > 1]
    if wrong:
        message = f"label {shown(wrong[0])} is not allowed: each must be another text"
        raise ResultsError(message, of_argument=True)
    names = []
    for i, label in enumerate(labels):
        own = [one for source, one in zip(found, every, strict=True) if source.given == i]
        points = labels_of(own)
        names += [label] if len(own) == 1 else [f"{label}: {point}" for point in points]
    return names


def _row(label: str, one: Compared, unit: Unit, reference: Reference) -> Row:
    span, machine, base = one.span, one.machine, reference.side

    def over(part: str, column: str = "") -> float:
        theirs, ours = getattr(base, part), getattr(machine, part)
        costs = unit.cost(theirs, reference.images, column), unit.cost(ours, span.images, column)
        return quotient(*costs)

    return {
        **{"label": label, "method": method(one.policy), "trace": one.trace},
        **{"machine": machine.name, "time_ms": machine.step["time_ms"]},
        **{"speed_up": over("step"), "speed_up_layers": over("layers")},
        "energy_pj": machine.step["energy_pj"],
        "energy_efficiency": over("step", "energy_pj")
        if machine.has_dram == base.has_dram
        else nan,
        **machine.step,
        **{"layers_ms": machine.layers["time_ms"], "layers_cycles": machine.layers["cycles"]},
        **{"own_baseline": one.baseline.name, "own_speed_up": one.own["speed_up"]},
        **{"bound": one.verdict.bound, "bound_share": one.verdict.share},
        **one.ranked.values,
        **{"energy_table": one.energy_table, "macs_per_image": one.macs},
        **span.columns,
        **{"trace_id": one.trace_id, "place": one.source.place},
    }
