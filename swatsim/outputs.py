"""Folders that results, reports and timelines are written to: refused early, replaced as a set."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from swatsim.errors import ResultsError
from swatsim.files import ReplacedInPartError, publish_all, read_bounded

Rows = Sequence[Mapping[str, Any]]


class Plot(NamedTuple):
    """A plot that may lie beside results, and stands on their page.

    Parameters
    ----------
    shows : str
        In help.
    module : str
        Of `swatsim.reports`; its function of the plot's name draws it.
    main : bool
        Whether it is drawn unless one asks for all, which take longer than a small trace.
    there : callable of the results' rows to bool
        Whether there is something to show.
    """

    shows: str
    module: str
    main: bool = False
    there: Callable[[Rows], bool] = lambda rows: True


#: By name: the one list. Files, choices of the command line and the page's sections follow it.
PLOTS: Mapping[str, Plot] = {
    "speed_up": Plot("speed-up", "layer_bars", main=True),
    "pe_cycles": Plot("PE-cycles", "layer_bars", main=True),
    "energy": Plot(
        "energy",
        "layer_bars",
        there=lambda rows: all(row["energy_pj"] is not None for row in rows),
    ),
    "roofline": Plot("roofline", "roofline", there=lambda rows: any(row["blocks"] for row in rows)),
}
#: What may be asked for.
CHOICES: Mapping[str, Sequence[str]] = {
    "none": (),
    "main": tuple(name for name, plot in PLOTS.items() if plot.main),
    "all": tuple(PLOTS),
}
PLOT_FILES = tuple(f"{name}.png" for name in PLOTS)

#: Beside a page: the files that it wrote. A page of other results must not stay as theirs.
CONTENTS = "contents.json"
PAGE = "report.html"
#: Of a sweep: its index, and the folder of its points' files.
SWEEP, POINTS = "sweep.json", "points"
#: Where a page lies by default, in the folder of its results.
REPORT = "report"
#: A page has some dozens of files.
MAX_BYTES = 2**20


def contents_of(folder: Path) -> list[str]:
    """Return the files of a page that was written into a folder before, and the list of them."""
    try:
        stated = json.loads(read_bounded(folder / CONTENTS, MAX_BYTES))["files"]
        names = [name for name in stated if Path(name).name == name]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return [*names, CONTENTS]


def page_of(folder: Path) -> list[str]:
    """Return the files of the page in a folder of results: stale once the results are others.

    The page itself is one of them, whatever became of the list of its parts.
    """
    names = dict.fromkeys([PAGE, *contents_of(folder / REPORT)])
    return [f"{REPORT}/{name}" for name in names]


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder that results can't or mustn't be written to, before any work is done.

    Raises
    ------
    ResultsError
        If it, or a parent, is a file or not writeable, or it is (a part of) a trace.
    """
    if not os.fspath(folder):
        raise ResultsError("can't write to '': name a directory")
    try:
        _check_folder(Path(folder).absolute())
    except OSError as error:
        raise ResultsError(f"can't write to {folder}: {error.strerror}") from None


def refuse_existing(folder: Path, names: Iterable[str]) -> None:
    """Refuse a folder in which one of some files is already.

    Raises
    ------
    ResultsError
        If one is; it names the option.
    """
    there = next((name for name in names if (folder / name).exists()), None)
    if there is not None:
        raise ResultsError(
            f"can't write to {folder}: {there} is there already; choose another directory, or "
            "replace it by overwrite=True"
        )


def _is_trace(path: Path) -> bool:
    manifest = path / "manifest.json"
    if not manifest.is_file():
        return False
    with manifest.open("rb") as file:
        return b"swatsim-trace" in file.read(10_000)


def _check_folder(path: Path) -> None:
    choose = "choose another directory"
    if any(_is_trace(place) for place in (path, *path.parents)):
        raise ResultsError(f"can't write to {path}: a trace is there; {choose}")
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "not writeable" if there.is_dir() else "a file"
        raise ResultsError(f"can't write to {path}: {there} is {what}; {choose}")


def write_files(
    folder: Path, contents: Mapping[str, bytes | Iterable[bytes]], gone: Collection[str] = ()
) -> list[Path]:
    """Write a set of files into a folder, in place of an earlier one: all of them or none.

    Parameters
    ----------
    folder : pathlib.Path
    contents : mapping of str to bytes, or to pieces of them
        In the order in which they replace what is there.
    gone : collection of str, optional
        Files of an earlier set that are removed.

    Raises
    ------
    ResultsError
        If there is no room, no permission, or the folder is a file.
    """
    paths = {folder / name: content for name, content in contents.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        publish_all(paths, [folder / name for name in gone])
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        make_room = "make room, or " if error.errno in (errno.ENOSPC, errno.EFBIG) else ""
        raise ResultsError(
            f"can't write to {folder}: {error.strerror or error}{where}; {_left_by(error)}: "
            f"{make_room}choose another directory"
        ) from None
    return list(paths)


def _left_by(error: OSError) -> str:
    """Return in words what became of the files that were there."""
    if not isinstance(error, ReplacedInPartError):
        return "what was there before is unchanged"
    return f"{', '.join(path.name for path in error.replaced)} were replaced, the others not"
