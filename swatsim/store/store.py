"""A store: entries that are checked as they are read, and make room as they are written."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from swatsim.errors import ConfigError
from swatsim.store.folder import PARTS, Folder, Kept, name_of, part_of

log = logging.getLogger(__name__)

#: Bytes of all entries, unless the folder has a limit of its own; and the lowest such limit.
LIMIT, LEAST_LIMIT = 2**30, 2**26
#: The file of a folder's own limit.
SETTINGS = "settings.json"
#: A subfolder is looked at for room once in so many entries that are written into it.
LOOKED = 64
#: Once it is full it is emptied down to this share of what it may hold.
EMPTIED = 0.9
#: Entries that a process remembers: steps share what masks don't change.
REMEMBERED = 4096

_DIGEST = 16  # bytes


class Size(NamedTuple):
    """Entries, and what they take in bytes."""

    entries: int
    bytes: int


class Looked(NamedTuple):
    """Counts that were looked for in a folder: those that were there, and all; and whole steps.

    What a process remembers it does not look for. Of a step that was there no count is looked for.
    """

    stored: int = 0
    counts: int = 0
    steps: int = 0

    def plus(self, other: Looked, times: int = 1) -> Looked:
        """Return both together."""
        own, others = (self.stored, self.counts, self.steps), tuple(other)
        return Looked(*(mine + times * one for mine, one in zip(own, others, strict=True)))

    @property
    def words(self) -> str:
        """It, in words."""
        steps = f"{self.steps} step{'s' * (self.steps > 1)}"
        if self.steps and not self.counts:
            return f"{steps} came from the store"
        counts = f"{self.stored} of {self.counts} counts"
        beside = f"{steps} and, of the others, " if self.steps else ""
        return f"{beside}{counts} came from the store"


class Store:
    """Bytes by their keys, shared with other processes and users.

    A key is the digest of all that an entry depends on, so that nothing is ever out of date. What
    the folder refuses, whether it can't be read or written or is full, is logged once and costs
    a computation; threads may share a store.

    Parameters
    ----------
    folder : Folder

    Attributes
    ----------
    found, missed : int
        Entries that were asked for and were there, and that were not.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.found = self.missed = self._read_there = self._looked_for = self._steps = 0
        self._recent: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._limit: int | None = None
        self._said: set[str] = set()

    @property
    def place(self) -> str:
        """Where the folder is: what `open_store` takes."""
        return self.folder.place

    @property
    def looked(self) -> Looked:
        """What was looked for so far."""
        return Looked(self._read_there, self._looked_for, self._steps)

    def note_step(self) -> None:
        """Note that the rows of a whole step were there."""
        with self._lock:
            self._steps += 1

    def get(self, key: str, counted: bool = True) -> bytes | None:
        """Return an entry; None: there is none, or it is damaged, which is logged.

        Parameters
        ----------
        key : str
            32 hexadecimal digits.
        counted : bool
            Whether it is a count, of which `looked` says how many there were.
        """
        remembered = payload = self._remembered(key)
        if payload is None:
            payload = self._read(key)
        with self._lock:
            there = payload is not None
            self._read_there += counted and there and remembered is None
            self._looked_for += counted and (remembered is None or not there)
            self.found += payload is not None
            self.missed += payload is None
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Keep an entry; where that can't be done, say so once."""
        self._remember(key, payload)
        try:
            self.folder.write(name_of(key), _digest(key, payload) + payload)
            if int(key[2:4], 16) % LOOKED == 0:
                self._make_room(part_of(key))
        except OSError as error:
            self._say("what is computed can't be kept", error)

    def size(self) -> Size:
        """Return how much there is.

        Raises
        ------
        OSError
            If the folder can't be read.
        """
        sizes = [kept.size for kept in self._entries()]
        return Size(len(sizes), sum(sizes))

    def clear(self) -> Size:
        """Remove all entries, and return how much that was; a limit stays.

        Raises
        ------
        OSError
            If the folder can't be read, or entries of it not removed.
        """
        gone = list(self._entries())
        self.folder.remove(name_of(kept.key) for kept in gone)
        self._recent.clear()
        left = {kept.key for kept in self._entries()} & {kept.key for kept in gone}
        if left:
            raise OSError(f"{len(left)} of {len(gone)} entries can't be removed")
        return Size(len(gone), sum(kept.size for kept in gone))

    @property
    def limit(self) -> int:
        """Bytes that the entries may take: the folder's own limit, or `LIMIT`."""
        if self._limit is None:
            self._limit = self._read_limit()
        return self._limit

    def set_limit(self, limit: int) -> None:
        """Set what all entries may take from now on, whoever writes them, and make room.

        Parameters
        ----------
        limit : int
            Bytes, at least `LEAST_LIMIT`.

        Raises
        ------
        ConfigError
            If it is too low.
        OSError
            If the folder can't be written to.
        """
        if limit < LEAST_LIMIT:
            raise ConfigError(f"a limit of {limit} bytes is too low: at least {LEAST_LIMIT}")
        self.folder.write(SETTINGS, json.dumps({"limit_bytes": limit}).encode())
        self._limit = limit
        for part in PARTS:
            self._make_room(part)

    def _remembered(self, key: str) -> bytes | None:
        with self._lock:
            if key in self._recent:
                self._recent.move_to_end(key)
            return self._recent.get(key)

    def _remember(self, key: str, payload: bytes) -> None:
        with self._lock:
            self._recent[key] = payload
            while len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)

    def _read(self, key: str) -> bytes | None:
        try:
            content = self.folder.read(name_of(key))
        except OSError as error:
            self._say("what was computed can't be read", error)
            return None
        if content is None:
            return None
        digest, payload = content[:_DIGEST], content[_DIGEST:]
        if digest != _digest(key, payload):
            log.info("%s in %s is damaged, and computed anew", name_of(key), self.place)
            return None
        self._remember(key, payload)
        return payload

    def _read_limit(self) -> int:
        try:
            limit = json.loads(self.folder.read(SETTINGS) or b"{}").get("limit_bytes", LIMIT)
            return limit if isinstance(limit, int) and limit >= LEAST_LIMIT else LIMIT
        except (OSError, ValueError, AttributeError, RecursionError):
            return LIMIT

    def _entries(self) -> Iterator[Kept]:
        for part in PARTS:
            yield from self.folder.entries(part)

    def _make_room(self, part: str) -> None:
        """Remove the entries of a subfolder that were not used longest, if it has too many.

        Keys are digests: each subfolder holds as much as any other.
        """
        self.folder.tidy(part)
        kept = sorted(self.folder.entries(part), key=lambda it: it.used)
        most, taken = self.limit / len(PARTS), sum(it.size for it in kept)
        if taken <= most:
            return
        gone = []
        for it in kept:
            if taken <= EMPTIED * most:
                break
            taken -= it.size
            gone.append(name_of(it.key))
        self.folder.remove(gone)

    def _say(self, what: str, error: OSError) -> None:
        """Log a fault of the folder, one of each kind; the first as a warning, for all of them."""
        why = error.strerror or str(error)
        with self._lock:
            level, said = logging.INFO if self._said else logging.WARNING, f"{what}: {why}"
            new = said not in self._said
            self._said.add(said)
        if new:
            log.log(level, "%s in %s (%s): going on without", what, self.place, why)


def _digest(key: str, payload: bytes) -> bytes:
    """Return the digest of an entry and its key: no entry passes for another."""
    return hashlib.blake2b(payload, digest_size=_DIGEST, key=key.encode()).digest()
