"""All that ``swatsim simulate --all`` shows: each layer and op, and what PE-cycles went to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite, isnan
from typing import Any

from swatsim.cli.show import count, joules, percent, share, size, table, times
from swatsim.counters import BUCKETS, DRAM_BYTES, ENERGY_PARTS
from swatsim.reports import everything_else, patterns, span, tables
from swatsim.reports.tables import Row, lost_most_to
from swatsim.workload.layer import OPERANDS, OPS
from swatsim.workload.phases import OTHER

OF_TIME = ("cycles", "baseline", "speed-up")
COUNTS = ("MACs", "effectual", *OF_TIME[:2])
#: Heading to column; where there is no room, what zeros add has to do.
SPEED_UPS = {
    "speed-up": "speed_up",
    "with no zero": "speed_up_dense_operands",
    "zeros add": "speed_up_zeros",
    "compute only": "speed_up_compute",
}
FEWER = {name: column for name, column in SPEED_UPS.items() if name != "with no zero"}


def everything(results: tables.Summary) -> Iterator[Any]:
    """Yield tables of all layers and ops, and of what everything went to, summed over steps."""
    added = f"{tables.source_of(results)}, added up"
    layers = tables.per_layer(results)
    masked = any(isfinite(row["density_output"]) for row in layers)
    own = (*OPERANDS, *(("output",) if masked else ()))
    headings = ("layer", "op", "shape", *own, *_headings(FEWER), "lost most to")
    yield table(
        f"Layers and ops; {added}", headings, _layer_rows(layers, masked), left=3, text_last=True
    )
    over = [f"over {name}" for name in tables.alternatives_of(results)]
    totals = tables.per_op(results)
    over_all = ("op", "FLOPs", "effectual FLOPs", *_headings(SPEED_UPS), *over)
    whole = " and everything else" if results.phases else ""
    yield table(f"Totals over all layers{whole}; {added}", over_all, _total_rows(results), left=1)
    if results.phases:
        yield _everything_else(results, added)
    yield _parts("Where the PE-cycles went, in % of all", totals, tuple(BUCKETS), "lane_cycles")
    if found := patterns.patterns(results):
        words = f"Groups of {patterns.pattern_of(results)} along what an op sums; {added}"
        headings = ("op", "operand", "groups that obey", "compressed in", "of the op's MACs")
        yield table(words, headings, _obeying(found), left=2)
    if any(row["dram_bytes"] for row in totals):
        yield table(
            f"DRAM traffic; {added}", ("bytes", *_columns(totals)), _traffic(totals), left=1
        )
    if all(row["energy_pj"] is not None for row in results.rows):
        yield _parts("Energy, in % of all", totals, tuple(ENERGY_PARTS), "energy_pj")
        yield table(f"Energy in all; {added}", ("", *_columns(totals)), _joules(totals), left=1)


#: Of everything else: its rows' headings.
ELSE_HEADINGS = (
    *("phase", "function", "modules", "values", "DRAM", "cycles", "of the step"),
    *("baseline", "of its step", "bound by"),
)


def _everything_else(results: tables.Summary, added: str) -> Any:
    """Return the table of what multiplies no matrices: a phase's longest functions, its sum."""
    rows = everything_else.by_function(results)
    title = f"{everything_else.TITLE}; {added}"
    return table(title, ELSE_HEADINGS, _else_rows(rows), left=2, text_last=True)


def _else_rows(rows: list[Row]) -> Iterator[list[str]]:
    for part in everything_else.shown(rows):
        for row in part:
            phase = everything_else.PHASE_WORDS[row["phase"]] if row is part[-1] else row["phase"]
            modules = "" if row["modules"] is None else count(row["modules"])
            sizes = [modules, count(row["vector_elements"]), size(row["dram_bytes"])]
            ours = [count(row["cycles"]), percent(row["share"])]
            theirs = [count(row["baseline_cycles"]), percent(row["baseline_share"])]
            yield [phase, row["function"], *sizes, *ours, *theirs, row["bound_by"]]
        yield []


def _layer_rows(rows: list[Row], masked: bool) -> Iterator[list[str]]:
    previous = None
    for row in rows:
        if previous not in (None, row["layer"]):
            yield []
        previous = row["layer"]
        densities = [share(row[f"density_{name}"]) for name in OPERANDS]
        densities += [share(row["density_output"])] if masked else []
        yield [row["layer"], row["op"], _shape(row), *densities, *_numbers(row, FEWER), _lost(row)]


def _total_rows(results: tables.Summary) -> Iterator[list[str]]:
    """Yield each op, and all of them; then everything else, and the whole step."""
    *ops, whole = results.ops
    yield from (_total_row(row["op"], row) for row in ops if row["op"] in OPS)
    yield []
    yield _total_row(ALL_OPS, results.of_layers)
    for name, row in ((ELSE, ops[-1]), (WHOLE, whole)) if results.phases else ():
        yield []
        yield _total_row(name, row, of_layers=False)


