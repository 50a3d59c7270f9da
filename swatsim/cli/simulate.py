"""``swatsim simulate``: a trace on a machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from swatsim.report.tables import Row
    from swatsim.results import Results
    from swatsim.simulator.interface import Machine
    from swatsim.workload.layer import OpName


#: As in `swatsim.workload.layer`, which loads more than --help should.
OPS = ("fprop", "dgrad", "wgrad")


@click.command()
@click.argument("trace", type=click.Path())
@click.option("-m", "--machine", "name", required=True, help="A preset: see swatsim machines.")
@click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="PARAMETER=VALUE",
    help="Change a parameter of the preset; may be given several times.",
)
@click.option("--baseline", help="Compare with this preset, not with the machine skipping nothing.")
@click.option("--step", "steps", type=int, multiple=True, help="Only this step; may be repeated.")
@click.option(
    "--op", "ops", type=click.Choice(OPS), multiple=True, help="Only this op; repeatable."
)
@click.option("-o", "--output", type=click.Path(), help="Write results and plots here.")
@click.option("--plots/--no-plots", default=True, help="Draw plots into the output directory.")
def simulate(
    trace: str,
    name: str,
    settings: tuple[str, ...],
    baseline: str | None,
    steps: tuple[int, ...],
    ops: tuple[OpName, ...],
    output: str | None,
    plots: bool,
) -> None:
    """Run a trace on a machine.

    Every recorded op of TRACE runs on the machine and on its dense baseline.

    Prints a table per layer and op, summed over the recorded steps and images, and totals; with -o
    also writes results.parquet and results.csv (schema.json says what each column means) and two
    plots. Cycles are compute cycles: the memory system is not modelled yet.
    """
    from swatsim.cli.drawing import Drawing
    from swatsim.cli.show import console
    from swatsim.results import check_folder

    if output is not None:
        check_folder(output)
    out = console()
    with Drawing(wanted=plots and output is not None) as drawing:
        from swatsim.simulator.machines import machine  # its kernels load while matplotlib does

        chosen = machine(name, **_parse(settings))
        choice = {"steps": list(steps) or None, "ops": ops or OPS}
        results = _run(trace, chosen, baseline=baseline, **choice)
        drawing.start(results)
        parts = list(_tables(results))
        # saved before anything is printed: whoever reads the output may go away
        written = results.save(output, drawing.finish()) if output is not None else []
    for part in (*parts, *(f"wrote {path}" for path in written)):
        out.print(part)


def _parse(settings: tuple[str, ...]) -> dict[str, str]:
    """Split ``name=value``; the machine's config checks both."""
    from swatsim.errors import ConfigError

    for setting in settings:
        if "=" not in setting:
            raise ConfigError(f"--set {setting}: expected PARAMETER=VALUE, as in --set rows=16")
    pairs = [setting.split("=", 1) for setting in settings]
    names = [name.strip().replace("-", "_") for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--set {name} is given twice: give each parameter once")
    return dict(zip(names, (value.strip() for _, value in pairs), strict=True))


def _run(trace: str, machine: Machine, **choice: Any) -> Results:
    from swatsim.cli.progress import progress
    from swatsim.simulator.run import simulate as run

    with progress("simulating", "ops") as show:
        return run(trace, machine, progress=show, **choice)


NUMBERS = ("MACs", "effectual", "cycles", "baseline cycles", "speed-up", "utilisation")


def _tables(results: Results) -> Iterator[Any]:
    from swatsim.cli.show import table
    from swatsim.report import tables

    machine, baseline = results.rows[0]["machine"], tables.baseline_of(results)
    sizes = " against ".join(tables.sizes_of(results))
    title = f"{machine} against {baseline} ({sizes}); {tables.source_of(results)}, added up"
    layers = _layer_rows(tables.per_layer(results))
    numbers = (*NUMBERS, *(f"over {name}" for name in tables.alternatives_of(results)))
    headings = ("layer", "op", "shape", "weight", "act", "grad_out", *numbers)
    yield table(title, headings, layers, left=3)
    totals = _total_rows(tables.per_op(results))
    over_all = ("op", "FLOPs", "effectual FLOPs", *numbers)
    yield table("Totals over all layers", over_all, totals, left=1)


def _layer_rows(rows: list[Row]) -> Iterator[list[str]]:
    from swatsim.cli.show import share

    previous = None
    for row in rows:
        if previous not in (None, row["layer"]):
            yield []
        previous = row["layer"]
        densities = [share(row[f"density_{name}"]) for name in ("weight", "act", "grad_out")]
        yield [row["layer"], row["op"], _shape(row), *densities, *_numbers(row)]


def _total_rows(rows: list[Row]) -> Iterator[list[str]]:
    from swatsim.cli.show import count

    for row in rows:
        if row["op"] == "step":
            yield []
        flops = [count(row["flops_dense"]), count(row["flops_effectual"])]
        yield [row["op"], *flops, *_numbers(row)]


def _numbers(row: Row) -> list[str]:
    from swatsim.cli.show import count, share, times

    macs = [count(row["macs_dense"]), count(row["macs_effectual"])]
    cycles = [count(row["cycles_compute"]), count(row["cycles_baseline"])]
    others = [times(value) for value in row["speed_ups_alternative"].values()]
    return [*macs, *cycles, times(row["speed_up"]), share(row["utilisation"]), *others]


def _shape(row: Row) -> str:
    """Write a layer's shape: filters x channels x kernel / stride -> output."""
    if row["kind"] == "linear":
        return f"{row['K']}x{row['C']}"
    stride = "" if row["stride_h"] == row["stride_w"] == 1 else f"/{row['stride_h']}"
    channels = row["C"] // row["groups"]
    return f"{row['K']}x{channels}x{row['R']}x{row['S']}{stride} -> {row['P']}x{row['Q']}"
