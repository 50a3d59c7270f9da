"""How a network's sparsity is shared out among its layers: an allocation is a policy's field."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, ClassVar, Literal, Protocol, TypeAlias

from pydantic import PlainSerializer, PlainValidator

from swatsim.arguments import sparsity
from swatsim.errors import PolicyError, unknown
from swatsim.policies.interface import Site, first_convolution, with_weights
from swatsim.workload.layer import Layer

#: Where a weight is read. What is dropped from it there is what "sparse weights" means.
WEIGHTS = frozenset({("fprop", "weight"), ("dgrad", "weight")})


class Sparse(Protocol):
    """What an allocation reads of a policy."""

    @property
    def sparsity(self) -> float:
        """Share of all weights that is dropped, in [0, 1)."""
        ...

    @property
    def first_conv_dense(self) -> bool:
        """Whether the network's first convolution is left as it is."""
        ...


@dataclass(frozen=True)
class Uniform:
    """All layers get the same density."""

    word: ClassVar[str] = "uniform"
    is_allocated: ClassVar[bool] = True

    def over(self, layers: Sequence[Layer], policy: Sparse) -> Uniform:
        """Return the allocation over a network's layers, which is the same for all networks."""
        return self

    def density(self, site: Site, policy: Sparse) -> Fraction:
        """Return the share of a layer's weights that survives; 1 for all of them."""
        dense = site.first_convolution and policy.first_conv_dense
        return Fraction(1) if dense else 1 - sparsity(policy.sparsity)


@dataclass(frozen=True)
class ErdosRenyiKernel:
    """Layers get theirs by their shapes: see `erdos_renyi_kernel`.

    `over` has to be called with all layers (the tracer and `swatsim synth` do so by themselves). A
    first convolution that is left as it is counts towards the overall sparsity all the same. A
    layer that a run meets later gets what another of its shape has, and the log says so.

    Parameters
    ----------
    by_layer : mapping of str to Fraction, or None
        Layer -> the share of its weights that survives. None as long as nothing is shared out.
    shapes : mapping of str to tuple of int
        Layer -> the shape of its weights.
    factor : Fraction, optional
        What a layer's density is of its ``(K + C + R + S) / (K*C*R*S)``. None where nothing is
        shared out, or each layer has all its weights.
    """

    word: ClassVar[str] = "erk"
    by_layer: Mapping[str, Fraction] | None = field(default=None, hash=False)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False, repr=False)
    factor: Fraction | None = field(default=None, repr=False)

    @property
    def is_allocated(self) -> bool:
        """Whether every layer has its density already."""
        return self.by_layer is not None

    def over(self, layers: Sequence[Layer], policy: Sparse) -> ErdosRenyiKernel:
        """Return the allocation over a network's layers.

        Parameters
        ----------
        layers : sequence of Layer
            All of the network, in the order in which they run. Products of two activations have no
            share.
        policy : Sparse

        Raises
        ------
        PolicyError
            If there are none, or those kept dense hold more weights than the sparsity leaves.
        """
        layers = with_weights(layers)
        first = first_convolution(layers)
        dense = {first} if policy.first_conv_dense else set()
        who = type(policy).__name__
        shares = erdos_renyi_kernel(layers, 1 - sparsity(policy.sparsity), dense, who)
        shapes = {layer.name: layer.shape_of("weight", 1) for layer in layers}
        factors = (shares[it.name] / _by_kernel(it) for it in layers if shares[it.name] < 1)
        return ErdosRenyiKernel(shares, shapes, next(factors, None))

    def knows(self, layer: Layer) -> bool:
        """Whether nothing is shared out yet, or the layer, with weights of this shape, has a share.

        Parameters
        ----------
        layer : Layer
        """
        shape = self.shapes.get(layer.name)
        return self.by_layer is None or shape == layer.shape_of("weight", 1)

    def joined_by(self, layer: Layer) -> ErdosRenyiKernel:
        """Return the allocation with a layer more, which gets what another of its shape would.

        The others' shares stay: so the overall sparsity is no longer the one that was asked for.
        """
        share = Fraction(1)
        if self.factor is not None:
            share = min(share, self.factor * _by_kernel(layer))
        shapes = {**self.shapes, layer.name: layer.shape_of("weight", 1)}
        by_layer = {**(self.by_layer or {}), layer.name: share}
        return ErdosRenyiKernel(by_layer, shapes, self.factor)

    def density(self, site: Site, policy: Sparse) -> Fraction:
        """Return the share of a layer's weights that survives; 1 for all of them.

        Raises
        ------
        PolicyError
            If nothing was allocated, the layer is none of those allocated to, or has other weights.
        """
        who, layer = type(policy).__name__, site.layer
        if self.by_layer is None:
            raise PolicyError(
                f"{who}: nothing is allocated yet: call allocate(layers) with all layers of the "
                "network"
            )
        if layer.name not in self.shapes:
            raise PolicyError(f"{who}: {unknown('layer', layer.name, self.shapes)}")
        got, allocated = layer.shape_of("weight", 1), self.shapes[layer.name]
        if got != allocated:
            raise PolicyError(
                f"{who}: layer {layer.name!r} has weights {got}, the allocation was made for "
                f"{allocated}: allocate over the layers of this network"
            )
        return self.by_layer[layer.name]


Allocation: TypeAlias = Uniform | ErdosRenyiKernel
#: What a user may call them.
Word = Literal["uniform", "erk"]
#: Word -> the allocation, before anything is shared out.
ALLOCATIONS: Mapping[str, Allocation] = {one.word: one for one in (Uniform(), ErdosRenyiKernel())}


