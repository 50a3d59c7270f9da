"""What becomes of a product of activations: whether a softmax reads it, and who reads that.

Followed through views and what is done to values one by one, as operations are dispatched. Which
scores were masked shows in what the softmax reads, in whichever way that was done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from swatsim.tracer.pytorch.attention import is_masked
from swatsim.tracer.pytorch.origins import tensors
from swatsim.tracer.pytorch.pairs import SCORES, Pair

aten = torch.ops.aten

#: Gives a mask of a tensor as one of what it was made of.
Undo = Callable[[Tensor], Tensor]

_SOFTMAX = frozenset({"_softmax", "_safe_softmax", "_masked_softmax"})
#: Other shapes of the same values.
_VIEWS = frozenset({"view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias"})
_TURNS = frozenset({"transpose", "permute", "t"})
#: What leaves each value where it is, beside what torch tags as such.
_SAME = frozenset(
    {"_to_copy", "alias", "detach", "expand", "native_dropout", "masked_fill", "contiguous", "copy"}
)
#: After these it is known whose values they are, but no more where each lies.
_PARTS = frozenset({"cat", "slice", "constant_pad_nd", "select", "narrow", "split"})


@dataclass(frozen=True)
class Path:
    """Where values come from.

    Parameters
    ----------
    pairs : tuple of (Pair, Undo or None)
        The products that gave them; None where it is lost which value is which.
    is_read : bool
        Whether a softmax read them: they are probabilities.
    masked : torch.Tensor of bool, optional
        Of probabilities, which of them a mask made zero.
    """

    pairs: tuple[tuple[Pair, Undo | None], ...]
    is_read: bool = False
    masked: Tensor | None = None


class Scores:
    """Follows what products of activations give."""

    def __init__(self) -> None:
        self._paths: dict[int, tuple[ref[Tensor], Path]] = {}
        self._masked: dict[int, Path] = {}

    def begin(self, pair: Pair, out: Tensor) -> None:
        """Follow a product's output."""
        self._keep(out, Path(((pair, _same),)))

    def of(self, tensor: Tensor) -> Path | None:
        """Return where a tensor comes from; None for one that is not followed."""
        entry = self._paths.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def follow(self, func: Any, arguments: Any, named: Any, out: Any) -> None:
        """Follow an operation that was done."""
        if not self._paths:
            return
        known = [(x, path) for x in _given(arguments, named) if (path := self.of(x)) is not None]
        if not known:
            return
        result = next(tensors((out,)), None)
        if result is None:
            return
        if _name(func) in _SOFTMAX and not known[0][1].is_read:
            self._softmax(*known[0], result)
            return
        moved = [_moved(func, x, path, arguments, result) for x, path in known]
        if found := [path for path in moved if path is not None]:
            self._keep(result, _joined(found))

    def leave(self, frames: Callable[[], list[Any]]) -> None:
        """Forget which probabilities were masked, where none of their modules runs any more.

        Those of no module are forgotten when they are no more: a checkpoint computes them anew.
        """
        if not self._masked:
            return
        running = {id(None), *(id(frame) for frame in frames())}
        for key, path in [*self._masked.items()]:
            if not any(id(pair.frame) in running for pair, _ in path.pairs):
                del self._masked[key]
                self._paths.pop(key, None)

    def _softmax(self, x: Tensor, path: Path, probabilities: Tensor) -> None:
        masked = None if x.is_nested else is_masked(x, probabilities)
        found = masked if masked is not None and bool(masked.any()) else None
        for pair, undo in path.pairs:
            pair.named(SCORES)
            if found is not None and undo is not None:
                pair.output("fprop", undo(~found))
        self._keep(probabilities, Path(path.pairs, True, found))

    def _keep(self, tensor: Tensor, path: Path) -> None:
        key, paths, masked = id(tensor), self._paths, self._masked

        def forget(_: Any) -> None:
            paths.pop(key, None)
            masked.pop(key, None)

        paths[key] = ref(tensor, forget), path
        masked.pop(key, None)
        if path.masked is not None:
            masked[key] = path


def _given(arguments: Any, named: Any) -> list[Tensor]:
    return [*tensors(arguments), *tensors(named.values())]


def _moved(func: Any, x: Tensor, path: Path, arguments: Any, out: Tensor) -> Path | None:
    """Return where the values of an operation's output come from; None if it sums them up."""
    name = _name(func)
    if x.is_nested or out.is_nested:
        knows = name in _VIEWS | _TURNS | _SAME | _PARTS or torch.Tag.pointwise in func.tags
        return _lost(path) if knows else None
    if name in _VIEWS and out.numel() == x.numel():
        shape = x.shape
        return _put(path, lambda mask: mask.reshape(shape), lambda mask: mask.reshape(out.shape))
    if name in _TURNS:
        back = _back(name, arguments, x.dim())
        forth = sorted(range(x.dim()), key=back.__getitem__)
        return _put(path, lambda mask: mask.permute(back), lambda mask: mask.permute(forth))
    if name in _SAME or torch.Tag.pointwise in func.tags:
        return path if out.shape == x.shape else _lost(path)
    return _lost(path) if name in _PARTS else None


def _put(path: Path, back: Undo, forth: Undo) -> Path:
    def through(undo: Undo | None) -> Undo | None:
        return None if undo is None else lambda mask: undo(back(mask))

    pairs = tuple((pair, through(undo)) for pair, undo in path.pairs)
    return Path(pairs, path.is_read, None if path.masked is None else forth(path.masked))


def _lost(path: Path) -> Path:
    return Path(tuple((pair, None) for pair, _ in path.pairs), path.is_read)


def _joined(paths: list[Path]) -> Path:
    """Return the path of values that were put together of those of several products."""
    first = paths[0]
    pairs: dict[Pair, Undo | None] = {}
    for path in paths:
        pairs |= {pair: undo for pair, undo in path.pairs if pair not in pairs}
    return first if len(paths) == 1 else Path(tuple(pairs.items()), first.is_read, first.masked)


def _back(name: str, arguments: Any, dims: int) -> list[int]:
    """Return the permutation that undoes one."""
    order = [*range(dims)]
    if name == "permute":
        order = [axis % dims for axis in arguments[1]]
        return sorted(range(dims), key=order.__getitem__)
    a, b = (arguments[1] % dims, arguments[2] % dims) if name == "transpose" else (0, dims - 1)
    order[a], order[b] = order[b], order[a]
    return order


def _same(mask: Tensor) -> Tensor:
    return mask


@cache
def _name(func: Any) -> str:
    name: str = func._schema.name.removeprefix("aten::")
    return name.removesuffix("_")
