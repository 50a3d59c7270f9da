"""A row a point: what was varied, and what came out of the training step."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swatsim.sweeps.spec import Point, Spec
from swatsim.sweeps.store import Store

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]

#: Of the whole training step, as `swatsim.reports.tables` has them.
NUMBERS = (
    "cycles",
    "cycles_compute",
    "speed_up",
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
    """

    rows: list[Row]

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a tidy pandas frame."""
        import pandas as pd  # not needed by whoever only runs the sweep

        return pd.DataFrame(self.rows)

    @property
    def failed(self) -> list[Row]:
        """The rows of points that could not be simulated."""
        return [row for row in self.rows if row["status"] == "failed"]

    def csv(self) -> bytes:
        """Write the rows as CSV."""
        sink = io.StringIO()
        names = dict.fromkeys(name for row in self.rows for name in row)
        writer = csv.DictWriter(sink, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return sink.getvalue().encode()


def summarise(store: Store, points: Sequence[tuple[str, Point]], spec: Spec) -> Summary:
    """Read every point, and sum up its training step."""
    varied = _varied([point for _, point in points])
    return Summary([_row(store, key, point, varied) for key, point in points])


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
    ops = store.totals(key)
    step = {name: ops[-1][name] for name in NUMBERS}
    step["time_ms"] = ops[-1]["cycles"] / (1000 * ops[-1]["clock_mhz"])
    return {**row, **step, **{f"speed_up_{op['op']}": op["speed_up"] for op in ops[:-1]}}
