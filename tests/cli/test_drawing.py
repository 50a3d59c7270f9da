"""Plots that were drawn before are taken from the store, and found for the same rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import swatsim
from swatsim.cli import drawing
from swatsim.outputs import CHOICES
from swatsim.results import Results
from swatsim.store import Store
from swatsim.table import Rows, where
from tests.pictures import unpainted
from tests.test_store import Memory
from tests.traces import make_trace

MAIN = CHOICES["main"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    path = make_trace(tmp_path_factory.mktemp("drawn") / "small", steps=(0,)).path
    return swatsim.simulate(path, "tensordash", store=False)


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of what is drawn; nobody has told matplotlib how."""
    for name in ("HOME", "USERPROFILE", "MPLCONFIGDIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("MATPLOTLIBRC", raising=False)
    monkeypatch.chdir(tmp_path)
    found: list[str] = []
    real = drawing.draw

    def noted(results: Results, names: Any) -> Any:
        found.extend(names)
        return real(results, names)

    monkeypatch.setattr(drawing, "draw", noted)
    return found


def test_a_plot_is_drawn_once_and_is_the_same(results: Results, drawn: list[str]) -> None:
    store = Store(Memory())
    plain = drawing.plots_of(results, MAIN)
    assert list(plain) == [f"{name}.png" for name in MAIN]
    assert drawing.plots_of(results, MAIN, store) == plain
    del drawn[:]
    again = Results(results.rows, {**results.provenance, "time": "later", "command": ["another"]})
    found = drawing.plots_of(again, MAIN, Store(store.folder))
    assert not drawn
    assert found == plain
    assert list(drawing.plots_of(again, CHOICES["all"], store)) == [
        f"{name}.png" for name in CHOICES["all"]
    ]
    assert drawn == [name for name in CHOICES["all"] if name not in MAIN]
    assert store.looked.counts == 0


@unpainted()
def test_all_that_a_plot_shows_and_what_draws_it_is_in_its_key(
    results: Results, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (name, *_) = Store(Memory()), MAIN
    assert isinstance(results.rows, Rows)
    about = results.provenance["parameters"]
    other = {**about, "samples": [7]}
    drawing.plots_of(results, [name], store)
    different = [
        Results(where(results.rows, "op", lambda op: op != "wgrad"), results.provenance),
        Results(results.rows, {**results.provenance, "parameters": other}),
    ]
    for count, it in enumerate(different, 2):
        drawing.plots_of(it, [name], store)
        drawing.plots_of(it, [name], store)
        assert len(drawn) == count
    for what, value in (("sources", lambda: "other code"), ("version", lambda name: "0")):
        with monkeypatch.context() as patched:
            patched.setattr(drawing, what, value)
            del drawn[:]
            drawing.plots_of(results, [name], store)
            assert drawn == [name]


@unpainted()
@pytest.mark.parametrize("place", ["matplotlibrc", ".config/matplotlib/matplotlibrc", "mine"])
def test_where_a_user_has_settings_plots_are_drawn_each_time(
    place: str,
    results: Results,
    drawn: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if place == "mine":
        monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / place))
    store = Store(Memory())
    drawing.plots_of(results, MAIN, store)
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_text("lines.linewidth: 7\n")
    for _ in range(2):
        del drawn[:]
        drawing.plots_of(results, MAIN, store)
        assert drawn == list(MAIN)


def test_what_can_not_be_drawn_is_not_kept(
    results: Results, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from swatsim.reports import layer_bars

    def fail(results: Results) -> None:
        raise RuntimeError("no ink")

    store = Store(Memory())
    with monkeypatch.context() as patched, unpainted():
        patched.setattr(layer_bars, "speed_up", fail)
        assert list(drawing.plots_of(results, MAIN, store)) == ["pe_cycles.png"]
    with unpainted():
        assert set(drawing.plots_of(results, MAIN, store)) == {"speed_up.png", "pe_cycles.png"}
    assert drawn == [*MAIN, "speed_up"]
