"""Writing a trace: the manifest, then one file a step, each of them whole or absent."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from swatsim.errors import TraceError
from swatsim.files import leftovers, publish
from swatsim.tracefile.lock import LOCK, TraceLock
from swatsim.tracefile.reader import MAX_MANIFEST_BYTES, read_manifest, step_numbers
from swatsim.tracefile.schema import (
    MANIFEST,
    SCHEMA_VERSION,
    STEPS,
    SUFFIX,
    Manifest,
    dump_manifest,
)
from swatsim.tracefile.step import StepWriter, writing


class TraceWriter:
    """Writes a trace, alone: its directory is locked until it is closed or the process ends.

    A trace without steps, as a run leaves that was stopped before its first one, is no trace yet.
    What a run that was killed left half written is removed.

    Parameters
    ----------
    path : path
        The trace's directory, which is made, as are its parents. Empty, or not there yet.
    append : bool
        Go on with the trace that is there, if there is one.

    Attributes
    ----------
    path : pathlib.Path
    manifest : Manifest or None
        As it is on disk; None if the trace has no steps yet.
    recorded : frozenset of int
        Numbers of the steps that were there before.

    Raises
    ------
    TraceError
        If something is there already that is not continued: a trace is never written over. If
        another run is writing it, its manifest is damaged, or the directory can't be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        self.path = Path(path)
        if not os.fspath(path):
            raise TraceError("'' is no path: name a directory for the trace")
        if not (self.path / LOCK).exists():
            _check_free(self.path, append)  # without leaving anything in what is not ours
        self._lock = TraceLock(self.path)
        try:
            _check_free(self.path, append)
            self.manifest = self._found(append)
            self.recorded = frozenset(step_numbers(self.path))
            self._clean()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether this process may write: not after `close`, and never a forked child."""
        return self._lock.held

    def close(self) -> None:
        """Release the trace for other writers; a second time does nothing."""
        self._lock.release()

    def check_continued(self, **expected: Any) -> None:
        """Refuse to go on with a trace of another run; a new trace is nobody's yet.

        Parameters
        ----------
        expected
            Fields of a manifest, as they are in this run's.

        Raises
        ------
        TraceError
            If one differs.
        """
        if self.manifest is None:
            return
        for name, value in expected.items():
            pair = (getattr(self.manifest, name), value)
            there, here = (json.dumps(what, sort_keys=True) for what in pair)
            if there != here:
                raise TraceError(
                    f"{self.path} can't be continued: its {name} is {_short(there)}, this run's "
                    f"is {_short(here)}; all steps of a trace share it: record as it was "
                    "recorded, or choose another path"
                )

    def write_manifest(self, manifest: Manifest) -> None:
        """Write or replace ``manifest.json``; steps already written stay as they are.

        Raises
        ------
        TraceError
            If it can't be written, or is too large to be read again, or the writer is closed.
        """
        self._check_open()
        content = dump_manifest(manifest)
        if len(content) > MAX_MANIFEST_BYTES:
            raise TraceError(
                f"can't write {self.path / MANIFEST}: it would have {len(content)} bytes, at most "
                f"{MAX_MANIFEST_BYTES} are read; state fewer parameters, or record fewer layers"
            )
        with writing(self.path / MANIFEST):
            (self.path / STEPS).mkdir(parents=True, exist_ok=True)
            publish(self.path / MANIFEST, content)
        self.manifest = manifest

    def step(self, number: int) -> StepWriter:
        """Return the writer of a step; the manifest must have its layers by its publication.

        Parameters
        ----------
        number : int
            The training step's, counted from 0.

        Raises
        ------
        TraceError
            If the step exists already, its number is none, or the writer is closed.
        """
        self._check_open()
        step = StepWriter(self.path / STEPS, number, lambda: self.manifest)
        if step.path.exists():
            raise TraceError(f"{step.path} exists already: a step is never written over")
        return step

    def _check_open(self) -> None:
        if not self.is_open:
            raise TraceError(
                f"{self.path} can't be written: its writer is closed, or of the process that this "
                "one was forked from; open it again there with append=True"
            )

    def _found(self, append: bool) -> Manifest | None:
        """Return the manifest of a trace that is continued; a damaged one is not written over."""
        if not append or not (self.path / MANIFEST).is_file():
            return None
        manifest = read_manifest(self.path)
        if not _has_steps(self.path):
            return None
        if manifest.schema_version != SCHEMA_VERSION:
            raise TraceError(
                f"{self.path} can't be continued: it is of format {manifest.schema_version}, which "
                f"is read, and what is recorded now of format {SCHEMA_VERSION}: choose another path"
            )
        return manifest

    def _clean(self) -> None:
        """Remove what was half written when a run was killed: nobody else can be writing."""
        halves = leftovers(self.path, MANIFEST) + leftovers(self.path / STEPS, "[0-9]*")
        for half in halves:
            with suppress(OSError):
                half.unlink()


def _check_free(path: Path, append: bool) -> None:
    """Refuse a place where something would be lost, or mixed with what is not of a trace."""
    continued = append and (path / MANIFEST).is_file()
    if not continued and path.exists() and not _is_free(path):
        way_out = "choose another path, or remove it"
        if (path / MANIFEST).is_file():
            way_out += ", or go on with it by append=True"
        raise TraceError(f"{path} exists already: a trace is never written over; {way_out}")


def _is_free(path: Path) -> bool:
    """Whether nothing would be lost: an empty directory, or a trace without steps."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    halves = {half.name for half in leftovers(path, MANIFEST)}
    return names <= {MANIFEST, STEPS, LOCK} | halves and not _has_steps(path)


def _has_steps(path: Path) -> bool:
    return any((path / STEPS).glob(f"*{SUFFIX}"))


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}.."
