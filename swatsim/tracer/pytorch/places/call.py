"""One operation that ran, as rules read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Size, Tensor

from swatsim.tracer.pytorch.places.place import Known, State, own_samples

#: Where an operation's arguments are found: position and default by name.
Arguments: TypeAlias = Mapping[str, tuple[int, Any]]


class Call:
    """An operation with its arguments by name, and what is known of the tensors among them.

    Attributes
    ----------
    batch : int
    out : object
        What it returned.
    notes : list
        What a rule found out about an argument.
    known : list
        A tensor among the arguments, what is known of it and the shape that it had, each; others
        hold no samples.
    """

    __slots__ = ("_args", "_kwargs", "_named", "batch", "known", "notes", "out")

    def __init__(
        self,
        named: Arguments,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        out: Any,
        known: list[tuple[Tensor, Known, Size]],
        batch: int,
    ) -> None:
        self._named, self._args, self._kwargs = named, args, kwargs
        self.out, self.known, self.batch = out, known, batch
        self.notes: list[tuple[Tensor, Known]] = []

    def arg(self, name: str) -> Any:
        """Return an argument, or its default; None if the operation has none of that name."""
        position, default = self._named.get(name, (-1, None))
        if 0 <= position < len(self._args):
            return self._args[position]
        return self._kwargs.get(name, default)

    def raw(self, tensor: Any) -> Known:
        """Return all that is known of an argument."""
        for one, known, _ in self.known:
            if one is tensor:
                return known
        return None

    def at(self, tensor: Any) -> State:
        """Return the samples of an argument."""
        return own_samples(self.raw(tensor))

    def shape(self, tensor: Tensor) -> Size:
        """Return the shape that an argument had before, one that is changed in place too."""
        return next((shape for one, _, shape in self.known if one is tensor), tensor.shape)

    def states(self) -> Iterator[tuple[Tensor, State]]:
        """Yield the arguments that something is known of, with their samples."""
        for tensor, known, _ in self.known:
            yield tensor, own_samples(known)

    def only(self, *tensors: Any) -> bool:
        """Whether no other argument holds samples."""
        return all(
            state is None or any(one is tensor for tensor in tensors)
            for one, state in self.states()
        )

    @property
    def first(self) -> Tensor:
        """The first tensor that it returned."""
        found: Tensor = self.out if isinstance(self.out, Tensor) else self.out[0]
        return found


#: What is known of the first tensor returned, or of each; others are MIXED.
Rule: TypeAlias = Callable[[Call], Known | list[Known]]


def alike(rule: Callable[[Call], State]) -> Rule:
    """Return a rule for operations that return several tensors of the same leading axes."""

    def each(call: Call) -> list[Known]:
        many = 1 if isinstance(call.out, Tensor) else len(call.out)
        return [rule(call)] * many

    return each
