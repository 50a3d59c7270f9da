"""Which operands ran n:m, and which share of their groups obeys, where a machine looks at that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swatsim.columns import Role
from swatsim.reports import tables
from swatsim.reports.span import percent
from swatsim.reports.tables import Row, Summary, quotient
from swatsim.results import Results
from swatsim.table import where
from swatsim.workload.layer import OPERANDS_OF, OPS, Operand

#: What of it people are shown; a table has the sums beside.
COLUMNS = ("op", "operand", "ops", "compressed", "macs_share", "obeying_share")


def patterns(results: Results) -> list[Row]:
    """Return one row an op and operand that the machine could run n:m; none where it looks at none.

    Over all recorded steps and layers: `ops`, how many were looked at; `compressed`, in how many of
    them the operand ran n:m; `macs_share`, how many of their dense MACs these have; `groups` of m
    values along what the op sums, those `obeying` n:m, and `obeying_share`.
    """
    return list(tables.summarise(results).once(_patterns))


def _patterns(results: Summary) -> list[Row]:
    seen: dict[tuple[str, str], list[tuple[Mapping[str, Any], str]]] = {}
    for place, side in enumerate("ab"):
        for row in where(results.of_role(Role.MACHINE), f"pattern_groups_{side}", bool):
            seen.setdefault((row["op"], _sides(row)[place]), []).append((row, side))
    return [_row(*key, rows) for op in OPS for key, rows in seen.items() if key[0] == op]


def _sides(row: Mapping[str, Any]) -> tuple[Operand, Operand]:
    """Return the operands that a machine calls a and b, by the recorded layer's names."""
    first, second = OPERANDS_OF[row["op"]]
    turned = row["kind"] == "conv_transpose" and row["op"] == "wgrad"
    return (second, first) if turned else (first, second)


def _row(op: str, operand: str, seen: Sequence[tuple[Mapping[str, Any], str]]) -> Row:
    groups, obeying = (
        sum(row[f"pattern_{what}_{side}"] for row, side in seen) for what in ("groups", "obeying")
    )
    ran = [row for row, _ in seen if row["compressed"] == operand]
    return {
        "op": op,
        "operand": operand,
        "ops": len(seen),
        "compressed": len(ran),
        "macs_share": quotient(*(sum(r["macs_dense"] for r in of) for of in (ran, _rows(seen)))),
        "groups": groups,
        "obeying": obeying,
        "obeying_share": quotient(obeying, groups),
    }


def _rows(seen: Sequence[tuple[Mapping[str, Any], str]]) -> list[Mapping[str, Any]]:
    return [row for row, _ in seen]


def in_words(results: Results) -> str:
    """Return in a sentence how much ran n:m; "" where the machine looks at no pattern."""
    if not patterns(results):
        return ""
    every = tables.summarise(results).of_role(Role.MACHINE)
    ran = [row for row in every if row["compressed"]]
    share = quotient(*(sum(row["macs_dense"] for row in of) for of in (ran, every)))
    return (
        f"{pattern_of(results)}: one operand is compressed in {len(ran)} of {len(every)} ops, with "
        f"{percent(share)} of their MACs: one all of whose groups along what the op sums obey, in "
        "an op that then has fewer products"
    )


def pattern_of(results: Results) -> str:
    """Return the machine's n:m, as the provenance has it."""
    found: Any = results.provenance.get("parameters", {})
    for name in ("machine", "parameters", "pattern"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else "n:m"
