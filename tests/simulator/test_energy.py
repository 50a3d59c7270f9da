"""Energy: events times the table, by hand; what tables may be, and what they lack."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.cli.drawing import draw
from swatsim.counters import Counters, MemoryCounters
from swatsim.errors import ConfigError
from swatsim.reports import tables
from swatsim.simulator.energy.energy import energies
from swatsim.simulator.energy.table import EnergyTable, Size, Sram, energy_table, shipped
from swatsim.simulator.memory import dram as drams
from swatsim.simulator.memory.config import BUFFERS
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.value_types import DTYPES
from tests.traces import make_trace

MINE = """
name = "mine"
[mac.fp32]
multiply = 2
add = 1
source = "guessed"
[sram]
source = "guessed"
sizes = [{ kib = 1, pj = 1, write = 2, bits = 8 }, { kib = 4, pj = 4, write = 4, bits = 8 }]
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


def op() -> LoweredOp:
    ones = np.ones((2, 4), np.bool_)
    return LoweredOp(
        Layer(name="fc", kind="linear", C=4, K=6), "fprop", np.ones((6, 4), np.bool_), ones
    )


def test_events_times_energies_by_hand(mine: Path) -> None:
    counters = Counters(9, 1, 16, 40, 8, words_a=10, words_b=20, accumulations=3)
    memory = MemoryCounters(
        99, dram_bytes_weight=96, dram_bytes_act=32, dram_bytes_result=48, words_out=12
    )
    config = swatsim.machine(
        "scnn",
        dtype="fp32",
        dram="lpddr4-3200",
        accumulator=2**20,  # banks of 128 KiB: 32 times 4 KiB
        **{f"buffer_{name}_banks": 1 for name in BUFFERS},
        buffer_a_kib=2,  # between 1 and 4 KiB: 2 pJ for 8 bits
        buffer_b_kib=1,
        buffer_out_kib=16,  # four times 4 KiB: four times its energy
    ).config
    found = energies(op(), counters, memory, config, energy_table(mine))
    assert found.mac == (40 + 8) * 3
    assert found.multiplexer == found.scheduler == 0
    # what PEs take is read, what DRAM gives is written: between 2 and 1 times a read's 2 pJ
    assert found.buffer_a == pytest.approx((10 * 32 + 96 * 8 * 2**0.5) * 2 / 8)
    assert found.buffer_b == pytest.approx((20 * 32 + 32 * 8 * 2) * 1 / 8)
    assert found.buffer_out == pytest.approx((12 * 32 + 48 * 8) * 16 / 8)  # alike from 4 KiB on
    assert found.accumulator == pytest.approx(3 * 32 * 128 / 8)
    assert found.dram == (96 + 32 + 48) * 8 * 5


#: What one bit of the output's buffer costs to read and to write, in 1 KiB of `MINE`.
READ, WRITE = 1 / 8, 2 / 8


@pytest.mark.parametrize(
    ("name", "partial", "pj"),
    [
        # 12 sums of 32 bits are written, 48 bytes leave
        ("fprop", 0, 12 * 32 * WRITE + 48 * 8 * READ),
        # 96 bytes of partial sums: half leave, half come back
        ("fprop", 96, (12 * 32 + 48 * 8) * WRITE + (48 + 48) * 8 * READ),
        ("dgrad", 0, 8 * 32 * WRITE + 48 * 8 * READ),
        # 24 weights, of two samples: written twice, read once
        ("wgrad", 0, 2 * 24 * 32 * WRITE + (24 * 32 + 48 * 8) * READ),
    ],
)
def test_reads_and_writes_of_the_output_by_hand(
    mine: Path, name: Any, partial: int, pj: float
) -> None:
    masks = {"weight": (6, 4), "act": (2, 4), "grad_out": (2, 6)}
    reads = {key: np.ones(masks[key], np.bool_) for key in OPERANDS_OF[name]}
    found = LoweredOp(Layer(name="fc", kind="linear", C=4, K=6), name, **reads)
    memory = MemoryCounters(9, dram_bytes_result=48, dram_bytes_partial=partial)
    small = {f"buffer_{it}_{what}": 1 for it in BUFFERS for what in ("kib", "banks")}
    config = swatsim.machine("swat", dtype="fp32", **small).config
    counters = Counters(9, 1, 1, accumulations=10)
    parts = energies(found, counters, memory, config, energy_table(mine))
    assert parts.buffer_out == pytest.approx(pj)
    # a bank of 0.75 KiB costs what one of 1 KiB does: half the accesses read, half write
    assert parts.accumulator == pytest.approx(5 * 32 * (READ + WRITE))


