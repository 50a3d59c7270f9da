"""What a simulation gives: one row for each (trace, step, layer, op, machine), kept and read.

Speed-up is never stored: it is the quotient of two machines' rows, computed where it is shown, and
refused when the rows are of different traces.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swatsim.arguments import arguments, flag, mapping, path_like, several
from swatsim.columns import COLUMNS, FORM, SCHEMA_VERSION, Role
from swatsim.displayed import Displayed, told
from swatsim.errors import ResultsError
from swatsim.files import read_bounded
from swatsim.form import Column, led_by
from swatsim.outputs import PLOT_FILES, POINTS, SWEEP, page_of, refuse_existing, write_files
from swatsim.parquet import Read, Written, decode, encode
from swatsim.printable import printable
from swatsim.table import AT_A_TIME, Rows, column_of, last_of_each, where
from swatsim.table_checks import check_total
from swatsim.workload.phases import OTHER

if TYPE_CHECKING:
    import pandas as pd

PARQUET, CSV = "results.parquet", "results.csv"
SCHEMA, PROVENANCE = "schema.json", "provenance.json"

#: What a spreadsheet takes for the beginning of a formula.
FORMULA = ("=", "+", "-", "@")

#: Of a Parquet file: a hundred million rows have less.
MAX_BYTES = 2**34
MAX_PROVENANCE_BYTES = 2**26
#: A set of files is replaced in less, by far.
MAX_SWAP_SECONDS = 1.0


#: What a frame for people has first; files have the columns in their order.
LEADING = (
    *("trace", "step", "layer", "op", "machine", "variant", "role", "cycles", "time_ms"),
    *("energy_pj", "density_weight", "density_act", "density_grad_out", "density_output"),
)


def _rows(value: Any) -> Any:
    """Allow a sequence of mappings; rows that are columns are left what they are."""
    every = several(mapping, "a dict of columns a row")
    return value if isinstance(value, Rows) else every(value)


class Results(Displayed):
    """Rows with the columns of `COLUMNS`, and where they come from.

    Parameters
    ----------
    rows : sequence of mapping
        One a row, with every column; None where a density does not apply. Those of `simulate` and
        `load` are kept as columns, and none is changed: ``dict(row)`` makes one's own of a row.
    provenance : mapping
        Versions, machine, command and the resolved parameters.
    """

    @arguments(ResultsError, rows=_rows, provenance=mapping)
    def __init__(self, rows: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> None:
        self.rows = rows
        self.provenance = dict(provenance)

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a tidy pandas frame, the columns that one wants first, first.

        There is one more than in files: `time_ms`, what the cycles take at the machine's clock; not
        a number where there is none.

        Raises
        ------
        ResultsError
            If a count, or what a column adds up to, does not fit into 64 bits.
        """
        import pandas as pd  # a third of a second that reading a trace need not pay

        kinds = {column.name: column.dtype for column in COLUMNS}
        columns = {column.name: pd.Series(_fitting(self.rows, column)) for column in COLUMNS}
        frame = pd.DataFrame(columns).astype(kinds)
        frame["time_ms"] = frame.cycles / (1000 * frame.clock_mhz.where(frame.clock_mhz > 0))
        return frame[led_by(LEADING, frame.columns)]

    def _lines(self) -> list[str]:
        return told("Results", self)

    def layers_only(self) -> Results:
        """Return the rows of what multiplies matrices alone."""
        rows = where(self.rows, "op", lambda op: op != OTHER)
        said = {**self.provenance.get("parameters", {}), "others_left_out": "rows were left out"}
        return Results(rows, {**self.provenance, "parameters": said})

    @property
    def share(self) -> float | None:
        """Of all multiply-accumulates of the steps, those of the layers and ops in the rows.

        Of the whole batch, forward and backward, as they were counted in the run; None: not known.
        """
        rows = where(self.rows, "role", lambda role: role == Role.MACHINE)
        if not rows or "macs_held" not in rows[0]:
            return None
        held = column_of(rows, "macs_held")
        seen = list(last_of_each(rows, "step", "macs_seen").values())
        if None in held or None in seen:
            return None
        return min(1.0, sum(held) / sum(seen)) if sum(seen) else 1.0

    @arguments(ResultsError, folder=path_like, overwrite=flag)
    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = True) -> list[Path]:
        """Write Parquet, CSV, schema and provenance, which a command can make again.

        Parameters
        ----------
        folder : path
        overwrite : bool
            Replace earlier results there, and remove their plots and page; else refuse.

        Returns
        -------
        list of pathlib.Path
            What was written.

        Raises
        ------
        ResultsError
            If they can't be written, or are no results: lane-cycles that don't add up, for example.
            It says what became of what was there before.
        """
        if not overwrite:
            refuse_existing(Path(folder), (PARQUET, CSV, SCHEMA, PROVENANCE))
        for name in PLOT_FILES:
            _check_no_directory(Path(folder) / name)
        table = self._encoded()
        # the first to be replaced and the last: where both are of one simulation, all are
        contents: dict[str, bytes | Iterable[bytes]] = {
            PROVENANCE: _json({**self.provenance, "digest": table.digest}),
            SCHEMA: _json({"schema_version": SCHEMA_VERSION, "columns": _schema()}),
            CSV: csv_parts(self.rows, [column.name for column in COLUMNS]),
            PARQUET: table.content,
        }
        return write_files(Path(folder), contents, [*PLOT_FILES, *page_of(Path(folder))])

    def to_parquet(self) -> bytes:
        """Return the rows, and their provenance, as a Parquet file that is as small as can be.

        Raises
        ------
        ResultsError
            If they are no results.
        """
        return self._encoded(lean=True).content

    def _encoded(self, lean: bool = False) -> Written:
        try:
            _check_names(self.rows)
            parts = csv_parts(self.rows, [column.name for column in COLUMNS], for_people=False)
            return encode(islice(parts, 1, None), FORM, self.provenance, lean)
        except ResultsError as error:
            raise ResultsError(f"these rows are no results, and can't be kept: {error}") from None


