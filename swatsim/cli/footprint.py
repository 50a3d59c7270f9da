"""``swatsim footprint``: what a training step keeps for its backward pass."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.lazy import completing
from swatsim.cli.options import networks
from swatsim.cli.show import console, count, share, size, table
from swatsim.errors import WorkloadError, listed, unknown
from swatsim.policies import Site, SwatU
from swatsim.policies.interface import density_at, first_convolution
from swatsim.tracefile import Step, open_trace
from swatsim.tracefile.notes import SavedTensors, saved_tensors
from swatsim.workload import footprint as counting
from swatsim.workload import storage
from swatsim.workload.footprint import DensityOf, Footprint, Row, reduction
from swatsim.workload.layer import Layer, Operand, OpName
from swatsim.workload.measured import Beside, compare, of_batch
from swatsim.workload.networks import NETWORKS
from swatsim.workload.networks import network as build
from swatsim.workload.storage import Density
from swatsim.workload.tables import Network
from swatsim.workload.value_types import DTYPES, of_recorded

#: Tensors that are shown, unless all are asked for.
SHOWN = 10


class _Footprint(click.Command):
    """Help that ends with networks and storage formats."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Networks"):
            formatter.write_dl([(name, network.citation) for name, network in NETWORKS.items()])
        with formatter.section("Formats"):
            formatter.write_dl([(name, format.stores) for name, format in storage.FORMATS.items()])
            formatter.write_text(f"N:M such as 2:4: {storage.named('2:4').stores}.")
        super().format_epilog(ctx, formatter)


