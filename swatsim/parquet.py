"""A table of declared columns as Parquet, and back: nothing in a file is believed unread.

One declaration says which columns there are, what they may hold and how they are related. What is
written obeys it, and what is read does: columns, types, empty cells, ranges, keys, sums, and a
digest of all cells and of the provenance.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

from swatsim.errors import ResultsError
from swatsim.form import Column, Form

if TYPE_CHECKING:
    import pyarrow as pa

#: Parts of a sum of floats are added in another order than the sum was.
TOLERANCE = 1e-9


class Written(NamedTuple):
    """A file, and the digest of what it holds."""

    content: bytes
    digest: str


class Read(NamedTuple):
    """What a file holds: its rows, where they come from, and the digest of both."""

    rows: list[dict[str, Any]]
    provenance: dict[str, Any]
    digest: str


def encode(text: bytes, form: Form, provenance: Mapping[str, Any], lean: bool = False) -> Written:
    """Return a table that is given as CSV as Parquet.

    Arrow makes arrays of Python values by way of pandas, whose import takes as long as a small
    simulation; its CSV reader needs none.

    Parameters
    ----------
    text : bytes
        With a line of names; an empty cell of a column of numbers is none.
    form : Form
    provenance : mapping
        JSON.
    lean : bool
        Without what each column means, which takes more room than the cells of a small table.

    Raises
    ------
    ResultsError
        If the rows or the provenance are not of the form.
    """
    import pyarrow.csv
    import pyarrow.parquet

    about = json.dumps(dict(provenance))
    with _refused():
        types = {c.name: _type(c) for c in form.columns}
        reading = pyarrow.csv.ConvertOptions(column_types=types, null_values=[""])
        lines = pyarrow.csv.ParseOptions(newlines_in_values=b'"' in text)
        table = pyarrow.csv.read_csv(io.BytesIO(text), convert_options=reading, parse_options=lines)
        check(table, form)
        check_provenance(provenance)
        sink = io.BytesIO()
        schema = pyarrow.schema([_field(c, lean) for c in form.columns])
        plain = {"use_dictionary": False, "write_statistics": False} if lean else {}
        with pyarrow.parquet.ParquetWriter(sink, schema, store_schema=not lean, **plain) as writer:
            writer.write_table(pyarrow.table(table.columns, schema=schema))
            known = {"schema_version": str(form.version), "provenance": about}
            known["digest"] = digest(table, _types(form), form.version, about)
            writer.add_key_value_metadata(known)
    return Written(sink.getvalue(), known["digest"])


def decode(content: bytes, form: Form) -> Read:
    """Return the content of Parquet that `encode` made, of this version of the form or an older.

    An older one is upgraded once its digest was found right; that of `Read` is its own.

    Raises
    ------
    ResultsError
        If it is damaged, was changed, is of a version that is not read, or is not of the form.
    """
    import pyarrow as pa
    import pyarrow.parquet

    with _refused():
        # its pages have checksums of their own only if they are asked for: the digest sees all
        file = pyarrow.parquet.ParquetFile(pa.BufferReader(content))
        known = file.metadata.metadata or {}
        version = _version(known, form)
        table = file.read()
        if version == form.version:
            check(table, form)  # it tells what is wrong, a digest that something is
        about = known[b"provenance"].decode()
        provenance = json.loads(about)
        check_provenance(provenance)
        columns = _types(form) if version == form.version else _written(table)
        counted, written = digest(table, columns, version, about), known[b"digest"].decode()
        if counted != written:
            raise ResultsError(f"its digest is {counted}, that of what was written {written}")
        return Read(_rows_of(_upgraded(table, version, form)), provenance, counted)


def _version(known: Mapping[bytes, bytes], form: Form) -> int:
    """Return of which version a file is, if that is one that is read."""
    version = known.get(b"schema_version", b"none").decode()
    read = {str(one): one for one in (*form.upgrades, form.version)}
    if version not in read:
        words = " and ".join(read)
        raise ResultsError(f"it is of schema version {version}, this swatsim reads {words}")
    return read[version]


def _upgraded(table: pa.Table, version: int, form: Form) -> pa.Table:
    if version == form.version:
        return table
    for older in range(version, form.version):
        table = form.upgrades[older](table)
    check(table, form)
    return table


#: What readers take parts of a provenance for, where they are there.
PARTS: Mapping[str, type] = {
    **dict.fromkeys(("", ".parameters", ".parameters.trace", ".parameters.energy"), dict),
    **dict.fromkeys((".parameters.machine", ".parameters.machine.parameters"), dict),
    ".parameters.batch_size": int,
    **dict.fromkeys((".parameters.coverage", ".parameters.coverage.not_held"), dict),
    **dict.fromkeys((".parameters.coverage.seen", ".parameters.coverage.held"), dict),
}


def check_provenance(provenance: Any) -> None:
    """Refuse a provenance with a part that is there and not what `PARTS` says."""
    for path, kind in PARTS.items():
        part = provenance
        for name in path.split(".")[1:]:
            part = part.get(name, kind()) if isinstance(part, dict) else kind()
        if not isinstance(part, kind):
            wanted = "an object" if kind is dict else "a whole number"
            raise ResultsError(f"its provenance{path} is {type(part).__name__}, must be {wanted}")


def check(table: pa.Table, form: Form) -> None:
    """Refuse a table that is not of a form; it takes a time in proportion to its cells.

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
    _check_keys(table, form)
    _check_relations(table, form)


