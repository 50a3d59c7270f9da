"""Every machine, ours and one from outside, through all that the package does with machines."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

import swatsim
from swatsim.cli.main import run as cli
from swatsim.counters import Counters
from swatsim.errors import ConfigError, SwatsimError
from swatsim.results import load, read_parquet
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.interface import Timeline
from swatsim.simulator.machines import MACHINES, outside, presets
from swatsim.simulator.mechanism import Mechanism
from swatsim.simulator.systems import NO_MEMORY, system_of
from swatsim.tracefile import Trace
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.lowering import LoweredOp
from tests.pictures import unpainted
from tests.strategies import ops
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace

OUTSIDE = "examples.own_machine"
EVERY = (*MACHINES, *outside.machines_of(OUTSIDE))
EACH = pytest.mark.parametrize("mechanism", EVERY, ids=lambda it: it.name)


def preset_of(mechanism: Mechanism) -> str:
    """Name a machine's first preset, as people do."""
    name = next(iter(mechanism.config_type.presets))
    return name if mechanism in MACHINES else f"{OUTSIDE}:{name}"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(tmp_path_factory.mktemp("contract") / "small", steps=(0, 1, 2))


@EACH
def test_a_machine_has_accounts_memory_energy_report_and_estimates(
    mechanism: Mechanism, trace: Trace, tmp_path: Path
) -> None:
    preset = preset_of(mechanism)
    results = swatsim.simulate(trace, preset, workers=1)
    for row in results.rows:
        assert row["lane_cycles"] == row["cycles"] * row["pes"] * row["lanes"]
        assert row["dram_bytes_result"] > 0
        assert row["energy_pj"] > 0
        assert row["cycles_dense_operands"] >= row["cycles_compute_dense_operands"]
    results.save(tmp_path / "results")
    assert load(tmp_path / "results").rows == results.rows
    with unpainted():
        assert swatsim.report(tmp_path / "results")
    assert swatsim.estimate(results, 30).ours["cycles"].value > 0
    images = swatsim.estimate_images(trace, preset, workers=1)
    assert images.totals[-1].cycles_compute.value > 0


