"""Values have the types that they had in the run, unless the user says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.errors import ConfigError
from swatsim.results import Results
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.workload.layer import OPERANDS, Layer
from swatsim.workload.value_types import DTYPES, of_recorded, stand_in, widest
from tests.command import swatsim as run
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace

Types = Mapping[str, str]
LAYERS = (
    Layer(name="conv", C=8, K=8, H=8, W=8, R=3, S=3, padding=1),
    Layer(name="fc", kind="linear", C=32, K=16),
)


def alike(dtype: str) -> Types:
    return dict.fromkeys(OPERANDS, dtype)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give traces of the same masks, of some types of values."""
    types = {
        "unknown": None,
        "amp": alike("bfloat16"),
        "full": alike("float32"),
        "mixed": {"weight": "int8", "act": "bfloat16", "grad_out": "float32"},
        "odd": {"weight": "complex64", "act": "complex64", "grad_out": "bfloat16"},
    }
    folder = tmp_path_factory.mktemp("types")
    for name, dtypes in types.items():
        make_trace(folder / name, (0,), layers=LAYERS, dtypes=dtypes)
    return {name: folder / name for name in types}


def types_of(results: Results, role: str = "machine") -> dict[str, str]:
    rows = [row for row in results.rows if row["role"] == role]
    return {row["op"]: row["dtype"] for row in rows}


def counts(results: Results) -> list[dict[str, Any]]:
    names = ("trace", "trace_id", "machine")
    return [{k: v for k, v in row.items() if k not in names} for row in results.rows]


def test_a_mixed_precision_run_is_simulated_in_its_type(traces: dict[str, Path]) -> None:
    amp = swatsim.simulate(traces["amp"], "tensordash")
    forced = swatsim.simulate(traces["unknown"], swatsim.machine("tensordash", dtype="bf16"))
    own = swatsim.simulate(traces["unknown"], "tensordash")
    assert counts(amp) == counts(forced)  # to the byte and the picojoule
    assert {row["dtype"] for row in amp.rows} == {"bf16"}
    assert {row["machine"] for row in amp.rows} == {"tensordash"}
    assert {row["dtype"] for row in own.rows} == {"fp32"}  # the preset's
    assert sum(row["energy_pj"] for row in amp.rows) < sum(row["energy_pj"] for row in own.rows)
    assert amp.frame.dram_bytes_act.sum() < own.frame.dram_bytes_act.sum()


def test_a_preset_of_16_bits_runs_a_run_of_32_in_32(traces: dict[str, Path]) -> None:
    assert set(types_of(swatsim.simulate(traces["unknown"], "scnn")).values()) == {"fp16"}
    assert set(types_of(swatsim.simulate(traces["full"], "scnn")).values()) == {"fp32"}
    own = swatsim.simulate(traces["full"], swatsim.machine("scnn", dtype="preset"))
    assert set(types_of(own).values()) == {"fp16"}
    assert own.rows[0]["machine"] == "scnn[dtype=fp16]"
    assert counts(own) == counts(swatsim.simulate(traces["unknown"], "scnn"))


def test_an_op_has_the_wider_type_of_its_operands(traces: dict[str, Path]) -> None:
    mixed = swatsim.simulate(traces["mixed"], "tensordash")
    expected = {"fprop": "bf16", "dgrad": "fp32", "wgrad": "fp32"}
    assert types_of(mixed) == types_of(mixed, "baseline") == expected
    # a type that there is none of here is not known: the other operand's, or the machine's own
    odd = swatsim.simulate(traces["odd"], "tensordash")
    assert types_of(odd) == {"fprop": "fp32", "dgrad": "bf16", "wgrad": "bf16"}
    total = swatsim.per_op(mixed)
    assert total.dtype["step"] == "bf16 and fp32"


def test_a_type_that_is_set_goes_before_the_run_s(traces: dict[str, Path]) -> None:
    for dtype in DTYPES:
        results = swatsim.simulate(traces["amp"], swatsim.machine("swat", dtype=dtype))
        assert {row["dtype"] for row in results.rows} == {dtype}
        assert {row["machine"] for row in results.rows} == {f"swat[dtype={dtype}]"}
    with pytest.raises(ConfigError, match="dtype='fp9' is not allowed"):
        swatsim.machine("swat", dtype="fp9")


