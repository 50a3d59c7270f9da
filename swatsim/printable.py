"""Text that somebody else wrote, made safe to show: of names, notes, paths, command lines.

A directory's name may hold any bytes, and a trace's policy and notes any characters: sequences
that a terminal obeys, halves of surrogate pairs that no encoding takes, marks that turn the
direction of a line around. All that `str.isprintable` denies is shown as its escape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def printable(text: str, keep: str = "") -> str:
    r"""Return a text with Python escapes for what is not printable: ``\x1b``, ``\ud800``.

    Parameters
    ----------
    text : str
    keep : str
        Characters to let through all the same: ``"\n"`` in a text of several lines.

    Returns
    -------
    str
        It can be encoded, and is the same text if nothing in it had to be escaped.
    """
    if text.isprintable():
        return text
    shown = (c if c.isprintable() or c in keep else _escape(c) for c in text)
    return "".join(shown)


def printable_json(value: Any) -> Any:
    """Return a JSON value in which every text can be encoded and shown."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable_json(key): printable_json(one) for key, one in value.items()}
    return [printable_json(one) for one in value] if isinstance(value, list | tuple) else value


def one_line(text: str) -> str:
    """Return a text on one line: white space as single blanks, the rest as `printable` does."""
    return printable(" ".join(text.split()))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
