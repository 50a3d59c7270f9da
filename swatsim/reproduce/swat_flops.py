"""SWAT's FLOP reductions and activation sparsities: what was published, and what comes out here.

`swat_published` holds the figures. Here they are computed from layer tables and policies alone:
weights' density in fprop and dgrad, activations' in wgrad, linear layers sparse, Top-K free. A
difference is explained where its cause was found, and no parameter is fitted to any figure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from swatsim.policies import Policy, SwatErk, SwatU, site_densities
from swatsim.policies.allocation import erdos_renyi_kernel
from swatsim.policies.swat_u import SPARSE
from swatsim.reproduce.swat_published import LEAD, PUBLISHED, Published, Quantity
from swatsim.workload.flops import (
    Convention,
    DensityTable,
    inference_reduction,
    training_reduction,
)
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.networks import network

#: What published figures are rounded to, in percent, and the least difference that is explained.
STEP = 0.1
CONVENTIONS: tuple[Convention, ...] = ("swat", "exact")


@dataclass(frozen=True)
class Comparison:
    """One published figure beside ours, all in percent.

    Parameters
    ----------
    row : Published
        Network, method, sparsities, source.
    quantity : {"training", "inference", "activation"}
        Reduction of training or inference FLOPs, or overall activation sparsity.
    published : float
    swat, exact : float or None
        Ours under each convention; they differ for ``training`` only. None where it can't be
        computed: SWAT-M's allocation is what training makes of it.
    cause : str
        Why ours differs by more than `STEP`; empty if it doesn't.
    """

    row: Published
    quantity: Quantity
    published: float
    swat: float | None
    exact: float | None
    cause: str

    @property
    def difference(self) -> float | None:
        """Ours (convention `swat`, rounded as the published figure is) minus the published one."""
        return None if self.swat is None else round(round(self.swat, 1) - self.published, 1)

    @property
    def agrees(self) -> bool:
        """Whether ours is the published figure, to `STEP`."""
        return self.difference is not None and abs(self.difference) <= STEP


def compare() -> list[Comparison]:
    """Return every published figure beside ours, in the order of the tables."""
    return [comparison for row in PUBLISHED for comparison in _compare_row(row)]


def policy_for(row: Published, layers: tuple[Layer, ...]) -> Policy | None:
    """Return the policy of a row, None for SWAT-M.

    SWAT's structured variant drops whole R x S kernels of a filter by their L1 norm, not single
    weights: as many weights are kept, so that FLOPs are those of SWAT-U.
    """
    sparsity = row.weight_sparsity / 100
    if row.method == "SWAT-U":
        return SwatU(sparsity)
    return SwatErk(sparsity).allocate(layers) if row.method == "SWAT-ERK" else None


def erdos_renyi(layers: Sequence[Layer], density: Fraction) -> DensityTable:
    """Return densities by Erdos-Renyi, in which a kernel's size has no part (Mocanu et al., SET).

    The first layer and the last are outside of it, and get the density itself: `LEAD`.
    """
    first, *inner, last = layers

    def by_matrix(layer: Layer) -> Fraction:
        channels = layer.C // layer.groups
        return Fraction(layer.K + channels, layer.K * channels)

    shares = erdos_renyi_kernel(inner, density, share=by_matrix)
    shares |= {first.name: density, last.name: density}
    return {
        (layer.name, op, operand): shares[layer.name]
        for layer in layers
        for op, operands in OPERANDS_OF.items()
        for operand in operands
        if (op, operand) in SPARSE
    }


def leads() -> Iterator[Comparison]:
    """Yield the figures of SWAT-ERK on ImageNet beside what the lead gives."""
    for row in PUBLISHED:
        if row.method == "SWAT-ERK" and "inference" in row.figures:
            layers = network(row.network).layers
            densities = erdos_renyi(layers, 1 - Fraction(str(row.weight_sparsity)) / 100)
            for quantity in ("inference", "training"):
                swat, exact = (_ours(quantity, layers, densities, each) for each in CONVENTIONS)
                yield Comparison(row, quantity, row.figures[quantity], swat, exact, LEAD)


def activation_sparsity(
    layers: tuple[Layer, ...], densities: DensityTable, natural: float = 1.0
) -> float:
    """Return the share of all layers' inputs that is zero in wgrad, in percent.

    Parameters
    ----------
    layers : tuple of Layer
    densities : mapping
        A policy's densities.
    natural : float
        Density of the inputs before Top-K, but for the first layer's, which is dense: behind a
        ReLU there are zeros that Top-K can't keep.
    """
    nonzeros = elements = 0.0
    for index, layer in enumerate(layers):
        size = layer.C * layer.H * layer.W
        top_k = densities.get((layer.name, "wgrad", "act"))
        most = natural if index else 1.0
        nonzeros += size * (most if top_k is None else min(float(top_k), most))
        elements += size
    return 100 * (1 - nonzeros / elements)


def _compare_row(row: Published) -> Iterator[Comparison]:
    layers = network(row.network).layers
    policy = policy_for(row, layers)
    for quantity, published in row.figures.items():
        cause = row.causes.get(quantity, "")
        if policy is None:
            yield Comparison(row, quantity, published, None, None, cause)
            continue
        densities = site_densities(policy, layers)
        swat = _ours(quantity, layers, densities, "swat")
        exact = _ours(quantity, layers, densities, "exact")
        yield Comparison(row, quantity, published, swat, exact, cause)


def _ours(
    quantity: Quantity, layers: tuple[Layer, ...], densities: DensityTable, convention: Convention
) -> float:
    if quantity == "training":
        return training_reduction(layers, densities, convention)
    if quantity == "inference":
        return inference_reduction(layers, densities)
    return activation_sparsity(layers, densities)
