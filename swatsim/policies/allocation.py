"""How a network's sparsity is shared out among its layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, PrivateAttr

from swatsim.errors import PolicyError, SwatsimError, unknown
from swatsim.policies.interface import Site
from swatsim.policies.topk import check_sparsity
from swatsim.validation import Checked
from swatsim.workload.layer import Layer

#: Where a weight is read. What is dropped from it there is what "sparse weights" means.
WEIGHTS = frozenset({("fprop", "weight"), ("dgrad", "weight")})


def checked_sparsity(value: Any) -> float:
    """Check a record's sparsity; `Checked` says of which field the refusal speaks."""
    try:
        return float(check_sparsity(value))
    except PolicyError as error:
        raise ValueError(str(error).partition("is not allowed: ")[2]) from None


Sparsity = Annotated[float, BeforeValidator(checked_sparsity)]


class Allocated(Checked):
    """Base of policies with one overall sparsity that layers get their shares of.

    By Erdos-Renyi-Kernel, for which `allocate` has to be called with all layers (the tracer and
    `swatsim synth` do so by themselves), or all the same.

    Parameters
    ----------
    sparsity : float
        Share of all weights that is dropped, in [0, 1).
    first_conv_dense : bool
        Leave the network's first convolution as it is; with Erdos-Renyi-Kernel its weights count
        towards the overall sparsity all the same.
    """

    error_type: ClassVar[type[SwatsimError]] = PolicyError
    #: The method's name in a trace.
    method: ClassVar[str]
    #: What is sparse.
    sites: ClassVar[Collection[tuple[str, str]]] = WEIGHTS

    sparsity: Sparsity
    first_conv_dense: bool = False
    _densities: Mapping[str, Fraction] | None = PrivateAttr(None)
    _shapes: Mapping[str, tuple[int, ...]] = PrivateAttr(default_factory=dict)

    def __init__(self, sparsity: Any, **options: Any) -> None:
        super().__init__(sparsity=sparsity, **options)

    @property
    def is_uniform(self) -> bool:
        """Whether all layers get the same sparsity."""
        return False

    @property
    def is_allocated(self) -> bool:
        """Whether every layer has its sparsity already."""
        return self.is_uniform or self._densities is not None

    def allocate(self, layers: Sequence[Layer]) -> Self:
        """Give each layer of a network its density.

        Parameters
        ----------
        layers : sequence of Layer
            All that the policy will be asked about, in the order in which they run.

        Raises
        ------
        PolicyError
            If there are none, or those kept dense hold more weights than the sparsity leaves.
        """
        if self.is_uniform:
            return self
        first = next((layer.name for layer in layers if layer.kind == "conv"), None)
        dense = {first} - {None} if self.first_conv_dense else set()
        who = type(self).__name__
        made = self.model_copy()
        made._densities = erdos_renyi_kernel(layers, 1 - check_sparsity(self.sparsity), dense, who)
        made._shapes = {layer.name: layer.shape_of("weight", 1) for layer in layers}
        return made

    @property
    def densities(self) -> Mapping[str, Fraction]:
        """Layer -> the share of its weights that survives; empty if it is the same for all."""
        return dict(self._densities or {})

    def density(self, site: Site) -> Fraction | None:
        """Tell the share of an operand's values that survives; None where it is left as it is.

        Raises
        ------
        PolicyError
            If nothing was allocated, the layer is none of those allocated to, or has other weights.
        """
        share = self._uniform(site) if self.is_uniform else self._found(site.layer)
        return share if (site.op, site.operand) in self.sites and share < 1 else None

    def describe(self) -> dict[str, Any]:
        """Name the policy and its parameters; the layers' densities follow from the layers."""
        return {"name": self.method, **self.model_dump(mode="json")}

    def _uniform(self, site: Site) -> Fraction:
        dense = site.first_convolution and self.first_conv_dense
        return Fraction(1) if dense else 1 - check_sparsity(self.sparsity)

    def _found(self, layer: Layer) -> Fraction:
        who = type(self).__name__
        if self._densities is None:
            raise PolicyError(
                f"{who}: nothing is allocated yet: call allocate(layers) with all layers of the "
                "network"
            )
        if layer.name not in self._shapes:
            raise PolicyError(f"{who}: {unknown('layer', layer.name, self._shapes)}")
        got, allocated = layer.shape_of("weight", 1), self._shapes[layer.name]
        if got != allocated:
            raise PolicyError(
                f"{who}: layer {layer.name!r} has weights {got}, the allocation was made for "
                f"{allocated}: allocate over the layers of this network"
            )
        return self._densities[layer.name]


def erdos_renyi_kernel(
    layers: Sequence[Layer],
    density: Fraction,
    dense: Collection[str | None] = (),
    who: str = "Erdos-Renyi-Kernel",
    share: Callable[[Layer], Fraction] | None = None,
) -> dict[str, Fraction]:
    """Share out a density of weights: a layer's is proportional to (K + C + R + S) / (K*C*R*S).

    C is that of one group; a linear layer has no R and S in the sum. `share` is what it is
    proportional to instead. A layer that would get more
    than its weights is made dense, and the rest is shared out anew, until all fit: so the kept
    weights are exactly `density` of all weights, before each layer's count is rounded up.

    Evci et al., ICML 2020, section 3 ("Erdos-Renyi-Kernel"), and its supplement's layer-wise cap.

    Parameters
    ----------
    layers : sequence of Layer
    density : Fraction
        Share of all weights that is kept, in (0, 1].
    dense : collection of str
        Layers that are kept whole whatever comes out.
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
        If there are no layers, or `dense` has more weights than are kept.
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
    """Find the factor with which the layers that are not whole use up the budget."""
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
    """Share out a whole number in proportion, none getting more than it has room for.

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
