"""What each method's whole training run takes on machines, beside what its network learned.

    python benchmarks/trained_times.py [--measure]

Takes the runs from trained_times.csv beside this script, and estimates what is not in it from three
or four recorded steps a run (some minutes each); --measure estimates all anew. The machines are
those of the README's picture, made alike. Makes benchmarks/figures/trained_times.png and the tables
of docs/trained.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from pages import ROOT, put
from trained_runs import GPT, RESNET, Network, Run

import swatsim
from swatsim.reports import style
from swatsim.reports.style import Figure
from swatsim.reproduce.machines import Entry, entries

TABLE = Path(__file__).with_name("trained_times.csv")
PICTURE = ROOT / "benchmarks" / "figures" / "trained_times.png"
NETWORKS = (RESNET, GPT)
MACHINES = ("scale-sim-os", "stc", "tensordash", "swat", "sparten")
#: Every so many recorded steps, and the last one.
EVERY = 4


class Time(NamedTuple):
    """A whole training run on a machine: its time with a 95 % interval, in s, and energy, in J."""

    network: str
    method: str
    machine: str
    steps: int
    batch: int
    seconds: float
    low: float
    high: float
    joules: float


def estimated(network: Network, run: Run, entry: Entry) -> Time:
    """Estimate a run on a machine."""
    recorded = run.trace.steps
    some = sorted({*recorded[::EVERY], recorded[-1]})
    found = swatsim.estimate_run(run.trace, entry.quick, run.steps, steps=some)
    time, energy = found.ours["time_ms"], found.ours["energy_pj"]
    ends = (time.low, time.high) if time.known else (time.value, time.value)
    seconds = [value / 1000 for value in (time.value, *ends)]
    batch = run.trace.manifest.batch_size
    return Time(
        network.title, run.label, entry.preset, run.steps, batch, *seconds, energy.value / 1e12
    )


def measure(known: Sequence[Time]) -> Iterator[Time]:
    """Yield all runs on all machines: those that are known, and others estimated."""
    found = {(time.network, time.method, time.machine): time for time in known}
    chosen = [entry for _, entry in entries() if entry.preset in MACHINES]
    for network in NETWORKS:
        for run in network.runs:
            for entry in chosen:
                yield found.get((network.title, run.label, entry.preset)) or estimated(
                    network, run, entry
                )


def save(times: Iterable[Time]) -> None:
    """Write the table, a run as soon as it is there."""
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Time._fields)
        for time in times:
            writer.writerow(time)
            file.flush()


def load() -> list[Time]:
    """Return the runs of the table; none if there is no table."""
    if not TABLE.is_file():
        return []
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = Time.__annotations__
    read = {"int": int, "float": float, "str": str}
    return [Time(**{name: read[kinds[name]](row[name]) for name in Time._fields}) for row in rows]


def lines(times: Sequence[Time]) -> Iterator[str]:
    """Yield a table: a row a machine, a column a method, by time and against training dense."""
    methods = list(dict.fromkeys(time.method for time in times))
    dense = {time.machine: time.seconds for time in times if time.method == "dense"}
    yield f"| s a run | {' | '.join(methods)} |"
    yield "|---|" + "---:|" * len(methods)
    for name, skips in skipped().items():
        row = [time for time in times if time.machine == name]
        cells = [f"{time.seconds:.1f} ({dense[name] / time.seconds:.2f}x)" for time in row]
        yield f"| `{name}`: {skips} | {' | '.join(cells)} |"


def sentence(times: Sequence[Time]) -> str:
    """Return what ResNet-20 learned by each method, and how long its run takes where it is least."""
    own = [time for time in times if time.network == RESNET.title]
    best = min(own, key=lambda time: time.seconds).machine
    scores = {run.label: run.scores[-1] for run in RESNET.runs}
    said = [
        f"{time.method} {scores[time.method]:.2f} % in {time.seconds:.1f} s"
        for time in own
        if time.machine == best
    ]
    return (
        f"[Really trained](docs/trained.md): {RESNET.title} on Fashion-MNIST, ten epochs, one seed; "
        f"test accuracy, and the whole run on `{best}` made alike: {'; '.join(said)}."
    )


def skipped() -> dict[str, str]:
    """Return the machines' names with what each skips."""
    return {entry.preset: skips for skips, entry in entries() if entry.preset in MACHINES}


def draw(times: Sequence[Time]) -> Figure:
    """Return the picture: what was learned, against the run's time; a plot a machine."""
    figure, plots = style.axes_on(14.0, 6.6, len(NETWORKS) * len(MACHINES), len(MACHINES))
    places = ((network, machine) for network in NETWORKS for machine in skipped().items())
    for axes, (network, (name, skips)) in zip(plots, places, strict=True):
        own = [time for time in times if time.network == network.title]
        _draw_runs(axes, network, [time for time in own if time.machine == name])
        style.finish(axes, [f"{network.title} on {name}", skips])
        axes.set_xlim(0, 1.08 * max(time.high for time in own))
        axes.set_xlabel(f"s a run: {own[0].steps} steps of {own[0].batch}")
    for first, network in zip(plots[:: len(MACHINES)], NETWORKS, strict=True):
        first.set_ylabel(network.score)
        first.legend(fontsize=style.TINY, frameon=False, loc="center left")
    return figure


def _draw_runs(axes: Axes, network: Network, times: Sequence[Time]) -> None:
    scores = {run.label: run.scores[-1] for run in network.runs}
    for (colour, marker), time in zip(style.SERIES, times, strict=False):
        spread = [[time.seconds - time.low], [time.high - time.seconds]]
        y = scores[time.method]
        axes.errorbar(time.seconds, y, None, spread, marker, color=colour, label=time.method)


def main() -> None:
    save(measure([] if "--measure" in sys.argv else load()))
    times = load()
    PICTURE.write_bytes(style.as_png(draw(times)))
    for network, block in zip(NETWORKS, ("trained-times", "trained-gpt-times"), strict=True):
        put(block, lines([time for time in times if time.network == network.title]))
    put("trained", [sentence(times)])


if __name__ == "__main__":
    main()
