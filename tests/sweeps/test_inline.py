"""Sweeps that are said in options, and how long a sweep will take."""

from __future__ import annotations

import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from swatsim.cli import sweep as verb
from swatsim.errors import ConfigError
from swatsim.simulator.ahead import fitted
from swatsim.sweeps import run, worker
from swatsim.sweeps.forecast import Forecast, duration, forecast
from swatsim.sweeps.inline import as_toml, entries_of
from swatsim.sweeps.spec import Spec, read_spec
from swatsim.tracefile import open_trace
from tests.command import refused, swatsim
from tests.sweeps.test_sweep import Here
from tests.traces import make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("inline") / "a trace", (0,)).path


def test_values_are_set_or_varied_on_machines_that_have_them() -> None:
    settings = {
        "rows": "4, 8",
        "dram": "ddr4-3200,hbm2",
        "clock_mhz": "500",
        "keep_on_chip": "true",
    }
    entries = entries_of(["t"], ["tensordash", "swat"], settings, constraints=["pes < 9"], ops=[])
    both = {"clock_mhz": 500, "keep_on_chip": True}
    drams = ["ddr4-3200", "hbm2"]
    assert entries == {
        "traces": ["t"],
        "constraints": ["pes < 9"],
        "machines": [
            {"preset": "tensordash", "set": both, "grid": {"rows": [4, 8], "dram": drams}},
            {"preset": "swat", "set": both, "grid": {"dram": drams}},
        ],
    }
    assert len(Spec(**{**entries, "constraints": []}).points()) == 4 + 2


def test_the_file_that_says_the_same_is_toml() -> None:
    entries = entries_of(
        ['a "b" \\ \x7f \u00e9'], ["swat"], {"dtype": "fp16"}, steps=[0], layers_only=True
    )
    assert tomllib.loads(as_toml(entries)) == entries


