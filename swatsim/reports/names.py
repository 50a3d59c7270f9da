"""What layers are called on plots: short, and each so that it is no other's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

#: A label is shortened beyond this.
LONGEST = 28

#: Between the parts of a layer's name.
DOT = "."


def labels(names: Iterable[str]) -> dict[str, str]:
    """Return a label for each name: without what others have in common with it before its end.

    A label is as many of a name's last parts as no other name ends in: "0.attention.q" of
    "encoder.layer.0.attention.q" among its like. One that is still long loses its middle.

    Parameters
    ----------
    names : iterable of str
        All that are to be told apart.

    Returns
    -------
    dict of str to str
        No two labels are alike.
    """
    known = list(dict.fromkeys(names))
    ends = Counter(end for name in known for end in _ends(name))
    found: dict[str, str] = {}
    for name in known:
        own = next((end for end in _ends(name) if ends[end] == 1), name)
        found[name] = _free(own, set(found.values()))
    return found


def _ends(name: str) -> list[str]:
    """Return what a name ends in, from its last part to all of it."""
    parts = name.split(DOT)
    return [DOT.join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]


def _free(name: str, taken: set[str]) -> str:
    """Return a name, shortened if it is long, that is not taken."""
    half = LONGEST // 2
    short = name if len(name) <= LONGEST else f"{name[: half - 1]}..{name[1 - half :]}"
    number, found = 1, short
    while found in taken:
        number += 1
        found = f"{short} ({number})"
    return found
