"""What ``swatsim reproduce machines`` does and shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from swatsim.cli.progress import progress
from swatsim.cli.show import table, times
from swatsim.outputs import write_files
from swatsim.reproduce import machines, machines_words
from swatsim.reproduce.machines import Step
from swatsim.results import as_csv


class Figure(NamedTuple):
    """A figure of the comparison: how it looks, and what it is of."""

    show: Callable[[Step], str]
    about: str


#: What the table says, section by section: heading, and figure.
FIGURES: Mapping[str, Figure] = {
    "time of a step": Figure(lambda step: f"{step.time_ms:.2f} ms", "layers, and everything else"),
    "beside the layers": Figure(
        lambda step: f"{step.elsewhere:.0%}", "share of that time that is everything else"
    ),
    "energy of a step": Figure(lambda step: f"{step.energy_mj:.1f} mJ", "of the whole step"),
    "of the ideal": Figure(
        lambda step: f"{step.of_ideal:.1%}",
        "what as many multipliers would take that do effectual work alone, by the layers' time",
    ),
    "over itself, nothing skipped": Figure(
        lambda step: times(step.speed_up), "speed-up of the whole step"
    ),
    "its layers over themselves": Figure(
        lambda step: times(step.speed_up_layers), "speed-up of the layers alone"
    ),
    "waiting for DRAM": Figure(lambda step: f"{step.dram:.0%}", "share of the layers' time"),
    "lost most to": Figure(
        lambda step: step.lost_most_to.replace("_", " "), "of the layers' lane-cycles"
    ),
}


def run(
    titles: Sequence[str], samples: int | None, uneven: bool, store: bool, output: str | None
) -> list[Any]:
    """Simulate, write what is to be written, and return what is to be printed."""
    with progress("simulating (machines)", "machines") as show:
        what: dict[str, Any] = {"samples": samples, "uneven": uneven, "store": store}
        steps = machines.measure(titles, progress=show, **what)
    written = [] if output is None else _write(output, steps)
    words = (f"{line[0].upper()}{line[1:]}." for line in machines_words.causes(steps))
    shown = map(_table, machines_words.networks(steps).values())
    return [*shown, *words, *(f"wrote {path}" for path in written)]


def _table(steps: Sequence[Step]) -> Any:
    methods = dict.fromkeys(step.method for step in steps)
    return table(
        "\n".join(machines_words.about(steps)),
        ("", "skips", "machine", *methods),
        _rows(steps),
        left=3,
    )


def _rows(steps: Sequence[Step]) -> Iterator[list[str]]:
    for heading, figure in FIGURES.items():
        for i, (name, own) in enumerate(machines.by_machine(steps).items()):
            yield [heading * (i == 0), own[0].skips, name, *map(figure.show, own)]
        yield []


def _write(output: str, steps: Sequence[Step]) -> list[Any]:

    # matplotlib, which tables do without
    from swatsim.reports.style import as_png
    from swatsim.reproduce import machines_plots

    shares = ("of_ideal", "elsewhere")
    rows = [asdict(it) | {name: getattr(it, name) for name in shares} for it in steps]
    contents = {
        "machines.csv": as_csv(rows),
        "machines.png": as_png(machines_plots.times(steps)),
    }
    return write_files(Path(output), contents)
