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
    from swatsim.errors import TraceError
    from swatsim.tracefile import open_trace

    source = open_trace(trace)
    steps, damaged = _open_steps(source)
    out = console()
    for line in _summary(source):
        out.print(line)
    keys = [f"{op} {operand}" for op, operand in _reads()]
    layers = ("layer", "kind", "C", "K", "input", "kernel", "stride", "groups", "weights", *keys)
    out.print(table("Layers", layers, _layer_rows(source, steps), left=2))
    out.print(table("Steps", ("step", "batch", "masks", "file", *keys), _step_rows(steps), left=0))
    if drifts := list(_drift_rows(steps)):
        of_drift = ("step", "operand", "asked", "realised", "least so far", "most so far")
        out.print(table("Drift of reused thresholds", of_drift, drifts, left=2))
    for line in _not_modelled(steps):
        out.print(line)
    if damaged:
        raise TraceError("; ".join(damaged))


def _open_steps(source: Trace) -> tuple[list[Step], list[str]]:
    """Open the steps that can be, and say what is wrong with the others."""
    from swatsim.errors import TraceError

    steps, damaged = [], []
    for number in source.steps:
        try:
            steps.append(source.step(number))
        except TraceError as error:
            damaged.append(str(error))
    return steps, damaged


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


Totals = dict[tuple[str, str, str], tuple[int, int]]


def _totals(steps: list[Step]) -> Totals:
    """Add up ones and elements by (layer, op, operand), and over all layers (layer "")."""
    totals: Totals = {}
    for step in steps:
        for record in step.records:
            for layer in (record.layer, ""):
                key = layer, record.op, record.operand
                ones, elements = totals.get(key, (0, 0))
                totals[key] = ones + record.ones, elements + record.elements
    return totals


def _densities(totals: Totals, layer: str = "") -> list[str]:
    from swatsim.cli.show import share

    found = [totals.get((layer, *reads)) for reads in _reads()]
    return ["-" if pair is None else share(pair[0] / pair[1]) for pair in found]


def _layer_rows(source: Trace, steps: list[Step]) -> Iterator[list[str]]:
    from swatsim.cli.show import count

    totals = _totals(steps)
    for layer in source.layers:
        densities = _densities(totals, layer.name)
        yield [layer.name, layer.kind, *_shape(layer), count(layer.weights), *densities]


def _shape(layer: Layer) -> list[str]:
    size, kernel = f"{layer.H}x{layer.W}", f"{layer.R}x{layer.S}"
    stride = "x".join(map(str, dict.fromkeys(layer.stride)))
    return [str(layer.C), str(layer.K), size, kernel, stride, str(layer.groups)]


def _step_rows(steps: list[Step]) -> Iterator[list[str]]:
    from swatsim.cli.show import size

    for step in steps:
        file = size(step.path.stat().st_size)
        row = [str(step.number), str(step.batch_size), str(len(step.records)), file]
        yield [*row, *_densities(_totals([step]))]


def _drift_rows(steps: list[Step]) -> Iterator[list[str]]:
    """Tell how far densities drifted between two exact Top-Ks, as the policy saw it."""
    from swatsim.cli.show import share
    from swatsim.tracefile.noted import drifts

    for step in steps:
        for operand, it in drifts(step.notes).items():
            densities = [share(density) for density in (it.asked, it.last, it.least, it.most)]
            yield [str(step.number), operand, *densities]


def _not_modelled(steps: list[Step]) -> Iterator[str]:
    """Name what ran beside the layers, and multiplied."""
    from swatsim.tracefile.noted import not_modelled

    found: dict[str, set[str]] = {}
    for step in steps:
        for module, noted in not_modelled(step.notes).items():
            found.setdefault(module, set()).update(noted)
    for module, kinds in found.items():
        yield f"not modelled: {', '.join(sorted(kinds))} in {module}"
