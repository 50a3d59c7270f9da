"""SWAT-ERK: one sparsity for the network, given to its layers by Erdos-Renyi-Kernel."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainValidator

from swatsim.policies.allocation import ErdosRenyiKernel, named_allocation, share_at
from swatsim.policies.interface import Site
from swatsim.policies.method import Method, Sparsity
from swatsim.policies.swat_u import SPARSE
from swatsim.workload.layer import Layer


def _erk(named: Any) -> ErdosRenyiKernel:
    """Return the allocation, or that of its word."""
    if isinstance(named, ErdosRenyiKernel):
        return named
    if named != ErdosRenyiKernel.word:
        raise ValueError(
            f"must be {ErdosRenyiKernel.word!r}, which is what SWAT-ERK is; SwatU is uniform"
        )
    return ErdosRenyiKernel()


class SwatErk(Method):
    """SWAT with an overall weight sparsity, layers given theirs by their shapes ("SWAT-ERK").

    `allocate` gives the layers their densities, for that needs all of them; the tracer calls it::

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
    allocation : {"erk"}
        There is no other. `allocate` makes the layers' densities of it, which are in no trace, for
        they follow from the layers.

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "swat-erk"

    sparsity: Sparsity = Field(kw_only=False)
    first_conv_dense: bool = False
    allocation: Annotated[ErdosRenyiKernel | Literal["erk"], PlainValidator(_erk)] = Field(
        default=ErdosRenyiKernel(), exclude=True
    )

    @property
    def is_allocated(self) -> bool:
        """Whether every layer has its density already."""
        return named_allocation(self.allocation).is_allocated

    def allocate(self, layers: Sequence[Layer]) -> Self:
        """Return the policy with a density for each layer: see `ErdosRenyiKernel.over`."""
        shared_out = named_allocation(self.allocation).over(layers, self)
        return self.model_copy(update={"allocation": shared_out})

    def density(self, site: Site) -> Fraction | None:
        """Return the share of an operand's values that survives; None where it is left as it is.

        Raises
        ------
        PolicyError
            If nothing was allocated, the layer is none of those allocated to, or has other weights.
        """
        return share_at(site, SPARSE, self.allocation, self)
