"""SWAT-ERK: one sparsity for the network, given to its layers by Erdos-Renyi-Kernel."""

from __future__ import annotations

from typing import Any, ClassVar

from swatsim.policies.allocation import Allocated
from swatsim.policies.swat_u import SPARSE


class SwatErk(Allocated):
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

    Raises
    ------
    PolicyError
        If a parameter is not allowed.
    """

    method: ClassVar[str] = "swat-erk"
    sites = SPARSE

    def __init__(self, sparsity: Any, **options: Any) -> None:
        super().__init__(sparsity, **options)
