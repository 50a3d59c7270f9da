"""Which code a count depends on: a fingerprint of the sources that a module imports, and of theirs.

Nobody has to raise a number when code is changed, and a change of what counts nothing, such as a
report, leaves what was counted as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

_PACKAGE = "swatsim"
_ROOT = Path(__file__).parents[1]
#: A module that changes with each release, and counts nothing.
_RELEASE = "swatsim._version"
#: What compiles and runs the counting code, beside it.
_BENEATH = ("numpy", "numba")

_IMPORT = re.compile(
    r"^\s*(?:from (?P<of>swatsim[\w.]*) import (?P<names>\([^)]*\)|[^\n(]*)"
    r"|import (?P<module>swatsim[\w.]*))",
    re.MULTILINE,
)
_COMMENT = re.compile(r"#[^\n]*")
_NAME = re.compile(r"(\w+)(?: as \w+)?")


@cache
def version_of(modules: frozenset[str]) -> str:
    """Return the version of some modules of this package (32 hex digits).

    Empty where one has no source file, in a zip file for example: then it can't be told.

    Parameters
    ----------
    modules : frozenset of str
        Dotted names.
    """
    seen = hashlib.blake2b(digest_size=16)
    seen.update(repr([(name, version(name)) for name in _BENEATH]).encode())
    try:
        for module in sorted(reached(modules)):
            content = _file(module).read_bytes()
            seen.update(f"{module} {len(content)} ".encode() + content)
    except FileNotFoundError:
        return ""
    return seen.hexdigest()


def reached(modules: Iterable[str]) -> set[str]:
    """Return some modules of this package and all that they import of it, directly or not.

    A package is among them where a name is imported from it, not where one of its modules is.

    Raises
    ------
    FileNotFoundError
        If one of the modules has no source file.
    """
    waiting, found = list(modules), set()
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting.extend(_imported(module))
    return found


@cache
def _imported(module: str) -> tuple[str, ...]:
    text = _file(module).read_text(encoding="utf-8")
    found = dict.fromkeys(name for it in _IMPORT.finditer(text) for name in _modules(it))
    return tuple(name for name in found if name != _RELEASE)


def _modules(statement: re.Match[str]) -> Iterator[str]:
    """Yield the modules that an import names: those among the names, and the one of the others."""
    if statement["module"]:
        yield statement["module"]
        return
    names = _NAME.findall(_COMMENT.sub("", statement["names"]))
    of_modules = [name for it in names if _exists(name := f"{statement['of']}.{it}")]
    yield from of_modules
    if len(of_modules) < len(names):
        yield statement["of"]


def _exists(module: str) -> bool:
    return _file(module).is_file()


@cache
def _file(module: str) -> Path:
    """Return the source file of a module; of a package its __init__.py."""
    path = _ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
