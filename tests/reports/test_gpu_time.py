"""The estimate for real GPUs: what ships is what is fitted, and its error is stated with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import pytest

import swatsim
from swatsim.counters import OP_BYTES
from swatsim.reports import gpu_time
from swatsim.reports.page import of_results
from swatsim.results import Results
from tests.command import swatsim as command
from tests.scripts import load
from tests.traces import make_trace

ROOT = Path(__file__).parents[2]
LAYER = swatsim.Layer(name="fc", kind="linear", C=512, K=1024)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Load benchmarks/paper/gpu_time.py."""
    return load("paper/gpu_time")


@pytest.fixture(scope="module")
def fitted(script: ModuleType) -> dict[str, gpu_time.Model]:
    """Fit anew."""
    everything = script.load()
    return {gpu: script.fitted(gpu, everything) for gpu in script.RATES}


def test_what_ships_is_what_is_fitted(
    script: ModuleType, fitted: dict[str, gpu_time.Model]
) -> None:
    assert gpu_time.FITTED.read_text() == script.toml(fitted)
    assert gpu_time.models() == fitted
    assert "\n".join(script.report(fitted)) + "\n" == script.REPORT.read_text()
    assert list(script.parameters(fitted)) == load("pages").block("gpu-time")


def test_only_rows_marked_fit_are_fitted(
    script: ModuleType, fitted: dict[str, gpu_time.Model]
) -> None:
    others = {
        one._replace(us=one.us * 3) if one.use == "test" else one: products
        for one, products in script.load().items()
    }
    again, first = script.fitted("a100", others), fitted["a100"]
    assert again.fit == first.fit
    assert [one.measured_us for one in again.test] == [3 * it.measured_us for it in first.test]
    uses = {one.use for one in script.measured()}
    assert uses == {"fit", "test"}


def test_no_neighbour_of_the_fit_is_better(
    script: ModuleType, fitted: dict[str, gpu_time.Model]
) -> None:
    for gpu, model in fitted.items():
        everything = script.load()
        chosen = {one: it for one, it in everything.items() if (one.gpu, one.use) == (gpu, "fit")}
        least = script.squares(model, chosen)
        for name, step in (
            ("efficiency_dense", 0.01),
            ("efficiency_sparse", 0.01),
            ("launch_us", 1.0),
        ):
            value = getattr(model, name)
            for other in (value + step, max(0.0, value - step)):
                assert script.squares(replace(model, **{name: other}), chosen) >= least


def test_counts_of_products_come_out_as_they_are_stored(script: ModuleType) -> None:
    for one, products in script.load().items():
        if (one.gpu, one.kind) == ("a100", "gemm"):  # the others take seconds
            assert list(script.counted(one)) == products


def test_a_step_has_three_products_a_layer_and_half_of_them_compressed(script: ModuleType) -> None:
    for one, products in script.load().items():
        layers = len(one.sizes) - 2
        assert len(products) == (1 if one.kind == "gemm" else 3 * layers)
        compressed = [it["op"] for it in products if it["compressed"]]
        expected = {"dense": 0, "w24": 2 * layers, "act24": 4}[one.series]
        assert len(compressed) == (min(expected, 1) if one.kind == "gemm" else expected)
        pruned = any(it["dram_bytes_prune"] for it in products)
        assert pruned == (one.series != "dense" and one.kind != "gemm")


# ---- the formula, and what it is of --------------------------------------------------------------

MODEL = gpu_time.Model("A1", "fp16", 10, 1000, 2000, {"fp16": 4}, 0.5, 0.25, 3.0)


def row(**changed: Any) -> dict[str, Any]:
    """Return an op of 10 000 cycles that moves 8000 bytes."""
    moved = dict.fromkeys(OP_BYTES, 0) | {"dram_bytes_act": 8000}
    return {"compressed": "", "cycles_compute": 10_000, **moved, **changed}


