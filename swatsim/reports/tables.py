"""Rows of results, put together: per layer and op, per op, and for the whole training step.

Plain rows, not frames: a table of a command that ends in two seconds can't wait a third of one for
pandas. ``pandas.DataFrame(rows)`` makes a frame of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, nan
from statistics import fmean
from typing import Any

from swatsim.errors import ResultsError
from swatsim.reports.span import span_of
from swatsim.results import COLUMNS, Results
from swatsim.workload.flops import FLOPS_PER_MAC
from swatsim.workload.layer import OPS

Row = dict[str, Any]

#: Columns that add up to the bytes that DRAM carried.
DRAM_BYTES = tuple(column.name for column in COLUMNS if column.name.startswith("dram_bytes_"))
#: Columns that add up to the lane-cycles, and to the energy.
LANE_CYCLES = tuple(column.name for column in COLUMNS if column.name.startswith("lane_cycles_"))
ENERGIES = tuple(column.name for column in COLUMNS if column.name.startswith("energy_pj_"))

#: The row of a table that sums up all ops.
STEP = "step"

#: What of a table's sums is also shown of one step.
PER_STEP = (
    *("cycles", "cycles_compute", "energy_pj", "dram_bytes"),
    *("macs_dense", "macs_effectual"),
)


def per_layer(results: Results) -> list[Row]:
    """Put the recorded steps together: one row for each layer and op, in the network's order.

    Counts are summed over the steps, densities averaged. Beside the columns of the results:

    - `steps`: how many recorded steps are summed up;
    - `baseline`: the baseline's columns, added up in the same way;
    - `speed_up`: its time by ours (its cycles, where a clock is not known), infinite where an op
      takes none; `speed_up_compute`: the same of the compute cycles; `speed_ups_alternative`: of
      other dense baselines, by their names;
    - `energy_efficiency`: the baseline's energy by ours; not a number where one is not known;
    - `utilisation`: effectual share of the lane-cycles;
    - `flops_dense`, `flops_effectual`, and `dram_bytes`: bytes carried.

    Raises
    ------
    ResultsError
        If the rows are of more than one trace, machine or baseline.
    """
    return _compare(results, ("layer", "op"))


def per_op(results: Results) -> list[Row]:
    """Sum up each op over all layers and recorded steps; the last row, "step", has all ops.

    What *one* step takes, `per_step` has.
    """
    ops = sorted(_compare(results, ("op",)), key=lambda row: OPS.index(row["op"]))
    return [*ops, *({**row, "op": STEP} for row in _compare(results, ()))]


def per_step(row: Row, steps: int) -> Row:
    """Give what one step takes: the mean of so many that a row sums up.

    Returns
    -------
    dict
        `time_ms` (not a number where a clock is not known), and of `PER_STEP` what the row counts;
        None where it is not known.
    """
    clock = row["clock_mhz"]
    means = {name: None if row[name] is None else row[name] / steps for name in PER_STEP}
    return {"time_ms": means["cycles"] / (1000 * clock) if clock else nan, **means}


def lost_most_to(row: Row) -> str:
    """Name the bucket that took most of the lane-cycles without effectual work."""
    name = max(LANE_CYCLES[1:], key=lambda bucket: row[bucket])
    return name.removeprefix("lane_cycles_") if row[name] else ""


def baseline_of(results: Results) -> str:
    """Name the machine that the speed-ups are over."""
    return str(next(row["machine"] for row in results.rows if row["role"] == "baseline"))


def sizes_of(results: Results) -> list[str]:
    """Word the machine's size, type, clock and DRAM, and the baseline's if they differ."""
    words = {
        role: f"{row['pes']} PEs of {row['lanes']} multipliers" + _clock(row)
        for role in ("machine", "baseline")
        for row in results.rows
        if row["role"] == role
    }
    return list(dict.fromkeys(words.values()))


def _clock(row: Mapping[str, Any]) -> str:
    clock = f", {row['dtype']}, {row['clock_mhz']} MHz" if row["clock_mhz"] else ""
    return clock + (f", {row['dram_mb_per_s'] / 1000:g} GB/s" if row["dram_mb_per_s"] else "")


def alternatives_of(results: Results) -> list[str]:
    """Name the other dense baselines in the results."""
    rows = (row for row in results.rows if row["role"] == "alternative")
    return list(dict.fromkeys(str(row["machine"]) for row in rows))


def energy_table_of(results: Results) -> str:
    """Name the table of energies; empty if the results don't say."""
    return str(results.provenance.get("parameters", {}).get("energy", {}).get("name", ""))


