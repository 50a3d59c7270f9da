"""A table checked against its form, and digested: some rows at a time, each cell looked at once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from swatsim.arrow import filled, flags, numbers, scalar
from swatsim.errors import ResultsError
from swatsim.form import LARGEST, Column, Form
from swatsim.table import Array, Integers, Rows, Words

if TYPE_CHECKING:
    import pyarrow as pa

#: Parts of a sum of floats are added in another order than the sum was.
TOLERANCE = 1e-9


#: Codes of several columns are put together in numbers of 63 bits.
_MOST_CODES = 2**62
#: The lower half of a number.
_LOW = 2**32 - 1


def check(table: pa.Table, form: Form) -> None:
    """Refuse rows that are not of a form, in a time in proportion to their cells; not their keys.

    Raises
    ------
    ResultsError
    """
    names = {column.name for column in form.columns}
    if missing := sorted(names.difference(table.column_names)):
        raise ResultsError(f"column {missing[0]!r} is missing")
    if strange := sorted(set(table.column_names) - names):
        raise ResultsError(f"column {strange[0]!r} is not one of its schema")
    if table.num_columns != len(names):
        raise ResultsError("a column is there twice")
    if not table.num_rows:
        raise ResultsError("it holds no rows")
    table.validate(full=True)  # strings are UTF-8, for example
    for column in form.columns:
        _check_column(table[column.name], column)
    _check_relations(table, form)


def check_keys(rows: Rows, form: Form) -> None:
    """Refuse rows two of which have the same keys.

    Raises
    ------
    ResultsError
    """
    keys = [column.name for column in form.columns if column.adds == "key"]
    every, most = np.zeros(len(rows), np.int64), 1
    for codes, many in map(_codes, (rows.whole(name) for name in keys)):
        if most * many >= _MOST_CODES:
            found, every = np.unique(every, return_inverse=True)
            most = len(found)
        every, most = every * many + codes, most * many
    if len(np.unique(every)) != len(rows):
        raise ResultsError(f"two rows have the same {', '.join(keys)}")


def _codes(column: object) -> tuple[Array, int]:
    """Return whole numbers from 0 that are equal where values of a key are, and how many."""
    if isinstance(column, Words):
        return column.codes.astype(np.int64), max(len(column.words), 1)
    assert isinstance(column, Integers), "a key is a text or a whole number"
    found, codes = np.unique(column.values, return_inverse=True)
    return codes.astype(np.int64), max(len(found), 1)


class Totals:
    """What a form's columns add up to while rows come, in numbers without end."""

    def __init__(self, form: Form) -> None:
        summed = (one for one in form.columns if one.dtype == "int64" and one.adds == "sum")
        self._names = [one.name for one in summed]
        self._sums: Counter[str] = Counter()

    def add(self, table: pa.Table) -> None:
        """Add the next rows, whose numbers are at least 0.

        Raises
        ------
        ResultsError
            If a column adds up to more than a cell holds: who sums it in 64 bits would be wrong.
        """
        for name in self._names:
            values = numbers(table[name])
            # halves of 2**31 rows have sums of 63 bits
            self._sums[name] += (int((values >> 32).sum()) << 32) + int((values & _LOW).sum())
            check_total(name, self._sums[name])


def check_total(name: str, total: int) -> None:
    """Refuse what a column adds up to, or a number of it, if it does not fit into a cell.

    Raises
    ------
    ResultsError
    """
    if total > LARGEST:
        raise ResultsError(
            f"column {name!r} comes to {total}, and at most {LARGEST} fits into 64 bits: put fewer "
            "steps together"
        )


class Digest:
    """A digest of all cells and the provenance's text, however encoded.

    Parameters
    ----------
    columns : iterable of (name, dtype)
        In the order of the schema, dtypes as `Column` has them.
    """

    def __init__(self, columns: Iterable[tuple[str, str]]) -> None:
        self._columns = {pair: _Cells() for pair in columns}
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Add the next rows."""
        self._rows += table.num_rows
        for (name, dtype), cells in self._columns.items():
            cells.add(table[name], dtype)

    def of(self, version: int, provenance: str) -> str:
        """Return it (32 hex digits), of a version of the schema and a provenance."""
        seen = hashlib.blake2b(f"{version} {provenance}".encode(), digest_size=16)
        for (name, dtype), cells in self._columns.items():
            seen.update(f"{name} {dtype} {self._rows} ".encode())
            for part in (cells.there, cells.sizes, cells.values):
                seen.update(part.digest())
        return seen.hexdigest()


def digest_of(table: pa.Table) -> Digest:
    """Return the digest of a table of an older version, of which nothing but its types is known."""
    table.validate(full=True)
    names = {"string": "string", "int64": "int64", "double": "float64"}
    digest = Digest((field.name, names[str(field.type)]) for field in table.schema)
    digest.add(table)
    return digest


class _Cells:
    """Digests of a column's cells: which are not empty, the lengths of texts, the values."""

    def __init__(self) -> None:
        self.there, self.sizes, self.values = (hashlib.blake2b(digest_size=16) for _ in range(3))

    def add(self, values: pa.ChunkedArray, dtype: str) -> None:
        import pyarrow.compute as pc

        for chunk in values.chunks:
            self.there.update(flags(chunk.is_valid()).data)
            if dtype == "string":
                lengths = numbers(pc.binary_length(chunk))
                self.sizes.update(np.ascontiguousarray(lengths, "<i8").data)
                self.values.update(_characters(chunk))
            else:
                kind = "<i8" if dtype == "int64" else "<f8"
                self.values.update(np.ascontiguousarray(filled(chunk), kind).data)


