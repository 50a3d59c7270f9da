"""Writing files so that a name that is present is always whole; reading those of others."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path

#: In a folder while a set of files is written. That it is locked counts, not that it is there.
LOCK = ".lock"
#: Whoever waits longer for another to write its set gives up.
MAX_WAIT_SECONDS = 120
#: What file systems say that have no locks.
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)

#: Behind the name of a file, what `temporary` adds; earlier versions had the process's number only.
_ADDED = re.compile(r"\.\d+(\.[0-9a-f]{8})?\.tmp$")


class ReplacedInPartError(OSError):
    """Some files of a set were replaced, and then another could not be.

    Attributes
    ----------
    replaced : list of pathlib.Path
    """

    def __init__(self, cause: OSError, replaced: Collection[Path]) -> None:
        super().__init__(cause.errno, cause.strerror or str(cause), cause.filename)
        self.replaced = list(replaced)


def publish(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, force it to disk, and rename it into place.

    Raises
    ------
    OSError
        If there is no room, or no permission; what was at `path` before is untouched.
    """
    _publish({path: (content,)})


def publish_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that comes in pieces, as `publish` does: they need not fit in memory together.

    Raises
    ------
    OSError
        As `publish` does; what making a piece raises is let through, and nothing is left behind.
    """
    _publish({path: chunks})


def publish_all(
    contents: Mapping[Path, bytes | Iterable[bytes]], gone: Collection[Path] = ()
) -> None:
    """Write a set of files; none is renamed into place before all are on disk.

    Who writes a set has its folders for itself, so two sets never mix, and what was left half
    written by a process that was killed is removed. Only being killed between two renames leaves
    some files of a set new and others old; the renames are in the order of `contents`.

    Parameters
    ----------
    contents : mapping of pathlib.Path to bytes, or to pieces of them
    gone : collection of pathlib.Path, optional
        Files of earlier sets that are not in this one: they are removed.

    Raises
    ------
    ReplacedInPartError
        If a rename fails after others.
    OSError
        If one can't be written, a directory is in its place, or another process does not let go of
        a folder; what was there is untouched.
    """
    with contextlib.ExitStack() as stack:
        for folder in sorted({path.parent for path in contents}):
            stack.enter_context(locked(folder, MAX_WAIT_SECONDS))
        for path in contents:
            remove(leftovers(path.parent, glob.escape(path.name)))
        whole = {
            path: (content,) if isinstance(content, bytes) else content
            for path, content in contents.items()
        }
        _publish(whole)
        remove(gone)


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> Iterator[bool]:
    """Lock a folder against others that do the same, be they processes or threads.

    Parameters
    ----------
    folder : pathlib.Path
    seconds : float
        How long to wait for it.

    Yields
    ------
    bool
        Whether it could be locked: some file systems can't.

    Raises
    ------
    OSError
        If another has it all the time, or it can't be written to.
    """
    from filelock import FileLock  # who only reads does not wait for it

    lock = FileLock(folder / LOCK, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=seconds, poll_interval=0.01)
    except (NotImplementedError, OSError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise
        yield False
        return
    try:
        yield True
    finally:
        # While it is held: who opened the file before gets a lock on one without a name, which
        # filelock notices.
        remove([folder / LOCK])
        lock.release()


def temporary(path: Path) -> Path:
    """Return the name of what is renamed to `path` once it is written; no other writer has it.

    Not the process's number alone: those of two containers are equal, and threads share one.
    """
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def leftovers(folder: Path, pattern: str) -> list[Path]:
    """Return what killed writers left under the names that `temporary` gives.

    Whoever removes them makes sure that nobody is writing: it holds the folder's lock.

    Parameters
    ----------
    folder : pathlib.Path
    pattern : str
        Of the names that the files would have had at last, as for `Path.glob`.
    """
    paths = folder.glob(f".{pattern}.*.tmp")
    return sorted(path for path in paths if _ADDED.search(path.name))


def remove(paths: Iterable[Path]) -> None:
    """Remove files, if they are there and can be removed."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


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
        _swap(temporaries)
    except BaseException:
        remove(temporaries.values())
        raise


def _swap(temporaries: Mapping[Path, Path]) -> None:
    """Rename what is written into place."""
    replaced: list[Path] = []
    try:
        for path, written in temporaries.items():
            written.replace(path)
            replaced.append(path)
        for folder in {path.parent for path in temporaries}:
            _sync_directory(folder)
    except OSError as error:
        if not replaced:
            raise
        raise ReplacedInPartError(error, replaced) from None


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
    """Return the bytes of a file from outside that fits in memory: no size in it is believed.

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
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
            raise OSError(errno.EINVAL, f"it is not a file, but {what}", os.fspath(path))
        if status.st_size > at_most:
            raise OSError(errno.EFBIG, f"it is larger than {at_most} bytes", os.fspath(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)
