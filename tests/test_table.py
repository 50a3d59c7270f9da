"""Rows kept as columns: what is put in comes out, of the same type, whatever they are picked by."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from itertools import islice
from typing import Any

import numpy as np
import pytest

from swatsim.table import Gathered, Rows, at_places, behind, column_of, digest, grouped, kept, where

ODD: dict[str, list[Any]] = {
    "small": [0, -1, 127, 5],
    "large": [2**63 - 1, -(2**63), 0, 1],
    "beyond": [2**63, 1, 2, 3],
    "real": [0.0, -0.0, 1e300, float("inf")],
    "empty": [None, 1.5, None, 0.0],
    "never": [None] * 4,
    "text": ["a", "", "a", "é\n"],
    "mixed": [1, 1.0, "1", True],
}


def rows_of(times: int = 1) -> list[dict[str, Any]]:
    rows = [dict(zip(ODD, values, strict=True)) for values in zip(*ODD.values(), strict=True)]
    return rows * times


def gathered(rows: list[dict[str, Any]], at_once: int = 3) -> Rows:
    found, some = Gathered(), iter(rows)
    while part := list(islice(some, at_once)):
        found.add(part)
    return found.rows()


@pytest.mark.parametrize("at_a_time", [1, 3, 4096])
def test_what_is_put_in_comes_out(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swatsim.table.AT_A_TIME", at_a_time)
    rows = rows_of(3)
    found = gathered(rows)
    assert found == rows
    assert rows == found
    assert [dict(row) for row in found] == rows
    for name in ODD:
        assert list(map(repr, found.column(name))) == [repr(row[name]) for row in rows]
        assert [repr(row[name]) for row in found] == [repr(row[name]) for row in rows]
    for other in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert other == rows


def test_rows_are_a_sequence_that_nobody_changes() -> None:
    rows = rows_of(2)
    found = gathered(rows)
    assert found[-1] == rows[-1]
    assert found[2:5] == rows[2:5]
    assert list(reversed(found)) == rows[::-1]
    assert found != rows[:-1]
    assert {**found[1]} == rows[1]
    with pytest.raises(IndexError):
        found[len(rows)]
    with pytest.raises(TypeError):
        found[0]["small"] = 1  # type: ignore[index]
    with pytest.raises(ValueError, match="'other'"):
        gathered([*rows, {**rows[0], "other": 1}])


def test_rows_are_picked_alike_from_columns_and_from_dicts() -> None:
    rows = rows_of(2)
    found = gathered(rows)
    for by in ((), ("text",), ("text", "small")):
        assert grouped(found, by) == grouped(rows, by)
    assert where(found, "small", lambda it: it > 0) == where(rows, "small", lambda it: it > 0)
    assert at_places(found, [3, 0]) == [rows[3], rows[0]]
    assert behind([found[:2], found[4:]]) == [*rows[:2], *rows[4:]]
    assert behind([found[:2], rows[4:]]) == [*rows[:2], *rows[4:]]
    assert column_of(behind([]), "small") == []
    assert isinstance(behind([found[:2], [], rows[:0]]), Rows), "a list of none makes rows a list"


def test_a_row_takes_few_bytes() -> None:
    row = {f"n{i}": i for i in range(50)} | {"text": "a" * 100, "real": 0.5}
    tracemalloc.start()
    try:
        found = Gathered()
        for number in range(20_000):
            found.add([{**row, "step": number}])
        rows = found.rows()
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rows) == 20_000
    assert size < 100 * len(rows)
    assert peak < 20_000_000, "few rows are dicts at a time"


def test_whole_numbers_are_as_narrow_as_they_are() -> None:
    assert kept([0, 1]).values.dtype == np.int8  # type: ignore[union-attr]
    assert kept([0, 2**40]).values.dtype == np.int64  # type: ignore[union-attr]


def test_a_digest_is_of_all_cells_and_of_nothing_else() -> None:
    plain = {name: values for name, values in ODD.items() if name not in ("beyond", "mixed")}
    others: dict[str, Any] = {
        "small": 9,
        "large": 8,
        "real": 7.5,
        "empty": 2.5,
        "never": 1.0,
        "text": "b",
    }

    def of(columns: dict[str, list[Any]], at_once: int = 3) -> str:
        cells = zip(*columns.values(), strict=True)
        return digest(gathered([dict(zip(columns, row, strict=True)) for row in cells], at_once))

    found = {of(plain), of({**plain, "another": plain["small"]}), of({**plain, "real": [0.0] * 4})}
    assert of(plain, 1) == of(plain)
    for name, values in plain.items():
        for place in range(4):
            found.add(
                of({**plain, name: [*values[:place], others.get(name), *values[place + 1 :]]})
            )
        found.add(of({it if it != name else "renamed": some for it, some in plain.items()}))
    found.add(of({name: values[:3] for name, values in plain.items()}))
    assert len(found) == 3 + 4 * len(plain) + len(plain) + 1
    assert digest(gathered(rows_of())) == ""
