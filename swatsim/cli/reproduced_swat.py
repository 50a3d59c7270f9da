"""What ``swatsim reproduce swat`` does and shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swatsim.cli.progress import progress
from swatsim.cli.show import table
from swatsim.outputs import write_files
from swatsim.reproduce import swat, swat_speed
from swatsim.reproduce.swat import Line
from swatsim.reproduce.swat_speed import SPARSITIES, SpeedUp
from swatsim.results import as_csv


def run(batch: int, store: bool, output: str | None) -> list[Any]:
    """Simulate, write what is to be written, and return what is to be printed."""
    with progress("simulating (swat)", "traces") as show:
        speed_ups = swat_speed.measure(batch=batch, progress=show, store=store)
    lines = swat.lines(speed_ups)
    written = [] if output is None else _write(output, speed_ups, lines)
    return [*_tables(lines, speed_ups), *(f"wrote {path}" for path in written)]


def _tables(lines: Sequence[Line], speed_ups: Sequence[SpeedUp]) -> Iterator[Any]:
    title = (
        "SWAT: published beside ours (speed-ups: machine swat, half of the activations non-zero)"
    )
    headings = ("", "what", "published", "ours", "difference", "cause of a difference, and context")
    yield table(title, headings, (row_of(line) for line in lines), left=2, text_last=True)
    yield f"{swat.verdict(speed_ups)}\n"
    yield f"{swat.with_queues(speed_ups)}\n"
    columns = ("machine", "op", "activations", "channels", *(f"{s} %" for s in _sparsities()))
    title = "Speed-ups of the 53 convolutions, each over its machine's dense baseline"
    yield table(title, columns, _speed_rows(speed_ups), left=4)


def row_of(line: Line) -> list[str]:
    """Return one line of the table as texts."""
    gap = line.difference
    unit = "%" if line.unit == "x" else "points"
    return [
        line.section,
        line.what,
        _figure(line.published, line.unit),
        _figure(line.ours, line.unit),
        "-" if gap is None else f"{round(gap, 1) + 0.0:+.1f} {unit}",
        line.cause,
    ]


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}x" if unit == "x" else f"{value:.1f} %"


def _sparsities() -> Sequence[int]:
    return SPARSITIES


def _speed_rows(speed_ups: Sequence[SpeedUp]) -> Iterator[list[str]]:
    """Yield one row for each machine, op, density and evenness; sparsities side by side."""
    rows: dict[tuple[Any, ...], dict[int, float]] = {}
    for one in speed_ups:
        key = one.machine, one.op, one.act_density, one.uneven
        rows.setdefault(key, {})[one.sparsity] = one.speed_up
    for (machine, op, density, uneven), by_sparsity in sorted(rows.items()):
        values = [f"{by_sparsity[s]:.2f}x" if s in by_sparsity else "" for s in _sparsities()]
        yield [machine, op, f"{density:.0%}", "uneven" if uneven else "even", *values]


def _write(output: str, speed_ups: Sequence[SpeedUp], lines: Sequence[Line]) -> list[Any]:

    # matplotlib, which tables do without
    from swatsim.reports.style import as_png
    from swatsim.reproduce import swat_plots

    contents = {
        "reproduction.csv": as_csv(
            [{**asdict(line), "difference": line.difference} for line in lines]
        ),
        "speed_ups.csv": as_csv([asdict(one) for one in speed_ups]),
        "memory.csv": as_csv([asdict(row) for row in swat.memory()]),
        "speed_ups_forward.png": as_png(swat_plots.speed_ups(speed_ups, "forward")),
        "speed_ups_backward.png": as_png(swat_plots.speed_ups(speed_ups, "backward")),
        "flops_per_layer.png": as_png(swat_plots.flops_per_layer()),
        "memory_per_layer.png": as_png(swat_plots.memory_per_layer()),
    }
    return write_files(Path(output), contents)
