"""What is said of a run before it begins, and what that costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.cli.foreseen import words
from swatsim.errors import SwatsimError
from swatsim.simulator import ahead as module
from swatsim.simulator.abreast import Work
from swatsim.simulator.ahead import ahead
from swatsim.simulator.jobs import Jobs
from swatsim.simulator.trace_run import Run
from swatsim.tracefile import Step, open_trace
from swatsim.workload.layer import OPS
from tests.command import swatsim as command
from tests.traces import make_trace


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return make_trace(tmp_path / "trace", steps=tuple(range(9))).path


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take any run for one that takes long, and have some time for its forecast."""
    monkeypatch.setattr(module, "FEW", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e9)


def test_a_short_run_has_no_forecast(trace: Path) -> None:
    told: list[Any] = []
    swatsim.simulate(trace, "scale-sim-ws", announce=lambda work: told.append(ahead(work, None)))
    assert told == [None]


@pytest.mark.usefixtures("long")
def test_a_forecast_runs_no_op_twice_and_reads_no_more_masks(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = swatsim.simulate(trace, "scale-sim-ws", workers=1).rows
    read, told = list[tuple[int, str, str]](), list[Any]()
    op = Run.read

    def counted(run: Run, step: Step, layer: Any, name: Any) -> Any:
        read.append((step.number, layer.name, name))
        return op(run, step, layer, name)

    monkeypatch.setattr(Run, "read", counted)
    announce = lambda work: told.append((len(read), ahead(work, None), len(read)))  # noqa: E731
    rows = swatsim.simulate(trace, "scale-sim-ws", workers=1, announce=announce).rows
    (before, found, after) = told[0]
    assert found is not None
    assert (before, after) == (0, module.TIMED)
    assert sorted(read) == sorted(set(read))
    assert rows == plain


def test_no_more_is_timed_than_a_share_of_the_run(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEW", 0.0)
    monkeypatch.setattr(module, "SHARE", 0.0)
    ran: list[Any] = []
    jobs = Jobs(open_trace(trace), range(9), OPS)
    assert ahead(Work(lambda *job: ran.append(job), jobs, 1), None) is not None
    assert len(ran) == 2, "one that loads kernels, and one"


@pytest.mark.usefixtures("long")
def test_what_every_op_takes_is_what_those_do_that_were_timed(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def run(step: Step, layer: Any, name: str) -> None:
        now[0] += 3.0

    jobs = Jobs(open_trace(trace), range(9), OPS)
    work = Work(run, jobs, 4)
    found = ahead(work, None)
    assert found is not None
    assert found.seconds == pytest.approx(3 * len(jobs))
    assert words(work, found).endswith(" on 4 threads")


@pytest.mark.usefixtures("long")
def test_an_op_that_is_refused_is_refused_in_its_turn_alone(trace: Path) -> None:
    def refuse(*job: Any) -> None:
        raise SwatsimError("no")

    assert ahead(Work(refuse, Jobs(open_trace(trace), range(9), OPS), 1), None) is not None


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("verb", ["simulate", "estimate", "images"])
def test_a_verb_says_before_it_begins_how_long_it_takes_and_what_is_stored(
    verb: str, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWATSIM_STORE", str(tmp_path / "store"))
    more = {"simulate": [], "estimate": ["--run-steps", "20"], "images": ["--images"]}[verb]
    many = len(Jobs(open_trace(trace), range(9), OPS))
    line = ("simulate" if verb == "simulate" else "estimate", trace, "-m", "tensordash")
    line = (*line, *more, "--json")
    code, out, errors = command(*line)
    assert code == 0
    assert errors.splitlines()[-2].startswith(f"{many} ops, ")
    assert "threads" in errors or "thread" in errors
    json.loads(out)  # nothing but the object
    again = command(*line, *(["--set", "dram=hbm2"] if verb == "simulate" else []))[2]
    if verb == "simulate":  # its counts are kept, and no step of it
        assert f"{many} ops, about {many} of them stored, " in again
