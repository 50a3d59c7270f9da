"""SWAT's published figures beside ours: the table, its text and its pictures.

    python benchmarks/paper/swat.py [--measure]

Takes the speed-ups from swat_speed_ups.csv beside this script; --measure simulates them anew first
(what ``swatsim reproduce swat`` does, some minutes). Writes swat.md, the table of a page and the
pictures in benchmarks/figures.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import ROOT, put

from swatsim.cli.reproduced_swat import row_of
from swatsim.reports.style import as_png
from swatsim.reproduce import swat, swat_plots, swat_speed
from swatsim.reproduce.swat import Line
from swatsim.reproduce.swat_speed import SpeedUp

HERE = Path(__file__).parent
SPEED_UPS = HERE / "swat_speed_ups.csv"
HEADINGS = "| | what | published | ours | difference | cause of a difference, and context |"


def measure() -> None:
    found = swat_speed.measure(progress=lambda done, total: print(f"{done}/{total} traces"))
    with SPEED_UPS.open("w", newline="") as file:
        names = [field.name for field in fields(SpeedUp)]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in found)


def load() -> list[SpeedUp]:
    kinds = {"int": int, "float": float, "bool": lambda text: text == "True"}
    with SPEED_UPS.open(newline="") as file:
        return [
            SpeedUp(**{f.name: kinds.get(str(f.type), str)(row[f.name]) for f in fields(SpeedUp)})
            for row in csv.DictReader(file)
        ]


def table(lines: list[Line]) -> Iterator[str]:
    yield HEADINGS
    yield "|---|---|---:|---:|---:|---|"
    for line in lines:
        yield f"| {' | '.join(row_of(line))} |"


@cache
def every_line() -> list[Line]:
    return swat.lines(load())


def chosen() -> Iterator[str]:
    """The rows of ResNet-50 under SWAT-U and SWAT-ERK, and what they say."""
    found = load()
    lines = [
        line
        for line in every_line()
        if line.section != "FLOPs"
        or line.what.startswith(("resnet50, SWAT-U, ", "resnet50, SWAT-ERK, "))
    ]
    yield from table(lines)
    yield ""
    yield swat.verdict(found) + "."
    yield ""
    yield swat.with_queues(found) + "."


def report() -> Iterator[str]:
    """The whole table, with sources, and every speed-up."""
    found, lines = load(), every_line()
    yield "# SWAT: published beside ours\n"
    yield "Made by `python benchmarks/paper/swat.py`; `swatsim reproduce swat` prints the same.\n"
    yield from table(lines)
    yield "\nSources: " + "; ".join(dict.fromkeys(line.source for line in lines)) + ".\n"
    yield swat.verdict(found) + ".\n"
    yield swat.with_queues(found) + ".\n"
    yield "## Every speed-up\n"
    yield "ResNet-50's 53 convolutions, batch 1, over the machine's dense baseline, and over the"
    yield "other one (cartesian: with bank conflicts; lane_array: weights on the rows).\n"
    yield "| machine | op | sparsity | activations | channels | speed-up | over the other |"
    yield "|---|---|---:|---:|---|---:|---:|"
    for one in found:
        evenness = "uneven" if one.uneven else "even"
        cells = f"{one.machine} | {one.op} | {one.sparsity} % | {one.act_density:.0%} | {evenness}"
        yield f"| {cells} | {one.speed_up:.2f}x | {one.over_alternative:.2f}x |"


def main() -> None:
    if "--measure" in sys.argv[1:]:
        measure()
    found = load()
    (HERE / "swat.md").write_text("\n".join(report()) + "\n")
    put("swat", chosen())
    pictures = {
        "swat_forward": swat_plots.speed_ups(found, "forward"),
        "swat_backward": swat_plots.speed_ups(found, "backward"),
        "swat_flops": swat_plots.flops_per_layer(),
        "swat_memory": swat_plots.memory_per_layer(),
    }
    for name, figure in pictures.items():
        (ROOT / "benchmarks" / "figures" / f"{name}.png").write_bytes(as_png(figure))


if __name__ == "__main__":
    main()
