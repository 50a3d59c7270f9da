"""A row a point: what was varied, and what a training step takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swatsim.displayed import Displayed
from swatsim.errors import ResultsError
from swatsim.form import led_by
from swatsim.reports import differences, page_tables, rates, tables
from swatsim.reports.labels import shown
from swatsim.reports.span import Span, span_of
from swatsim.results import Results
from swatsim.simulator.vector import SystemConfig
from swatsim.store import Looked
from swatsim.sweeps.spec import Point
from swatsim.sweeps.store import Store

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


#: What a frame has first.
LEADING = (
    *(
        "trace",
        "machine",
        "time_ms",
        "ms_per_image",
        "speed_up",
        "energy_pj",
        "power_w",
        "area_mm2",
    ),
    *("multipliers", "buffer_kib", "status", "error"),
)


@dataclass(frozen=True, repr=False)
class Summary(Displayed):
    """The points of a sweep, one row each, in its order.

    Parameters
    ----------
    rows : list of dict
        `point` (its file's name), `status` (done, failed or left), `error`, `trace`, `machine`,
        `preset`, the parameters that are varied, `multipliers`, `buffer_kib`, `dtype`, `clock_mhz`,
        `dram_mb_per_s` (0: no end to it). Of one step, the mean of `steps` recorded ones, of
        `images` of a batch of `batch_size`, in the `ops` that were run: what
        `swatsim.reports.rates.of_step` has: `time_ms`, `ms_per_image`, `images_per_s`, `energy_pj`,
        `power_w`, `tops_effectual` for example; the machine's `area_mm2` and `leakage_mw`, and the
        table that they are of (`energy_table`). Of all of them together: `speed_up` over the
        baseline, `speed_up_layers` of layers alone, and what else
        `swatsim.reports.page_tables.ratios` has; the speed-up of each op. `others_left_out` says
        why all of that is of layers alone; empty, it is of whole steps.
    folder : pathlib.Path
        Of the sweep: ``swatsim.report(summary.folder)``.
    warnings : list of str
        In what the machines differ, though no parameter of the sweep says so.
    looked : Looked
        Counts that were looked for in the store now: those that it had, and all.
    """

    rows: list[Row]
    folder: Path
    warnings: list[str] = field(default_factory=list)
    looked: Looked = field(default_factory=Looked)

    def results(self, point: str) -> Results:
        """Return the results of one point, by its name in the column `point`.

        Raises
        ------
        ResultsError
            If it is not done.
        """
        return Store(self.folder).load(point)

    @property
    def front(self) -> list[Row]:
        """The rows that no other beats in time, energy and size at once.

        Points without a DRAM in their energy (memory=none, dram=ideal) are left out, unless all are
        such. Energy has leakage in it, and size is area, where these are known of all: of tables
        that have them, and machines with a memory system. Otherwise energy is without leakage, and
        size the multipliers, and the buffers.
        """
        done = [row for row in self.rows if row["status"] == "done"]
        return sorted(page_tables.pareto(done), key=lambda row: row["time_ms"])

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a tidy pandas frame, the columns that one wants first, first."""
        import pandas as pd  # not needed by whoever only runs the sweep

        frame = pd.DataFrame(self.rows)
        return frame[led_by(LEADING, frame.columns)]

    def _lines(self) -> list[str]:
        done = [row for row in self.rows if row["status"] == "done"]
        s = "s" * (len(self.rows) != 1)
        counts = f"{len(self.rows)} point{s}, {len(done)} done, {len(self.failed)} failed"
        counts += f", {len(self.left)} left" if self.left else ""
        lines = [f"Sweep in {self.folder}: {counts}"]
        if done:
            best = min(done, key=lambda row: row["time_ms"])
            span = Span.from_row(best)
            takes = f"{shown('time_ms', best['time_ms'])} for {span.subject} ({span.mean})"
            lines.append(
                f"Fastest: {best['machine']} on {best['trace']}, {takes}, speed-up over its own "
                f"baseline: {page_tables.of_step(best)}"
            )
            left = page_tables.not_weighed(done)
            words = f"{len(self.front)} that no other beats in all costs: .front"
            lines.append(f"{words}; {left}" if left else words)
        return [*lines, *self.warnings]

    @property
    def failed(self) -> list[Row]:
        """The rows of points that could not be simulated."""
        return [row for row in self.rows if row["status"] == "failed"]

    @property
    def left(self) -> list[Row]:
        """The rows of points that were not begun: time was up, or they are of another part."""
        return [row for row in self.rows if row["status"] == "left"]


def summarise(store: Store, points: Sequence[tuple[str, Point]]) -> Summary:
    """Return a summary of all points, with the totals of a training step of each."""
    varied = _varied([point for _, point in points])
    rows = [_row(store, key, point, varied) for key, point in points]
    ranked = [
        _ranked(point, row)
        for (_, point), row in zip(points, rows, strict=True)
        if row["status"] == "done"
    ]
    return Summary(rows, store.folder, differences.warning(ranked, _remedy) if ranked else [])


def _ranked(point: Point, row: Row) -> differences.Ranked:
    own = {n: v for n, v in point.parameters.items() if n not in SystemConfig.model_fields}
    values = {what.column: row[what.column] for what in differences.PROPERTIES}
    values |= differences.of_vector_unit(point.parameters, not row["others_left_out"])
    return differences.Ranked(point.preset, point.parameters, own, values)


def _remedy(settings: Mapping[str, Any]) -> str:
    pairs = (f"{name} = {json.dumps(value)}" for name, value in settings.items())
    options = (f"--set {name}={value}" for name, value in settings.items())
    return (
        f"put common = {{ {', '.join(pairs)} }} at the top of the specification (in a sweep by "
        f"options: {' '.join(options)})"
    )


def _varied(points: Sequence[Point]) -> list[str]:
    """Return the parameters that any point sets."""
    return list(dict.fromkeys(name for point in points for name in point.parameters))


def _row(store: Store, key: str, point: Point, varied: Sequence[str]) -> Row:
    values = point.values or dict(point.parameters)
    row = {
        "point": key,
        "status": "done",
        "error": "",
        "trace": point.trace,
        "machine": point.label,
        "preset": point.preset,
        # a parameter of that name too stands where what follows from others does
        **{name: values.get(name) for name in varied if name != "multipliers"},
        "multipliers": values.get("multipliers"),
        "buffer_kib": values.get("buffer_kib"),
    }
    failure = store.failure(key)
    if failure is not None:
        return {**row, "status": "failed", "error": failure}
    if not store.is_there(key):
        return {**row, "status": "left"}
    try:
        return {**row, **store.numbers(key, numbers)}
    except ResultsError as error:
        store.discard(key)
        again = f"its file was damaged, and is removed ({error}): run the sweep again"
        return {**row, "status": "failed", "error": again}


def numbers(results: Results) -> Row:
    """Return what is shown of a finished point: of one step, and the speed-up of each op."""
    results = tables.summarise(results)
    ops, span = results.ops, span_of(results)
    step = ops[-1]
    return {
        **differences.values_of(step),
        **span.columns,
        **rates.of_step(step, span.steps, span.images),
        "energy_table": tables.energy_table_of(results),
        **page_tables.ratios(results),
        **{f"speed_up_{op['op']}": op["speed_up"] for op in ops[:-1]},
    }
