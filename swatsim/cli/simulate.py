"""``swatsim simulate``: a trace on a machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from swatsim.reports.tables import Row
    from swatsim.results import Results
    from swatsim.simulator.interface import Machine
    from swatsim.workload.layer import OpName


#: As in `swatsim.workload.layer`, which loads more than --help should.
OPS = ("fprop", "dgrad", "wgrad")


#: Of every verb that builds a machine; `parse` reads it.
SETTINGS = click.option(
    "-s",
    "--set",
    "settings",
    multiple=True,
    metavar="PARAMETER=VALUE",
    help="Change a parameter of the preset; may be given several times.",
)


@click.command()
@click.argument("trace", type=click.Path())
@click.option("-m", "--machine", "name", required=True, help="A preset: see swatsim machines.")
@SETTINGS
@click.option("--baseline", help="Compare with this preset, not with the machine skipping nothing.")
@click.option(
    "--energy",
    default="45nm",
    show_default=True,
    help="Energies of events: 45nm, 7nm, or a TOML file of your own.",
)
@click.option("--step", "steps", type=int, multiple=True, help="Only this step; may be repeated.")
@click.option(
    "--op", "ops", type=click.Choice(OPS), multiple=True, help="Only this op; repeatable."
)
@click.option("-o", "--output", type=click.Path(), help="Write results and plots here.")
@click.option(
    "--plots",
    type=click.Choice(["none", "main", "all"]),
    default="main",
    show_default=True,
    help="Draw into the output directory: speed-up and PE-cycles; all: energy and roofline too.",
)
def simulate(
    trace: str,
    name: str,
    settings: tuple[str, ...],
    baseline: str | None,
    energy: str,
    steps: tuple[int, ...],
    ops: tuple[OpName, ...],
    output: str | None,
    plots: str,
) -> None:
    """Run a trace on a machine.

    Every recorded op of TRACE runs on the machine and on its dense baseline.

    Prints a table per layer and op, summed over the recorded steps and images, totals, where
    PE-cycles, DRAM traffic and energy went, and what one step takes; with -o also writes
    results.parquet and results.csv (schema.json says what each column means) and plots. Cycles
    include buffers and DRAM; "compute only" leaves them out, and --set memory=none does without
    them.
    """
    from swatsim.cli.drawing import Drawing
    from swatsim.cli.show import console
    from swatsim.outputs import check_folder, write_files

    if output is not None:
        check_folder(output)
    out = console()
    with Drawing(wanted=plots if output is not None else "none") as drawing:
        from swatsim.simulator.machines import machine  # its kernels load while matplotlib does

        chosen = machine(name, **parse(settings))
        choice = {"steps": list(steps) or None, "ops": ops or OPS}
        results = _run(trace, chosen, baseline=baseline, energy=energy, **choice)
        drawing.start(results)
        # saved before anything is drawn or printed: no fault of a plot, and no reader of the
        # output that goes away, costs a number
        written = results.save(output) if output is not None else []
        parts = list(_tables(results))
        if output is not None:
            written += write_files(Path(output), drawing.finish())
    for part in (*parts, *(f"wrote {path}" for path in written)):
        out.print(part)


def parse(settings: tuple[str, ...]) -> dict[str, str]:
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


COUNTS = ("MACs", "effectual", "cycles", "baseline")
#: Heading to column; where there is no room, what zeros add has to do.
SPEED_UPS = {
    "speed-up": "speed_up",
    "with no zero": "speed_up_dense_operands",
    "zeros add": "speed_up_zeros",
    "compute only": "speed_up_compute",
}
FEWER = {name: column for name, column in SPEED_UPS.items() if name != "with no zero"}


def _tables(results: Results) -> Iterator[Any]:
    from swatsim.cli.show import table
    from swatsim.counters import BUCKETS, ENERGY_PARTS
    from swatsim.reports import differences, page_tables, tables

    results = tables.summarise(results)
    machine, baseline = results.rows[0]["machine"], tables.baseline_of(results)
    sizes = " against ".join(tables.sizes_of(results))
    added = f"{tables.source_of(results)}, added up"
    title = f"{machine} against {baseline} ({sizes}); {added}"
    layers = _layer_rows(tables.per_layer(results))
    headings = (
        "layer",
        "op",
        "shape",
        "weight",
        "act",
        "grad_out",
        *_headings(FEWER),
        "lost most to",
    )
    yield table(title, headings, layers, left=3, text_last=True)
    over = [f"over {name}" for name in tables.alternatives_of(results)]
    totals = tables.per_op(results)
    over_all = ("op", "FLOPs", "effectual FLOPs", *_headings(SPEED_UPS), *over)
    yield table(f"Totals over all layers; {added}", over_all, _total_rows(totals), left=1)
    if words := page_tables.due_to_zeros(totals[-1]):
        yield f"{words}\n"
    yield _parts("Where the PE-cycles went, in % of all", totals, tuple(BUCKETS), "lane_cycles")
    if any(row["dram_bytes"] for row in totals):
        yield table(
            f"DRAM traffic; {added}", ("bytes", *_columns(totals)), _traffic(totals), left=1
        )
    if all(row["energy_pj"] is not None for row in results.rows):
        yield _parts("Energy, in % of all", totals, tuple(ENERGY_PARTS), "energy_pj")
        yield table(f"Energy in all; {added}", ("", *_columns(totals)), _joules(totals), left=1)
    yield _verdict(results, totals[-1])
    for warning in differences.against_baseline(results):
        yield f"warning: {warning}."


def _verdict(results: Results, total: Row) -> str:
    """Say what one step takes, on the machine and on its baseline."""
    from swatsim.cli.show import count, joules
    from swatsim.reports import tables
    from swatsim.reports.span import span_of

    span = span_of(results)
    found = []
    for row in (total, total["baseline"]):
        step = tables.per_step(row, span.steps)
        time = (
            f"{step['time_ms']:.3g} ms" if row["clock_mhz"] else f"{count(step['cycles'])} cycles"
        )
        energy = "" if step["energy_pj"] is None else f" and {joules(step['energy_pj'])}"
        found.append(time + energy)
    return f"A step ({span.mean}) takes {found[0]}; of the baseline {found[1]}."


def _layer_rows(rows: list[Row]) -> Iterator[list[str]]:
    from swatsim.cli.show import share

    previous = None
    for row in rows:
        if previous not in (None, row["layer"]):
            yield []
        previous = row["layer"]
        densities = [share(row[f"density_{name}"]) for name in ("weight", "act", "grad_out")]
        yield [row["layer"], row["op"], _shape(row), *densities, *_numbers(row, FEWER), _lost(row)]


def _total_rows(rows: list[Row]) -> Iterator[list[str]]:
    from swatsim.cli.show import count, times

    for row in rows:
        if row["op"] == "step":
            yield []
        flops = [count(row["flops_dense"]), count(row["flops_effectual"])]
        others = [times(value) for value in row["speed_ups_alternative"].values()]
        yield [_op(row), *flops, *_numbers(row, SPEED_UPS), *others]


def _op(row: Row) -> str:
    """Name a total's op: the last row has all of them, of all steps."""
    return "all ops" if row["op"] == "step" else str(row["op"])


