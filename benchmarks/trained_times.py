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
from typing import NamedTuple, get_type_hints

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
ALIKE = "takes on machines made alike, everything else included"
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
    kinds = get_type_hints(Time)
    return [Time(**{name: kinds[name](row[name]) for name in Time._fields}) for row in rows]


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
    """Return what ResNet-20 learned by each method, and its run's time where that is shortest."""
    own = [time for time in times if time.network == RESNET.title]
    best = min(own, key=lambda time: time.seconds).machine
    scores = {run.label: run.scores[-1] for run in RESNET.runs}
    said = [
        f"{time.method} {scores[time.method]:.2f} % in {time.seconds:.1f} s"
        for time in own
        if time.machine == best
    ]
    return (
        f"[Really trained](docs/trained.md): {RESNET.title} on Fashion-MNIST, ten epochs, one "
        f"seed; test accuracy, and the whole run on `{best}` made alike: {'; '.join(said)}."
    )


def skipped() -> dict[str, str]:
    """Return the machines' names with what each skips."""
    return {entry.preset: skips for skips, entry in entries() if entry.preset in MACHINES}


def draw(times: Sequence[Time]) -> Figure:
    """Return the picture: a plot a network, a row a method, the one that learned most on top."""
    figure, plots = style.axes_on(13.0, 4.0, len(NETWORKS), len(NETWORKS))
    for axes, network in zip(plots, NETWORKS, strict=True):
        own = [time for time in times if time.network == network.title]
        runs = sorted(network.runs, key=lambda run: run.scores[-1] * network.better)
        _draw_runs(axes, [run.label for run in runs], own)
        named = [f"{run.label}: {run.scores[-1]:.{network.digits}f}" for run in runs]
        axes.set_yticks(range(len(runs)), named)
        axes.set_ylabel(network.score)
        axes.set_xlabel(f"s a run of {own[0].steps} steps of {own[0].batch}")
        style.finish(axes, [f"{network.title}: what was learned, and what the whole run", ALIKE])
    plots[-1].legend(fontsize=style.TINY, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _draw_runs(axes: Axes, labels: Sequence[str], times: Sequence[Time]) -> None:
    for (colour, marker), (name, skips) in zip(style.SERIES, skipped().items(), strict=False):
        own = [time for time in times if time.machine == name]
        x = [time.seconds for time in own]
        spread = [
            [time.seconds - time.low for time in own],
            [time.high - time.seconds for time in own],
        ]
        y = [labels.index(time.method) for time in own]
        label = f"{name}: {skips}"
        axes.errorbar(x, y, None, spread, marker, color=colour, label=label, markersize=6)
    axes.set_xlim(left=0)
    axes.set_ylim(-0.6, len(labels) - 0.4)


def main() -> None:
    save(measure([] if "--measure" in sys.argv else load()))
    times = load()
    PICTURE.write_bytes(style.as_png(draw(times)))
    put("trained-times", lines([time for time in times if time.network == RESNET.title]))
    put("trained-gpt-times", lines([time for time in times if time.network == GPT.title]))
    put("trained", [sentence(times)])


if __name__ == "__main__":
    main()