def test_the_formula_by_hand() -> None:
    assert MODEL.time_us(row()) == 10_000 / 1000 / 0.5 + 3
    assert MODEL.time_us(row(compressed="act")) == 10_000 / 1000 / 0.25 + 3
    assert MODEL.time_us(row(dram_bytes_result=92_000)) == 100_000 / 2000 + 3
    pruned = row(compressed="weight", dram_bytes_prune=4000)
    assert MODEL.time_us(pruned) == 40 + 2 + 3


def test_the_error_is_of_rows_that_it_was_not_fitted_on() -> None:
    rows = [
        gpu_time.Compared("small", 10.0, 30.0),
        gpu_time.Compared("long", 100.0, 80.0),
        gpu_time.Compared("exact", 5.0, 5.0),
    ]
    assert [one.factor for one in rows] == [3.0, 1.25, 1.0]
    words = replace(MODEL, test=rows).error
    assert "of 3 measured times that it was not fitted on" in words
    assert f"{median([3.0, 1.25, 1.0]):.2f} in the median, and of 3.0 at worst: small" in words
    words = replace(MODEL, fit=rows).error
    assert "no measured row was kept apart: error not known" in words
    assert (
        "the 3 times of fp16 products that it was fitted on it gives within a factor of 3.00"
        in (words)
    )


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> swatsim.Trace:
    """Make a trace of two steps of a linear layer."""
    return make_trace(tmp_path_factory.mktemp("gpu") / "trace", (0, 3), layers=(LAYER,))


@pytest.fixture(scope="module")
def results(trace: swatsim.Trace) -> Results:
    """Simulate it on an A100."""
    return swatsim.simulate(trace, swatsim.machine("a100", dtype="bf16"))


def test_an_estimate_is_a_mean_step(results: Results) -> None:
    model = gpu_time.models()["a100"]
    found = gpu_time.estimate(results)
    assert found is not None
    of_role = {
        role: [model.time_us(it) for it in results.rows if it["role"] == role]
        for role in ("machine", "baseline")
    }
    assert found.time_ms == pytest.approx(sum(of_role["machine"]) / 2000)
    assert found.baseline_ms == pytest.approx(sum(of_role["baseline"]) / 2000)


def test_it_is_stated_with_its_error_wherever_it_is_shown(
    results: Results, trace: swatsim.Trace
) -> None:
    (words,) = gpu_time.sentences(results)
    error = gpu_time.models()["a100"].error
    assert words.startswith("Estimated on a real A100, beside the cycles: ")
    assert error in words
    assert any(error in text for text in of_results(results).notes)
    code, out, _ = command("simulate", trace.path, "-m", "a100", "--dtype", "bf16")
    assert code == 0
    assert error in " ".join(out.split())


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        ("a100", {"cores": 54}),
        ("a100", {"dtype": "bf16", "tile_m": 64}),
        ("a100", {"clock_mhz": 1000}),
        ("a100", {"memory": "none"}),
        ("h100", {"dtype": "fp8_e4m3"}),
        ("tensordash", {}),
    ],
)
def test_other_hardware_has_no_estimate(
    trace: swatsim.Trace, preset: str, changed: dict[str, Any]
) -> None:
    results = swatsim.simulate(trace, swatsim.machine(preset, **changed))
    assert gpu_time.estimate(results) is None


def test_values_without_a_rate_are_named(trace: swatsim.Trace) -> None:
    results = swatsim.simulate(trace, swatsim.machine("a100", dtype="fp32"))
    (words,) = gpu_time.sentences(results)
    assert "No estimate for a real A100: its matrix units multiply fp16 or bf16 here" in words


def test_hardware_without_rows_apart_says_so(trace: swatsim.Trace) -> None:
    for changed in ({"dtype": "bf16"}, {"dtype": "fp8_e4m3", "macs": 4096}):
        (words,) = gpu_time.sentences(swatsim.simulate(trace, swatsim.machine("h100", **changed)))
        assert "no measured row was kept apart: error not known" in words