def _total_row(name: str, row: Row, *, of_layers: bool = True) -> list[str]:
    """Return a total's cells; of what is not of layers alone, how long it takes and no more."""
    flops = [count(row["flops_dense"]), count(row["flops_effectual"])]
    numbers = zip(_headings(SPEED_UPS), _numbers(row, SPEED_UPS), strict=True)
    cells = [word if of_layers or heading in OF_TIME else "-" for heading, word in numbers]
    others = [times(value) for value in row["speed_ups_alternative"].values()]
    return [name, *(flops if of_layers else ["-", "-"]), *cells, *others]


#: Words for totals: of all that multiplies, of what does not, of both.
ALL_OPS, ELSE, WHOLE = "all ops", "everything else", "whole step"


def _op(row: Row) -> str:
    """Return the op of a total in words: the last row has all that is in the results."""
    if row["op"] == tables.STEP:
        return ALL_OPS if isnan(row["elsewhere"]) else WHOLE
    return ELSE if row["op"] == OTHER else str(row["op"])


def _headings(speed_ups: Mapping[str, str]) -> list[str]:
    return [*COUNTS, *speed_ups, "of the ideal"]


def _numbers(row: Row, speed_ups: Mapping[str, str]) -> list[str]:
    macs = [count(row["macs_dense"]), count(row["macs_effectual"])]
    cycles = [count(row["cycles"]), count(row["baseline"]["cycles"])]
    gains = [times(row[column]) for column in speed_ups.values()]
    return [*macs, *cycles, *gains, percent(row["of_ideal"])]


def _lost(row: Row) -> str:
    """Return what took most of the PE-cycles that did no effectual work."""
    name = lost_most_to(row)
    if not name:
        return "-"
    part = row[f"lane_cycles_{name}"] / row["lane_cycles"]
    return f"{word_of(name)} {100 * part:.0f} %"


def word_of(column: str, of: str = "lane_cycles") -> str:
    """Return a column's name in words, or that of what is counted in it."""
    return column.removeprefix(f"{of}_").replace("_", " ").replace("dram", "DRAM")


def _columns(totals: list[Row]) -> list[str]:
    return [*map(_op, totals), f"baseline, {_op(totals[-1])}"]


def _beside(totals: list[Row]) -> list[Row]:
    """Return the ops' totals, that of all of them, and that of the baseline."""
    return [*totals, totals[-1]["baseline"]]


def _parts(title: str, totals: list[Row], columns: tuple[str, ...], whole: str) -> Any:
    rows = (
        [word_of(column, whole), *(_percent(row[column], row[whole]) for row in _beside(totals))]
        for column in columns
        if any(row[column] for row in _beside(totals))
    )
    return table(title, ("part", *_columns(totals)), rows, left=1)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _obeying(rows: list[Row]) -> Iterator[list[str]]:
    for row in rows:
        ran = f"{row['compressed']} of {row['ops']} ops"
        shares = span.percent(row["obeying_share"]), ran, span.percent(row["macs_share"])
        yield [row["op"], row["operand"], *shares]


def _traffic(totals: list[Row]) -> Iterator[list[str]]:
    for column in (*DRAM_BYTES, "dram_bytes"):
        word = word_of(column, "dram_bytes") if column != "dram_bytes" else "all"
        yield [word, *(size(row[column]) for row in _beside(totals))]


def _joules(totals: list[Row]) -> Iterator[list[str]]:
    yield ["energy", *(joules(row["energy_pj"]) for row in _beside(totals))]
    ratios = (times(row["energy_efficiency"]) for row in totals)
    yield ["the baseline's / this", *ratios, times(1.0)]


def _shape(row: Row) -> str:
    """Return a layer's shape in words: filters x channels x kernel / stride -> output.

    A transposed convolution multiplies the size by its stride. A product of activations is heads x
    (rows x depth @ depth x columns).
    """
    if row["kind"] == "linear":
        return f"{row['K']}x{row['C']}"
    if row["kind"] == "matmul":
        depth, columns = row["C"] // row["groups"], row["K"] // row["groups"]
        return f"{row['groups']}x({row['H']}x{depth} @ {depth}x{columns})"
    sign = "*" if row["kind"] == "conv_transpose" else "/"
    stride = "" if row["stride_h"] == row["stride_w"] == 1 else f"{sign}{row['stride_h']}"
    channels = row["C"] // row["groups"]
    return f"{row['K']}x{channels}x{row['R']}x{row['S']}{stride} -> {row['P']}x{row['Q']}"