def digest(
    table: pa.Table, columns: Iterable[tuple[str, str]], version: int, provenance: str
) -> str:
    """Return a digest of all cells and the provenance's text (32 hex digits), however encoded.

    Parameters
    ----------
    table : pyarrow.Table
    columns : iterable of (name, dtype)
        In the order of the schema, dtypes as `Column` has them.
    version : int
        Of the schema.
    provenance : str
    """
    seen = hashlib.blake2b(f"{version} {provenance}".encode(), digest_size=16)
    for name, dtype in columns:
        seen.update(f"{name} {dtype} {table.num_rows} ".encode())
        for part in _streams(table[name], dtype):
            seen.update(part)
    return seen.hexdigest()


def _types(form: Form) -> list[tuple[str, str]]:
    return [(column.name, column.dtype) for column in form.columns]


def _written(table: pa.Table) -> list[tuple[str, str]]:
    """Return the columns of a table of an older version, of which nothing else is known."""
    table.validate(full=True)
    names = {"string": "string", "int64": "int64", "double": "float64"}
    return [(field.name, names[str(field.type)]) for field in table.schema]


def _streams(values: pa.ChunkedArray, dtype: str) -> Iterator[bytes]:
    """Yield digests of a column's cells: which are not empty, their lengths and their values."""
    import numpy as np
    import pyarrow.compute as pc

    there, sizes, cells = (hashlib.blake2b(digest_size=16) for _ in range(3))
    for chunk in values.chunks:
        there.update(chunk.is_valid().to_numpy(zero_copy_only=False).data)
        if dtype == "string":
            lengths = pc.binary_length(chunk).to_numpy(zero_copy_only=False)
            sizes.update(np.ascontiguousarray(lengths, "<i8").data)
            cells.update(_characters(chunk))
        else:
            kind = "<i8" if dtype == "int64" else "<f8"
            numbers = chunk.fill_null(0).to_numpy(zero_copy_only=False)
            cells.update(np.ascontiguousarray(numbers, kind).data)
    return (one.digest() for one in (there, sizes, cells))


def _characters(chunk: pa.Array) -> memoryview:
    """Return the bytes of all strings of an array without empty cells, one after the other."""
    import numpy as np

    _, places, characters = chunk.buffers()
    bounds = np.frombuffer(places, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    return memoryview(characters or b"")[int(bounds[0]) : int(bounds[-1])]


def _type(column: Column) -> pa.DataType:
    import pyarrow as pa

    kind: pa.DataType = getattr(pa, column.dtype)()
    return kind


def _field(column: Column, lean: bool) -> pa.Field:
    import pyarrow as pa

    about = None if lean else {"unit": column.unit, "meaning": column.meaning}
    return pa.field(column.name, _type(column), nullable=column.optional, metadata=about)


def _rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows; equal words and whole numbers of a column are one object."""
    names, columns = table.column_names, []
    for name in names:
        values, known = table[name].to_pylist(), dict[Any, Any]()
        floats = str(table[name].type) == "double"  # hardly two are equal, and -0.0 is 0.0
        columns.append(values if floats else [known.setdefault(it, it) for it in values])
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@contextmanager
def _refused() -> Iterator[None]:
    """Raise what Arrow makes of damaged bytes, in one line."""
    import pyarrow as pa

    try:
        yield
    except (
        OSError,
        pa.ArrowException,
        ValueError,
        TypeError,
        LookupError,
        RecursionError,
    ) as error:
        words = next(iter(str(error).splitlines()), type(error).__name__)
        raise ResultsError(f"no table of results can be made of it ({words})") from None


def _check_column(values: pa.ChunkedArray, column: Column) -> None:
    import pyarrow.compute as pc

    if values.type != _type(column):
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


def _check_keys(table: pa.Table, form: Form) -> None:
    keys = [column.name for column in form.columns if column.adds == "key"]
    if table.group_by(keys).aggregate([]).num_rows != table.num_rows:
        raise ResultsError(f"two rows have the same {', '.join(keys)}")


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

    without = pc.equal(table[name], value)
    for column in form.columns:
        if column.adds != "shape" or column.dtype != "int64" or column.least:
            continue
        if pc.any(pc.not_equal(pc.equal(table[column.name], 0), without)).as_py():
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
            pc.abs(pc.subtract(values, others)), pc.multiply(pc.abs(values), TOLERANCE)
        )
    uneven = pc.not_equal(pc.is_null(values), pc.is_null(others))
    if pc.any(apart).as_py() or pc.any(uneven).as_py():
        raise ResultsError(f"column {complaint}")
