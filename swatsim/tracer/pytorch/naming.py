"""Names of layers: those of the parameters that they multiply by."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import gcd, prod

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy


@dataclass(frozen=True)
class Owned:
    """A parameter or buffer of a model, and whose it is.

    Parameters
    ----------
    name : str
        The layer's: the module's path, and the parameter's name unless that is ``weight``.
    module : str
        The path of the module that has it.
    tensor : torch.Tensor
    kind : {"parameter", "buffer"}
    """

    name: str
    module: str
    tensor: Tensor
    kind: str


class Names:
    """Which parameter or buffer of a model a tensor is, or is a part of.

    Parameters
    ----------
    modules : mapping of str to torch.nn.Module
        As `watch.names` gives them.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._owned: dict[int, list[Owned]] = {}
        self._of: dict[int, Owned] = {}
        self.take(modules)

    def take(self, modules: Mapping[str, nn.Module]) -> None:
        """Take the modules that the model has now."""
        self._owned.clear()
        self._of.clear()
        for path, module in modules.items():
            for owned in _tensors_of(path, module):
                self._of.setdefault(id(owned.tensor), owned)
                for part in parts(owned.tensor):
                    self._owned.setdefault(_place(part), []).append(owned)

    def __iter__(self) -> Iterator[Owned]:
        """Yield each parameter and buffer once."""
        yield from self._of.values()

    def owner(self, tensor: Tensor, frame: str = "") -> Owned | None:
        """Return whose storage a tensor has: the running module's own first; None for nobody's."""
        places = (_place(part) for part in parts(tensor))
        owners = next((own for place in places if (own := self._owners(place))), [])
        return next((own for own in owners if own.module == frame), owners[0] if owners else None)

    def of(self, tensor: Tensor, frame: str = "") -> str | None:
        """Return the name of the parameter or buffer that a tensor is, or is a part of.

        Parameters
        ----------
        tensor : torch.Tensor
        frame : str
            Path of the module that runs: of a weight that is shared, its own name is taken.

        Returns
        -------
        str or None
            ``experts.w[3]`` for one slice along the first axis, ``experts.w[2:4]`` for two.
        """
        owned = self.owner(tensor, frame)
        return None if owned is None else f"{owned.name}{_part(owned, tensor)}"

    def missing(self, recorded: Collection[str], learnt: Collection[int]) -> Iterator[str]:
        """Yield the parameters of two axes or more that got a gradient and are in no layer.

        Parameters
        ----------
        recorded : collection of str
            Names of the layers: a parameter that several modules have may have any of theirs.
        learnt : collection of int
            Ids of the parameters that got a gradient.
        """
        known = {*recorded, *(re.sub(r"(@\d+|\[.*\]|_[qkv])$", "", name) for name in recorded)}
        for owned in self:
            if owned.tensor.dim() > 1 and id(owned.tensor) in learnt:
                called = self._names_of(owned.tensor)
                if known.isdisjoint({*called, *(it.removesuffix("_weight") for it in called)}):
                    yield owned.name

    def unread(self, met: Callable[[str], bool], learnt: Collection[int]) -> Iterator[str]:
        """Yield the parameters that got a gradient and that no operation of torch read with data.

        A kernel that torch does not dispatch did: one in C++ that is called with NumPy arrays.

        Parameters
        ----------
        met : callable of str to bool
            Whether an operation read a parameter, by name.
        learnt : collection of int
            Ids of the parameters that got a gradient.
        """
        for owned in self:
            if owned.tensor.dim() and id(owned.tensor) in learnt and not met(owned.name):
                yield owned.name

    def _names_of(self, tensor: Tensor) -> set[str]:
        places = _places(tensor)
        owners = [owned for place in places for owned in self._owners(place)]
        return {owned.name for owned in owners if owned.tensor is tensor}

    def _owners(self, place: int) -> list[Owned]:
        """Return who has a storage now: one that got another (``mask.data = ...``) left its own."""
        return [owned for owned in self._owned.get(place, ()) if place in _places(owned.tensor)]

    def derived(self, tensors: Collection[Tensor], frame: str = "") -> str | None:
        """Return the name of a weight that is computed from parameters: the largest one's."""
        named = [(each.numel(), name) for each in tensors if (name := self.of(each, frame))]
        return max(named, default=(0, None), key=lambda pair: pair[0])[1]


