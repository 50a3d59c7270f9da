"""What a policy answers: how dense each operand of each op is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from swatsim.workload.layer import OPERANDS_OF, Layer, Operand, OpName


@dataclass(frozen=True)
class Site:
    """Where in a run a policy is asked. Later versions may add fields, never take one away.

    Parameters
    ----------
    layer : Layer
    op : {"fprop", "dgrad", "wgrad"}
    operand : {"weight", "act", "grad_out"}
        One that the op reads.
    first_convolution : bool
        Whether the layer is the first convolution that the network runs.
    step : int
        The training step's number, counted from 0.
    """

    layer: Layer
    op: OpName
    operand: Operand
    first_convolution: bool = False
    step: int = 0


class Policy(Protocol):
    """Decides which values survive. Any object with these two methods is one.

    The Top-K of an operand is taken over its whole tensor: all filters of a weight, the whole
    batch of an activation. The same site must always get the same answer.
    """

    def density(self, site: Site) -> Fraction | float | None:
        """Tell the share of an operand's values that survives, in (0, 1].

        None leaves the operand as it is: only its natural zeros are zero.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Name the policy and its parameters, as JSON, for the trace's manifest."""
        ...


def densities(
    policy: Policy, layers: Sequence[Layer], step: int = 0
) -> dict[tuple[str, OpName, Operand], Fraction | float | None]:
    """Ask a policy about all operands of a network's layers.

    Parameters
    ----------
    policy : Policy
    layers : sequence of Layer
        In the order in which they run: the first convolution among them is the network's.
    step : int
        The training step's number.

    Returns
    -------
    dict of (layer name, op, operand) to Fraction, float or None
        None for an operand that is left as it is.
    """
    first = next((layer.name for layer in layers if layer.kind == "conv"), None)
    return {
        (layer.name, op, operand): policy.density(
            Site(layer, op, operand, layer.name == first, step)
        )
        for layer in layers
        for op, operands in OPERANDS_OF.items()
        for operand in operands
    }
