"""What a report says of results, as plain rows: each number of a page is in one of these tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, prod
from typing import Any

from swatsim.columns import Role
from swatsim.counters import BUCKETS, ENERGY_PARTS
from swatsim.errors import ResultsError, unknown
from swatsim.reports import tables
from swatsim.reports.span import span_of
from swatsim.reports.tables import Row, Summary
from swatsim.results import Results
from swatsim.workload.flops import FLOPS_PER_MAC
from swatsim.workload.layer import OPERANDS_OF, OPS, Operand
from swatsim.workload.phases import OTHER
from swatsim.workload.value_types import DTYPES

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
#: Of a step with everything else: the speed-up of its layers alone; the share of the baseline's
#: time that is not in them.
OF_STEP = ("speed_up_layers", "elsewhere")


def headline(results: Results) -> Row:
    """Return the totals of a training step: of its recorded layers, and everything else noted.

    Returns
    -------
    dict
        `machine`, `baseline`; what one step takes, the mean of the recorded ones: what
        `swatsim.reports.tables.per_step` has; of all recorded steps the ratios in `RATIOS`
        and `OF_STEP`,
        `zero_share` (of the MACs, padding left out, those with a factor that is zero, a ReLU's
        zeros too) and
        `lost_most_to`.
    """
    step = tables.per_op(results)[-1]
    return {
        "machine": results.rows[0]["machine"],
        "baseline": tables.baseline_of(results),
        **tables.per_step(step, step["steps"]),
        **{name: step[name] for name in (*RATIOS, *OF_STEP)},
        "zero_share": 1 - tables.quotient(step["macs_effectual"], step["macs_unpadded"]),
        "lost_most_to": tables.lost_most_to(step),
    }


def layers(results: Results) -> list[Row]:
    """Return one row a layer and op: what it takes, on the machine and on its baseline."""
    names = (
        "layer",
        "op",
        "macs_dense",
        "macs_effectual",
        "cycles",
        "cycles_compute",
        "dram_bytes",
    )
    found = []
    for row in tables.per_layer(results):
        ratios = (
            *(*SPEED_UPS, "energy_efficiency"),
            *("of_ideal", "of_ideal_compute", "utilisation"),
        )
        found.append(
            {
                **{name: row[name] for name in names},
                "baseline_cycles": row["baseline"]["cycles"],
                **{name: row[name] for name in ratios},
                "energy_pj": row["energy_pj"],
                "lost_most_to": tables.lost_most_to(row),
                **{name: row[name] for name in BUCKETS},
                **{name: row[name] for name in ENERGY_PARTS},
                **{name: row[name] for name in ("loop_order", "block_filters", "block_channels")},
                "block_rows": row["block_rows"],
            }
        )
    return found


def over_steps(results: Results) -> list[Row]:
    """Return one row a step and op: densities, weighted by elements, and the speed-ups."""
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
        found.append({**first, **_densities(groups[row["step"], row["op"]]), **others})
    return found


def _densities(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return the mean densities of an op's operands over layers, by their elements."""
    found: Row = {}
    for operand in OPERANDS_OF[rows[0]["op"]]:
        sizes = [_elements(row, operand) for row in rows]
        ones = sum(row[f"density_{operand}"] * size for row, size in zip(rows, sizes, strict=True))
        found[f"density_{operand}"] = ones / sum(sizes)
    return found


def _elements(row: Mapping[str, Any], operand: Operand) -> int:
    """Return how many elements an operand has; a product's second factor differs by sample."""
    own = row["samples"] if row["kind"] == "matmul" else 1
    shapes = {
        "weight": (own, row["K"], row["C"] // row["groups"], row["R"], row["S"]),
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
    return (
        f"Of the {whole} of all ops{of_what and f' ({of_what})'}, {dense} would be there with no "
        "zero in the operands (padding and free lanes are skipped too, bank conflicts are waited "
        f"for); zeros add {zeros}: the product."
    )


def operand_bytes(results: Results) -> list[Row]:
    """Return one row a layer and operand of its backward pass: act of wgrad, weight of dgrad.

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
            # both factors of a product of activations are
            tensor = "act" if first["kind"] == "matmul" else operand
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
    """Return one row an op, and all ops: FLOPs of a step; then bytes of the backward pass.

    `dense`: of all elements, padding left out; `left`: of those that are not zero, with what says
    where they are.
    """
    steps = span_of(results).steps
    found = [
        {
            "what": f"FLOPs, {'all ops' if row['op'] == tables.STEP else row['op']}",
            "dense": FLOPS_PER_MAC * row["macs_unpadded"] / steps,
            "left": row["flops_effectual"] / steps,
        }
        for row in tables.per_op(results)
        if row["op"] != OTHER
    ]
    read = operand_bytes(results)
    for operand, words in (("act", "inputs in wgrad"), ("weight", "weights in dgrad")):
        own = [row for row in read if row["tensor"] == operand]
        dense = sum(row["dense_bytes"] for row in own)
        for format, how in (("values", "values"), ("bitmask", "with bitmask")):
            left = sum(row[f"{format}_bytes"] for row in own)
            found.append({"what": f"{words}, {how}", "dense": dense, "left": left})
    return [{**row, "reduction": 1 - row["left"] / row["dense"]} for row in found if row["dense"]]


def pareto(points: Sequence[Row]) -> list[Row]:
    """Return the points that no other beats in time, energy and multipliers at once.

    Another beats a point if it is at most as slow, as hungry, as large (multipliers, and buffers),
    and better in one of them.
    """

    def costs(row: Row) -> tuple[float, ...]:
        return row["time_ms"], row["energy_pj"], row["multipliers"], row["buffer_kib"]

    front: dict[tuple[float, ...], None] = {}
    # whoever beats a point comes before it, and is beaten by one of the front if not in it
    for cost in sorted(map(costs, points)):
        if not any(all(a <= b for a, b in zip(best, cost, strict=True)) for best in front):
            front[cost] = None
    return [row for row in points if costs(row) in front]


def ordered_ops(rows: Sequence[Row]) -> list[str]:
    """Return the ops that rows hold, in their order."""
    return [op for op in OPS if any(row["op"] == op for row in rows)]
