"""Everything else that a step does: its rows, by hand and by a second reading of the README."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import swatsim
from swatsim.errors import ConfigError, ResultsError
from swatsim.reports import tables
from swatsim.results import Results, load
from swatsim.simulator.machines import machine
from swatsim.simulator.other import LONGEST, Share, cost, groups_of, share_of
from swatsim.tracefile import Coverage, Operation, OtherWork, Trace, open_trace
from swatsim.tracer.recorder import Recorder
from swatsim.workload.layer import OPERANDS_OF, OPS, OUTPUT_OF, Layer
from swatsim.workload.phases import PHASES
from tests.traces import make_trace

CONV = Layer(name="conv", C=4, K=4, H=6, W=6, R=3, S=3, padding=1)
FC = Layer(name="fc", kind="linear", C=16, K=8)

#: 3200 bytes of DRAM take 64 cycles, 100 values 2.
SMALL = {"vector_lanes": 50, "clock_mhz": 500, "dram_mb_per_s": 25_000, "dtype": "fp32"}

Row = Mapping[str, Any]


def work(
    *operations: tuple[str, int, int, int],
    module: str = "norm",
    phase: str = "forward",
    moved: tuple[int, int] | None = None,
    **more: Any,
) -> OtherWork:
    """Make work of (function, elements, read, written); `moved` are the chain's own bytes."""
    named = ("function", "elements", "read", "written")
    made = tuple(Operation(**dict(zip(named, one, strict=True))) for one in operations)
    read, written = moved or (made[0].read, made[-1].written)
    return OtherWork(
        module=module, phase=phase, operations=made, read=read, written=written, **more
    )


NORM = work(("native_layer_norm", 800, 3200, 3200))
CHAIN = work(("mul", 800, 6400, 3200), ("add", 800, 6400, 3200), ("relu", 800, 3200, 3200), times=2)
SGD = work(("sgd", 160, 1280, 640), module="", phase="optimizer")
TOPK = work(("topk", 10_000, 2000, 16), module="fc", phase="policy")


def trace_of(
    path: Path, others: Sequence[OtherWork] | None, samples: int = 2, **more: Any
) -> Trace:
    return make_trace(path, (0, 7), samples, (CONV, FC), others=others, **more)


def others_in(results: Results, **which: Any) -> list[Row]:
    rows = [row for row in results.rows if row["op"] == "other"]
    return [row for row in rows if all(row[name] == value for name, value in which.items())]


# ---- by hand -------------------------------------------------------------------------------------


def test_a_norm_a_chain_an_optimizer_and_a_top_k_by_hand(tmp_path: Path) -> None:
    """Of a batch of 8 images the trace holds 2: a fourth of what grows with it."""
    trace = trace_of(tmp_path / "trace", [NORM, CHAIN, SGD, TOPK])
    found = swatsim.simulate(trace, machine("tensordash", **SMALL))
    names = ("layer", "phase", "function", "cycles", "cycles_compute")
    names = (*names, "vector_elements", "dram_bytes_vector")
    ours = [tuple(row[name] for name in names) for row in others_in(found, role="machine", step=7)]
    assert ours == [
        # 200 values, 4 cycles; 1600 bytes, at 50 a cycle 32
        ("norm", "forward", "native_layer_norm", 32, 4, 200, 1600),
        # twice: 2400, 2400 and 1600 bytes, in 48, 48 and 32 cycles
        ("norm", "forward", "mul+add+relu", 256, 24, 1200, 12_800),
        # as much whatever the batch is: 160 values, 4 cycles of 50; 1920 bytes
        ("model", "optimizer", "sgd", 39, 4, 160, 1920),
        # the lanes are what it waits for: 200 cycles; 2016 bytes take 41
        ("fc", "policy", "topk", 200, 200, 10_000, 2016),
    ]
    dense = others_in(found, role="baseline", step=7)
    assert [row["cycles"] for row in dense] == [32, 256, 39], "no policy's work"
    fused = swatsim.simulate(trace, machine("tensordash", **SMALL, fusion="elementwise"))
    chain = next(row for row in others_in(fused) if "+" in row["function"])
    # of the chain's own bytes, 6400 and 3200, a fourth in 48 cycles, twice
    assert (chain["cycles"], chain["dram_bytes_vector"]) == (96, 4800)
    assert (chain["cycles_compute"], chain["vector_elements"]) == (24, 1200)


