"""Of which results a page is made, and by which command: one of earlier results shows itself."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from swatsim.files import read_bounded
from swatsim.results import MAX_PROVENANCE_BYTES, Results
from swatsim.sealed import DIGEST

#: What Python calls a package's command.
MAIN = "__main__.py"
#: How a page of earlier results is told.
ANEW = (
    "Results that are written anew have another digest: the one in provenance.json or sweep.json "
    "beside them."
)


def made_of(whose: str, results: Results) -> str:
    """Return in words of what a page is made.

    Parameters
    ----------
    whose : str
        Results or a sweep, with their digest.
    results : Results
        They, or of a sweep those of one point: their command made all.
    """
    return f"Made of the {whose}: {simulated(results)}. {ANEW}"


def simulated(results: Results) -> str:
    """Return in words of which trace results are, by which command, and of when."""
    known, first = results.provenance, results.rows[0]
    command = known.get("command", ())
    by = f" by: {command_line(command)}" if command else " in a process that is not known"
    return (
        f"trace {first['trace']} {first['trace_id']}, simulated"
        f"{by}, at {known.get('time', 'a time that is not known')}"
    )


def command_line(command: Sequence[object]) -> str:
    """Return a command as one types it, the program by its name alone."""
    program, *others = map(str, command)
    name = Path(program).name
    return shlex.join(["swatsim" if name == MAIN else name, *others])


def stated(path: Path) -> str:
    """Return the digest that a file of JSON states of what is beside it, which was checked."""
    try:
        return str(json.loads(read_bounded(path, MAX_PROVENANCE_BYTES))[DIGEST])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "without a digest"
