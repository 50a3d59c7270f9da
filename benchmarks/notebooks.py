"""Run the notebooks and store what they put out, as the site shows them.

    python benchmarks/notebooks.py [NAME ..]

Without a name all of `notebooks/`. After a change of the trace that ships, of a plot, or of what a
notebook prints; `tests/test_notebooks.py` finds outputs that a run no longer gives. It needs the
extra `test`.
"""

from __future__ import annotations

import base64
import io
import logging
import sys
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
#: Of a picture's palette: enough for lines and bars, and a third of the bytes.
COLOURS = 64


class OwnKernel(AsyncKernelManager):
    """Starts this interpreter's ipykernel, whatever kernels are installed on the machine."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])


def executed(path: Path) -> Any:
    """Return a notebook, run from top to bottom in its own folder; what a cell raises is raised."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=300,  # of one cell; kernels are compiled in the first run on a machine
        kernel_name="python3",
        kernel_manager_class=OwnKernel,
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
    )
    client.log.setLevel(logging.ERROR)
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = joined(cell.outputs)
    return notebook


def joined(outputs: list[Any]) -> list[Any]:
    """Return outputs, texts that follow each other as one: how they are sent is chance."""
    found: list[Any] = []
    for output in outputs:
        name = output.get("name")
        if found and name is not None and found[-1].get("name") == name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def small(png: str) -> str:
    """Return a picture, as a notebook holds it, in fewer colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    written = io.BytesIO()
    picture.quantize(COLOURS).save(written, "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def store(path: Path) -> None:
    """Run a notebook and write its outputs into it."""
    notebook = executed(path)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = small(output.data["image/png"])
    # the kernel's own version of Python is of no interest to a reader
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(it.name for it in FOLDER.glob("*.ipynb")):
        store(FOLDER / Path(name).name)
