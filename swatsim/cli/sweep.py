"""``swatsim sweep``: many machines, many traces."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path, PurePath
from typing import Any

import click

from swatsim.cli import as_json, stored
from swatsim.cli.as_json import JSON
from swatsim.cli.options import ENERGY, OP, PRESETS, SETTINGS, STORE, parse
from swatsim.cli.progress import progress
from swatsim.cli.show import console, count, joules, padded, percent, table, times
from swatsim.errors import ConfigError
from swatsim.reports import differences
from swatsim.reports.made import command_line
from swatsim.reports.remarks import LAYERS_ALONE
from swatsim.reports.span import Span
from swatsim.reports.tables import OF_IDEAL
from swatsim.simulator.run import threads_of
from swatsim.sweeps import run
from swatsim.sweeps.cluster import Cluster
from swatsim.sweeps.forecast import Forecast, duration, forecast
from swatsim.sweeps.inline import as_toml, entries_of, value_of
from swatsim.sweeps.logs import LOGS
from swatsim.sweeps.plan import Plan
from swatsim.sweeps.slurm import slurm as submitting
from swatsim.sweeps.spec import Spec, read_spec
from swatsim.sweeps.summary import Row, Summary

#: Points of the table that ends a sweep.
SHOWN = 20
#: The exit code when time was up before all was done: as of `timeout`.
UNFINISHED = 124
#: The exit code when points failed and none is done, so that nothing can follow: as of an error.
NONE_DONE = 2
#: A forecast is corrected once, when jobs took so many seconds, and were this share of all.
SECONDS, SHARE = 3.0, 0.05


@click.command()
@click.argument("sources", metavar="SPEC_OR_TRACES", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder of the sweep.")
@click.option(
    "-m",
    "--machine",
    "presets",
    multiple=True,
    help="Of traces: a preset to run them on; repeatable. Presets: {known}.",
    **PRESETS,
)
@SETTINGS
@click.option("--constraint", "constraints", multiple=True, help="Of traces: as in a SPEC.")
@click.option("--baseline", help="Of traces: compare with this preset: {known}.", **PRESETS)
@ENERGY
@click.option("--step", "steps", type=int, multiple=True, help="Of traces: only this step.")
@click.option("--op", "ops", type=OP, multiple=True, help="Of traces: only this op; repeatable.")
@click.option("--layers-only", is_flag=True, help="Of traces: only what multiplies matrices.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes; one a core by default. On a cluster: tasks that it has at a time.",
)
@click.option("--dask", metavar="ADDRESS", help="Run on a Dask cluster: its scheduler's address.")
@click.option(
    "--slurm",
    metavar="NAME=VALUE",
    multiple=True,
    help="Run on Slurm: a parameter of sbatch as submitit names it, such as time=120 (minutes), "
    "partition=cpu, mem=8GB; repeatable.",
)
@click.option(
    "--shard",
    metavar="I/N",
    help="Run the I-th of N parts alone, such as 3/8; all parts write into one folder.",
)
@click.option(
    "--max-hours",
    type=click.FloatRange(0, min_open=True),
    metavar="HOURS",
    help=f"Begin no point after so long; if any is left, the exit code is {UNFINISHED}.",
)
@click.option(
    "--module",
    "modules",
    multiple=True,
    help="A module of your own whose machines SPEC may name, as MODULE:PRESET; its code is run.",
)
@STORE
@click.option("--dry-run", is_flag=True, help="Say what is to do, of traces as a SPEC, and stop.")
@click.option("--all", "whole", is_flag=True, help=f"Show all points and columns, not {SHOWN}.")
@JSON
def sweep(
    sources: tuple[str, ...],
    output: str,
    workers: int | None,
    dask: str | None,
    slurm: tuple[str, ...],
    shard: str | None,
    max_hours: float | None,
    store: bool,
    dry_run: bool,
    whole: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Simulate many machines on many traces.

    Either SPEC, a TOML file: traces, machines with grids of parameters, constraints. Or traces and
    options: every trace runs on each machine (-m), with every combination of the values of its
    parameters: --set rows=4,8 --set dram=ddr4-3200,hbm2. A machine that lacks one of them is not
    varied in it.

    What is finished is kept in the output folder, point by point, and never done again: run the
    same command to go on. How long it will take is estimated from some ops, and again from the
    first jobs, on standard error.
    """
    entries, chosen = _chosen(sources, **options)
    processes = None if dask or slurm else threads_of(workers)
    part = None if shard is None else _part(shard)
    if dry_run:
        _print_plan(run.look(chosen, output, part, store), entries, processes, as_json)
        return
    with _cluster(dask, slurm, output) as executor, progress("sweeping", "jobs") as show:
        watch = _Watch(processes, show)
        summary = run.sweep(
            chosen,
            output,
            executor=executor,
            workers=workers,
            max_hours=max_hours,
            shard=part,
            progress=watch.progress,
            announce=watch.announce,
            store=store,
        )
    stored.show(summary.looked)
    if as_json:
        _print_json(summary)
    else:
        _print(summary, whole, watch.is_left)
    if watch.is_left:
        click.get_current_context().exit(UNFINISHED)
    if summary.failed and all(row["status"] != "done" for row in summary.rows):
        click.get_current_context().exit(NONE_DONE)


