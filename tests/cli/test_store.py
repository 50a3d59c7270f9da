"""``swatsim store``, and verbs that use one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swatsim.store import open_store
from swatsim.store.store import LIMIT
from tests.command import refused, swatsim
from tests.traces import make_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trace(tmp_path_factory.mktemp("store") / "small", steps=(0,)).path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWATSIM_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def entries(store: Path) -> int:
    found = open_store(store)
    assert found is not None
    return found.size().entries


def test_it_is_shown_bounded_and_cleared(trace: Path, store: Path) -> None:
    assert swatsim("store")[1] == f"{store}: 0 entries, 0 bytes of 1 GiB at most\n"
    assert swatsim("simulate", trace, "-m", "ideal")[0] == 0
    there = entries(store)
    assert there > 0
    code, out, _ = swatsim("store", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["store"], found["entries"], found["limit"]) == (str(store), there, LIMIT)
    assert found["bytes"] > 0
    assert "of 64 MiB at most" in swatsim("store", "--limit", "64 mib")[1]
    assert swatsim("store", store, "--clear")[1].startswith(
        f"{store}: 0 entries, 0 bytes of 64 MiB"
    )


def test_what_prints_does_not_depend_on_it(trace: Path, store: Path) -> None:
    plain = swatsim("simulate", trace, "-m", "tensordash", "--no-store", "--json")
    assert not store.exists()
    first, second = (swatsim("simulate", trace, "-m", "tensordash", "--json") for _ in range(2))
    assert first[:2] == second[:2] == plain[:2]
    assert plain[2] == ""
    assert (there := entries(store) - 1) > 0  # and the rows of the one step
    assert first[2] == f"0 of {there} counts came from the store\n"
    assert second[2] == "1 step came from the store\n"
    other = swatsim("simulate", trace, "-m", "tensordash", "--set", "dram=hbm2", "--json")
    assert other[2] == f"{there} of {there} counts came from the store\n"


@pytest.mark.parametrize(
    "verb",
    [
        ("estimate", "--run-steps", "10", "-m", "ideal"),
        ("estimate", "--images", "-m", "ideal"),
        ("timeline", "-m", "ideal", "-o"),
        ("sweep", "-m", "ideal", "--workers", "1", "-o"),
    ],
    ids=lambda it: " ".join(it[:2]),
)
def test_each_verb_does_without_and_with_it(
    verb: tuple[str, ...], trace: Path, store: Path, tmp_path: Path
) -> None:
    def run(name: str, *more: str) -> None:
        output = [tmp_path / name] if verb[-1] == "-o" else []
        code, _, errors = swatsim(verb[0], trace, *verb[1:], *output, *more)
        assert code == 0, errors

    run("a.json", "--no-store")
    assert not store.exists()
    run("b.json")
    there = entries(store)
    assert there > 0
    run("c.json")
    assert entries(store) == there


def test_refusals_say_what_is_allowed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ("much", "4 GB", "-1", "1.5GiB", "9" * 30):
        assert "expected a whole number with a unit, KiB, MiB, GiB, TiB" in refused(
            "store", f"--limit={size}"
        )
    assert "a limit of 1024 bytes is too low: at least" in refused("store", "--limit", "1KiB")
    assert "can't be opened" in refused("store", "nowhere://x")
    (store.parent / "file").write_text("no folder")
    assert "is a file: give a folder, or a URL" in refused("store", store.parent / "file")
    monkeypatch.setenv("SWATSIM_STORE", str(store.parent / "file" / "store"))
    assert "the store" in refused("store", "--limit", "1GiB")
    monkeypatch.setenv("SWATSIM_STORE", "")
    assert "there is no store: set SWATSIM_STORE to a folder, or name one" in refused("store")


def test_a_clearing_that_is_refused_is_said_and_clears_nothing(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = open_store(store)
    assert kept is not None
    kept.put("ab" * 16, b"counts")
    assert "is too low" in refused("store", "--clear", "--limit", "1KiB")
    assert "expected a whole number" in refused("store", "--clear", "--limit", "x")
    assert entries(store) == 1
    monkeypatch.setattr("swatsim.store.folder.remove", lambda paths: None)  # as if read-only
    assert "1 of 1 entries can't be removed" in refused("store", "--clear")


def test_a_place_that_cannot_be_looked_at_costs_no_run(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWATSIM_STORE", str(tmp_path / ("long" * 100)))
    code, _, err = swatsim("simulate", trace, "-m", "ideal")
    assert code == 0
    assert "File name too long): going on without" in err
    assert "File name too long" in refused("store")
    monkeypatch.setenv("SWATSIM_STORE", "reference://x")  # fsspec raises a TypeError
    assert "the store reference://x can't be opened" in refused("store")


def test_results_have_nothing_to_do_with_it() -> None:
    assert "--no-store is not allowed" in refused(
        "estimate", "results", "--run-steps", "10", "--no-store"
    )