def test_energy_by_hand(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace", [SGD])
    chosen = machine("tensordash", **SMALL, dram="lpddr4-3200")
    found = swatsim.simulate(trace, chosen, steps=[0])
    (row,) = others_in(found, role="machine")
    table = found.provenance["parameters"]["energy"]
    product = table["mac"]["fp32"]["multiply"] + table["mac"]["fp32"]["add"]
    assert row["energy_pj_vector"] == pytest.approx(160 * product)
    dram = chosen.config.dram.pj_of_bit(table["node"])
    assert dram
    assert row["energy_pj_dram"] == pytest.approx(1920 * 8 * dram)
    assert row["energy_pj"] == pytest.approx(row["energy_pj_vector"] + row["energy_pj_dram"])


def test_bytes_are_of_the_type_that_is_set(tmp_path: Path) -> None:
    indices = work(("gather", 160, 1280, 640), phase="optimizer", dtype="int64")
    half = work(("sgd", 160, 640, 320), phase="optimizer", module="fc", dtype="bfloat16")
    trace = trace_of(tmp_path / "trace", [SGD, half, indices])

    def seen(**changed: Any) -> list[tuple[int, str]]:
        rows = others_in(swatsim.simulate(trace, machine("swat", **changed), steps=[0]))
        mine = [row for row in rows if row["role"] == "machine"]
        return [(row["dram_bytes_vector"], row["dtype"]) for row in mine]

    own = machine("swat").config.dtype
    assert seen() == [(1920, "fp32"), (960, "bf16"), (1920, own)]
    assert seen(dtype="int8") == [(480, "int8"), (480, "int8"), (1920, "int8")]
    assert seen(memory="none") == [(0, "fp32"), (0, "bf16"), (0, own)]


# ---- a second reading of the README --------------------------------------------------------------

NUMBERS = st.integers(0, 5000)


@st.composite
def works(draw: st.DrawFn) -> OtherWork:
    names = st.sampled_from(["add", "mul", "relu"])
    chain = draw(st.lists(st.tuples(names, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=3))
    alone = len(chain) == 1
    return work(
        *chain,
        module=draw(st.sampled_from(["", "a", "b"])),
        phase=draw(st.sampled_from(PHASES)),
        moved=None if alone else (draw(NUMBERS), draw(NUMBERS)),
        times=draw(st.integers(1, 3)),
        dtype=draw(st.sampled_from(["float32", "bfloat16", "float64", "int64"])),
        per_sample=draw(st.sampled_from([None, True, False])),
    )


def naive(one: OtherWork, config: Any, share: Share) -> tuple[int, int, int, int]:
    """Work out elements, bytes, compute cycles and cycles, in quotients."""
    grows = one.per_sample
    if grows is None:
        grows = one.phase not in ("optimizer", "policy")
    part = Fraction(*share) if grows else Fraction(1)
    bits = {"fp32": 32, "bf16": 16, "int8": 8}[config.dtype]
    was = {"float32": 32, "bfloat16": 16, "float64": 64}.get(one.dtype, bits)
    alone = [(it.elements, it.read + it.written) for it in one.operations]
    if config.fusion == "elementwise":
        alone = [(sum(elements for elements, _ in alone), one.read + one.written)]
    added = [0, 0, 0, 0]
    for elements, moved in alone:
        e = ceil(elements * part)
        b = 0 if config.memory == "none" else ceil(moved * part * Fraction(bits, was))
        on_lanes = ceil(Fraction(e, config.vector_width))
        per_cycle = Fraction(config.bandwidth_mb_per_s, config.clock_mhz)
        waits = config.memory == "none" or config.dram.ideal
        takes = 0 if waits else ceil(b / per_cycle)
        for place, value in enumerate((e, b, on_lanes, max(on_lanes, takes))):
            added[place] += value * one.times
    return tuple(added)  # type: ignore[return-value]


@given(st.data())
def test_costs_equal_the_second_reading(data: st.DataObject) -> None:
    one = data.draw(works())
    chosen = {
        "dtype": data.draw(st.sampled_from(["fp32", "bf16", "int8"])),
        "vector_lanes": data.draw(st.sampled_from(["auto", 1, 7])),
        "fusion": data.draw(st.sampled_from(["none", "elementwise"])),
        "clock_mhz": data.draw(st.integers(1, 3000)),
    }
    config = machine(data.draw(st.sampled_from(["scnn", "ideal", "a100"])), **chosen).config
    if data.draw(st.booleans()):
        config = config.model_copy(update={"memory": "none"})
    batch = data.draw(st.integers(1, 9))
    share = Share(data.draw(st.integers(1, batch)), batch)
    assert tuple(cost(one, config, share)) == naive(one, config, share)


def test_a_chain_is_called_after_its_functions() -> None:
    long = work(*[(f"function_{i}", 1, 1, 1) for i in range(99)], moved=(1, 1))
    twice = work(("add", 1, 1, 1), ("add", 1, 1, 1), ("mul", 1, 1, 1), moved=(1, 1))
    names = [group.function for group in groups_of([twice, long, twice])]
    assert names[0] == "2*add+mul"
    assert len(names) == 2
    assert names[1].startswith("function_0+function_1+")
    assert len(names[1]) == LONGEST
    assert names[1].endswith("..")


# ---- the whole step, end to end ------------------------------------------------------------------


def csv_rows(results: Results, folder: Path) -> list[dict[str, str]]:
    results.save(folder)
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_whole_step_is_in_results_csv(tmp_path: Path) -> None:
    found = swatsim.simulate(trace_of(tmp_path / "trace", [NORM, CHAIN, SGD, TOPK]), "tensordash")
    rows = csv_rows(found, tmp_path / "out")

    def cycles(role: str, *ops: str) -> int:
        return sum(int(r["cycles"]) for r in rows if r["role"] == role and r["op"] in ops)

    layers = [cycles(role, *OPS) for role in ("machine", "baseline")]
    others = [cycles(role, "other") for role in ("machine", "baseline")]
    policy = sum(int(r["cycles"]) for r in rows if r["phase"] == "policy")
    assert others[0] == others[1] + policy
    assert policy
    summary = tables.summarise(load(tmp_path / "out"))
    step = summary.ops[-1]
    assert step["speed_up"] == pytest.approx((layers[1] + others[1]) / (layers[0] + others[0]))
    assert step["speed_up_layers"] == pytest.approx(layers[1] / layers[0])
    assert step["elsewhere"] == pytest.approx(others[1] / (layers[1] + others[1]))
    assert [row["op"] for row in summary.ops] == [*OPS, "other", "step"]
    assert [row["phase"] for row in summary.phases] == ["forward", "optimizer", "policy"]
    assert sum(row["cycles"] for row in summary.phases) == others[0]
    assert step["speed_up"] == pytest.approx(
        step["speed_up_dense_operands"] * step["speed_up_zeros"]
    )
    frame = swatsim.per_op(found)
    assert frame.cycles["step"] == sum(layers[0:1]) + others[0]
    assert {row["layer"] for row in summary.layers} == {"conv", "fc"}


def test_other_baselines_do_the_same_work(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace", [NORM, SGD, TOPK])
    found = swatsim.simulate(trace, "scnn", steps=[0])
    by_role = {
        role: [row["cycles"] for row in others_in(found, role=role)]
        for role in ("machine", "baseline", "alternative")
    }
    assert by_role["baseline"] == by_role["alternative"] == by_role["machine"][:2]
    assert set(tables.per_op(found)[-1]["speed_ups_alternative"]) == {
        "scnn dense, with bank conflicts"
    }
    theirs = machine("dadiannao", vector_lanes=1)
    other = swatsim.simulate(trace, "scnn", baseline=theirs, steps=[0])
    lone = others_in(other, role="baseline")
    assert [row["cycles"] for row in lone] == [200, 160], "a value a cycle"
    assert {row["machine"] for row in lone} == {theirs.name}


def test_rows_keep_what_results_promise(tmp_path: Path) -> None:
    """They are kept and read: sums and keys hold, and sizes are 0 in no other rows."""
    macs = {"seen": {"forward": 4000, "backward": 6000}, "held": {"forward": 1, "backward": 2}}
    others = [NORM, SGD, work(("sgd", 3, 4, 5), module="", phase="optimizer")]
    trace = trace_of(tmp_path / "trace", others, coverage=Coverage(**macs))
    found = swatsim.simulate(trace, "sparten")
    assert found.save(tmp_path / "out")
    assert load(tmp_path / "out").rows == found.rows
    (norm, sgd) = others_in(found, role="machine", step=0)
    assert sgd["vector_elements"] == 163, "two of one name are one row"
    assert (norm["samples"], norm["C"], norm["macs_dense"]) == (2, 0, 0)
    assert norm["lane_cycles"] == norm["lane_cycles_vector"] == norm["cycles"] * 1024
    assert found.share == pytest.approx(3 / 10_000)
    bad = [{**row, "K": 3} if row["op"] == "other" else row for row in found.rows]
    with pytest.raises(ResultsError, match="'K' must be 0 where 'kind' is 'other'"):
        Results(bad, found.provenance).to_parquet()
    bad = [{**row, "P": 0} for row in found.rows]
    with pytest.raises(ResultsError, match="'P' must be 0 where .* and at least 1 elsewhere"):
        Results(bad, found.provenance).to_parquet()


def test_work_is_cut_as_the_layers_are(tmp_path: Path) -> None:
    """One layer holds 2 of 8 samples, another, of positions of one sample, all that it ran."""
    whole = Layer(name="whole", C=16, K=8, H=6)
    with Recorder(tmp_path / "t", batch_size=8, samples=range(2)) as recorder:
        recorder.declare(FC)
        with recorder.step(0) as step:
            step.declare(whole, batch=1, samples=1)
            for layer, samples in ((FC, 2), (whole, 1)):
                for operand in OPERANDS_OF["fprop"]:
                    mask = np.ones(layer.shape_of(operand, samples), dtype=bool)
                    step.operand(layer.name, "fprop", operand, mask)
            step.others = [NORM]
    # of 128 MACs a row the step ran 8 and 6 rows, and the trace has 2 and 6
    assert share_of(open_trace(tmp_path / "t").step(0)) == (128 * 8, 128 * 14)
    found = swatsim.simulate(tmp_path / "t", "tensordash")
    (row,) = others_in(found, role="machine")
    assert (row["vector_elements"], row["samples"]) == (-(-800 * 8 // 14), 2)


# ---- what is left out, and why -------------------------------------------------------------------


def without_names(results: Results) -> list[Row]:
    """Return the rows without what tells their traces apart."""
    return [{**row, "trace": "", "trace_id": ""} for row in results.rows]


def test_layers_only_is_what_a_trace_without_others_gives(tmp_path: Path) -> None:
    noted = trace_of(tmp_path / "noted", [NORM, TOPK])
    silent = trace_of(tmp_path / "silent", None)
    assert noted.id != silent.id
    only = swatsim.simulate(noted, "tensordash", layers_only=True)
    today = swatsim.simulate(silent, "tensordash")
    whole = swatsim.simulate(noted, "tensordash")
    assert without_names(only) == without_names(today) == without_names(whole.layers_only())
    assert not tables.summarise(today).phases
    assert np.isnan(tables.per_op(today)[-1]["elsewhere"])
    said = [one.provenance["parameters"]["others_left_out"] for one in (only, today, whole)]
    assert said == ["layers only were asked for", "the trace does not note it", ""]
    assert swatsim.compare(whole, only).layers()[-1]["op"] == "layers"


def test_half_a_step_has_nothing_else(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace", [NORM])
    found = swatsim.simulate(trace, "tensordash", ops=["fprop"])
    assert not others_in(found)
    assert found.provenance["parameters"]["others_left_out"] == "fprop only were run"
    path = tmp_path / "trace" / "steps"
    other = trace_of(tmp_path / "silent", None)
    (path / "7.safetensors").write_bytes((other.path / "steps" / "7.safetensors").read_bytes())
    found = swatsim.simulate(tmp_path / "trace", "tensordash")
    assert not others_in(found), "a step's figure would be of some steps"
    assert found.provenance["parameters"]["others_left_out"] == "1 of 2 steps do not note it"
    assert others_in(swatsim.simulate(tmp_path / "trace", "tensordash", steps=[0]))


class Own:
    """A machine of a user's own: no configuration, so no vector unit."""

    name = "own"

    def simulate_op(self, op: swatsim.LoweredOp) -> swatsim.Counters:
        return swatsim.Counters(9, 1, 1, lane_cycles_idle=9)

    simulate_dense = simulate_op

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def test_a_machine_without_a_vector_unit_has_no_such_rows(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace", [NORM])
    for pair in ((Own(), None), ("tensordash", Own())):
        found = swatsim.simulate(trace, pair[0], baseline=pair[1])
        assert not others_in(found)
        why = found.provenance["parameters"]["others_left_out"]
        assert why == "own says nothing of a vector unit"


def test_parameters_of_the_vector_unit_are_checked() -> None:
    assert machine("tensordash").config.vector_width == 4096 // 16
    assert machine("ideal", multipliers=3).config.vector_width == 1
    assert machine("tensordash", vector_lanes="12").config.vector_width == 12
    for wrong in ({"vector_lanes": 0}, {"vector_lanes": "many"}, {"fusion": "all"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            machine("tensordash", **wrong)


# ---- outputs that nobody wants -------------------------------------------------------------------


def traces_with_and_without_outputs(path: Path) -> Iterator[Trace]:
    for name, wanted in (("some", 0.4), ("all", 1.0)):
        rng = np.random.default_rng(3)
        with Recorder(path / name, batch_size=2) as recorder:
            for layer in (CONV, FC):
                recorder.declare(layer)
            with recorder.step(0) as step:
                for layer, op in ((layer, op) for layer in (CONV, FC) for op in OPS):
                    for operand in OPERANDS_OF[op]:
                        step.operand(
                            layer.name, op, operand, rng.random(shape(layer, operand)) < 0.5
                        )
                    mask = rng.random(shape(layer, OUTPUT_OF[op])) < wanted
                    if wanted < 1:
                        step.output(layer.name, op, mask)
        yield open_trace(path / name)


def shape(layer: Layer, operand: Any) -> tuple[int, ...]:
    return layer.shape_of(operand, 2)


def test_dense_outputs_are_what_a_trace_without_output_masks_gives(tmp_path: Path) -> None:
    some, every = traces_with_and_without_outputs(tmp_path)
    dense = swatsim.simulate(some, "tensordash", dense_outputs=True)
    assert without_names(dense) == without_names(swatsim.simulate(every, "tensordash"))
    assert dense.provenance["parameters"]["dense_outputs"] is True
    live = swatsim.simulate(some, "tensordash")
    assert all(0.2 < row["density_output"] < 0.6 for row in live.rows)
    for one, other in zip(live.rows, dense.rows, strict=True):
        assert one["macs_effectual"] < other["macs_effectual"]
        assert one["macs_dense"] == other["macs_dense"]
