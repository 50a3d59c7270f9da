"""Two networks under one method after another on all machines, made alike: tables and picture.

    python benchmarks/paper/machines.py [--measure]

Takes the steps from machine_steps.csv beside this script; --measure simulates them anew first (what
``swatsim reproduce machines`` does, half an hour). Writes machines.md beside it, tables of pages
and the picture at the README's top.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
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
#: Of the figures, those that stand on a page; machines.md has all.
ON_PAGE = ("time of a step", "of the ideal")


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


def table(steps: list[Step], figure: str) -> Iterator[str]:
    runs = list(dict.fromkeys((step.network, step.method) for step in steps))
    first = dict(reversed(runs))
    heads = (f"{of}: {how}" if how == first[of] else how for of, how in runs)
    yield f"| {figure} | skips | {' | '.join(heads)} |"
    yield "|---|---|" + "---:|" * len(runs)
    for name, own in machines.by_machine(steps).items():
        found = {(step.network, step.method): FIGURES[figure].show(step) for step in own}
        cells = " | ".join(found[run] for run in runs)
        yield f"| `{name}`{changed(name)} | {own[0].skips} | {cells} |"


def changed(preset: str) -> str:
    """Return what gives a preset as many multipliers as the others have."""
    (entry,) = (entry for _, entry in machines.entries() if entry.preset == preset)
    return "".join(f", `{name}={value}`" for name, value in entry.equal.items())


def steps_of_methods() -> Iterator[str]:
    """Write the first table of all: what a step takes, and which machine is the fastest."""
    steps = load()
    runs = list(dict.fromkeys((step.network, step.method) for step in steps))
    first = dict(reversed(runs))
    heads = (f"{of}: {how}" if how == first[of] else how for of, how in runs)
    yield f"| ms a step | {' | '.join(heads)} |"
    yield "|---|" + "---:|" * len(runs)
    shortest = {
        run: min(it.time_ms for it in steps if (it.network, it.method) == run and not it.bound)
        for run in runs
    }
    for name, own in machines.by_machine(steps).items():
        found = {(step.network, step.method): step.time_ms for step in own}
        cells = (_marked(found[run], found[run] == shortest[run]) for run in runs)
        yield f"| `{name}`: {own[0].skips} | {' | '.join(cells)} |"
    yield ""
    yield _example([it for it in steps if (it.network, it.method) == runs[1] and not it.bound])


def _example(steps: list[Step]) -> str:
    """Word the fastest of one column, beside the first machine, which skips nothing."""
    first, best = steps[0], min(steps, key=lambda it: it.time_ms)
    return (
        f"So {first.network} under {first.method} takes {best.time_ms / first.time_ms:.0%} of the "
        f"time on `{best.machine}` that it takes on `{first.machine}`, and {best.elsewhere:.0%} of "
        "what is left is beside the layers, where no machine skips anything."
    )


def _marked(time_ms: float, shortest: bool) -> str:
    return f"**{time_ms:.1f}**" if shortest else f"{time_ms:.1f}"


def tables() -> Iterator[str]:
    steps = load()
    yield f"{'; '.join(machines_words.about(steps))}."
    for figure in ON_PAGE:
        yield f"\n{figure.capitalize()}: {FIGURES[figure].about}.\n"
        yield from table(steps, figure)
    yield ""
    yield "; ".join(machines_words.causes(steps)) + "."


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
    put("machines-alike", tables())
    PICTURE.write_bytes(as_png(machines_plots.times(load())))


if __name__ == "__main__":
    main()
