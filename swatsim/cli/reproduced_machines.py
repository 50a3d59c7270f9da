"""What ``swatsim reproduce machines`` does and shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swatsim.cli.progress import progress
from swatsim.cli.show import table, times
from swatsim.outputs import write_files
from swatsim.reproduce import machines
from swatsim.reproduce.machines import METHODS, Step
from swatsim.results import as_csv

#: What the table says, section by section: heading, and how a figure looks.
FIGURES: Mapping[str, Callable[[Step], str]] = {
    "time of a step": lambda step: f"{step.time_ms:.2f} ms",
    "energy of a step": lambda step: f"{step.energy_mj:.1f} mJ",
    "of the ideal": lambda step: f"{step.of_ideal:.1%}",
    "over itself, nothing skipped": lambda step: times(step.speed_up),
    "waiting for DRAM": lambda step: f"{step.dram:.0%}",
    "lost most to": lambda step: step.lost_most_to.replace("_", " "),
}


def run(batch: int, uneven: bool, output: str | None) -> list[Any]:
    """Simulate, write what is to be written, and return what is to be printed."""
    with progress("simulating (machines)", "machines") as show:
        steps = machines.measure(batch=batch, uneven=uneven, progress=show)
    written = [] if output is None else _write(output, steps)
    words = (f"{line[0].upper()}{line[1:]}." for line in machines.causes(steps))
    return [_table(steps), *words, *(f"wrote {path}" for path in written)]


def _table(steps: Sequence[Step]) -> Any:
    return table(
        "\n".join(machines.about(steps)),
        ("", "skips", "machine", *METHODS),
        _rows(steps),
        left=3,
    )


def _rows(steps: Sequence[Step]) -> Iterator[list[str]]:
    for heading, show in FIGURES.items():
        for i, (name, own) in enumerate(machines.by_machine(steps).items()):
            yield [heading * (i == 0), own[0].skips, name, *map(show, own)]
        yield []


def _write(output: str, steps: Sequence[Step]) -> list[Any]:

    # matplotlib, which tables do without
    from swatsim.reports.style import as_png
    from swatsim.reproduce import machines_plots

    rows = [{**asdict(step), "of_ideal": step.of_ideal} for step in steps]
    contents = {
        "machines.csv": as_csv(rows),
        "machines.png": as_png(machines_plots.times(steps)),
    }
    return write_files(Path(output), contents)
