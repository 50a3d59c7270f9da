"""The notebooks run from top to bottom, and are stored with what a run puts out."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NAMES = (
    "01_trace.ipynb",
    "02_simulate.ipynb",
    "03_sweep_and_report.ipynb",
    "04_record_your_own_run.ipynb",
)
#: Of a stored notebook, in bytes.
MOST = 300_000
#: What trains: another processor, or another torch, sums in another order.
TRAINS = "04_record_your_own_run.ipynb"
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]\d+)?")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STORED = load(ROOT / "benchmarks" / "notebooks.py")


def read(name: str) -> Any:
    return nbformat.read(FOLDER / name, as_version=4)


def code(name: str) -> list[Any]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def printed(notebook: Any) -> list[str]:
    """What each cell with outputs puts out: its text, and that there is a picture."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            text = output.get("text", data.get("text/plain", ""))
            picture = " and a picture" if "image/png" in data else ""
            found.append(" ".join(text.replace("\\\n", " ").split()) + picture)
    return found


def near(ours: str, theirs: str) -> bool:
    """Whether two texts have the same words, and numbers about as large."""
    if NUMBER.sub("#", ours) != NUMBER.sub("#", theirs):
        return False
    pairs = zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=0.2, abs_tol=0.11) for a, b in pairs)


def test_these_are_the_notebooks() -> None:
    assert tuple(sorted(path.name for path in FOLDER.iterdir() if path.is_file())) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_they_are_stored_as_a_run_leaves_them_and_say_nothing_of_where(name: str) -> None:
    nbformat.validate(read(name))
    assert (FOLDER / name).stat().st_size < MOST
    assert [cell.execution_count for cell in code(name)] == list(range(1, len(code(name)) + 1))
    text = json.dumps(read(name))
    assert not re.search(r"/tmp|/home|/root|site-packages|iopub|2\d{3}-\d\d-\d\d", text)


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("folder", [FOLDER, FOLDER.parent], ids=["notebooks", "root"])
def test_the_trace_is_found_from_both_folders(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code(name)[0].source, names)
    assert (names["TRACE"] / "manifest.json").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_puts_out_what_is_stored(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))  # not the user's own
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # without it jupyter_core warns
    monkeypatch.delenv("MPLBACKEND", raising=False)  # of conftest: a notebook draws inline
    notebook = STORED.executed(FOLDER / name)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    ours, stored = printed(notebook), printed(read(name))
    assert len(ours) == len(stored)
    again = f"python benchmarks/notebooks.py {name} stores what comes out now"
    for text, kept in zip(ours, stored, strict=True):
        assert text == kept or (name == TRAINS and near(text, kept)), again


def test_texts_are_near_that_differ_in_how_large_numbers_are() -> None:
    assert near("loss 1.4, 80 % of 176", "loss 1.5, 83 % of 176")
    assert not near("loss 1.4, 80 % of 176", "loss 1.4, 40 % of 176")
    assert not near("bound by dram 0.8", "bound by pes 0.8")
