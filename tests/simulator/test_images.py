"""A whole batch from some images: additivity of every machine, and batches recorded in full."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.counters import SUMMED
from swatsim.errors import ConfigError, TraceError
from swatsim.policies import SwatU
from swatsim.sampling import Stratum, total
from swatsim.simulator.images import OpEstimate, batch_cycles, split
from swatsim.simulator.machines import MACHINES
from swatsim.simulator.machines.lane_array.config import LaneArrayConfig
from swatsim.simulator.mechanism import Mechanism
from swatsim.simulator.runnable import ConfiguredMachine
from swatsim.tracefile import Trace
from swatsim.tracefile.header import dump_header, load_header
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.lowering import LoweredOp
from tests.strategies import CONFIGS, SOME_PRESETS, matmuls, ops
from tests.test_results import Ideal
from tests.traces import LAYERS, make_trace, part_of

SMALL = {"tiles": 1, "rows": 4, "columns": 4}
#: Of it images follow one another in every op of a convolution.
ALONE = {**SMALL, "wgrad_reduces": "positions"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Two steps of a batch of 12, all of it; images differ in density."""
    path = tmp_path_factory.mktemp("images") / "whole"
    rng = np.random.default_rng(31)
    recorder = swatsim.Recorder(path, batch_size=12)
    for layer in LAYERS:
        recorder.declare(layer)
    for number in (3, 8):
        bright = rng.uniform(0.2, 0.8, 12)
        with recorder.step(number) as step:
            for layer in LAYERS:
                for op, operands in OPERANDS_OF.items():
                    for operand in operands:
                        shape = layer.shape_of(operand, 12)
                        images = bright.reshape(-1, *[1] * (len(shape) - 1))
                        density = {"weight": 0.1, "act": 0.8 * images, "grad_out": 1 - images / 4}
                        step.operand(layer.name, op, operand, rng.random(shape) < density[operand])
    return swatsim.open_trace(path)


def cycles(trace: Trace, machine: swatsim.Machine, role: str = "machine") -> int:
    rows = swatsim.simulate(trace, machine, workers=1).rows
    return sum(row["cycles_compute"] for row in rows if row["role"] == role)


# ---- additivity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", MACHINES, ids=lambda m: m.name)
@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_images_take_together_what_the_op_takes(mechanism: Mechanism, data: st.DataObject) -> None:
    op, _ = data.draw(ops())
    whole = ConfiguredMachine("x", mechanism, data.draw(CONFIGS[mechanism.name]()))
    alone = whole.by_image(op)
    if alone is None:
        config = whole.config
        assert not isinstance(config, LaneArrayConfig) or (
            config.wgrad_reduces == "batch" if op.name == "wgrad" else op.layer.kind == "linear"
        )
        assert mechanism.name != "inner_join" or op.name != "wgrad"
        return
    for name in ("simulate_op", "simulate_dense"):
        parts = [getattr(alone, name)(part)._asdict() for part in split(op)]
        together = getattr(whole, name)(op)._asdict()
        for counter, value in together.items():
            if counter in ("pes", "lanes", "compressed"):
                assert {part[counter] for part in parts} == {value}
            else:
                assert sum(part[counter] for part in parts) == value, counter


@pytest.mark.parametrize("mechanism", MACHINES, ids=lambda m: m.name)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data())
def test_images_of_a_product_of_activations_take_together_what_it_takes(
    mechanism: Mechanism, data: st.DataObject
) -> None:
    """One by one, or in rounds; with outputs that nobody wants, and without."""
    op, _ = data.draw(matmuls())
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    if data.draw(st.booleans()):
        op = replace(op, output=rng.random(op.output_shape) < 0.6)
    whole = ConfiguredMachine("x", mechanism, data.draw(CONFIGS[mechanism.name]()))
    run = swatsim.lower(op)
    together, dense = (simulate(run) for simulate in (whole.simulate_op, whole.simulate_dense))
    if alone := whole.by_image(run):
        parts = [alone.simulate_op(part)._asdict() for part in split(op)]
        for counter in set(SUMMED) - {"cycles"}:
            if not counter.startswith("pattern"):
                assert sum(part[counter] for part in parts) == getattr(together, counter), counter
        assert {part["compressed"] for part in parts} == {together.compressed}
        parts = [alone.simulate_dense(part) for part in split(op)]
        assert sum(part.cycles_compute for part in parts) == dense.cycles_compute
    elif mechanism.name != "ideal" and (round_ := whole.in_rounds(run)):
        used, at_once = round_
        found = batch_cycles(op, op.samples, at_once, used.simulate_op)
        assert found == together.cycles_compute
    else:
        assert mechanism.name in ("ideal", "lane_array", "tensor_core")