def _headings(speed_ups: Mapping[str, str]) -> list[str]:
    return [*COUNTS, *speed_ups, "utilisation"]


def _numbers(row: Row, speed_ups: Mapping[str, str]) -> list[str]:
    from swatsim.cli.show import count, share, times

    macs = [count(row["macs_dense"]), count(row["macs_effectual"])]
    cycles = [count(row["cycles"]), count(row["baseline"]["cycles"])]
    found = [times(row[column]) for column in speed_ups.values()]
    return [*macs, *cycles, *found, share(row["utilisation"])]


def _lost(row: Row) -> str:
    """Name what took most of the PE-cycles that did no effectual work."""
    from swatsim.reports.tables import lost_most_to

    name = lost_most_to(row)
    if not name:
        return "-"
    share = row[f"lane_cycles_{name}"] / row["lane_cycles"]
    return f"{_word(name, 'lane_cycles')} {100 * share:.0f} %"


def _word(column: str, of: str) -> str:
    """Word the name of a column."""
    return column.removeprefix(f"{of}_").replace("_", " ").replace("dram", "DRAM")


def _columns(totals: list[Row]) -> list[str]:
    return [*map(_op, totals), "baseline, all ops"]


def _beside(totals: list[Row]) -> list[Row]:
    """Take the ops, all of them, and all of the baseline's."""
    return [*totals, totals[-1]["baseline"]]


def _parts(title: str, totals: list[Row], columns: tuple[str, ...], whole: str) -> Any:
    from swatsim.cli.show import table

    rows = (
        [_word(column, whole), *(_percent(row[column], row[whole]) for row in _beside(totals))]
        for column in columns
        if any(row[column] for row in _beside(totals))
    )
    return table(title, ("part", *_columns(totals)), rows, left=1)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _traffic(totals: list[Row]) -> Iterator[list[str]]:
    from swatsim.cli.show import size
    from swatsim.reports.tables import DRAM_BYTES

    for column in (*DRAM_BYTES, "dram_bytes"):
        word = _word(column, "dram_bytes") if column != "dram_bytes" else "all"
        yield [word, *(size(row[column]) for row in _beside(totals))]


def _joules(totals: list[Row]) -> Iterator[list[str]]:
    from swatsim.cli.show import joules, times

    yield ["energy", *(joules(row["energy_pj"]) for row in _beside(totals))]
    ratios = (times(row["energy_efficiency"]) for row in totals)
    yield ["the baseline's / this", *ratios, times(1.0)]


def _shape(row: Row) -> str:
    """Write a layer's shape: filters x channels x kernel / stride -> output.

    A transposed convolution multiplies the size by its stride.
    """
    if row["kind"] == "linear":
        return f"{row['K']}x{row['C']}"
    sign = "*" if row["kind"] == "conv_transpose" else "/"
    stride = "" if row["stride_h"] == row["stride_w"] == 1 else f"{sign}{row['stride_h']}"
    channels = row["C"] // row["groups"]
    return f"{row['K']}x{channels}x{row['R']}x{row['S']}{stride} -> {row['P']}x{row['Q']}"
