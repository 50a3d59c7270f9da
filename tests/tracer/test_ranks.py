"""Runs of several processes: whose trace is where, and what can't be recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from swatsim.errors import RecordingError  # noqa: E402
from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer, ranks  # noqa: E402


def record(path: Path, kind: str = "observer", **options: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    options = {"steps": (0,), **options}
    if kind == "observer":
        run: Any = Observer(model, path, **options)
    else:
        run = Tracer(model, SwatU(0.5), path, **options)
    with run:
        model(torch.randn(3, 4)).sum().backward()
        run.step()


@pytest.mark.parametrize("kind", ["observer", "tracer"])
def test_each_process_has_a_trace(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_processes", lambda: (1, 2))
    record(tmp_path / "run", kind)
    (made,) = tmp_path.iterdir()
    assert made.name == "run-rank1"
    parameters = open_trace(made).manifest.provenance["parameters"]
    assert (parameters["rank"], parameters["processes"]) == (1, 2)
    assert "before averaging" in parameters["gradients"]


def test_one_process_alone_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for own in (0, 1):
        monkeypatch.setattr(ranks, "_processes", lambda own=own: (own, 2))
        record(tmp_path / "run", rank=0)
    assert [made.name for made in tmp_path.iterdir()] == ["run"]
    assert open_trace(tmp_path / "run").steps == (0,)


@pytest.mark.parametrize("rank", [1, -1, True, "0", 2])
def test_ranks_that_are_refused(rank: Any, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="rank="):
        record(tmp_path / "run", rank=rank)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["observer", "tracer"])
def test_sharded_parameters_are_refused_at_the_start(kind: str, tmp_path: Path) -> None:
    class DTensor(nn.Parameter):
        """Has the name of torch's."""

    model = nn.Linear(4, 2)
    model.weight = DTensor(torch.zeros(2, 4))
    with pytest.raises(RecordingError, match=r"'weight' is a DTensor, spread over processes"):
        if kind == "observer":
            Observer(model, tmp_path / "run", steps=())
        else:
            Tracer(model, SwatU(0.5), tmp_path / "run", steps=())
    assert not list(tmp_path.iterdir())
