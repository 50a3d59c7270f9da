"""Values with whose they are, in words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from string import ascii_uppercase

#: Labels of a value that are listed; of more their number is.
LISTED = 4
#: From so many characters on a label is there once, with a letter, and then its letter alone.
LONG = 16


def lettered(labels: Collection[str]) -> dict[str, str]:
    """Return a letter for each label, in order, or a number where there are too many."""
    few = len(labels) <= len(ascii_uppercase)
    return {it: ascii_uppercase[i] if few else str(i + 1) for i, it in enumerate(labels)}


def in_brief(labels: Collection[str]) -> Callable[[str], str]:
    """Return what calls long labels in sentences that follow one another: "A: LABEL", then "A"."""
    if max(map(len, labels)) < LONG:
        return str
    letters, told = lettered(labels), set[str]()

    def call(label: str) -> str:
        known = label in told
        told.add(label)
        return letters[label] if known else f"{letters[label]}: {label}"

    return call


def among(values: Mapping[str, str], call: Callable[[str], str] = str) -> str:
    """Return values with whose they are: "fp32 (A, B), bf16 (C)".

    Parameters
    ----------
    values : mapping of label to value
    call : callable of label to str
        How labels are called, such as `in_brief`.
    """
    whose: dict[str, list[str]] = {}
    for label, value in values.items():
        whose.setdefault(value, []).append(label)
    return ", ".join(f"{value} ({_listed(labels, call)})" for value, labels in whose.items())


def _listed(labels: Sequence[str], call: Callable[[str], str]) -> str:
    if len(labels) <= LISTED:
        return ", ".join(map(call, labels))
    shown = ", ".join(map(call, labels[: LISTED - 1]))
    return f"{shown} and {len(labels) - LISTED + 1} more"
