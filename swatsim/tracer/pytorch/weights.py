"""Which factor of a product is a weight: a parameter, a part of one, or computed from some."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from swatsim.tracer.pytorch.naming import Names, Owned

#: A weight is computed by few functions; an activation, from all that runs before it.
MAX_NODES = 200

#: Nodes of autograd's graph through which a weight may have come from its parameters, whatever else
#: they read: element by element, by another view, or as a sum along some axes.
_PASSED = re.compile(
    r"(Add|Sub|Rsub|Mul|Div|Neg|Pow|Sqrt|Rsqrt|Reciprocal|Exp|Expm1|Log|Log1P|Sigmoid|Tanh|Relu|Softplus"
    r"|Gelu|Silu|LeakyRelu|Hardtanh|Abs|Sgn|Sign|Round|Floor|Where|MaskedFill|Clamp|ClampMin|ClampMax"
    r"|Minimum|Maximum|Lerp|Clone|ToCopy|Copys?|Alias|View|UnsafeView|ReshapeAlias|Transpose|T|Mt|Permute"
    r"|Expand|Select|Slice|Unsqueeze|Squeeze|Unbind|Split|SplitWithSizes|AsStrided|Cat|Stack|Flip|Roll"
    r"|Sum|Mean|Var|VarMean|Std|StdMean|Norm|LinalgVectorNorm|WeightNormInterface|Addcmul|Addcdiv)"
    r"Backward\d*"
)
#: Nodes that look values up: what they give is an activation.
_LOOKED_UP = re.compile(
    r"(Embedding|EmbeddingBag|Index|IndexSelect|Gather|TakeAlongDim|GridSampler)"
)


@dataclass(frozen=True)
class Weight:
    """A factor of a product that is a weight.

    Parameters
    ----------
    name : str
        Its layer's.
    rank : int
        3 for a parameter or a part of one, 2 for what is computed from parameters only, 1 for what
        stands where a function takes its weight.
    is_stored : bool
        Whether its values are a parameter's own, and not computed anew each time.
    """

    name: str
    rank: int
    is_stored: bool


class Weights:
    """Finds the weights among the factors of a model's products.

    Parameters
    ----------
    modules : mapping of str to torch.nn.Module
        As `watch.names` gives them.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self.names = Names(modules)
        self._known: dict[tuple[int, str], tuple[Tensor, Weight]] = {}

    def of(self, tensor: Any, frame: str) -> Weight | None:
        """Return what weight a factor of any product is; None for an activation.

        Parameters
        ----------
        tensor : object
        frame : str
            Path of the module that runs.
        """
        if not isinstance(tensor, Tensor):
            return None
        known = self._known.get((id(tensor), frame))
        if known is not None and known[0] is tensor:
            return known[1]
        owned = self._owner(tensor, frame)
        if owned is not None:
            return self._stored(tensor, owned, frame)
        return self._computed(tensor, frame)

    def argument(self, tensor: Tensor, frame: str) -> Weight | None:
        """Return the weight that stands where a function takes its weight, whatever made it.

        None for a buffer, such as a filter that nobody trains, and another model's parameter.
        """
        found = self.of(tensor, frame)
        if found is not None:
            return found
        if isinstance(tensor, nn.Parameter) or self._owner(tensor, frame, "buffer") is not None:
            return None
        return Weight(self._guess(tensor, frame), 1, False)

    def _owner(self, tensor: Tensor, frame: str, kind: str = "parameter") -> Owned | None:
        owned = self.names.owner(tensor, frame)
        return owned if owned is not None and owned.kind == kind else None

    def _stored(self, tensor: Tensor, owned: Owned, frame: str) -> Weight:
        name = self.names.of(tensor, frame) or owned.name
        found = Weight(name, 3, True)
        if owned.tensor is tensor:
            self._known[id(tensor), frame] = (tensor, found)
        return found

    def _computed(self, tensor: Tensor, frame: str) -> Weight | None:
        leaves = parameters_of(tensor)
        if leaves is None or tensor.numel() > max(leaf.numel() for leaf in leaves):
            return None
        if any(self._owner(leaf, frame) is None for leaf in leaves):
            return None
        name = self.names.derived(leaves, frame)
        return Weight(name, 2, False) if name else None

    def _guess(self, tensor: Tensor, frame: str) -> str:
        """Return the name of a weight of which no graph says what it is computed from."""
        module = self._modules.get(frame)
        own = [] if module is None else list(module.parameters(recurse=True))
        near = [each for each in own if each.numel() == tensor.numel()]
        return (self.names.of(near[0], frame) if near else None) or frame or "weight"


def parameters_of(tensor: Tensor) -> list[Tensor] | None:
    """Return the leaves that a tensor is computed from, element by element; None for others."""
    if tensor.grad_fn is None:
        return None
    leaves: dict[int, Tensor] = {}
    seen, left = {tensor.grad_fn}, [tensor.grad_fn]
    while left:
        node = left.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            leaves[id(leaf)] = leaf
            continue
        if len(seen) > MAX_NODES or not _is_passed(node):
            return None
        new = {inner for inner, _ in node.next_functions if inner is not None} - seen
        seen |= new
        left += new
    return list(leaves.values()) or None


def _is_passed(node: Any) -> bool:
    """Whether what a node computes from parameters is a weight still."""
    name = node.name().rpartition("::")[2]
    if _PASSED.fullmatch(name):
        return True
    # a function of a user's own, such as a straight-through estimator
    is_own = hasattr(node, "needs_input_grad") and not _LOOKED_UP.match(name)
    return is_own and all(inner is not None for inner, _ in node.next_functions)
