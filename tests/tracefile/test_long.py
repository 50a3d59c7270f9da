"""What long traces take: work is counted, not seconds."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest

import swatsim
from swatsim import table, validation
from swatsim.cli import progress
from swatsim.policies import SwatU
from swatsim.reports.names import labels
from swatsim.reports.page_tables import pareto
from swatsim.simulator import abreast
from swatsim.sweeps.plan import make_plan
from swatsim.sweeps.spec import Spec
from swatsim.sweeps.store import Store
from swatsim.table import Gathered, Record, Rows
from swatsim.tracefile import Step, Trace, open_trace, passes, reader
from swatsim.tracefile.schema import Manifest, MaskRecord
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import Layer
from tests.command import swatsim as command
from tests.tracefile.test_passes import came
from tests.traces import make_trace

LAYERS = [Layer(name=f"fc{i}", kind="linear", C=4, K=4) for i in range(12)]
SMALL = (Layer(name="fc", kind="linear", C=4, K=4),)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    synthesize(LAYERS, tmp_path / "trace", policy=SwatU(0.5), batch=2, seed=1)
    return tmp_path / "trace"


def test_the_kinds_of_a_records_fields_are_found_out_once(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_trace(trace).step(0)
    looked: list[object] = []
    monkeypatch.setattr(validation, "_kinds", looked.append)
    assert len(open_trace(trace).step(0).records) > len(MaskRecord.model_fields)
    assert not looked


def test_an_op_that_keeps_its_gradient_on_chip_does_not_list_all_ops_of_its_step(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[int] = []
    ops = Step.ops
    monkeypatch.setattr(Step, "ops", lambda step: listed.append(step.number) or ops(step))
    swatsim.simulate(trace, swatsim.machine("scale-sim-ws", keep_on_chip=True), workers=1)
    assert 0 < len(listed) < len(LAYERS)


def test_results_are_columns_when_they_were_simulated_and_when_they_are_read(
    trace: Path, tmp_path: Path
) -> None:
    simulated = swatsim.simulate(trace, "scale-sim-ws", workers=1)
    simulated.save(tmp_path / "results")
    read = swatsim.load_results(tmp_path / "results")
    assert isinstance(simulated.rows, Rows)
    assert isinstance(read.rows, Rows)
    assert read.rows == simulated.rows


def test_a_long_trace_is_simulated_with_few_of_its_steps_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = make_trace(tmp_path / "trace", steps=tuple(range(24)), layers=SMALL)
    whole = swatsim.simulate(trace.path, "scale-sim-ws", workers=1).rows
    monkeypatch.setattr(reader, "KEPT_MASKS", 2 * reader.LEAST_MASKS)
    monkeypatch.setattr(abreast, "AHEAD", 1)
    there, most, opened = WeakSet[Step](), [0], list[int]()
    init = Step.__init__

    def counted(step: Step, path: Path, number: int, manifest: Manifest) -> None:
        init(step, path, number, manifest)
        there.add(step)
        opened.append(number)
        most[0] = max(most[0], len(there))

    monkeypatch.setattr(Step, "__init__", counted)
    rows = swatsim.simulate(trace.path, "scale-sim-ws", workers=1).rows
    assert rows == whole
    assert most[0] <= 6
    assert {opened.count(number) <= 6 for number in trace.steps} == {True}


def test_runs_of_a_layer_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = [0]

    class Counting(int):
        def __add__(self, other: int) -> Counting:
            looked[0] += 1
            return Counting(int(self) + other)

        __radd__ = __add__

    monkeypatch.setattr(passes, "prod", lambda shape: Counting(6))
    records = came(*(f"a@{i}" for i in range(1, 200)), *(f"-a@{i}" for i in range(1, 200)))
    assert len(passes.alive(records)) == 199
    assert looked[0] <= 2 * 199


def test_reading_a_long_trace_shows_how_far_it_is(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    for verb in ("check", "info"):
        assert command("check", trace)[2] == ""
        with monkeypatch.context() as patch:
            patch.setattr(progress, "MANY_STEPS", 1)
            assert "steps" in command(verb, trace)[2]


def test_many_computations_open_the_steps_of_a_trace_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = make_trace(tmp_path / "trace", steps=tuple(range(6)), layers=SMALL)
    monkeypatch.setattr(reader, "KEPT_MASKS", reader.LEAST_MASKS)
    opened = list[int]()
    init = Step.__init__

    def counted(step: Step, path: Path, number: int, manifest: Manifest) -> None:
        opened.append(number)
        init(step, path, number, manifest)

    monkeypatch.setattr(Step, "__init__", counted)
    grids = ({"rows": [1]}, {"rows": [1, 2, 3, 4, 5, 6, 7, 8]})
    found = []
    for grid in grids:
        opened.clear()
        machines = [{"preset": "tensordash", "grid": grid}]
        entries: dict[str, Any] = {"traces": [str(trace.path)], "machines": machines}
        plan = make_plan(Spec(**entries), Store(tmp_path / "x"))
        assert len(plan.groups) == len(grid["rows"])
        found.append(len(opened))
    assert found[0] == found[1]


def test_a_front_of_many_points_and_labels_of_many_names_are_exact() -> None:
    points = [
        {"time_ms": float(i), "energy_pj": float(99 - i), "multipliers": 1, "buffer_kib": 1 + i % 2}
        for i in range(100)
    ]
    beaten = {"time_ms": 50.0, "energy_pj": 49.5, "multipliers": 1, "buffer_kib": 2}
    assert pareto([*points, beaten]) == points
    names = [f"{i}.{'a' * 200}.{i % 3}" for i in range(40)]
    assert len(set(labels(names).values())) == 40


def test_drawing_a_report_shows_how_far_it_is(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swatsim.simulate(trace, "scale-sim-ws", workers=1).save(tmp_path / "results")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    code, _, shown = command("report", tmp_path / "results")
    plots = len(list((tmp_path / "results" / "report").glob("*.svg")))
    assert code == 0
    assert plots > 1
    assert f"{plots}/{plots}" in shown
    assert "plots" in shown


def test_a_sweeps_points_look_at_the_steps_of_a_trace_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = make_trace(tmp_path / "trace", steps=tuple(range(6)), layers=SMALL)
    looked = list[int]()
    largest = Trace._largest_of
    monkeypatch.setattr(Trace, "_largest_of", lambda *given: looked.append(1) or largest(*given))
    machines = [{"preset": "tensordash", "grid": {"rows": [1, 2, 3], "dram": ["ideal", "hbm2"]}}]
    for steps in (None, [0, 3]):
        looked.clear()
        entries: dict[str, Any] = {"traces": [str(trace.path)], "machines": machines}
        plan = make_plan(Spec(**entries, steps=steps), Store(tmp_path / "x"))
        assert len(plan.points) == 6
        assert len(looked) == 1


def test_rows_of_a_sweep_are_columns_while_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = make_trace(tmp_path / "trace", steps=tuple(range(12)), layers=SMALL)
    monkeypatch.setattr(table, "AT_A_TIME", 4)
    waiting = list[int]()
    add = Gathered.add

    def counted(gathered: Gathered, rows: Iterable[Record]) -> None:
        add(gathered, rows)
        waiting.append(len(gathered._waiting))

    monkeypatch.setattr(Gathered, "add", counted)
    grid = {"dram": ["hbm2", "ideal"]}
    machines = [{"preset": "scale-sim-ws", "grid": grid}]
    spec: dict[str, Any] = {"traces": [str(trace.path)], "machines": machines}
    with ThreadPoolExecutor(1) as executor:
        summary = swatsim.sweep(spec, tmp_path / "sweep", executor=executor)
    assert len(waiting) == 2 * 12 * 3
    assert max(waiting) < 4
    for row, dram in zip(summary.rows, grid["dram"], strict=True):
        alone = swatsim.simulate(trace.path, swatsim.machine("scale-sim-ws", dram=dram), workers=1)
        assert summary.results(row["point"]).rows == alone.rows
