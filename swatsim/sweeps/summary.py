"""A row a point: what was varied, and what came out of the training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swatsim.errors import ResultsError
from swatsim.reports import facts
from swatsim.results import Results
from swatsim.sweeps.spec import Point
from swatsim.sweeps.store import Store

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

#: Of the whole training step, as `swatsim.reports.tables` has them.
NUMBERS = (
    "cycles",
    "cycles_compute",
    "speed_up",
    "speed_up_dense_operands",
    "speed_up_zeros",
    "speed_up_compute",
    "energy_pj",
    "energy_efficiency",
    "utilisation",
    "dram_bytes",
    "macs_dense",
    "macs_effectual",
)


@dataclass(frozen=True)
class Summary:
    """The points of a sweep, one row each, in its order.

    Parameters
    ----------
    rows : list of dict
        `point` (its file's name), `status` (done or failed), `error`, `trace`, `machine`, `preset`,
        the parameters that are varied, `multipliers`, `buffer_kib`, and of the training step:
        cycles, speed-up over the baseline, energy in pJ, and what else `NUMBERS` lists; the time,
        `time_ms`; and the speed-up of each op.
    folder : pathlib.Path
        Of the sweep: ``swatsim.report(summary.folder)``.
    """

    rows: list[Row]
    folder: Path

    def results(self, point: str) -> Results:
        """Read the results of one point, by its name in the column `point`.

        Raises
        ------
        ResultsError
            If it is not done.
        """
        return Store(self.folder).load(point)

    @property
    def front(self) -> list[Row]:
        """The rows that no other beats in time, energy, multipliers and buffers at once."""
        done = [row for row in self.rows if row["status"] == "done"]
        return sorted(facts.pareto(done), key=lambda row: row["time_ms"])

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a tidy pandas frame."""
        import pandas as pd  # not needed by whoever only runs the sweep

        return pd.DataFrame(self.rows)

    @property
    def failed(self) -> list[Row]:
        """The rows of points that could not be simulated."""
        return [row for row in self.rows if row["status"] == "failed"]


def summarise(store: Store, points: Sequence[tuple[str, Point]]) -> Summary:
    """Read every point, and sum up its training step."""
    varied = _varied([point for _, point in points])
    return Summary([_row(store, key, point, varied) for key, point in points], store.folder)


def _varied(points: Sequence[Point]) -> list[str]:
    """Name the parameters that any point sets."""
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
        **{name: values.get(name) for name in varied},
        "multipliers": values.get("multipliers"),
        "buffer_kib": values.get("buffer_kib"),
    }
    failure = store.failure(key)
    if failure is not None:
        return {**row, "status": "failed", "error": failure}
    try:
        ops = store.totals(key)
    except ResultsError as error:
        store.discard(key)
        again = f"its file was damaged, and is removed ({error}): run the sweep again"
        return {**row, "status": "failed", "error": again}
    step = {name: ops[-1][name] for name in NUMBERS}
    step["time_ms"] = ops[-1]["cycles"] / (1000 * ops[-1]["clock_mhz"])
    return {**row, **step, **{f"speed_up_{op['op']}": op["speed_up"] for op in ops[:-1]}}
