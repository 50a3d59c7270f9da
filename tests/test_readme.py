"""The README tells the truth: its commands are CI's, its tables are what comes out."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from pathlib import Path

from tests.scripts import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PAGES, MADE = load("pages"), load("readme")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_it_is_a_page_or_two() -> None:
    assert len(README.splitlines()) <= 150


def test_ci_calls_exactly_the_test_command() -> None:
    assert blocks("sh")[1].strip() in (ROOT / ".ci" / "run").read_text().splitlines()


def test_what_is_needed_is_what_is_installed_and_tested() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lists = [setup["options"]["install_requires"], *dict(setup["options.extras_require"]).values()]
    needed = {line for text in lists for line in text.split()} - {"swatsim[test]"}
    (tested,) = (line for line in needed if line.startswith("torch=="))
    (least,) = (line for line in needed if line.startswith("torch>="))
    # .ci/lowest makes a pin of each
    assert all(re.fullmatch(r"[A-Za-z0-9-]+>=[0-9.]+", line) for line in needed - {tested})
    assert tested.startswith(least.replace(">=", "=="))
    for text in (README, (ROOT / "docs/howto/record.md").read_text()):
        assert f"any torch from {least.removeprefix('torch>=')} on" in text
    pythons = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    assert setup["options"]["python_requires"] == f">={pythons[0]}"
    assert f"Python {pythons[0]} or newer (CI's workflow runs {', '.join(pythons)})" in README


def test_the_first_command_names_a_trace_that_ships() -> None:
    words = shlex.split(blocks("sh")[0])
    trace = words[words.index("simulate") + 1]
    assert ROOT / trace == PAGES.TRACE
    assert (PAGES.TRACE / "manifest.json").is_file()
    assert words[words.index("--machine") + 1] == MADE.PICTURED


def test_every_dependency_has_its_reason() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = dict(setup["options.extras_require"]).values()
    for line in "\n".join([setup["options"]["install_requires"], *extras]).split():
        package = re.split(r"[><=\[]", line)[0]
        assert package == "swatsim" or re.search(rf"^\| .*{package}", CONTRIBUTING, flags=re.M)
