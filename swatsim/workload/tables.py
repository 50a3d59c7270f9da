"""What a layer table holds: the layers of a network, and what all else in it keeps.

Speaks convolution letters; C, H and W are of one sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from swatsim.workload.layer import Layer, Operand
from swatsim.workload.work import Extent, Work

#: What a module other than a convolution or a linear layer keeps for its backward pass in the
#: networks that ship, as PyTorch's autograd has it (tools/autograd/derivatives.yaml): batch_norm
#: its input, and mean and deviation of each channel (statistics); relu its output; hardtanh (a
#: ReLU6) its input; max_pool its input; max_pool_indices where in it the largest were; avg_pool its
#: input; dropout which elements stayed (a byte each, as on a GPU; on a CPU PyTorch keeps a value
#: each).
#: layer_norm its input, and mean and deviation of each token, rms_norm the latter alone, as the
#: fused kernels do; gelu and silu their input, tanh its output; mul a factor; embedding its
#: indices. Attention that is one kernel keeps q, k and v (as factors of the products), its output
#: and a number a row (logsumexp), and neither scores nor probabilities. An addition, a
#: concatenation and a mean over all of H and W keep nothing. Each with the tensor of the module
#: that it is, and its type (None: the values').
SAVED_KINDS: Mapping[str, tuple[str, str | None]] = {
    "batch_norm": ("input", None),
    "statistics": ("statistics", "fp32"),
    "relu": ("output", None),
    "max_pool": ("input", None),
    "max_pool_indices": ("indices", "int64"),
    "avg_pool": ("input", None),
    "dropout": ("mask", "bool"),
    "hardtanh": ("input", None),
    "layer_norm": ("input", None),
    "rms_norm": ("input", None),
    "gelu": ("input", None),
    "silu": ("input", None),
    "tanh": ("output", None),
    "mul": ("factor", None),
    "rotary": ("factor", None),
    "embedding": ("indices", "int64"),
    "attention": ("output", None),
    "logsumexp": ("logsumexp", "fp32"),
}

#: In `Saved.dtype`: the values' type, whatever that is.
VALUES = "values"


@dataclass(frozen=True)
class Saved:
    """A tensor that something other than a convolution or a linear layer saves.

    Parameters
    ----------
    name : str
        The module's; a module that runs a second time gets ``_1`` appended, and so on.
    kind : str
        One of `SAVED_KINDS`, or another operation in PyTorch's words, such as ``gelu``.
    C, H, W : int
        Sizes for one sample; of a part of a larger tensor, that tensor's, for all of it is kept.
    tensor : str
        Which tensor: the name of what made it. Those of the same name are one tensor, which
        lies in memory once. A ReLU in place makes a tensor of its own, for nothing keeps what it
        overwrites.
    part : str
        Which tensor of the operation it is; by default what its kind says, or ``input``.
    dtype : str, optional
        By default what its kind says, or `VALUES`.
    fixed : int
        Elements beside those of the samples, such as a batch norm's statistics.
    module : str, optional
        Which module saves it, where that is known; "" is the model.
    """

    name: str
    kind: str
    C: int
    H: int
    W: int
    tensor: str = ""
    part: str = ""
    dtype: str | None = None
    fixed: int = 0
    module: str | None = None

    @property
    def elements(self) -> int:
        """Elements of the tensor for one sample."""
        return self.C * self.H * self.W


@dataclass(frozen=True)
class Network:
    """The layers of a network, in the order in which they run, and what the rest keeps.

    Parameters
    ----------
    name, citation : str
    layers : tuple of Layer
        Convolutions, linear layers, products of two activations; names as in the torch module where
        there is one. A layer that runs a second time is one more, ``NAME@2``.
    saved : tuple of Saved
        What all else keeps for the backward pass.
    biased : frozenset of str
        The layers that have a bias.
    inputs : mapping of str to str
        Layer -> which tensor it reads, named as in `Saved.tensor`; ``input`` is the image. One that
        keeps none, for its weight is not trained, is not there, if `modules` has it.
    extents : mapping of str to Extent
        Tensor -> its elements, where a layer reads only a part of it: all of it is kept.
    modules : mapping of str to str
        Layer -> which module runs it, where that is known; "" is the model.
    trained : int, optional
        Trained values, where it is known; by default those of layers and batch norms.
    alone : Network, optional
        What a batch of one sample keeps, where that is not what another one does: torch may have
        views there in place of copies.
    rights : mapping of str to str
        Product of two activations -> which tensor its right factor is.
    dense : frozenset of str
        The layers whose input has no zeros of its own: that of a norm, a GELU, a gate, a linear
        bottleneck. All others but the first read what a ReLU made.
    causal : mapping of str to {"act", "grad_out"}
        Product of two activations -> which of its tensors has a row for each query, a column for
        each key, and nothing above the diagonal: of scores what they are, of values the left
        factor.
    embedded : bool
        Whether what the first layer reads is trained, such as an embedding: it has a dgrad.
    works : tuple of Work, or None
        What else a training step does, in order; None if it is not known.
    """

    name: str
    citation: str
    layers: tuple[Layer, ...]
    saved: tuple[Saved, ...]
    biased: frozenset[str] = frozenset()
    inputs: Mapping[str, str] = field(default_factory=dict, hash=False)
    extents: Mapping[str, Extent] = field(default_factory=dict, hash=False)
    modules: Mapping[str, str] = field(default_factory=dict, hash=False)
    trained: int | None = None
    alone: Network | None = None
    rights: Mapping[str, str] = field(default_factory=dict, hash=False)
    dense: frozenset[str] = frozenset()
    causal: Mapping[str, Operand] = field(default_factory=dict, hash=False)
    embedded: bool = False
    works: tuple[Work, ...] | None = None

    @property
    def parameters(self) -> int:
        """Trained values: weights, biases, and two for each channel of a batch norm."""
        if self.trained is not None:
            return self.trained
        weights = sum(it.weights for it in self.layers if not it.multiplies_activations)
        biases = sum(layer.K for layer in self.layers if layer.name in self.biased)
        norms = sum(2 * saved.C for saved in self.saved if saved.kind == "batch_norm")
        return weights + biases + norms

    @property
    def macs(self) -> int:
        """Dense MACs of the forward pass of one sample."""
        return sum(layer.weights * layer.positions for layer in self.layers)
