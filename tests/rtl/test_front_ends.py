"""Areas of front ends in the tables are those of the circuits that lie here."""

from __future__ import annotations

import re
import shutil
from importlib import import_module
from typing import Any

import pytest

from swatsim.simulator.energy.area import FrontEndPart
from swatsim.simulator.energy.table import energy_table, shipped
from swatsim.workload.value_types import DTYPES
from tests.rtl.circuits import HERE, ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module("circuit_area")


def parts(table: str) -> dict[str, FrontEndPart]:
    area = energy_table(table).area
    assert area is not None
    return dict(area.front_end)


@pytest.mark.parametrize("table", shipped())
def test_entries_are_of_the_circuits_as_they_are(script: Any, table: str) -> None:
    found = parts(table)
    assert list(found) == [part.name for part in script.PARTS]
    for name, part in found.items():
        named = re.search(r"tests/rtl/(\w+)\.sv \(sha256 (\w+)\)", part.source)
        assert named, part.source
        again = "run python benchmarks/circuit_area.py: another circuit than that of the table"
        assert named[2] == script.digest(named[1]), f"{name}: {again}"
        assert (HERE / f"{named[1]}.sv").read_text().count(f"\nmodule {_module(part)} ") == 1


def _module(part: FrontEndPart) -> str:
    return part.source.partition("module ")[2].partition(" ")[0]


def test_at_7_nm_they_are_scaled_as_multipliers_are(script: Any) -> None:
    for at_45, at_7 in zip(parts("45nm").values(), parts("7nm").values(), strict=True):
        for bits in DTYPES.values():
            assert at_7.mm2(bits) == pytest.approx(script.TO_7NM * at_45.mm2(bits), rel=1e-3)
    logic = [energy_table(name).area for name in ("45nm", "7nm")]
    adders = [area.logic["fp32"].add_um2 for area in logic if area]
    assert adders[1] == pytest.approx(script.TO_7NM * adders[0], rel=1e-3)


def test_entries_are_what_yosys_makes(script: Any) -> None:
    if not shutil.which("yosys"):
        pytest.skip("yosys is not installed: apt install yosys")
    for made in script.every():
        entry = parts("45nm")[made.part.name]
        # another version maps some gates in another way
        within = 1e-3 if script.version() in entry.source else 0.1
        for bits in (8, 32):
            um2 = made.um2 + bits * made.um2_per_bit
            assert entry.mm2(bits) * 1e6 == pytest.approx(um2, rel=within)