def _fitting(rows: Sequence[Mapping[str, Any]], column: Column) -> list[Any]:
    """Return a column; refuse numbers that would wrap around in a frame, or as it is summed."""
    values = column_of(rows, column.name)
    if column.dtype == "int64" and values:
        check_total(column.name, sum(values) if column.adds == "sum" else max(values))
    return values


def as_csv(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = (), *, for_people: bool = True
) -> bytes:
    """Return rows as CSV.

    Parameters
    ----------
    rows : sequence of mapping
    columns : sequence of str, optional
        By default all that any row has, in their order.
    for_people : bool
        A text that a spreadsheet would take for a formula (it begins with = + - @) gets an
        apostrophe before it, and what is not printable is escaped.
    """
    names = list(columns or dict.fromkeys(name for row in rows for name in row))
    return b"".join(csv_parts(rows, names, for_people=for_people))


def csv_parts(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, for_people: bool = True
) -> Iterator[bytes]:
    """Yield the same in parts: the line of names, then some thousand rows each."""
    yield _lines([names])
    for first in range(0, len(rows), AT_A_TIME):
        part = rows[first : first + AT_A_TIME]
        if isinstance(part, Rows):
            cells: list[list[Any]] = [part.column(name) for name in names]
        else:
            cells = [[row.get(name, "") for row in part] for name in names]
        if for_people:
            cells = [list(map(_cell, column)) if _texts(column) else column for column in cells]
        yield _lines(zip(*cells, strict=True))


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows(rows)
    return sink.getvalue().encode()


def _texts(values: list[Any]) -> bool:
    return any(issubclass(kind, str) for kind in {*map(type, values)})


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text


@arguments(ResultsError, folder=path_like)
def load(folder: str | os.PathLike[str]) -> Results:
    """Return what `Results.save` wrote.

    Raises
    ------
    ResultsError
        If there are none, they are not swatsim's, or were damaged or changed; if the files in the
        folder are of two simulations, because a process was killed while it replaced them.
    """
    path = Path(folder) / PARQUET
    end = time.monotonic() + MAX_SWAP_SECONDS
    while True:
        read, beside = _read(path), _digest_beside(path)
        if beside in (None, read.digest):
            return Results(read.rows, read.provenance)
        if time.monotonic() > end:
            raise ResultsError(
                f"{path} and {PROVENANCE} beside it are not of one simulation: simulate again"
            )
        time.sleep(0.01)  # another process may be replacing them: in a moment they are


def read_parquet(path: Path) -> Results:
    """Return the results in one Parquet file that `Results.to_parquet` made.

    Raises
    ------
    ResultsError
        If there is none, it is not swatsim's, or it was damaged or changed.
    """
    read = _read(path)
    return Results(read.rows, read.provenance)


def parse(content: bytes, path: Path) -> Results:
    """Return the results in the content of a Parquet file; `path` is for errors."""
    read = _parsed(content, path)
    return Results(read.rows, read.provenance)


def _read(path: Path) -> Read:
    try:
        return _parsed(read_bounded(path, MAX_BYTES), path)
    except OSError as error:
        why = f"no results in {path.parent} ({path.name}: {error.strerror or error})"
        raise ResultsError(f"{why}: {_instead_of(path.parent)}") from None


def is_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's: it holds results of many machines, and none of its own."""
    many = (folder / SWEEP).is_file() or (folder / POINTS).is_dir()
    return many and not (folder / PARQUET).is_file()


def _instead_of(folder: Path) -> str:
    """Return what to name instead of a folder without results."""
    if is_sweep(folder):
        return "it is a sweep's folder, which report and compare take; simulate one machine"
    if folder.name == POINTS and is_sweep(folder.parent):
        return (
            f"it has the points of a sweep: name the sweep's folder, {folder.parent}; compare "
            f"takes single points too, {folder / 'KEY.parquet'}"
        )
    return "name a folder that simulate wrote; a trace is simulated first"


def _parsed(content: bytes, path: Path) -> Read:
    try:
        return decode(content, FORM)
    except ResultsError as error:
        raise ResultsError(f"{path} can't be used: {error}; simulate again") from None


def _check_names(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse rows that lack a column: nobody filled it, and as CSV it would pass for empty."""
    names = {column.name for column in COLUMNS}
    for row in rows[:1] if isinstance(rows, Rows) else rows:
        if row.keys() == names:
            continue
        if missing := [name for name in names if name not in row]:
            raise ResultsError(f"a row lacks column {min(missing)!r}: fill it where rows are made")
        strange = next(name for name in row if name not in names)
        raise ResultsError(f"a row has {strange!r}, which is no column: declare it in COLUMNS")


def _check_no_directory(path: Path) -> None:
    if path.is_dir():
        raise ResultsError(
            f"can't write to {path.parent}: {path.name} in it is a directory; choose another "
            "directory"
        )


def _digest_beside(path: Path) -> str | None:
    """Return of which results the provenance beside a file is; None if there is no such file."""
    beside = path.with_name(PROVENANCE)
    if not beside.is_file():
        return None
    try:
        return str(json.loads(read_bounded(beside, MAX_PROVENANCE_BYTES))["digest"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        return f"none: {error}"


def _schema() -> list[dict[str, Any]]:
    return [asdict(column) for column in COLUMNS]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
