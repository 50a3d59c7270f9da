"""Wrong kinds of arguments: each public callable takes or refuses them, and writes nothing."""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import swatsim
from swatsim import policies
from swatsim.arguments import arguments, several, whole_number
from swatsim.errors import ConfigError, SwatsimError
from swatsim.sweeps.spec import Spec
from swatsim.tracer.synthetic import synthesize
from swatsim.workload import footprint, storage
from swatsim.workload.networks import network


class Nothing:
    """A class, and no machine, policy or layer."""


WRONG: dict[str, Any] = {
    "none": None,
    "true": True,
    "real": 1.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "minus one": -1,
    "zero": 0,
    "2**63": 2**63,
    "10**30": 10**30,
    "text": "x",
    "bytes": b"x",
    "list": [],
    "dict": {},
    "tuple": (),
    "set": set(),
    "object": object(),
    "function": lambda *given: None,
    "array": np.array([1, 2]),
    "numpy nan": np.nan,
    "float64": np.float64(2.5),
    "numpy bool": np.bool_(True),
    "class": Nothing,
    "module": types,
    "surrogate": "\ud800",
    "path": Path("nope") / "nope",
    "list of none": [None],
    "list of lists": [[1], {}],
    "nul": "a\0b",
    "list of bool": [True],
}


def recorded(kind: str, **given: Any) -> Any:
    """Open a recorder of a model, and close it: nothing is recorded."""
    torch = pytest.importorskip("torch")
    model = {} if "model" in given else {"model": torch.nn.Sequential(torch.nn.Linear(4, 3))}
    with getattr(swatsim, kind)(**model, **given) as run:
        return run


LAYER = swatsim.Layer(name="fc", kind="linear", C=4, K=3)
WEIGHT, ACT = np.ones((3, 4), bool), np.ones((2, 4), bool)
OP = swatsim.Op(LAYER, "fprop", weight=WEIGHT, act=ACT)


class Call(NamedTuple):
    """A public callable, arguments that it takes, and those of them that are tried."""

    of: Callable[..., Any]
    valid: dict[str, Any]
    tried: tuple[str, ...] | None = None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("world")
    before = Path.cwd()
    os.chdir(folder)
    try:
        policy = policies.SwatU(0.5)
        trace = synthesize([LAYER], folder / "trace", policy=policy, batch=2, seed=1, steps=3)
        results = swatsim.simulate(trace, swatsim.machine("tensordash", tiles=1))
        results.save(folder / "results")
        yield {"folder": folder, "trace": trace, "results": results}
    finally:
        os.chdir(before)


def site(**given: Any) -> Any:
    return policies.SwatU(0.5).density(policies.Site(LAYER, "fprop", "weight", **given))


