"""Writing files so that a name that is present is always whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def publish(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, force it to disk, and rename it into place.

    Raises
    ------
    OSError
        If there is no room, or no permission; what was at `path` before is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make a rename durable; not every platform lets a directory be opened."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
