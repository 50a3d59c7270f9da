"""Results that were damaged or edited are refused in one line, or their rows are equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import swatsim
from swatsim.columns import COLUMNS, FORM
from swatsim.errors import ResultsError
from swatsim.parquet import decode
from swatsim.results import CSV, PARQUET, PROVENANCE, Results, load, read_parquet
from swatsim.workload.layer import Layer
from tests.traces import make_trace

LAYERS = (Layer(name="fc", kind="linear", C=8, K=4),)
FLIPS = 400

Edit = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    trace = make_trace(tmp_path_factory.mktemp("parquet") / "t", (0,), layers=LAYERS)
    return swatsim.simulate(trace, "tensordash")


@pytest.fixture
def saved(results: Results, tmp_path: Path) -> Path:
    results.save(tmp_path)
    return tmp_path / PARQUET


def refused_or_equal(path: Path, results: Results) -> bool:
    """Tell whether it is refused; if it is not, it must be what was written."""
    try:
        found = load(path.parent)
    except ResultsError as error:
        assert "\n" not in str(error)
        return True
    assert found.rows == results.rows
    assert found.provenance == results.provenance
    return False


@pytest.mark.parametrize("lean", [False, True])
def test_no_flipped_bit_changes_a_row(results: Results, saved: Path, lean: bool) -> None:
    content = results.to_parquet() if lean else saved.read_bytes()
    rng = np.random.default_rng(17)
    refused = 0
    for place, bit in zip(
        rng.integers(0, len(content), FLIPS), rng.integers(0, 8, FLIPS), strict=True
    ):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(bit)
        saved.write_bytes(flipped)
        refused += refused_or_equal(saved, results)
    assert refused > FLIPS / 4
    for length in rng.integers(0, len(content), 20):
        saved.write_bytes(content[:length])
        assert refused_or_equal(saved, results)


def replaced(name: str, change: Callable[[Any], Any]) -> Edit:
    def edit(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        field = pa.field(name, table.schema.field(name).type)
        values = pa.chunked_array([pa.array([change(v) for v in table[name].to_pylist()])])
        return table.set_column(place, field.with_type(values.type), values)

    return edit


def swapped(table: pa.Table, one: str, other: str) -> pa.Table:
    names = [{one: other, other: one}.get(name, name) for name in table.column_names]
    return table.rename_columns(names).replace_schema_metadata(table.schema.metadata)


def emptied(name: str) -> Edit:
    """Empty the first cell, and keep the column's type."""

    def edit(table: pa.Table) -> pa.Table:
        kind = table.schema.field(name).type
        values = pa.array([None, *table[name].to_pylist()[1:]], kind)
        return table.set_column(table.schema.get_field_index(name), name, values)

    return edit


def told(**about: str | None) -> Edit:
    def edit(table: pa.Table) -> pa.Table:
        known = {k.decode(): v.decode() for k, v in table.schema.metadata.items()} | about
        return table.replace_schema_metadata({k: v for k, v in known.items() if v is not None})

    return edit


EDITS: list[tuple[str, Edit, str]] = [
    *((f"no {c.name}", lambda t, n=c.name: t.drop_columns([n]), "is missing") for c in COLUMNS),
    *(
        (f"empty {c.name}", replaced(c.name, lambda v: None), "is null, must be")
        for c in COLUMNS
    ),
    *(
        (f"one empty {c.name}", emptied(c.name), "has empty cells")
        for c in COLUMNS
        if not c.optional
    ),
    ("one energy", emptied("energy_pj"), "is not the sum of its parts"),
    ("one density", emptied("density_weight"), "digest"),
    *(
        (f"{c.name} below", replaced(c.name, lambda v: -1), "has -1 to -1")
        for c in COLUMNS
        if c.dtype == "int64"
    ),
    *(
        (f"{c.name} one more", replaced(c.name, lambda v: v + 1), "digest|not the sum|more than|x ")
        for c in COLUMNS
        if c.dtype == "int64"
    ),
    *(
        (f"{c.name} NaN", replaced(c.name, lambda v: float("nan")), "holds what is no number")
        for c in COLUMNS
        if c.dtype == "float64"
    ),
    ("inf", replaced("energy_pj", lambda v: float("inf")), "no number"),
    ("density", replaced("density_weight", lambda v: 1.5), "must be from 0 to 1"),
    ("float cycles", replaced("cycles", float), "is double, must be int64"),
    ("role", replaced("role", lambda v: "boss"), "'boss', allowed are machine, baseline"),
    ("op", replaced("op", lambda v: "fprop"), "two rows have the same|digest"),
    ("name", replaced("layer", lambda v: v + "x"), "its digest is"),
    ("cast", replaced("op", lambda v: v.encode()), "is binary, must be string"),
    ("more", lambda t: t.append_column("more", t["cycles"]), "'more' is not one"),
    ("twice", lambda t: t.append_column("cycles", t["cycles"]), "there twice"),
    ("no rows", lambda t: t.slice(0, 0), "holds no rows"),
    ("some rows", lambda t: t.slice(0, 2), "digest"),
    ("rows twice", lambda t: pa.concat_tables([t, t]), "two rows have the same"),
    ("order", lambda t: t.take(pa.array(range(t.num_rows)[::-1])), "digest"),
    ("swapped", lambda t: swapped(t, "C", "K"), "digest"),
    ("version", told(schema_version="2"), "is of schema version 2, this swatsim reads 3 and 4"),
    ("no version", told(schema_version=None), "schema version none"),
    ("null", told(provenance="null"), "provenance is NoneType, must be an object"),
    ("list", told(provenance="[]"), "must be an object"),
    ("energy", told(provenance='{"parameters": {"energy": 7}}'), "parameters.energy is int, must"),
    ("trace", told(provenance='{"parameters": {"trace": "x"}}'), "parameters.trace is str, must"),
    ("batch", told(provenance='{"parameters": {"batch_size": "b"}}'), "must be a whole number"),
    ("parameters", told(provenance='{"parameters": null}'), "parameters is NoneType"),
    ("machine", told(provenance='{"parameters": {"machine": 3}}'), "machine is int"),
    ("provenance", told(provenance="{}"), "digest"),
    ("no provenance", told(provenance=None), "no table of results"),
    ("no JSON", told(provenance="{"), "no table of results"),
    ("no digest", told(digest=None), "no table of results"),
]  # fmt: skip