def test_a_table_without_writes_counts_them_as_reads_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old.toml"
    path.write_text("name='old'\n[sram]\nsource='y'\nsizes=[{kib=1,pj=3,bits=1}]")
    table = energy_table(path)
    assert table.pj_of_sram_write_bit(1) == table.pj_of_sram_bit(1) == pytest.approx(3)
    assert "'old' has no `write` in [sram] sizes: writes are counted as reads" in caplog.text
    caplog.clear()
    for name in shipped():
        assert energy_table(name).sram.has_writes  # type: ignore[union-attr]
    assert not caplog.text


def test_published_points_come_out_as_published() -> None:
    at45, at7 = energy_table("45nm"), energy_table("7nm")
    for kib, read, write in (
        (1, 8.31, 9.7),
        (8, 10.71, 24.32),
        (32, 25.44, 47.64),
        (256, 99.75, 123.17),
        (1024, 207.75, 197.69),
        (4096, 440.05, 420.69),
    ):
        assert 256 * at45.pj_of_sram_bit(kib) == pytest.approx(read)
        assert 256 * at45.pj_of_sram_write_bit(kib) == pytest.approx(write)
        if kib in (8, 32, 1024):  # at 7 nm the ratio is that of 45 nm
            ratio = at7.pj_of_sram_write_bit(kib) / at7.pj_of_sram_bit(kib)
            assert ratio == pytest.approx(write / read, rel=1e-3)
    assert at45.pj_of_sram_write_bit(0.1) == pytest.approx(9.7 / 256)
    assert at45.pj_of_sram_write_bit(2**16) < at45.pj_of_sram_bit(2**16)
    for kib, pj in ((8, 7.5), (32, 8.5), (1024, 14)):
        assert 64 * at7.pj_of_sram_bit(kib) == pytest.approx(pj)
    assert at7.pj_of_dram_bit(drams.dram("hbm2")) == 3.9
    assert at45.pj_of_product("fp32") == pytest.approx(3.7 + 0.9)
    assert at7.pj_of_product("bf16") < at7.pj_of_product("fp16") < at7.pj_of_product("fp32")


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_table_has_what_any_machine_may_have(name: str) -> None:
    table = energy_table(name)
    for dtype in DTYPES:
        assert table.pj_of_product(dtype) > 0
    for kind in map(drams.dram, drams.shipped()):
        assert (table.pj_of_dram_bit(kind) > 0) == (not kind.ideal)
    assert table.pj_of("multiplexer") > 0
    assert table.pj_of("scheduler") > 0


@settings(deadline=None, derandomize=True)
@given(kib=st.floats(0.01, 10**6), factor=st.floats(1, 100))
def test_a_larger_sram_costs_more(kib: float, factor: float) -> None:
    for name in shipped():
        table = energy_table(name)
        assert table.pj_of_sram_bit(kib * factor) >= table.pj_of_sram_bit(kib) * (1 - 1e-9)


def test_nothing_costs_more_at_7_nm() -> None:
    old, new = energy_table("45nm"), energy_table("7nm")
    for dtype in DTYPES:
        assert new.pj_of_product(dtype) < old.pj_of_product(dtype)
    for event in ("multiplexer", "scheduler"):
        assert new.pj_of(event) < old.pj_of(event)
    for kind in map(drams.dram, drams.shipped()):
        assert new.pj_of_dram_bit(kind) <= old.pj_of_dram_bit(kind)
    # SRAMs are of different sources; from the size on at which most banks are, they agree on it
    for kib in (128, 256, 1024, 4096):
        assert new.pj_of_sram_bit(kib) < old.pj_of_sram_bit(kib)


def test_a_table_that_was_edited_is_read_again(mine: Path) -> None:
    assert energy_table(mine).pj_of_product("fp32") == 3
    mine.write_text(MINE.replace("multiply = 2", "multiply = 7"))
    assert energy_table(mine).pj_of_product("fp32") == 8


def test_what_is_no_table_is_refused() -> None:
    for wrong in (None, 123):
        with pytest.raises(ConfigError, match=f"energy={wrong} is not allowed"):
            energy_table(wrong)  # type: ignore[arg-type]


