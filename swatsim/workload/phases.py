"""Parts of a training step: what multiplies is three ops, everything else has a phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, get_args

from swatsim.workload.layer import OPS

Phase = Literal["forward", "backward", "optimizer", "policy"]
PHASES: tuple[Phase, ...] = get_args(Phase)

#: What stands for an op, and for a kind of layer, where no matrices are multiplied.
OTHER: Literal["other"] = "other"

Item = TypeVar("Item")


def in_run_order(
    ops: Sequence[Item], phase: Phase, named: Callable[[Item], tuple[str, str]]
) -> list[Item]:
    """Return the ops of a phase, in the order in which a step runs them.

    Forward in the network's order, backward from the last layer on, dgrad before wgrad.

    Parameters
    ----------
    ops : sequence
        Of one step, layers in the network's order.
    phase : {"forward", "backward", "optimizer", "policy"}
    named : callable
        Gives an op's layer and name.
    """
    if phase == "forward":
        return [op for op in ops if named(op)[1] == "fprop"]
    if phase != "backward":
        return []
    place = {layer: -i for i, layer in enumerate(dict.fromkeys(named(op)[0] for op in ops))}
    order: list[str] = list(OPS)
    backward = [op for op in ops if named(op)[1] not in ("fprop", OTHER)]
    return sorted(backward, key=lambda op: (place[named(op)[0]], order.index(named(op)[1])))