@pytest.fixture(scope="module")
def whole_step(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Products of two activations, a causal mask of what they make, and weights that are kept."""
    scores = Layer(name="scores", kind="matmul", C=8, K=10, H=5, groups=2)
    fc, rng = Layer(name="fc", kind="linear", C=8, K=6), np.random.default_rng(8)
    path = tmp_path_factory.mktemp("contract") / "whole_step"
    with swatsim.Recorder(path, batch_size=3) as recorder:
        recorder.declare(scores)
        recorder.declare(fc)
        with recorder.step(0) as step:
            for layer, op in (
                (scores, "fprop"),
                (scores, "dgrad"),
                (scores, "wgrad"),
                (fc, "wgrad"),
            ):
                for operand in OPERANDS_OF[op]:
                    mask = rng.random(layer.shape_of(operand, 3)) < 0.6
                    step.operand(layer.name, op, operand, mask)
            causal = np.tile(np.tri(5, dtype=bool).T, (2, 1))[..., None]
            step.output("scores", "fprop", np.stack([causal] * 3))
            step.output("fc", "wgrad", rng.random((6, 8)) < 0.3)
    return swatsim.open_trace(path)


@EACH
def test_a_machine_runs_products_of_activations_and_ops_of_some_outputs(
    mechanism: Mechanism, whole_step: Trace
) -> None:
    preset = preset_of(mechanism)
    rows = swatsim.simulate(whole_step, preset, workers=1).rows
    assert {row["kind"] for row in rows} == {"matmul", "linear"}
    for row in rows:
        assert row["lane_cycles"] == row["cycles"] * row["pes"] * row["lanes"]
        assert row["energy_pj"] > 0
    estimated = swatsim.estimate_images(whole_step, preset, workers=1)
    ours = [row["cycles_compute"] for row in rows if row["role"] == "machine"]
    assert estimated.totals[-1].cycles_compute.value == pytest.approx(sum(ours))
    if mechanism.timeline is None:
        return
    for layer, op in (("scores", "fprop"), ("fc", "wgrad")):
        found = swatsim.timeline(whole_step, preset, layer=layer, op=op)
        assert any(event["ph"] == "X" for event in found["traceEvents"])


class Sent(Here):
    """Runs a job as it would arrive in another process."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        sent, *words = pickle.loads(pickle.dumps((fn, *args)))
        return super().submit(sent, *words, **pickle.loads(pickle.dumps(kwargs)))


@EACH
def test_a_machine_is_swept_in_processes_of_its_own(
    mechanism: Mechanism, trace: Trace, tmp_path: Path
) -> None:
    """One from outside, whose module has to be imported there; ours as if they were."""
    preset = preset_of(mechanism)
    spec = {"traces": [str(trace.path)], "machines": [{"preset": preset}], "steps": [1]}
    spec["machines"][0]["grid"] = {"dram": ["hbm2", "ideal"]}  # type: ignore[index]
    spec["constraints"] = ["pes > 0", "multipliers > 0"]
    executor = Sent() if mechanism in MACHINES else None
    swatsim.sweep(spec, tmp_path, workers=1, executor=executor)
    found = [read_parquet(path).rows for path in sorted((tmp_path / "points").iterdir())]
    alone = [
        swatsim.simulate(trace, swatsim.machine(preset, dram=dram), steps=[1]).rows
        for dram in ("hbm2", "ideal")
    ]
    assert sorted(map(list, found), key=str) == sorted(map(list, alone), key=str)


@EACH
def test_a_machine_has_a_timeline_or_says_that_it_has_none(
    mechanism: Mechanism, trace: Trace
) -> None:
    options: dict[str, Any] = {"layer": "block.conv", "op": "wgrad"}
    if mechanism.timeline is None:
        with pytest.raises(ConfigError, match="has no timeline"):
            swatsim.timeline(trace, preset_of(mechanism), **options)
        return
    found = swatsim.timeline(trace, preset_of(mechanism), **options)
    assert any(event["ph"] == "X" for event in found["traceEvents"])
    tiles = found["otherData"]["tiles"]
    with pytest.raises(ConfigError, match="is not allowed: a tile"):
        swatsim.timeline(trace, preset_of(mechanism), tile=tiles, **options)


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(drawn=ops(), pes=st.integers(1, 5), lanes=st.integers(1, 4))
def test_the_machine_from_outside_accounts_for_every_lane_cycle(
    drawn: tuple[LoweredOp, Any], pes: int, lanes: int
) -> None:
    machine = swatsim.machine(f"{OUTSIDE}:vector8", pes=pes, lanes=lanes)
    op = drawn[0]
    for counters in (machine.simulate_op(op), machine.simulate_dense(op)):
        assert sum(counters.buckets.values()) == counters.lane_cycles
        assert min(counters.buckets.values()) >= 0
    spent = machine.timeline(op, 0)
    assert spent.cycles == machine.simulate_op(op).cycles_compute
    events = spent.events(range(spent.cycles))
    assert sum(event.cycles for event in events) == spent.cycles


def test_the_machine_from_outside_runs_from_the_command_line(
    trace: Trace, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--machine", f"{OUTSIDE}:vector8", "--set", "pes=4", "--step", "0"]
    assert cli(["simulate", str(trace.path), *given]) == 0
    assert f"{OUTSIDE}:vector8[pes=4] against" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such:x", "can't import machines from module 'no.such': ModuleNotFoundError"),
        ("json:x", "module 'json' has no MACHINES: it must be a tuple of swatsim.Mechanism"),
        (f"{OUTSIDE}:vector9", "unknown machine 'vector9': did you mean 'vector8'"),
        (":x", "'' is no module's name: expected MODULE:PRESET"),
        ("a b:x", "'a b' is no module's name"),
    ],
)
def test_a_machine_that_is_not_outside_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        swatsim.machine(name)
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        swatsim.sweep({"traces": ["x"], "machines": [{"preset": name}]}, "never")


def test_a_kind_of_machine_is_no_preset() -> None:
    with pytest.raises(ConfigError, match="is a kind of machine.*: choose one of stc, a100, h100"):
        swatsim.machine("tensor_core")


