"""Where links of the project's Markdown lead on the site: to a page, or to the repository."""

from __future__ import annotations

import os
import re
from configparser import ConfigParser
from functools import lru_cache
from pathlib import Path

from swatsim.simulator.machines import MACHINES

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^ *(`{3,}|~{3,}|:{3,})")

MEASURED = "Tables that scripts of `benchmarks/` write; each page names its command."
NOTEBOOKS = (
    "The notebooks of `notebooks/`, with the outputs of a run. In a clone of the repository: "
    "`pip install '.[notebooks]'`, then `jupyter lab notebooks`."
)


@lru_cache(maxsize=1)
def homes() -> dict[str, str]:
    """Return which page a file of the repository is, by its path."""
    machine = "swatsim/simulator/machines/{0}/README.md"
    return {
        **{machine.format(it.name): f"machines/{it.name}.md" for it in MACHINES},
        "swatsim/simulator/memory/README.md": "machines/memory.md",
        "swatsim/tracefile/README.md": "reference/trace.md",
        "CONTRIBUTING.md": "project/contributing.md",
        "CHANGELOG.md": "project/changes.md",
        "SECURITY.md": "project/security.md",
        "examples/README.md": "examples/index.md",
        "traces/README.md": "measured/traces.md",
        "tests/data/peer_cycles/README.md": "measured/peer_cycles.md",
        **_each("benchmarks/paper/*.md", "measured"),
        **_each("examples/*.py", "examples", ".md"),
        **_each("notebooks/*.ipynb", "notebooks"),
        "swatsim/simulator/energy/tables/": "reference/energies.md",
        "swatsim/simulator/memory/drams/": "reference/drams.md",
    }


def _each(pattern: str, folder: str, suffix: str | None = None) -> dict[str, str]:
    found = sorted(ROOT.glob(pattern))
    return {str(it.relative_to(ROOT)): f"{folder}/{it.stem}{suffix or it.suffix}" for it in found}


@lru_cache(maxsize=1)
def repository() -> str:
    """Return where files that are no page are shown, as setup.cfg has it."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup["metadata"]["url"]


def rewritten(text: str, path: str) -> str:
    """Return a file's Markdown with its relative links as the site has them; code stays as it is.

    Parameters
    ----------
    text : str
    path : str
        Of the file, from the repository's root.
    """
    lines, fence = [], ""
    for line in text.split("\n"):
        found = FENCE.match(line)
        if found and not fence:
            fence = found[1] if found[1][0] != ":" else ""
        elif found and line.strip() == fence:
            fence = ""
        lines.append(line if fence else _line(line, path))
    return "\n".join(lines)


def _line(line: str, path: str) -> str:
    return LINK.sub(lambda found: _target(found[1], path) + (found[2] or ""), line)


def _target(target: str, path: str) -> str:
    """Return where a link leads, from anywhere on the site."""
    place = os.path.normpath(os.path.join(os.path.dirname(path), target))
    folder = place + "/" if (ROOT / place).is_dir() else place
    readme = f"{place}/README.md"
    for known in (place, folder, readme):
        if known in homes():
            return f"/{homes()[known]}"
    if place.startswith("docs/") and place.endswith(".md"):
        return f"/{place.removeprefix('docs/')}"
    if Path(place).suffix in {".png", ".svg"}:
        return f"/../{place}"
    return f"{repository()}/{place}"
