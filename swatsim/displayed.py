"""What an object says of itself at a prompt and in a notebook: a few lines, safe to show.

What results say takes tables, which results don't know: whoever knows both hands the words over
(`tell`), the house's top for one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from html import escape
from typing import Any

from swatsim.printable import one_line

_TOLD: dict[str, Callable[[Any], list[str]]] = {}


def tell(kind: str, words: Callable[[Any], list[str]]) -> None:
    """Set what puts objects of a kind in words, by the name of the kind."""
    _TOLD[kind] = words


def told(kind: str, what: object) -> list[str]:
    """Return what an object of a kind is in words, as it was told."""
    return _TOLD[kind](what)


class Displayed(ABC):
    """Shows itself in lines: the first says what it is."""

    @abstractmethod
    def _lines(self) -> list[str]:
        """Return the lines; names in them may be anybody's."""

    def __repr__(self) -> str:
        return "\n".join(map(one_line, self._lines()))

    def _repr_html_(self) -> str:
        first, *others = (escape(one_line(line)) for line in self._lines())
        return f"<div><b>{first}</b>{''.join(f'<br>{line}' for line in others)}</div>"