def test_estimates_of_products_of_activations_are_of_the_whole_batch(tmp_path: Path) -> None:
    """Recorded whole or in part, with a causal mask: a batch of images that are alike is exact."""
    scores = Layer(name="qk", kind="matmul", C=6, K=14, H=7, groups=2)
    rng = np.random.default_rng(3)
    q, k = (rng.random(scores.shape_of(it, 1)) < 0.6 for it in ("act", "weight"))
    causal = np.tile(np.tri(7, dtype=bool).T, (2, 1))[None, :, :, None]
    rounded = {"ideal", "ideal-weight", "ideal-act", "scnn", "scnn-queued", "swat", "stc"}
    batch, kept = 6, 2
    for name, held in (("whole", batch), ("part", kept)):
        with swatsim.Recorder(tmp_path / name, batch_size=batch, samples=range(held)) as recorder:
            recorder.declare(scores)
            with recorder.step(0) as step:
                for operand, mask in (("weight", k), ("act", q)):
                    step.operand("qk", "fprop", operand, np.repeat(mask, held, axis=0))
                step.output("qk", "fprop", np.repeat(causal, held, axis=0))
    shared = "stc[cores=4,tile_m=2,tile_n=4,k_step=1]"  # 9 blocks of an image run, of 16
    for preset in (*SOME_PRESETS, shared):
        (row,) = swatsim.estimate_images(tmp_path / "part", preset, workers=1).ops
        rows = swatsim.simulate(tmp_path / "whole", preset, workers=1).rows
        ours, dense = (
            next(one["cycles_compute"] for one in rows if one["role"] == role)
            for role in ("machine", "baseline")
        )
        assert row.cycles_compute.value == pytest.approx(ours, abs=1e-9)
        assert row.cycles_compute_baseline.value == pytest.approx(dense, abs=1e-9)
        assert row.by_image == (preset.split("[")[0] not in rounded)


@pytest.mark.parametrize("preset", ["tensordash", "bit-tactical", "dadiannao", "scnn"])
def test_images_of_a_preset_give_together_every_counter(preset: str) -> None:
    """Weights are the sparser operand: what TensorDash chooses, its hardware schedules."""
    layer = Layer(name="x", C=32, K=8, H=4, W=4)
    rng = np.random.default_rng(6)
    weight, act = rng.random((8, 32, 1, 1)) < 0.2, rng.random((3, 32, 4, 4)) < 0.7
    op = swatsim.LoweredOp(layer, "fprop", weight=weight, act=act)
    machine = swatsim.machine(preset)
    alone = machine.by_image(op)
    assert alone is not None
    parts = [alone.simulate_op(part)._asdict() for part in split(op)]
    expected = machine.simulate_op(op)
    for counter in SUMMED:
        assert sum(part[counter] for part in parts) == getattr(expected, counter), counter
    assert (expected.schedules > 0) == (preset == "tensordash")


def test_who_schedules_is_not_which_operand() -> None:
    op = swatsim.LoweredOp(
        Layer(name="x", C=32, K=8),
        "fprop",
        weight=np.arange(256).reshape(8, 32, 1, 1) % 3 == 0,
        act=np.ones((2, 32, 1, 1), np.bool_),
    )
    found = {}
    for scheduled in ("weight", "act", "sparser"):
        for scheduling in ("static", "dynamic"):
            machine = swatsim.machine(
                "bit-tactical", scheduled=scheduled, scheduling=scheduling, tiles=1
            )
            found[scheduled, scheduling] = machine.simulate_op(op)
    static, dynamic = found["weight", "static"], found["weight", "dynamic"]
    assert static.schedules == 0 < dynamic.schedules
    assert static == dynamic._replace(schedules=0)
    assert found["act", "static"] == found["act", "dynamic"]
    assert found["act", "static"].schedules > 0
    assert found["sparser", "static"] == found["sparser", "dynamic"] == dynamic