@pytest.mark.parametrize(
    ("presets", "settings", "message"),
    [
        (
            ["swat", "tensordash"],
            {"rowz": "1"},
            "parameter of swat or tensordash 'rowz': did you mean 'rows'",
        ),
        (["swatt"], {}, "did you mean 'swat'"),
        (["swat"], {"pe_h": ""}, "pe_h= is not allowed: a value is missing; give one, or several"),
        (["swat"], {"pe_h": "1,"}, "pe_h=1, is not allowed: a value is missing"),
    ],
)
def test_names_that_are_none_are_refused(
    presets: list[str], settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        entries_of(["t"], presets, settings)


def test_a_dry_run_prints_a_file_of_the_same_points(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("-m", "tensordash", "-m", "ideal", "--set", "tiles=1,2", "--op", "fprop")
    code, out, errors = swatsim("sweep", trace, *options, "-o", "out", "--dry-run")
    assert (code, errors) == (0, "")
    assert out.startswith("# 3 points, 3 to compute, 0 kept, 3 computations, some seconds on ")
    (tmp_path / "spec.toml").write_text(out)
    read = read_spec("spec.toml")
    said = entries_of([str(trace)], ["tensordash", "ideal"], {"tiles": "1,2"}, ops=["fprop"])
    keys = [[key for key, _ in run.look(it, "out").points] for it in (read, Spec(**said))]
    assert keys[0] == keys[1]
    assert not (tmp_path / "out").exists()


def test_what_is_neither_a_file_nor_traces_and_machines_is_refused(
    trace: Path, tmp_path: Path
) -> None:
    (tmp_path / "spec.toml").write_text("")
    sweep = ("sweep", "-o", tmp_path / "out")
    assert "as in -m tensordash" in refused(*sweep, trace)
    assert "as in -m tensordash" in refused(*sweep, trace, trace)
    assert "--op is of traces" in refused(*sweep, tmp_path / "spec.toml", "--op", "fprop")
    assert "--set is of traces" in refused(*sweep, tmp_path / "spec.toml", "--set", "rows=1")
    assert "--layers-only is of" in refused(*sweep, tmp_path / "spec.toml", "--layers-only")
    assert "given twice" in refused(*sweep, trace, "-m", "swat", "-s", "rows=1", "-s", "rows=2")


# ---- how long it takes ---------------------------------------------------------------------------


def test_a_forecast_has_a_time_of_each_job(trace: Path, tmp_path: Path) -> None:
    spec = entries_of(
        [str(trace)], ["tensordash", "ideal"], {"tiles": "1,2", "dram": "hbm2,ddr4-3200"}
    )
    plan = run.look(spec, tmp_path / "out")
    found = forecast(plan, 2)
    jobs = [job for group in plan.groups for job in group.jobs]
    assert len(found.jobs) == len(jobs)
    assert all(seconds > 0 for seconds in found.jobs)
    assert found.seconds == pytest.approx(sum(found.jobs) / 2)
    assert found.words == "some seconds on 2 processes"
    assert forecast(plan, None).words == "some CPU seconds at the rates of this machine"


def test_a_forecast_is_of_computations_and_not_of_points(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swatsim.sweeps.timed._timed", lambda *given: 5.0 + 0.25 * given[-1])
    memories = ",".join(f"{64 * 2**i}" for i in range(8))
    settings = {"tiles": "1,2", "buffer_b_kib": memories}
    plan = run.look(entries_of([str(trace)], ["tensordash"], settings), tmp_path / "out")
    assert plan.words() == "16 points, 16 to compute, 0 kept, 2 computations"
    ops = len(list(open_trace(trace).step(0).ops()))
    # each is computed once, for 5 s, and takes a quarter of a second on each memory
    assert forecast(plan, 4).cpu_seconds == pytest.approx(2 * ops * (5 + 8 * 0.25))
    assert Forecast([3600.0] * 31, 4).words == "about 31 CPU hours, about 7.8 hours on 4 processes"


def test_a_forecast_knows_what_a_store_has(trace: Path, tmp_path: Path) -> None:
    def spec(tiles: str) -> dict[str, Any]:
        return entries_of([str(trace)], ["tensordash"], {"tiles": tiles, "dram": "hbm2,ddr4-3200"})

    store = tmp_path / "store"
    done = run.sweep(spec("1,2"), tmp_path / "one", executor=Here(), store=store)
    assert done.looked.stored == 0 < done.looked.counts
    plan = run.look(spec("1,2,3"), tmp_path / "two", store=store)
    found = forecast(plan, 2)
    assert (found.stored, found.exact, found.kept) == (2, True, "2 of them stored")
    assert plan.words(found.kept).endswith("3 computations, 2 of them stored")
    assert all(seconds > 0 for seconds in found.jobs)
    assert forecast(run.look(spec("1"), tmp_path / "two", store=False), 2).kept == ""
    worker._store.cache_clear()  # as in another process
    again = run.sweep(spec("2"), tmp_path / "three", executor=Here(), store=store)
    assert again.looked.stored == again.looked.counts > 0
    assert (
        again.looked.words == f"{again.looked.stored} of {again.looked.stored} counts came "
        "from the store"
    )


def test_of_many_computations_some_are_looked_up(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swatsim.sweeps.kept.SECONDS", 0.0)
    spec = entries_of([str(trace)], ["ideal"], {"multipliers": "64,128,256"})
    run.sweep(spec, tmp_path / "one", executor=Here(), store=tmp_path / "store")
    plan = run.look(spec, tmp_path / "two", store=tmp_path / "store")
    assert forecast(plan, 2).kept == "about 3 of them stored"


def test_an_op_has_a_time_and_each_of_its_products_too() -> None:
    assert fitted([(100, 2.0), (300, 4.0), (200, 3.0)]) == pytest.approx((1.0, 0.01))
    assert fitted([(100, 1.0), (300, 4.0)]) == pytest.approx((0.0, 5 / 400))  # none is below 0
    assert fitted([(100, 3.0), (300, 1.0)]) == pytest.approx((2.0, 0.0))
    assert fitted([(7, 3.0)]) == pytest.approx((3.0, 0.0))
    assert fitted([]) == (0.0, 0.0)


def test_what_is_left_follows_from_what_jobs_took() -> None:
    found = Forecast([1.0, 1.0, 2.0, 4.0], 2)
    assert found.seconds == 4
    assert found.left(0, 2, 20.0) == pytest.approx(60)
    assert found.left(2, 3, 5.0) == pytest.approx(10)
    assert found.left(0, 0, 5.0) == found.seconds


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "some seconds"),
        (43.2, "about 43 seconds"),
        (130, "about 2.2 minutes"),
        (1234, "about 21 minutes"),
        (9000, "about 2.5 hours"),
        (3.6e6, "about 1000 hours"),
    ],
)
def test_a_forecast_is_no_more_exact_than_it_is(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_has_no_machine_of_its_own_is_read_from_a_file(tmp_path: Path) -> None:
    assert "can't read the sweep" in refused(
        "sweep", tmp_path / "none.toml", "-o", tmp_path / "out"
    )
    assert verb._default_energy() == "45nm"


# ---- parts, and time that is up ------------------------------------------------------------------


def test_a_command_whose_time_is_up_says_how_to_go_on(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "_cluster", lambda *named: nullcontext(Here()))
    monkeypatch.setattr(verb, "forecast", lambda plan, processes: Forecast([1.0], processes))
    monkeypatch.setattr("sys.argv", ["/bin/swatsim", "sweep", "a trace"])
    sweep = ("sweep", trace, "-m", "scale-sim-ws", "--set", "rows=4,8", "-o", tmp_path / "out")
    code, out, errors = swatsim(*sweep, "--max-hours", "1e-9")
    assert code == verb.UNFINISHED == 124, errors
    assert "2 of 2 points are left: the time is up." in out
    assert "Next: swatsim sweep 'a trace'" in out
    code, out, errors = swatsim(*sweep, "--shard", "1/2")
    assert code == 0, errors
    assert errors.startswith("2 points, 1 to compute, 0 kept, 1 of other parts, 1 computation, ")
    assert "1 of 2 points are left to other parts of the sweep." in out
    code, out, errors = swatsim(*sweep, "--shard", "2/2", "--max-hours", "5")
    assert code == 0, errors
    assert "Next: swatsim report" in out


@pytest.mark.parametrize("part", ["0/8", "9/8", "3", "3/x", "1/0", "-1/8"])
def test_a_part_that_is_none_is_refused(trace: Path, tmp_path: Path, part: str) -> None:
    sweep = ("sweep", trace, "-m", "swat", "-o", tmp_path / "out")
    assert "write the part, from 1, and of how many: 3/8" in refused(*sweep, "--shard", part)


def test_what_a_cluster_is_told_is_checked(trace: Path, tmp_path: Path) -> None:
    sweep = ("sweep", trace, "-m", "swat", "-o", tmp_path / "out")
    assert "as in --slurm time=120" in refused(*sweep, "--slurm", "time")
    assert "--slurm time is given twice" in refused(*sweep, *(2 * ("--slurm", "time=1")))
    assert "name one" in refused(*sweep, "--slurm", "time=1", "--dask", "tcp://here:1")
