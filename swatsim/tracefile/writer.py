"""Writing a trace: the manifest, then one file a step, each of them whole or absent."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from swatsim.errors import TraceError
from swatsim.files import leftovers, publish
from swatsim.tracefile.lock import LOCK, TraceLock
from swatsim.tracefile.reader import MAX_MANIFEST_BYTES, read_manifest, step_numbers
from swatsim.tracefile.schema import (
    FORMAT,
    MANIFEST,
    REPLACED,
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
    overwrite : bool
        Replace the trace that is there, if there is one, once the first step of the new one is
        written; until then nothing of it is touched.

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
        If something is there already that is neither continued nor replaced, or is no trace. If
        another run is writing it, its manifest is damaged, or the directory can't be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, append: bool = False, overwrite: bool = False
    ) -> None:
        self.path = Path(path)
        if append and overwrite:
            raise TraceError(
                "append=True with overwrite=True is not allowed: a trace is continued or replaced"
            )
        self._append, self._overwrite = append, overwrite
        if not os.fspath(path):
            raise TraceError("'' is no path: name a directory for the trace")
        if not (self.path / LOCK).exists():
            self._check_free()  # without leaving anything in what is not ours
        self._lock = TraceLock(self.path)
        try:
            self._settle()
            self._check_free()
            self._clean()
            self._replaces = overwrite and _has_steps(self.path)
            self.manifest = self._found()
            self.recorded = frozenset(() if self._replaces else step_numbers(self.path))
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
        if self._lock.held:
            self._settle()
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
            self._set_aside()
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
        # where a trace is replaced its folder of steps is moved while this one waits
        spool = self.path if self._replaces else self.path / STEPS
        step = StepWriter(
            self.path / STEPS, number, lambda: self.manifest, spool=spool, published=self._settle
        )
        if step.path.exists() and not self._replaces:
            raise TraceError(f"{step.path} exists already: a step is never written over")
        return step

    def _check_open(self) -> None:
        if not self.is_open:
            raise TraceError(
                f"{self.path} can't be written: its writer is closed, or of the process that this "
                "one was forked from; open it again there with append=True"
            )

    def _check_free(self) -> None:
        """Refuse a place where something would be lost, or mixed with what is not of a trace."""
        taken = self.path.exists() and not _is_free(self.path)
        is_trace = (self.path / MANIFEST).is_file()
        if not taken or (is_trace and self._append):
            return
        if is_trace and self._overwrite and _says_trace(self.path / MANIFEST):
            return
        way_out = "choose another path, or remove it"
        if is_trace:
            way_out += (
                ", or go on with it by append=True, or replace it by overwrite=True (--overwrite)"
            )
        raise TraceError(f"{self.path} exists already: a trace is not written over; {way_out}")

    def _set_aside(self) -> None:
        """Move the steps of a trace that is replaced aside, with a copy of its manifest.

        What is there is a whole trace, until the first step of the new one is written.
        """
        if not self._replaces:
            return
        aside = self.path / REPLACED
        aside.mkdir(exist_ok=True)
        publish(aside / MANIFEST, (self.path / MANIFEST).read_bytes())
        (self.path / STEPS).rename(aside / STEPS)
        self._replaces = False

    def _settle(self) -> None:
        """End a replacement: where it came to a step the old trace goes, else it comes back."""
        aside = self.path / REPLACED
        if not aside.is_dir():
            return
        if _has_steps(aside) and not _has_steps(self.path):
            with suppress(OSError):
                shutil.rmtree(self.path / STEPS, ignore_errors=True)
                (aside / STEPS).rename(self.path / STEPS)
                (aside / MANIFEST).replace(self.path / MANIFEST)
        if not _has_steps(aside) or _has_steps(self.path):
            shutil.rmtree(aside, ignore_errors=True)

    def _found(self) -> Manifest | None:
        """Return the manifest of a trace that is continued; a damaged one is not written over."""
        if not self._append or not (self.path / MANIFEST).is_file():
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
        steps = leftovers(self.path, "[0-9]*") + leftovers(self.path / STEPS, "[0-9]*")
        for half in leftovers(self.path, MANIFEST) + steps:
            with suppress(OSError):
                half.unlink()


def _says_trace(manifest: Path) -> bool:
    """Whether a file, damaged or not, is a trace's manifest and not of something else."""
    with manifest.open("rb") as file:
        return FORMAT.encode() in file.read(10_000)


def _is_free(path: Path) -> bool:
    """Whether nothing would be lost: an empty directory, or a trace without steps."""
    manifest = path / MANIFEST
    if not path.is_dir() or (manifest.is_file() and not _says_trace(manifest)):
        return False
    names = {entry.name for entry in path.iterdir()}
    halves = {half.name for half in (*leftovers(path, MANIFEST), *leftovers(path, "[0-9]*"))}
    return names <= {MANIFEST, STEPS, LOCK} | halves and not _has_steps(path)


def _has_steps(path: Path) -> bool:
    return any((path / STEPS).glob(f"*{SUFFIX}"))


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}.."
