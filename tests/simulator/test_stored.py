"""What is kept of a count is found for the same count alone, and is the same."""

from __future__ import annotations

import ast
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import swatsim
from swatsim.counters import Counters
from swatsim.results import Results
from swatsim.simulator import versions
from swatsim.simulator.machines import MACHINES, machine
from swatsim.simulator.mechanism import Mechanism
from swatsim.simulator.runnable import ConfiguredMachine, storing
from swatsim.simulator.stored import BUSY, OP, Basis, Stored, key_of
from swatsim.simulator.vector import SystemConfig
from swatsim.store import Store, open_store
from swatsim.tracefile import Trace
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.training_ops import Op
from tests.sources import nodes
from tests.strategies import CONFIGS, matmuls, ops, ops_of_some_outputs
from tests.sweeps.test_sweep import Here
from tests.test_store import Memory
from tests.traces import LAYERS, make_trace

EACH = pytest.mark.parametrize("mechanism", MACHINES, ids=lambda it: it.name)
SOME = settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])

#: Every op that there is, as machines take it.
LOWERED = st.one_of(
    ops().map(lambda it: it[0]),
    ops_of_some_outputs().map(lambda it: it[0]),
    matmuls().map(lambda it: lower(it[0])),
)


def kept_by(mechanism: Mechanism, config: Any, store: Store) -> ConfiguredMachine:
    """Return a machine that keeps what it counts."""
    made = storing(ConfiguredMachine("x", mechanism, config), store)
    assert isinstance(made, ConfiguredMachine)
    return made


def everything(one: ConfiguredMachine, op: LoweredOp) -> list[Any]:
    """Count all that there is to count, as equal things are equal."""
    busy = one.busy(op)
    return [
        one.simulate_op(op),
        one.simulate_dense(op),
        one.simulate_dense_operands(op),
        one.simulate_alternatives(op),
        busy and (busy.tile, busy.own.tolist(), busy.waits.tolist()),
    ]


def anew(op: LoweredOp) -> LoweredOp:
    """Return an op that nobody has looked at yet."""
    return replace(op, known={})


def refuse(op: LoweredOp, config: Any) -> Any:
    raise AssertionError("it was counted again")


def uncounted(mechanism: Mechanism) -> Mechanism:
    """Return a machine that can't count; its modules are those of the one that can."""
    refuse.__module__ = mechanism.simulate_op.__module__
    named = dict.fromkeys(mechanism.alternatives, refuse)
    return replace(
        mechanism,
        simulate_op=refuse,
        simulate_dense=refuse,
        alternatives=named,
        simulate_dense_operands=refuse,
        busy=mechanism.busy and refuse,
    )


@EACH
@SOME
@given(data=st.data())
def test_what_is_kept_is_what_is_counted(mechanism: Mechanism, data: st.DataObject) -> None:
    op, config = data.draw(LOWERED), data.draw(CONFIGS[mechanism.name]())
    store = Store(Memory())
    counted = everything(ConfiguredMachine("x", mechanism, config), anew(op))
    assert everything(kept_by(mechanism, config, store), anew(op)) == counted
    again = kept_by(uncounted(mechanism), config, Store(store.folder))
    assert everything(again, anew(op)) == counted


@EACH
@SOME
@given(data=st.data())
def test_masks_that_a_machine_does_not_look_at_may_be_any(
    mechanism: Mechanism, data: st.DataObject
) -> None:
    op, config = data.draw(LOWERED), data.draw(CONFIGS[mechanism.name]())
    assert mechanism.looks_at is not None
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    masks: dict[str, Any] = {
        it: rng.random(mask.shape) < rng.random() for it, mask in op.operands.items()
    }
    masks["output"] = rng.random(op.output_shape) < 0.5
    looks_at, store = set(mechanism.looks_at(op, config)), Store(Memory())
    everything(kept_by(mechanism, config, store), anew(op))
    unseen = {it: mask for it, mask in masks.items() if it not in looks_at}
    # the first finds all of what is kept, the other what is dense
    for other in (replace(op, **unseen, known={}), replace(op, **masks, known={})):
        if set(mechanism.looks_at(other, config)) == looks_at:  # it chooses the same
            found = everything(kept_by(mechanism, config, store), anew(other))
            assert found == everything(ConfiguredMachine("x", mechanism, config), anew(other))


