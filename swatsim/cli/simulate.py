"""``swatsim simulate``: a trace on a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from swatsim.cli.as_json import JSON
from swatsim.cli.lazy import Choice
from swatsim.cli.options import DTYPE, ENERGY, MACHINE, OP, PRESETS, SETTINGS, STORE
from swatsim.outputs import CHOICES, PLOTS, check_folder

if TYPE_CHECKING:
    from swatsim.workload.layer import OpName


def _shown(main: bool) -> str:
    return " and ".join(plot.shows for plot in PLOTS.values() if plot.main is main)


@click.command()
@click.argument("trace", type=click.Path())
@MACHINE
@SETTINGS
@click.option(
    "--baseline",
    help="Compare with this preset, not with the machine skipping nothing: {known}.",
    **PRESETS,
)
@DTYPE
@ENERGY
@click.option("--step", "steps", type=int, multiple=True, help="Only this step; may be repeated.")
@click.option("--op", "ops", type=OP, multiple=True, help="Only this op; repeatable.")
@click.option("--layers-only", is_flag=True, help="Nothing but what multiplies matrices.")
@click.option(
    "--dense-outputs",
    is_flag=True,
    help="Compute all outputs, those too that the trace says nobody wants.",
)
@STORE
@click.option("-o", "--output", type=click.Path(), help="Write results and plots here.")
@click.option(
    "--plots",
    type=Choice([*CHOICES]),
    default="main",
    show_default=True,
    help=f"Draw into the output directory: {_shown(True)}; all: {_shown(False)} too.",
)
@click.option("--all", "whole", is_flag=True, help="Show every table, row and column.")
@JSON
def simulate(
    trace: str,
    name: str,
    settings: tuple[str, ...],
    baseline: str | None,
    dtype: str | None,
    energy: str,
    steps: tuple[int, ...],
    ops: tuple[OpName, ...],
    layers_only: bool,
    dense_outputs: bool,
    store: bool,
    output: str | None,
    plots: str,
    whole: bool,
    as_json: bool,
) -> None:
    """Run a trace on a machine.

    Every recorded op of TRACE runs on the machine and on its dense baseline, and so does what its
    steps do beside multiplying matrices, on the vector unit of each, if the trace notes it.

    Prints what bounds a step and what would change it; what a mean step takes, by op; the ops that
    cost most; and what to know of these figures. --all: and a table per layer and op, summed over
    the recorded steps and images, and where PE-cycles, DRAM traffic and energy went. With -o also
    writes results.parquet and results.csv (schema.json says what each column means) and plots.

    Times include buffers and DRAM; --set memory=none does without them. "With no zero" is the
    speed-up that operands without a zero have already, "zeros add" what zeros add to it: the
    product is the speed-up. "Of the ideal" is the time that as many multipliers would take for the
    products without a zero, over the time taken.
    """
    if output is not None:
        check_folder(output)
    # what help and refusals need not wait for
    from swatsim.cli.simulated import print_all, print_json, run

    choice: dict[str, Any] = {
        "baseline": baseline,
        "dtype": dtype,
        "energy": energy,
        "steps": list(steps) or None,
        "layers_only": layers_only,
        "dense_outputs": dense_outputs,
        "store": store,
    }
    if ops:
        choice["ops"] = ops
    done = run(trace, name, settings, CHOICES[plots], output, choice)
    (print_json if as_json else print_all)(done, whole)
