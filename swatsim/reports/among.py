"""Values with whose they are, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: Labels of a value that are listed; of more their number is.
LISTED = 4


def among(values: Mapping[str, str]) -> str:
    """Return values with whose they are: "fp32 (A, B), bf16 (C)".

    Parameters
    ----------
    values : mapping of label to value
    """
    whose: dict[str, list[str]] = {}
    for label, value in values.items():
        whose.setdefault(value, []).append(label)
    return ", ".join(f"{value} ({_listed(labels)})" for value, labels in whose.items())


def _listed(labels: Sequence[str]) -> str:
    if len(labels) <= LISTED:
        return ", ".join(labels)
    return f"{', '.join(labels[: LISTED - 1])} and {len(labels) - LISTED + 1} more"
