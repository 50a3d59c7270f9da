"""Which store is meant: the usual one, a folder, a URL, or none."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import TypeAlias

from swatsim.cache import root_folder
from swatsim.errors import ConfigError
from swatsim.store.folder import Folder, LocalFolder
from swatsim.store.store import Store

log = logging.getLogger(__name__)

#: Set to a folder or a URL of your choice, or to the empty string for no store at all.
STORE_VARIABLE = "SWATSIM_STORE"

#: What a store is told by: True: the usual one; False: none; a folder, a URL, or an opened one.
Where: TypeAlias = bool | str | os.PathLike[str] | Store


def open_store(where: Where = True) -> Store | None:
    """Return a store; None: nothing is to be kept.

    The usual one is what the environment variable `STORE_VARIABLE` says, empty for none, or else
    the folder "store" where compiled kernels are cached too, in the user's cache folder.

    Parameters
    ----------
    where : bool, path, str or Store
        True: the usual one; False, or an empty text: none. A text with "://" in it is a URL, which
        the package fsspec opens. A store is itself.

    Raises
    ------
    ConfigError
        If a URL can't be opened, or fsspec is missing.
    """
    if isinstance(where, Store):
        return where
    chosen = _chosen(where)
    return Store(_folder(chosen)) if chosen else None


def _chosen(where: bool | str | os.PathLike[str]) -> str:
    """Return which folder or URL is meant; empty: none."""
    if not isinstance(where, bool):
        return os.fspath(where)
    chosen = os.environ.get(STORE_VARIABLE) if where else ""
    return str(_usual_path() or "") if chosen is None else chosen


def _usual_path() -> Path | None:
    try:
        root = root_folder()
    except OSError as error:
        _say_once(f"what is computed is not kept in the usual place ({error})")
        return None
    return None if root is None else root / "store"


@cache
def _say_once(message: str) -> None:
    log.warning(message)


def _folder(where: str) -> Folder:
    if "://" in where:
        from swatsim.store.remote import RemoteFolder  # the package that it needs is an extra

        return RemoteFolder(where)
    path = Path(os.path.abspath(os.path.expanduser(where)))
    # of what can't be looked at `Path.exists` raises: what is used of it says so, and goes on
    if os.path.exists(path) and not os.path.isdir(path):
        raise ConfigError(f"the store {where} is a file: give a folder, or a URL")
    return LocalFolder(path, private=path == _usual_path())