@EACH
def test_each_mask_that_is_looked_at_changes_a_count(mechanism: Mechanism) -> None:
    layer, rng = Layer(name="x", C=16, K=16, H=6, W=6, R=3, S=3, padding=1), np.random
    for preset in mechanism.config_type.presets:
        one = machine(preset)
        for name in OPERANDS_OF:
            drawn = rng.default_rng(5)
            masks: dict[str, Any] = {
                it: drawn.random(layer.shape_of(it, 2)) < 0.5 for it in OPERANDS_OF[name]
            }
            op = LoweredOp(layer, name, **masks)
            op = replace(op, output=drawn.random(op.output_shape) < 0.5)
            assert mechanism.looks_at is not None
            for it in mechanism.looks_at(op, one.config):
                none = np.zeros_like(op.output if it == "output" else op.operands[it])
                other = replace(op, **{it: none}, known={})
                if it in mechanism.looks_at(other, one.config):
                    assert _shape(one.simulate_op(other)) != _shape(one.simulate_op(op)), it


def _shape(counters: Counters) -> Counters:
    """Return counters without what is known of the op alone."""
    return counters._replace(lane_cycles_effectual=counters.products, lane_cycles_ineffectual=0)


OTHER_LAYER = {
    **{"C": 8, "K": 8, "H": 5, "W": 5, "R": 2, "S": 2},
    **{"stride": 2, "padding": 2, "dilation": 2, "groups": 2},
}
LAYER = Layer(name="x", C=4, K=4, H=4, W=4, R=3, S=3, padding=1)


def key(op: LoweredOp, code: str = "code", what: str = OP) -> str:
    return key_of(what, op, Basis(code, (*op.operands, "output")))


def test_a_key_is_of_all_that_an_op_is_but_its_name() -> None:
    op = LoweredOp.dense(LAYER, "fprop", 2)
    others = [LoweredOp.dense(LAYER.model_copy(update={"name": "y"}), "fprop", 2)]
    assert {key(it) for it in others} == {key(op)}
    assert set(Layer.model_fields) == {"name", "kind", *OTHER_LAYER}
    layers = [Layer(**{**LAYER.model_dump(), name: value}) for name, value in OTHER_LAYER.items()]
    layers.append(Layer(name="x", kind="linear", C=4, K=4))
    different = [op, *(LoweredOp.dense(layer, "fprop", 2) for layer in layers)]
    different += [LoweredOp.dense(LAYER, name, 2) for name in ("dgrad", "wgrad")]
    different += [LoweredOp.dense(LAYER, "fprop", 3), replace(op, of_transposed=True)]
    product = Layer(name="x", C=4, K=4, H=4)
    different += [LoweredOp.dense(product, "fprop", 1), LoweredOp.dense(product, "fprop", 2)]
    different += [replace(LoweredOp.dense(product, "fprop", 1), of_samples=1)]
    for it, mask in (*op.operands.items(), ("output", np.ones(op.output_shape, np.bool_))):
        for place in (0, mask.size - 1):
            changed = np.array(mask)
            changed.flat[place] = False
            different.append(replace(op, **{it: changed}, known={}))
    keys = {key(it) for it in different} | {key(op, "other code"), key(op, what=BUSY)}
    assert len(keys) == len(different) + 2


def test_a_mask_laid_out_otherwise_is_the_same_mask() -> None:
    mask = np.random.default_rng(3).random((4, 4, 3, 3)) < 0.5
    act = np.ones((1, 4, 4, 4), np.bool_)
    op = LoweredOp(LAYER, "fprop", mask, act)
    turned = LoweredOp(LAYER, "fprop", np.asfortranarray(mask), act)
    assert key(op) == key(turned)
    assert key(LoweredOp.dense(LAYER, "fprop", 1)) == key(
        LoweredOp(LAYER, "fprop", np.ones_like(mask), act)
    )


