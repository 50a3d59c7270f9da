"""SWAT-ERK: one sparsity for the network, given to its layers by Erdos-Renyi-Kernel."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator

from swatsim.errors import PolicyError, SwatsimError, unknown
from swatsim.policies.interface import Site
from swatsim.policies.swat_u import SPARSE, checked_sparsity
from swatsim.policies.topk import check_sparsity
from swatsim.validation import Checked
from swatsim.workload.layer import Layer


class SwatErk(Checked):
    """SWAT with an overall weight sparsity, layers given theirs by their shapes ("SWAT-ERK").

    `allocate` makes the policy, for that needs all layers::

        policy = SwatErk(0.8).allocate(network("resnet50").layers)

    A layer's activations are Top-K'd in wgrad with the sparsity of its weights, as SWAT does; so
    the activations' overall sparsity is another one, usually lower.

    Md Aamir Raihan and Tor M. Aamodt, "Sparse Weight Activation Training", NeurIPS 2020,
    arXiv:2001.01969; the allocation is that of Evci et al., "Rigging the Lottery", ICML 2020,
    arXiv:1911.11134, section 3.

    Parameters
    ----------
    sparsity : float
        Share of all weights that is dropped, in [0, 1).
    first_conv_dense : bool
        Leave the network's first convolution as it is; its weights count towards the overall
        sparsity. Off by default, unlike in SWAT-U: the authors' run configurations of SWAT-ERK
        have ``sparsify_first_layer: True``, and RigL allocates over all layers. In VGG-16 and
        WRN-16-8 the allocation leaves that layer dense by itself.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    error_type: ClassVar[type[SwatsimError]] = PolicyError

    sparsity: Annotated[float, BeforeValidator(checked_sparsity)]
    first_conv_dense: bool = False

    def __init__(self, sparsity: Any, **options: Any) -> None:
        super().__init__(sparsity=sparsity, **options)

    def allocate(self, layers: Sequence[Layer]) -> AllocatedErk:
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
        first = next((layer.name for layer in layers if layer.kind == "conv"), None)
        dense = {first} - {None} if self.first_conv_dense else set()
        densities = erdos_renyi_kernel(layers, 1 - check_sparsity(self.sparsity), dense)
        return AllocatedErk(self, layers, densities)


class AllocatedErk:
    """SWAT-ERK for one network. `SwatErk.allocate` makes one.

    Attributes
    ----------
    densities : mapping of str to fractions.Fraction
        Layer -> the share of its weights, and of its activations in wgrad, that survives.
    """

    def __init__(
        self, policy: SwatErk, layers: Sequence[Layer], densities: Mapping[str, Fraction]
    ) -> None:
        self.densities = MappingProxyType(dict(densities))
        self._policy = policy
        self._shapes = {layer.name: layer.shape_of("weight", 1) for layer in layers}

    def density(self, site: Site) -> Fraction | None:
        """Tell the share of an operand's values that survives; None where SWAT leaves it.

        Raises
        ------
        PolicyError
            If the layer is none of those allocated to, or has other weights.
        """
        layer = site.layer
        if layer.name not in self._shapes:
            raise PolicyError(f"SwatErk: {unknown('layer', layer.name, self._shapes)}")
        got, allocated = layer.shape_of("weight", 1), self._shapes[layer.name]
        if got != allocated:
            raise PolicyError(
                f"SwatErk: layer {layer.name!r} has weights {got}, the allocation was made for "
                f"{allocated}: allocate over the layers of this network"
            )
        found = self.densities[layer.name]
        return found if (site.op, site.operand) in SPARSE and found < 1 else None

    def describe(self) -> dict[str, Any]:
        """Name the policy and its parameters; the layers' densities follow from the layers."""
        return {"name": "swat-erk", **self._policy.model_dump(mode="json")}


def erdos_renyi_kernel(
    layers: Sequence[Layer], density: Fraction, dense: Collection[str | None] = ()
) -> dict[str, Fraction]:
    """Share out a density of weights: a layer's is proportional to (K + C + R + S) / (K*C*R*S).

    C is that of one group; a linear layer has no R and S in the sum. A layer that would get more
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
        raise PolicyError("SwatErk: there are no layers to allocate to: pass all of the network's")
    budget = density * sum(layer.weights for layer in layers)
    whole = {layer.name for layer in layers if layer.name in dense}
    while rest := [layer for layer in layers if layer.name not in whole]:
        scale = _scale(layers, whole, rest, budget)
        largest = max(scale * _raw(layer) for layer in rest)
        if largest <= 1:
            break
        whole |= {layer.name for layer in rest if scale * _raw(layer) == largest}
    return {
        layer.name: Fraction(1) if layer.name in whole else scale * _raw(layer) for layer in layers
    }


def _scale(
    layers: Sequence[Layer], whole: Collection[str], rest: Sequence[Layer], budget: Fraction
) -> Fraction:
    """Find the factor with which the layers that are not whole use up the budget."""
    taken = sum(layer.weights for layer in layers if layer.name in whole)
    if taken >= budget:
        raise PolicyError(
            f"SwatErk: the layers kept dense have {taken} weights, the sparsity leaves "
            f"{int(budget)}: choose a lower sparsity, or first_conv_dense=False"
        )
    return (budget - taken) / sum(_raw(layer) * layer.weights for layer in rest)


def _raw(layer: Layer) -> Fraction:
    return Fraction(sum(layer.shape_of("weight", 1)), layer.weights)