def calls(world: dict[str, Any]) -> dict[str, Call]:
    trace, results, folder = world["trace"], world["results"], world["folder"]
    sizes = {"C": 4, "K": 4, "H": 5, "W": 5, "R": 3, "S": 3, "groups": 1}
    spaced = {"stride": 1, "padding": 1, "dilation": 1}
    synthetic = {"policy": policies.SwatU(0.5), "batch": 1, "seed": 1, "steps": 1}
    dense = {"act_density": 0.5, "grad_density": 0.5, "uneven": False, "progress": None}
    dense |= {"overwrite": False, "masks": None}
    shown = {"layer": "fc", "op": "fprop", "step": None, "tile": 0, "start": 0, "cycles": 5}
    shown |= {"store": False}
    stored = {"format": "bitmask", "dtype": "fp32"}
    machine = {"rows": 4, "lanes": 16, "dtype": "fp32", "memory": "none", "clock_mhz": 500}
    lanes = {"fold_stem": False, "scheduled": "weight", "block_rows": "auto", "dram": "ideal"}
    one = swatsim.machine("tensordash", tiles=1)
    simulated = {"trace": trace, "machine": one, "steps": [0], "workers": 1, "progress": None}
    simulated |= {"store": False}
    more = {"baseline": None, "energy": "45nm", "ops": ["fprop"]}
    kept = list(trace.step(0).kept())
    recording = {"path": "made", "steps": [], "images": None, "skip": (), "batch_axis": 0}
    recording |= {"batch": None, "rows": "samples", "rank": None, "measure_memory": False}
    recording |= {"append": False, "overwrite": False, "start": 0}
    sparse = {"policy": policies.SwatU(0.5), **recording}
    own = {"samples": None, "policy": None, "parameters": None, "append": False}
    return {
        "Layer": Call(swatsim.Layer, {"name": "c", "kind": "conv", **sizes, **spaced}),
        "Op": Call(swatsim.Op, {"layer": LAYER, "name": "fprop", "weight": WEIGHT, "act": ACT}),
        "machine": Call(
            lambda preset="tensordash", **rest: swatsim.machine(preset, **rest),
            {"preset": "bit-tactical", **machine, **lanes},
        ),
        "machine scnn": Call(
            lambda **rest: swatsim.machine("scnn", **rest), {"pe_h": 4, "dgrad_lowering": "split"}
        ),
        "LoweredOp": Call(
            swatsim.LoweredOp, {"layer": LAYER, "name": "fprop", "weight": WEIGHT, "act": ACT}
        ),
        "lower": Call(swatsim.lower, {"op": OP}),
        "Mechanism": Call(
            swatsim.Mechanism,
            {
                "name": "mine",
                "config_type": type(one.config),
                "simulate_op": max,
                "simulate_dense": max,
                "summary": "",
            },
            ("name", "config_type", "simulate_op", "simulate_dense"),
        ),
        "simulate_op": Call(swatsim.simulate_op, {"op": OP, "machine": one}),
        "simulate": Call(swatsim.simulate, {**simulated, **more}),
        "estimate_images": Call(swatsim.estimate_images, {**simulated}),
        "timeline": Call(swatsim.timeline, {"trace": trace, "machine": one, **shown}),
        "compare": Call(
            lambda a, b, **rest: swatsim.compare(a, b, **rest),
            {"a": results, "b": folder / "results", "baseline": None, "labels": ["a", "b"]}
            | {"progress": None},
        ),
        "estimate": Call(
            swatsim.estimate, {"results": results, "run_steps": 9, "strata": None, "cuts": [1]}
        ),
        "estimate_run": Call(
            swatsim.estimate_run,
            {**simulated, "steps": [0, 2], "run_steps": 9, "cuts": [1], "strata": None}
            | {"baseline": None, "energy": "45nm"},
        ),
        "export": Call(
            swatsim.export,
            {"source": results, "path": "made.et", "form": "chakra", "step": 0, "npus": 1}
            | {"baseline": False, "overwrite": True},
        ),
        "per_op": Call(swatsim.per_op, {"results": results}),
        "per_layer": Call(swatsim.per_layer, {"results": results}),
        "load_results": Call(swatsim.load_results, {"folder": folder / "results"}),
        "open_trace": Call(swatsim.open_trace, {"path": folder / "trace"}),
        "report": Call(swatsim.report, {"source": folder / "results"}),
        "sweep": Call(
            swatsim.sweep,
            {
                "spec": {"traces": ["trace"]},
                "output": "sweep",
                "workers": 1,
                "executor": None,
                "overwrite": False,
                "store": False,
                "max_hours": 1,
                "shard": (1, 2),
            },
            ("spec", "workers", "executor", "overwrite", "store", "max_hours", "shard"),
        ),
        "Trace.step": Call(trace.step, {"number": 0}),
        "synthesize": Call(
            synthesize,
            {"layers": [LAYER], "path": "made", **synthetic, **dense},
            tuple({"layers": 0, **synthetic, **dense}),
        ),
        "Recorder": Call(
            lambda **given: swatsim.Recorder(**given).close(),
            {"path": "made", "batch_size": 2, **own, "overwrite": False},
        ),
        "Tracer": Call(lambda **given: recorded("Tracer", **given), sparse, ("model", *sparse)),
        "Observer": Call(
            lambda **given: recorded("Observer", **given), recording, ("model", *recording)
        ),
        "network": Call(network, {"name": "llama-7b-block", "activation": "relu"}),
        "of_network": Call(
            footprint.of_network,
            {"network": network("resnet8"), "density": None, "batch": 1, "types": None, **stored},
        ),
        "of_masks": Call(
            footprint.of_masks, {"masks": kept, "network": None, "types": None, **stored}
        ),
        "stored": Call(storage.stored, {"mask": WEIGHT, **stored}),
        "expected": Call(storage.expected, {"shape": (3, 4), "density": 0.5, **stored}),
        **policy_calls(),
    }


