"""Rows of a table, kept as columns: a million rows of results in some hundred megabytes.

A dict a row takes four kilobytes. Columns take some hundred bytes: whole numbers as narrow as they
are, each word once. Rows are made of them when they are looked at; what is looked at is what was
put in, of the same type.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, overload

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Places = npt.NDArray[np.integer[Any]]
Record = Mapping[str, Any]
Key = tuple[Any, ...]

#: Rows that are dicts at a time, until they become columns.
AT_A_TIME = 4096
_NARROW = (np.int8, np.int16, np.int32)


class Integers:
    """Whole numbers of 64 bits, as narrow as they are."""

    def __init__(self, values: Array) -> None:
        self.values = narrow(values)
        self._view = _view(self.values)

    def __reduce__(self) -> tuple[Any, ...]:
        return Integers, (self.values,)

    def __getitem__(self, place: int) -> Any:
        return self._view[place]

    def at(self, places: Places | slice) -> list[Any]:
        """Return the values at some places."""
        found: list[Any] = self.values[places].tolist()
        return found

    @staticmethod
    def joined(parts: Sequence[Integers]) -> Integers:
        """Return several, one after the other."""
        return Integers(np.concatenate([part.values for part in parts]))


class Floats:
    """Numbers, or None where `empty` is True; `empty` may be None: all are numbers."""

    def __init__(self, values: Array, empty: Array | None = None) -> None:
        self.values = np.ascontiguousarray(values, np.float64)
        self.empty = None if empty is None or not empty.any() else empty
        self._view = _view(self.values)

    def __reduce__(self) -> tuple[Any, ...]:
        return Floats, (self.values, self.empty)

    def __getitem__(self, place: int) -> Any:
        number = self._view[place]
        return None if self.empty is not None and self.empty[place] else number

    def at(self, places: Places | slice) -> list[Any]:
        """Return the values at some places."""
        found: list[Any] = self.values[places].tolist()
        if self.empty is None:
            return found
        for place in np.flatnonzero(self.empty[places]).tolist():
            found[place] = None
        return found

    @staticmethod
    def joined(parts: Sequence[Floats]) -> Floats:
        """Return several, one after the other."""
        empty = [
            np.zeros(len(part.values), bool) if part.empty is None else part.empty for part in parts
        ]
        return Floats(np.concatenate([part.values for part in parts]), np.concatenate(empty))


class Words:
    """Texts, each of which is kept once."""

    def __init__(self, codes: Array, words: Sequence[str]) -> None:
        self.codes = narrow(codes)
        self.words = list(words)
        self._view = _view(self.codes)

    def __reduce__(self) -> tuple[Any, ...]:
        return Words, (self.codes, self.words)

    def __getitem__(self, place: int) -> Any:
        return self.words[self._view[place]]

    def at(self, places: Places | slice) -> list[Any]:
        """Return the values at some places."""
        return list(map(self.words.__getitem__, self.codes[places].tolist()))

    @staticmethod
    def joined(parts: Sequence[Words]) -> Words:
        """Return several, one after the other."""
        known: dict[str, int] = {}
        codes = []
        for part in parts:
            own = [known.setdefault(word, len(known)) for word in part.words]
            codes.append(np.array(own, np.int64)[part.codes])
        return Words(np.concatenate(codes), list(known))


class Objects:
    """Whatever else somebody puts into a column."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def __getitem__(self, place: int) -> Any:
        return self.values[place]

    def at(self, places: Places | slice) -> list[Any]:
        """Return the values at some places."""
        if isinstance(places, slice):
            return self.values[places]
        return [self.values[place] for place in places.tolist()]


Kept = Integers | Floats | Words | Objects


class Row(Mapping[str, Any]):
    """A row of a table, which nobody can change: ``dict(row)`` is one's own."""

    __slots__ = ("_columns", "_place")

    def __init__(self, columns: Mapping[str, Kept], place: int) -> None:
        self._columns, self._place = columns, place

    def __getitem__(self, name: str) -> Any:
        return self._columns[name][self._place]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return repr(dict(self))


class Rows(Sequence[Record]):
    """Rows of a table, or some of them: a sequence of mappings, made as they are looked at.

    Parameters
    ----------
    columns : mapping of str to Integers, Floats, Words or Objects
        All of the same length.
    places : array of int
        Which rows of the columns these are, in which order.
    """

    def __init__(self, columns: Mapping[str, Kept], places: Places) -> None:
        self._columns = columns
        self.places = places

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self._columns)

    def column(self, name: str) -> list[Any]:
        """Return the values of a column, one a row."""
        return self._columns[name].at(self.places)

    def whole(self, name: str) -> Kept:
        """Return a column as it is kept, of whole tables alone."""
        return self._columns[name]

    def at(self, places: Places) -> Rows:
        """Return the rows at some places of these."""
        return Rows(self._columns, self.places[places])

    @staticmethod
    def behind(parts: Sequence[Sequence[Record]]) -> Rows | None:
        """Return the rows of several, one after the other; None: they are not of one table."""
        rows = [part for part in parts if isinstance(part, Rows)]
        if not rows or len(rows) < len(parts) or len({id(part._columns) for part in rows}) > 1:
            return None
        return Rows(rows[0]._columns, np.concatenate([part.places for part in rows]))

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> Rows: ...
    def __getitem__(self, place: int | slice) -> Record | Rows:
        if isinstance(place, slice):
            return Rows(self._columns, self.places[place])
        return Row(self._columns, int(self.places[place]))

    def __iter__(self) -> Iterator[Record]:
        return map(Row, repeat(self._columns), _view(self.places))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(map(dict.__eq__, map(dict, self), map(dict, other)))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} rows of {len(self._columns)} columns>"


