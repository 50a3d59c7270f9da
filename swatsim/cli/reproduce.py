"""``swatsim reproduce``: papers' figures and machines, on workloads of their own."""

from __future__ import annotations

import click

from swatsim.cli import reproduced_machines, reproduced_swat
from swatsim.cli.lazy import Choice, Group
from swatsim.cli.options import STORE
from swatsim.cli.show import console
from swatsim.outputs import check_folder
from swatsim.reproduce import machines as compared

OUTPUT = click.option("-o", "--output", type=click.Path(), help="Write tables (CSV), plots here.")


@click.group(cls=Group, what="reproduction")
def reproduce() -> None:
    """Set a paper's figures beside ours, or machines beside each other.

    Both with synthetic masks, in minutes.
    """


@reproduce.command()
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Images.")
@STORE
@OUTPUT
def swat(batch: int, store: bool, output: str | None) -> None:
    """Set SWAT's published figures beside ours.

    Speed-ups, FLOPs and backward-pass memory of Sparse Weight Activation Training (NeurIPS 2020),
    each with the difference and its cause. The speed-ups are simulated on ResNet-50 with synthetic
    masks, which takes minutes; the rest is computed from layer tables.
    """
    if output is not None:
        check_folder(output)
    _print(reproduced_swat.run(batch, store, output), output)


@reproduce.command()
@click.option(
    "--network",
    "networks",
    type=Choice([it.network for it in compared.WORKLOADS.values()]),
    multiple=True,
    help="Of which network, again for another; by default of all.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    help="Images or sequences of a step; by default "
    + ", ".join(f"{it.samples} of {it.network}" for it in compared.WORKLOADS.values())
    + ".",
)
@click.option(
    "--uneven/--even",
    default=True,
    show_default=True,
    help="Channels as uneven as trained ones, or all alike.",
)
@STORE
@OUTPUT
def machines(
    networks: tuple[str, ...], batch: int | None, uneven: bool, store: bool, output: str | None
) -> None:
    """Set machines beside each other, all of them made alike.

    What a training step of ResNet-50, and of GPT-2 small, takes under one method after another, on
    machines of as many multipliers, one clock, value type, DRAM, vector unit and size of buffers.
    Masks are synthetic: weights are random, nothing is trained.
    """
    if output is not None:
        check_folder(output)
    chosen = [it.title for it in compared.WORKLOADS.values() if it.network in networks]
    titles = chosen or list(compared.WORKLOADS)
    _print(reproduced_machines.run(titles, batch, uneven, store, output), output)


def _print(parts: list[object], output: str | None) -> None:
    out = console()
    for part in parts:
        out.print(part)
    if output is None:
        out.print("Next: with -o FOLDER the tables as CSV, and the plots")
    else:
        out.print("Next: swatsim synth NETWORK .. makes such a trace, for swatsim simulate")
