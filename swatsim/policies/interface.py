"""What a policy is asked: how dense each operand of each op is, by which rule values survive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol, TypeAlias

from swatsim.arguments import arguments, having, instance_of, several, whole_number
from swatsim.errors import PolicyError
from swatsim.workload.layer import OPERANDS_OF, Layer, Operand, OpName

#: What a method does of its own with an operand in a step: choose among all its values, compare
#: them with a threshold of an earlier step, apply a mask that it keeps, update a momentum.
Work: TypeAlias = Literal["topk", "threshold", "mask", "momentum"]


@dataclass(frozen=True)
class Site:
    """Where in a run a policy is asked. Later versions may add fields, never take one away.

    Parameters
    ----------
    layer : Layer
    op : {"fprop", "dgrad", "wgrad"}
    operand : {"weight", "act", "grad_out"}
        One that the op reads; the one that it makes where it is asked what of it is wanted.
    first_convolution : bool
        Whether the layer is the first convolution that the network runs.
    step : int
        The training step's number, counted from 0.
    run : int
        Which run of the layer in this step it is, counted from 1: a shared layer, or gradient
        accumulation.
    """

    layer: Layer
    op: OpName
    operand: Operand
    first_convolution: bool = False
    step: int = 0
    run: int = 1


class Policy(Protocol):
    """Decides which values survive. Any object with these two methods is one.

    Without more, those of largest magnitude survive, of an operand's whole tensor: all filters of
    a weight, the whole batch of an activation. The same site must always get the same answer.

    A policy may also have

    - ``rule(site) -> Rule``: another score, granularity or schedule;
    - ``wanted(site) -> share or None``: which weight gradients the method looks at; asked with
      wgrad and "weight", which it makes. None: all. A share: those of weights that fprop reads, no
      other one is looked at in this step. It is what a trace has as wgrad's output mask;
    - ``weight_gradient(mask, weight, gradient)``: what the optimizer gets in place of the gradient
      of a weight, of which `mask` (array of bool) marks what fprop read. Where fewer than asked for
      are not zero, zeros are marked as well, so that a layer which starts at zero is trained: not
      with a ``trains`` of "all", which says that what is marked gets no more than what is not;
    - ``estimate(site, values, mask) -> array``: what an op reads in place of the values that a mask
      marks, where that is not these values: scaled ones, say. Zero where the mask is not set, and
      not where it is; in the shape and dtype of the values. Sites with one mask have one estimate;
    - ``allocate(layers) -> policy``: called once with all layers of the network before the run,
      unless it has a true ``is_allocated``;
    - ``sparsifier() -> Sparsifier``: a run's state, where masks depend on masks before; and what
      the method does of its own beside choosing masks by a rule (`Sparsifier.work`).
    """

    def density(self, site: Site) -> Fraction | float | None:
        """Return the share of an operand's values that survives, in (0, 1].

        None leaves the operand as it is: only its natural zeros are zero.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Return the policy's name and parameters, as JSON, for the trace's manifest.

        Steps between two choices are called `every`: an estimate of a run looks for them.
        """
        ...


#: An object with the two methods of a policy.
POLICY = having("density", "describe")


def density_at(policy: Policy, site: Site) -> Fraction | float | None:
    """Return a policy's density of an operand: None where it is left as it is.

    That is so in every product of two activations: no policy is asked about it, for no published
    method drops anything there.
    """
    return None if site.layer.multiplies_activations else policy.density(site)


def wanted_at(policy: Policy, site: Site) -> Fraction | float | None:
    """Return the share of the weight gradients that a policy wants; None for all of them.

    Parameters
    ----------
    policy : Policy
    site : Site
        Of wgrad, and "weight", which it makes. Of a product of two activations all are wanted.
    """
    wanted = getattr(policy, "wanted", None)
    return None if wanted is None or site.layer.multiplies_activations else wanted(site)


def with_weights(layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers that multiply by a parameter: those that a policy is asked about."""
    return [layer for layer in layers if not layer.multiplies_activations]


def first_convolution(layers: Iterable[Layer]) -> str | None:
    """Return the convolution that a network runs first: many methods leave it dense.

    Parameters
    ----------
    layers : iterable of Layer
        In the order in which they run.

    Returns
    -------
    str or None
        Its name; None if there is no convolution. A transposed one is none.
    """
    return next((layer.name for layer in layers if layer.kind == "conv"), None)


@arguments(
    PolicyError,
    policy=POLICY,
    layers=several(instance_of(Layer), "of swatsim.Layer"),
    step=whole_number,
)
def site_densities(
    policy: Policy, layers: Sequence[Layer], step: int = 0
) -> dict[tuple[str, OpName, Operand], Fraction | float | None]:
    """Return a policy's densities for all operands of a network's layers.

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
        None for an operand that is left as it is. (layer name, "wgrad", "weight"), which wgrad
        makes, is there where the policy wants but a share of it.
    """
    first = first_convolution(layers)
    found: dict[tuple[str, OpName, Operand], Fraction | float | None] = {}
    for layer in layers:
        is_first = layer.name == first
        for op, operands in OPERANDS_OF.items():
            for operand in operands:
                site = Site(layer, op, operand, is_first, step)
                found[layer.name, op, operand] = density_at(policy, site)
        wanted = wanted_at(policy, Site(layer, "wgrad", "weight", is_first, step))
        if wanted is not None:
            found[layer.name, "wgrad", "weight"] = wanted
    return found