class Gathered:
    """Collects rows as they come, and keeps few of them as dicts."""

    def __init__(self) -> None:
        self._waiting: list[Record] = []
        self._parts: dict[str, list[Kept]] = {}

    def add(self, rows: Iterable[Record]) -> None:
        """Add rows, all of the same columns.

        Raises
        ------
        ValueError
            If one has other columns than those before it.
        """
        self._waiting.extend(rows)
        if len(self._waiting) >= AT_A_TIME:
            self._put_away()

    def rows(self) -> Rows:
        """Return all of them; nothing is added any more."""
        if self._waiting:
            self._put_away()
        columns = {name: joined(self._parts.pop(name)) for name in list(self._parts)}
        return of_columns(columns)

    def _put_away(self) -> None:
        rows, self._waiting = self._waiting, []
        names = list(self._parts) or list(rows[0])
        known = set(names)
        for row in rows:
            if row.keys() != known:
                strange = min(known.symmetric_difference(row))
                raise ValueError(f"rows differ in column {strange!r}")
        for name in names:
            self._parts.setdefault(name, []).append(kept([row[name] for row in rows]))


def of_columns(columns: Mapping[str, Kept]) -> Rows:
    """Return the rows of whole columns."""
    first = next(iter(columns.values()), Objects([]))
    length = len(first.codes if isinstance(first, Words) else first.values)
    return Rows(columns, np.arange(length, dtype=np.int32 if length < 2**31 else np.int64))


def kept(values: list[Any]) -> Kept:
    """Return a column of values, which come out again as they are."""
    kinds = {*map(type, values)}
    if kinds == {str}:
        known: dict[str, int] = {}
        codes = [known.setdefault(value, len(known)) for value in values]
        return Words(np.array(codes, np.int64), list(known))
    if kinds == {int} and min(values) >= -(2**63) and max(values) < 2**63:
        return Integers(np.array(values, np.int64))
    if kinds and kinds <= {float, type(None)}:
        empty = np.array([value is None for value in values])
        return Floats(np.array([0.0 if value is None else value for value in values]), empty)
    return Objects(values)


def digest(rows: Rows) -> str:
    """Return the digest of a table's cells (32 hex digits); empty: it holds other objects, too."""
    seen = hashlib.blake2b(digest_size=16)
    for name in rows.names:
        column = rows.whole(name)
        if isinstance(column, Objects):
            return ""
        words = column.words if isinstance(column, Words) else []
        empty = column.empty if isinstance(column, Floats) else None
        values = column.codes if isinstance(column, Words) else column.values
        about = (type(column).__name__, name, values.dtype.str, len(rows), words, empty is not None)
        seen.update(repr(about).encode())
        for each in (values, empty):
            seen.update(b"" if each is None else each[rows.places].tobytes())
    return seen.hexdigest()


def narrow(values: Array) -> Array:
    """Return whole numbers in as few bytes as they need."""
    if not len(values):
        return np.ascontiguousarray(values, np.int8)
    least, most = values.min(), values.max()
    kinds = (kind for kind in _NARROW if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max)
    return np.ascontiguousarray(values, next(kinds, np.int64))


def _view(values: Any) -> memoryview[Any]:
    """Return the numbers of an array as Python has them, faster than the array gives them."""
    return memoryview(values)


def joined(parts: list[Kept]) -> Kept:
    """Return columns, one after the other."""
    if len(parts) == 1:
        return parts[0]
    for kind in (Integers, Floats, Words):
        if all(isinstance(part, kind) for part in parts):
            joined: Callable[[Any], Kept] = kind.joined
            return joined(parts)
    return Objects([value for part in parts for value in part.at(slice(None))])


# ---- the same of any rows ------------------------------------------------------------------------


def column_of(rows: Sequence[Record], name: str) -> list[Any]:
    """Return the values of a column, one a row."""
    return rows.column(name) if isinstance(rows, Rows) else [row[name] for row in rows]


def at_places(rows: Sequence[Record], places: Iterable[int]) -> Sequence[Record]:
    """Return the rows at some places."""
    if not isinstance(rows, Rows):
        return [rows[place] for place in places]
    return rows.at(np.array(array("q", places)))


def where(rows: Sequence[Record], name: str, wanted: Callable[[Any], bool]) -> Sequence[Record]:
    """Return the rows of whose value in a column something holds."""
    values = column_of(rows, name)
    holds = {value: wanted(value) for value in dict.fromkeys(values)}
    return at_places(rows, (place for place, value in enumerate(values) if holds[value]))


def last_of_each(rows: Sequence[Record], key: str, name: str) -> dict[Any, Any]:
    """Return by each value of a column what another has in the last row of that."""
    return dict(zip(column_of(rows, key), column_of(rows, name), strict=True))


def grouped(rows: Sequence[Record], by: Sequence[str]) -> dict[Key, Sequence[Record]]:
    """Return rows by some columns, groups and rows in their order."""
    keys = (
        zip(*(column_of(rows, name) for name in by), strict=True) if by else repeat((), len(rows))
    )
    places: dict[Key, array[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, array("q")).append(place)
    return {key: at_places(rows, found) for key, found in places.items()}


def behind(parts: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """Return the rows of several sequences, one after the other."""
    parts = [part for part in parts if len(part)]  # where there is none it may be of any kind
    return Rows.behind(parts) or [row for part in parts for row in part]
