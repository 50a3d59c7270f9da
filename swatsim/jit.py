"""The only caller of `numba.njit`: its options, and a cache that can't be stale.

Numba's own file cache looks at the file of the function that is compiled, not at the helpers and
constants that it uses from other modules, so it can return code that is out of date. The cache
folder is therefore named after a hash of every source of the package, Numba's version and the
settings that change the code.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from platformdirs import user_cache_path

log = logging.getLogger(__name__)

numba_config: Any = numba.config  # its attributes are made at run time

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

#: Set to a folder of your choice, or to the empty string for no cache at all.
CACHE_VARIABLE = "SWATSIM_CACHE_DIR"


def _source_hash() -> str:
    seen = hashlib.blake2b(digest_size=8)
    seen.update(f"{numba.__version__} boundscheck={numba_config.BOUNDSCHECK}".encode())
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        seen.update(f"{path.relative_to(folder)}".encode() + path.read_bytes())
    return seen.hexdigest()


def _cache_folder() -> Path | None:
    """Return a folder that can be written to, or None: then kernels are compiled every time."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen == "":
        return None
    root = Path(chosen) if chosen else user_cache_path("swatsim")
    folder = root / "kernels" / _source_hash()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # permissions don't tell all
            pass
    except OSError as error:
        log.warning("kernels are compiled anew in each process: no cache at %s (%s)", root, error)
        return None
    return folder


_FOLDER = _cache_folder()


def jit(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Compile a kernel on first use, without the GIL, and keep it for later processes."""
    if _FOLDER is None:
        return numba.njit(nogil=True)(function)
    # Numba reads the folder while it decorates; other users of Numba keep their own.
    before = numba_config.CACHE_DIR
    numba_config.CACHE_DIR = str(_FOLDER)
    try:
        compiled: Any = numba.njit(nogil=True, cache=True)(function)
    finally:
        numba_config.CACHE_DIR = before
    compiled._cache = _Forgiving(compiled._cache)
    kernel: Callable[Parameters, Result] = compiled
    return kernel


class _Forgiving:
    """Numba's cache of one kernel, without which a kernel can be compiled all the same.

    A file that is damaged, or a disk that is full, costs a compilation and no more.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *arguments: Any) -> Any:
        """Load a kernel, or None."""
        try:
            return self._cache.load_overload(*arguments)
        except Exception as error:  # noqa: BLE001  (a damaged pickle raises whatever it likes)
            log.warning("a cached kernel is damaged, and compiled anew (%s)", error)
            return None

    def save_overload(self, *arguments: Any) -> None:
        """Keep a kernel, if that can be done."""
        try:
            self._cache.save_overload(*arguments)
        except Exception as error:  # noqa: BLE001  (it reads the index, which may be damaged)
            log.warning("a compiled kernel can't be kept (%s)", error)
