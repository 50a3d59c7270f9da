"""Long names of layers, shortened so that they still differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, takewhile
from unicodedata import combining, east_asian_width

#: Stands for what is left out of a name's middle.
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
#: Where the names of nested modules are put together.
DOT = "."
#: Characters of a label in a plot.
LONGEST = 28


def labels(names: Iterable[str]) -> dict[str, str]:
    """Return a label for each name: as many of its last parts as no other name ends in.

    "0.attention.q" of "encoder.layer.0.attention.q" among its like; one that is still long loses
    its middle.

    Parameters
    ----------
    names : iterable of str

    Returns
    -------
    dict of str to str
        No two labels are alike.
    """
    unique = list(dict.fromkeys(names))
    ends = Counter(end for name in unique for end in _ends(name))
    own = {name: next((it for it in _ends(name) if ends[it] == 1), name) for name in unique}
    short = shortened(own.values(), LONGEST)
    found, taken = dict[str, str](), Counter[str]()
    for name, label in own.items():
        found[name] = _free(short[label], taken)
    return found


def _ends(name: str) -> list[str]:
    """Return what a name ends in, from its last part to all of it."""
    parts = name.split(DOT)
    return [DOT.join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]


def _free(label: str, taken: Counter[str]) -> str:
    """Take a label, with a number behind it if need be; `taken` is how often each was asked for."""
    taken[label] += 1
    found = label if taken[label] == 1 else f"{label} ({taken[label]})"
    return found if found == label else _free(found, taken)


def shortened(names: Iterable[str], most: int) -> dict[str, str]:
    """Return a short name for each: what all begin with is dropped, then the middle of long ones.

    Names that are short enough stay as they are.

    Parameters
    ----------
    names : iterable of str
    most : int
        Width of the longest short name, at least 3.

    Returns
    -------
    dict of str to str
        Name to short name. They differ, unless the names differ in nothing that there is room for.
    """
    unique = list(dict.fromkeys(names))
    if all(width(name) <= most for name in unique):
        return {name: name for name in unique}
    bare = _bare(unique)
    # the longest head first: what comes last in a name tells most
    heads = range((most - 1) // 2, -1, -1)
    tries = ([_elided(name, most, head) for name in bare] for head in heads)
    best = max(tries, key=lambda found: len(set(found)))
    return dict(zip(unique, best, strict=True))


def _bare(names: Sequence[str]) -> list[str]:
    """Return names without the outer modules that all of them are in."""
    parts = [name.split(DOT) for name in names]
    shared = 0
    while len(names) > 1 and all(len(one) > shared + 1 for one in parts):
        if len({one[shared] for one in parts}) > 1:
            break
        shared += 1
    return [DOT.join(one[shared:]) for one in parts]


def _elided(name: str, most: int, head: int) -> str:
    if width(name) <= most:
        return name
    tail = _beginning(name[::-1], most - head - 1)[::-1]
    return _beginning(name, head) + ELLIPSIS + tail


def width(text: str) -> int:
    """Return the columns that a text takes: two for a wide character, none for a combining one."""
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def _beginning(text: str, most: int) -> str:
    """Return as much of a text's beginning as is no wider than `most` columns."""
    reached = accumulate(map(_columns, text))
    return text[: sum(1 for _ in takewhile(lambda columns: columns <= most, reached))]
