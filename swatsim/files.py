"""Writing files so that a name that is present is always whole."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping
from pathlib import Path


def publish(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, force it to disk, and rename it into place.

    Raises
    ------
    OSError
        If there is no room, or no permission; what was at `path` before is untouched.
    """
    publish_all({path: content})


def publish_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files; none is renamed into place before all are on disk.

    Raises
    ------
    OSError
        If one can't be written, or a directory is in its place; what was there is untouched.
    """
    for path in contents:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporaries = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            _write(temporaries[path], content)
        for path, temporary in temporaries.items():
            temporary.replace(path)
    except BaseException:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise
    for folder in {path.parent for path in contents}:
        _sync_directory(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """Make a rename durable; not every platform lets a directory be opened."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