def test_a_specification_from_a_file_imports_no_module_by_itself(
    trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "sweep.toml", str(tmp_path / "out")
    path.write_text(f'traces = ["{trace.path}"]\nsteps = [0]\n[[machines]]\npreset = "evil:x"\n')
    with pytest.raises(ConfigError, match=r"'evil:x' is of a module, and no specification runs"):
        swatsim.sweep(path, out)
    text = path.read_text()
    path.write_text(
        text.replace("steps", 'baseline = "evil:x[a=1]"\nsteps').replace("evil", "b", 1)
    )
    with pytest.raises(ConfigError, match="is of a module"):
        swatsim.sweep(path, out)
    path.write_text(text.replace("evil:x", f"{OUTSIDE}:vector8"))
    assert cli(["sweep", str(path), "-o", out, "--dry-run", "--module", OUTSIDE]) == 0
    assert cli(["sweep", str(path), "-o", out, "--dry-run", "--module", "other"]) == 2
    assert "allow it with --module" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lies_beside.[:x", "lies_beside[:x", ".lies_beside.[a:x]"])
def test_a_bracket_before_the_colon_imports_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lies_beside.py").write_text("raise SystemExit('it was run')\n")
    path = tmp_path / "sweep.toml"
    path.write_text(f'traces = ["x"]\n[[machines]]\npreset = "{name}"\n')
    with pytest.raises(ConfigError, match="is no module's name"):
        swatsim.sweep(path, tmp_path / "out")


def test_results_of_a_machine_from_outside_name_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(__file__).parents[2] / "examples" / "own_machine.py"
    monkeypatch.chdir(tmp_path)
    found = []
    for name, change in (("mine_as_it_is", ""), ("mine_changed", "\n# changed\n")):
        (tmp_path / f"{name}.py").write_text(source.read_text() + change)
        found.append(swatsim.machine(f"{name}:vector8").describe()["sources"])
    assert len(set(found)) == 2


# ---- what a machine is refused for ---------------------------------------------------------------


def test_presets_have_one_name_each() -> None:
    names = [name for name, _, _ in presets()]
    assert len(set(names)) == len(names)
    assert len({mechanism.name for mechanism in MACHINES}) == len(MACHINES)


def test_a_configuration_without_its_geometry_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError, match="Half has no lanes: a machine's configuration needs"):

        class Half(swatsim.MachineConfig):
            pes: Annotated[int, Field(ge=1)]


class Bare(swatsim.MachineConfig):
    pes: Annotated[int, Field(ge=1, description="PEs")]
    lanes: ClassVar[int] = 2
    presets: ClassVar[dict[str, swatsim.Preset]] = {
        "bare": swatsim.Preset("made up", {"pes": 2}, "made up")
    }


def bare(op: LoweredOp, config: Bare) -> Counters:
    cycles = -(-op.macs_effectual // config.multipliers)
    rest = cycles * config.multipliers - op.macs_effectual
    return Counters(cycles, config.pes, config.lanes, op.macs_effectual, lane_cycles_idle=rest)


MACHINES_OF_THIS_FILE = (swatsim.Mechanism("bare", "as little as can be", Bare, bare, bare),)


def test_the_least_machine_is_whole_but_for_its_timeline(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside, "machines_of", lambda module: MACHINES_OF_THIS_FILE)
    results = swatsim.simulate(trace, f"{__name__}:bare", workers=1)
    assert all(row["energy_pj"] > 0 for row in results.rows)
    assert swatsim.estimate_images(trace, f"{__name__}:bare", workers=1).totals
    with pytest.raises(ConfigError, match="has no timeline"):
        swatsim.timeline(trace, f"{__name__}:bare", layer="fc", op="fprop")


def other(op: LoweredOp, config: Bare) -> Counters:
    return bare(op, config.model_copy(update={"pes": 1}))


def test_counters_of_another_geometry_are_refused(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = (swatsim.Mechanism("bare", "one PE, it says", Bare, other, other),)
    monkeypatch.setattr(outside, "machines_of", lambda module: wrong)
    with pytest.raises(ConfigError, match="counted on 1 PEs of 2 lanes, and its configuration has"):
        swatsim.simulate(trace, f"{__name__}:bare", workers=1)


class Object:
    """The other way: an object that counts cycles, without a configuration."""

    name = "object"

    def simulate_op(self, op: LoweredOp) -> Counters:
        return Counters(op.macs_effectual, 1, 1, op.macs_effectual)

    simulate_dense = simulate_op

    def describe(self) -> dict[str, str]:
        return {"name": self.name}


def test_an_object_has_no_memory_nor_what_it_is_compared_with(trace: Trace) -> None:
    results = swatsim.simulate(trace, Object(), baseline="scnn", steps=[0], workers=1)
    for row in results.rows:
        assert row["cycles"] == row["cycles_compute"]
        assert (row["energy_pj"], row["dtype"], row["blocks"]) == (None, "", 0)
    for ask in (
        lambda: swatsim.estimate_images(trace, Object()),
        lambda: swatsim.timeline(trace, Object(), layer="fc", op="fprop"),
    ):
        with pytest.raises(SwatsimError, match=r"object' is an object of your own|no timeline"):
            ask()


def test_an_object_may_be_called_as_what_it_is_compared_with(trace: Trace) -> None:
    mine = Object()
    mine.name = "scnn"
    rows = swatsim.simulate(trace, mine, baseline="scnn", steps=[0], workers=1).rows
    assert {row["energy_pj"] for row in rows} == {None}


def test_no_memory_is_one_thing() -> None:
    assert NO_MEMORY.memory is None
    assert system_of(swatsim.machine("scnn"), energy_table("45nm")) is not NO_MEMORY


def test_machines_are_given_lowered_ops_alone() -> None:
    up = Layer(name="up", kind="conv_transpose", C=2, K=2, H=3, W=3, R=2, S=2, stride=2)
    ones = {"weight": np.ones((2, 2, 2, 2), bool), "act": np.ones((1, 2, 3, 3), bool)}
    with pytest.raises(SwatsimError, match=r"machines take no conv_transpose: lower its op first"):
        LoweredOp(up, "fprop", **ones)
    lowered = swatsim.lower(swatsim.Op(up, "fprop", **ones))
    assert (lowered.layer.kind, lowered.name, lowered.own_name) == ("conv", "dgrad", "fprop")
    assert isinstance(swatsim.machine("scnn").timeline(lowered, 0), Timeline)