def policy_calls() -> dict[str, Call]:
    swat = {"sparsity": 0.5, "first_conv_dense": True}
    kept = {**swat, "allocation": "erk", "seed": 1}
    grown = {**kept, "every": 5, "until": 9, "fraction": 0.3}
    pattern = {"n": 2, "m": 4, "decay": 0.1, "first_conv_dense": True}
    scored = {"granularity": "filter", "allocation": "erk", "every": 1, "holds": "mask"}
    words = {"of": "weight", "trains": "all", "uses_gradient": False, "name": "mine"}
    made: dict[str, dict[str, Any]] = {
        "SwatU": swat,
        "SwatErk": swat,
        "SwatM": {**swat, "every": 5, "smoothing": 0.9},
        "SwatStructured": {**swat, "unit": "filter"},
        "RigL": grown,
        "SRigL": {**grown, "salient": 0.3},
        "SET": grown,
        "SNFS": {**grown, "smoothing": 0.9},
        "StaticRandom": kept,
        "TopKast": {**swat, "backward_sparsity": 0.4, "every": 5, "penalty": 0.1},
        "MeProp": {"sparsity": 0.5, "unified": True},
        "Bdwp": pattern,
        "Slope": {"n": 2, "m": 4, "first_conv_dense": True, "seed": 1},
        "Mvue": {"n": 1, "m": 2, "seed": 1},
        "SrSte": pattern,
        "Transposable": {**pattern, "every": 5},
        "Vnm": {**pattern, "v": 8},
        "ByScore": {"score": abs, "sparsity": 0.5, **scored, **words},
        "Periodic": {"policy": policies.SwatU(0.5), "every": 5, "warmup": 1},
        "Phased": {"phases": [(0, policies.Dense()), (5, policies.SwatU(0.5))]},
        "keep_count": {"numel": 4, "sparsity": 0.5},
        "topk_mask": {"values": np.ones(4, np.float32), "k": 2},
        "make_policy": {"name": "swat-u", "sparsity": 0.5, "layers": [LAYER]},
        "allocate_once": {"policy": policies.SwatErk(0.5), "layers": [LAYER]},
        "site_densities": {"policy": policies.SwatU(0.5), "layers": [LAYER], "step": 0},
        "begin_run": {"policy": policies.SwatU(0.5)},
    }
    return {name: Call(getattr(policies, name), given) for name, given in made.items()}


def written(folder: Path) -> set[tuple[str, int]]:
    """Return files and when they were written, quickly: it is asked for thousands of times."""
    paths = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return {(path, os.stat(path).st_mtime_ns) for path in paths}


NAMES = (
    *("Layer", "Op", "machine", "machine scnn", "LoweredOp", "lower", "Mechanism", "simulate_op"),
    *("simulate", "estimate_images"),
    *(
        "timeline",
        "compare",
        "estimate",
        "estimate_run",
        "export",
        "per_op",
        "per_layer",
        "load_results",
        "open_trace",
    ),
    *(
        "report",
        "sweep",
        "Trace.step",
        "synthesize",
        "Recorder",
        "Tracer",
        "Observer",
        "network",
        "of_network",
        "of_masks",
    ),
    *("stored", "expected", *policy_calls()),
)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_kinds_are_refused_by_name(name: str, world: dict[str, Any]) -> None:
    call = calls(world)[name]
    before, failures = written(world["folder"]), []
    for argument in call.tried or tuple(call.valid):
        for kind, value in WRONG.items():
            given = {**call.valid, argument: value}
            if name == "synthesize":
                given["path"] = f"made {argument} {kind}"
            try:
                call.of(**given)
            except SwatsimError as error:
                assert "\n" not in str(error)
                if name != "synthesize" and written(world["folder"]) != before:
                    failures.append(f"{argument}={kind}: wrote something, and refused it")
                if name == "synthesize" and Path(given["path"]).exists():
                    failures.append(f"{argument}={kind}: wrote something, and refused it")
            except Exception as error:  # noqa: BLE001  (that is what is looked for)
                failures.append(f"{argument}={kind}: {type(error).__name__}: {error}")
            else:
                before = written(world["folder"])
    assert not failures, "\n".join(failures)


def test_all_that_is_public_is_tried(world: dict[str, Any]) -> None:
    found = calls(world)
    assert tuple(found) == NAMES
    public = set(swatsim.__all__) - {"__version__", "Counters", "Machine"}
    public -= {
        "Busy",
        "Event",
        "MachineConfig",
        "Preset",
        "Timeline",
    }  # declared, or given by a machine
    assert public - {"Results", "SwatsimError", "Trace"} <= set(found)
    made = {it for it in policies.__all__ if hasattr(getattr(policies, it), "describe")}
    assert made - {"Policy", "Dense"} <= set(found)


