"""The picture of the comparison of machines: a table of bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from swatsim.reports.bar_table import Bar, Panel, bar_table, longest_of
from swatsim.reports.style import Figure
from swatsim.reproduce.machines import Step
from swatsim.reproduce.machines_words import about, networks

KEY = (
    "numbers: ms of a step; grey: everything beside the layers; dotted: as many multipliers that "
    "do effectual multiply-accumulates alone (both factors non-zero), memory and all else left "
    "out; dark: the shortest step under a method"
)


def times(steps: Sequence[Step]) -> Figure:
    """Return a picture of what a step of each method takes on each machine.

    A column a network and method, a bar a machine, all of a network on one scale; a dotted line is
    what as many multipliers would take for the layers that do effectual work alone.
    """
    own = networks(steps)
    runs = list(dict.fromkeys((step.network, step.method) for step in steps))
    longest = {title: longest_of([step.time_ms for step in of]) for title, of in own.items()}
    panels = []
    for title, method in runs:
        found = [step for step in own[title] if step.method == method]
        first = method == own[title][0].method
        heading = method.replace("-U ", "-U\n").replace("RigL ", "RigL\n")
        panels.append(_panel(f"{title if first else ''}\n{heading}", found, longest[title]))
    cut = dict.fromkeys(step.network for step in steps if step.time_ms > longest[step.network])
    cuts = [f"{longest[title]:.1f} ms of {title}" for title in cut]
    key = KEY + (f"; with a gap: cut at {' and '.join(cuts)}" if cuts else "")
    return bar_table(panels, list(_lines(steps)), about(steps), key)


def _lines(steps: Sequence[Step]) -> Iterator[tuple[str, bool]]:
    """Yield what stands on each line: what machines skip, then those that do."""
    groups = dict.fromkeys((step.skips, step.machine) for step in steps)
    for skips in dict.fromkeys(skips for skips, _ in groups):
        yield skips, True
        yield from ((name, False) for of, name in groups if of == skips)


def _panel(title: str, steps: Sequence[Step], longest: float) -> Panel:
    best = min(step.time_ms for step in steps if not step.bound)
    bars = {
        step.machine: Bar(step.time_ms, step.layers_ms, step.time_ms == best, f"{step.time_ms:.1f}")
        for step in steps
    }
    return Panel(title, bars, longest, steps[0].ideal_ms)