@click.command(cls=_Footprint)
@click.argument("source", metavar="NETWORK_OR_TRACE", **completing(networks, or_path=True))
@click.option("--sparsity", type=float, help="Of a network: SWAT-U's. By default all is dense.")
@click.option("--batch", type=int, help="Of a network: samples; by default 1.")
@click.option("--step", type=int, help="Of a trace: which step; by default the last.")
@click.option(
    "--network",
    help=f"Of a trace: which network ({listed(NETWORKS)}); adds what is not in the trace.",
    **completing(networks),
)
@click.option(
    "--format",
    default="values",
    show_default=True,
    help="Of what has zeros: see below.",
    **completing(lambda: storage.FORMATS),
)
@click.option(
    "--dtype",
    help=f"Type of all values: {listed(DTYPES)}. By default as the run had them, each tensor's "
    "own, where a trace says so; fp32 elsewhere.",
    **completing(lambda: DTYPES),
)
@click.option("--relu-bits", is_flag=True, help="Keep bits of a ReLU's output where that will do.")
@click.option("--all", "whole", is_flag=True, help=f"Show all tensors, not the {SHOWN} largest.")
@JSON
def footprint(
    source: str,
    sparsity: float | None,
    batch: int | None,
    step: int | None,
    network: str | None,
    dtype: str | None,
    whole: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Show what the backward pass needs.

    Prints what a training step keeps for its backward pass beside what dense training keeps, and
    the largest tensors of it. NETWORK_OR_TRACE is a network (see below) or a recorded trace.

    Of a trace that was recorded with measure_memory, what autograd really kept is shown beside.

    Inputs and weights are SWAT's count, for which each layer has tensors of its own. Everything is
    PyTorch's: what all modules keep beside the parameters, a tensor that several keep once.
    """
    options["dtype"] = dtype or "fp32"
    if source in NETWORKS:
        _refuse("a network", step=step, network=network)
        model, samples = build(source), 1 if batch is None else batch
        counted = counting.of_network(model, _swat_u(model, sparsity), batch=samples, **options)
        title, measured = f"{source}: {model.citation}", None
    elif not Path(source).exists():
        raise WorkloadError(f"{unknown('network', source, NETWORKS)}; nor is there such a trace")
    else:
        _refuse("a trace", sparsity=sparsity, batch=batch)
        named = build(network) if network else None
        chosen = _step_of(source, step)
        if dtype is None:
            options |= _recorded_types(chosen)
        counted, model, samples, title = _of_step(chosen, named, options)
        measured = saved_tensors(chosen.notes)
    values: dict[str, Any] = {name: options[name] for name in ("dtype", "types") if name in options}
    dense = counting.of_network(model, batch=samples, **values)
    beside = None if measured is None else _beside(chosen, named, measured, values)
    if as_json:
        _print_json(title, samples, (counted, dense), beside)
        return
    out = console()
    headings = ("kept", "dense", "stored", "change")
    out.print(table(f"{title}; samples: {samples}", headings, _totals(counted, dense), left=1))
    if beside is not None:
        out.print(_measured(chosen, *beside))
    out.print(_tensors(counted, whole))
    out.say_what_was_dropped()
    out.print(_next(source, sparsity))


def _next(source: str, sparsity: float | None) -> str:
    """Return the command that comes next: what the same takes on a machine."""
    if source not in NETWORKS:
        return f"Next: swatsim simulate {shlex.quote(source)} -m tensordash"
    sparse = 0.8 if sparsity is None else sparsity
    return f"Next: swatsim synth {source} --sparsity {sparse:g} -o runs/{source}"


def _refuse(what: str, **options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise WorkloadError(f"--{name} {value} is not allowed: {what} has none; leave it out")


def _swat_u(network: Network, sparsity: float | None) -> DensityOf | None:
    """Return the densities of the saved tensors: act as wgrad reads it, weight as dgrad does."""
    if sparsity is None:
        return None
    policy, first = SwatU(sparsity), first_convolution(network.layers)

    def density(layer: Layer, operand: Operand) -> Density | None:
        op: OpName = "wgrad" if operand == "act" else "dgrad"
        site = Site(layer, op, operand, first_convolution=layer.name == first)
        return density_at(policy, site)

    return density


def _step_of(path: str, step: int | None) -> Step:
    trace = open_trace(path)
    return trace.step(trace.steps[-1] if step is None else step)


def _recorded_types(chosen: Step) -> dict[str, Any]:
    """Return the types of what layers keep, and that of most of their inputs, for all the rest."""
    found: dict[tuple[str, Operand], str] = {}
    wanted: tuple[tuple[OpName, Operand], ...] = (
        *(("wgrad", "act"), ("fprop", "weight"), ("dgrad", "weight")),
    )
    of_act: Counter[str] = Counter()
    for op, operand in wanted:
        for record in chosen.records:
            if (record.op, record.operand) == (op, operand) and (kind := of_recorded(record.dtype)):
                found[record.layer, operand] = kind
                of_act[kind] += record.elements if operand == "act" else 0
    rest = {"dtype": of_act.most_common(1)[0][0]} if of_act else {}
    return {**rest, "types": lambda layer, operand: found.get((layer.name, operand))}


def _of_step(
    chosen: Step, network: Network | None, options: dict[str, Any]
) -> tuple[Footprint, Network, int, str]:
    """Return a step's footprint, its layers as a network, its samples and a title."""
    counted = counting.of_masks(chosen.kept(), network=network, **options)
    folder = chosen.path.parents[1]
    table = network or Network(folder.name, "", chosen.layers, ())
    return counted, table, max(_samples(chosen)), f"{folder}: step {chosen.number}"


def _samples(chosen: Step) -> list[int]:
    return [chosen.samples_of(layer.name) for layer in chosen.layers]


def _beside(
    chosen: Step, network: Network | None, measured: SavedTensors, values: dict[str, Any]
) -> tuple[list[Beside], tuple[int, int]]:
    """Return what autograd saved of the whole batch and the model, by module and in all.

    Zeros are stored as they were.
    """
    counted = counting.of_masks(chosen.kept(), network=network, format="dense", **values)
    own = {
        layer.name: (chosen.samples_of(layer.name), chosen.batch_of(layer.name))
        for layer in chosen.layers
    }
    whole = of_batch(counted, max(_samples(chosen)), chosen.batch_size, own)
    return compare(measured.modules, whole), (measured.total, whole.everything)


def _measured(chosen: Step, rows: list[Beside], total: tuple[int, int]) -> Any:
    cells = [
        [row.module or "(the model)", size(row.measured), size(row.modelled), row.why]
        for row in rows
    ]
    last = ["all, each tensor once", *map(size, total), ""]
    title = f"Kept by autograd, batch of {chosen.batch_size}: measured in the run, beside the model"
    return table(title, ("module", "measured", "model", "why they differ"), [*cells, last], 1, True)


def _print_json(
    title: str,
    samples: int,
    counted: tuple[Footprint, Footprint],
    beside: tuple[list[Beside], tuple[int, int]] | None,
) -> None:
    ours, dense = counted
    found: dict[str, Any] = {"of": title, "samples": samples, "tensors": ours.rows}
    found["totals"] = [
        {"kept": name, "dense_bytes": total(dense), "bytes": total(ours)}
        for name, total in _sums(dense)
    ]
    if beside is not None:
        rows, (measured, modelled) = beside
        found["measured"] = rows
        found |= {"measured_bytes": measured, "modelled_bytes": modelled}
    as_json.write("footprint", found)


#: What a table of tensors leaves out where there is no room, the first one first.
EXPENDABLE = ("shares", "elements", "format", "dtype", "density")


def _tensors(counted: Footprint, whole: bool) -> Any:
    """Return a table of all tensors, or of the largest that are not another's too."""
    rows = counted.rows
    title = f"All {len(rows)} tensors"
    if not whole and len(rows) > SHOWN:
        own = sorted((row for row in rows if not row.shares), key=lambda row: -row.bytes)
        title = (
            f"The {SHOWN} largest of {len(rows)} tensors, parameters and what other modules keep "
            "left out (--all)"
        )
        rows = tuple(own[:SHOWN])
    headings = ("module", "tensor", "elements", "density", "format", "dtype", "bytes", "shares")
    return table(title, headings, _rows(rows), 2, True, () if whole else EXPENDABLE)


def _rows(rows: Sequence[Row]) -> Iterator[list[str]]:
    for row in rows:
        numbers = [count(row.elements), share(row.density), row.format, row.dtype]
        yield [row.layer, row.tensor, *numbers, size(row.bytes), row.shares]


def _sums(dense: Footprint) -> list[tuple[str, Callable[[Footprint], int]]]:
    """Return the totals that there are, by name."""
    sums: list[tuple[str, Callable[[Footprint], int]]] = [
        ("inputs of layers", lambda total: total.of("act")),
        ("inputs of batch norms", lambda total: total.of("batch_norm")),
        ("activations: both", lambda total: total.activations),
        ("weights", lambda total: total.weights),
        ("everything but parameters, each tensor once", lambda total: total.everything),
    ]
    # of a trace alone it is not known which tensors are shared, nor what other modules keep
    return sums if any(row.source for row in dense.rows) else [sums[0], sums[3]]


def _totals(counted: Footprint, dense: Footprint) -> Iterator[list[str]]:
    for name, total in _sums(dense):
        change = -100 * reduction(total(counted), total(dense))
        yield [name, size(total(dense)), size(total(counted)), f"{change + 0.0:+.1f} %"]
