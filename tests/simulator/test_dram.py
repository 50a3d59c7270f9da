"""DRAMs: a file each, users' own too; what is counted depends on what stands in the file."""

from __future__ import annotations

import os
import pickle
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.errors import ConfigError
from swatsim.simulator.energy.table import EnergyTable, energy_table
from swatsim.simulator.energy.table import shipped as tables
from swatsim.simulator.memory import dram as drams
from swatsim.simulator.memory.config import MemoryConfig
from swatsim.simulator.memory.dram import Dram, dram
from swatsim.sweeps import run
from swatsim.sweeps.spec import read_spec
from tests.traces import make_trace

MINE = """
[bandwidth]
mb_per_s = 1000
source = "guessed"
[latency]
ns = 70
source = "guessed"
[energy.45nm]
pj = 16
bits = 8
source = "guessed"
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("dram") / "small").path


@pytest.mark.parametrize("name", drams.shipped())
def test_a_dram_that_ships_has_an_energy_at_every_node_of_a_table(name: str) -> None:
    for table in tables():
        node = energy_table(table).node
        assert energy_table(table).name == node == table
        of_bit = dram(name).pj_of_bit(node)
        assert of_bit is not None, f"drams/{name}.toml has no [energy.{node}]"
        assert (of_bit == 0) == dram(name).ideal


def test_a_dram_is_one_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "drams"
    shutil.copytree(drams.FOLDER, folder)
    (folder / "tape.toml").write_text(MINE)
    monkeypatch.setattr(drams, "FOLDER", folder)
    config = MemoryConfig(dram="tape", dram_channels=3, clock_mhz=500)
    assert (config.bandwidth_mb_per_s, config.latency_cycles) == (3000, 35)
    assert energy_table("45nm").pj_of_dram_bit(config.dram) == 2
    with pytest.raises(ConfigError, match="'tap': did you mean 'tape'.* known are .* tape, or a p"):
        MemoryConfig(dram="tap")


def test_a_file_of_a_users_own(mine: Path, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = swatsim.machine("scnn", dram=mine).config
    assert (config.bandwidth_mb_per_s, config.latency_cycles) == (4000, 70)
    monkeypatch.chdir(mine.parent)
    machine = swatsim.machine("scnn", dram="mine.toml")
    assert machine.name == "scnn[dram=mine.toml,dram_mb_per_s=auto]"
    assert swatsim.machine(machine.name) == machine
    assert pickle.loads(pickle.dumps(machine.config)) == machine.config
    results = swatsim.simulate(trace, machine, ops=["fprop"])
    assert results.provenance["parameters"]["machine"]["dram"] == {
        "name": "mine.toml",
        "bandwidth": {"mb_per_s": 1000, "source": "guessed"},
        "latency": {"ns": 70, "source": "guessed"},
        "energy": {"45nm": {"pj": 16, "bits": 8, "source": "guessed"}},
    }
    row = results.rows[0]
    moved = [name for name in row if name.startswith("dram_bytes_")]
    assert row["energy_pj_dram"] == 2 * 8 * sum(row[name] for name in moved)


def test_another_content_is_another_machine(mine: Path) -> None:
    first = swatsim.machine("scnn", dram=mine).config
    assert first == swatsim.machine("scnn", dram=mine).config
    for old, new in (("70", "71"), ("1000", "999"), ("pj = 16", "pj = 17")):
        mine.write_text(MINE.replace(old, new))
        assert swatsim.machine("scnn", dram=mine).config != first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[bandwidth", r"mine\.toml is no TOML"),
        (MINE.replace("1000", "0"), r"mine\.toml', entry .*mb_per_s=0 is not allowed"),
        (MINE.replace("1000", "1.5"), "mb_per_s=1.5 is not allowed"),
        (MINE.replace("70", "'70'"), "ns='70' is not allowed"),
        (MINE.replace("pj = 16", "pj = nan"), "pj=nan is not allowed"),
        (MINE.replace("[latency]", "[latencies]"), "'latencies': did you mean 'latency'"),
        (MINE.partition("[latency]")[0], "latency is missing"),
        (MINE.replace('bits = 8\nsource = "guessed"', "bits = 8"), "source is missing"),
        ("name = 'x'" + MINE, "name is not allowed: it is called as its file is"),
        ("x" * (2**20 + 1), "can't read the DRAM .*larger than 1048576 bytes"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(mine: Path, content: str, message: str) -> None:
    mine.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        swatsim.machine("scnn", dram=mine)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("machine parameters: dram=")


def test_a_file_that_can_not_be_is_refused(mine: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path, message in (
        (tmp_path / "none.toml", "No such file"),
        (tmp_path / "pipe.toml", "it is not a file, but a device or a pipe"),
        ("a,b.toml", "a comma, a bracket or a space at an end can't stand in a machine's name"),
        (" a.toml", "can't stand in a machine's name"),
        ("a\n.toml", "can't stand in a machine's name"),
        (5, "dram=5 is not allowed: must be ddr4-3200, .* or a path that ends in .toml"),
    ):
        with pytest.raises(ConfigError, match=message):
            swatsim.machine("scnn", dram=path)
    with pytest.raises(ConfigError, match="dram_channels=256 of .* give 2560000.* fewer channels"):
        mine.write_text(MINE.replace("1000", "10000000"))
        MemoryConfig(dram=mine, dram_channels=256)


# ---- energy --------------------------------------------------------------------------------------


def table(**entries: Any) -> EnergyTable:
    return EnergyTable(name="own", **entries)


OWN = {"dram": {"hbm2": {"pj": 5, "bits": 2, "source": "guessed"}}}


@pytest.mark.parametrize("node", [{}, {"node": "45nm"}, {"node": "3nm"}])
def test_an_entry_of_the_table_goes_before_the_drams_own(node: dict[str, str]) -> None:
    assert table(**OWN, **node).pj_of_dram_bit(dram("hbm2")) == 2.5
    assert table(**node).pj_of_dram_bit(dram("ideal")) == 0


def test_an_energy_that_nobody_knows_is_refused(mine: Path) -> None:
    assert table(node="45nm").pj_of_dram_bit(dram("ddr4-3200")) == 1300 / 64
    with pytest.raises(
        ConfigError,
        match=r"'own' has no entry \[dram.ddr4-3200\] and no node, .*: add the entry, or the node "
        r"\(it has 45nm, 7nm\)",
    ):
        table(**OWN).pj_of_dram_bit(dram("ddr4-3200"))
    with pytest.raises(
        ConfigError,
        match=r"mine.toml' has no energy at 7nm \(it has 45nm\), the node of energy table '7nm': "
        r"add \[energy.7nm\] to the DRAM's file, or \[dram.\".*mine.toml\"\] to the table",
    ):
        energy_table("7nm").pj_of_dram_bit(dram(mine))


# ---- sweeps --------------------------------------------------------------------------------------


class Replacing(ThreadPoolExecutor):
    """Gives a DRAM's file another content before the first job begins."""

    def __init__(self, path: Path, content: str) -> None:
        super().__init__(1)
        self._path, self._content = path, content

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._path.write_text(self._content)
        return super().submit(fn, *args, **kwargs)


