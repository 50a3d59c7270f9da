"""Rows of a step that was run before are those that running it gives, and found for it alone."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.columns import COLUMNS
from swatsim.simulator import kept_steps
from swatsim.simulator.machines import machine
from swatsim.simulator.trace_run import Run
from swatsim.store import Store
from swatsim.tracefile import OtherWork, Trace
from swatsim.tracefile.others import Operation
from tests.simulator.test_stored import Own, same
from tests.test_store import Memory
from tests.traces import as_format_1, make_trace

MADE = Operation(function="relu", elements=16, read=64, written=64)
WORK = OtherWork(module="fc", phase="forward", operations=(MADE,), read=64, written=64)
EXAMPLE = Path(swatsim.__file__).parents[1] / "traces/resnet8-fashion-mnist-swat-u-80"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(tmp_path_factory.mktemp("kept") / "small", others=[WORK])


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is run, one entry an op and one a step's other work."""
    found: list[str] = []
    rows, others = Run.rows, Run.others

    def noted_rows(self: Run, step: Any, layer: Any, name: Any) -> Any:
        found.append(f"{step.number} {layer.name} {name}")
        return rows(self, step, layer, name)

    def noted_others(self: Run, step: Any) -> Any:
        found.append(f"{step.number} others")
        return others(self, step)

    monkeypatch.setattr(Run, "rows", noted_rows)
    monkeypatch.setattr(Run, "others", noted_others)
    return found


@pytest.mark.parametrize("preset", ["tensordash", "swat", "ideal", "examples.own_machine:vector8"])
def test_a_second_run_runs_nothing_and_gives_the_same(
    preset: str, trace: Trace, tmp_path: Path, ran: list[str]
) -> None:
    plain = swatsim.simulate(trace, preset, store=False)
    often = len(ran)
    stored = [swatsim.simulate(trace, preset, store=tmp_path, workers=n) for n in (1, 2, 1)]
    assert all(same(it, plain) for it in stored)
    assert len(ran) == 2 * often
    assert ran.count("0 others") == ran.count("7 others") == 2
    # of numbers that JSON and its reader keep as they are
    assert [list(map(type, dict(row).values())) for row in stored[2].rows] == [
        list(map(type, dict(row).values())) for row in plain.rows
    ]


def test_only_steps_that_are_not_kept_are_run(trace: Trace, tmp_path: Path, ran: list[str]) -> None:
    plain = swatsim.simulate(trace, "ideal", store=False)
    del ran[:]
    store = Store(Memory())
    swatsim.simulate(trace, "ideal", steps=[7], store=store)
    assert {it.partition(" ")[0] for it in ran} == {"7"}
    del ran[:]
    store = Store(store.folder)
    assert same(swatsim.simulate(trace, "ideal", store=store), plain)
    assert {it.partition(" ")[0] for it in ran} == {"0"}
    counted = f"{store.looked.stored} of {store.looked.counts} counts"
    assert store.looked.words == f"1 step and, of the others, {counted} came from the store"
    store = Store(store.folder)
    swatsim.simulate(trace, "ideal", store=store)
    assert store.looked.words == "2 steps came from the store"


def test_rows_that_are_kept_are_of_whatever_trace_holds_the_step(
    trace: Trace, tmp_path: Path, ran: list[str]
) -> None:
    store = tmp_path / "store"
    swatsim.simulate(trace, "ideal", store=store, steps=[0])
    named = make_trace(tmp_path / "another", steps=(0,), others=[WORK])
    del ran[:]
    found = swatsim.simulate(named, "ideal", store=store)
    assert not ran
    assert {row["trace"] for row in found.rows} == {"another"}
    assert {row["trace_id"] for row in found.rows} == {named.id}
    assert same(found, swatsim.simulate(named, "ideal", store=False))


def _changed(trace: Trace, folder: Path) -> list[Callable[[Any], Any]]:
    """Return runs that each differ in one thing from that of the trace on an `ideal`."""

    def of(where: Any = trace, what: Any = "ideal", **options: Any) -> Callable[[Any], Any]:
        return lambda store: swatsim.simulate(where, what, store=store, **options)

    wider = make_trace(folder / "wider", others=[WORK], dtypes={"act": "float64"})
    other = make_trace(folder / "other", others=[WORK.model_copy(update={"times": 2})])
    fewer = make_trace(folder / "fewer", samples=1, others=[WORK])
    later = make_trace(folder / "later", steps=(1, 8), others=[WORK])
    parameters = ({"multipliers": 7}, {"dram": "hbm2"}, {"dtype": "bf16"}, {"clock_mhz": 77})
    return [
        *(of(where) for where in (wider, other, fewer, later)),
        *(of(what=machine("ideal", **each)) for each in parameters),
        *(of(baseline="ideal"), of(baseline=machine("ideal", clock_mhz=77))),
        *(of(energy="7nm"), of(dense_outputs=True), of(layers_only=True), of(ops=["fprop"])),
        of(what="dadiannao"),
    ]


