"""Where the samples of a batch are in the tensors of a forward pass: what the model does with them.

Rows that are samples and rows that are positions are told apart by following a batch's axis
through every operation, never by a size that happens to be divisible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from weakref import ref

import torch
from torch import Size, Tensor

from swatsim.tracer.pytorch.places.call import Call
from swatsim.tracer.pytorch.places.place import (
    MIXED,
    Count,
    Index,
    Known,
    Mixed,
    Place,
    Routed,
    Single,
    State,
    fitted,
    join,
    own_samples,
    viewed,
)
from swatsim.tracer.pytorch.places.table import Operation, operation

__all__ = ["MIXED", "Mixed", "Place", "Samples"]


class Samples:
    """Follows the samples of a batch through the operations of a forward pass.

    Rows stay a sample's where values of others reach all samples alike, as the statistics of a
    batch normalization or a threshold do.

    ::

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                samples.follow(func, args, kwargs, out)
                return out

    Parameters
    ----------
    batch : int
        N, the samples of the batch.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        # by id; the reference shows whether the id is still that tensor's. No entry keeps one alive
        self._states: dict[int, tuple[ref[Tensor], Known, Size]] = {}

    def seed(self, tensor: Tensor, axis: int = 0) -> None:
        """Take an axis of an input for that of its samples, if it has N entries.

        Parameters
        ----------
        tensor : Tensor
        axis : int
            Nothing is done if it is no axis of N entries.
        """
        if self._batch > 0 and -tensor.dim() <= axis < tensor.dim():
            axis %= tensor.dim()
            if tensor.shape[axis] == self._batch:
                self._keep(tensor, Place(axis))

    def seed_sample(self, tensor: Tensor, sample: int) -> None:
        """Take all of a tensor for that of one sample, such as one image of a list.

        Parameters
        ----------
        tensor : Tensor
        sample : int
            From 0 to N - 1.
        """
        if 0 <= sample < self._batch:
            self._keep(tensor, Single(sample))

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Take a tensor that was computed out of sight, value by value, to have its source's."""
        if source.shape == target.shape and (known := self._look(source)) is not None:
            self._keep(target, known)

    def of(self, tensor: Tensor) -> Place | Mixed | None:
        """Return where a tensor has samples, MIXED, or None for one that no sample has reached."""
        state = own_samples(self._look(tensor))
        return MIXED if isinstance(state, Routed) else state

    def follow(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Follow the samples through one operation that has run; never raises.

        Parameters
        ----------
        func : OpOverload
            As a TorchDispatchMode sees it.
        args, kwargs, out
            What it was given, and what it returned.
        """
        try:
            known = self._known(args, kwargs)
            if known or not args or not isinstance(args[0], Tensor | list | tuple):
                self._follow(func, args, kwargs or {}, out, known)
        except Exception:  # noqa: BLE001  (an op may have any arguments, and a training goes on)
            with suppress(Exception):
                self._assign(_tensors((out, *_written(func, args, kwargs))), [], False)

    def _follow(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        out: Any,
        known: list[tuple[Tensor, Known, Size]],
    ) -> None:
        called = operation(func)
        if called.overwritten:
            over = _tensors(kwargs.get(name) for name in called.overwritten)
            known = [one for one in known if not _is_in(one[0], over)]
        if not known and not called.starts:
            return
        call = Call(called.named, args, kwargs, out, known, self._batch)
        found: Known | list[Known] = None if called.leaves else _sample(known)
        alike = called.rule is None or found is not None
        if found is None:
            found = MIXED if called.rule is None else called.rule(call)
        for tensor, note in call.notes:
            self._keep(tensor, note)
        if called.writes:
            self._write(called, call, found, alike)
        else:
            self._assign(_tensors((out,)), found, alike)

    def _write(
        self, called: Operation, call: Call, found: Known | list[Known], alike: bool
    ) -> None:
        """Keep what is returned and what is written in place, and what that is a view of."""
        out = _tensors((call.out,))
        more = [one for one in _tensors(map(call.arg, called.writes)) if not _is_in(one, out)]
        for tensor in (*out, *more):
            if isinstance(self._look(tensor), Index | Count):
                del self._states[id(tensor)]  # other numbers than it was known to hold
        self._assign(out, found, alike)
        self._assign(more, [] if out and not alike else found, True)
        for tensor in (*out, *more):
            if tensor._base is not None and self._look(tensor) != call.raw(tensor):
                self._write_base(tensor, tensor._base)

    def _write_base(self, view: Tensor, base: Tensor) -> None:
        before, known = self._look(base), self._look(view)
        if isinstance(before, Index | Count | Single):
            self._keep(base, before if before == known else MIXED)
        elif isinstance(known, Single):
            self._keep(base, join((before, _row_of(known.sample, view, base, self._batch))))
        else:
            self._keep(base, join((before, _in_base(known, view, base))))

    def _assign(self, tensors: list[Tensor], found: Known | list[Known], all_alike: bool) -> None:
        """Keep what was found of several tensors: of each, or of the first of them."""
        states = found if isinstance(found, list) else [found] * (len(tensors) if all_alike else 1)
        for i, tensor in enumerate(tensors):
            self._keep(tensor, states[i] if i < len(states) else MIXED)

    def _keep(self, tensor: Tensor, known: Known) -> None:
        if known is None:
            return
        if isinstance(known, Place | Routed):
            known = fitted(known, tensor.shape, self._batch)
        self._states[id(tensor)] = (ref(tensor), known, tensor.shape)

    def _look(self, tensor: Tensor) -> Known:
        entry = self._states.get(id(tensor))
        return None if entry is None or entry[0]() is not tensor else entry[1]

    def _known(self, args: Any, kwargs: Any) -> list[tuple[Tensor, Known, Size]]:
        """Return the arguments, those in lists too, of which something is known."""
        states, found = self._states, []
        for value in _tensors(args) if not kwargs else _tensors((*args, *kwargs.values())):
            entry = states.get(id(value))
            if entry is not None and entry[0]() is value:
                found.append((value, entry[1], entry[2]))
        return found


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among values, and those in lists of them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [one for one in value if isinstance(one, Tensor)]
    return found


def _is_in(tensor: Tensor, others: Iterable[Tensor]) -> bool:
    return any(tensor is other for other in others)


def _in_base(known: Known, view: Tensor, base: Tensor) -> State:
    """Return where the samples of a view are in the tensor that it is a view of."""
    if known is None or not isinstance(known, Place) or base.layout != torch.strided:
        return None if known is None else MIXED
    if view.numel() == base.numel() and view.is_contiguous() and base.is_contiguous():
        return viewed(known, view.shape, base.shape)
    size, stride = view.shape[known.axis], view.stride(known.axis)
    for axis in range(base.dim()):
        if base.shape[axis] == size and base.stride(axis) == stride:
            return Place(axis, known.outer, known.inner)
    return MIXED


def _row_of(sample: int, view: Tensor, base: Tensor, batch: int) -> State:
    """Return the samples of a tensor that has this one in the row of its number."""
    if base.dim() == 0 or base.shape[0] != batch or not base.is_contiguous():
        return MIXED
    first = view.storage_offset() - base.storage_offset()
    reach = sum((size - 1) * by for size, by in zip(view.shape, view.stride(), strict=True))
    row = base.numel() // batch
    return Place(0) if first // row == sample == (first + reach) // row else MIXED


def _sample(known: list[tuple[Tensor, Known, Size]]) -> Single | None:
    """Return the one sample that all arguments with samples are of, whatever is done with them."""
    found = None
    for _, one, _ in known:
        if isinstance(one, Single):
            if found is not None and found != one:
                return None
            found = one
        elif not isinstance(one, Count):
            return None
    return found


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """Return the arguments that an operation writes to."""
    called = operation(func)
    call = Call(called.named, args, kwargs or {}, None, [], 1)
    return [call.arg(name) for name in called.writes]