def sweep_of(trace: Path, path: Path, **more: Any) -> dict[str, Any]:
    machine = {"preset": "swat", "set": {"dram": str(path)}}
    return {"traces": [str(trace)], "machines": [machine], "steps": [0], "ops": ["fprop"], **more}


def test_a_sweep_knows_a_dram_by_its_content(mine: Path, trace: Path, tmp_path: Path) -> None:
    spec, out = sweep_of(trace, mine), tmp_path / "out"
    with ThreadPoolExecutor(1) as here:
        (first,) = swatsim.sweep(spec, out, executor=here).rows
        assert "1 kept" in run.look(spec, out).words()
        mine.write_text(MINE.replace("70", "7000"))
        (second,) = swatsim.sweep(spec, out, executor=here).rows
    assert first["machine"] == second["machine"] == f"swat[dram={mine}]"
    assert first["point"] != second["point"]
    assert first["cycles"] < second["cycles"]


@pytest.mark.parametrize("baseline", [False, True])
def test_a_dram_that_is_replaced_while_a_sweep_runs_is_refused(
    mine: Path, trace: Path, tmp_path: Path, baseline: bool
) -> None:
    spec = sweep_of(trace, mine)
    if baseline:
        machines = [{"preset": "swat"}]
        spec |= {"machines": machines, "baseline": f"scnn[dram={mine}]"}
    with Replacing(mine, MINE.replace("70", "7000")) as executor:
        found = swatsim.sweep(spec, tmp_path / "out", executor=executor)
    assert "the file of a DRAM is another than the sweep began with" in found.failed[0]["error"]


def test_paths_of_drams_are_relative_to_the_specification(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(
        """
        traces = ["t"]
        constraints = ["dram == 'b.toml' or dram == 'hbm2'"]
        baseline = "scnn[rows=1, dram = base.toml,pe_h=2]"
        common = { dram = "a.toml" }
        [[machines]]
        preset = "swat"
        set = { dram = "b.toml" }
        grid = { dram = ["hbm2", "c.toml"] }
        [[machines.when]]
        parameters = { dram = "c.toml" }
        grid = { dram = "d.toml", pe_h = { from = 1, to = 2, step = 1 } }
        """
    )
    spec = read_spec(tmp_path / "sweep.toml")
    (machine,) = spec.machines
    assert spec.common == {"dram": f"{tmp_path}/a.toml"}
    assert machine.fixed == {"dram": f"{tmp_path}/b.toml"}
    assert machine.grid == {"dram": ["hbm2", f"{tmp_path}/c.toml"]}
    assert machine.when[0].parameters == {"dram": f"{tmp_path}/c.toml"}
    assert machine.when[0].grid["dram"] == f"{tmp_path}/d.toml"
    assert spec.baseline == f"scnn[rows=1, dram ={tmp_path}/base.toml,pe_h=2]"
    assert spec.constraints == [f"dram == '{tmp_path}/b.toml' or dram == 'hbm2'"]


def test_a_record_is_called_by_its_name() -> None:
    assert f"{dram('hbm2')}" == "hbm2"
    assert isinstance(dram("hbm2"), Dram)