# ---- whole numbers of any library ----------------------------------------------------------------


def test_whole_numbers_of_any_library(world: dict[str, Any]) -> None:
    trace, machine = world["trace"], swatsim.machine("tensordash", tiles=np.int64(1))
    every = swatsim.simulate(trace, machine).frame
    for steps in (every.step.unique(), np.array([0, 1, 2]), range(3), {0, 1, 2}, (0, 1, 2)):
        again = swatsim.simulate(trace, machine, steps=steps, workers=np.int8(1)).frame
        assert again.equals(every)
    assert trace.step(np.int64(1)).number == 1
    torch = pytest.importorskip("torch")
    assert trace.step(torch.tensor(2)).number == 2
    assert policies.SrSte(np.int8(2), np.uint16(4)) == policies.SrSte(2, 4)
    assert policies.SwatU(np.float32(0.8)) == policies.SwatU(0.8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": True},
        {"workers": np.bool_(True)},
        {"workers": 1.0},
        {"steps": [True]},
        {"steps": np.array([True])},
        {"steps": [0.0]},
        {"steps": "0"},
        {"steps": 0},
        {"ops": "fprop"},
        {"progress": 1},
        {"announce": 1},
        {"baseline": 1},
        {"energy": 1},
    ],
)
def test_what_is_no_whole_number_is_refused(wrong: dict[str, Any], world: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(SwatsimError, match=name):
        swatsim.simulate(world["trace"], "tensordash", **wrong)


@pytest.mark.parametrize("wrong", [True, np.bool_(True), b"4", 1.5, None, [4], "four"])
def test_bools_and_bytes_are_no_numbers(wrong: Any) -> None:
    for make in (
        lambda: swatsim.machine("tensordash", rows=wrong),
        lambda: policies.RigL(0.5, every=wrong),
        lambda: swatsim.Layer(name="c", C=wrong, K=1),
        lambda: policies.SwatU(wrong if wrong != 1.5 else 2.5),
    ):
        with pytest.raises(SwatsimError, match=r"is not allowed"):
            make()
    assert swatsim.machine("tensordash", rows="4").config.rows == 4, "as a command line has it"


def test_a_name_is_text() -> None:
    for name in (b"x", 5, None, "\ud800", "", ["x"]):
        with pytest.raises(SwatsimError, match="name="):
            swatsim.Layer(name=name, C=1, K=1)


def test_numbers_of_other_libraries_wherever_one_is_asked_for(world: dict[str, Any]) -> None:
    trace, results, machine = world["trace"], world["results"], swatsim.machine("tensordash")
    number = np.int64(0)
    drawn = swatsim.timeline(
        trace,
        machine,
        layer="fc",
        op="fprop",
        step=number,
        tile=number,
        start=number,
        cycles=number + 9,
    )
    plain = swatsim.timeline(trace, machine, layer="fc", op="fprop", cycles=9)
    assert drawn["traceEvents"] == plain["traceEvents"]  # what they are of has the time in it
    spec = {
        "traces": ["trace"],
        "machines": [{"preset": "ideal"}],
        "steps": results.frame.step.unique()[:1],
    }
    assert Spec(**spec).steps == [0]
    with swatsim.Recorder("numbers", batch_size=np.int8(2), samples=np.arange(1)) as recorder:
        assert (recorder.batch_size, recorder.samples) == (2, (0,))
    for wrong in ([True], np.array([True]), [np.bool_(True)], [1.0]):
        with pytest.raises(SwatsimError, match="steps"):
            Spec(**{**spec, "steps": wrong})
        with pytest.raises(SwatsimError, match="samples"):
            swatsim.Recorder("numbers", batch_size=2, samples=wrong)


def test_the_check_of_a_function() -> None:
    @arguments(ConfigError, count=whole_number, names=several(whole_number, "numbers"))
    def add(count: int, names: Any = (), *, more: int = 0) -> int:
        """Add."""
        return count + sum(names) + more

    assert add(1, more=2) == 3
    assert add(np.int8(1), np.array([2, 3])) == 6
    assert add.__doc__ == "Add."
    with pytest.raises(ConfigError, match=r"^add: count=True is not allowed: must be a whole"):
        add(True)
    with pytest.raises(ConfigError, match=r"add: names=\[1.5\] is not allowed: must be a sequence"):
        add(1, [1.5])
    with pytest.raises(TypeError, match="missing a required argument"):
        add()
