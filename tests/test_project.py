"""What a stranger reads of the project agrees with what is there: packaging, map, versions."""

from __future__ import annotations

import re
import runpy
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

import pytest

from swatsim._version import __version__

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "swatsim"
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()
CHANGES = (ROOT / "CHANGELOG.md").read_text()


def lines(section: str, key: str) -> list[str]:
    return SETUP[section][key].split("\n")[1:]


# ---- the map of CONTRIBUTING ---------------------------------------------------------------------


def modules_of_the_map(text: str) -> set[str]:
    """List the Python files of the map, as paths in the package.

    A line that begins with folders or files adds to the tree at its indent, or to each of the
    folders beside it; what follows the names is a description. In a folder's description, over
    several lines too, every file with its ending is one of that folder's.
    """
    found: set[str] = set()
    folders: list[tuple[int, list[str]]] = []  # by indent, each one in the one before
    described: list[str] = []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        names = re.match(r"(?:\w+(?:/|\.py)(?:\s+|$))*", line.lstrip())
        heads = names[0].split() if names else []
        if heads:
            while folders and folders[-1][0] >= indent:
                folders.pop()
            inside = folders[-1][1] if folders else [""]
            own = [f"{place}{it}" for place in inside for it in heads]
            found |= {path for path in own if path.endswith(".py")}
            described = [path for path in own if path.endswith("/")]
            if described:
                folders.append((indent, described))
        rest = line.lstrip()[len(names[0]) if names else 0 :]
        found |= {
            f"{place}{name}" for place in described for name in re.findall(r"\w+\.py\b", rest)
        }
    return found


def test_the_map_is_the_tree() -> None:
    house = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## The house\n")[2]
    tree = house[: house.index("    docs/")]
    mapped = {path.removeprefix("swatsim/") for path in modules_of_the_map(tree)}
    there = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    # a package's own file is named where there is something to say of it
    needed = {path for path in there if not path.endswith("__init__.py")}
    assert sorted(needed - mapped) == [], "in the tree, and not in CONTRIBUTING's map"
    assert sorted(mapped - there) == [], "in CONTRIBUTING's map, and not in the tree"


def test_a_map_is_read_as_it_is_written() -> None:
    text = """
    swatsim/
      a.py       about b.py, which is elsewhere
      one/ two/
                 each: c.py (with
                 presets) README.md d.py.
      two/
        e.py f.py
                 both
      g.py
    """
    assert modules_of_the_map(text) == {
        *("swatsim/a.py", "swatsim/one/c.py", "swatsim/one/d.py", "swatsim/two/c.py"),
        *("swatsim/two/d.py", "swatsim/two/e.py", "swatsim/two/f.py", "swatsim/g.py"),
    }


# ---- packaging -----------------------------------------------------------------------------------


def test_a_wheel_holds_every_file_of_the_package() -> None:
    globs = lines("options.package_data", "swatsim")
    others = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    ]
    assert "py.typed" in others
    assert [name for name in others if not any(fnmatch(name, glob) for glob in globs)] == []


def test_an_sdist_holds_every_folder_that_its_tests_read() -> None:
    grafted = set(re.findall(r"^graft (\S+)$", (ROOT / "MANIFEST.in").read_text(), flags=re.M))
    assert grafted == {
        *("swatsim", "tests", "benchmarks", "docs", "examples", "notebooks", "traces"),
        *(".ci", ".github"),
    }


def test_pythons_of_the_classifiers_are_those_of_ci() -> None:
    classifiers = lines("metadata", "classifiers")
    named = [it.rpartition(" ")[2] for it in classifiers if "Python :: 3." in it]
    assert sorted(set(re.findall(r'"(3\.\d+)"', WORKFLOW))) == named
    assert "Typing :: Typed" in classifiers


def test_every_script_of_ci_is_called_by_the_workflow_or_by_another() -> None:
    scripts = {path.name: path.read_text() for path in (ROOT / ".ci").iterdir()}
    for name in scripts:
        callers = [WORKFLOW, *(text for other, text in scripts.items() if other != name)]
        # `pythons` is the workflow's matrix, for a machine of one's own
        assert name == "pythons" or any(f".ci/{name}" in text for text in callers), name


# ---- versions and places -------------------------------------------------------------------------


def test_the_version_is_the_newest_release_everywhere() -> None:
    assert SETUP["metadata"]["version"] == "attr: swatsim._version.__version__"
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in citation
    newest, date = re.findall(r"^## \[(\d\S*)\] - (\d{4}-\d\d-\d\d)$", CHANGES, flags=re.M)[0]
    assert newest == __version__
    assert f"\ndate-released: {date}\n" in citation


def test_the_changelog_is_one_that_is_kept() -> None:
    headings = re.findall(r"^## (.*)$", CHANGES, flags=re.M)
    assert headings[0] == "[Unreleased]"
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for release in CHANGES.split("\n## ")[1:]:
        sections = re.findall(r"^### (.*)$", release, flags=re.M)
        assert set(sections) <= kinds
        assert len(set(sections)) == len(sections)
        listed = release.partition("\n- ")[0]
        assert "\n### " in listed or listed == release, "a change is in no section"


def test_an_index_shows_the_readme_with_links_that_lead_somewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setuptools = pytest.importorskip("setuptools")
    given: dict[str, str] = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    runpy.run_path(str(ROOT / "setup.py"))
    text, home = given["long_description"], SETUP["metadata"]["url"]
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    whole = [it if it.startswith("https://") else f"{home}/{it}" for it in links]
    assert re.findall(r"\]\(([^)]+)\)", text) == whole
    assert f"{home}/docs/tutorial.md" in whole


@pytest.mark.parametrize("name", ["Source", "Issues", "Changelog", "Documentation"])
def test_urls_lie_at_one_place(name: str) -> None:
    home = SETUP["metadata"]["url"]
    urls = dict(line.split(" = ") for line in lines("metadata", "project_urls"))
    assert urls[name].startswith(home)
    assert f"\nurl: {home}\n" in (ROOT / "CITATION.cff").read_text()