def _part(text: str) -> tuple[int, int]:
    """Return which part of how many "3/8" is."""
    part, _, of = text.partition("/")
    if not (part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of)):
        raise ConfigError(f"--shard {text!r} is none: write the part, from 1, and of how many: 3/8")
    return int(part), int(of)


def _chosen(
    sources: tuple[str, ...],
    presets: tuple[str, ...],
    settings: tuple[str, ...],
    modules: tuple[str, ...],
    energy: str,
    **others: Any,
) -> tuple[dict[str, Any] | None, Spec]:
    """Return a specification, and its entries if it was said in options.

    Raises
    ------
    ConfigError
        If it is neither one file nor traces and machines.
    """
    if presets:
        others["energy"] = None if energy == _default_energy() else energy
        found = {name: list(it) if isinstance(it, tuple) else it for name, it in others.items()}
        entries = entries_of(sources, presets, parse(settings), **found)
        return entries, Spec(**entries)
    if len(sources) > 1 or Path(sources[0]).is_dir():
        raise ConfigError(
            f"{sources[0]}: no machine is named to run it on: name one or more, as in -m tensordash"
        )
    given = [name for name, value in {"set": settings, **others}.items() if value]
    if given:
        raise ConfigError(
            f"--{given[0].removesuffix('s').replace('_', '-')} is of traces, with -m MACHINE; "
            "a SPEC says it in its file"
        )
    return None, read_spec(sources[0], modules)


def _default_energy() -> Any:
    return Spec.model_fields["energy"].default


class _Watch:
    """Prints how long a sweep will take: before it begins, and once more from its first jobs.

    Parameters
    ----------
    processes : int or None
        None: it runs elsewhere, on nobody knows how many.
    show : callable of (int, int)
        A bar.
    """

    def __init__(self, processes: int | None, show: Callable[[int, int], None]) -> None:
        self._processes = processes
        self._show = show
        self._forecast: Forecast | None = None
        self._begun = 0.0
        self._jobs_before: int | None = None
        self._corrected = False
        self._jobs = self._done = 0

    def announce(self, plan: Plan) -> None:
        """Print what is to do, and how long it will take."""
        self._jobs = sum(len(group.jobs) for group in plan.groups)
        if self._jobs:
            self._forecast = forecast(plan, self._processes)
            click.echo(f"{plan.words(self._forecast.kept)}, {self._forecast.words}", err=True)
        else:
            click.echo(plan.words(), err=True)

    @property
    def is_left(self) -> bool:
        """Whether jobs of this process are left."""
        return self._done < self._jobs

    def progress(self, done: int, total: int) -> None:
        """Show how many jobs are done, and correct the forecast when enough are."""
        self._show(done, total)
        self._done = done
        if self._corrected or self._forecast is None:
            return
        if self._jobs_before is None or done <= (self._forecast.processes or 1):
            # a process's first job waits for it to start
            self._jobs_before, self._begun = done, time.monotonic()
        elapsed = time.monotonic() - self._begun
        seconds = self._forecast.seconds_of(self._jobs_before, done)
        if elapsed > SECONDS and done < total and seconds > SHARE * self._forecast.cpu_seconds:
            left = duration(self._forecast.left(self._jobs_before, done, elapsed))
            click.echo(f"{left} left, by the first {done} of {total} jobs", err=True)
            self._corrected = True


def _print_plan(
    plan: Plan, entries: dict[str, Any] | None, processes: int | None, json: bool
) -> None:
    """Print what is to do; of a sweep in options, behind it, the file that says the same."""
    found = forecast(plan, processes) if plan.groups else Forecast([], processes)
    if json:
        counts = {**plan.counts, "processes": processes, "seconds": found.seconds}
        counts |= {"cpu_seconds": found.cpu_seconds, "stored": found.stored}
        as_json.write("sweep", {**counts, "spec": entries})
        return
    words = plan.words(found.kept) + (f", {found.words}" if plan.groups else "")
    if entries is None:
        console().print(words)
    else:
        click.echo(f"# {words}\n{as_toml(entries)}", nl=False)


