"""The notebooks run from top to bottom, and are stored as they were written: without outputs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = ("01_trace.ipynb", "02_simulate.ipynb", "03_sweep_and_report.ipynb")


class OwnKernel(AsyncKernelManager):
    """Starts this interpreter's ipykernel, whatever kernels are installed on the machine."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def read(name: str) -> Any:
    return nbformat.read(FOLDER / name, as_version=4)


def code(name: str) -> list[Any]:
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def test_these_are_the_notebooks() -> None:
    assert tuple(sorted(path.name for path in FOLDER.iterdir() if path.is_file())) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stripped(name: str) -> None:
    for cell in code(name):
        assert cell.outputs == []
        assert cell.execution_count is None
    nbformat.validate(read(name))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", [FOLDER, FOLDER.parent], ids=["notebooks", "root"])
def test_the_trace_is_found_from_both_folders(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code(name)[0].source, names)
    assert (names["TRACE"] / "manifest.json").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))  # not the user's own
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # without it jupyter_core warns
    monkeypatch.delenv("MPLBACKEND", raising=False)  # of conftest: a notebook draws inline
    notebook = read(name)
    client = NotebookClient(
        notebook,
        timeout=300,  # of one cell; kernels are compiled in the first run on a machine
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.log.setLevel(logging.ERROR)
    client.execute()  # raises what a cell raises
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
