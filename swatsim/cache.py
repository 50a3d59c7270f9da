"""Where compiled kernels are kept between processes: files with a digest, in a folder of one's own.

What is read here is machine code and pickles: it runs. So nothing is read that another user could
have written, and nothing that is not, bit by bit, what was written.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

log = logging.getLogger(__name__)

#: Set to a folder of your choice, or to the empty string for no cache at all.
CACHE_VARIABLE = "SWATSIM_CACHE_DIR"

#: Folders of other versions go when nobody began to use them for so long (seconds),
UNUSED = 30 * 86_400
#: or, of more than so many, when nobody did for a day.
MAX_FOLDERS = 16
DAY = 86_400

_DIGEST = 32  # bytes


def folder_of(version: str) -> Path | None:
    """Return the folder of one version of the kernels, made if need be, or None for no cache.

    Without one, kernels are compiled every time; a warning says why.

    Parameters
    ----------
    version : str
        Names all that compiled code depends on; hexadecimal digits.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    try:
        root = root_folder()
        return None if root is None else _opened(root, version)
    except OSError as error:
        where, why = chosen or error.filename or "the usual place", error.strerror or error
        log.warning("kernels are compiled anew in each process: no cache at %s (%s)", where, why)
        return None


def root_folder() -> Path | None:
    """Return the folder of all that is cached, which may not be there yet; None: no cache at all.

    Raises
    ------
    OSError
        If none is set, and no home folder is known.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    return None if chosen == "" else _root(chosen)


def make(folder: Path, mode: int = 0o700) -> None:
    """Make a folder and those above it, as far as they are not there.

    Raises
    ------
    OSError
        If one can't be made.
    """
    for part in (*reversed(folder.parents), folder):
        if not part.is_dir():
            part.mkdir(mode=mode, exist_ok=True)


def read(path: Path) -> bytes | None:
    """Return what was written under a name; None if nothing was, or it is not that any more.

    Raises
    ------
    OSError
        If it can't be read.
    """
    try:
        with path.open("rb") as file:
            status, content = os.fstat(file.fileno()), file.read()
    except FileNotFoundError:
        return None
    digest, payload = content[:_DIGEST], memoryview(content)[_DIGEST:]
    if _is_own(status) and digest == _digest(path.name, payload):
        return bytes(payload)
    log.warning("a cached kernel is damaged, and compiled anew (%s)", path)
    return None


def write(path: Path, payload: bytes) -> None:
    """Write bytes under a name, in one piece: whoever reads meanwhile gets all of them, or none.

    It is not forced to disk: what a power failure tears has another digest.

    Raises
    ------
    OSError
        If it can't be written; what was there is untouched.
    """
    path.parent.mkdir(mode=0o700, exist_ok=True)  # another process may have tidied it up
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with open(descriptor, "wb") as file:
            file.write(_digest(path.name, payload) + payload)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _digest(name: str, payload: bytes | memoryview) -> bytes:
    """Return the digest of a file's name and content: no file passes for another."""
    return hashlib.blake2b(payload, digest_size=_DIGEST, key=name.encode()[:64]).digest()


def _root(chosen: str | None) -> Path:
    if chosen:
        return Path(os.path.realpath(os.path.expanduser(chosen)))
    try:
        root = user_cache_path("swatsim")
    except RuntimeError:  # platformdirs knows no home; older ones give '~' itself
        root = Path()
    if not root.is_absolute():
        raise OSError(f"no home folder is known: set {CACHE_VARIABLE}")
    return Path(os.path.realpath(root))


def _opened(root: Path, version: str) -> Path:
    """Return the folder of a version, made if need be; only its owner can write there."""
    folder = root / "kernels" / version
    is_new = not folder.is_dir()
    make(folder)
    own = (folder, folder.parent, root)
    for part in own:
        _check_own(part)
    for part in root.parents:
        _check_ancestor(part)
    with suppress(OSError):  # a cache that can only be read is a cache
        os.utime(folder)
        if is_new:
            _tidy(folder)
    return folder


def _check_own(folder: Path) -> None:
    if not _is_own(folder.stat()):
        raise PermissionError(
            f"{folder} must be yours, and not writable by others: they could run code as you; "
            f"chmod go-w it, or set {CACHE_VARIABLE}"
        )


def _is_own(status: os.stat_result) -> bool:
    """Whether only this user could have written a file; True where users have no numbers."""
    if not hasattr(os, "geteuid"):
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _check_ancestor(folder: Path) -> None:
    """Refuse a folder in which another user could put something else in our folder's place.

    That is one that belongs to anyone but this user and the system (in a container the system's
    files may be nobody's, those of "/" too), or one that others may write, but for those like
    /tmp in which each keeps what is his. A group of its own for each user is not others.
    """
    if not hasattr(os, "geteuid"):
        return
    status = folder.stat()
    trusted = status.st_uid in (os.geteuid(), 0, os.stat("/").st_uid)
    shared = status.st_mode & stat.S_IWOTH or (
        status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid)
    )
    if not trusted or (shared and not status.st_mode & stat.S_ISVTX):
        raise PermissionError(
            f"others could replace what is in {folder}, and run code as you; set {CACHE_VARIABLE} "
            "to a folder below one of your own"
        )


def _is_private_group(number: int) -> bool:
    """Whether a group has its user's name, as the one that many systems give each user."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


def _tidy(folder: Path) -> None:
    """Remove what versions left that nobody uses any more.

    A process that still runs one loses nothing but time: what it finds no more it compiles.
    """
    versions = [
        other
        for other in folder.parent.iterdir()
        if re.fullmatch("[0-9a-f]{16,}", other.name) and other != folder and not other.is_symlink()
    ]
    ages = {other: time.time() - other.stat().st_mtime for other in versions}
    for rank, other in enumerate(sorted(ages, key=ages.__getitem__), 1):
        if ages[other] > UNUSED or (rank >= MAX_FOLDERS and ages[other] > DAY):
            shutil.rmtree(other, ignore_errors=True)
