"""Transposed convolutions on machines: their adjoint's rows under the layer's own names."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.errors import ConfigError, WorkloadError
from swatsim.simulator.machines import machine as find_machine
from swatsim.tracefile import Trace, open_trace
from swatsim.tracer.recorder import Recorder
from swatsim.workload import flops
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, OPS, Layer
from swatsim.workload.lowering import ADJOINT_OP, ADJOINT_OPERAND, LoweredOp
from swatsim.workload.training_ops import Op
from tests.command import swatsim as command
from tests.simulator.test_timeline import validate
from tests.strategies import SOME_PRESETS, transposed_layers
from tests.traces import make_trace

EACH_PRESET = pytest.mark.parametrize("preset", SOME_PRESETS)
#: What a machine is that names an operand of the layer, for the layer's adjoint.
ADJOINT_PRESET = {"ideal-act": "ideal-grad-out"}
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)

#: Kinds of it: DCGAN's, with output_padding, grouped, depthwise, dilated, to an image.
SHAPES: tuple[dict[str, Any], ...] = (
    {"C": 20, "K": 9, "H": 4, "W": 4, "R": 4, "S": 4, "stride": 2, "padding": 1},
    {"C": 5, "K": 7, "H": 3, "W": 5, "R": 3, "S": 3, "stride": 2, "padding": ((1, 0), (1, 0))},
    {"C": 6, "K": 12, "H": 4, "W": 3, "R": 2, "S": 3, "stride": (3, 1), "groups": 3},
    {"C": 18, "K": 18, "H": 4, "W": 4, "R": 4, "S": 4, "stride": 2, "padding": 1, "groups": 18},
    {"C": 4, "K": 3, "H": 3, "W": 4, "R": 3, "S": 2, "stride": (1, 2), "dilation": (2, 3)},
    {"C": 8, "K": 3, "H": 5, "W": 5, "R": 4, "S": 4, "stride": 2, "padding": 1},
)
LAYERS = tuple(
    Layer(name=f"up{i}", kind="conv_transpose", **shape) for i, shape in enumerate(SHAPES)
)
DENSITY = {"weight": 0.3, "act": 0.5, "grad_out": 0.8}


def record(path: Path, layers: tuple[Layer, ...], *, adjoint: bool, dense: bool = False) -> Trace:
    """Write a trace of random masks, or the same one as that of the adjoint convolutions."""
    rng = np.random.default_rng(5)
    recorder = Recorder(path, batch_size=4, samples=range(2))
    with recorder.step(0) as step:
        for layer in layers:
            masks = {
                operand: rng.random(layer.shape_of(operand, 2)) < (1 if dense else share)
                for operand, share in DENSITY.items()
            }
            recorder.declare(by_hand(layer) if adjoint else layer)
            for op, operand in product(OPS, OPERANDS):
                if operand not in OPERANDS_OF[op]:
                    continue
                mask = masks[operand]
                names = (ADJOINT_OP[op], ADJOINT_OPERAND[operand]) if adjoint else (op, operand)
                step.operand(layer.name, *names, mask)
    return open_trace(path)


def by_hand(layer: Layer) -> Layer:
    """The convolution that leads from a transposed one's output back to its input."""
    exchanged = {"C": layer.K, "K": layer.C, "H": layer.P, "W": layer.Q, "kind": "conv"}
    return Layer(**{**layer.model_dump(), **exchanged})


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return record(tmp_path_factory.mktemp("transposed") / "own", LAYERS, adjoint=False)


