"""Two results side by side, in what one step takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swatsim.arguments import arguments, instance_of
from swatsim.columns import Role
from swatsim.errors import ResultsError
from swatsim.reports import differences, tables
from swatsim.reports.comparable import key_of
from swatsim.reports.remarks import apart, unequal
from swatsim.reports.span import span_of
from swatsim.reports.tables import Row, Summary
from swatsim.results import Results
from swatsim.workload.layer import OPS

#: The layer of a row that is of all of them.
ALL_LAYERS = "all layers"
#: Over the own baseline: in all, with no zero in the operands, and what zeros add.
SPEED_UPS = ("speed_up", "speed_up_dense_operands", "speed_up_zeros")


@arguments(ResultsError, a=instance_of(Results), b=instance_of(Results))
def compare(a: Results, b: Results) -> list[Row]:
    """Return two results of a trace side by side: one row a layer and op, ops, and the step.

    Where both have everything else of a step, "other" is a row too, and "layers", all ops without
    it. Where one of them has not, layers alone are compared, and the last row is "layers".

    Parameters
    ----------
    a, b : Results

    Returns
    -------
    list of dict
        `layer` ("all layers" in the last rows), `op`, and of each, with `_a` and `_b` behind: what
        one step takes, the mean of the recorded ones: cycles, time_ms (not a number where a clock
        is not known), energy_pj, dram_bytes; speed_up over its own baseline and its parts
        speed_up_dense_operands and speed_up_zeros; energy_efficiency; of_ideal, of_ideal_compute;
        `faster`: the time of a by that of b, or cycles where a clock is not known. `unlike` tells
        whether the machines differ in more than was asked for.

    Raises
    ------
    ResultsError
        If they are of different traces, steps or ops.
    """
    both = tables.summarise(a), tables.summarise(b)
    _check(*both)
    alike = bool(both[0].phases) == bool(both[1].phases)
    rows = [[*one.layers, *_totals(one, alike)] for one in both]
    steps = span_of(a).steps
    return [_beside(ours, theirs, steps) for ours, theirs in zip(*rows, strict=True)]


def _totals(results: Summary, alike: bool) -> list[Row]:
    """Return the rows behind those of layers; with everything else if both results have it."""
    *ops, step = results.ops
    if not alike:
        ops, step = [row for row in ops if row["op"] in OPS], results.of_layers
    elif results.phases:
        ops = [*ops[:-1], results.of_layers, ops[-1]]
    return [{**row, "layer": ALL_LAYERS} for row in (*ops, step)]


def unlike(a: Results, b: Results) -> list[str]:
    """Return warnings of what differs unasked.

    Types, clocks, bandwidths, sizes; energy tables; the share of a step that figures are of.
    """

    def remedy(settings: Mapping[str, Any]) -> str:
        words = " ".join(f"--set {name}={value}" for name, value in settings.items())
        return f"simulate B with {words}"

    found = differences.warning([differences.of_results(one) for one in (a, b)], remedy)
    energies = [tables.energy_table_of(one) for one in (a, b)]
    if energies[0] != energies[1]:
        words = " and ".join(energies)
        found.append(f"the energies are of different tables ({words}): simulate both with one")
    spans = span_of(a), span_of(b)
    return [*found, *(words for words in (apart(*spans), unequal(*spans)) if words)]


def _check(a: Summary, b: Summary) -> None:
    ours, theirs = (one.of_role(Role.MACHINE) for one in (a, b))
    names = [f"{rows[0]['trace']} ({rows[0]['trace_id']})" for rows in (ours, theirs)]
    if ours[0]["trace_id"] != theirs[0]["trace_id"]:
        raise ResultsError(
            f"the results are of different traces, {names[0]} and {names[1]}: simulate both "
            "machines on one trace"
        )
    sets = [set(map(key_of, rows)) for rows in (ours, theirs)]
    if sets[0] != sets[1]:
        step, layer, op, *_ = min(sets[0] ^ sets[1])
        raise ResultsError(
            f"the results are not of the same ops: step {step}, layer {layer!r}, {op} is in one of "
            "them only; simulate the same steps and ops"
        )


def _beside(a: Row, b: Row, steps: int) -> Row:
    found: Row = {"layer": a["layer"], "op": a["op"]}
    ours, theirs = (_of_step(row, steps) for row in (a, b))
    for name in ours:
        found |= {f"{name}_a": ours[name], f"{name}_b": theirs[name]}
    known = a["clock_mhz"] and b["clock_mhz"]
    cost = "time_ms" if known else "cycles"
    return {**found, "faster": tables.quotient(ours[cost], theirs[cost])}


def _of_step(row: Row, steps: int) -> Row:
    means = tables.per_step(row, steps)
    counted = ("cycles", "time_ms", "energy_pj", "dram_bytes")
    ratios = (*SPEED_UPS, "energy_efficiency", "of_ideal", "of_ideal_compute")
    return {**{name: means[name] for name in counted}, **{name: row[name] for name in ratios}}