def _characters(chunk: pa.Array) -> memoryview:
    """Return the bytes of all strings of an array without empty cells, one after the other."""
    _, places, characters = chunk.buffers()
    bounds = np.frombuffer(places, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    return memoryview(characters or b"")[int(bounds[0]) : int(bounds[-1])]


def types_of(form: Form) -> list[tuple[str, str]]:
    """Return the names of a form's columns, each with its dtype."""
    return [(column.name, column.dtype) for column in form.columns]


def type_of(column: Column) -> pa.DataType:
    """Return a column's type as Arrow has it."""
    import pyarrow as pa

    kind: pa.DataType = getattr(pa, column.dtype)()
    return kind


def _check_column(values: pa.ChunkedArray, column: Column) -> None:
    import pyarrow.compute as pc

    if values.type != type_of(column):
        raise ResultsError(f"column {column.name!r} is {values.type}, must be {column.dtype}")
    if values.null_count and not column.optional:
        raise ResultsError(f"column {column.name!r} has empty cells")
    if column.dtype == "string":
        known = set(column.values)
        if known and (strange := sorted(set(pc.unique(values).to_pylist()) - known)):
            allowed = ", ".join(column.values)
            raise ResultsError(
                f"column {column.name!r} holds {strange[0]!r}, allowed are {allowed}"
            )
        return
    if column.dtype == "float64" and pc.all(pc.is_finite(values)).as_py() is False:
        raise ResultsError(f"column {column.name!r} holds what is no number")
    least, most = pc.min_max(values).as_py().values()
    if least is not None and not column.least <= least <= most <= column.most:
        bounds = f"from {column.least} to {column.most:g}"
        raise ResultsError(f"column {column.name!r} has {least} to {most}, must be {bounds}")


def _check_relations(table: pa.Table, form: Form) -> None:
    import pyarrow.compute as pc

    for total, parts in form.sums.items():
        added = reduce(pc.add_checked, (table[name] for name in parts))
        _check_equal(table[total], added, f"{total!r} is not the sum of its parts")
    for total, factors in form.products.items():
        multiplied = reduce(pc.multiply_checked, (table[name] for name in factors))
        _check_equal(table[total], multiplied, f"{total!r} is not {' x '.join(factors)}")
    for small, large in form.at_most.items():
        if pc.any(pc.greater(table[small], table[large])).as_py():
            raise ResultsError(f"column {small!r} has more than {large!r}")
    if form.without_sizes is not None:
        _check_sizes(table, form, *form.without_sizes)


def _check_sizes(table: pa.Table, form: Form, name: str, value: str) -> None:
    """Refuse rows of a value that have sizes, and others that lack one."""
    import pyarrow.compute as pc

    without, zero = pc.equal(table[name], scalar(value)), scalar(0)
    for column in form.columns:
        if column.adds != "shape" or column.dtype != "int64" or column.least:
            continue
        if pc.any(pc.not_equal(pc.equal(table[column.name], zero), without)).as_py():
            raise ResultsError(
                f"column {column.name!r} must be 0 where {name!r} is {value!r}, and at least 1 "
                "elsewhere"
            )


def _check_equal(values: pa.ChunkedArray, others: pa.ChunkedArray, complaint: str) -> None:
    """Refuse columns that differ: whole numbers exactly, floats nearly, empty in the same rows."""
    import pyarrow.compute as pc

    apart = pc.not_equal(values, others)
    if str(values.type) == "double":
        apart = pc.greater(
            pc.abs(pc.subtract(values, others)), pc.multiply(pc.abs(values), scalar(TOLERANCE))
        )
    uneven = pc.not_equal(pc.is_null(values), pc.is_null(others))
    if pc.any(apart).as_py() or pc.any(uneven).as_py():
        raise ResultsError(f"column {complaint}")
