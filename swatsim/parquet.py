"""A table of declared columns as Parquet, and back: nothing in a file is believed unread.

One declaration says which columns there are, what they may hold and how they are related. What is
written obeys it, and what is read does: columns, types, empty cells, ranges, keys, sums, and a
digest of all cells and of the provenance.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from swatsim.arrow import filled, flags, numbers
from swatsim.errors import ResultsError
from swatsim.form import Column, Form
from swatsim.table import Floats, Integers, Kept, Rows, Words, joined, of_columns
from swatsim.table_checks import Digest, Totals, check, check_keys, digest_of, type_of, types_of

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

#: Rows that are checked at a time, and that a file holds in a group.
GROUP = 2**17


class Written(NamedTuple):
    """A file, and the digest of what it holds."""

    content: bytes
    digest: str


class Read(NamedTuple):
    """What a file holds: its rows, where they come from, and the digest of both."""

    rows: Rows
    provenance: dict[str, Any]
    digest: str


def encode(
    parts: Iterable[bytes], form: Form, provenance: Mapping[str, Any], lean: bool = False
) -> Written:
    """Return a table that is given as CSV as Parquet.

    Arrow makes arrays of Python values by way of pandas, whose import takes as long as a small
    simulation; its CSV reader needs none.

    Parameters
    ----------
    parts : iterable of bytes
        Some rows each, without a line of names; an empty cell of a column of numbers is none.
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
    import pyarrow
    import pyarrow.parquet

    about = json.dumps(dict(provenance))
    with _refused():
        check_provenance(provenance)
        sink, found = io.BytesIO(), _Table(form, [c.name for c in form.columns if c.adds == "key"])
        schema = pyarrow.schema([_field(c, lean) for c in form.columns])
        plain = {"use_dictionary": False, "write_statistics": False} if lean else {}
        with pyarrow.parquet.ParquetWriter(sink, schema, store_schema=not lean, **plain) as writer:
            for table in _groups(parts, form):
                found.add(table)
                writer.write_table(pyarrow.table(table.columns, schema=schema))
            found.rows()
            known = {"schema_version": str(form.version), "provenance": about}
            known["digest"] = found.digest.of(form.version, about)
            writer.add_key_value_metadata(known)
    return Written(sink.getvalue(), known["digest"])


def _groups(parts: Iterable[bytes], form: Form) -> Iterator[pa.Table]:
    """Yield tables of rows that are given as CSV, of a group of a file each; at least one."""
    import pyarrow as pa

    schema = pa.schema([pa.field(c.name, type_of(c)) for c in form.columns])
    waiting: list[pa.Table] = []
    for part in parts:
        if sum(map(len, waiting)) >= GROUP:
            yield pa.concat_tables(waiting)
            waiting = []
        waiting.append(_of_csv(part, schema))
    yield pa.concat_tables(waiting or [schema.empty_table()])


class _Table:
    """A table of a form whose rows come some at a time; few of them are there as Arrow has them."""

    def __init__(self, form: Form, keeps: Collection[str]) -> None:
        self._form, self._keeps = form, keeps
        self._parts: dict[str, list[Kept]] = {}
        self.digest, self._totals = Digest(types_of(form)), Totals(form)

    def add(self, table: pa.Table) -> None:
        """Add the next rows, which must be of the form."""
        check(table, self._form)
        self._totals.add(table)
        self.digest.add(table)
        for name in self._keeps:
            self._parts.setdefault(name, []).append(_kept(table[name]))

    def read(self, file: ParquetFile) -> None:
        """Add all rows of a file."""
        import pyarrow as pa

        batches = file.iter_batches(GROUP) if file.metadata.num_rows else ()
        for batch in batches or [file.schema_arrow.empty_table()]:
            self.add(pa.table(batch.columns, schema=batch.schema))

    def rows(self) -> Rows:
        """Return all rows, no two of which may have the same keys."""
        rows = of_columns({name: joined(self._parts.pop(name)) for name in list(self._parts)})
        check_keys(rows, self._form)
        return rows


def _of_csv(text: bytes, schema: pa.Schema) -> pa.Table:
    from pyarrow import csv

    types = {field.name: field.type for field in schema}
    named = csv.ReadOptions(column_names=schema.names)
    reading = csv.ConvertOptions(column_types=types, null_values=[""])
    lines = csv.ParseOptions(newlines_in_values=b'"' in text)
    return csv.read_csv(io.BytesIO(text), named, lines, reading)


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
        older = file.read() if version != form.version else None
        found = _Table(form, file.schema_arrow.names)
        if older is None:  # it tells what is wrong, a digest that something is
            found.read(file)
            rows = found.rows()
        about = known[b"provenance"].decode()
        provenance = json.loads(about)
        check_provenance(provenance)
        seen = found.digest if older is None else digest_of(older)
        counted, written = seen.of(version, about), known[b"digest"].decode()
        if counted != written:
            raise ResultsError(f"its digest is {counted}, that of what was written {written}")
        if older is not None:
            found = _Table(form, [c.name for c in form.columns])
            found.add(_upgraded(older, version, form))
            rows = found.rows()
        return Read(rows, provenance, counted)


def _version(known: Mapping[bytes, bytes], form: Form) -> int:
    """Return of which version a file is, if that is one that is read."""
    version = known.get(b"schema_version", b"none").decode()
    read = {str(one): one for one in (*form.upgrades, form.version)}
    if version not in read:
        words = " and ".join(read)
        raise ResultsError(f"it is of schema version {version}, this swatsim reads {words}")
    return read[version]


def _upgraded(table: pa.Table, version: int, form: Form) -> pa.Table:
    for older in range(version, form.version):
        table = form.upgrades[older](table)
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


def _field(column: Column, lean: bool) -> pa.Field:
    import pyarrow as pa

    about = None if lean else {"unit": column.unit, "meaning": column.meaning}
    return pa.field(column.name, type_of(column), nullable=column.optional, metadata=about)


def _kept(values: pa.ChunkedArray) -> Kept:
    import pyarrow as pa

    if pa.types.is_string(values.type):
        coded = values.dictionary_encode().unify_dictionaries()
        codes = pa.chunked_array([chunk.indices for chunk in coded.chunks])
        return Words(numbers(codes), coded.chunk(0).dictionary.to_pylist())
    if pa.types.is_integer(values.type):
        return Integers(numbers(values))
    empty = flags(values.is_null()) if values.null_count else None
    return Floats(filled(values), empty)


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
