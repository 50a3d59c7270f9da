"""Where entries lie: a small file each, in 16 subfolders by the first digit of their keys."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from swatsim.cache import make
from swatsim.files import leftovers, read_bounded, remove, temporary, write_all

#: Subfolders, by the first digit of the keys that they hold. Few: a file in a folder that was not
#: written to lately takes some file systems three times as long.
PARTS = tuple("0123456789abcdef")
#: Of an entry: digits of its key, and bytes; what is larger is none of ours.
KEY = re.compile("[0-9a-f]{32}")
MAX_ENTRY_BYTES = 2**20

#: An entry that was used is marked so if it was not within the last hour (seconds).
MARKED = 3600
#: What a killed writer left goes after a day: nobody is writing it any more.
LEFT = 86_400


class Kept(NamedTuple):
    """An entry: its key, what it takes in bytes, and when it was used last (seconds)."""

    key: str
    size: int
    used: float


class Folder(Protocol):
    """What a store asks of the place where its entries lie; each may raise an `OSError`."""

    @property
    def place(self) -> str:
        """Where it is: a path, or a URL."""

    def read(self, name: str) -> bytes | None:
        """Return what lies under a name, and mark it as used; None: nothing."""

    def write(self, name: str, content: bytes) -> None:
        """Put something under a name, in place of what was there."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove what lies under some names, if it is there."""

    def entries(self, part: str) -> Iterator[Kept]:
        """Yield the entries of a subfolder."""

    def tidy(self, part: str) -> None:
        """Remove what killed writers left in a subfolder."""


def name_of(key: str) -> str:
    """Return the name of an entry's file, relative to the folder."""
    return f"{part_of(key)}/{key[1:]}"


def part_of(key: str) -> str:
    """Return the name of the subfolder that an entry lies in."""
    return key[0]


class LocalFolder:
    """A folder of a file system, NFS included: it takes no locks, for names are renamed whole.

    Where others may write into the folder, its subfolders and files are theirs too, whatever this
    user's umask: `chmod 2775` of an empty folder shares it with a group.

    Parameters
    ----------
    path : pathlib.Path
        Made when something is written.
    private : bool
        Whether it, and what is above it, is made for this user alone.
    """

    def __init__(self, path: Path, private: bool = False) -> None:
        self._path = path
        self._prepared: dict[Path, int | None] = {}
        self._mode = 0o700 if private else 0o777
        self.place = str(path)

    def read(self, name: str) -> bytes | None:
        """Return what lies under a name, and mark it as used; None: nothing."""
        path = self._path / name
        try:
            content = read_bounded(path, MAX_ENTRY_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with suppress(OSError):  # in a folder that can only be read nothing makes room
            if time.time() - path.stat().st_mtime > MARKED:
                os.utime(path)
        return content

    def write(self, name: str, content: bytes) -> None:
        """Put something under a name, in one piece.

        It is not forced to disk: what a power failure tears has another digest.
        """
        path = self._path / name
        if path.parent not in self._prepared:
            self._prepared[path.parent] = self._prepare(path.parent)
        try:
            self._write(path, content)
        except FileNotFoundError:  # somebody has removed the folder
            self._prepared[path.parent] = self._prepare(path.parent)
            self._write(path, content)

    def _write(self, path: Path, content: bytes) -> None:
        written, mode = temporary(path), self._prepared[path.parent]
        try:
            with open(
                os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb", 0
            ) as file:
                if mode is not None:
                    os.fchmod(file.fileno(), mode & 0o666)
                write_all(file, content)
            written.replace(path)
        except BaseException:
            remove([written])
            raise

    def remove(self, names: Iterable[str]) -> None:
        """Remove what lies under some names, if it is there and can be removed."""
        remove(self._path / name for name in names)

    def entries(self, part: str) -> Iterator[Kept]:
        """Yield the entries of a subfolder; of one that is not there none."""
        try:
            found = os.scandir(self._path / part)
        except (FileNotFoundError, NotADirectoryError):
            return
        with found:
            for entry in found:
                if KEY.fullmatch(key := part + entry.name):
                    with suppress(FileNotFoundError):  # another process made room
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            yield Kept(key, _taken(status), status.st_mtime)

    def tidy(self, part: str) -> None:
        """Remove what killed writers left in a subfolder."""
        before = time.time() - LEFT
        for path in leftovers(self._path / part, "*"):
            with suppress(FileNotFoundError):  # another process tidies, too
                if path.lstat().st_mtime < before:
                    remove([path])

    def _prepare(self, folder: Path) -> int | None:
        """Make a subfolder, if need be; return the folder's mode if others may write there."""
        try:
            mode = stat.S_IMODE(self._path.stat().st_mode)
        except FileNotFoundError:
            make(self._path, self._mode)
            return self._prepare(folder)
        shared = mode if mode & (stat.S_IWGRP | stat.S_IWOTH) else None
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            if shared is not None:
                with suppress(PermissionError):  # another made it meanwhile
                    folder.chmod(shared)
        return shared


def _taken(status: os.stat_result) -> int:
    """Return the bytes that a file takes on disk, where the system says so."""
    blocks = getattr(status, "st_blocks", 0)
    return max(status.st_size, blocks * 512)
