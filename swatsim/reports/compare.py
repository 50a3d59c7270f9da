"""Two results side by side."""

from __future__ import annotations

from swatsim.errors import ResultsError
from swatsim.reports import tables
from swatsim.reports.tables import Row
from swatsim.results import Results

#: Over the own baseline: in all, with no zero in the operands, and what zeros add.
SPEED_UPS = ("speed_up", "speed_up_dense_operands", "speed_up_zeros")


def compare(a: Results, b: Results) -> list[Row]:
    """Set two results of the same trace side by side: one row a layer and op, ops, and the step.

    Parameters
    ----------
    a, b : Results

    Returns
    -------
    list of dict
        `layer` ("all layers" in the last rows), `op`, and of each, with `_a` and `_b` behind:
        cycles, time_ms (not a number where a clock is not known), speed_up and its parts
        speed_up_dense_operands and speed_up_zeros, energy_pj, energy_efficiency, dram_bytes;
        `faster`: the time of a by that of b, or cycles where a clock is not known.

    Raises
    ------
    ResultsError
        If they are of different traces, steps or ops.
    """
    _check(a, b)
    rows = [
        [*one.layers, *({**row, "layer": "all layers"} for row in one.ops)]
        for one in map(tables.summarise, (a, b))
    ]
    return [_beside(ours, theirs) for ours, theirs in zip(*rows, strict=True)]


def _check(a: Results, b: Results) -> None:
    for one in (a, b):
        tables.check_comparable(one)
    names = [f"{one.rows[0]['trace']} ({one.rows[0]['trace_id']})" for one in (a, b)]
    if a.rows[0]["trace_id"] != b.rows[0]["trace_id"]:
        raise ResultsError(
            f"the results are of different traces, {names[0]} and {names[1]}: simulate both "
            "machines on one trace"
        )
    sets = [{(row["step"], row["layer"], row["op"]) for row in one.rows} for one in (a, b)]
    if sets[0] != sets[1]:
        step, layer, op = min(sets[0] ^ sets[1])
        raise ResultsError(
            f"the results are not of the same ops: step {step}, layer {layer!r}, {op} is in one of "
            "them only; simulate the same steps and ops"
        )


def _beside(a: Row, b: Row) -> Row:
    names = ("cycles", *SPEED_UPS, "energy_pj", "energy_efficiency", "dram_bytes")
    found: Row = {"layer": a["layer"], "op": a["op"]}
    for name in names:
        found |= {f"{name}_a": a[name], f"{name}_b": b[name]}
    times = [_time(row) for row in (a, b)]
    found |= {"time_ms_a": times[0], "time_ms_b": times[1]}
    known = times[0] == times[0] and times[1] == times[1]
    costs = times if known else [a["cycles"], b["cycles"]]
    return {**found, "faster": tables.quotient(*costs)}


def _time(row: Row) -> float:
    clock = row["clock_mhz"]
    return row["cycles"] / (1000 * clock) if clock else float("nan")