def named_allocation(named: Allocation | str) -> Allocation:
    """Return the allocation of a word; an allocation is returned as it is.

    Raises
    ------
    ValueError
        If there is none of that word.
    """
    if isinstance(named, Uniform | ErdosRenyiKernel):
        return named
    if not isinstance(named, str) or named not in ALLOCATIONS:
        raise ValueError(f"must be {' or '.join(map(repr, ALLOCATIONS))}")
    return ALLOCATIONS[named]


def share_at(
    site: Site,
    places: Collection[tuple[str, str]],
    allocation: Allocation | str,
    policy: Sparse,
) -> Fraction | None:
    """Return the share of an operand's values that survives; None where it is left as it is.

    Parameters
    ----------
    site : Site
    places : collection of (op, operand)
        Where the policy drops something at all.
    allocation : Allocation, or its word
    policy : Sparse

    Raises
    ------
    PolicyError
        If nothing was allocated, the layer is none of those allocated to, or has other weights.
    """
    if (site.op, site.operand) not in places:
        return None
    share = named_allocation(allocation).density(site, policy)
    return share if share < 1 else None


#: A field of a policy. In a trace it is its word: the layers' densities follow from the layers.
AllocationField = Annotated[
    Allocation | Word,
    PlainValidator(named_allocation),
    PlainSerializer(lambda allocation: allocation.word, return_type=str),
]


def erdos_renyi_kernel(
    layers: Sequence[Layer],
    density: Fraction,
    dense: Collection[str | None] = (),
    who: str = "Erdos-Renyi-Kernel",
    share: Callable[[Layer], Fraction] | None = None,
) -> dict[str, Fraction]:
    """Return layers' densities of weights, in proportion to (K + C + R + S) / (K*C*R*S).

    C is that of one group; a linear layer has no R and S in the sum. `share` is what it is
    proportional to instead. A layer that would get more
    than its weights is made dense, and the rest is shared out anew, until all fit: so the retained
    weights are exactly `density` of all weights, before each layer's count is rounded up.

    Evci et al., ICML 2020, section 3 ("Erdos-Renyi-Kernel"), and its supplement's layer-wise cap.

    Parameters
    ----------
    layers : sequence of Layer
    density : Fraction
        Share of all weights that is retained, in (0, 1].
    dense : collection of str
        Layers that stay dense whatever comes out.
    who : str
        Named in a refusal.
    share : callable of Layer to Fraction, optional

    Returns
    -------
    dict of str to Fraction
        Layer -> density, in (0, 1].

    Raises
    ------
    PolicyError
        If there are no layers, or `dense` has more weights than are retained.
    """
    if not layers:
        raise PolicyError(f"{who}: there are no layers to allocate to: pass all of the network's")
    budget = density * sum(layer.weights for layer in layers)
    raw = {layer.name: (share or _by_kernel)(layer) for layer in layers}
    whole = {layer.name for layer in layers if layer.name in dense}
    while rest := [layer for layer in layers if layer.name not in whole]:
        scale = _scale(layers, whole, raw, budget, who)
        largest = max(scale * raw[layer.name] for layer in rest)
        if largest <= 1:
            break
        whole |= {layer.name for layer in rest if scale * raw[layer.name] == largest}
    return {name: Fraction(1) if name in whole else scale * raw[name] for name in raw}


def _scale(
    layers: Sequence[Layer],
    whole: Collection[str],
    raw: Mapping[str, Fraction],
    budget: Fraction,
    who: str,
) -> Fraction:
    """Return the factor with which the layers that are not whole use up the budget."""
    taken = sum(layer.weights for layer in layers if layer.name in whole)
    if taken >= budget:
        raise PolicyError(
            f"{who}: the layers kept dense have {taken} weights, the sparsity leaves "
            f"{int(budget)}: choose a lower sparsity, or first_conv_dense=False"
        )
    rest = [layer for layer in layers if layer.name not in whole]
    return (budget - taken) / sum(raw[layer.name] * layer.weights for layer in rest)


def _by_kernel(layer: Layer) -> Fraction:
    return Fraction(sum(layer.shape_of("weight", 1)), layer.weights)


def share_out(budget: int, shares: Sequence[float], room: Sequence[int]) -> list[int]:
    """Return a whole number shared out in proportion, to none more than it has room for.

    Rounded down, then the largest remainders get one more, of equal ones the first. What has no
    room goes to the others in the same way, until nothing is left or nobody has room. Shares that
    are all 0 count as equal.

    Parameters
    ----------
    budget : int
    shares : sequence of float, at least 0
    room : sequence of int

    Returns
    -------
    list of int
        Their sum is the budget, or the room if that is less.
    """
    given = [0] * len(room)
    left = min(budget, sum(room))
    while left:
        open_ = [i for i in range(len(room)) if given[i] < room[i]]
        weights = {i: Fraction(shares[i]) for i in open_}
        if not any(weights.values()):
            weights = dict.fromkeys(open_, Fraction(1))
        wanted = {i: left * weights[i] / sum(weights.values()) for i in open_}
        parts = {i: int(wanted[i]) for i in open_}
        by_rest = sorted(open_, key=lambda i: (parts[i] - wanted[i], i))
        for i in by_rest[: left - sum(parts.values())]:
            parts[i] += 1
        for i in open_:
            given[i] += min(parts[i], room[i] - given[i])
        left = min(budget, sum(room)) - sum(given)
    return given
