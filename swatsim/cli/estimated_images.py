"""Whole batches from the images that a trace holds, as ``swatsim estimate --images`` shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from swatsim.cli import as_json
from swatsim.cli.estimated import ALIKE, INTERVAL, cells
from swatsim.cli.show import console, count, table, times
from swatsim.reports.span import MOST, percent
from swatsim.simulator.images import ASSUMPTION, ImagesEstimate, OpEstimate


def print_images(estimate: ImagesEstimate) -> None:
    """Print totals and ops."""
    out = console()
    for part in _images_parts(estimate):
        out.print(part)


def print_images_json(estimate: ImagesEstimate) -> None:
    """Print the same as one JSON object."""
    as_json.write("estimate", asdict(estimate))


def _images_parts(estimate: ImagesEstimate) -> Iterator[Any]:
    heads = ("compute cycles", *INTERVAL, "baseline", "speed-up", *INTERVAL)
    batches = " or ".join(map(str, sorted(set(estimate.batches.values()))))
    steps = len(estimate.batches)
    title = (
        f"{estimate.machine} against {estimate.baseline}: whole batches of {batches}, from "
        f"{estimate.images} images of each; {estimate.trace}, steps added up: {steps}"
    )
    if estimate.share is not None and estimate.share < MOST:
        title += (
            f", of the {percent(estimate.share)} of a step's multiplications that the trace holds"
        )
    yield table(title, ("layer", "op", "run", *heads), map(_op_row, estimate.ops), left=3)
    totals = (
        ["all ops" if row.op == "step" else row.op, *_op_row(row)[3:]] for row in estimate.totals
    )
    yield table("Totals over all layers and steps", ("op", *heads), totals, left=1)
    yield _of_share(estimate.share)
    yield from _remarks(estimate)


def _of_share(share: float | None) -> str:
    if share is None:
        return "What share of a step's multiplications the trace holds is not known."
    return f"The trace holds {percent(share)} of a step's multiplications."


def _op_row(row: OpEstimate) -> list[str]:
    cycles = [*cells(row.cycles_compute, count), count(row.cycles_compute_baseline.value)]
    how = "by image" if row.by_image else "as a batch"
    return [row.layer or "", row.op, how, *cycles, *cells(row.speed_up_compute, times)]


def _remarks(estimate: ImagesEstimate) -> Iterator[str]:
    step = estimate.totals[-1]
    of = (
        "Cycles are of computing layers alone, without buffers and DRAM; everything else that a "
        "step does is not in them."
    )
    yield f"{ASSUMPTION} Student's t. {of}"
    if not step.by_image:
        yield (
            "By image: a batch takes exactly the sum of what its images take. As a batch: images "
            "share the array, so the op ran\nwith the recorded ones repeated to fill it"
            f"{_left_out(step)}."
        )
    if step.cycles_compute.more is not None:
        yield f"{step.cycles_compute.more} more images, over all steps, halve the total's interval."
    if not step.agreed:
        ops = ", ".join(f"{row.layer} {row.op}" for row in estimate.ops if not row.agreed)
        yield (
            "warning: the recorded images differ in which operand is sparser, and all together "
            f"decide; the whole batch may decide otherwise, which no interval knows of: {ops}."
        )
    rows = (*estimate.ops, *estimate.totals)
    if any(row.cycles_compute.alike or row.speed_up_compute.alike for row in rows):
        yield ALIKE.format("images")
    if estimate.images == 1 and not step.cycles_compute.known:
        yield "warning: one image tells nothing of how much images differ: there is no interval."


def _left_out(step: OpEstimate) -> str:
    if not step.apart:
        return ", and would take as long with any others"
    of = f"{count(step.apart)} of {_count(step)} cycles in all"
    return f"; the intervals leave out how that varies: {of}"


def _count(row: OpEstimate) -> str:
    return count(row.cycles_compute.value)
