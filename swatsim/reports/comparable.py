"""Which rows of results belong together: one trace, one machine, the same work on its baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swatsim.columns import Role, label
from swatsim.errors import ResultsError
from swatsim.results import Results
from swatsim.workload.phases import OTHER, Phase

Row = dict[str, Any]

#: Why an energy is not ranked with others.
NO_DRAM = "memory=none or dram=ideal, so that no DRAM is in the energy"
#: Work of this phase is the machine's alone.
ALONE: Phase = "policy"


def label_of(row: Mapping[str, Any]) -> str:
    """Return what people call the machine of a row."""
    return label(row["machine"], row["variant"])


def has_dram(row: Mapping[str, Any]) -> bool:
    """Whether a row's energy has a DRAM's in it: none that is not modelled, or ideal, takes any."""
    return row.get("dram_mb_per_s") != 0


def alike_in_energy(rows: Sequence[Row]) -> list[Row]:
    """Return those of some rows whose energies may be ranked: where some have a DRAM's, those."""
    return [row for row in rows if has_dram(row)] or list(rows)


def check_comparable(results: Results) -> None:
    """Refuse to compare rows that don't belong together.

    Raises
    ------
    ResultsError
        If there are none, or none of a layer; they are of more than one trace, machine or baseline,
        or the baseline's are not of the same ops.
    """
    traces = {row["trace_id"] for row in results.rows}
    if len(traces) != 1:
        raise ResultsError(
            f"the results hold {len(traces)} different traces: a speed-up compares machines on "
            "one trace; select the rows of one"
        )
    for role in (Role.MACHINE, Role.BASELINE):
        names = sorted({label_of(row) for row in results.rows if row["role"] == role})
        if len(names) != 1:
            raise ResultsError(
                f"the results hold {len(names)} machines of role {role.value!r} "
                f"({', '.join(names)}): select the rows of one"
            )
    if all(row["op"] == OTHER for row in results.rows):
        raise ResultsError(
            "the results hold no row of a layer: a step's figures need them; select whole steps"
        )
    _check_ops(results)


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what of a step a row is of."""
    return row["step"], row["layer"], row["op"], row["function"], row["phase"]


def _check_ops(results: Results) -> None:
    ops: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for row in results.rows:
        if row["phase"] != ALONE:
            ops.setdefault((row["role"], label_of(row)), []).append(key_of(row))
    expected = next(keys for (role, _), keys in ops.items() if role == Role.MACHINE)
    for (_, name), keys in ops.items():
        if len(set(keys)) != len(keys) or set(keys) != set(expected):
            raise ResultsError(
                f"the rows of {name!r} are not of the same ops as the machine's, each once: "
                "simulate again, or select whole steps"
            )