#: Of each field of what surrounds the PEs, another value than a preset's.
OTHER_SYSTEM: Mapping[str, Any] = {
    **{"memory": "none", "clock_mhz": 123, "dtype": "bf16", "dram": "hbm2", "dram_channels": 3},
    **{f"buffer_{it}_{what}": 77 for it in ("a", "b", "out") for what in ("kib", "banks", "words")},
    **{"dram_mb_per_s": 12345, "dram_latency_ns": 3, "loop_order": "CKN", "keep_on_chip": True},
    **{f"format_{it}": "dense" for it in ("weight", "act", "grad_out")},
    **{f"block_{it}": 4 for it in ("filters", "channels", "rows")},
    **{"vector_lanes": 3, "fusion": "elementwise"},
}


def test_what_surrounds_the_pes_is_in_no_key_and_no_count() -> None:
    assert set(OTHER_SYSTEM) == set(SystemConfig.model_fields)
    layer = Layer(name="x", C=8, K=8, H=5, W=5, R=3, S=3, padding=1, stride=2)
    rng = np.random.default_rng(4)
    for mechanism in MACHINES:
        preset = next(iter(mechanism.config_type.presets))
        # which goes with none of the others
        one = machine(preset, **({"pattern": "none"} if "pattern" in _fields(mechanism) else {}))
        code, every = one.code, []
        for name in OPERANDS_OF:
            masks = {it: rng.random(layer.shape_of(it, 2)) < 0.5 for it in OPERANDS_OF[name]}
            op = LoweredOp(layer, name, **masks)
            every.append((op, one.simulate_op(op), one.simulate_dense(op)))
        for name, value in OTHER_SYSTEM.items():
            changed = one.config.model_copy(update={name: value})
            assert replace(one, config=changed).code == code, name
        other = replace(one, config=one.config.model_copy(update=OTHER_SYSTEM))
        for op, counted, dense in every:
            assert (other.simulate_op(op), other.simulate_dense(op)) == (counted, dense)


def _fields(mechanism: Mechanism) -> Mapping[str, Any]:
    return mechanism.config_type.model_fields


@EACH
def test_each_parameter_of_its_own_is_in_a_machines_keys(mechanism: Mechanism) -> None:
    one = machine(next(iter(mechanism.config_type.presets)))
    for name in set(_fields(mechanism)) - set(SystemConfig.model_fields):
        value = one.config.model_dump(mode="json")[name]
        config = one.config.model_copy(update={name: f"other than {value}"})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydantic's, of a value that can't be
            assert replace(one, config=config).code != one.code, name


# ---- the version of what counts


