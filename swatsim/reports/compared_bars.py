"""The picture of a comparison: methods x machines, a bar each, the common baseline marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from swatsim.reports import compared_words as words
from swatsim.reports.bar_table import Bar, Panel, bar_table, longest_of
from swatsim.reports.labels import cell
from swatsim.reports.names import shortened
from swatsim.reports.span import percent
from swatsim.reports.style import Figure, wrapped
from swatsim.reports.tables import Row
from swatsim.reports.verdict import BOUNDS

if TYPE_CHECKING:
    from swatsim.reports.compare import Comparison

#: Inches of a picture that has few panels, and of the least of these.
WIDTH, LEAST = 7.5, 1.1
#: Inches of a character of a line's name, and beside the longest.
CHARACTER, BESIDE = 0.075, 0.25
#: Characters of a line's name, and lines of a panel's title.
NAMED, TITLED = 34, 3
#: Lines that are drawn; of more, the fastest.
SHOWN = 30
#: Panels beside each other; where there would be more, each result is a line.
PANELS = 8

Place = tuple[str, str]


def times(comparison: Comparison) -> Figure:
    """Return a picture of what each takes: a panel a method, a bar a machine, or the other way.

    All bars are on one scale. Where a result has no place of its own among methods and machines, or
    names are a user's, each is a line.
    """
    rows = dict(zip(_places(comparison), comparison.rows, strict=True))
    titles = list(dict.fromkeys(title for title, _ in rows))
    lines = _lines(comparison, rows)
    longest = _longest(comparison)
    panels = []
    for title in titles:
        own = {line: rows[title, line] for line in lines if (title, line) in rows}
        if own:
            panels.append(_panel(comparison, title, own, longest))
    short = shortened(lines, NAMED)
    names = max(0.8, BESIDE + CHARACTER * max(map(len, short.values())))
    panel = max(LEAST, (WIDTH - names) / len(panels))
    return bar_table(
        [_named(one, short, panel) for one in panels],
        [(name, False) for name in short.values()],
        _title(comparison, len(panels), len(lines)),
        _key(comparison, longest, len(panels)),
        panel=panel,
        names=names,
    )


def _named(panel: Panel, short: Mapping[str, str], width: float) -> Panel:
    """Return a panel with the short names of its lines, and a title within its width."""
    title = "\n".join(wrapped([panel.title], width)[:TITLED])
    return replace(panel, title=title, bars={short[line]: it for line, it in panel.bars.items()})


def _places(comparison: Comparison) -> list[Place]:
    """Return each result's panel and line: the longer of methods and machines are the lines."""
    places = list(comparison.places)
    methods, machines = ({place[i] for place in places} for i in (0, 1))
    fits = min(len(methods), len(machines)) <= PANELS
    if len(set(places)) < len(comparison.rows) or not fits:
        return [("", row["label"]) for row in comparison.rows]
    if len(methods) <= len(machines):
        return places
    return [(machine, method) for method, machine in places]


def _lines(comparison: Comparison, rows: dict[Place, Row]) -> list[str]:
    """Return the lines in their order; of many, those with the fastest results."""
    every = list(dict.fromkeys(line for _, line in rows))
    if len(every) <= SHOWN:
        return every
    order = sorted(rows, key=lambda place: words.cost_of(comparison, rows[place]))
    kept = list(dict.fromkeys(line for _, line in order))[:SHOWN]
    return [line for line in every if line in kept]


def _longest(comparison: Comparison) -> float:
    costs = [words.cost_of(comparison, row) for row in comparison.rows]
    return max(longest_of(costs), words.baseline_cost(comparison))


def _panel(comparison: Comparison, title: str, own: dict[str, Row], longest: float) -> Panel:
    best = min(words.cost_of(comparison, row) for row in own.values())
    bars = {line: _bar(comparison, row, best) for line, row in own.items()}
    return Panel(title, bars, longest, words.baseline_cost(comparison))


def _bar(comparison: Comparison, row: Row, best: float) -> Bar:
    cost = words.cost_of(comparison, row)
    whole = row["cycles"]
    part = cost * row["layers_cycles"] / whole if whole else 0.0
    said = [row["label"], f"{words.amount(comparison, cost)} for {comparison.unit.of_what}"]
    said.append(f"{cell('speed_up', row['speed_up'])} over the common baseline")
    said.append(f"{cell('own_speed_up', row['own_speed_up'])} over {row['own_baseline']}, its own")
    said.append(f"bound by {BOUNDS[row['bound']]}, {percent(row['bound_share'])} of the time")
    return Bar(cost, part, cost == best, cell(comparison.unit.column, cost), "\n".join(said))


def _title(comparison: Comparison, panels: int, lines: int) -> list[str]:
    """Return in words what the picture is of."""
    unit, rows = comparison.unit, comparison.rows
    what = "Time" if unit.word == "ms" else "Cycles"
    found = [f"{what} of {unit.of_what}, {unit.word}: {_sides(comparison)}"]
    means = list(dict.fromkeys(words.mean_of(row) for row in rows))
    found.append(means[0] if len(means) == 1 else "means of the recorded steps of each")
    if panels * lines < len(rows):
        found.append(f"of {len(rows)}, the fastest")
    return ["; ".join(found)]


def _sides(comparison: Comparison) -> str:
    """Return how many methods and machines there are, and the name of a single one."""
    rows = comparison.rows
    traces = list(dict.fromkeys((row["trace_id"], row["trace"]) for row in rows))
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    names = list(dict.fromkeys(name for _, name in traces))
    first = " and ".join(names) if len(traces) < 4 else f"{len(traces)} traces"
    second = machines[0] if len(machines) == 1 else f"{len(machines)} machines"
    return f"{first} on {second}"


def _key(comparison: Comparison, longest: float, panels: int) -> str:
    unit = comparison.unit
    parts = [f"numbers: {unit.word} of {unit.of_what}"]
    if any(row["layers_cycles"] != row["cycles"] for row in comparison.rows):
        parts.append("grey: everything beside the layers")
    cost = words.amount(comparison, words.baseline_cost(comparison))
    parts.append(f"dotted: the common baseline, {comparison.baseline.words}, {cost}")
    parts.append("dark: the fastest" + " of each column" * (panels > 1))
    if any(words.cost_of(comparison, row) > longest for row in comparison.rows):
        parts.append(f"with a gap: cut at {words.amount(comparison, longest)}")
    return "; ".join(parts)
