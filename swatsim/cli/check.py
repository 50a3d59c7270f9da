"""``swatsim check``: read every mask of a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from swatsim.tracefile import Trace


@click.command()
@click.argument("trace", type=click.Path())
def check(trace: str) -> None:
    """Verify every mask of a trace.

    Its bytes, its shape, its count of ones and its digest.

    Every damaged step is named; the exit code is 2 if there is one.
    """
    from swatsim.cli.show import console, count
    from swatsim.errors import TraceError
    from swatsim.tracefile import open_trace

    source = open_trace(trace)
    masks = elements = 0
    damaged: dict[int, str] = {}
    for number in source.steps:
        try:
            for record in source.step(number).check():
                masks += 1
                elements += record.elements
        except TraceError as error:
            damaged[number] = str(error)
    _refuse_if(damaged, source)
    console().print(
        f"{source.path}: {len(source.steps)} steps, {masks} masks of {count(elements)} elements "
        "are whole"
    )


def _refuse_if(damaged: dict[int, str], source: Trace) -> None:
    """Name every damaged step, and say of the first one what is wrong."""
    from swatsim.errors import TraceError

    if damaged:
        numbers = ", ".join(map(str, damaged))
        raise TraceError(
            f"{source.path}: {len(damaged)} of {len(source.steps)} steps are damaged ({numbers}): "
            f"{next(iter(damaged.values()))}"
        )