def test_one_size_is_the_energy_of_all() -> None:
    sram = Sram(source="guessed", sizes=[Size(kib=3, pj=6, bits=2)])
    assert sram.pj_per_bit(1) == sram.pj_per_bit(100) == pytest.approx(3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("name = ", "mine.toml is no TOML: "),
        ("nam = 'x'", r"nam.*did you mean 'name'"),
        ("a = " + "[" * 3000, "mine.toml is no TOML"),
        (
            "name='x'\n[sram]\nsource='y'\nsizes=[{kib=1,pj=1,bits=1},{kib=1.01,pj=9,bits=1}]",
            "from 1 to 1.01 KiB the energy of a bit grows by 9: it must not fall, nor grow faster",
        ),
        (
            "name='x'\n[sram]\nsource='y'\nsizes=[{kib=1,pj=5e-324,bits=1}]",
            "mine.toml: entry .*pj=5e-324 is not allowed",
        ),
        ("name='x'\n[scheduler]\npj=1e300\nsource='y'", "pj=1e.300 is not allowed"),
        (
            "name='x'\n[sram]\nsource='y'\nsizes=[{kib=1,pj=1,bits=1},{kib=2,pj=1,write=1,bits=1}]",
            "its size of 1 KiB has no write, and others have: give `write` of each size, or of no",
        ),
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
    none = tmp_path / "none.toml"
    none.write_text("name = 'none'")
    with pytest.raises(ConfigError, match=r"no entry \[mac\.fp16\]"):
        swatsim.simulate(trace, "scnn", energy=none)
    results = swatsim.simulate(trace, "swat", energy=mine)
    assert results.provenance["parameters"]["energy"]["name"] == "mine"
    assert results.frame.energy_pj.min() > 0


def test_a_type_without_an_energy_takes_the_next_wider_ones(mine: Path) -> None:
    table = energy_table("45nm")
    pairs = {"fp8_e4m3": "bf16", "fp8_e5m2": "bf16", "tf32": "fp32", "fp64": "fp32"}
    for dtype, other in pairs.items():
        assert table.pj_of_product(dtype) == table.pj_of_product(other)
    assert table.pj_of_product("int8") == pytest.approx(0.2 + 0.9)
    assert {energy_table(mine).pj_of_product(dtype) for dtype in DTYPES} == {3}


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


def test_what_is_kept_moves_no_more(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "small")
    tight = {"buffer_a_kib": 4, "buffer_b_kib": 8, "buffer_out_kib": 8, "buffer_a_banks": 1}
    away, kept = (
        swatsim.simulate(trace, swatsim.machine("tensordash", keep_on_chip=keep, **tight)).frame
        for keep in (False, True)
    )
    names = [name for name in away if name.startswith("dram_bytes")]
    assert kept[names].sum().sum() <= away[names].sum().sum()
    alone = swatsim.simulate(trace, swatsim.machine("tensordash", keep_on_chip=True), ops=["wgrad"])
    assert alone.frame.dram_bytes_grad_out.min() > 0  # no dgrad is run that could keep it


def test_the_capacity_that_is_named_does_for_all_ops(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "small")
    tight = {"block_rows": 10**6, "buffer_a_kib": 1, "buffer_a_banks": 1}
    with pytest.raises(ConfigError, match="buffer_a_kib=1 of tensordash") as caught:
        swatsim.simulate(trace, swatsim.machine("tensordash", **tight))
    needed = int(str(caught.value).split("at least ")[1])
    assert swatsim.simulate(
        trace, swatsim.machine("tensordash", **{**tight, "buffer_a_kib": needed})
    )
    with pytest.raises(ConfigError, match=f"set buffer_a_kib to at least {needed}"):
        short = {**tight, "buffer_a_kib": needed - 1}
        swatsim.simulate(trace, swatsim.machine("tensordash", **short))


def test_a_baseline_of_another_clock_is_compared_in_time(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "small")
    slow, fast = "tensordash", "tensordash[clock_mhz=1000,dram_mb_per_s=51200,dram_latency_ns=22]"
    step = tables.per_op(swatsim.simulate(trace, slow, baseline=fast))[-1]
    assert step["cycles"] == step["baseline"]["cycles"]  # the same machine at twice the clock
    assert step["speed_up"] == step["speed_up_compute"] == 0.5
    with pytest.raises(ConfigError, match="memory=none and .* can't be compared"):
        swatsim.simulate(trace, swatsim.machine("swat", memory="none"), baseline="swat")


def test_another_dram_has_a_bandwidth_of_its_own() -> None:
    assert swatsim.machine("scnn").config.bandwidth_mb_per_s == 50_000
    assert (
        swatsim.machine("scnn", dram="hbm2", dram_channels=8).config.bandwidth_mb_per_s == 256_000
    )


def test_a_machine_without_memory_is_compared_by_its_compute_cycles(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "small")

    class Mine:
        name = "mine"

        def simulate_op(self, op: LoweredOp) -> Counters:
            return swatsim.machine("tensordash").simulate_op(op)

        simulate_dense = simulate_op

        def describe(self) -> dict[str, str]:
            return {"name": "mine"}

    for pair in ((Mine(), "tensordash"), ("tensordash", Mine())):
        results = swatsim.simulate(trace, pair[0], baseline=pair[1])
        step = tables.per_op(results)[-1]
        assert step["speed_up"] == 1
        assert step["energy_pj"] is None or step["baseline"]["energy_pj"] is None
        assert math.isnan(step["energy_efficiency"])
        assert set(draw(results)[0]) == {"speed_up.png", "pe_cycles.png"}
