"""``swatsim synth``: a trace of a network that was never trained."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.lazy import Choice, completing
from swatsim.cli.options import networks
from swatsim.cli.progress import progress
from swatsim.cli.show import console
from swatsim.errors import WorkloadError
from swatsim.policies import POLICIES, Phased, Policy, make_policy
from swatsim.tracefile import Trace
from swatsim.tracefile.schema import MaskRecord
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.layer import Layer
from swatsim.workload.networks import NETWORKS
from swatsim.workload.networks import network as table
from swatsim.workload.transformers import ACTIVATIONS


def _phase(stated: str, sparsity: float, layers: Sequence[Layer]) -> tuple[int, Policy]:
    """Return the first step and the policy of STEP=POLICY[:SPARSITY]."""
    begin, _, rest = stated.partition("=")
    name, _, own = rest.partition(":")
    try:
        step, share = int(begin), float(own) if own else sparsity
    except ValueError:
        raise click.BadParameter(
            f"{stated!r} is not allowed: must be STEP=POLICY or STEP=POLICY:SPARSITY, such as "
            "2=swat-u:0.8",
            param_hint="'--phase'",
        ) from None
    return step, make_policy(name, share, layers)


class _Synth(click.Command):
    """Help that ends with networks and policies."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Networks"):
            formatter.write_dl([(name, network.citation) for name, network in NETWORKS.items()])
        with formatter.section("Policies"):
            formatter.write_dl([(name, policy.summary()) for name, policy in POLICIES.items()])
        super().format_epilog(ctx, formatter)


@click.command(cls=_Synth)
@click.argument("network", **completing(networks))
@click.option("-o", "--output", type=click.Path(), required=True, help="Where the trace goes.")
@click.option(
    "--sparsity", type=float, help="Share that the policy drops; may be left out with --masks."
)
@click.option(
    "--policy",
    help="A policy by its name: see below. By default swat-u; without --sparsity dense.",
    **completing(lambda: POLICIES),
)
@click.option(
    "--masks",
    type=click.Path(),
    multiple=True,
    help="Masks to take instead of drawing them: a .npy, .npz, .safetensors or .pt file, "
    "Timeloop's densities as .yaml, or a folder of them; may be given several times.",
)
@click.option(
    "--phase",
    "phases",
    multiple=True,
    metavar="STEP=POLICY[:SPARSITY]",
    help="From a step on another policy; of --sparsity, if it says none of its own. Repeatable.",
    **completing(lambda: [f"1={name}" for name in POLICIES]),
)
@click.option("--batch", type=int, default=4, show_default=True, help="Samples of a batch.")
@click.option("--steps", type=int, default=1, show_default=True, help="How many steps.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The same one, the same masks."
)
@click.option(
    "--act-density",
    type=float,
    default=0.5,
    show_default=True,
    help="Share of the activations behind a ReLU that is not zero before Top-K.",
)
@click.option(
    "--grad-density",
    type=float,
    default=1.0,
    show_default=True,
    help="Share of the gradients that is not zero.",
)
@click.option(
    "--activation",
    type=Choice(ACTIVATIONS),
    help="Of a transformer's MLPs; by default its own.",
)
@click.option("--uneven", is_flag=True, help="Make channels as uneven as in trained layers.")
@click.option("--overwrite", is_flag=True, help="Replace the trace that is there.")
@JSON
def synth(
    network: str,
    output: str,
    sparsity: float | None,
    policy: str | None,
    masks: tuple[str, ...],
    phases: tuple[str, ...],
    batch: int,
    steps: int,
    seed: int,
    act_density: float,
    grad_density: float,
    activation: str | None,
    uneven: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make a trace of a known NETWORK, without training it.

    Weights and activations are drawn, and the policy really leaves what it leaves of them. With
    --masks those of a network that somebody pruned: what is not zero in a checkpoint, for example.
    """
    _check(network, sparsity, policy, masks)
    chosen = table(network, activation)
    name = "dense" if sparsity is None else policy or "swat-u"
    how = make_policy(name, sparsity or 0, chosen.layers)
    if phases:
        how = Phased([(0, how), *(_phase(one, sparsity or 0, chosen.layers) for one in phases)])
    with progress("drawing", "layers") as show:
        trace = synthesize(
            chosen,
            output,
            policy=how,
            batch=batch,
            steps=steps,
            seed=seed,
            act_density=act_density,
            grad_density=grad_density,
            masks=masks or None,
            uneven=uneven,
            overwrite=overwrite,
            progress=show,
        )
    if as_json:
        _print_json(trace, network)
    else:
        _print(trace, output)


def _print_json(trace: Trace, network: str) -> None:
    records = list(_records(trace))
    found = {
        "written": [trace.path],
        "trace_id": trace.id,
        "network": network,
        "policy": trace.manifest.policy,
        "batch_size": trace.manifest.batch_size,
        "layers": [layer.name for layer in trace.layers],
        "steps": len(trace.steps),
        "masks": len(records),
        "layers_with_given": _given(trace),
        "elements": sum(record.elements for record in records),
    }
    as_json.write("synth", found)


def _print(trace: Trace, output: str) -> None:
    number, counted = len(trace.steps), _given(trace)
    of = ", ".join(f"{operand} of {many}" for operand, many in counted.items() if many)
    given = f", not drawn: {of} of {len(trace.layers)} layers" if of else ""
    console().print(
        f"wrote {trace.path}: {number} step{'s' * (number != 1)}, {len(list(_records(trace)))} "
        f"masks{given}\nNext: swatsim simulate {shlex.quote(output)} -m tensordash"
    )


def _records(trace: Trace) -> Iterator[MaskRecord]:
    return (record for number in trace.steps for record in trace.step(number).records)


def _check(network: str, sparsity: float | None, policy: str | None, masks: Sequence[str]) -> None:
    if network not in NETWORKS and Path(network).exists():
        raise WorkloadError(
            f"{network} is no network: weights don't say how large activations are; name a network "
            "and give this by --masks; of a model of your own make a table (layer_table) in Python"
        )
    if sparsity is None and (policy is not None or not masks):
        raise click.UsageError("Missing option '--sparsity'.", click.get_current_context())


def _given(trace: Trace) -> dict[str, Any]:
    """Return by operand how many layers have a mask that was not drawn."""
    given = trace.manifest.provenance["parameters"].get("masks", {})
    return dict(given.get("layers_with", {}))
