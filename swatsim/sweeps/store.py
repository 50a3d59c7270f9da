"""What a sweep has finished, on disk: a file a point, whole or absent, never believed unread."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from swatsim.errors import ResultsError
from swatsim.files import leftovers, locked, publish, read_bounded, remove
from swatsim.outputs import POINTS, check_folder, page_of, write_files
from swatsim.results import Results, parse, read_parquet
from swatsim.sealed import fingerprint, seal, unseal

log = logging.getLogger(__name__)

#: The folder of what failed, a file a point.
FAILED = "failed"
#: A line a point: the digest of its file, and what a summary says of it.
NUMBERS = "numbers.jsonl"
#: Of each: a point's file, the notes of all points.
MAX_BYTES = 2**34

Numbers = dict[str, Any]


class Store:
    """The folder of a sweep.

    A point's file is used when its digest is in a note, made when the file was written, or read
    and found right; what a note says is not read in the file again. The notes are a cache: what is
    missing or damaged in them is read again from the points.

    Parameters
    ----------
    folder : path

    Raises
    ------
    ResultsError
        If it can't or mustn't be written to.
    """

    def __init__(self, folder: Path) -> None:
        check_folder(folder)
        self.folder = folder
        #: Digests of files that this object has read and found right, or written.
        self._right: dict[str, str] = {}

    @staticmethod
    def key(resolved: Mapping[str, Any]) -> str:
        """Return a point's key, of all that its numbers depend on (16 hex digits)."""
        return fingerprint(resolved)

    @contextmanager
    def open(self, alone: bool = True) -> Iterator[None]:
        """Lock the store for a sweep; remove what a killed one left if no other is at work.

        `alone`: False for a part of a sweep, beside which others write: it removes nothing.
        """
        points = self.folder / POINTS
        with ExitStack() as stack:
            try:
                points.mkdir(parents=True, exist_ok=True)
                if alone and stack.enter_context(locked(points, seconds=0)):
                    remove(leftovers(points, "*") + leftovers(self.folder / FAILED, "*"))
            except TimeoutError:
                log.info("another sweep is at work in %s", self.folder)
            except OSError as error:
                raise ResultsError(f"can't write to {points}: {error.strerror}") from None
            yield

    def is_done(self, key: str) -> bool:
        """Whether a point is finished: its file is there, and is what was written."""
        if key in self._right:
            return True
        try:
            content = read_bounded(self._path(key), MAX_BYTES)
            digest = hashlib.blake2b(content, digest_size=16).hexdigest()
            if digest != self._notes.get(key, {}).get("file"):
                self._parsed(key, content)
        except (OSError, ResultsError):
            return False
        self._right[key] = digest
        return True

    def is_there(self, key: str) -> bool:
        """Whether a point has a file, whole or damaged."""
        return self._path(key).is_file()

    def refresh(self) -> None:
        """Read the notes anew when one is asked for: other processes may have added some."""
        self.__dict__.pop("_notes", None)

    def save(self, key: str, results: Results, numbers: Numbers) -> None:
        """Write a finished point, and a note of what a summary says of it.

        Raises
        ------
        ResultsError
            If there is no room or no permission; what is finished stays.
        """
        content = results.to_parquet()
        self._failure(key).unlink(missing_ok=True)
        self._publish(self._path(key), content)
        self._right[key] = hashlib.blake2b(content, digest_size=16).hexdigest()
        self._note(key, numbers)

    def fail(self, key: str, about: Mapping[str, Any]) -> None:
        """Write why a point could not be simulated."""
        self._publish(self._failure(key), seal(about, indent=1))

    def failure(self, key: str) -> str | None:
        """Return why a point could not be simulated; None if it could."""
        path = self._failure(key)
        if not path.is_file() or self.is_done(key):
            return None
        try:
            return str(unseal(read_bounded(path, MAX_BYTES))["error"])
        except (OSError, ResultsError, KeyError):
            return f"{path} is damaged: run the sweep again"

    def load(self, key: str) -> Results:
        """Return the results of a finished point.

        Raises
        ------
        ResultsError
            If it is not there, or not what was written.
        """
        return self._own(key, read_parquet(self._path(key)))

    def publish(self, contents: Mapping[str, bytes]) -> None:
        """Write files beside the points: all or none; remove the page of earlier ones."""
        write_files(self.folder, contents, page_of(self.folder))

    def numbers(self, key: str, count: Callable[[Results], Numbers]) -> Numbers:
        """Return what a summary says of a finished point: from a note, or counted from its file.

        Raises
        ------
        ResultsError
            If it is not there, or not what was written.
        """
        if not self.is_done(key) or self._notes.get(key, {}).get("file") != self._right[key]:
            self._note(key, count(self.load(key)))
        return dict(self._notes[key]["numbers"])

    def discard(self, key: str) -> None:
        """Remove a point that can't be read: the next run does it again."""
        self._right.pop(key, None)
        self._path(key).unlink(missing_ok=True)

    def _parsed(self, key: str, content: bytes) -> Results:
        return self._own(key, parse(content, self._path(key)))

    def _own(self, key: str, results: Results) -> Results:
        """Return results that are this point's; a file under another point's name is refused."""
        if self.key(results.provenance.get("parameters", {})) != key:
            raise ResultsError(f"{self._path(key)} holds another point: run the sweep again")
        return results

    @cached_property
    def _notes(self) -> dict[str, Numbers]:
        """Each point's note; of several the last counts."""
        notes: dict[str, Numbers] = {}
        try:
            lines = read_bounded(self.folder / NUMBERS, MAX_BYTES).splitlines()
        except OSError:  # what has no note is counted again
            return notes
        for line in lines:
            with suppress(ResultsError, KeyError):
                note = unseal(line)
                notes[note["point"]] = {"file": note["file"], "numbers": note["numbers"]}
        return notes

    def _note(self, key: str, numbers: Numbers) -> None:
        """Append a note; one that a kill cut short spoils no other, and is made again."""
        note = {"file": self._right[key], "numbers": json.loads(json.dumps(numbers))}
        self._notes[key] = note
        line = b"\n" + seal({"point": key, **note})
        with suppress(OSError):  # it can be counted again
            how = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            descriptor = os.open(self.folder / NUMBERS, how, 0o666)
            with open(descriptor, "wb", buffering=0) as file:
                file.write(line)

    def _path(self, key: str) -> Path:
        return self.folder / POINTS / f"{key}.parquet"

    def _failure(self, key: str) -> Path:
        return self.folder / FAILED / f"{key}.json"

    def _publish(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                publish(path, content)
            except FileNotFoundError:  # a sweep that began meanwhile took it for what a kill left
                publish(path, content)
        except OSError as error:
            raise ResultsError(
                f"can't write to {path}: {error.strerror or error}; points that are finished stay: "
                "make room and run the sweep again"
            ) from None
