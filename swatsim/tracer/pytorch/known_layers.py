"""The layers that a model is known to have before it runs: densities are shared out among them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from swatsim.errors import RecordingError
from swatsim.tracer.pytorch.inside import traced
from swatsim.tracer.pytorch.modules import Geometry, linear, policy_layer
from swatsim.tracer.pytorch.naming import layer_name
from swatsim.tracer.pytorch.skipping import is_skipped
from swatsim.workload.layer import Layer

log = logging.getLogger(__name__)

_CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
#: Modules of torch's own whose parameters multiply in no layer.
_NO_LAYERS = (nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase, nn.Bilinear)
#: Parts of names of parameters that are added or looked up, and multiply nothing.
_NO_MATRICES = ("bias", "embed", "pos", "token", "table", "gamma", "beta", "scale", "norm", "logit")


@dataclass(frozen=True)
class Known:
    """A layer that a model is known to have.

    Parameters
    ----------
    layer : Layer
        For the smallest inputs that its weight allows.
    weight : torch.Tensor
    is_module : bool
        Whether a module of torch's own kinds is known to run it.
    """

    layer: Layer
    weight: Tensor
    is_module: bool = True


def known_layers(modules: Mapping[str, nn.Module], skip: Collection[str]) -> list[Known]:
    """Return a model's layers: of torch's own kinds of modules, and what looks like matrices.

    Raises
    ------
    RecordingError
        If there are none, or another tracer runs them, or they have no shapes yet.
    """
    known = []
    for path, module in modules.items():
        if path not in skip:
            _check_module(path, module)
            known += [each for each in _of(path, module) if not is_skipped(each.layer.name, skip)]
    if not known:
        raise RecordingError(
            f"{next(iter(modules), 'the model')} has no Conv1d, Conv2d, Linear or other module to "
            "run sparsely, nor a parameter of two axes or more"
        )
    return known


def computed(modules: Mapping[str, nn.Module], skip: Collection[str]) -> list[str]:
    """Return the layers whose weights are computed anew in each step, by a parametrization."""
    return [path for path, module in modules.items() if path not in skip and _is_computed(module)]


def _is_computed(module: nn.Module) -> bool:
    if isinstance(module, nn.MultiheadAttention):
        own = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return any(name not in module._parameters for name in own)
    return isinstance(module, (*_CONVOLUTIONS, nn.Linear)) and "weight" not in module._parameters


def check_kept(modules: Mapping[str, nn.Module], known: Sequence[Known], policy: str) -> None:
    """Refuse layers that share a weight, which would have several masks."""
    owners: dict[int, str] = {}
    for each in known:
        name, place = each.layer.name, each.weight.data_ptr()
        owner = owners.setdefault(place, name)
        if owner != name and place:
            raise RecordingError(
                f"layers {owner!r} and {name!r} share a weight, and {policy} keeps a mask for each "
                f"layer: leave one of them alone with skip=({name!r},)"
            )
    _say_shared(modules, known)


def _say_shared(modules: Mapping[str, nn.Module], known: Sequence[Known]) -> None:
    """Warn of weights that are set to zero outside a mask, and that other modules share."""
    ours = {id(each.weight): each.layer.name for each in known}
    for path, module in modules.items():
        for key, parameter in module.named_parameters(recurse=False):
            layer = ours.get(id(parameter))
            if layer is not None and layer_name(path, key) != layer:
                message = "layer %r shares its weight with %s, which becomes sparse with it: "
                name = f"{path}.{key}"
                log.warning(message + "skip=(%r,) leaves it dense", layer, name, layer)


def _check_module(path: str, module: nn.Module) -> None:
    own = list(module.parameters(recurse=False))
    if own and traced(module):
        raise RecordingError(
            f"layer {path!r} is run by another Tracer already: close the other Tracer first"
        )
    if any(isinstance(weight, UninitializedParameter) for weight in own):
        raise RecordingError(
            f"layer {path!r} has no shape yet: run the model once before, or leave it alone with "
            f"skip=({path!r},)"
        )


def _of(path: str, module: Any) -> Iterator[Known]:
    """Yield a module's own layers."""
    if isinstance(module, nn.MultiheadAttention):
        for letter, weight in zip("qkv", _projections(module), strict=True):
            yield Known(linear(f"{path}.in_proj_{letter}", *weight.shape), weight)
    elif isinstance(module, nn.Linear):
        weight = _weight(module, "weight", module.out_features, module.in_features)
        yield Known(linear(path, *weight.shape), weight)
    elif isinstance(module, _CONVOLUTIONS):
        geometry = Geometry.of(module)
        span = (d * (k - 1) + 1 for d, k in zip(geometry.dilation, geometry.kernel, strict=True))
        yield Known(policy_layer(path, geometry, tuple(span))[0], _weight(module, "weight"))
    elif not isinstance(module, _NO_LAYERS):
        for key, parameter in module.named_parameters(recurse=False):
            yield from _matrices(layer_name(path, key), key, parameter)


def _matrices(name: str, key: str, parameter: Tensor) -> Iterator[Known]:
    """Yield what a parameter of no known module seems to be: a matrix, or one an expert."""
    wide = [size for size in parameter.shape if size > 1]
    if any(part in key.lower() for part in _NO_MATRICES) or len(wide) != parameter.dim():
        return
    if parameter.dim() == 2:
        yield Known(linear(name, *parameter.shape), parameter, False)
    elif parameter.dim() == 3:
        for i, matrix in enumerate(parameter.detach()):
            yield Known(linear(f"{name}[{i}]", *matrix.shape), matrix, False)


def _projections(module: Any) -> list[Tensor]:
    E = module.embed_dim
    if is_parametrized(module, "in_proj_weight") or module.in_proj_weight is not None:
        return list(_weight(module, "in_proj_weight", 3 * E, E).detach().chunk(3))
    sides = (("q", E), ("k", module.kdim), ("v", module.vdim))
    return [_weight(module, f"{letter}_proj_weight", E, C) for letter, C in sides]


def _weight(module: nn.Module, name: str, *shape: int) -> Tensor:
    """Return a module's weight; of a computed one no values, for computing may change a state."""
    if is_parametrized(module, name):
        return torch.empty(shape, device="meta")
    weight: Tensor = getattr(module, name)
    return weight
