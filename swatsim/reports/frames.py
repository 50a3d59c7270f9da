"""Tables as pandas frames, for users: one column a number, and nothing nested."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import TYPE_CHECKING

from swatsim.arguments import arguments, instance_of
from swatsim.columns import COLUMNS
from swatsim.errors import ResultsError
from swatsim.form import led_by
from swatsim.reports import tables
from swatsim.reports.tables import Row
from swatsim.results import Results

if TYPE_CHECKING:
    import pandas as pd

#: What a frame has first: of what, what it takes, and against what.
LEADING = (
    *("layer", "op", "steps", "cycles", "time_ms", "speed_up", "speed_up_layers", "elsewhere"),
    *("of_ideal", "energy_pj", "energy_efficiency"),
    *("density_weight", "density_act", "density_grad_out", "density_output"),
)
#: Of the baseline: what it counts, and not what it shares with the machine.
_COUNTED = tuple(
    column.name
    for column in COLUMNS
    if column.adds == "sum" and not column.name.startswith("macs_")
)
#: Of a row: what is no column here, or is empty.
_NESTED = ("baseline", "speed_ups_alternative", "cycles_alternative", "function", "phase")


@arguments(ResultsError, results=instance_of(Results))
def per_layer(results: Results) -> pd.DataFrame:
    """Return the recorded steps together: a row a layer and op.

    Returns
    -------
    pandas.DataFrame
        The columns of the results, summed over the recorded `steps` or averaged; `time_ms`, what
        the cycles of all of these take; `speed_up` and
        what else `swatsim.reports.tables.per_layer` adds; the baseline's counts as
        `baseline_cycles`, `baseline_energy_pj`, ..; speed-ups over other dense baselines as
        ``speed_up over NAME``.

    Raises
    ------
    ResultsError
        If the rows are of more than one trace, machine or baseline.
    """
    return _frame([_flat(row) for row in tables.per_layer(results)], LEADING)


@arguments(ResultsError, results=instance_of(Results))
def per_op(results: Results) -> pd.DataFrame:
    """Return each op's totals over all layers and recorded steps, and those of all ops: a row each.

    The index is the op, "step" the last: ``per_op(results).speed_up["step"]``. What multiplies no
    matrices is "other", if results have it, and is in the step's. Counts are sums: one step takes
    ``frame.cycles["step"] / frame.steps["step"]``. Columns and errors are those of `per_layer`;
    of the step there are `speed_up_layers` and `elsewhere` too (`swatsim.reports.tables.per_op`).
    """
    frame = _frame([_flat(row) for row in tables.per_op(results)], LEADING).set_index("op")
    return frame.drop(columns=[c.name for c in COLUMNS if c.adds in ("shape", "cut")] + ["layer"])


def _flat(row: Row) -> Row:
    baseline = {f"baseline_{name}": row["baseline"][name] for name in _COUNTED}
    others = {f"speed_up over {name}": v for name, v in row["speed_ups_alternative"].items()}
    own = {name: value for name, value in row.items() if name not in _NESTED}
    clock = row["clock_mhz"]
    own["time_ms"] = row["cycles"] / (1000 * clock) if clock else nan
    return {**own, **baseline, "baseline_dram_bytes": row["baseline"]["dram_bytes"], **others}


def _frame(rows: list[Row], first: Sequence[str]) -> pd.DataFrame:
    import pandas as pd  # a third of a second that a table on the command line need not pay

    frame = pd.DataFrame(rows)
    return frame[led_by(first, frame.columns)]