def source_of(results: Results) -> str:
    """Name the trace, and how much of it the results hold."""
    return f"{results.rows[0]['trace']}, {span_of(results)}"


def check_comparable(results: Results) -> None:
    """Refuse to compare rows that don't belong together.

    Raises
    ------
    ResultsError
        If there are none, they are of more than one trace, machine or baseline, or the baseline's
        are not of the same ops.
    """
    traces = {row["trace_id"] for row in results.rows}
    if len(traces) != 1:
        raise ResultsError(
            f"the results hold {len(traces)} different traces: a speed-up compares machines on "
            "one trace; select the rows of one"
        )
    for role in ("machine", "baseline"):
        names = sorted({row["machine"] for row in results.rows if row["role"] == role})
        if len(names) != 1:
            raise ResultsError(
                f"the results hold {len(names)} machines of role {role!r} "
                f"({', '.join(names)}): select the rows of one"
            )
    _check_ops(results)


def _check_ops(results: Results) -> None:
    ops: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for row in results.rows:
        key = row["step"], row["layer"], row["op"]
        ops.setdefault((row["role"], row["machine"]), []).append(key)
    expected = next(keys for (role, _), keys in ops.items() if role == "machine")
    for (_, name), keys in ops.items():
        if len(set(keys)) != len(keys) or set(keys) != set(expected):
            raise ResultsError(
                f"the rows of {name!r} are not of the same ops as the machine's, each once: "
                "simulate again, or select whole steps"
            )


def _compare(results: Results, by: Sequence[str]) -> list[Row]:
    check_comparable(results)
    ours = _grouped(results, "machine", by)
    theirs = _grouped(results, "baseline", by)
    others = {name: _grouped(results, "alternative", by, name) for name in alternatives_of(results)}
    compared = []
    for key, rows in ours.items():
        total = _add_up(rows)
        cycles = {name: _add_up(found[key])["cycles"] for name, found in others.items()}
        speed_ups = {name: quotient(n, total["cycles"]) for name, n in cycles.items()}
        beside = _beside(total, _add_up(theirs[key]))
        compared.append({**beside, "speed_ups_alternative": speed_ups})
    return compared


def _grouped(
    results: Results, role: str, by: Sequence[str], machine: str | None = None
) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in results.rows:
        if row["role"] == role and machine in (None, row["machine"]):
            groups.setdefault(tuple(row[key] for key in by), []).append(dict(row))
    return groups


def _add_up(rows: list[Row]) -> Row:
    """Sum, average or keep each column, as the schema says that it adds up."""
    total = {**rows[0], "steps": len({row["step"] for row in rows})}
    for column in COLUMNS:
        values = [row[column.name] for row in rows if row[column.name] is not None]
        if column.adds == "sum":
            total[column.name] = sum(values) if len(values) == len(rows) else None
        elif column.adds == "mean":
            total[column.name] = fmean(values) if values else nan
    return total


def quotient(baseline: float, ours: float) -> float:
    """Divide; infinite where only ours is nothing, not a number where both are."""
    return baseline / ours if ours else inf if baseline else nan


def _beside(ours: Row, theirs: Row) -> Row:
    lane_cycles = ours["lane_cycles"]
    known = ours["energy_pj"] is not None and theirs["energy_pj"] is not None
    # what counts is time; without a clock, cycles
    clocks = ours["clock_mhz"], theirs["clock_mhz"]
    faster = clocks[0] / clocks[1] if all(clocks) else 1
    return {
        **_with_totals(ours),
        "baseline": _with_totals(theirs),
        "speed_up": quotient(theirs["cycles"] * faster, ours["cycles"]),
        "speed_up_compute": quotient(theirs["cycles_compute"] * faster, ours["cycles_compute"]),
        "energy_efficiency": quotient(theirs["energy_pj"], ours["energy_pj"]) if known else nan,
        "utilisation": ours["lane_cycles_effectual"] / lane_cycles if lane_cycles else nan,
    }


def _with_totals(row: Row) -> Row:
    return {
        **row,
        "flops_dense": row["macs_dense"] * FLOPS_PER_MAC,
        "flops_effectual": row["macs_effectual"] * FLOPS_PER_MAC,
        "dram_bytes": sum(row[name] for name in DRAM_BYTES),
    }
