"""A counter, a bucket and a part of the energy are declared once; all that lists them follows."""

from __future__ import annotations

import ast
from itertools import combinations
from pathlib import Path
from typing import Annotated, NamedTuple

import pytest

from swatsim.columns import COLUMNS, FORM
from swatsim.counters import (
    BUCKETS,
    DRAM_BYTES,
    ENERGY_PARTS,
    OP_BYTES,
    Counters,
    Energies,
    MemoryCounters,
    VectorCounters,
)
from swatsim.counts import Count, bucket, declared, parts_of
from swatsim.simulator.machines import machine, presets
from swatsim.simulator.run import simulate
from tests.simulator.test_other import NORM
from tests.sources import nodes
from tests.traces import make_trace

ROOT = Path(__file__).parents[1] / "swatsim"
COUNTED = (Counters, MemoryCounters, VectorCounters, Energies)


class Toy(NamedTuple):
    cycles: Annotated[int, Count("cycles", "all of them")]
    lane_cycles_useful: Annotated[int, bucket("both values there", "useful", "#009E73")]
    lane_cycles_asleep: Annotated[int, bucket("clock off", "asleep", "#000000", "xx")] = 0


class Half(NamedTuple):
    cycles: Annotated[int, Count("cycles", "all of them")]
    lane_cycles_asleep: int = 0


class Misnamed(NamedTuple):
    asleep: Annotated[int, bucket("clock off", "asleep", "#000000")] = 0


def test_a_bucket_is_one_declaration() -> None:
    columns = {one.column: one.what.meaning for one in declared(Toy)}
    assert columns == {
        "cycles": "all of them",
        "lane_cycles_useful": "both values there",
        "lane_cycles_asleep": "clock off",
    }
    assert parts_of(Toy) == {
        "lane_cycles_useful": ("useful", "#009E73", ""),
        "lane_cycles_asleep": ("asleep", "#000000", "xx"),
    }


def test_what_is_declared_by_half_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Half.lane_cycles_asleep has no meaning: declare it as"):
        declared(Half)
    with pytest.raises(TypeError, match="Misnamed.asleep: buckets, and they alone, are called"):
        declared(Misnamed)


def test_every_counter_has_its_column_and_every_part_is_added() -> None:
    found = {column.name: column.meaning for column in COLUMNS}
    fields = [one for counted in COUNTED for one in declared(counted)]
    assert len(fields) == sum(len(counted._fields) for counted in COUNTED)
    assert {one.column: one.what.meaning for one in fields}.items() <= found.items()
    assert FORM.sums == {"lane_cycles": tuple(BUCKETS), "energy_pj": tuple(ENERGY_PARTS)}
    assert set(BUCKETS) == {name for name in found if name.startswith("lane_cycles_")}
    assert list(ENERGY_PARTS) == [f"energy_pj_{name}" for name in Energies._fields]


@pytest.mark.parametrize("parts", [BUCKETS, ENERGY_PARTS], ids=["buckets", "energy"])
def test_parts_of_a_whole_are_told_apart(parts: dict[str, tuple[str, str, str]]) -> None:
    for one, other in combinations(parts.values(), 2):
        assert one[0] != other[0], "two of one label"
        assert one[1:] != other[1:], f"{one[0]} and {other[0]} are drawn alike"


def listed(path: Path) -> set[str]:
    """Name the buckets and parts in the longest literal of a source that lists several."""
    known = {*BUCKETS, *ENERGY_PARTS}
    known |= {name.removeprefix("lane_cycles_") for name in BUCKETS} - {"buffer", "dram"}
    longest: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            inside = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
            longest = max(longest, known & {str(value) for value in inside}, key=len)
    return longest


def test_no_other_list_of_them_stands_in_the_house(tmp_path: Path) -> None:
    copy = tmp_path / "copy.py"
    copy.write_text("PARTS = {'idle': 1, 'energy_pj_dram': (2, 'lane_cycles_halo')}")
    assert len(listed(copy)) == 3
    sources = [path for path in ROOT.rglob("*.py") if path.name != "counters.py"]
    assert {path: names for path in sources if len(names := listed(path)) > 2} == {}


#: Sums that leave and come back, and a buffer that is waited for.
TIGHT = {"loop_order": "CKN", "block_channels": 2, "block_filters": 1, "buffer_a_words": 1}


def test_nothing_that_is_declared_stays_zero(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "trace", steps=(0,), others=[NORM])
    machines = [*(name for name, _, _ in presets()), machine("tensordash", **TIGHT)]
    machines.append(machine("a100", prune_each_step=True))
    rows = [row for it in machines for row in simulate(trace, it, workers=1).rows]
    declares = [one.column for counted in COUNTED for one in declared(counted)]
    assert [name for name in declares if not any(row[name] for row in rows)] == [], "who counts it?"


def test_what_is_repeated_is_multiplied_where_it_adds_up() -> None:
    found = Counters(5, 2, 3, lane_cycles_idle=30, words_a=1).times(4)
    assert found == Counters(20, 2, 3, lane_cycles_idle=120, words_a=4)


def test_all_bytes_are_those_of_each_kind() -> None:
    one = MemoryCounters(1, **dict.fromkeys(OP_BYTES, 2))  # type: ignore[arg-type]
    assert one.dram_bytes == 2 * len(OP_BYTES)
    counted = [one.column for of in COUNTED for one in declared(of)]
    assert set(DRAM_BYTES) == {name for name in counted if name.startswith("dram_bytes_")}