def test_each_thing_that_rows_depend_on_is_in_their_keys(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[str]
) -> None:
    store = Store(Memory())
    swatsim.simulate(trace, "ideal", store=store)
    for number, run in enumerate(_changed(trace, tmp_path)):
        before = store.looked.steps
        del ran[:]
        run(store)
        assert ran, number
        assert store.looked.steps == before, number
    monkeypatch.setattr(kept_steps, "sources", lambda: "other code")
    del ran[:]
    swatsim.simulate(trace, "ideal", store=store)
    assert ran


def test_what_it_can_not_be_told_on_what_rows_depend_is_run(
    trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: list[str]
) -> None:
    def runs(where: Any, what: Any) -> int:
        del ran[:]
        swatsim.simulate(where, what, store=tmp_path / "store")
        return len(ran)

    own: Any = Own()
    assert runs(trace, own) == runs(trace, own) > 0
    own.version = "1"
    assert runs(trace, own) > runs(trace, own) == 0
    old = as_format_1(make_trace(tmp_path / "old").path)
    assert runs(old, "ideal") == runs(old, "ideal") > 0
    monkeypatch.setattr(kept_steps, "sources", lambda: "")
    assert runs(trace, "ideal") == runs(trace, "ideal") > 0


def test_an_entry_that_is_not_a_steps_rows_is_run_anew(trace: Trace) -> None:
    plain = swatsim.simulate(trace, "ideal", store=False)
    store = Store(Memory())
    swatsim.simulate(trace, "ideal", store=store)
    keys = {key for key, payload in store._recent.items() if payload[:1] == b"x"}
    assert len(keys) == 4
    fewer = zlib.compress(json.dumps({"layer": ["stem"], "op": ["fprop"]}).encode())
    uneven = zlib.compress(json.dumps({"layer": ["stem"], "op": []}).encode())
    for wrong in (b"", b"x", zlib.compress(b"[]"), zlib.compress(b"{}"), uneven, fewer):
        for key in keys:
            store.put(key, wrong)
        assert same(swatsim.simulate(trace, "ideal", store=store), plain), wrong


def test_rows_with_what_json_can_not_say_are_not_kept() -> None:
    plain: dict[str, Any] = dict.fromkeys(column.name for column in COLUMNS)
    assert kept_steps._packed([plain, {**plain, "step": 1}]) is not None
    assert kept_steps._packed([plain, {**plain, "step": object()}]) is None
    assert kept_steps._packed([plain, {**plain, "mine": 1}]) is None


#: What a run that was run before has no use for.
UNUSED = ("numba", "llvmlite", "matplotlib", "pandas", "scipy", "torch", "multiprocessing")


@pytest.mark.parametrize(
    ("preset", "machines"), [("swat", {"lane_array", "cartesian"}), ("tensordash", {"lane_array"})]
)
def test_a_run_that_was_run_before_loads_no_compiler_and_draws_nothing(
    preset: str, machines: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["simulate", str(EXAMPLE), "-m", preset, "--step", "0", "-o", str(tmp_path / "out")]
    code = (
        f"import sys; from swatsim.cli.main import run; assert run({words!r}) == 0; "
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    monkeypatch.setenv("SWATSIM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))

    def ran() -> tuple[str, set[str], dict[str, bytes]]:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        files = {it.name: it.read_bytes() for it in (tmp_path / "out").iterdir()}
        del files["provenance.json"], files["results.parquet"]  # they say when
        return done.stdout, set(done.stderr.splitlines()[-1].split()), files

    first, again = ran(), ran()
    assert {"numba", "matplotlib"} <= first[1]
    assert not again[1].intersection(UNUSED)
    prefix = "swatsim.simulator.machines."
    loaded = {it.split(".")[3] for it in again[1] if it.startswith(prefix)}
    # those that are looked at until the preset is found, and what finds others
    assert loaded - {"outside"} == machines
    assert (again[0], again[2]) == (first[0], first[2])
    assert {"speed_up.png", "pe_cycles.png"} <= again[2].keys()
