"""What a report says of results, as plain rows: each number of a page is in one of these tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan, prod
from typing import Any

from swatsim.columns import Role
from swatsim.counters import BUCKETS, ENERGY_PARTS
from swatsim.errors import ResultsError, unknown
from swatsim.reports import rates, tables
from swatsim.reports.comparable import NO_DRAM, alike_in_energy
from swatsim.reports.front import unbeaten
from swatsim.reports.labels import times
from swatsim.reports.span import percent, span_of
from swatsim.reports.tables import Row, Summary
from swatsim.results import Results
from swatsim.table import column_of, grouped
from swatsim.workload.layer import FLOPS_PER_MAC, OPERANDS_OF, OPS, OUTPUT_OF, Operand
from swatsim.workload.value_types import DTYPES

#: The kind of a layer that multiplies two activations, and what the second is called.
MATMUL, RIGHT = "matmul", "right"
#: What a backward pass reads.
TENSORS = {
    "act": "inputs in wgrad",
    "weight": "weights in dgrad",
    RIGHT: "right activations in dgrad",
}
#: Of a layer and op: over the baseline, and what of it is due to zeros.
SPEED_UPS = (
    *("speed_up", "speed_up_dense_operands", "speed_up_zeros"),
    *("speed_up_compute", "speed_up_compute_dense_operands", "speed_up_compute_zeros"),
)
#: Of all recorded steps together: over the baseline; of the ideal; effectual lane-cycles of all.
RATIOS = (
    *("speed_up", "speed_up_dense_operands", "speed_up_zeros", "speed_up_compute"),
    *("energy_efficiency", "of_ideal", "of_ideal_compute", "utilisation"),
)
#: Of the layers alone, by the names of `RATIOS` with `_layers` behind; where results have nothing
#: else of a step, they are the same.
OF_LAYERS = ("speed_up", "speed_up_compute", "of_ideal", "of_ideal_compute")
#: Of the baseline's time, the share that is not in layers; of the machine's, that of a policy.
SHARES = ("elsewhere", "policy")


def headline(results: Results) -> Row:
    """Return the totals of a training step: of its recorded layers, and of all else that is noted.

    Returns
    -------
    dict
        `machine`, `baseline`; what one step takes, the mean of the recorded ones: what
        `swatsim.reports.rates.of_step` has; what `ratios` has; `zero_share` (of the MACs, padding
        left out, those with a factor that is zero, a ReLU's zeros too, or for an output that nobody
        wants) and `lost_most_to`, of the layers.
    """
    summary = tables.summarise(results)
    step, layers = summary.ops[-1], summary.of_layers
    return {
        "machine": results.rows[0]["machine"],
        "baseline": tables.baseline_of(results),
        **rates.of_step(step, step["steps"], span_of(summary).images),
        **ratios(summary),
        "zero_share": 1 - tables.quotient(layers["macs_effectual"], layers["macs_unpadded"]),
        "lost_most_to": tables.lost_most_to(layers),
    }


def ratios(results: Results) -> Row:
    """Return the ratios of all recorded steps together.

    Returns
    -------
    dict
        Those of `RATIOS`, of the whole step; `speed_up_layers` and what else is in `OF_LAYERS`, of
        its layers alone; and the shares of `SHARES`, which are not a number where results hold
        nothing but layers.
    """
    summary = tables.summarise(results)
    step, layers = summary.ops[-1], summary.of_layers
    policy = [row["cycles"] for row in summary.phases if row["phase"] == "policy"]
    share = tables.quotient(sum(policy), step["cycles"]) if summary.phases else nan
    return {
        **{name: step[name] for name in RATIOS},
        **{f"{name}_layers": layers[name] for name in OF_LAYERS},
        **dict(zip(SHARES, (step["elsewhere"], share), strict=True)),
    }


def of_step(row: Row) -> str:
    """Return a step's speed-up in words, with what it is made of; a layers' one as it is.

    `row` has what `ratios` gives, and may be a row of a sweep.
    """
    whole = times(row["speed_up"])
    if not isfinite(row.get("elsewhere", nan)):
        return whole
    return (
        f"step {whole}; its layers alone {times(row['speed_up_layers'])}; "
        f"{percent(row['elsewhere'])} of the baseline's time is elsewhere"
    )


def of_method(row: Row) -> str:
    """Return in a sentence what a method costs that makes a step sparse; "" if it is not noted."""
    if not row["policy"] > 0:
        return ""
    return (
        f"The method itself, choosing values and keeping masks, takes {percent(row['policy'])} of "
        "the step, and the baseline nothing"
    )


def layers(results: Results) -> list[Row]:
    """Return one row a layer and op: what it takes, on the machine and on its baseline."""
    return [_layer(row) for row in tables.per_layer(results)]


def _layer(row: Row) -> Row:
    own = ("layer", "op", "kind", "macs_dense", "macs_effectual")
    taken = ("cycles", "cycles_compute", "dram_bytes")
    ratios = (
        *(*SPEED_UPS, "energy_efficiency"),
        *("of_ideal", "of_ideal_compute", "utilisation", "density_output"),
    )
    blocks = ("loop_order", "block_filters", "block_channels", "block_rows")
    return {
        **{name: row[name] for name in (*own, *taken)},
        "baseline_cycles": row["baseline"]["cycles"],
        **{name: row[name] for name in (*ratios, "energy_pj")},
        "lost_most_to": tables.lost_most_to(row),
        **{name: row[name] for name in (*BUCKETS, *ENERGY_PARTS, *blocks)},
    }


def over_steps(results: Results) -> list[Row]:
    """Return one row a step and op: densities, weighted by elements, and the speed-ups.

    Where results have everything else of a step, a row of op "step" has the whole one's. A density
    of weights is of weights alone: a product of two activations has none.
    """
    return list(tables.summarise(results).once(_over_steps))


def _over_steps(results: Summary) -> list[Row]:
    groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for row in results.of_role(Role.MACHINE):
        groups.setdefault((row["step"], row["op"]), []).append(row)
    names = ("step", "op", "speed_up")
    found = []
    for row in tables.by_step(results):
        first = {name: row[name] for name in names}
        others = {name: value for name, value in row.items() if name not in names}
        own = groups.get((row["step"], row["op"]))
        found.append({**first, **(_densities(own) if own else {}), **others})
    return found


def _densities(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return the mean densities of an op's operands over layers, by their elements."""
    found: Row = {}
    for operand in OPERANDS_OF[rows[0]["op"]]:
        # the right factor of two activations stands in a weight's place, and is none
        own = [row for row in rows if operand != "weight" or row["kind"] != MATMUL] or rows
        sizes = [_elements(row, operand) for row in own]
        ones = sum(row[f"density_{operand}"] * size for row, size in zip(own, sizes, strict=True))
        found[f"density_{operand}"] = ones / sum(sizes)
    return found