def test_machine_and_baseline_have_the_same_type(traces: dict[str, Path]) -> None:
    forced = swatsim.machine("tensordash", dtype="fp16")
    for machine, baseline, expected in (
        ("tensordash", "scnn", ("bf16", "bf16")),
        (forced, "scnn", ("fp16", "fp16")),
        (forced, swatsim.machine("scnn", dtype="fp32"), ("fp16", "fp32")),
        ("tensordash", swatsim.machine("scnn", dtype="fp32"), ("bf16", "fp32")),
    ):
        results = swatsim.simulate(traces["amp"], machine, baseline=baseline, ops=["fprop"])
        assert (types_of(results)["fprop"], types_of(results, "baseline")["fprop"]) == expected


def test_a_buffer_that_is_too_small_says_what_the_widest_type_wants(
    traces: dict[str, Path],
) -> None:
    tight = {f"buffer_{buffer}_kib": 1 for buffer in ("a", "b", "out")}
    wide = Layer(name="wide", C=600, K=4, H=1, W=1)
    trace = make_trace(traces["amp"].parent / "wide", (0,), layers=(wide,), dtypes=alike("float64"))
    with pytest.raises(BufferTooSmallError) as narrow:
        swatsim.simulate(trace, swatsim.machine("swat", **tight, block_channels=600))
    needed = narrow.value.needed
    with pytest.raises(BufferTooSmallError) as half:
        swatsim.simulate(trace, swatsim.machine("swat", **tight, block_channels=600, dtype="fp32"))
    assert needed > half.value.needed


def test_what_stays_on_chip_has_one_type(traces: dict[str, Path]) -> None:
    machine = swatsim.machine("tensordash", keep_on_chip=True)
    types = {"weight": "float32", "act": "float16", "grad_out": "float16"}
    trace = make_trace(traces["amp"].parent / "apart", (0,), layers=LAYERS, dtypes=types)
    for path, kept in ((traces["amp"], True), (trace.path, False)):
        rows = swatsim.simulate(path, machine, ops=["dgrad", "wgrad"]).rows
        loaded = [r["dram_bytes_grad_out"] for r in rows if r["op"] == "wgrad" and not r["variant"]]
        assert (0 in loaded) == kept


def test_a_sweep_tells_types_apart(traces: dict[str, Path], tmp_path: Path) -> None:
    machines = [
        {"preset": "scnn"},
        {"preset": "scnn", "grid": {"dtype": ["fp16", "preset", "fp32"]}},
    ]
    spec = {"traces": [traces["amp"]], "machines": machines, "ops": ["fprop"]}
    found = swatsim.sweep(spec, tmp_path / "out", executor=Here())
    assert {(row["machine"], row["dtype"]) for row in found.rows} == {
        ("scnn", "bf16"),
        ("scnn[dtype=fp16]", "fp16"),
        ("scnn[dtype=fp32]", "fp32"),
    }


def test_the_command_line_sets_a_type_for_both_machines(traces: dict[str, Path]) -> None:
    amp = str(traces["amp"])
    one = ("--op", "fprop")
    code, out, _ = run("simulate", amp, "-m", "scnn", *one)
    assert code == 0
    assert "Values are bf16, as in the run; the machine's own type is fp16" in " ".join(out.split())
    both = run("simulate", amp, "-m", "scnn", "--baseline", "dadiannao", "--dtype", "fp64", *one)
    words = " ".join(both[1].split())
    assert "scnn[dtype=fp64] against dadiannao[dtype=fp64]" in words
    assert "Values are" not in words
    assert "has no products of fp64: those of fp32 stand in, which is too little." in words
    assert (
        "given twice"
        in run("simulate", amp, "-m", "scnn", "--dtype", "fp32", "-s", "dtype=fp16")[2]
    )


def test_types_are_ordered_and_named() -> None:
    assert widest(["bf16", None, "int8"]) == "bf16"
    assert widest([None]) is None
    assert [of_recorded(name) for name in ("float32", "bfloat16", "complex64", None)] == [
        "fp32",
        "bf16",
        None,
        None,
    ]
    known = ("bf16", "fp32")
    assert [stand_in(dtype, known) for dtype in ("int8", "bf16", "fp16", "fp64")] == [
        *("bf16", "bf16", "fp32", "fp32")
    ]
    assert stand_in("fp16", ()) is None
