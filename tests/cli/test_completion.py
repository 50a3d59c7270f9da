"""Completion in a shell: which words may come next, and how little is loaded for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from swatsim.cli import completing, completion
from swatsim.cli.lazy import LazyGroup
from swatsim.cli.main import COMPLETE, VERBS, cli
from swatsim.policies import POLICIES
from swatsim.simulator.machines import MACHINES, presets
from swatsim.workload.networks import NETWORKS
from tests.command import refused, swatsim

PRESETS = [name for name, _, _ in presets()]


@pytest.fixture(autouse=True)
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(completing, "folder_of", lambda version: tmp_path)
    return tmp_path


def words(line: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return what bash is told may stand in the place of the last word: kind and word."""
    for name, value in {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(COMPLETE, "bash_complete")
    code, out, errors = swatsim()
    monkeypatch.delenv(COMPLETE)
    assert (code, errors) == (0, "")
    return [(kind, word) for kind, _, word in (it.partition(",") for it in out.split())]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("swatsim ", [*VERBS]),
        ("swatsim s", [verb for verb in VERBS if verb.startswith("s")]),
        ("swatsim --v", ["--version", "--verbose"]),
        ("swatsim simulate t --dense", ["--dense-outputs"]),
        ("swatsim simulate t -m ", PRESETS),
        ("swatsim simulate t --op ", ["fprop", "dgrad", "wgrad"]),
        ("swatsim simulate t -m swat --set row", ["rows="]),
        ("swatsim simulate t -m swat --set dataflow =", ["is", "os", "ws"]),
        ("swatsim simulate t --set dram = h", ["hbm2"]),
        ("swatsim simulate t --set dram=h", ["dram=hbm2"]),
        ("swatsim simulate t --set = dram = h", ["hbm2"]),
        ("swatsim simulate t --machine = tensord", ["tensordash"]),
        ("swatsim sweep t -s dataflow = os,w", ["os,ws"]),
        ("swatsim simulate t -s rows = 4 --op f", ["fprop"]),
        ("swatsim simulate t -m my : own --op f", ["fprop"]),
        ("swatsim simulate t -s rows =", []),
        ("swatsim simulate t -s dram = ", []),
        ("swatsim synth ", [*NETWORKS]),
        ("swatsim synth resnet8 --policy s", [it for it in POLICIES if it.startswith("s")]),
        ("swatsim machines ", [*(it.name for it in MACHINES), *PRESETS]),
        ("swatsim reproduce s", ["swat"]),
        ("swatsim completion ", ["bash", "zsh", "fish"]),
        ("swatsim nonesuch ", [*VERBS]),
    ],
)
def test_words_come_from_the_registries_cold_and_remembered(
    line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert sorted({word for _, word in words(line, monkeypatch)}) == sorted({*expected})


@pytest.mark.parametrize("line", ["swatsim info run", "swatsim simulate run", "swatsim sweep run"])
def test_a_trace_completes_as_a_path(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        assert words(line, monkeypatch) == [("file", "run")]


def test_a_network_or_a_trace_may_be_either(monkeypatch: pytest.MonkeyPatch) -> None:
    found = words("swatsim footprint vgg", monkeypatch)
    assert found == [("file", "vgg"), ("plain", "vgg16"), ("plain", "vgg16-cifar")]


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_remembered_of_a_verb_is_all_that_completion_asks(verb: str) -> None:
    with cli.make_context("swatsim", [verb]) as context:
        command = cli.get_command(context, verb)
    assert command is not None
    known = completing.known_of(command)
    again = completing.known_of(completing._restored(known))
    if isinstance(command, click.Group):
        assert [it["name"] for it in again["verbs"]] == [it["name"] for it in known["verbs"]]
    assert again["parameters"][: len(known["parameters"])] == known["parameters"]


def test_a_remembered_verb_is_not_loaded(remembered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words("swatsim info ", monkeypatch)
    assert [path.name for path in remembered.iterdir()] == ["info.words"]
    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: pytest.fail("it was loaded"))
    assert ("plain", "--all") in words("swatsim info --", monkeypatch)


def test_what_is_remembered_and_damaged_is_found_out_anew(
    remembered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (remembered / "info.words").write_bytes(b"nonsense")
    assert ("plain", "--all") in words("swatsim info --", monkeypatch)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_shell_gets_its_script(shell: str) -> None:
    code, out, _ = swatsim("completion", shell)
    assert code == 0
    assert f"{COMPLETE}={shell}_complete" in out
    assert "swatsim completion bash" in swatsim("completion", "--help")[1]


def test_other_shells_are_refused() -> None:
    assert refused("completion", "tcsh").endswith("(see swatsim completion --help)")
    assert completing.complete(cli, COMPLETE, "tcsh_complete") == 1


def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    command = tmp_path / "swatsim"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m swatsim "$@"\n')
    command.chmod(0o700)
    # outside of a prompt there is nothing whose options could be set
    asks = (
        f"{swatsim('completion', 'bash')[1]}\ncompopt() {{ echo $*; }}\n"
        "for COMP_WORDS in 'swatsim sim' 'swatsim simulate t --set row' "
        "'swatsim simulate t --set dram = l' 'swatsim footprint gp'\n"
        f"do words=($COMP_WORDS); COMPREPLY=(); COMP_CWORD=$((${{#words[@]}} - 1))\n"
        f"_swatsim_words {command}; echo ${{COMPREPLY[@]}}; done"
    )
    done = subprocess.run(["bash", "-c", asks], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "simulate",
        *("-o nospace", "rows="),
        "lpddr4-3200",
        *("-o default", "gpt2-small"),
    ]