def _elements(row: Mapping[str, Any], operand: Operand) -> int:
    """Return how many elements an operand has."""
    samples = row["samples"] if row["kind"] == MATMUL else 1
    shapes = {
        "weight": (samples, row["K"], row["C"] // row["groups"], row["R"], row["S"]),
        "act": (row["samples"], row["C"], row["H"], row["W"]),
        "grad_out": (row["samples"], row["K"], row["P"], row["Q"]),
    }
    return prod(shapes[operand])


def sparsity(results: Results) -> list[Row]:
    """Return one row a layer and op: how much of its work zeros spare, and what that gains.

    `sparsity` is the share of its MACs that has a zero of an operand as a factor; products with
    padding, which no zero spares, are left out. `bound` is 1 / (1 - sparsity): as many times as
    there is less work, and what `speed_up_zeros` would be were nothing else spared or lost.
    """
    found = []
    for row in tables.per_layer(results):
        numbers = {name: row[name] for name in SPEED_UPS}
        if row["macs_unpadded"] and all(map(isfinite, numbers.values())):
            left = row["macs_effectual"] / row["macs_unpadded"]
            bound = tables.quotient(1, left)
            own = {"layer": row["layer"], "op": row["op"], "sparsity": 1 - left, "bound": bound}
            found.append({**own, **numbers})
    return found


def due_to_zeros(total: Row, of_what: str = "") -> str:
    """Return in words what of a speed-up zeros make, and what operands without a zero have.

    `of_what` says what of a step the total is, if it is but a part.
    """
    names = ("speed_up", "speed_up_dense_operands", "speed_up_zeros")
    if not all(isfinite(total[name]) for name in names):
        return ""
    whole, dense, zeros = (f"{total[name]:.2f}x" for name in names)
    masked = isfinite(total["density_output"])
    wanted, outputs = (
        (", and all outputs wanted", " and outputs that nobody wants") if masked else ("", "")
    )
    return (
        f"Of the {whole} of all ops{of_what and f' ({of_what})'}, {dense} would be there with no "
        f"zero in the operands{wanted} (padding and free lanes are skipped too, bank conflicts are "
        f"waited for); zeros{outputs} add {zeros}: the product"
    )


def of_outputs(results: Results) -> str:
    """Return in a sentence how much each op makes of its outputs, of ops that leave some out."""
    return tables.summarise(results).once(_of_outputs)


def _of_outputs(results: Summary) -> str:
    rows, parts = results.of_role(Role.MACHINE), []
    if not any(value is not None for value in column_of(rows, "density_output")):
        return ""
    by_op = grouped(rows, ("op",))
    for op in OPS:
        own = by_op.get((op,), ())
        sizes = [_elements(row, OUTPUT_OF[op]) for row in own]
        known = [1.0 if row["density_output"] is None else row["density_output"] for row in own]
        made = sum(share * size for share, size in zip(known, sizes, strict=True))
        some = len({row["layer"] for row in own if row["density_output"] is not None})
        every = len({row["layer"] for row in own})
        if some:
            parts.append(
                f"{op} {percent(made / sum(sizes))} (some are left out in {some} of {every} layers)"
            )
    return f"Of their outputs, those that somebody wants: {', '.join(parts)}" if parts else ""


def operand_bytes(results: Results) -> list[Row]:
    """Return one row a layer and operand of its backward pass: act of wgrad, weight of dgrad.

    Of a product of two activations the latter is called "right", for it is no weight.

    Averaged over the recorded steps: all elements, the values that are not zero (a ReLU's zeros are
    zeros too), and those with a bitmask. It is no footprint: two layers that read one tensor count
    it twice, and what ReLUs, batch norms and the rest of a network keep is not in results:
    ``swatsim footprint`` counts that.
    """
    return list(tables.summarise(results).once(_operand_bytes))


def _operand_bytes(results: Summary) -> list[Row]:
    found = []
    for layer, rows in _by_layer(results).items():
        for operand, order in (("act", ("wgrad", "fprop")), ("weight", ("dgrad", "fprop"))):
            op = next((name for name in order if name in rows), None)
            if op is None:
                continue
            first = rows[op][0]
            size = _elements(first, operand)  # type: ignore[arg-type]
            bits = _bits_of(first["dtype"])
            density = sum(row[f"density_{operand}"] for row in rows[op]) / len(rows[op])
            values = density * size * bits / 8
            sizes = {
                "dense_bytes": size * bits / 8,
                "values_bytes": values,
                "bitmask_bytes": min(values + size / 8, size * bits / 8),
            }
            tensor = RIGHT if operand == "weight" and first["kind"] == MATMUL else operand
            own = {"layer": layer, "tensor": tensor, "elements": size, "density": density}
            found.append({**own, **sizes})
    return found


def _bits_of(dtype: str) -> int:
    """Return the bits of a value; a machine of a user's own does not say what its values are."""
    if dtype and dtype not in DTYPES:
        raise ResultsError(f"{unknown('value type', dtype, DTYPES)}: simulate again")
    return DTYPES[dtype or "fp32"]


def _by_layer(results: Summary) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in results.of_role(Role.MACHINE):
        found.setdefault(row["layer"], {}).setdefault(row["op"], []).append(row)
    return found


def reductions(results: Results) -> list[Row]:
    """Return one row an op, and all ops: FLOPs of a step; then bytes that its backward pass reads.

    `dense`: of all elements, padding left out; `left`: of those that are not zero, with what says
    where they are.
    """
    summary, steps = tables.summarise(results), span_of(results).steps
    ops = (row for row in summary.ops if row["op"] in OPS)
    found = [
        {
            "what": f"FLOPs, {'all ops' if row['op'] == tables.LAYERS else row['op']}",
            "dense": FLOPS_PER_MAC * row["macs_unpadded"] / steps,
            "left": row["flops_effectual"] / steps,
        }
        for row in (*ops, summary.of_layers)
    ]
    read = operand_bytes(results)
    for operand, words in TENSORS.items():
        own = [row for row in read if row["tensor"] == operand]
        dense = sum(row["dense_bytes"] for row in own)
        for format, how in (("values", "values"), ("bitmask", "with bitmask")):
            left = sum(row[f"{format}_bytes"] for row in own)
            found.append({"what": f"{words}, {how}", "dense": dense, "left": left})
    return [{**row, "reduction": 1 - row["left"] / row["dense"]} for row in found if row["dense"]]


def costs_of(points: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns by which points are weighed: of time, of energy and of size.

    Energy has leakage in it, and size is area, where that is known of all points; otherwise energy
    is of what happens alone, and size multipliers, and buffers. Points without a DRAM in their
    energy count where no other has one.
    """
    ranked = alike_in_energy(points)

    def known(name: str) -> bool:
        return all(isfinite(row.get(name, nan)) for row in ranked)

    energy = "energy_with_leakage_pj" if known("energy_with_leakage_pj") else "energy_pj"
    sizes = ("area_mm2",) if known("area_mm2") else ("multipliers", "buffer_kib")
    return ("time_ms", energy, *sizes)


def not_weighed(points: Sequence[Row]) -> str:
    """Return in words which points a front leaves out, and why; "": none."""
    left = len(points) - len(alike_in_energy(points))
    several = "point is" if left == 1 else "points are"
    return f"{left} {several} left out: {NO_DRAM}" if left else ""


def weighed_by(points: Sequence[Row]) -> str:
    """Return in words what a front is of, and of which table of energies and areas."""
    _, energy, *sizes = costs_of(points)
    leakage = "with leakage" if energy != "energy_pj" else "without leakage, which is not known"
    size = "area" if sizes == ["area_mm2"] else "multipliers and buffers, as areas are not known"
    named = ", ".join(dict.fromkeys(row.get("energy_table", "") for row in points))
    return f"time, energy ({leakage}) and size ({size}){named and f'; table {named}'}"


def pareto(points: Sequence[Row]) -> list[Row]:
    """Return the points that no other beats in time, energy and size at once.

    Another beats a point if it is at most as slow, as hungry, as large, and better in one of them;
    by which columns, `costs_of` says. Where some have a DRAM in their energy, others are left out.
    """
    points, columns = alike_in_energy(points), costs_of(points)

    def costs(row: Row) -> tuple[float, ...]:
        return tuple(row[name] for name in columns)

    front = unbeaten(map(costs, points))
    return [row for row in points if costs(row) in front]


def ordered_ops(rows: Sequence[Row]) -> list[str]:
    """Return the ops that rows hold, in their order."""
    return [op for op in OPS if any(row["op"] == op for row in rows)]
