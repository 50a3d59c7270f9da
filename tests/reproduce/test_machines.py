"""Machines beside each other: all alike, and what is shown is what was measured."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib.text import Text

from swatsim.reproduce import machines, machines_plots, machines_words
from swatsim.reproduce.machines import METHODS, MULTIPLIERS, WORKLOADS, Entry, Step
from swatsim.simulator.machines import presets
from tests.command import swatsim as command
from tests.scripts import load

ENTRIES = list(machines.entries())


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Load benchmarks/paper/machines.py."""
    return load("paper/machines")


@pytest.fixture(scope="module")
def steps(script: ModuleType) -> list[Step]:
    """Load what it measured."""
    found: list[Step] = script.load()
    return found


def test_documents_show_what_was_measured(script: ModuleType) -> None:
    pages = load("pages")
    assert "\n".join(script.of_ideal()).splitlines() == pages.block("of-ideal")
    assert list(script.steps_of_methods()) == pages.block("steps")
    assert "\n".join(script.report()) + "\n" == script.REPORT.read_text()


@pytest.mark.parametrize("entry", [entry for _, entry in ENTRIES], ids=lambda it: it.preset)
def test_machines_are_alike(entry: Entry) -> None:
    config = entry.machine.config
    assert config.multipliers == MULTIPLIERS
    first = ENTRIES[0][1].machine.config
    for name in ("dtype", "clock_mhz", "bandwidth_mb_per_s", "latency_cycles", "memory"):
        assert getattr(config, name) == getattr(first, name)
    for name in machines.COMMON:
        assert getattr(config, name) == getattr(first, name)
    assert not set(entry.equal) & set(machines.COMMON)


def test_every_mechanism_is_there() -> None:
    known = {name: mechanism.name for name, _, mechanism in presets()}
    assert {known[entry.preset] for _, entry in ENTRIES} == set(known.values())


def test_every_step_is_measured(steps: list[Step]) -> None:
    expected = [
        (it.title, it.samples, method, entry.preset)
        for it in WORKLOADS.values()
        for method in it.methods
        for _, entry in ENTRIES
    ]
    assert [(it.network, it.samples, it.method, it.machine) for it in steps] == expected
    assert all(step.uneven for step in steps)
    assert {method for it in WORKLOADS.values() for method in it.methods} == {*METHODS}


def test_no_machine_passes_the_ideal(steps: list[Step]) -> None:
    for step in steps:
        assert 0 < step.of_ideal <= 1
        assert step.layers_ms + step.other_ms == pytest.approx(step.time_ms)
        own = [(it.network, it.method) == (step.network, step.method) for it in steps]
        bound = next(it for it, is_own in zip(steps, own, strict=True) if is_own and it.bound)
        assert step.ideal_ms == bound.ideal_ms <= bound.layers_ms <= step.layers_ms


def test_everything_else_takes_the_same_on_each_machine_but_for_the_policys_own(
    steps: list[Step],
) -> None:
    for own in machines_words.networks(steps).values():
        assert len({round(step.other_ms - step.policy_ms, 6) for step in own}) == 1
        for step in own:
            assert 0 <= step.policy_ms < step.other_ms
            assert (step.policy_ms == 0) == (step.method == "dense")


def test_a_measurement_comes_out_as_it_is_written_down(
    steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    group = next(name for name, some in machines.MACHINES.items() if len(some) == 1)
    monkeypatch.setattr(machines, "MACHINES", {group: machines.MACHINES[group]})
    for one in machines.measure(["ResNet-50"], ["2:4"]):
        assert one in steps


def test_why_is_said_with_what_was_counted(steps: list[Step]) -> None:
    causes = machines_words.causes(steps)
    (stc,) = (
        it for it in steps if (it.network, it.machine, it.method) == ("ResNet-50", "stc", "2:4")
    )
    assert stc.obeying_fprop > 0.99 > stc.obeying_dgrad
    assert stc.compressed_dgrad < 0.1 < stc.compressed_fprop
    assert any(
        f"fprop {stc.compressed_fprop:.0%}, dgrad 0%" in text
        and f"{stc.obeying_dgrad:.0%} of" in text
        for text in causes
    )


def test_the_picture_says_what_it_is_of(steps: list[Step]) -> None:
    figure = machines_plots.times(steps)
    texts = [text.get_text().replace("\n", " ") for text in figure.findobj(Text)]
    assert " ".join(machines_words.about(steps)) in texts
    for step in steps:
        assert f"{step.time_ms:.1f}" in texts
    fast = [text for text in figure.findobj(Text) if text.get_weight() == "bold"]
    assert len(fast) >= len({(step.network, step.method) for step in steps})


def test_the_command_prints_and_writes_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = replace(WORKLOADS["ResNet-50"], network="resnet8")
    monkeypatch.setattr(machines, "WORKLOADS", {"ResNet-50": small})
    monkeypatch.setattr(machines_words, "WORKLOADS", {"ResNet-50": small})
    some = {name: of for name, of in machines.MACHINES.items() if len(of) == 1}
    monkeypatch.setattr(machines, "MACHINES", some)
    code, out, errors = command(
        "reproduce", "machines", "--batch", 1, "--even", "-o", tmp_path / "out"
    )
    assert (code, errors) == (0, "")
    assert "a training step of 1 image" in out
    assert "channels all alike" in out
    rows = list(csv.DictReader((tmp_path / "out" / "machines.csv").read_text().splitlines()))
    assert len(rows) == len(METHODS) * len(some) > len(METHODS)
    assert (tmp_path / "out" / "machines.png").stat().st_size
