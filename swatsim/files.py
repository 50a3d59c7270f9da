"""Writing files so that a name that is present is always whole; reading those of others."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path


def publish(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, force it to disk, and rename it into place.

    Raises
    ------
    OSError
        If there is no room, or no permission; what was at `path` before is untouched.
    """
    publish_all({path: content})


def publish_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that comes in pieces, as `publish` does: they need not fit in memory together.

    Raises
    ------
    OSError
        As `publish` does; what making a piece raises is let through, and nothing is left behind.
    """
    _publish({path: chunks})


def publish_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files; none is renamed into place before all are on disk.

    Raises
    ------
    OSError
        If one can't be written, or a directory is in its place; what was there is untouched.
    """
    _publish({path: (content,) for path, content in contents.items()})


def temporary(path: Path) -> Path:
    """Name what this process writes before it is renamed to `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def leftovers(folder: Path, pattern: str) -> list[Path]:
    """Find what processes that were killed left under the names that `temporary` gives.

    Parameters
    ----------
    folder : pathlib.Path
    pattern : str
        Of the names that the files would have had at last, as for `Path.glob`.
    """
    return sorted(folder.glob(f".{pattern}.*.tmp"))


def write_all(file: FileIO, content: bytes | memoryview) -> None:
    """Write all bytes to a file that has no buffer.

    None is wanted where a process may fork: the child would have a copy, and write it a second
    time when it ends.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _publish(contents: Mapping[Path, Iterable[bytes]]) -> None:
    for path in contents:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporaries = {path: temporary(path) for path in contents}
    try:
        for path, chunks in contents.items():
            _write(temporaries[path], chunks)
        for path, written in temporaries.items():
            written.replace(path)
    except BaseException:
        for written in temporaries.values():
            with contextlib.suppress(OSError):
                written.unlink()
        raise
    for folder in {path.parent for path in contents}:
        _sync_directory(folder)


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("wb", buffering=0) as file:
        for chunk in chunks:
            write_all(file, chunk)
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    """Make a rename durable; not every platform lets a directory be opened."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_bounded(path: str | os.PathLike[str], at_most: int) -> bytes:
    """Read a file that comes from outside and fits in memory: no size is believed, none waited for.

    A pipe, a device and what a kernel makes up as it is read (files that say they are empty) have
    no end, or block: nothing is read of them.

    Parameters
    ----------
    path : path
    at_most : int
        Bytes; a larger file is refused unread.

    Raises
    ------
    OSError
        If it can't be read, is no ordinary file, or is too large.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL in its name
        raise OSError(errno.EINVAL, f"its name can't be one: {error}", os.fspath(path)) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            what = "a directory" if stat.S_ISDIR(found.st_mode) else "a device or a pipe"
            raise OSError(errno.EINVAL, f"it is not a file, but {what}", os.fspath(path))
        if found.st_size > at_most:
            raise OSError(errno.EFBIG, f"it is larger than {at_most} bytes", os.fspath(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(found.st_size)
    finally:
        os.close(descriptor)
