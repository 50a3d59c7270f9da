"""``swatsim info``: what a trace holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swatsim.tracefile import Step, Trace
    from swatsim.workload.layer import Layer


@click.command()
@click.argument("trace", type=click.Path())
def info(trace: str) -> None:
    """Show what a trace holds.

    Layers, steps, densities per operand, and sizes.

    Densities are the non-zero share of each operand as the op reads it; in the table of layers
    they are averaged over the steps. No mask is read.
    """
    from swatsim.cli.show import console, table
    from swatsim.tracefile import open_trace

    source = open_trace(trace)
    steps = [source.step(number) for number in source.steps]
    out = console()
    for line in _summary(source):
        out.print(line)
    keys = [f"{op} {operand}" for op, operand in _reads()]
    layers = ("layer", "kind", "C", "K", "input", "kernel", "stride", "groups", "weights", *keys)
    out.print(table("Layers", layers, _layer_rows(source, steps), left=2))
    out.print(table("Steps", ("step", "batch", "masks", "file", *keys), _step_rows(steps), left=0))


def _reads() -> list[tuple[str, str]]:
    from swatsim.workload.layer import OPERANDS_OF

    return [(op, operand) for op, operands in OPERANDS_OF.items() for operand in operands]


def _summary(source: Trace) -> list[str]:
    manifest = source.manifest
    policy = ", ".join(f"{key}={value}" for key, value in manifest.policy.items()) or "not stated"
    made = manifest.provenance
    return [
        f"trace    {source.path} (id {source.id})",
        f"policy   {policy}",
        f"samples  {len(manifest.samples)} of a batch of {manifest.batch_size}",
        f"made     {made.get('time', '?')} by swatsim {made.get('swatsim', '?')}",
    ]


def _mean(steps: list[Step], op: str, operand: str, layer: str | None = None) -> str:
    """Average a density: over the steps, and over all elements of the layers."""
    from swatsim.cli.show import share

    records = [
        record
        for step in steps
        for record in step.records
        if (record.op, record.operand) == (op, operand) and layer in (None, record.layer)
    ]
    elements = sum(record.elements for record in records)
    ones = sum(record.ones for record in records)
    return share(ones / elements) if elements else "-"


def _layer_rows(source: Trace, steps: list[Step]) -> Iterator[list[str]]:
    from swatsim.cli.show import count

    for layer in source.layers:
        densities = [_mean(steps, op, operand, layer.name) for op, operand in _reads()]
        yield [layer.name, layer.kind, *_shape(layer), count(layer.weights), *densities]


def _shape(layer: Layer) -> list[str]:
    size, kernel = f"{layer.H}x{layer.W}", f"{layer.R}x{layer.S}"
    stride = "x".join(map(str, dict.fromkeys(layer.stride)))
    return [str(layer.C), str(layer.K), size, kernel, stride, str(layer.groups)]


def _step_rows(steps: list[Step]) -> Iterator[list[str]]:
    from swatsim.cli.show import size

    for step in steps:
        densities = [_mean([step], op, operand) for op, operand in _reads()]
        file = size(step.path.stat().st_size)
        yield [str(step.number), str(step.batch_size), str(len(step.records)), file, *densities]
