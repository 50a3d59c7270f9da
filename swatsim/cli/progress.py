"""A progress bar on standard error, for the verbs that take their time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console

#: Of so many steps the reading is shown.
MANY_STEPS = 50

Show = Callable[[int, int], None]


@contextmanager
def progress(doing: str, what: str) -> Iterator[Show]:
    """Show a bar while a block runs; what is yielded takes how many of how many are done.

    The bar appears with the first report, so that an early refusal stays one line, and only where
    standard error is a terminal.

    Parameters
    ----------
    doing, what : str
        Words before and after the bar: "simulating", "ops".
    """
    # a moment that a verb without a bar does without
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    times = (TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn(what), *times)
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    task = bar.add_task(what, total=None)

    def show(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()


def reading(steps: int) -> AbstractContextManager[Show]:
    """Show a bar while so many steps of a trace are read, as `progress` does; none of a few."""
    return progress("reading", "steps") if steps >= MANY_STEPS else nullcontext(_nothing)


def _nothing(done: int, total: int) -> None:
    """Show nothing."""
