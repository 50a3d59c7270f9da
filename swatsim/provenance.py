"""Where a file comes from: stored in every trace and every result."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from swatsim._version import __version__
from swatsim.printable import printable_json

#: The packages whose versions can change what swatsim computes or stores.
PACKAGES = ("numpy", "numba", "safetensors", "zstandard", "torch")


def collect(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return versions, machine, command line and time, beside the caller's parameters.

    Parameters
    ----------
    parameters : mapping
        Everything that was chosen, fully resolved; must be JSON.

    Returns
    -------
    dict
        Only JSON types. Texts are printable: a command line or a path may hold any bytes.
    """
    return {
        "swatsim": __version__,
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "command": printable_json(sys.argv),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": printable_json(parameters),
    }


@lru_cache(maxsize=1)
def sources() -> str:
    """Return the digest of the package's code (16 hex digits): with it, computations may differ.

    Empty where the package has no sources, in a zip file for example: then it can't be told.
    """
    return fingerprint(Path(__file__).parent)


def fingerprint(code: Path) -> str:
    """Return a fingerprint (16 hex digits) of a source file, or of all in a folder.

    Empty where there are none.
    """
    folder, paths = (code.parent, [code]) if code.is_file() else (code, sorted(code.rglob("*.py")))
    seen = hashlib.blake2b(digest_size=8)
    for path in paths:
        content = path.read_bytes()
        seen.update(f"{path.relative_to(folder).as_posix()} {len(content)} ".encode() + content)
    return seen.hexdigest() if paths else ""


@cache  # it parses the package's metadata, in milliseconds, and a sweep asks for each point
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