def test_every_edit_is_refused_in_one_line(saved: Path) -> None:
    table = pq.ParquetFile(saved).read()
    known = pq.read_metadata(saved).metadata
    table = table.replace_schema_metadata({k: v for k, v in known.items() if k != b"ARROW:schema"})
    pq.write_table(table, saved)
    assert read_parquet(saved)  # what is only written again is what it was
    for name, edit, complaint in EDITS:
        pq.write_table(edit(table), saved)
        with pytest.raises(ResultsError, match=complaint) as caught:
            read_parquet(saved)
        assert "\n" not in str(caught.value), name
        assert "simulate again" in str(caught.value), name


def test_how_cells_are_encoded_is_none_of_their_digest(results: Results, saved: Path) -> None:
    table = pq.ParquetFile(saved).read()
    known = pq.read_metadata(saved).metadata
    table = table.replace_schema_metadata({k: v for k, v in known.items() if k != b"ARROW:schema"})
    pq.write_table(table, saved, row_group_size=2, compression="zstd", use_dictionary=False)
    assert read_parquet(saved).rows == results.rows
    assert pc.all(pc.is_valid(table["cycles"])).as_py()


def test_rows_are_written_and_read_some_at_a_time(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.save(tmp_path / "whole")
    monkeypatch.setattr("swatsim.parquet.GROUP", 2)
    monkeypatch.setattr("swatsim.results.AT_A_TIME", 1)
    results.save(tmp_path / "parts")
    assert pq.ParquetFile(tmp_path / "parts" / PARQUET).num_row_groups == -(-len(results.rows) // 2)
    for folder in ("whole", "parts"):
        assert load(tmp_path / folder).rows == results.rows
    files = (tmp_path / folder / PARQUET for folder in ("whole", "parts"))
    digests = {pq.read_metadata(file).metadata[b"digest"] for file in files}
    assert len(digests) == 1
    for it in (CSV, PROVENANCE):
        assert (tmp_path / "whole" / it).read_bytes() == (tmp_path / "parts" / it).read_bytes()
    twice = Results([*results.rows, results.rows[0]], {})
    with pytest.raises(ResultsError, match="two rows have the same trace, trace_id, step, layer"):
        twice.save(tmp_path / "twice")


def test_rows_that_would_be_refused_are_not_written(results: Results, tmp_path: Path) -> None:
    for column, value in (
        ("cycles", -5),
        ("cycles", None),
        ("cycles", 2**70),
        ("cycles", 1.5),
        ("energy_pj", float("nan")),
        ("density_act", 2.0),
        ("role", "boss"),
        ("lane_cycles_idle", 10**6),
    ):
        wrong = [{**results.rows[0], column: value}, *results.rows[1:]]
        with pytest.raises(ResultsError, match="are no results, and can't be kept") as caught:
            Results(wrong, {}).save(tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ResultsError, match="can't be kept"):
        Results([], {}).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_odd_names_come_back_equal(results: Results, tmp_path: Path) -> None:
    for name in ("a\nb", 'quo"te', "", "NA", "null", "1", "\u00e9, x", "nan", "a\r\nb"):
        odd = Results([{**row, "layer": name} for row in results.rows], results.provenance)
        odd.save(tmp_path)
        assert load(tmp_path).rows == odd.rows


def test_a_set_of_two_simulations_is_noticed(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swatsim.results.MAX_SWAP_SECONDS", 0.02)
    for name in ("one", "two"):
        Results(results.rows, {"run": name}).save(tmp_path / name)
    for path in (tmp_path / "one", tmp_path / "two"):
        beside = json.loads((path / PROVENANCE).read_text())
        assert beside["digest"] == decode((path / PARQUET).read_bytes(), FORM).digest
    (tmp_path / "one" / PARQUET).write_bytes((tmp_path / "two" / PARQUET).read_bytes())
    with pytest.raises(ResultsError, match="are not of one simulation: simulate again"):
        load(tmp_path / "one")
    for text in ("", "[]", "{}", "null", "{"):
        (tmp_path / "one" / PROVENANCE).write_text(text)
        with pytest.raises(ResultsError, match="are not of one simulation"):
            load(tmp_path / "one")
    for name in (PROVENANCE, CSV):  # a file that was copied alone is whole
        (tmp_path / "one" / name).unlink()
    assert load(tmp_path / "one").provenance == {"run": "two"}
