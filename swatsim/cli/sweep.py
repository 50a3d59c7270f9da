"""``swatsim sweep``: many machines, many traces."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from pathlib import PurePath

import click

from swatsim.cli.progress import progress
from swatsim.cli.show import console, count, joules, percent, table, times
from swatsim.reports import differences
from swatsim.reports.remarks import LAYERS_ALONE
from swatsim.reports.span import Span
from swatsim.reports.tables import OF_IDEAL
from swatsim.sweeps import run
from swatsim.sweeps.cluster import Cluster
from swatsim.sweeps.spec import read_spec
from swatsim.sweeps.summary import Row, Summary

#: Points of the table that ends a sweep.
SHOWN = 20


@click.command()
@click.argument("spec", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder of the sweep.")
@click.option("--workers", type=click.IntRange(1), help="Processes; one a core by default.")
@click.option("--dask", metavar="ADDRESS", help="Run on a Dask cluster: its scheduler's address.")
@click.option(
    "--module",
    "modules",
    multiple=True,
    help="A module of your own whose machines SPEC may name, as MODULE:PRESET; its code is run.",
)
@click.option("--dry-run", is_flag=True, help="Say what is to do, and stop.")
def sweep(
    spec: str,
    output: str,
    workers: int | None,
    dask: str | None,
    modules: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Simulate many machines on many traces.

    SPEC is a TOML file: traces, machines with grids of parameters, constraints. What is finished is
    kept in the output folder, point by point, and never done again: run the same command to go on.
    """
    out = console()
    chosen = read_spec(spec, modules)
    if dry_run:
        out.print(run.look(chosen, output).words())
        return
    with _cluster(dask) as executor, progress("sweeping", "jobs") as show:
        summary = run.sweep(
            chosen,
            output,
            executor=executor,
            workers=workers,
            progress=show,
            announce=lambda plan: click.echo(plan.words(), err=True),
        )
    out.print(_table(summary))
    out.print(f"Of the ideal: {OF_IDEAL}.")
    why = dict.fromkeys(row["others_left_out"] for row in summary.rows if row["status"] == "done")
    for reason in filter(None, why):
        out.print(f"{LAYERS_ALONE}: {reason}.")
    for warning in summary.warnings:
        out.print(f"warning: {warning}.")
    for row in summary.failed[:SHOWN]:
        out.print(f"failed: {row['machine']} on {row['trace']}: {row['error']}")
    out.print(f"wrote {output}: sweep.json, summary.csv, points/; swatsim report {output} draws it")


def _cluster(address: str | None) -> AbstractContextManager[Executor | None]:
    """Return a connection to a Dask cluster, if one is named."""
    return nullcontext() if address is None else Cluster(address)


def _table(summary: Summary) -> object:
    done = [row for row in summary.rows if row["status"] == "done"]
    fastest = sorted(done, key=lambda row: row["time_ms"])[:SHOWN]
    headings = (
        "machine",
        "trace",
        *(what.name for what in differences.PROPERTIES),
        "cycles",
        "time",
    )

    whole = any(not row["others_left_out"] for row in fastest)

    def words(row: Row) -> list[str]:
        numbers = [what.word(row[what.column]) for what in differences.PROPERTIES]
        numbers += [count(row["cycles"]), f"{row['time_ms']:.3g} ms", joules(row["energy_pj"])]
        numbers += [times(row["speed_up"]), *(_of_parts(row) if whole else [])]
        numbers += [times(row["speed_up_compute_layers"])]
        numbers += [times(row["energy_efficiency"]), percent(row["of_ideal_layers"])]
        return [row["machine"], PurePath(row["trace"]).name, *numbers]

    title = f"{len(done)} points done, {len(summary.failed)} failed; the fastest"
    spans = [Span.from_row(row) for row in fastest]
    if means := dict.fromkeys(f"{span.subject}: {span.mean}" for span in spans):
        title += f". Cycles, time, energy of {'; of '.join(means)}"
    parts = ("layers alone", "elsewhere of the baseline") if whole else ()
    own = ("energy", "speed-up", *parts, f"{'layers, ' * whole}compute only")
    every = (*headings, *own, "energy efficiency", f"{'layers, ' * whole}of the ideal")
    return table(title, every, (words(row) for row in fastest), left=2)


def _of_parts(row: Row) -> list[str]:
    return [times(row["speed_up_layers"]), percent(row["elsewhere"])]
