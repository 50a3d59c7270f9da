"""What stands for results: results themselves, folders of simulations and of sweeps, points."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swatsim.errors import ResultsError
from swatsim.files import read_bounded
from swatsim.outputs import POINTS, SWEEP
from swatsim.results import Results, is_sweep, load, read_parquet
from swatsim.sealed import fingerprint, unseal

#: A sweep's index takes a kilobyte or two a point.
MAX_BYTES = 2**30


@dataclass(frozen=True)
class Source:
    """Results, or a file of them, which is read whenever they are asked for.

    A sweep has thousands of points, which would not fit into memory together.

    Parameters
    ----------
    given : int
        Which of the inputs it is of.
    place : str
        Its folder, or a point's file; "": results in memory.
    kept : Results, optional
        Those in memory.
    """

    given: int
    place: str = ""
    kept: Results | None = None

    def read(self) -> Results:
        """Return the results.

        Raises
        ------
        ResultsError
            If there are none, or they can't be used.
        """
        if self.kept is not None:
            found = self.kept
        else:
            path = Path(self.place)
            found = read_parquet(path) if path.is_file() else load(path)
        if not found.rows:
            raise ResultsError(f"the results {self.place or 'given'} hold no rows: simulate again")
        return found


def sources(inputs: Sequence[str | os.PathLike[str] | Results]) -> list[Source]:
    """Return the sources of results in inputs: of a sweep's folder each point that is done.

    Raises
    ------
    ResultsError
        If a sweep's index can't be used, or none of its points is done.
    """
    return [source for i, one in enumerate(inputs) for source in _of_input(i, one)]


def _of_input(number: int, one: str | os.PathLike[str] | Results) -> Iterator[Source]:
    if isinstance(one, Results):
        yield Source(number, kept=one)
        return
    folder = Path(one)
    if is_sweep(folder):
        yield from (Source(number, str(path)) for path in _points(folder))
    else:
        yield Source(number, str(folder))


def _points(folder: Path) -> list[Path]:
    """Return the files of a sweep's points that are done, in its order; of one cut short, all."""
    if not (folder / SWEEP).is_file():
        found = sorted((folder / POINTS).glob("*.parquet"))
    else:
        found = [folder / POINTS / f"{key}.parquet" for key in _done(folder / SWEEP)]
    if not found:
        raise ResultsError(f"no point of the sweep in {folder} is done: see failed/ in it")
    return found


def _done(path: Path) -> list[str]:
    """Return the keys of an index' points that are done."""
    try:
        rows = index_of(path)["points"]
        return [str(row["point"]) for row in rows if row["status"] == "done"]
    except (KeyError, TypeError, AttributeError) as error:
        raise unreadable(path, error) from None


def index_of(path: Path) -> dict[str, Any]:
    """Return what a sweep wrote of its points, as it was written.

    Raises
    ------
    ResultsError
        If it is not there, or was changed.
    """
    try:
        index: dict[str, Any] = unseal(read_bounded(path, MAX_BYTES))
    except (OSError, ResultsError) as error:
        why = getattr(error, "strerror", None) or error
        raise ResultsError(f"{path} can't be used: {why}; sweep again") from None
    return index


def unreadable(path: Path, error: Exception) -> ResultsError:
    """Return the refusal of an index that lacks something."""
    words = f"{type(error).__name__}: {error}"
    return ResultsError(f"{path} can't be read ({words}): sweep again")


def point(folder: Path, key: str) -> Results:
    """Return the results of one point of a sweep.

    Raises
    ------
    ResultsError
        If its file is not there, or holds another point.
    """
    found = read_parquet(folder / POINTS / f"{key}.parquet")
    if fingerprint(found.provenance["parameters"]) != key:
        raise ResultsError(f"the file of point {key} holds another: sweep again")
    return found
