"""Reading a trace: nothing in it is executed, and nothing it promises is believed unchecked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from swatsim.arguments import is_whole, whole
from swatsim.described import in_words
from swatsim.displayed import Displayed
from swatsim.errors import SwatsimError, TraceError, listed, shown
from swatsim.files import read_bounded
from swatsim.printable import printable
from swatsim.tracefile.plain import canonical
from swatsim.tracefile.recorded import MALFORMED, Step
from swatsim.tracefile.schema import (
    MANIFEST,
    REPLACED,
    STEPS,
    SUFFIX,
    Manifest,
    check_number,
    load_manifest,
)
from swatsim.workload.layer import Layer

#: Steps of so many masks in all are kept open, each counted as some at least: whoever needs one
#: again need not read it again.
KEPT_MASKS, LEAST_MASKS = 4096, 128

#: A manifest larger than this is refused; 100,000 layers take a tenth of it.
MAX_MANIFEST_BYTES = 256 * 2**20


class Trace(Displayed):
    """A recorded training run. `open_trace` makes one.

    Parameters
    ----------
    path : pathlib.Path
    manifest : Manifest
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._id: str | None = None
        self._seen: dict[int, bytes] = {}
        self._batches: dict[int, int] = {}
        self._largest: dict[tuple[int, ...] | None, int] = {}
        self._kept: dict[int, Step] = {}  # the one used last is the last

    @property
    def name(self) -> str:
        """The directory's name, made printable: it stands in every row of results."""
        return printable(self.path.resolve().name)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """In the order in which the network runs them, each as it was first seen."""
        return self.manifest.layers

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """Numbers of the steps that are present, ascending; what a killed run left is not."""
        return step_numbers(self.path)

    @cached_property
    def _numbers(self) -> frozenset[int]:
        return frozenset(self.steps)

    def _lines(self) -> list[str]:
        """Return what the manifest says: no step is opened for it."""
        try:
            steps = listed(map(str, self.steps), 10) or "none"
        except TraceError as error:
            steps = str(error)
        made, held = self.manifest, self.manifest.samples
        images = "all" if held is None else len(held)
        return [
            f"Trace {self.path}: {len(made.layers)} layers, steps {steps}",
            f"{images} of {made.batch_size} images of a batch; policy: {in_words(made.policy)}",
        ]

    def step(self, number: int) -> Step:
        """Return one step, opened.

        Raises
        ------
        TraceError
            If it is not in the trace, or damaged; if it was replaced since this object first opened
            it: what is remembered of the trace, its id for one, would be another's.
        """
        wanted = whole(number)
        if not is_whole(wanted) or wanted not in self._numbers:
            there = listed(map(str, self.steps)) or "none"
            message = f"{self.path} has no step {shown(number)}: recorded are {there}"
            raise TraceError(message, of_argument=True)
        step = self._kept.pop(wanted, None)
        if step is None or not step.is_as_opened:
            step = Step(self.path / STEPS / f"{wanted}{SUFFIX}", wanted, self.manifest)
            self._same(wanted, step.header)
        self._keep(step)
        return step

    def _keep(self, step: Step) -> None:
        self._kept[step.number] = step
        left = KEPT_MASKS
        for number, other in [*self._kept.items()][::-1]:
            left -= max(LEAST_MASKS, len(other.records))
            if left < 0:
                self._kept.pop(number, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # an open file stays where it is

    def _same(self, number: int, header: str) -> None:
        """Refuse a step that is not what it was when it was first opened."""
        digest = hashlib.blake2b(header.encode(), digest_size=16).digest()
        if self._seen.setdefault(number, digest) != digest:
            raise TraceError(
                f"step {number} of {self.path} was replaced since the trace was opened: open the "
                "trace again"
            )

    def opened(self) -> Iterator[Step | TraceError]:
        """Yield all steps, opened one at a time; in place of one that can't be, its error.

        At the end the trace's id is known: who needs both reads each step once.
        """
        seen = hashlib.blake2b(_shared(self.manifest).encode(), digest_size=8)
        for number in self.steps:
            step: Step | TraceError
            try:
                step = self.step(number)
                header = step.header
                self._batches[number] = max(step.batch_of(layer.name) for layer in step.layers)
            except TraceError as error:
                step, header = error, "unreadable"
                self._same(number, header)
            seen.update(f"{number}:{header}".encode())
            yield step
        self._id = seen.hexdigest()

    @property
    def id(self) -> str:
        """Digest of samples, layers, coverage and digests of all masks (16 hex digits).

        Where and when a run was recorded does not count: equal recordings have equal ids. A step
        that can't be read counts by its number only: the others can still be used.
        """
        if self._id is None:
            for _ in self.opened():
                pass
        assert self._id is not None, "all steps were opened"
        return self._id

    def largest_batch(self, steps: Collection[int] | None = None) -> int:
        """Return how many samples the largest batch of a layer has, in some steps or in all.

        In format 1 the manifest says it.
        """
        if self.manifest.schema_version > 1 and self.id:  # all steps were opened for it
            key = None if steps is None else tuple(steps)
            if key not in self._largest:
                self._largest[key] = self._largest_of(self._numbers if key is None else {*key})
            return self._largest[key]
        return self.manifest.batch_size

    def _largest_of(self, wanted: Collection[int]) -> int:
        chosen = [batch for number, batch in self._batches.items() if number in wanted]
        return max(chosen, default=self.manifest.batch_size)


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Return a trace, its manifest checked.

    Raises
    ------
    TraceError
        If there is none, it is of another schema version, or it holds no steps.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise TraceError(f"{path!r} is no path: name the directory of a recorded trace")
    folder = Path(path)
    trace = Trace(folder, read_manifest(folder))
    if not trace.steps and step_numbers(folder / REPLACED):
        raise TraceError(
            f"{folder} has no steps: a run that was to replace its trace was killed before its "
            f"first step was whole; the trace that was there is {folder / REPLACED}"
        )
    if not trace.steps:
        raise TraceError(
            f"{folder} has no steps: the run that recorded it ended before its first recorded "
            "step was whole; record again, with `steps` that the run reaches"
        )
    return trace


def _shared(manifest: Manifest) -> str:
    """Return what a trace's id depends on beside its steps."""
    if manifest.schema_version == 1:
        return manifest.model_dump_json(include={"layers", "batch_size", "samples"})
    return canonical(manifest.samples)


def step_numbers(path: Path) -> tuple[int, ...]:
    """Return the steps that are present in a trace's directory, ascending.

    Raises
    ------
    TraceError
        If it can't be read; one that is not there has none.
    """
    folder = path / STEPS
    try:
        files = [Path(entry.name) for entry in os.scandir(folder)]
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise TraceError(f"can't read {folder}: {error.strerror}") from None
    names = [file.stem for file in files if file.suffix == SUFFIX and file.stem.isdecimal()]
    numbers = sorted(int(name) for name in names if str(int(name)) == name)
    if numbers:
        check_number(numbers[-1])
    return tuple(numbers)


def read_manifest(folder: Path) -> Manifest:
    """Return a trace's manifest, checked.

    Raises
    ------
    TraceError
        If there is none, it is damaged, or of another schema version.
    """
    path = folder / MANIFEST
    try:
        if not folder.is_dir():
            raise TraceError(_missing(folder))
        if not path.exists():
            names = sorted(entry.name for entry in folder.iterdir())
            there = listed(names, 5) or "nothing"
            raise TraceError(f"{folder} is not a trace: it has no {MANIFEST} (it holds {there})")
        return load_manifest(read_bounded(path, MAX_MANIFEST_BYTES))
    except OSError as error:
        raise TraceError(f"can't read {error.filename or path}: {error.strerror}") from None
    except MALFORMED as error:
        raise TraceError(f"{path} is not JSON of a manifest: {error}") from None
    except SwatsimError as error:
        where = "" if str(folder) in str(error) else f"{folder}: "
        raise TraceError(f"{where}{error}") from None


def _missing(folder: Path) -> str:
    if folder.exists():
        return (
            f"{folder} is a file: a trace is a directory; name the directory that holds {MANIFEST}"
        )
    return f"{folder} does not exist: name the directory of a recorded trace"
