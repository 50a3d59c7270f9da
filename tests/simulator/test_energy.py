"""Energy: events times the table, by hand; what tables may be, and what they lack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.errors import ConfigError
from swatsim.simulator.energy.energy import energies
from swatsim.simulator.energy.table import EnergyTable, Size, Sram, energy_table, shipped
from swatsim.simulator.interface import Counters
from swatsim.simulator.memory.config import DRAMS
from swatsim.simulator.memory.feed import Fed
from swatsim.workload.layer import Layer
from swatsim.workload.training_ops import Op
from tests.traces import make_trace

MINE = """
name = "mine"
[mac.fp32]
multiply = 2
add = 1
source = "guessed"
[sram]
source = "guessed"
sizes = [{ kib = 1, pj = 1, bits = 8 }, { kib = 4, pj = 4, bits = 8 }]
[dram.lpddr4-3200]
pj = 5
bits = 1
source = "guessed"
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def op() -> Op:
    ones = np.ones((2, 4), np.bool_)
    return Op(Layer(name="fc", kind="linear", C=4, K=6), "fprop", np.ones((6, 4), np.bool_), ones)


def test_events_times_energies_by_hand(mine: Path) -> None:
    counters = Counters(9, 1, 16, 40, 8, words_a=10, words_b=20, accumulations=3)
    fed = Fed(99, dram_bytes_weight=96, dram_bytes_act=32, dram_bytes_result=48, words_out=12)
    config = swatsim.machine(
        "scnn",
        dtype="fp32",
        dram="lpddr4-3200",
        accumulator=256,  # banks of 4 bytes x 8: a 32nd of a KiB
        **{f"buffer_{name}_banks": 1 for name in ("a", "b", "out")},
        buffer_a_kib=2,  # between 1 and 4 KiB: 2 pJ for 8 bits
        buffer_b_kib=1,
        buffer_out_kib=16,  # four times 4 KiB: four times its energy
    ).config
    found = energies(op(), counters, fed, config, energy_table(mine))
    assert found.mac == (40 + 8) * 3
    assert found.multiplexer == found.scheduler == 0
    assert found.buffer_a == pytest.approx((10 * 32 + 96 * 8) * 2 / 8)
    assert found.buffer_b == pytest.approx((20 * 32 + 32 * 8) * 1 / 8)
    assert found.buffer_out == pytest.approx((12 * 32 + 48 * 8) * 16 / 8)
    assert found.accumulator == pytest.approx(3 * 32 / 32 / 8)
    assert found.dram == (96 + 32 + 48) * 8 * 5


def test_published_points_come_out_as_published() -> None:
    at45, at7 = energy_table("45nm"), energy_table("7nm")
    for kib, pj in ((32, 25), (256, 100), (1024, 208), (4096, 440)):
        assert 256 * at45.pj_of_sram_bit(kib) == pytest.approx(pj)
    for kib, pj in ((8, 7.5), (32, 8.5), (1024, 14)):
        assert 64 * at7.pj_of_sram_bit(kib) == pytest.approx(pj)
    assert at7.pj_of_dram_bit("hbm2") == 3.9
    assert at45.pj_of_product("fp32") == pytest.approx(3.7 + 0.9)
    assert at7.pj_of_product("bf16") < at7.pj_of_product("fp16") < at7.pj_of_product("fp32")


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_table_has_what_any_machine_may_have(name: str) -> None:
    table = energy_table(name)
    for dtype in ("fp32", "fp16", "bf16"):
        assert table.pj_of_product(dtype) > 0
    for kind in DRAMS:
        assert (table.pj_of_dram_bit(kind) > 0) == (kind != "ideal")
    assert table.pj_of("multiplexer") > 0
    assert table.pj_of("scheduler") > 0


@settings(deadline=None, derandomize=True)
@given(kib=st.floats(0.01, 10**6), factor=st.floats(1, 100))
def test_a_larger_sram_costs_more(kib: float, factor: float) -> None:
    for name in shipped():
        table = energy_table(name)
        assert table.pj_of_sram_bit(kib * factor) >= table.pj_of_sram_bit(kib) * (1 - 1e-9)


def test_one_size_is_the_energy_of_all() -> None:
    sram = Sram(source="guessed", sizes=[Size(kib=3, pj=6, bits=2)])
    assert sram.pj_per_bit(1) == sram.pj_per_bit(100) == pytest.approx(3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("name = ", "mine.toml is no TOML: "),
        ("nam = 'x'", r"nam.*did you mean 'name'"),
        (
            "name = 'x'\n[mac.fp32]\nmultiply = -1\nadd = 0\nsource = 'y'",
            "multiply=-1 is not allowed",
        ),
        ("name = 'x'\n[mac.fp32]\nmultiply = 1\nadd = 0", "source is missing"),
        ("name = 'x'\n[sram]\nsource = 'y'\nsizes = []", "sizes"),
        (
            "name = 'x'\n[sram]\nsource = 'y'\nsizes = [{kib=2,pj=1,bits=1},{kib=1,pj=1,bits=1}]",
            "must ascend",
        ),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(line)
    with pytest.raises(ConfigError, match=message):
        energy_table(path)


def test_a_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'45mn'.*did you mean '45nm'.*or a path .* \.toml"):
        energy_table("45mn")
    with pytest.raises(ConfigError, match=r"can't read .*none\.toml: No such file"):
        energy_table(tmp_path / "none.toml")


def test_a_table_without_an_event_that_the_machine_has_is_refused(
    mine: Path, tmp_path: Path
) -> None:
    trace = make_trace(tmp_path / "small")
    with pytest.raises(ConfigError, match=r"'mine' has no entry \[multiplexer\].*add it"):
        swatsim.simulate(trace, "tensordash", energy=mine)
    with pytest.raises(ConfigError, match=r"no entry \[mac\.fp16\]"):
        swatsim.simulate(trace, "scnn", energy=mine)
    results = swatsim.simulate(trace, "swat", energy=mine)
    assert results.provenance["parameters"]["energy"]["name"] == "mine"
    assert results.frame.energy_pj.min() > 0


def test_without_memory_only_the_pes_take_energy(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "small")
    frame = swatsim.simulate(trace, swatsim.machine("swat", memory="none")).frame
    assert (frame.cycles == frame.cycles_compute).all()
    assert (frame.energy_pj == frame.energy_pj_mac + frame.energy_pj_accumulator).all()
    assert isinstance(energy_table("7nm"), EnergyTable)


def test_what_dram_keeps_from_dgrad_to_wgrad(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "small")
    away, kept = (
        swatsim.simulate(trace, swatsim.machine("tensordash", keep_on_chip=keep)).frame
        for keep in (False, True)
    )
    ours = kept[kept.role == "machine"]
    with_dgrad = ours.layer.isin(ours[ours.op == "dgrad"].layer.unique())
    assert (ours[with_dgrad & (ours.op == "wgrad")].dram_bytes_grad_out == 0).all()
    assert (ours[~with_dgrad & (ours.op == "wgrad")].dram_bytes_grad_out > 0).all()
    assert kept.dram_bytes_grad_out.sum() < away.dram_bytes_grad_out.sum()
