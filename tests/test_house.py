"""The arrows of the house: who may import whom, read from the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.sources import nodes

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "swatsim").rglob("*.py"))

#: Package -> the packages it may import. Everything may import errors; nothing imports the cli.
ARROWS = {
    "_version": set(),
    "arguments": {"errors"},
    "columns": {"counters", "counts", "form", "upgrades", "workload"},
    "counters": {"counts"},
    "counts": set(),
    "described": set(),
    "displayed": {"printable"},
    "errors": {"printable"},
    "files": set(),
    "printable": set(),
    "cache": set(),
    "jit": {"compiled"},
    "compiled": {"cache", "errors", "provenance"},
    "outputs": {"errors", "files"},
    "arrow": set(),
    "form": set(),
    "parquet": {"arrow", "errors", "form", "table", "table_checks"},
    "table": set(),
    "table_checks": {"arrow", "errors", "form", "table"},
    "sealed": {"errors"},
    "store": {"cache", "errors", "files"},
    "signals": set(),
    "upgrades": set(),
    "validation": {"arguments", "errors"},
    "provenance": {"_version", "printable"},
    "sampling": set(),
    "course": {"sampling"},
    "workload": {"arguments", "errors", "jit", "validation"},
    "policies": {"arguments", "errors", "jit", "validation", "workload"},
    "tracefile": {
        *("arguments", "described", "displayed", "errors", "files", "printable", "validation"),
        "workload",
    },
    "tracer": {
        *("arguments", "displayed", "errors", "files", "policies", "printable", "provenance"),
        *("tracefile", "validation", "workload"),
    },
    "results": {
        *("arguments", "columns", "displayed", "errors", "files", "form", "outputs", "parquet"),
        *("printable", "table", "table_checks", "workload"),
    },
    "simulator": {
        *("arguments", "columns", "counters", "counts", "errors", "files", "form", "jit"),
        *("printable",),
        *("provenance", "results"),
        *("sampling", "store", "table", "tracefile", "validation", "workload"),
    },
    "reports": {
        *("arguments", "columns", "counters", "counts", "course", "errors", "files", "outputs"),
        *("described", "displayed", "form", "printable", "results"),
        *("sampling", "sealed", "table", "workload"),
    },
    "sweeps": {
        *(
            "_version",
            "arguments",
            "columns",
            "displayed",
            "errors",
            "files",
            "form",
            "outputs",
            "provenance",
            "reports",
        ),
        *(
            "results",
            "sealed",
            "signals",
            "simulator",
            "store",
            "table",
            "tracefile",
            "validation",
            "workload",
        ),
    },
    "whole_run": {"arguments", "errors", "reports", "simulator", "store", "tracefile"},
    "reproduce": {
        *("columns", "policies", "reports", "results", "simulator", "tracer", "workload"),
    },
    "cli": {
        *("_version", "cache", "columns", "counters", "described", "errors", "outputs"),
        "policies",
        *("printable", "provenance"),
        *("reports", "reproduce", "results", "sampling", "simulator", "store", "sweeps", "table"),
        *("tracefile", "tracer", "whole_run", "workload"),
    },
    "__main__": {"cli"},
    "__init__": {
        *("_version", "counters", "displayed", "errors", "reports", "results"),
        *("simulator", "sweeps", "tracefile", "tracer", "whole_run", "workload"),
    },
}


@cache
def modules(path: Path) -> set[str]:
    """Name every module that a file imports, wherever in it."""
    names: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(module: str) -> str:
    """Name the part of the house that a module lies in."""
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path: Path) -> None:
    own = path.relative_to(ROOT / "swatsim").parts[0].removesuffix(".py")
    ours = {part(name) for name in modules(path) if name.split(".")[0] == "swatsim"}
    assert ours - {own} <= ARROWS[own]


def test_every_part_has_arrows() -> None:
    parts = {path.relative_to(ROOT / "swatsim").parts[0].removesuffix(".py") for path in SOURCES}
    assert parts == set(ARROWS)


def test_the_arrows_have_no_circle() -> None:
    def reach(name: str, seen: tuple[str, ...]) -> None:
        assert name not in seen, f"circle: {' -> '.join((*seen, name))}"
        for other in ARROWS[name]:
            reach(other, (*seen, name))

    for name in ARROWS:
        reach(name, ())


def test_only_one_package_imports_torch_and_one_numba() -> None:
    def users(package: str) -> set[str]:
        found = [p for p in SOURCES if any(m.split(".")[0] == package for m in modules(p))]
        return {str(p.relative_to(ROOT / "swatsim")) for p in found}

    assert all(name.startswith("tracer/pytorch/") for name in users("torch"))
    assert all(name.startswith("compiled/") for name in users("numba"))
    assert all(not name.startswith("simulator") for name in users("matplotlib"))


def test_how_plots_look_stands_in_one_place() -> None:
    look = re.compile(r'"#[0-9A-Fa-f]{6}"|fontsize=\d|labelsize=\d|spines\[')
    found = {
        str(path.relative_to(ROOT / "swatsim")) for path in SOURCES if look.search(path.read_text())
    }
    assert found == {"counters.py", "reports/style.py"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_machine_imports_another(path: Path) -> None:
    places = path.relative_to(ROOT / "swatsim").parts
    if places[:2] != ("simulator", "machines") or len(places) < 4:
        return
    prefix = "swatsim.simulator.machines."
    others = {name.removeprefix(prefix) for name in modules(path) if name.startswith(prefix)}
    assert {name.split(".")[0] for name in others} <= {places[2]}


def test_functions_and_files_are_short() -> None:
    for path in SOURCES:
        assert path.read_text().count("\n") <= 400, path
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


#: What a docstring does not begin with: it says what is returned ("Return ..", "Yield ..",
#: "Whether ..") or what is done.
NO_BEGINNINGS = ("Tell", "Give", "Say", "Know")


def test_docstrings_begin_with_what_is_returned_or_done() -> None:
    documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
    every = ((path, node) for path in SOURCES for node in nodes(path))
    assert [
        f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}"
        for path, node in every
        if isinstance(node, documented)
        and re.match(rf"(?:{'|'.join(NO_BEGINNINGS)})s?\b", ast.get_docstring(node) or "")
    ] == []


#: The last starts the process that loads matplotlib: what it loads itself comes before that.
LIGHT = (
    *("import swatsim", "import swatsim.cli.main", "import swatsim.cli.completing"),
    "import swatsim.cli.simulate",
)


@pytest.mark.parametrize("statement", LIGHT)
def test_start_up_loads_nothing_heavy(statement: str) -> None:
    heavy = (
        *("torch", "matplotlib", "pandas", "numba", "pyarrow"),
        *("numpy", "scipy", "pydantic", "rich"),
    )
    code = f"import sys; {statement}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
