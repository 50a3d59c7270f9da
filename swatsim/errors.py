"""Everything swatsim refuses, it refuses with a `SwatsimError`: one line that says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from swatsim.printable import one_line


class SwatsimError(Exception):
    """A bad input; the message says what was wrong, what was got, what is allowed, what to do.

    Parameters
    ----------
    *message : str
    of_argument : bool, optional
        Whether the value of an argument is refused, and not a file; by default as most of its kind.
    """

    #: Whether the value of an argument is refused: the help says what is allowed.
    of_argument = False

    def __init__(self, *message: object, of_argument: bool | None = None) -> None:
        super().__init__(*message)
        if of_argument is not None:
            self.of_argument = of_argument

    def __str__(self) -> str:
        """Return one line, safe to print: names and paths in it may be anybody's."""
        return one_line(super().__str__())


class ConfigError(SwatsimError):
    """An unknown machine, preset or parameter, or a value out of range or at odds with another."""

    of_argument = True


class TraceError(SwatsimError):
    """A trace that is missing, foreign, damaged, or can't be written."""


class WorkloadError(SwatsimError):
    """A layer that can't exist, or a mask that doesn't fit its layer."""

    of_argument = True


class PolicyError(SwatsimError):
    """A sparsity or a policy parameter that is not allowed."""

    of_argument = True


class RecordingError(SwatsimError):
    """A training run that can't be recorded as asked."""

    of_argument = True


class ResultsError(SwatsimError):
    """Results that are missing, foreign, don't belong together, or can't be written."""


def as_own(error: BaseException, advice: str) -> SwatsimError:
    """Return what went wrong as an error of swatsim's; its frames go, for they may hold tensors."""
    if not isinstance(error, SwatsimError):
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        file = frame.tb_frame.f_code.co_filename.rpartition("/")[2] if frame else "?"
        line = frame.tb_lineno if frame else 0
        error = RecordingError(f"{type(error).__name__}: {error} ({file}, line {line}): {advice}")
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)


def unknown(what: str, got: str, known: Iterable[str]) -> str:
    """Return the refusal of a name in words: the nearest known one first, then all of them."""
    names = sorted(set(known))
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {got!r}: {hint}known are {listed(names)}"


def listed(names: Iterable[str], most: int = 50) -> str:
    """Return names as a list in a sentence, and of many how many more there are."""
    all_names = list(names)
    rest = f" and {len(all_names) - most} more" if len(all_names) > most else ""
    return ", ".join(all_names[:most]) + rest


def shown(value: object, most: int = 200) -> str:
    """Return a value as it is shown in a sentence, shortened; some have no text: huge numbers."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  (it is anybody's)
        text = f"<{type(value).__name__} without a text: {type(error).__name__}>"
    text = " ".join(text.split())  # an array's has lines
    return text if len(text) <= most else f"{text[: most - 3]}..."
