"""``swatsim export``: what a step takes, node by node, for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.lazy import Chosen
from swatsim.cli.show import console
from swatsim.reports.export import FORMS
from swatsim.reports.export import export as write
from swatsim.reports.node_times import StepTimes, step_times
from swatsim.results import load


@click.command()
@click.argument("folder", type=click.Path())
@click.option(
    "--as",
    "--form",
    "form",
    type=Chosen(lambda: FORMS),
    default="latencies",
    show_default=True,
    help="What it is written as.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    required=True,
    help="The file; of chakra what names begin with: OUTPUT.0.et, ..",
)
@click.option("--step", type=int, help="A step in the results; by default the first one.")
@click.option("--baseline", is_flag=True, help="Of the baseline, not of the machine.")
@click.option(
    "--npus",
    type=int,
    default=1,
    show_default=True,
    help="Of chakra: data-parallel replicas, a file each.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@JSON
def export(
    folder: str,
    form: Any,
    output: str,
    overwrite: bool,
    npus: int,
    as_json: bool,
    **which: Any,
) -> None:
    """Write what each op of a step takes, for other tools.

    FOLDER is what simulate wrote. latencies is a CSV file, a row an op of a layer, and everything
    else; astra-sim a workload of ASTRA-sim 1, data-parallel, in ns; chakra the execution traces
    that ASTRA-sim 2 reads, in us. All of it adds up to what the results say of the step.
    """
    results = load(folder)
    paths = write(results, output, form, npus=npus, overwrite=overwrite, **which)
    step = step_times(results, **which)
    if as_json:
        _print_json(folder, form, paths, step)
    else:
        _print(paths, step)


def _print_json(source: str, form: str, paths: list[Path], step: StepTimes) -> None:
    found = {
        "source": source,
        "written": paths,
        "form": form,
        "trace": step.trace,
        "trace_id": step.trace_id,
        "step": step.step,
        "machine": step.machine,
        "images": step.samples,
        "nodes": len(step.nodes),
        "cycles": step.cycles,
        "others_left_out": step.left_out,
    }
    as_json.write("export", found)


def _print(paths: list[Path], step: StepTimes) -> None:
    others = f"; everything else is left out: {step.left_out}" if step.left_out else ""
    files = f"{paths[0]} to {paths[-1].name}" if len(paths) > 1 else str(paths[0])
    console().print(
        f"wrote {files}: {len(step.nodes)} nodes, {step.cycles:,} cycles, {step.of}{others}"
    )
