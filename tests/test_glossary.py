"""The glossary has every word of the sets that results, traces and formats are made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from swatsim.columns import COLUMNS, Role
from swatsim.counters import BUCKETS
from swatsim.workload.layer import OPERANDS, OPS
from swatsim.workload.storage import Entries

TEXT = (Path(__file__).parents[1] / "docs" / "glossary.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", TEXT, flags=re.M)
#: Single words, as the first column has them: "row, column" is two.
WORDS = {word.strip("` ") for first, _ in ROWS for word in first.split(",")}

#: What the code is full of and no set declares.
TERMS = [
    *("PE", "lane", "line", "row", "column", "tile", "stream"),
    *("window", "lookahead", "lookaside", "lane-cycle", "bucket", "halo", "effectual"),
    *("baseline", "role", "variant", "operand", "lowering", "split", "dilated"),
    *("adjoint", "buffer", "block", "stall", "density", "sparsity", "granularity"),
    *("allocation", "schedule", "N:M", "trace", "step", "sample", "mask"),
    *("policy", "site"),
]
PHRASES = ["bank conflict", "loop order", "partial sums", "fill and drain", "natural zero"]


@pytest.mark.parametrize(
    "words",
    [
        {name.removeprefix("lane_cycles_") for name in BUCKETS},
        {*OPS, *OPERANDS},
        {*get_args(Entries)},
        {*TERMS, *PHRASES, "saved tensors"},
    ],
    ids=["buckets", "ops and operands", "entries of formats", "terms"],
)
def test_the_glossary_has_every_word(words: set[str]) -> None:
    assert sorted(words - WORDS) == []


def test_the_glossary_names_every_role() -> None:
    [meaning] = [text for word, text in ROWS if word == "role"]
    assert set(re.findall(r"`(\w+)`", meaning)) == set(Role)


def test_buckets_mean_what_their_columns_say() -> None:
    section = TEXT.partition("### Buckets")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, flags=re.M)
    meanings = {column.name: column.meaning for column in COLUMNS}
    assert dict(rows) == {name.removeprefix("lane_cycles_"): meanings[name] for name in BUCKETS}


def test_no_word_stands_twice_but_for_buckets() -> None:
    above, _, rest = TEXT.partition("### Buckets")
    text = above + rest.partition("\n## ")[2]
    firsts = re.findall(r"^\| ([^|]+) \|", text, flags=re.M)
    words = [word.strip("` ") for first in firsts if first != "word" for word in first.split(",")]
    assert sorted({word for word in words if words.count(word) > 1} - {"---"}) == []
