"""The schema of results moves by a rule, and results of older versions are read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swatsim.columns import COLUMNS, FORM, SCHEMA_VERSION, Role, label
from swatsim.errors import ResultsError
from swatsim.form import Column
from swatsim.reports import tables
from swatsim.results import PARQUET, Results, load, read_parquet
from swatsim.upgrades import UPGRADES

DATA = Path(__file__).parent / "data"
SCHEMA = DATA / "results_schema.json"
OLD = (DATA / "results_v3.parquet", DATA / "results_v3_against.parquet")

Columns = dict[str, list[Any]]


def fingerprint(columns: tuple[Column, ...] = COLUMNS) -> Columns:
    """Return what of each column a reader depends on, in their order."""
    return {c.name: [c.dtype, c.unit, c.adds, c.optional, list(c.values)] for c in columns}


def advice(stored: Columns, now: Columns, version: int) -> str:
    """Say what a change of the columns asks for; nothing, if there is none."""
    gone, new = sorted(stored.keys() - now.keys()), sorted(now.keys() - stored.keys())
    changed = sorted(name for name in stored.keys() & now.keys() if stored[name] != now[name])
    if list(stored.items()) == list(now.items()):
        return ""
    raised = f"raise SCHEMA_VERSION to {version + 1}"
    kept = (
        f"keep a file of version {version} as tests/data/results_v{version}.parquet, and store the "
        "new schema: python -m tests.test_columns"
    )
    if new and all(now[name][3] for name in new) and not gone and not changed:
        how = f"UPGRADES[{version}] appends them empty"
        return f"new optional column {', '.join(new)}: {raised}, {how}, {kept}"
    words = ", ".join([*gone, *changed, *new]) or "their order"
    how = f"UPGRADES[{version}] says how they follow from the old ones"
    return f"columns changed ({words}): {raised}, {how}, {kept}"


def test_the_schema_version_moves_with_the_columns() -> None:
    stored = json.loads(SCHEMA.read_text())
    assert stored["version"] == SCHEMA_VERSION, "store the new schema: python -m tests.test_columns"
    assert not advice(stored["columns"], fingerprint(), SCHEMA_VERSION)


def test_what_a_change_asks_for_is_said() -> None:
    one, other = COLUMNS[0], COLUMNS[-1]
    stored = fingerprint((one, other))
    assert not advice(stored, fingerprint((one, replace(other, meaning="in other words"))), 4)
    more = Column("more", "int64", "words", "more", "sum")
    for columns, words in (
        ((one, other, replace(more, optional=True)), "new optional column more: raise .* to 5"),
        ((one, other, more), r"columns changed \(more\): raise SCHEMA_VERSION to 5, UPGRADES\[4\]"),
        ((one,), rf"columns changed \({other.name}\)"),
        ((one, replace(other, unit="nJ")), rf"columns changed \({other.name}\)"),
        ((other, one), r"columns changed \(their order\)"),
    ):
        with pytest.raises(AssertionError, match=words):
            assert not (found := advice(stored, fingerprint(columns), 4)), found


def test_every_older_version_since_the_third_is_read() -> None:
    assert list(UPGRADES) == list(range(3, SCHEMA_VERSION))
    for version in UPGRADES:
        assert read_parquet(DATA / f"results_v{version}.parquet").rows


def test_variants_of_version_3_are_taken_apart() -> None:
    names = [{(r["role"], r["machine"], r["variant"]) for r in read_parquet(p).rows} for p in OLD]
    scnn, eight = "scnn[dram=hbm2,dram_mb_per_s=auto]", "tensordash[rows=8]"
    assert names == [
        {
            ("machine", scnn, ""),
            ("baseline", scnn, "dense"),
            ("alternative", scnn, "dense, with bank conflicts"),
        },
        {("machine", eight, ""), ("baseline", "dadiannao", "")},
    ]
    for path in OLD:
        old, new = pq.read_table(path), read_parquet(path)
        labels = [label(row["machine"], row["variant"]) for row in new.rows]
        assert labels == old["machine"].to_pylist()
        assert [row["cycles"] for row in new.rows] == old["cycles"].to_pylist()
        assert tables.per_op(new)[-1]["speed_up"] > 0
        assert new.to_parquet(), "it can be kept as what is current"


def test_version_6_had_layers_only() -> None:
    for row in read_parquet(DATA / "results_v6.parquet").rows:
        assert (row["function"], row["phase"], row["density_output"]) == ("", "", None)
        assert row["lane_cycles_vector"] == row["vector_elements"] == row["dram_bytes_vector"] == 0
        assert row["energy_pj_vector"] == 0.0
        assert row["energy_pj"] > 0


def test_version_7_had_no_area() -> None:
    rows = read_parquet(DATA / "results_v7.parquet").rows
    assert {row["op"] for row in rows} == {"fprop", "dgrad", "wgrad", "other"}
    assert {(row["area_mm2"], row["leakage_mw"]) for row in rows} == {(None, None)}


def test_the_digest_of_an_older_file_is_checked_before_it_is_upgraded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / PARQUET).write_bytes(OLD[0].read_bytes())
    assert load(tmp_path).rows
    table = pq.ParquetFile(OLD[0]).read()
    known = pq.read_metadata(OLD[0]).metadata
    upgraded: list[pa.Table] = []
    monkeypatch.setitem(FORM.upgrades, 3, upgraded.append)  # type: ignore[arg-type]
    twice = pa.array([2 * value for value in table["cycles"].to_pylist()])
    for changed in (
        table.set_column(table.column_names.index("cycles"), "cycles", twice),
        table.drop_columns(["step"]),
        table.slice(1),
    ):
        pq.write_table(changed.replace_schema_metadata(known), tmp_path / PARQUET)
        with pytest.raises(ResultsError, match="its digest is"):
            load(tmp_path)
    assert not upgraded


def test_roles_are_declared_once() -> None:
    (column,) = (column for column in COLUMNS if column.name == "role")
    assert column.values == ("machine", "baseline", "alternative")
    assert all(f"{role}: {role.meaning}" in column.meaning for role in Role)
    assert label("scnn", "dense") == "scnn dense"
    assert label("scnn", "") == "scnn"


def test_a_row_without_a_column_names_it() -> None:
    row = read_parquet(OLD[0]).rows[0]
    for column in COLUMNS:
        short = {name: value for name, value in row.items() if name != column.name}
        with pytest.raises(ResultsError, match=f"a row lacks column '{column.name}'"):
            Results([row, short], {}).to_parquet()
    with pytest.raises(ResultsError, match="a row has 'more', which is no column"):
        Results([{**row, "more": 1}], {}).to_parquet()


if __name__ == "__main__":
    stored = {"version": SCHEMA_VERSION, "columns": fingerprint()}
    SCHEMA.write_text(json.dumps(stored, indent=1) + "\n")
