"""Rows added up, and a machine's beside its baseline's: pure, on plain rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf, isnan, nan
from statistics import fmean
from typing import Any

from swatsim.columns import COLUMNS
from swatsim.counters import DRAM_BYTES
from swatsim.table import column_of, last_of_each
from swatsim.workload.layer import FLOPS_PER_MAC
from swatsim.workload.phases import OTHER

Row = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

#: Between values of a column of which several are listed.
AND = " and "
#: Columns that speed-ups are computed from, beside the clock.
_CYCLES = ("cycles", "cycles_compute", "cycles_dense_operands", "cycles_compute_dense_operands")
#: What the ideal takes, of all and of compute cycles.
_OF_IDEAL = ("op", "macs_effectual", "pes", "lanes")
_IDEALS = {"cycles_ideal": "cycles", "cycles_ideal_compute": "cycles_compute"}


def clocked(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return the sums that speed-ups need."""
    added = {name: _added(column_of(rows, name)) for name in _CYCLES}
    return {**added, "clock_mhz": rows[0]["clock_mhz"]}


def add_up(rows: Sequence[Mapping[str, Any]], parts: Sequence[Mapping[str, Any]] = ()) -> Row:
    """Return each column summed, averaged or kept, as the schema says that it adds up.

    Sums are of `parts`, which are totals of the same rows, if there are any.
    """
    total = {**rows[0], "steps": len({*column_of(rows, "step")})}
    for name, taken in _IDEALS.items():
        total[name] = sum(column_of(parts, name) if parts else _ideals(rows, taken))
    for column in COLUMNS:
        how = _wanted if column.name == "density_output" else _HOW.get(column.adds)
        if how is not None:
            values = parts if parts and column.adds == "sum" else rows
            total[column.name] = how(column_of(values, column.name))
        elif column.adds == "step":
            of_each = last_of_each(rows, "step", column.name)
            total[column.name] = _added(list(of_each.values()))
    return total


def ideal_cycles(row: Mapping[str, Any], taken: str = "cycles") -> int:
    """Return the cycles of an op on as many multipliers, none of which ever waits.

    What multiplies nothing takes what it takes.
    """
    return _ideal(*(row[name] for name in (taken, *_OF_IDEAL)))


def _ideals(rows: Rows, taken: str) -> Iterator[int]:
    return map(_ideal, *(column_of(rows, name) for name in (taken, *_OF_IDEAL)))


def _ideal(taken: int, op: str, macs: int, pes: int, lanes: int) -> int:
    return int(taken) if op == OTHER else -(-int(macs) // (pes * lanes))


def _added(values: list[Any]) -> Any:
    """Return a sum; unknown if a summand is."""
    return None if None in values else sum(values)


def _averaged(values: list[Any]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else nan


def _largest(values: list[Any]) -> Any:
    """Return the largest value; unknown if one is."""
    return None if None in values else max(values)


def _wanted(values: list[Any]) -> float:
    """Return the mean share of outputs that somebody wants: where it is empty, all."""
    if not any(value is not None for value in values):
        return nan
    return fmean(1.0 if value is None else value for value in values)


_HOW: Mapping[str, Callable[[list[Any]], Any]] = {
    "sum": _added,
    "mean": _averaged,
    "most": _largest,
    "listed": lambda values: AND.join(dict.fromkeys(value for value in values if value)),
}


def quotient(baseline: float, ours: float) -> float:
    """Return a quotient; infinite where only ours is nothing, not a number where both are."""
    return baseline / ours if ours else inf if baseline else nan


def speed_ups(ours: Row, theirs: Row) -> Row:
    """Return a machine's speed-ups over its baseline."""
    # what counts is time; without a clock, cycles
    clocks = ours["clock_mhz"], theirs["clock_mhz"]
    faster = clocks[0] / clocks[1] if all(clocks) else 1
    found: Row = {}
    for of in ("", "_compute"):
        cycles, dense = f"cycles{of}", f"cycles{of}_dense_operands"
        whole = quotient(theirs[cycles] * faster, ours[cycles])
        known = ours[dense] is not None and theirs[dense] is not None
        own = quotient(theirs[dense] * faster, ours[dense]) if known else nan
        found |= {
            f"speed_up{of}": whole,
            f"speed_up{of}_dense_operands": own,
            f"speed_up{of}_zeros": quotient(whole, own) if not isnan(own) else nan,
        }
    return found


def beside(ours: Row, theirs: Row, alternatives: Mapping[str, int]) -> Row:
    """Return a machine's totals with its ratios; `alternatives` are cycles of other baselines."""
    lane_cycles = ours["lane_cycles"]
    known = ours["energy_pj"] is not None and theirs["energy_pj"] is not None
    return {
        **_with_totals(ours),
        "baseline": _with_totals(theirs),
        **speed_ups(ours, theirs),
        "energy_efficiency": quotient(theirs["energy_pj"], ours["energy_pj"]) if known else nan,
        "of_ideal": quotient(ours["cycles_ideal"], ours["cycles"]),
        "of_ideal_compute": quotient(ours["cycles_ideal_compute"], ours["cycles_compute"]),
        "utilisation": ours["lane_cycles_effectual"] / lane_cycles if lane_cycles else nan,
        "cycles_alternative": dict(alternatives),
        "speed_ups_alternative": {
            n: quotient(it, ours["cycles"]) for n, it in alternatives.items()
        },
    }


def _with_totals(row: Row) -> Row:
    return {
        **row,
        "flops_dense": row["macs_dense"] * FLOPS_PER_MAC,
        "flops_effectual": row["macs_effectual"] * FLOPS_PER_MAC,
        "dram_bytes": sum(row[name] for name in DRAM_BYTES),
    }


def nothing_of(row: Mapping[str, Any], other: Mapping[str, Any]) -> Row:
    """Return a row of nothing, on another row's machine."""
    summed = (column.name for column in COLUMNS if column.adds == "sum")
    known = {name for name in summed if row[name] is not None}
    same = {c.name: other[c.name] for c in COLUMNS if c.adds in ("same", "most")}
    return {**row, **same, **dict.fromkeys(known, 0)}
