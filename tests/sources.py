"""The package's sources, read and parsed once for all tests that look at them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return every node of a source's syntax tree, in the order of `ast.walk`."""
    return tuple(ast.walk(ast.parse(path.read_text())))
