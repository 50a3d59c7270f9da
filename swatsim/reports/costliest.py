"""What costs most: the ops of layers and the functions of everything else, in one order."""

from __future__ import annotations

from collections.abc import Iterator

from swatsim.reports import everything_else, tables
from swatsim.reports.tables import Row, Summary, quotient
from swatsim.results import Results
from swatsim.workload.phases import OTHER


def costliest(results: Results) -> list[Row]:
    """Return a row an op of a layer, and a function of everything else, the longest first.

    Returns
    -------
    list of dict
        `layer`, or phase and function of everything else; `op`, of the latter "other"; `time_ms`
        and `cycles` of a mean step, and `baseline_time_ms` and `baseline_cycles`; `share` of all of
        the step's time that results hold, and `share_up_to_here`, of this row and all before it;
        `speed_up` over the baseline; `energy_pj` of a mean step, without leakage: None
        where it is not known; `of_ideal`, of ops alone: None of others; `lost_most_to`.
    """
    return list(tables.summarise(results).once(_costliest))


def _costliest(results: Summary) -> list[Row]:
    found = sorted([*_ops(results), *_functions(results)], key=lambda row: -row["cycles"])
    whole, above = results.ops[-1]["cycles"] / results.ops[-1]["steps"], 0.0
    for row in found:
        above += row["cycles"]
        row["share"] = quotient(row["cycles"], whole)
        row["share_up_to_here"] = quotient(above, whole)
    return found


def _ops(results: Summary) -> Iterator[Row]:
    steps = results.ops[-1]["steps"]
    for row in results.layers:
        ours, theirs = (tables.per_step(one, steps) for one in (row, row["baseline"]))
        yield {
            "layer": row["layer"],
            "op": row["op"],
            "time_ms": ours["time_ms"],
            "cycles": ours["cycles"],
            "baseline_time_ms": theirs["time_ms"],
            "baseline_cycles": theirs["cycles"],
            "speed_up": row["speed_up"],
            "energy_pj": ours["energy_pj"],
            "of_ideal": row["of_ideal"],
            "lost_most_to": tables.lost_most_to(row),
        }


def _functions(results: Summary) -> Iterator[Row]:
    step = results.ops[-1]
    clocks = step["clock_mhz"], step["baseline"]["clock_mhz"]
    for row in everything_else.by_function(results):
        cycles = [row[name] / step["steps"] for name in ("cycles", "baseline_cycles")]
        energy = row["energy_pj"]
        times = [number / (1000 * clock) for number, clock in zip(cycles, clocks, strict=True)]
        yield {
            "layer": f"{row['phase']}: {row['function']}",
            "op": OTHER,
            **dict(zip(("time_ms", "baseline_time_ms"), times, strict=True)),
            **dict(zip(("cycles", "baseline_cycles"), cycles, strict=True)),
            "speed_up": quotient(times[1], times[0]),
            "energy_pj": None if energy is None else energy / step["steps"],
            "of_ideal": None,
            "lost_most_to": row["bound_by"] if row["bound_by"] == "DRAM" else "vector",
        }