def _print(summary: Summary, whole: bool, unfinished: bool) -> None:
    out = console()
    out.print(_table(summary, whole))
    out.say_what_was_dropped()
    for sentence in _sentences(summary, whole):
        out.print(sentence)
    for sentence in _ending(summary, unfinished):
        out.print(sentence)


def _ending(summary: Summary, unfinished: bool) -> Iterator[str]:
    """Yield what was written, what is left, and the command that comes next."""
    output = str(summary.folder)
    if not summary.left:
        yield f"wrote {output}: sweep.json, summary.csv, points/, logs/"
        yield f"Next: swatsim report {shlex.quote(output)}"
        return
    yield f"wrote {output}: points/, logs/"
    left = f"{len(summary.left)} of {len(summary.rows)} points are left"
    if unfinished:
        yield f"{left}: the time is up."
        yield f"Next: {command_line(sys.argv)}"
    else:
        yield f"{left} to other parts of the sweep."


def _sentences(summary: Summary, whole: bool) -> Iterator[str]:
    """Yield what is to be said of all points."""
    if whole:
        yield f"Of the ideal: {OF_IDEAL}."
    why = dict.fromkeys(row["others_left_out"] for row in summary.rows if row["status"] == "done")
    for reason in filter(None, why):
        yield f"{LAYERS_ALONE}: {reason}."
    for warning in summary.warnings:
        yield f"warning: {warning}."
    for row in summary.failed[:SHOWN]:
        log = summary.folder / LOGS / f"{row['point']}.log"
        see = f" (see {log})" if log.is_file() else ""
        yield f"failed: {row['machine']} on {row['trace']}: {row['error']}{see}"


def _print_json(summary: Summary) -> None:
    found = {"folder": summary.folder, "points": summary.rows, "warnings": summary.warnings}
    as_json.write("sweep", found)


def _cluster(
    address: str | None, slurm: tuple[str, ...], output: str
) -> AbstractContextManager[Any]:
    """Return a Dask cluster or submitit's executor, if one is named, else None, as a context."""
    if address and slurm:
        raise ConfigError("--dask and --slurm are two clusters: name one")
    if slurm:
        words = parse(slurm, "--slurm time=120")
        parameters = {name: value_of(text) for name, text in words.items()}
        return nullcontext(submitting(Path(output), parameters))
    return nullcontext() if address is None else Cluster(address)


#: Columns that go where there is no room, the first one first.
EXPENDABLE = (
    *("of the ideal", "layers, of the ideal", "elsewhere of the baseline", "compute only"),
    *("layers, compute only", "cycles", "energy efficiency", "layers alone", "multipliers"),
    *("trace", "value type", "clock", "DRAM bandwidth", "energy"),
)


def _table(summary: Summary, every: bool) -> Any:
    done = [row for row in summary.rows if row["status"] == "done"]
    fastest = sorted(done, key=lambda row: row["time_ms"])[: None if every else SHOWN]
    whole = any(not row["others_left_out"] for row in fastest)
    rows = [_words(row, whole) for row in fastest]
    points = f"{len(done)} point{'s' * (len(done) != 1)}"
    title = f"{points} done, {len(summary.failed)} failed; the fastest first"
    if len(fastest) < len(done):
        title += f", {SHOWN} of them (--all: every one)"
    spans = [Span.from_row(row) for row in fastest]
    if means := dict.fromkeys(f"{span.subject}: {span.mean}" for span in spans):
        title += f". Cycles, ms, energy without leakage of {'; of '.join(means)}"
    title += "; speed-ups over the own baseline of each" if fastest else ""
    headings = list(rows[0]) if rows else ["machine"]
    cells = (list(row.values()) for row in rows)
    return table(title, headings, cells, left=1, expendable=() if every else EXPENDABLE)


def _words(row: Row, whole: bool) -> dict[str, str]:
    """Return a point's cells by their headings; `whole`: some are of whole steps."""
    layers = "layers, " if whole else ""
    found = {
        "machine": row["machine"],
        "ms": padded(row["time_ms"]),
        "speed-up": times(row["speed_up"]),
    }
    found |= {"energy": joules(row["energy_pj"]), "trace": PurePath(row["trace"]).name}
    found |= {what.name: what.word(row[what.column]) for what in differences.PROPERTIES}
    found |= {"cycles": count(row["cycles"])}
    if whole:
        found["layers alone"] = times(row["speed_up_layers"])
        found["elsewhere of the baseline"] = percent(row["elsewhere"])
    found[f"{layers}compute only"] = times(row["speed_up_compute_layers"])
    found["energy efficiency"] = times(row["energy_efficiency"])
    return found | {f"{layers}of the ideal": percent(row["of_ideal_layers"])}
