"""Which rows of results belong together: one trace, one machine, the same work on its baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from swatsim.columns import Role, label
from swatsim.errors import ResultsError
from swatsim.results import Results
from swatsim.table import behind, column_of, grouped, where
from swatsim.workload.phases import OTHER, Phase

Row = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

#: Why an energy is not ranked with others.
NO_DRAM = "memory=none or dram=ideal, so that no DRAM is in the energy"
_KEY = ("step", "layer", "op", "function", "phase")
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
    traces = {*column_of(results.rows, "trace_id")}
    if len(traces) != 1:
        raise ResultsError(
            f"the results hold {len(traces)} different traces: a speed-up compares machines on "
            "one trace; select the rows of one"
        )
    compared = _machines(results.rows)
    for role in (Role.MACHINE, Role.BASELINE):
        names = sorted(name for own, name in compared if own == role)
        if len(names) != 1:
            raise ResultsError(
                f"the results hold {len(names)} machines of role {role.value!r} "
                f"({', '.join(names)}): select the rows of one"
            )
    if {*column_of(results.rows, "op")} <= {OTHER}:
        raise ResultsError(
            "the results hold no row of a layer: a step's figures need them; select whole steps"
        )
    _check_ops(compared)


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what of a step a row is of."""
    return tuple(row[name] for name in _KEY)


def _keys(rows: Rows) -> Iterable[tuple[Any, ...]]:
    return zip(*(column_of(rows, name) for name in _KEY), strict=True)


def _machines(rows: Rows) -> dict[tuple[str, str], Rows]:
    """Return rows by their role and what people call their machine."""
    found: dict[tuple[str, str], list[Rows]] = {}
    for (role, *names), own in grouped(rows, ("role", "machine", "variant")).items():
        found.setdefault((role, label(*names)), []).append(own)
    return {key: behind(parts) for key, parts in found.items()}


def _check_ops(compared: Mapping[tuple[str, str], Rows]) -> None:
    together = {key: where(rows, "phase", lambda it: it != ALONE) for key, rows in compared.items()}
    expected = next(
        set(_keys(rows)) for (role, _), rows in together.items() if role == Role.MACHINE
    )
    for (_, name), rows in together.items():
        keys = set(_keys(rows))
        if len(keys) != len(rows) or keys != expected:
            raise ResultsError(
                f"the rows of {name!r} are not of the same ops as the machine's, each once: "
                "simulate again, or select whole steps"
            )