def imported(module: str) -> set[str]:
    """Return what a module imports of the package, by its syntax tree."""
    found: set[str] = set()
    for node in nodes(versions._file(module)):
        if isinstance(node, ast.Import):
            found |= {it.name for it in node.names if it.name.split(".")[0] == "swatsim"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "swatsim":
            names = [f"{node.module}.{it.name}" for it in node.names]
            modules = [it for it in names if versions._file(it).is_file()]
            found |= {*modules, *([] if len(modules) == len(names) else [str(node.module)])}
    return found - {"swatsim._version"}


@EACH
def test_a_version_is_of_all_that_the_code_imports(mechanism: Mechanism) -> None:
    modules = {mechanism.simulate_op.__module__}
    reached = versions.reached(modules)
    assert reached == modules | {it for module in reached for it in imported(module)}
    assert f"swatsim.simulator.machines.{mechanism.name}.config" in reached
    parts = {name.split(".")[1] for name in reached}
    assert not parts & {"cli", "reports", "results", "sweeps", "tracefile", "store"}


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a copy of the package's sources, of which versions are taken."""
    package = Path(swatsim.__file__).parent
    copy = shutil.copytree(package, tmp_path / "swatsim", ignore=shutil.ignore_patterns("*.pyc"))
    monkeypatch.setattr(versions, "_ROOT", copy)
    forget()
    yield copy
    monkeypatch.undo()
    forget()


def forget() -> None:
    for kept in (versions.version_of, versions._imported, versions._file):
        kept.cache_clear()


def test_a_changed_source_is_another_version_of_those_that_import_it(copied: Path) -> None:
    def found() -> dict[str, str]:
        forget()
        modules = {it.name: it.simulate_op.__module__ for it in MACHINES}
        return {name: versions.version_of(frozenset({it})) for name, it in modules.items()}

    def change(file: str) -> None:
        with (copied / file).open("a") as source:
            source.write("# another\n")

    before = found()
    for file in ("reports/page.py", "_version.py", "tracefile/reader.py", "simulator/run.py"):
        change(file)
    assert found() == before
    change("simulator/machines/lane_array/kernel.py")
    assert {name for name, it in found().items() if it != before[name]} == {"lane_array"}
    change("workload/effectual.py")
    assert not set(found().values()) & set(before.values())


def test_without_sources_nothing_is_kept(copied: Path) -> None:
    (copied / "workload/windows.py").unlink()
    forget()
    store = Store(Memory())
    one = storing(machine("ideal"), store)
    one.simulate_op(LoweredOp.dense(LAYER, "fprop", 1))
    assert (store.found, store.missed, store.size().entries) == (0, 0, 0)


# ---- whole runs


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(tmp_path_factory.mktemp("stored") / "small")


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a store where counts of small masks are kept, too."""
    monkeypatch.setattr("swatsim.simulator.stored.QUICK", 0)
    return tmp_path / "store"


@pytest.fixture
def no_more_counting(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give what has every mechanism, and what counts effectual products, refuse."""

    def begin() -> None:
        def refused(self: Any, what: str, op: LoweredOp, basis: Any, count: Any) -> Any:
            return real(self, what, op, basis, lambda: pytest.fail(f"{what} was counted again"))

        real = Stored.counters
        monkeypatch.setattr(Stored, "counters", refused)
        monkeypatch.setattr("swatsim.workload.effectual.effectual", pytest.fail)
        monkeypatch.setattr("swatsim.workload.effectual.wanted", pytest.fail)

    return begin


def same(one: Results, other: Results) -> bool:
    """Whether results are the same to the byte, but for when they were made."""
    when = {"time", "command"}
    plain = [{k: v for k, v in it.provenance.items() if k not in when} for it in (one, other)]
    return one.rows == other.rows and json.dumps(plain[0]) == json.dumps(plain[1])


@pytest.mark.parametrize("preset", ["tensordash", "bit-tactical", "swat", "sparten", "stc"])
def test_the_second_run_counts_nothing_and_gives_the_same(
    preset: str,
    trace: Trace,
    where: Path,
    no_more_counting: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = swatsim.simulate(trace, preset, store=False, workers=1)
    assert same(swatsim.simulate(trace, preset, store=where, workers=1), plain)
    no_more_counting()
    assert same(swatsim.simulate(trace, preset, store=where, workers=2), plain)
    # nor where no step's rows are kept
    monkeypatch.setattr("swatsim.simulator.kept_steps.FORM", "another")
    assert same(swatsim.simulate(trace, preset, store=where, workers=2), plain)


def test_other_memories_energies_clocks_names_and_traces_are_counted_for_nothing(
    trace: Trace, where: Path, tmp_path: Path, no_more_counting: Callable[[], None]
) -> None:
    stem, *others = LAYERS  # which has no dgrad, by its name
    renamed = [it.model_copy(update={"name": f"other.{it.name}"}) for it in others]
    elsewhere = make_trace(tmp_path / "elsewhere", layers=(stem, *renamed))
    changed = machine("tensordash", dram="hbm2", clock_mhz=700, buffer_a_kib=64, dtype="bf16")
    plain = swatsim.simulate(elsewhere, changed, energy="7nm", store=False)
    swatsim.simulate(trace, "tensordash", store=where)
    no_more_counting()
    assert same(swatsim.simulate(elsewhere, changed, energy="7nm", store=where), plain)


def test_a_step_drawn_and_images_estimated_are_counted_once(
    trace: Trace, where: Path, no_more_counting: Callable[[], None]
) -> None:
    def found(store: Any) -> list[Any]:
        images = swatsim.estimate_images(trace, "tensordash", store=store)
        run = swatsim.estimate_run(trace, "tensordash", 100, store=store, workers=1)
        drawn = swatsim.timeline(trace, "tensordash", store=store)
        return [repr(images), repr(run), drawn["traceEvents"]]

    plain = found(False)
    assert found(where) == plain
    no_more_counting()
    assert found(where) == plain


def test_a_sweep_counts_nothing_that_another_has(
    trace: Trace, where: Path, tmp_path: Path, no_more_counting: Callable[[], None]
) -> None:
    def sweep(name: str, *drams: str, store: Any = where) -> list[dict[str, Any]]:
        spec = {
            "traces": [str(trace.path)],
            "machines": [{"preset": "sparten", "grid": {"dram": list(drams)}}],
        }
        return swatsim.sweep(spec, tmp_path / name, executor=Here(), store=store).rows

    plain = sweep("plain", "hbm2", store=False)
    sweep("first", "ddr4-3200")
    no_more_counting()
    assert sweep("second", "hbm2") == plain


def test_effectual_products_of_small_masks_are_quicker_counted_than_kept(
    where: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    op = LoweredOp.dense(Layer(name="x", kind="linear", C=20, K=30), "fprop", 1)
    size = sum(mask.size for mask in op.operands.values())
    for quick, kept in ((size + 1, 0), (size, 1)):
        monkeypatch.setattr("swatsim.simulator.stored.QUICK", quick)
        store = open_store(where)
        assert store is not None
        assert Stored(store).entered(replace(op, known={})).macs_effectual == 600
        assert store.size().entries == kept


def test_damaged_entries_are_counted_anew(trace: Trace, where: Path) -> None:
    plain = swatsim.simulate(trace, "tensordash", store=where)
    paths = [path for path in where.rglob("*") if path.is_file()]
    for i, path in enumerate(sorted(paths)):
        content = path.read_bytes()
        damaged = (content[: len(content) // 2], content[:-1] + b"!", b"", paths[0].read_bytes())
        path.write_bytes(damaged[i % 4])
    assert same(swatsim.simulate(trace, "tensordash", store=where), plain)


def test_an_entry_that_is_no_count_is_counted_anew() -> None:
    store, op = Store(Memory()), LoweredOp.dense(LAYER, "fprop", 1)
    one = storing(machine("ideal"), store)
    counted = one.simulate_op(op)
    keys = list(store._recent)
    for wrong in (b"", b"[]", b'{"compressed": ""}, 1', b'{"pes": 1.5, "compressed": ""}', b"{}"):
        for it in keys:
            store.put(it, wrong)
        assert one.simulate_op(anew(op)) == counted


# ---- machines of somebody's own


class Own:
    """A machine that has no version of its code, unless it is given one."""

    name = "own"

    def __init__(self) -> None:
        self.counted = 0

    def simulate_op(self, op: LoweredOp) -> Counters:
        self.counted += 1
        return machine("ideal").simulate_op(op)

    simulate_dense = simulate_op

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def test_an_own_machine_is_kept_only_with_a_version(trace: Trace, where: Path) -> None:
    def counted(version: str | None) -> int:
        own: Any = Own()
        if version is not None:
            own.version = version
        swatsim.simulate(trace, own, store=where, workers=1)
        return int(own.counted)

    often = counted(None)
    assert (counted(None), counted("1"), counted("1"), counted("2")) == (often, often, 0, often)


def test_code_that_nobody_knows_is_not_kept() -> None:
    own = machine("ideal").mechanism
    mechanism = replace(own, simulate_op=lambda op, config: Counters(1, 1, 1))
    store, op = Store(Memory()), lower(Op.dense(LAYER, "fprop", 1))
    one = storing(replace(machine("ideal"), mechanism=mechanism), store)
    assert one.simulate_op(op) == Counters(1, 1, 1)
    assert store.size().entries == 0
    fingerprinted = replace(one, sources="0123456789abcdef")
    assert fingerprinted.simulate_op(op) == Counters(1, 1, 1)
    assert store.size().entries > 0


def test_a_machine_from_outside_is_kept_by_its_codes_fingerprint(
    trace: Trace, where: Path, no_more_counting: Callable[[], None]
) -> None:
    name = "examples.own_machine:vector8"
    plain = swatsim.simulate(trace, name, store=False)
    assert same(swatsim.simulate(trace, name, store=where), plain)
    no_more_counting()
    assert same(swatsim.simulate(trace, name, store=where), plain)