@pytest.mark.parametrize("mechanism", MACHINES, ids=lambda m: m.name)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_batch_of_repeated_images_is_counted_by_rounds(
    mechanism: Mechanism, data: st.DataObject
) -> None:
    layer = Layer(name="x", kind="linear", C=data.draw(st.integers(1, 40)), K=9)
    name = data.draw(st.sampled_from(["fprop", "dgrad"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    samples, batch = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 70))
    masks = {
        operand: rng.random(layer.shape_of(operand, samples)) < 0.3 for operand in OPERANDS_OF[name]
    }
    op = swatsim.LoweredOp(layer, name, **masks)
    machine = ConfiguredMachine("x", mechanism, data.draw(CONFIGS[mechanism.name]()))
    used, at_once = machine.in_rounds(op) or (machine, batch)
    repeated = {
        operand: mask if operand == "weight" else mask[np.arange(batch) % samples]
        for operand, mask in masks.items()
    }
    whole = swatsim.LoweredOp(layer, name, **repeated)
    for simulate in (used.simulate_op, used.simulate_dense):
        assert batch_cycles(op, batch, at_once, simulate) == simulate(whole).cycles_compute


def test_the_operand_on_the_rows_is_the_one_of_the_whole_op() -> None:
    layer = Layer(name="x", C=64, K=8, H=4, W=4)
    act = np.zeros((2, 64, 4, 4), np.bool_)
    act[0] = True  # the weights are sparser than this image, and denser than both
    weight = np.ones((8, 64, 1, 1), np.bool_)
    weight[:, 48:] = False  # the last of four lines
    op = swatsim.LoweredOp(layer, "fprop", weight=weight, act=act)
    machine = swatsim.machine("tensordash", **SMALL)
    alone = machine.by_image(op)
    assert alone is not None
    assert alone.config.scheduled == "act"
    together = machine.simulate_op(op).cycles_compute
    assert sum(alone.simulate_op(part).cycles_compute for part in split(op)) == together
    assert sum(machine.simulate_op(part).cycles_compute for part in split(op)) != together


# ---- estimates -----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["tensordash", "bit-tactical", "scnn", "ideal"])
def test_a_batch_recorded_in_full_is_exact(whole: Trace, preset: str) -> None:
    machine = swatsim.machine(preset)
    found = swatsim.estimate_images(whole, machine, workers=1)
    step = found.totals[-1]
    assert step.cycles_compute.value == pytest.approx(cycles(whole, machine), rel=1e-12)
    theirs = cycles(whole, machine, "baseline")
    assert step.cycles_compute_baseline.value == pytest.approx(theirs, rel=1e-12)
    assert step.speed_up_compute.value == pytest.approx(theirs / cycles(whole, machine))
    for row in (*found.ops, *found.totals):
        assert row.cycles_compute.half_width == row.speed_up_compute.half_width == 0


@pytest.mark.parametrize("preset", ["tensordash", "scnn"])
def test_a_batch_lies_in_the_intervals_of_its_thirds(
    whole: Trace, tmp_path: Path, preset: str
) -> None:
    machine = swatsim.machine(preset, **(ALONE if preset == "tensordash" else {}))
    truth = swatsim.estimate_images(whole, machine, workers=1)
    thirds = [
        swatsim.estimate_images(
            part_of(whole, tmp_path / f"{first}", range(first, 12, 3)), machine, workers=1
        )
        for first in range(3)
    ]
    assert {found.images for found in thirds} == {4}
    assert thirds[0].batches == {3: 12, 8: 12}
    for name in ("cycles_compute", "speed_up_compute"):
        exact = getattr(truth.totals[-1], name).value
        seen = [getattr(found.totals[-1], name) for found in thirds]
        # one of twenty may miss: the next test counts
        assert sum(estimate.low < exact < estimate.high for estimate in seen) >= 2
        assert all(0 < estimate.half_width < 0.3 * exact for estimate in seen)
    # estimates are not biased: the mean of samples that are all images together is the truth
    for exact, *rows in zip(truth.ops, *(found.ops for found in thirds), strict=True):
        if exact.by_image:
            mean = sum(row.cycles_compute.value for row in rows) / 3
            assert mean == pytest.approx(exact.cycles_compute.value, rel=1e-12)


@pytest.mark.parametrize("preset", ["tensordash", "scnn"])
def test_the_interval_covers_the_batch_as_often_as_it_says(whole: Trace, preset: str) -> None:
    machine = swatsim.machine(preset, **(ALONE if preset == "tensordash" else {}))
    taken = {number: np.zeros(12) for number in whole.steps}
    for number, cycles_of in taken.items():
        for layer, name in whole.step(number).ops():
            op = swatsim.lower(whole.step(number).op(layer, name))
            if alone := machine.by_image(op):
                cycles_of += [alone.simulate_op(part).cycles_compute for part in split(op)]
    rng, covered = np.random.default_rng(7), 0
    for _ in range(500):
        some = [values[rng.choice(12, 4, replace=False)] for values in taken.values()]
        found = total([Stratum(12, tuple(values)) for values in some])
        covered += found.low <= sum(map(np.sum, taken.values())) <= found.high
    assert 0.9 <= covered / 500 <= 0.99


def test_batch_times_mean_by_hand(tmp_path: Path) -> None:
    """A machine of one multiplier that skips nothing else than whole lines: cycles are lines."""
    layer = Layer(name="x", C=1, K=1, H=1, W=8, S=1)
    recorder = swatsim.Recorder(tmp_path / "t", batch_size=6, samples=(0, 5))
    recorder.declare(layer)
    grad = np.zeros((2, 1, 1, 8), np.bool_)
    grad[0, ..., ::2] = True  # 4 lines of 8
    grad[1] = True  # 8 lines
    with recorder.step(0) as step:
        step.operand("x", "wgrad", "act", np.ones((2, 1, 1, 8), np.bool_))
        step.operand("x", "wgrad", "grad_out", grad)
    one = {"tiles": 1, "rows": 1, "columns": 1, "lanes": 1, "lookahead": 1, "lookaside": 0}
    machine = swatsim.machine("bit-tactical", **one, scheduled="grad_out")
    (row,) = swatsim.estimate_images(tmp_path / "t", machine).ops
    assert row.cycles_compute.value == 6 * (4 + 8) / 2
    assert row.cycles_compute.variance == 6 * 4 * 8 / 2  # N (N - n) s^2 / n, s^2 = 8
    assert row.cycles_compute.freedom == 1
    assert row.cycles_compute_baseline.value == 6 * 8
    assert row.speed_up_compute.value == pytest.approx(48 / 36)


def test_linear_layers_run_as_a_batch_where_images_share_the_array(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t")
    by = {
        preset: {(row.layer, row.op): row for row in found.ops}
        for preset in ("bit-tactical", "scnn")
        for found in [swatsim.estimate_images(trace, swatsim.machine(preset), workers=1)]
    }
    apart = [key for key, row in by["bit-tactical"].items() if not row.by_image]
    assert apart == [("fc", "fprop"), ("fc", "dgrad")]
    assert all(row.by_image for row in by["scnn"].values())
    fprop = by["bit-tactical"]["fc", "fprop"]
    # 8 images are windows of one column set of 16, as the 2 recorded are; not 4 times that
    recorded = [
        row["cycles_compute"]
        for row in swatsim.simulate(trace, "bit-tactical", ops=["fprop"]).rows
        if (row["layer"], row["role"]) == ("fc", "machine")
    ]
    assert fprop.cycles_compute.value == sum(recorded)
    # weights are scheduled: images are all the same, and no interval leaves out anything
    assert fprop.cycles_compute.variance == fprop.apart == 0


def test_totals_know_no_more_than_their_ops(tmp_path: Path) -> None:
    fc = Layer(name="fc", kind="linear", C=16, K=10)
    trace = make_trace(tmp_path / "t", layers=(fc,))
    found = swatsim.estimate_images(trace, swatsim.machine("tensordash", scheduled="act"))
    rows = [row for row in (*found.ops, *found.totals) if row.op == "fprop"]
    assert [row.layer for row in rows] == ["fc", None]
    assert not any(row.cycles_compute.known or row.speed_up_compute.known for row in rows)


def test_what_does_not_depend_on_images_is_exact(tmp_path: Path) -> None:
    """Weights are scheduled, or nothing: an interval of two of eight images is none."""
    trace = make_trace(tmp_path / "t")
    for preset, varies in (("bit-tactical", False), ("dadiannao", False), ("scnn", True)):
        found = swatsim.estimate_images(trace, preset, workers=1)
        step = found.totals[-1]
        assert (step.cycles_compute.half_width > 0) == varies
        assert (step.speed_up_compute.half_width > 0) == varies
        assert step.cycles_compute_baseline.half_width == 0
    by_act = swatsim.machine("bit-tactical", scheduled="act")
    rows = swatsim.estimate_images(trace, by_act, workers=1).ops
    # the same for both recorded images, of a machine that might take less for another
    assert any(row.cycles_compute.alike for row in rows if row.layer == "fc")


@pytest.mark.parametrize("preset", ["tensordash", "ideal"])
def test_images_that_are_one_reduction_are_near_and_have_no_interval(
    whole: Trace, tmp_path: Path, preset: str
) -> None:
    machine = swatsim.machine(preset, **(SMALL if preset == "tensordash" else {"multipliers": 99}))
    part = part_of(whole, tmp_path / "part", range(0, 12, 2))
    found = swatsim.estimate_images(part, machine, workers=1).totals[-2]
    twice, exact = np.arange(12) % 6, 0
    for number in part.steps:
        for layer, name in part.step(number).ops():
            op = swatsim.lower(part.step(number).op(layer, name))
            if name == "wgrad":
                again = {operand: mask[twice] for operand, mask in op.operands.items()}
                exact += machine.simulate_op(op.with_masks(again)).cycles_compute
    assert (found.op, found.by_image, found.cycles_compute.known) == ("wgrad", False, False)
    assert found.cycles_compute.value == pytest.approx(exact, rel=0.01)
    assert found.apart == pytest.approx(found.cycles_compute.value)


def test_rounds_of_one_reduction_lose_little() -> None:
    layer = Layer(name="x", C=4, K=16, H=7, W=7, R=3, S=3, padding=1)
    rng = np.random.default_rng(2)
    masks = {name: rng.random(layer.shape_of(name, 3)) < 0.3 for name in OPERANDS_OF["wgrad"]}
    op = swatsim.LoweredOp(layer, "wgrad", **masks)
    machine = swatsim.machine("tensordash", **SMALL)
    used, at_once = machine.in_rounds(op) or (machine, 0)
    assert at_once * layer.positions % 16 == 0
    many = np.arange(2 * at_once) % 3
    together = op.with_masks({name: mask[many] for name, mask in masks.items()})
    found = batch_cycles(op, 2 * at_once, at_once, used.simulate_op)
    assert found == pytest.approx(machine.simulate_op(together).cycles_compute, rel=0.005)


class Dense(swatsim.MachineConfig):
    """A dense machine that takes a whole batch at once, and would tell if it looked at it."""

    pes: ClassVar[int] = 4
    lanes: ClassVar[int] = 4


def dense(op: swatsim.LoweredOp, config: Dense) -> swatsim.Counters:
    assert all(name == "weight" or not any(mask.strides) for name, mask in op.operands.items())
    cycles = op.samples * op.layer.weights * op.layer.positions // 16 + 1
    idle = 16 * cycles - op.macs_effectual
    return swatsim.Counters(cycles, 4, 4, op.macs_effectual, lane_cycles_idle=idle)


def test_a_batch_that_nobody_looks_at_is_not_laid_out(tmp_path: Path) -> None:
    mechanism = swatsim.Mechanism(
        "dense", "dense", Dense, dense, dense, reads_images=lambda op, config: False
    )
    machine = ConfiguredMachine("dense", mechanism, Dense())
    trace = linear_trace(tmp_path / "t", 2**31)
    tracemalloc.start()
    found = swatsim.estimate_images(trace, machine, workers=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20
    few = swatsim.estimate_images(linear_trace(tmp_path / "few", 2**10), machine, workers=1)
    for many, one in zip(found.ops, few.ops, strict=True):
        assert many.cycles_compute.value == (one.cycles_compute.value - 1) * 2**21 + 1
        assert many.cycles_compute.half_width == 0


def test_totals_say_what_their_interval_leaves_out(tmp_path: Path) -> None:
    machine = swatsim.machine("tensordash", wgrad_reduces="positions", scheduled="act")
    found = swatsim.estimate_images(make_trace(tmp_path / "t"), machine, workers=1)
    fprop, dgrad, wgrad, step = found.totals
    assert (wgrad.by_image, wgrad.apart) == (True, 0)
    assert (step.by_image, step.layer, step.op) == (False, None, "step")
    fc = next(row for row in found.ops if (row.layer, row.op) == ("fc", "fprop"))
    assert step.apart == fprop.apart == pytest.approx(fc.cycles_compute.value)
    assert dgrad.apart == 0  # it reads no activations
    assert step.apart > 0
    assert step.cycles_compute.known

    def value(row: OpEstimate) -> float:
        return row.cycles_compute.value

    assert value(step) == pytest.approx(value(fprop) + value(dgrad) + value(wgrad))
    assert value(step) == pytest.approx(sum(map(value, found.ops)))


def test_a_choice_that_images_do_not_agree_on_is_told(tmp_path: Path) -> None:
    layer = Layer(name="x", C=4, K=4, H=4, W=4)
    recorder = swatsim.Recorder(tmp_path / "t", batch_size=8, samples=(0, 1))
    recorder.declare(layer)
    act = np.ones((2, 4, 4, 4), np.bool_)
    act[1, 1:] = False  # the weights are sparser than one image, and denser than the other
    with recorder.step(0) as step:
        step.operand("x", "fprop", "act", act)
        step.operand("x", "fprop", "weight", np.arange(16).reshape(4, 4, 1, 1) % 2 == 0)
    for preset, agreed in (("tensordash", False), ("bit-tactical", True), ("scnn", True)):
        found = swatsim.estimate_images(tmp_path / "t", preset, workers=1)
        assert [row.agreed for row in (*found.ops, *found.totals)] == [agreed] * 3


def test_one_image_gives_no_interval(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t", samples=1)
    found = swatsim.estimate_images(trace, "scnn", steps=[7], workers=1)
    assert found.images == 1
    assert found.totals[-1].cycles_compute.value > 0
    assert math.isnan(found.totals[-1].cycles_compute.high)


def test_each_step_has_its_own_batch_size(tmp_path: Path) -> None:
    layer = Layer(name="x", C=2, K=2, H=4, W=4)
    recorder = swatsim.Recorder(tmp_path / "t", batch_size=8, samples=(0, 1))
    recorder.declare(layer)
    for number, batch in ((0, 8), (1, 3)):
        with recorder.step(number, batch) as step:
            for operand in ("weight", "act"):
                full = np.ones(layer.shape_of(operand, 2), np.bool_)
                step.operand("x", "fprop", operand, full)
    found = swatsim.estimate_images(tmp_path / "t", "scnn", workers=1)
    one = cycles(swatsim.open_trace(tmp_path / "t"), swatsim.machine("scnn")) / 4
    assert found.batches == {0: 8, 1: 3}
    assert found.totals[-1].cycles_compute.value == pytest.approx(11 * one)


def test_a_layer_s_own_batch_scales_it(tmp_path: Path) -> None:
    """Rows of one sample are all there: their layer is not scaled by the step's batch."""
    layers = [Layer(name=name, C=2, K=2, H=4, W=4) for name in ("images", "rows", "boxes")]
    with swatsim.Recorder(tmp_path / "t", batch_size=8, samples=(0, 1)) as recorder:
        with recorder.step(0) as step:
            for layer, batch, kept in zip(layers, (8, 1, 12), (2, 1, 2), strict=True):
                step.declare(layer, batch, kept)
                for operand in ("weight", "act"):
                    full = np.ones(layer.shape_of(operand, kept), np.bool_)
                    step.operand(layer.name, "fprop", operand, full)
    found = swatsim.estimate_images(tmp_path / "t", "scnn", workers=1)
    values = {row.layer: row.cycles_compute.value for row in found.ops}
    assert values["images"] == 8 * values["rows"]
    assert values["boxes"] == 12 * values["rows"]
    assert found.totals[-1].cycles_compute.value == 21 * values["rows"]
    assert (found.images, found.batches) == (2, {0: 8})


def linear_trace(path: Path, batch: int) -> Path:
    """Record two images of a linear layer, and write another batch size into the step's header."""
    layer = Layer(name="fc", kind="linear", C=64, K=8)
    recorder = swatsim.Recorder(path, batch_size=2, samples=(0, 1))
    recorder.declare(layer)
    with recorder.step(0) as step:
        step.operand("fc", "fprop", "weight", np.arange(512).reshape(8, 64) % 5 == 0)
        step.operand("fc", "fprop", "act", np.arange(128).reshape(2, 64) % 11 == 0)
    recorder.close()
    file = path / "steps" / "0.safetensors"
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    found = load_header(header["__metadata__"])
    layers = [own.model_copy(update={"batch": batch}) for own in found.layers]
    header["__metadata__"] = dump_header(replace(found, batch_size=batch, layers=layers))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])
    return path


@pytest.mark.parametrize(
    "preset", ["tensordash", "bit-tactical", "dadiannao", "scnn", "ideal[multipliers=1]"]
)
@pytest.mark.parametrize("batch", [10**7, 2**31])
def test_a_batch_size_is_not_believed(tmp_path: Path, preset: str, batch: int) -> None:
    few = swatsim.estimate_images(linear_trace(tmp_path / "few", 2**10), preset, workers=1)
    trace = linear_trace(tmp_path / "t", batch)
    tracemalloc.start()
    found = swatsim.estimate_images(trace, preset, workers=1).totals[-1]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20
    per_image = few.totals[-1].cycles_compute.value / 2**10
    assert found.cycles_compute.value == pytest.approx(batch * per_image, rel=1e-3)


@pytest.mark.parametrize("preset", ["tpu-v1", "ideal-weight"])
def test_machines_that_take_a_batch_at_once_lay_none_out(tmp_path: Path, preset: str) -> None:
    swatsim.estimate_images(linear_trace(tmp_path / "few", 8), preset, workers=1)  # imports
    trace = linear_trace(tmp_path / "t", 2**31)
    tracemalloc.start()
    rows = swatsim.estimate_images(trace, preset, workers=1).ops
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20
    for row in rows:
        assert row.cycles_compute.value > 2**20
        assert row.cycles_compute.half_width == 0


def test_a_pattern_that_recorded_images_break_no_batch_of_theirs_has() -> None:
    layer, weight = Layer(name="fc", kind="linear", C=8, K=8), np.ones((8, 8), bool)
    machine = swatsim.machine("stc")
    for act, reads in (([1, 1, 1, 0] * 2, False), ([1, 0, 1, 0] * 2, True)):
        images = np.array([act, [0] * 8], bool)
        assert machine.reads_images(LoweredOp(layer, "fprop", weight, images)) == reads


def test_which_images_share_a_group_of_a_wgrad_decides_what_obeys() -> None:
    layer, machine = Layer(name="fc", kind="linear", C=4, K=4), swatsim.machine("stc[pattern=1:2]")
    images = np.array([[1] * 4, [1] * 4, [0] * 4], bool)

    def op(order: list[int]) -> LoweredOp:
        return LoweredOp(layer, "wgrad", act=images[order], grad_out=np.eye(len(order), 4) < 1)

    assert machine.simulate_op(op([0, 1])).compressed == ""
    assert machine.simulate_op(op([0, 2, 1, 2])).compressed == "act"
    assert machine.reads_images(op([0, 1]))
    assert not swatsim.machine("stc[pattern=none]").reads_images(op([0, 1]))
    assert not swatsim.machine("stc[sparse_operands=weight]").reads_images(op([0, 1]))


def test_a_batch_that_can_not_be_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        TraceError,
        match="batch=2147483649 is not allowed: must be less than or equal to 2147483648",
    ):
        swatsim.estimate_images(linear_trace(tmp_path / "t", 2**31 + 1), "scnn")
    huge = swatsim.machine("tensordash", tiles=2**16, rows=2**10)
    with pytest.raises(TraceError, match="their 640000000 values are too many to lay out"):
        swatsim.estimate_images(linear_trace(tmp_path / "u", 10**7), huge)


def test_a_synthetic_batch(tmp_path: Path) -> None:
    whole = synthesize(LAYERS, tmp_path / "whole", policy=SwatU(0.8), batch=9, seed=2)
    part = part_of(whole, tmp_path / "part", range(0, 9, 3))
    machine = swatsim.machine("tensordash", **ALONE)
    found = swatsim.estimate_images(part, machine, workers=1).totals[-1].cycles_compute
    assert found.low <= cycles(whole, machine) <= found.high


def test_what_can_not_be_estimated_is_refused(tmp_path: Path) -> None:
    trace = make_trace(tmp_path / "t")
    with pytest.raises(ConfigError, match="'mine' is an object of your own, and does not say"):
        swatsim.estimate_images(trace, Ideal())
    with pytest.raises(ConfigError, match="unknown machine 'scn': did you mean 'scnn'"):
        swatsim.estimate_images(trace, "scn")
    with pytest.raises(TraceError, match="has no step 5: recorded are 0, 7"):
        swatsim.estimate_images(trace, "scnn", steps=[5])
    with pytest.raises(ConfigError, match="workers=0 is not allowed"):
        swatsim.estimate_images(trace, "scnn", workers=0)
