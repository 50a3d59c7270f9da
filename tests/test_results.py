"""Results are written whole, come back equal, and keep their schema."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

import swatsim
from swatsim import files
from swatsim import results as module
from swatsim.columns import COLUMNS
from swatsim.counters import BUCKETS, ENERGY_PARTS, Counters
from swatsim.errors import ConfigError, ResultsError, TraceError
from swatsim.results import Results
from swatsim.tracefile import Trace
from swatsim.workload.layer import Layer
from tests.strategies import SOME_PRESETS
from tests.traces import make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return make_trace(tmp_path_factory.mktemp("results") / "small")


@pytest.fixture(scope="module")
def results(trace: Trace) -> Results:
    return swatsim.simulate(trace, "bit-tactical")


def test_rows_have_the_columns_and_the_frame_their_types(results: Results) -> None:
    for row in results.rows:
        assert set(row) == {column.name for column in COLUMNS}
    frame = results.frame
    for column in COLUMNS:
        kind = str(frame[column.name].dtype)
        assert kind == column.dtype or (column.dtype == "string" and kind.startswith("str"))
    assert frame["density_weight"].isna().sum() == 3 * 2 * 4  # wgrad reads no weight


def test_buckets_of_every_row_add_up(results: Results) -> None:
    for row in results.rows:
        assert sum(row[name] for name in BUCKETS) == row["lane_cycles"]
        assert row["lane_cycles"] == row["cycles"] * row["pes"] * row["lanes"]
        assert row["cycles"] > row["cycles_compute"]
        assert row["energy_pj"] == pytest.approx(sum(row[name] for name in ENERGY_PARTS))


def test_results_come_back_equal(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "deep" / "folder")
    again = swatsim.load_results(tmp_path / "deep" / "folder")
    assert again.rows == results.rows
    assert again.provenance == results.provenance


def test_what_is_not_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no results in .*: name a folder that simulate wrote"):
        swatsim.load_results(tmp_path)
    (tmp_path / module.PARQUET).write_bytes(b"PAR1 no")
    with pytest.raises(ResultsError, match="can't be used: no table of results"):
        swatsim.load_results(tmp_path)


def test_nothing_is_renamed_before_all_is_written(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.save(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    real, written = files._write, []

    def full_after_two(path: Path, content: Iterable[bytes]) -> None:
        written.append(path)
        if len(written) > 2:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(files, "_write", full_after_two)
    with pytest.raises(ResultsError, match="No space left on device; what was there before"):
        Results(results.rows[:2], {}).save(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# ---- simulate ----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", SOME_PRESETS)
def test_counts_do_not_depend_on_the_number_of_threads(trace: Trace, preset: str) -> None:
    once = swatsim.simulate(trace, preset, workers=1).rows
    for workers in (2, 5):
        assert swatsim.simulate(trace, preset, workers=workers).rows == once


def test_progress_is_told_of_every_op(trace: Trace) -> None:
    seen: list[tuple[int, int]] = []
    swatsim.simulate(trace.path, "dadiannao", progress=lambda *pair: seen.append(pair), steps=[7])
    assert seen == [(done, 11) for done in range(1, 12)]


class Ideal:
    """A machine from outside: every effectual MAC on one busy multiplier."""

    name = "mine"

    def simulate_op(self, op: swatsim.Op) -> Counters:
        from swatsim.workload.flops import macs_effectual

        macs = macs_effectual(op)
        return Counters(macs, pes=1, lanes=1, lane_cycles_effectual=macs)

    def simulate_dense(self, op: swatsim.Op) -> Counters:
        from swatsim.workload.flops import macs_dense

        macs = macs_dense(op.layer, op.samples)
        return Counters(macs, pes=1, lanes=1, lane_cycles_ineffectual=macs)

    def describe(self) -> dict[str, object]:
        return {"name": self.name}


def test_a_machine_of_ones_own_can_be_simulated_and_be_a_baseline(trace: Trace) -> None:
    frame = swatsim.simulate(trace, Ideal()).frame
    ours = frame[frame.role == "machine"]
    assert (ours.cycles_compute == ours.macs_effectual).all()
    against = swatsim.simulate(trace, "tensordash", baseline=Ideal()).frame
    assert set(against[against.role == "baseline"].machine) == {"mine"}


def test_counters_that_do_not_add_up_are_refused(trace: Trace) -> None:
    for wrong, complaint in (
        (Counters(100, pes=1, lanes=1, lane_cycles_effectual=7), "add up to 7, must be .* = 100"),
        (Counters(1.5, pes=1, lanes=2, lane_cycles_idle=3), "counters are whole numbers"),  # type: ignore[arg-type]
        (
            Counters(1, pes=1, lanes=1, lane_cycles_effectual=2, lane_cycles_idle=-1),
            "counters are at least 0",
        ),
        ({"cycles": 3}, "the machine gave a dict"),
    ):
        machine = Ideal()
        machine.simulate_op = lambda op, wrong=wrong: wrong  # type: ignore[method-assign, misc]
        with pytest.raises(ConfigError, match=complaint):
            swatsim.simulate(trace, machine)


def test_what_is_no_machine_is_refused(trace: Trace) -> None:
    with pytest.raises(ConfigError, match="int is not a machine: pass a preset's name"):
        swatsim.simulate(trace, 3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="workers=0 is not allowed: must be at least 1"):
        swatsim.simulate(trace, "dadiannao", workers=0)
    with pytest.raises(swatsim.SwatsimError, match="str is no op"):
        swatsim.simulate_op("x", "dadiannao")  # type: ignore[arg-type]


def test_choices_that_are_none_are_refused(trace: Trace) -> None:
    for choice, complaint in (
        ({"ops": ["fprp"]}, "unknown op 'fprp': did you mean 'fprop'"),
        ({"ops": "fprop"}, "ops='fprop' is not allowed: must be a sequence"),
        ({"ops": []}, "must hold at least one"),
        ({"steps": 0}, "steps=0 is not allowed: must be a sequence"),
        ({"steps": [1.5]}, "must be a sequence"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            swatsim.simulate(trace, "dadiannao", **choice)  # type: ignore[arg-type]


def test_steps_without_a_whole_op_are_refused(tmp_path: Path) -> None:
    import numpy as np

    recorder = swatsim.Recorder(tmp_path / "t", batch_size=2)
    recorder.declare(Layer(name="fc", kind="linear", C=4, K=2))
    with recorder.step(0) as step:
        step.operand("fc", "fprop", "act", np.ones((2, 4), bool))
    with pytest.raises(TraceError, match="hold none of fprop, dgrad, wgrad with the masks of both"):
        swatsim.simulate(tmp_path / "t", "tensordash")
