"""What a simulation gives: one row for each (trace, step, layer, op, machine), and its schema.

Speed-up is never stored: it is the quotient of two machines' rows, computed where it is shown, and
refused when the rows are of different traces.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from swatsim.errors import ResultsError
from swatsim.files import publish_all

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2
PARQUET, CSV = "results.parquet", "results.csv"
SCHEMA, PROVENANCE = "schema.json", "provenance.json"
#: Plots that may lie beside results.
PLOTS = frozenset({"speed_up.png", "pe_cycles.png", "energy.png", "roofline.png"})

Adds = Literal["key", "shape", "sum", "mean", "same", "cut"]


@dataclass(frozen=True)
class Column:
    """One column of the results.

    Parameters
    ----------
    name : str
    dtype : {"string", "int64", "float64"}
    unit : str
    meaning : str
    adds : {"key", "shape", "sum", "mean", "same", "cut"}
        How it behaves when rows are put together: part of the row's name; of the layer's shape;
        it sums; it is averaged; it is the same in all rows of a machine; it says how the op of
        this row is cut into blocks.
    """

    name: str
    dtype: str
    unit: str
    meaning: str
    adds: Adds


def _key(name: str, meaning: str, dtype: str = "string", unit: str = "-") -> Column:
    return Column(name, dtype, unit, meaning, "key")


def _shape(name: str, meaning: str, unit: str = "elements") -> Column:
    return Column(name, "int64", unit, meaning, "shape")


def _sum(name: str, unit: str, meaning: str) -> Column:
    return Column(name, "int64", unit, meaning, "sum")


def _lanes(bucket: str, meaning: str) -> Column:
    return _sum(f"lane_cycles_{bucket}", "lane-cycles", meaning)


def _cut(name: str, unit: str, meaning: str) -> Column:
    return Column(name, "int64", unit, meaning, "cut")


def _energy(part: str, meaning: str) -> Column:
    return Column(f"energy_pj{part and '_'}{part}", "float64", "pJ", meaning, "sum")


COLUMNS: tuple[Column, ...] = (
    _key("trace", "name of the trace's directory"),
    _key("trace_id", "fingerprint of its manifest and masks; rows of different ids don't compare"),
    _key("step", "training step, counted from 0", "int64", "steps"),
    _key("layer", "name of the layer"),
    _key("op", "fprop, dgrad (input gradient) or wgrad (weight gradient)"),
    _key("machine", "preset's name and what was changed in it"),
    _key("role", "machine, baseline: what it is compared with, or alternative: another baseline"),
    Column("kind", "string", "-", "conv, conv_transpose or linear", "shape"),
    _shape("samples", "images of the batch that the masks hold, N", "images"),
    _shape("C", "input channels"),
    _shape("K", "filters"),
    _shape("H", "input height"),
    _shape("W", "input width"),
    _shape("R", "kernel height"),
    _shape("S", "kernel width"),
    _shape("P", "output height"),
    _shape("Q", "output width"),
    _shape("stride_h", "stride along H"),
    _shape("stride_w", "stride along W"),
    _shape("groups", "groups of channels", "groups"),
    Column("density_weight", "float64", "1", "non-zero share of weight; empty: not read", "mean"),
    Column("density_act", "float64", "1", "non-zero share of act; empty: not read", "mean"),
    Column(
        "density_grad_out", "float64", "1", "non-zero share of grad_out; empty: not read", "mean"
    ),
    _sum("macs_dense", "MACs", "multiply-accumulates with dense operands (convention: exact)"),
    _sum("macs_unpadded", "MACs", "of them those without a factor in padding"),
    _sum("macs_effectual", "MACs", "multiply-accumulates whose operands are both non-zero"),
    _sum("cycles", "cycles", "from the first request to DRAM to the last byte written"),
    _sum("cycles_compute", "cycles", "cycles without the memory system"),
    Column(
        "cycles_dense_operands",
        "float64",
        "cycles",
        "cycles, were no value of the operands zero; empty: the buffers hold no block of such",
        "sum",
    ),
    _sum(
        "cycles_compute_dense_operands",
        "cycles",
        "cycles_compute, were no value of the operands zero",
    ),
    Column("pes", "int64", "PEs", "PEs of the machine", "same"),
    Column("lanes", "int64", "lanes", "multipliers of a PE", "same"),
    Column("clock_mhz", "int64", "MHz", "clock; 0: the machine has none", "same"),
    Column("dram_mb_per_s", "int64", "MB/s", "bandwidth of the DRAM; 0: no end to it", "same"),
    _sum("lane_cycles", "lane-cycles", "cycles x pes x lanes: the sum of the following"),
    _lanes("effectual", "both values non-zero"),
    _lanes("ineffectual", "multiplied, but a value was zero"),
    _lanes("idle", "the lane had no value, others of its PE had"),
    _lanes("row_sync", "the row waited for the other rows of its tile"),
    _lanes("tile_sync", "the tile waited for the slowest tile"),
    _lanes("pe_sync", "the PE waited for the slowest PE"),
    _lanes("bank_conflict", "products waited for a bank of accumulators"),
    _lanes("halo", "PEs exchanged the sums at their tiles' borders"),
    _lanes("unmapped", "the op's sizes left the PE without a stream"),
    _lanes("buffer", "a buffer gave fewer words than the PEs could take"),
    _lanes("dram", "a block was not there yet, or the one before not drained"),
    _lanes("fill_drain", "the first block was on its way in, or the last on its way out"),
    Column("loop_order", "string", "-", "loops over blocks: K filters, C channels, N rows", "cut"),
    _cut("block_groups", "groups", "groups of a block"),
    _cut("block_filters", "filters", "filters of a group in a block"),
    _cut("block_channels", "channels", "channels of a group in a block"),
    _cut("block_rows", "rows", "rows of an image, or of several, in a block"),
    _sum("blocks", "blocks", "blocks of the op"),
    _sum("dram_bytes_weight", "bytes", "weights loaded"),
    _sum("dram_bytes_act", "bytes", "activations loaded"),
    _sum("dram_bytes_grad_out", "bytes", "gradients loaded"),
    _sum("dram_bytes_result", "bytes", "of the op's output, written"),
    _sum("dram_bytes_partial", "bytes", "of partial sums, written and loaded again"),
    _sum("words_a", "words", "values that PEs took of the op's first operand"),
    _sum("words_b", "words", "values that PEs took of the op's second operand"),
    _sum("words_out", "words", "accesses of the output's buffer by PEs"),
    _sum("multiplexed", "products", "products whose values went through multiplexers"),
    _sum("schedules", "lines", "lines, of a row, that a hardware scheduler looked at"),
    _sum("accumulations", "accesses", "accesses of accumulator banks in the PEs"),
    _energy("mac", "products"),
    _energy("multiplexer", "multiplexers of a zero-skipping front end"),
    _energy("scheduler", "schedulers of a zero-skipping front end"),
    _energy("accumulator", "accumulator banks in the PEs"),
    _energy("buffer_a", "the first operand's buffer"),
    _energy("buffer_b", "the second operand's buffer"),
    _energy("buffer_out", "the output's buffer"),
    _energy("dram", "DRAM"),
    _energy("", "all parts; empty: not known of this machine"),
)


class Results:
    """Rows with the columns of `COLUMNS`, and where they come from.

    Parameters
    ----------
    rows : sequence of mapping
        One a row, with every column; None where a density does not apply.
    provenance : mapping
        Versions, machine, command and the resolved parameters.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> None:
        self.rows = list(rows)
        self.provenance = dict(provenance)

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a tidy pandas frame."""
        import pandas as pd  # a third of a second that reading a trace need not pay

        kinds = {column.name: column.dtype for column in COLUMNS}
        return pd.DataFrame(self.rows, columns=list(kinds)).astype(kinds)

    def save(
        self, folder: str | os.PathLike[str], beside: Mapping[str, bytes] | None = None
    ) -> list[Path]:
        """Write Parquet, CSV, schema and provenance; earlier results there are replaced.

        Parameters
        ----------
        folder : path
        beside : mapping of str to bytes, optional
            Other files that belong to the results, plots for example: all are written, or none.
            Plots of earlier results that are not among them are removed.

        Returns
        -------
        list of pathlib.Path
            What was written.

        Raises
        ------
        ResultsError
            If they can't be written; then what was there before is untouched.
        """
        text = self._csv()
        contents = {
            PARQUET: self._parquet(text),
            CSV: text,
            SCHEMA: _json({"schema_version": SCHEMA_VERSION, "columns": _schema()}),
            PROVENANCE: _json(self.provenance),
            **(beside or {}),
        }
        written = write_files(Path(folder), contents)
        for name in PLOTS.difference(contents):
            (Path(folder) / name).unlink(missing_ok=True)
        return written

    def to_parquet(self) -> bytes:
        """Write the rows, and in its metadata their provenance, as a Parquet file."""
        return self._parquet(self._csv())

    def _csv(self) -> bytes:
        return as_csv(self.rows, [column.name for column in COLUMNS])

    def _parquet(self, text: bytes) -> bytes:
        """Make Parquet of the CSV.

        Arrow makes arrays of Python values by way of pandas, whose import takes as long as a small
        simulation; its CSV reader needs none.
        """
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        fields = [
            pa.field(
                c.name, getattr(pa, c.dtype)(), metadata={"unit": c.unit, "meaning": c.meaning}
            )
            for c in COLUMNS
        ]
        about = {"schema_version": str(SCHEMA_VERSION), "provenance": json.dumps(self.provenance)}
        schema = pa.schema(fields, metadata=about)
        types = pa.csv.ConvertOptions(column_types=schema)
        table = pa.csv.read_csv(io.BytesIO(text), convert_options=types)
        sink = io.BytesIO()
        pa.parquet.write_table(pa.table(table.columns, schema=schema), sink)
        return sink.getvalue()


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> bytes:
    """Write rows as CSV; without `columns`, all that any row has, in their order."""
    sink = io.StringIO()
    names = list(columns or dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(sink, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode()


def load(folder: str | os.PathLike[str]) -> Results:
    """Read what `Results.save` wrote.

    Raises
    ------
    ResultsError
        If there are none, or they are not swatsim's.
    """
    return read_parquet(Path(folder) / PARQUET)


def read_parquet(path: Path) -> Results:
    """Read one Parquet file that `Results.to_parquet` made.

    Raises
    ------
    ResultsError
        If there is none, or it is not swatsim's.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        version = metadata.get(b"schema_version", b"none").decode()
        if version != str(SCHEMA_VERSION):
            raise ResultsError(
                f"{path} is of schema version {version}, this swatsim reads {SCHEMA_VERSION}: "
                "simulate again"
            )
        return Results(table.to_pylist(), json.loads(metadata[b"provenance"]))
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ResultsError(
            f"no results in {path.parent} ({reason}): simulate into it first"
        ) from None


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that results can't or mustn't be written to, before any work is done.

    Raises
    ------
    ResultsError
        If it, or a parent, is a file or not writeable, or it is (a part of) a trace.
    """
    if not os.fspath(folder):
        raise ResultsError("can't write to '': name a directory")
    try:
        _check_folder(Path(folder).absolute())
    except OSError as error:
        raise ResultsError(f"can't write to {folder}: {error.strerror}") from None


def _is_trace(path: Path) -> bool:
    manifest = path / "manifest.json"
    return manifest.is_file() and b"swatsim-trace" in manifest.read_bytes()[:10_000]


def _check_folder(path: Path) -> None:
    choose = "choose another directory"
    if any(_is_trace(place) for place in (path, *path.parents)):
        raise ResultsError(f"can't write to {path}: a trace is there; {choose}")
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "not writeable" if there.is_dir() else "a file"
        raise ResultsError(f"can't write to {path}: {there} is {what}; {choose}")


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write several files into a folder: all of them or none.

    Raises
    ------
    ResultsError
        If there is no room, no permission, or the folder is a file.
    """
    paths = {folder / name: content for name, content in contents.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        publish_all(paths)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        make_room = "make room, or " if error.errno in (errno.ENOSPC, errno.EFBIG) else ""
        raise ResultsError(
            f"can't write to {folder}: {error.strerror or error}{where}; what was there before is "
            f"unchanged: {make_room}choose another directory"
        ) from None
    return list(paths)


def _schema() -> list[dict[str, str]]:
    return [asdict(column) for column in COLUMNS]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
