"""Two networks under one method after another on all machines, made alike: tables and picture.

    python benchmarks/paper/machines.py [--measure]

Takes the steps from machine_steps.csv beside this script; --measure simulates them anew first (what
``swatsim reproduce machines`` does, half an hour). Writes machines.md beside it, tables of pages
and the picture at the README's top.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import ROOT, put

from swatsim.cli.reproduced_machines import FIGURES
from swatsim.reports.style import as_png
from swatsim.reproduce import machines, machines_plots, machines_words
from swatsim.reproduce.machines import Step

HERE = Path(__file__).parent
STEPS = HERE / "machine_steps.csv"
REPORT = HERE / "machines.md"
PICTURE = ROOT / "benchmarks" / "figures" / "machines.png"


def measure() -> None:
    found = machines.measure(progress=lambda done, total: print(f"{done}/{total} simulations"))
    with STEPS.open("w", newline="") as file:
        writer = csv.DictWriter(file, [it.name for it in fields(Step)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(step) for step in found)


def load() -> list[Step]:
    kinds = {"int": int, "float": float, "bool": lambda text: text == "True"}
    with STEPS.open(newline="") as file:
        return [
            Step(**{it.name: kinds.get(str(it.type), str)(row[it.name]) for it in fields(Step)})
            for row in csv.DictReader(file)
        ]


def heads(steps: list[Step]) -> dict[tuple[str, str], str]:
    """Return what stands above each column, by network and method; the network once."""
    runs = list(dict.fromkeys((step.network, step.method) for step in steps))
    first = dict(reversed(runs))
    return {(of, how): f"{of}: {how}" if how == first[of] else how for of, how in runs}


def table(steps: list[Step], figure: str) -> Iterator[str]:
    above = heads(steps)
    yield f"| {figure} | skips | {' | '.join(above.values())} |"
    yield "|---|---|" + "---:|" * len(above)
    for name, own in machines.by_machine(steps).items():
        found = {(step.network, step.method): FIGURES[figure].show(step) for step in own}
        cells = " | ".join(found[run] for run in above)
        yield f"| `{name}`{changed(name)} | {own[0].skips} | {cells} |"


def changed(preset: str) -> str:
    """Return what gives a preset as many multipliers as the others have."""
    (entry,) = (entry for _, entry in machines.entries() if entry.preset == preset)
    return "".join(f", `{name}={value}`" for name, value in entry.equal.items())


def steps_of_methods() -> Iterator[str]:
    """Write the first table of all: what a step takes, and which machine is the fastest."""
    steps = load()
    built = [step for step in steps if not step.bound]
    shortest = {run: min(_of(built, run), key=lambda it: it.time_ms) for run in heads(steps)}
    yield from _narrow(
        "ms a step", lambda it: _marked(f"{it.time_ms:.1f}", it in shortest.values())
    )
    yield ""
    run = next(it for it in shortest if it[1] != "dense")
    first, best = _of(built, run)[0], shortest[run]
    yield (
        f"So {first.network} under {first.method} takes {best.time_ms / first.time_ms:.0%} of the "
        f"time on `{best.machine}` that it takes on `{first.machine}`, and {best.elsewhere:.0%} of "
        "that is beside the layers, where no machine skips anything."
    )


def of_ideal() -> Iterator[str]:
    """Write how near the layers come to what is possible, and why."""
    steps = load()
    yield f"{'; '.join(machines_words.about(steps))}.\n"
    yield from _narrow("of the ideal, %", lambda it: f"{100 * it.of_ideal:.1f}")
    yield "\nWhy:\n"
    yield from (f"- {cause}." for cause in machines_words.causes(steps))


def _narrow(title: str, show: Callable[[Step], str]) -> Iterator[str]:
    """Write a table that a page has room for: without parameters, units at its corner."""
    steps = load()
    above = heads(steps)
    yield f"| {title} | {' | '.join(above.values())} |"
    yield "|---|" + "---:|" * len(above)
    for name, own in machines.by_machine(steps).items():
        cells = (show(step) for run in above for step in _of(own, run))
        yield f"| `{name}`: {own[0].skips} | {' | '.join(cells)} |"


def _of(steps: list[Step], run: tuple[str, str]) -> list[Step]:
    return [step for step in steps if (step.network, step.method) == run]


def _marked(text: str, marked: bool) -> str:
    return f"**{text}**" if marked else text


def report() -> Iterator[str]:
    steps = load()
    yield "# Machines beside each other, all made alike\n"
    yield "Made by `python benchmarks/paper/machines.py`, of what"
    yield "`swatsim reproduce machines` prints.\n"
    yield f"{'; '.join(machines_words.about(steps))}. Of all machines: {common()}."
    for figure, (_, what) in FIGURES.items():
        yield f"\n## {figure.capitalize()}\n\n{what.capitalize()}.\n"
        yield from table(steps, figure)
    yield "\n## Why\n"
    yield from (f"- {cause}." for cause in machines_words.causes(steps))


def common() -> str:
    return ", ".join(f"`{name}={value}`" for name, value in machines.COMMON.items())


def main() -> None:
    if "--measure" in sys.argv[1:]:
        measure()
    REPORT.write_text("\n".join(report()) + "\n")
    put("steps", steps_of_methods())
    put("of-ideal", of_ideal())
    PICTURE.write_bytes(as_png(machines_plots.times(load())))


if __name__ == "__main__":
    main()