def split_projections(name: str, rows: int) -> list[tuple[str, slice]]:
    """Return the layers that a weight's rows are: torch's attention has q, k and v in one.

    Parameters
    ----------
    name : str
        As `Names.of` gives it.
    rows : int
        Of the weight.

    Returns
    -------
    list of (name, slice of rows)
        One with all rows, unless the name is of an attention module's packed weight.
    """
    stem, sign, part = name.partition(".in_proj_weight")
    if not sign and name != "in_proj_weight":
        return [(name, slice(None))]
    bounds = part.strip("[]").partition(":")
    first, last = (int(bounds[0]), int(bounds[2])) if bounds[1] else (0, rows)
    one = rows // 3 if not bounds[1] else gcd(first, last)
    if not one or (last - first) != rows or rows % one or last > 3 * one:
        return [(name, slice(None))]
    letters = "qkv"[first // one : last // one]
    cut = [slice(i * one, (i + 1) * one) for i in range(len(letters))]
    return [
        (f"{stem}.in_proj_{letter}".lstrip("."), rows)
        for letter, rows in zip(letters, cut, strict=True)
    ]


def parts(tensor: Tensor) -> list[Tensor]:
    """Return the tensors that have the storages of one: itself, unless it is sparse or composed."""
    if is_lazy(tensor):
        return []
    flatten = getattr(tensor, "__tensor_flatten__", None)  # of a tensor that is made of others
    if flatten is not None:
        return [part for name in flatten()[0] for part in parts(getattr(tensor, name))]
    if tensor.layout == torch.strided:
        return [tensor]
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return []  # a layout that shows no storage


def _place(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _places(tensor: Tensor) -> set[int]:
    return {_place(part) for part in parts(tensor)}


def _tensors_of(path: str, module: nn.Module) -> list[Owned]:
    """Return a module's own parameters, buffers, and tensors that are plain attributes of it."""
    found = []
    plain = {key: value for key, value in vars(module).items() if isinstance(value, Tensor)}
    own: list[tuple[str, Mapping[str, Tensor | None]]] = [
        ("parameter", module._parameters),
        ("buffer", {**module._buffers, **plain}),
    ]
    for kind, tensors in own:
        for name, tensor in tensors.items():
            if isinstance(tensor, Tensor) and not is_lazy(tensor):
                called = layer_name(path, name)
                found.append(Owned(called, path, tensor, kind))
    return found


def layer_name(path: str, name: str) -> str:
    """Return a layer's name from its module's path and its parameter's name.

    A parametrization's own parameters bear the name of what they are computed into, as those that
    `torch.nn.utils.prune` and the like put in a weight's place do.
    """
    name = re.sub("^(.*weight)_(orig|v|g)$", r"\1", name)
    head, sign, computed = path.rpartition(".parametrizations.")
    if not sign and path.startswith("parametrizations."):
        head, sign, computed = "", ".", path.removeprefix("parametrizations.")
    if sign and name.startswith("original"):
        path, name = head, computed.partition(".")[0]
    return path if name == "weight" and path else f"{path}.{name}".lstrip(".")


def _part(owned: Owned, tensor: Tensor) -> str:
    """Return which part of its owner a tensor is, as an index; nothing for all of it."""
    whole = owned.tensor
    if tensor.numel() >= whole.numel() or whole.dim() < 2 or not whole.is_contiguous():
        return ""
    start = int(tensor.storage_offset()) - int(whole.storage_offset())
    first, apart = divmod(start, whole.stride(0))
    count, rest = divmod(tensor.numel(), prod(whole.shape[1:]))
    if apart or rest:
        return f"[{start}+{tensor.numel()}]"
    return f"[{first}]" if count == 1 else f"[{first}:{first + count}]"
