"""What a step does beside multiplying matrices, put together: by phase, and by function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from swatsim.columns import Role
from swatsim.reports import tables
from swatsim.reports.tables import Row, Summary, quotient
from swatsim.results import Results
from swatsim.workload.layer import OPS
from swatsim.workload.phases import PHASES

TITLE = "Everything else: what a step does beside multiplying matrices, on the vector unit"
#: What is said of its table.
TEXT = (
    "What a step does beside multiplying matrices: the machine's vector unit does it while its PEs "
    "wait, and the baseline's does the same. The phase policy is what the method itself does to "
    "make the step sparse: it is charged to the machine alone. A function with + or * in it is a "
    "chain of element-wise ones."
)
#: What a phase is called where there is room.
PHASE_WORDS: Mapping[str, str] = {
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "policy": "policy: what the method itself costs",
}
#: Functions that a terminal shows; what is left of a phase is a line.
SHOWN = 10

_SUMS = ("cycles", "cycles_compute", "vector_elements", "dram_bytes_vector")
_Rows = Sequence[Mapping[str, Any]]


def by_function(results: Results) -> list[Row]:
    """Return a row a phase and function, over all modules and recorded steps, longest first.

    Returns
    -------
    list of dict
        `phase`; `function`, the framework's, or several of a chain; `modules`, in how many it ran;
        `cycles`, and their `share` of all of the step's; `baseline_cycles` and `baseline_share`,
        the same of the baseline; `vector_elements`; `dram_bytes`; `energy_pj`, without leakage:
        None where it is not known; `bound_by`: what the machine takes longer for, "vector lanes" or
        "DRAM".
    """
    return list(tables.summarise(results).once(_by_function))


def _by_function(results: Summary) -> list[Row]:
    ours, theirs = (_grouped(results.others_of(role)) for role in (Role.MACHINE, Role.BASELINE))
    step = tables.per_op(results)[-1]
    rows = [_row(key, rows, theirs.get(key, ()), step) for key, rows in ours.items()]
    return sorted(rows, key=lambda row: (PHASES.index(row["phase"]), -row["cycles"]))


def _grouped(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["phase"], row["function"]), []).append(row)
    return found


def _row(key: tuple[str, str], ours: _Rows, theirs: _Rows, step: Row) -> Row:
    total = {name: sum(row[name] for row in ours) for name in _SUMS}
    energies = [row["energy_pj"] for row in ours]
    found = {
        "phase": key[0],
        "function": key[1],
        "modules": len({row["layer"] for row in ours}),
        "cycles": total["cycles"],
        "baseline_cycles": sum(row["cycles"] for row in theirs),
        "vector_elements": total["vector_elements"],
        "dram_bytes": total["dram_bytes_vector"],
        "energy_pj": None if None in energies else sum(energies),
        "bound_by": _bound_by(total, ours[0]),
    }
    return _with_shares(found, step)


def _bound_by(total: Mapping[str, int], row: Mapping[str, Any]) -> str:
    """Return what takes longer: the values in the vector unit's lanes, or the bytes in DRAM."""
    speed = row["dram_mb_per_s"]
    carried = total["dram_bytes_vector"] * row["clock_mhz"] / speed if speed else 0.0
    return "DRAM" if carried > total["cycles_compute"] else "vector lanes"


def _with_shares(row: Row, step: Row) -> Row:
    return {
        **row,
        "share": quotient(row["cycles"], step["cycles"]),
        "baseline_share": quotient(row["baseline_cycles"], step["baseline"]["cycles"]),
    }


def shown(rows: Sequence[Row], most: int = SHOWN) -> list[list[Row]]:
    """Return what is shown of `by_function`: by phase, its longest, what is left of it, the sum.

    What is left is a row whose `function` is "and N more", the sum's is "all".
    """
    longest = sorted(rows, key=lambda row: -max(row["cycles"], row["baseline_cycles"]))[:most]
    found = []
    for phase in PHASES:
        mine = [row for row in rows if row["phase"] == phase]
        named = [row for row in mine if row in longest]
        rest = [row for row in mine if row not in longest]
        if len(rest) == 1:  # it takes no more room by its name
            named, rest = [*named, *rest], []
        left = [_sum(rest, f"and {len(rest)} more")] if rest else []
        if mine:
            found.append([*named, *left, _sum(mine, "all")])
    return found


def _sum(rows: Sequence[Row], function: str) -> Row:
    names = ("cycles", "baseline_cycles", "vector_elements", "dram_bytes", "share")
    bounds = {row["bound_by"] for row in rows}
    return {
        "phase": rows[0]["phase"],
        "function": function,
        "modules": None,
        **{name: sum(row[name] for row in rows) for name in (*names, "baseline_share")},
        "bound_by": bounds.pop() if len(bounds) == 1 else "both",
    }


def where_time_goes(results: Results) -> list[Row]:
    """Return a row an op and a phase, and one of the step: its time, on machine and baseline.

    Columns are those of `swatsim.reports.tables.per_step`, `share` of the step's, and the same of
    the baseline with `baseline_` before it; `part` is the op's or the phase's name.
    """
    summary = tables.summarise(results)
    step = summary.ops[-1]
    ops = [{**row, "part": row["op"]} for row in summary.ops if row["op"] in OPS]
    phases = [{**row, "part": row["phase"]} for row in summary.phases]
    return [_part(row, step) for row in (*ops, *phases, {**step, "part": tables.STEP})]


def _part(row: Row, step: Row) -> Row:
    steps = step["steps"]
    found: Row = {"part": row["part"]}
    for prefix, one, whole in (("", row, step), ("baseline_", row["baseline"], step["baseline"])):
        means = tables.per_step(one, steps)
        own = {name: means[name] for name in ("time_ms", "cycles", "energy_pj", "dram_bytes")}
        own["share"] = quotient(one["cycles"], whole["cycles"])
        found |= {f"{prefix}{name}": value for name, value in own.items()}
    return found
