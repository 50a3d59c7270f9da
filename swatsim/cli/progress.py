"""A progress bar on standard error, for the verbs that take their time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def progress(doing: str, what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while a block runs; what is yielded takes how many of how many are done.

    The bar appears with the first report, so that an early refusal stays one line, and only where
    standard error is a terminal.

    Parameters
    ----------
    doing, what : str
        Words before and after the bar: "simulating", "ops".
    """
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
