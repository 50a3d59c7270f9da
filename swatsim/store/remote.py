"""Entries in a folder that fsspec opens: an object store, a server, whatever has a URL.

Nothing marks an entry there as used: what was written longest ago makes room.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from swatsim.errors import ConfigError
from swatsim.store.folder import KEY, MAX_ENTRY_BYTES, Kept

log = logging.getLogger(__name__)

#: How file systems of fsspec call the time at which a file was written.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


class RemoteFolder:
    """A folder behind a URL.

    Parameters
    ----------
    url : str
        As fsspec takes it: "s3://bucket/store".

    Raises
    ------
    ConfigError
        If fsspec is missing, or can't open it.
    """

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise ConfigError(
                f"the store {url} needs the package fsspec: pip install swatsim[remote]"
            ) from None
        try:
            self._system, self._root = url_to_fs(url)
        except Exception as error:  # noqa: BLE001  (each kind has a package of its own)
            raise ConfigError(f"the store {url} can't be opened: {error}") from None
        self.place = url

    def read(self, name: str) -> bytes | None:
        """Return what lies under a name; None: nothing."""
        with _any_error():
            try:
                content: bytes = self._system.cat_file(self._at(name), end=MAX_ENTRY_BYTES)
            except FileNotFoundError:
                return None
            return content

    def write(self, name: str, content: bytes) -> None:
        """Put something under a name; whoever reads meanwhile may see a part of it."""
        with _any_error():
            try:
                self._system.pipe_file(self._at(name), content)
            except FileNotFoundError:  # not every system has a folder for each name
                self._system.makedirs(posixpath.dirname(self._at(name)), exist_ok=True)
                self._system.pipe_file(self._at(name), content)

    def remove(self, names: Iterable[str]) -> None:
        """Remove what lies under some names, if it is there."""
        with _any_error():
            for name in names:
                try:
                    self._system.rm_file(self._at(name))
                except FileNotFoundError:  # another process made room
                    continue

    def entries(self, part: str) -> Iterator[Kept]:
        """Yield the entries of a subfolder."""
        with _any_error():
            try:
                found = self._system.ls(self._at(part), detail=True, refresh=True)
            except FileNotFoundError:
                return
        for about in found:
            key = part + posixpath.basename(about["name"])
            if KEY.fullmatch(key):
                yield Kept(key, int(about.get("size") or 0), _written(about))

    def tidy(self, part: str) -> None:
        """Do nothing: nothing is renamed there, so nothing is left."""

    def _at(self, name: str) -> str:
        return posixpath.join(self._root, name)


def _written(about: dict[str, Any]) -> float:
    """Return when a file was written, in seconds; 0: it is not known."""
    when = next((about[name] for name in _TIMES if about.get(name)), 0.0)
    return when.timestamp() if isinstance(when, datetime) else float(when)


@contextmanager
def _any_error() -> Iterator[None]:
    """Let what a file system's own package raises be an `OSError`: there are too many kinds."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
