"""Pages of the site that are made from the code as it is built: none of them is kept in Git.

Each module here has a `pages()`, of a page's place in `docs/` to its text in MyST Markdown. They
import swatsim and what it needs, and no Sphinx, so that the tests can ask for any of them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from from_code import api, columns, energies, files, machines, networks, policies, verbs

#: Folders of `docs/` that hold nothing else: emptied as a build begins.
FOLDERS = ("reference", "machines", "measured", "project", "examples", "notebooks")


def pages() -> dict[str, str]:
    """Return all pages."""
    made: dict[str, str] = {}
    for module in (api, verbs, machines, columns, energies, policies, networks, files):
        made |= module.pages()
    return made


def write(docs: Path) -> None:
    """Write all pages into `docs`; one that is as it was keeps its time, and is not read again."""
    made = pages()
    for folder in FOLDERS:
        for path in sorted((docs / folder).rglob("*"), reverse=True):
            if path.is_file() and str(path.relative_to(docs)) not in made:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                shutil.rmtree(path)
    for name, text in made.items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
