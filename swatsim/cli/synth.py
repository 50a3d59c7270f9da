"""``swatsim synth``: a trace of a network that was never trained."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import click

from swatsim.cli.lazy import completing
from swatsim.cli.options import networks
from swatsim.cli.progress import progress
from swatsim.cli.show import console
from swatsim.policies import POLICIES, Phased, Policy, make_policy
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
@click.option("--sparsity", type=float, required=True, help="Share that the policy drops.")
@click.option(
    "--policy",
    default="swat-u",
    show_default=True,
    help="A policy by its name: see below.",
    **completing(lambda: POLICIES),
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
    type=click.Choice(ACTIVATIONS),
    help="Of a transformer's MLPs; by default its own.",
)
@click.option("--uneven", is_flag=True, help="Make channels as uneven as in trained layers.")
@click.option("--overwrite", is_flag=True, help="Replace the trace that is there.")
def synth(
    network: str,
    output: str,
    sparsity: float,
    policy: str,
    phases: tuple[str, ...],
    batch: int,
    steps: int,
    seed: int,
    act_density: float,
    grad_density: float,
    activation: str | None,
    uneven: bool,
    overwrite: bool,
) -> None:
    """Make a trace of a known NETWORK, without training it.

    Weights and activations are drawn, and the policy really leaves what it leaves of them.
    """
    chosen = table(network, activation)
    how = make_policy(policy, sparsity, chosen.layers)
    if phases:
        how = Phased([(0, how), *(_phase(one, sparsity, chosen.layers) for one in phases)])
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
            uneven=uneven,
            overwrite=overwrite,
            progress=show,
        )
    masks = sum(len(trace.step(number).records) for number in trace.steps)
    number = len(trace.steps)
    console().print(
        f"wrote {trace.path}: {number} step{'s' * (number != 1)}, {masks} masks\n"
        f"Next: swatsim simulate {shlex.quote(output)} -m tensordash"
    )