@pytest.fixture(scope="module")
def adjoint(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return record(tmp_path_factory.mktemp("transposed") / "adjoint", LAYERS, adjoint=True)


def expected(row: dict[str, Any]) -> dict[str, Any]:
    """What a row of the adjoint's is called in its transposed convolution's."""
    exchanged = {
        **{"kind": "conv_transpose", "op": ADJOINT_OP[row["op"]], "C": row["K"], "K": row["C"]},
        **{"H": row["P"], "W": row["Q"], "P": row["H"], "Q": row["W"]},
    }
    for name, (a, b) in product(
        ("density", "dram_bytes"), [("act", "grad_out"), ("grad_out", "act")]
    ):
        exchanged[f"{name}_{a}"] = row[f"{name}_{b}"]
    return {**row, **exchanged}


def rows_of(found: list[dict[str, Any]], *without: str) -> list[dict[str, Any]]:
    """Rows in one order, without what names the trace."""
    key = ("layer", "op", "role", "machine", "variant")
    names = {"trace", "trace_id", *without}
    ordered = sorted(found, key=lambda row: [row[name] for name in key])
    return [{name: row[name] for name in row if name not in names} for row in ordered]


# ---- the adjoint's rows --------------------------------------------------------------------------


@EACH_PRESET
def test_rows_are_the_adjoints_under_the_layers_names(
    preset: str, trace: Trace, adjoint: Trace
) -> None:
    ours = swatsim.simulate(trace, preset).rows
    theirs = swatsim.simulate(adjoint, ADJOINT_PRESET.get(preset, preset)).rows
    assert rows_of(ours, "machine") == rows_of([expected(row) for row in theirs], "machine")
    layers = {layer.name: layer for layer in LAYERS}
    for row in ours:
        layer = layers[row["layer"]]
        assert all(row[letter] == getattr(layer, letter) for letter in "CKHWRSPQ")
        assert (
            sum(row[name] for name in row if name.startswith("lane_cycles_"))
            == (row["lane_cycles"])
        )
        assert row["macs_dense"] == 2 * layer.weights * layer.H * layer.W
        for operand in OPERANDS:
            reads = operand in OPERANDS_OF[row["op"]]
            assert (row[f"density_{operand}"] is not None) == reads
            assert (row[f"dram_bytes_{operand}"] > 0) == reads


@EACH_PRESET
def test_random_layers_take_their_adjoints_cycles(preset: str) -> None:
    machine = find_machine(preset)
    adjoint = find_machine(ADJOINT_PRESET.get(preset, preset))

    @EXAMPLES
    @given(layer=transposed_layers(), seed=st.integers(0, 2**32))
    def check(layer: Layer, seed: int) -> None:
        rng = np.random.default_rng(seed)
        masks = {it: rng.random(layer.shape_of(it, 2)) < DENSITY[it] for it in OPERANDS}
        for name in OPS:
            op = Op(layer, name, **{it: masks[it] for it in OPERANDS_OF[name]})
            renamed = {ADJOINT_OPERAND[it]: masks[it] for it in OPERANDS_OF[name]}
            theirs = Op(by_hand(layer), ADJOINT_OP[name], **renamed)
            counters = swatsim.simulate_op(op, machine)
            assert counters == machine.simulate_op(op) == adjoint.simulate_op(theirs)
            assert machine.simulate_dense(op) == adjoint.simulate_dense(theirs)
            assert sum(counters.buckets.values()) == counters.lane_cycles
            assert counters.lane_cycles_effectual == flops.macs_effectual(op)

    check()


@EACH_PRESET
def test_nothing_is_gained_where_nothing_is_zero(preset: str, tmp_path: Path) -> None:
    # whole lines of 16 lanes, and no padding that could be skipped
    full = Layer(name="up", kind="conv_transpose", C=16, K=32, H=4, W=4, R=4, S=4, stride=2)
    trace = record(tmp_path / "ones", (full,), adjoint=False, dense=True)
    cycles: dict[str, dict[str, int]] = {}
    for row in swatsim.simulate(trace, preset).rows:
        cycles.setdefault(row["op"], {})[row["role"]] = row["cycles_compute"]
    assert set(cycles) == set(OPS)
    # a cartesian's first baseline has no bank conflicts; its fprop skips zeros around the image
    planar = preset in ("scnn", "scnn-queued", "swat")
    for op in OPS[planar:]:
        assert cycles[op]["machine"] == cycles[op]["alternative" if planar else "baseline"]


# ---- what goes by the layer's names --------------------------------------------------------------


def test_formats_are_those_of_the_layers_operands(trace: Trace, adjoint: Trace) -> None:
    tight = {"buffer_a_kib": 8, "buffer_b_kib": 8, "buffer_out_kib": 16, "buffer_a_banks": 1}
    own = swatsim.machine("tensordash", format_act="csr", format_grad_out="run-length", **tight)
    other = swatsim.machine("tensordash", format_act="run-length", format_grad_out="csr", **tight)
    ours, theirs = swatsim.simulate(trace, own).rows, swatsim.simulate(adjoint, other).rows
    assert rows_of(ours, "machine") == rows_of([expected(row) for row in theirs], "machine")


@pytest.mark.parametrize(("mine", "theirs"), [("act", "grad_out"), ("grad_out", "act")])
def test_the_scheduled_operand_is_the_layers(
    trace: Trace, adjoint: Trace, mine: Any, theirs: Any
) -> None:
    rows = swatsim.simulate(trace, swatsim.machine("tensordash", scheduled=mine)).rows
    other = swatsim.simulate(adjoint, swatsim.machine("tensordash", scheduled=theirs)).rows
    assert rows_of(rows, "machine") == rows_of([expected(row) for row in other], "machine")
    skipped = {row["op"] for row in rows if row["schedules"]}
    assert skipped == {op for op in OPS if mine in OPERANDS_OF[op]}


def test_the_lowering_concerns_fprop(trace: Trace) -> None:
    split, dilated = (
        swatsim.simulate(trace, swatsim.machine("dadiannao", dgrad_lowering=lowering)).frame
        for lowering in ("split", "dilated")
    )
    changed = split[split.cycles_compute != dilated.cycles_compute]
    assert set(changed.op) == {"fprop"}


def test_an_error_names_the_layers_op_and_operand(trace: Trace) -> None:
    whole = {"block_rows": 10**6, "block_filters": 10**6}
    tiny = swatsim.machine("tensordash", **whole, buffer_b_kib=1, buffer_b_banks=1)
    with pytest.raises(ConfigError, match=r"layer 'up\d', fprop.* buffer_b_kib=1 of tensordash"):
        swatsim.simulate(trace, tiny, ops=["fprop"])
    structured = swatsim.machine("tensordash", format_act="1:2")
    with pytest.raises(WorkloadError, match="layer 'up0', fprop, act: "):
        swatsim.simulate(trace, structured)


def test_grad_out_is_kept_where_the_buffers_are_alike(trace: Trace) -> None:
    def loaded(preset: str, **parameters: Any) -> dict[str, int]:
        frame = swatsim.simulate(trace, swatsim.machine(preset, **parameters)).frame
        ours = frame[(frame.role == "machine") & (frame.op == "wgrad")]
        return dict(zip(ours.layer, ours.dram_bytes_grad_out, strict=True))

    assert set(loaded("tensordash", keep_on_chip=True).values()) == {0}
    assert min(loaded("tensordash").values()) > 0
    # dgrad has it in buffer b, wgrad wants it in a
    assert loaded("tensordash", keep_on_chip=True, buffer_a_kib=8192) == loaded("tensordash")


# ---- the rest of the house -----------------------------------------------------------------------


class Spy:
    """A machine from outside: it sees convolutions only."""

    name = "spy"

    def __init__(self) -> None:
        self.seen: set[tuple[str, str, str]] = set()

    def simulate_op(self, op: LoweredOp) -> swatsim.Counters:
        self.seen.add((op.layer.kind, op.name, op.own_name))
        macs = flops.macs_effectual(op)
        return swatsim.Counters(macs, pes=1, lanes=1, lane_cycles_effectual=macs)

    simulate_dense = simulate_op

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def test_a_machine_of_ones_own_is_given_convolutions(trace: Trace) -> None:
    spy = Spy()
    rows = swatsim.simulate(trace, spy, workers=1).rows
    assert spy.seen == {("conv", ADJOINT_OP[op], op) for op in OPS}
    assert {row["kind"] for row in rows} == {"conv_transpose"}
    step = trace.step(0)
    spy.seen.clear()
    counters = swatsim.simulate_op(step.op(LAYERS[0], "fprop"), spy)
    assert spy.seen == {("conv", "dgrad", "fprop")}
    assert counters.cycles_compute == rows[0]["macs_effectual"]


@pytest.mark.parametrize("preset", ["tensordash[wgrad_reduces=positions]", "swat"])
def test_images_by_themselves_add_up(trace: Trace, adjoint: Trace, preset: str) -> None:
    ours, theirs = (swatsim.estimate_images(it, preset).ops for it in (trace, adjoint))
    cycles = {(it.layer, ADJOINT_OP[it.op]): it.cycles_compute for it in theirs}  # type: ignore[index]
    assert {(it.layer, it.op): it.cycles_compute for it in ours} == cycles
    assert all(it.by_image for it in ours)


@pytest.mark.parametrize(("preset", "op"), list(product(["tensordash", "swat"], OPS)))
@pytest.mark.parametrize("layer", LAYERS[1:3], ids=lambda it: it.name)
def test_timelines_name_the_layers_elements(
    trace: Trace, preset: str, op: Any, layer: Layer
) -> None:
    size = {"pe_h": 2, "pe_w": 2} if preset == "swat" else {}
    machine = swatsim.machine(preset, **size)
    made = swatsim.timeline(trace, machine, layer=layer.name, op=op, cycles=200)
    validate(made["traceEvents"])
    axes = {"weight": "ckrs", "act": "nchv", "grad_out": "nkpq"}
    masks = trace.step(0).op(layer, op).operands
    seen = set()
    for event in made["traceEvents"]:
        details = event["args"]
        found = {it: details[it] for it in OPERANDS if it in details}
        if "element" in details:
            found = {made["otherData"]["operand_on_rows"]: [details["element"]]}
        for operand, elements in found.items():
            seen.add(operand)
            for element in filter(None, elements):
                assert "".join(element) == axes[operand]
                assert masks[operand][tuple(element.values())]  # it is not zero
    assert seen
    assert seen <= set(OPERANDS_OF[op])


def test_the_command_line_takes_such_a_trace(tmp_path: Path) -> None:
    up = Layer(name="up", kind="conv_transpose", C=4, K=3, H=6, W=6, R=4, S=4, stride=2, padding=1)
    down = Layer(name="stem", C=3, K=4, H=12, W=12, R=3, S=3, padding=1, stride=2)
    path = make_trace(tmp_path / "auto-encoder", layers=(down, up), steps=(0,)).path

    def run(*words: object) -> str:
        code, out, errors = command(*words)
        assert code == 0, errors
        return out

    assert "conv_transpose" in run("info", path, "--all")
    run("check", path)
    assert "3x4x4x4*2 -> 12x12" in run("simulate", path, "-m", "tensordash", "--all")
    assert "up" in run("footprint", path, "--format", "csr")
    run("estimate", path, "--images", "-m", "swat")
    where = ("--layer", "up", "--op", "fprop", "-m", "scnn", "-o", tmp_path / "t.json")
    run("timeline", path, *where)
    assert json.loads((tmp_path / "t.json").read_text())["otherData"]["op"] == "fprop"
    spec = tmp_path / "spec.toml"
    spec.write_text(f'traces = ["{path}"]\n[[machines]]\npreset = "tensordash"\n')
    swept = run("sweep", spec, "-o", tmp_path / "sweep", "--workers", 1)
    assert "1 point done, 0 failed" in swept
