"""What scripts write into pages: blocks of Markdown between two comments that bear a name.

A block lies on whichever page has its comments, in one place or in several, so that text can move
without its script. `tests/test_pages.py` holds the blocks to what the scripts make.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What ships, and the first command simulates.
TRACE = ROOT / "traces" / "resnet8-fashion-mnist-swat-u-80"
#: Where pages lie that are written by hand.
PLACES = ("README.md", "docs/*.md", "docs/howto/*.md", "docs/why/*.md")
PLACES += ("traces/README.md", "swatsim/**/README.md")


def pages() -> list[Path]:
    """Return all pages that may hold blocks."""
    return sorted({path for place in PLACES for path in ROOT.glob(place)})


def holders(name: str) -> list[Path]:
    """Return the pages that have a block of this name.

    Raises
    ------
    LookupError
        If none has.
    """
    found = [page for page in pages() if f"<!-- begin: {name} -->\n" in page.read_text()]
    if not found:
        raise LookupError(f"no page has a block {name!r}: add its two comments to one")
    return found


def replace(text: str, name: str, lines: Iterable[str]) -> str:
    """Put lines between the two comments that bear a name."""
    begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
    block = begin + "\n".join(lines) + "\n" + end
    return re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: block, text, flags=re.S)


def put(name: str, lines: Iterable[str]) -> None:
    """Write a block on every page that has it."""
    made = list(lines)
    for page in holders(name):
        page.write_text(replace(page.read_text(), name, made))


def block(name: str) -> list[str]:
    """Return the lines of a block, the same on each of its pages."""
    begin, end = f"<!-- begin: {name} -->\n", f"\n<!-- end: {name} -->"
    (text,) = {it.read_text().partition(begin)[2].partition(end)[0] for it in holders(name)}
    return text.splitlines()


def machine() -> str:
    """Return the cores and the Python that figures were measured with."""
    names = [
        text.split(":")[1].strip()
        for text in Path("/proc/cpuinfo").read_text().splitlines()
        if text.startswith("model name")
    ]
    where = f"{os.cpu_count()} cores ({names[0] if names else platform.machine()})"
    return f"{where}, Python {platform.python_version()}"
