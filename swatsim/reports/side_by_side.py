"""Layers and ops of several results side by side, in what one step takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import nan
from typing import Any

from swatsim.errors import ResultsError
from swatsim.reports import tables
from swatsim.reports.common_baseline import Reference, Unit
from swatsim.reports.span import span_of
from swatsim.reports.tables import Row, Summary
from swatsim.workload.layer import OPS

#: The layer of a row that is of all of them.
ALL_LAYERS = "all layers"
#: Of one step.
_TAKEN = ("cycles", "time_ms", "energy_pj", "dram_bytes")
#: Over the own baseline: in all, with no zero in the operands, and what zeros add; of the ideal.
_OWN = (
    *("speed_up", "speed_up_dense_operands", "speed_up_zeros", "energy_efficiency"),
    *("of_ideal", "of_ideal_compute"),
)
#: Whether it is of all layers; layer and op.
Key = tuple[bool, str, str]


def side_by_side(every: Mapping[str, Summary], unit: Unit, reference: Reference) -> Iterator[Row]:
    """Yield a row a layer, op and results; layers in their order, totals last.

    Parameters
    ----------
    every : mapping of label to Summary
        As far as all have the same.
    unit : Unit
    reference : Reference

    Raises
    ------
    ResultsError
        If they have no layer and op in common.
    """
    own = {label: dict(_rows(one)) for label, one in every.items()}
    _check({label: set(rows) for label, rows in own.items()})
    ours = [*every.values()][reference.whose]
    costs = {
        key: _cost(row["baseline"] if reference.is_baseline else row, ours, unit)
        for key, row in _rows(ours)
    }
    for key in dict.fromkeys(key for rows in _in_order(own) for key in rows):
        for label, rows in own.items():
            if key in rows:
                yield _row(key, label, rows[key], every[label], unit, costs.get(key, nan))


def _rows(results: Summary) -> Iterator[tuple[Key, Row]]:
    """Yield rows of totals by layer and op; totals of all layers, and of the step, last."""
    for row in results.layers:
        yield (False, row["layer"], row["op"]), row
    *ops, step = results.ops
    for row in ops:
        if row["op"] in OPS:
            yield (True, ALL_LAYERS, row["op"]), row
    yield (True, ALL_LAYERS, tables.LAYERS), results.of_layers
    if results.phases:
        yield (True, ALL_LAYERS, ops[-1]["op"]), ops[-1]
        yield (True, ALL_LAYERS, tables.STEP), step


def _in_order(own: Mapping[str, Mapping[Key, Row]]) -> Iterator[list[Key]]:
    """Yield keys of layers, then those of totals."""
    for total in (False, True):
        for rows in own.values():
            yield [key for key in rows if key[0] is total]


def _check(keys: Mapping[str, set[Key]]) -> None:
    layers = [{key for key in own if not key[0]} for own in keys.values()]
    if not set.intersection(*layers):
        names = ", ".join(keys)
        raise ResultsError(
            f"{names} have no layer and op in common: compare results of one network",
            of_argument=True,
        )


def _cost(row: Row, results: Summary, unit: Unit) -> float:
    span = span_of(results)
    return unit.cost(tables.per_step(row, span.steps), span.images)


def _row(key: Key, label: str, row: Row, results: Summary, unit: Unit, cost: float) -> Row:
    span = span_of(results)
    means = tables.per_step(row, span.steps)
    ours = unit.cost(means, span.images)
    taken: dict[str, Any] = {name: means[name] for name in _TAKEN}
    return {
        **{"layer": key[1], "op": key[2], "label": label},
        **taken,
        "ms_per_image": means["time_ms"] / span.images,
        "speed_up": tables.quotient(cost, ours),
        **{f"own_{name}" if name == "speed_up" else name: row[name] for name in _OWN},
    }
