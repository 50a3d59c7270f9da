"""Parameters that a sweep varies: ranges, lists, and grids of them with conditions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from swatsim.errors import ConfigError, SwatsimError
from swatsim.sweeps.expression import Value
from swatsim.validation import FrozenRecord, Whole


class Part(FrozenRecord):
    """Base of what stands in a specification."""

    error_type: ClassVar[type[SwatsimError]] = ConfigError

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return what refusals are about: the specification."""
        return "sweep specification"


class Range(Part):
    """Numbers from one to another, by steps or by factors, both ends included if they are met."""

    first: Annotated[Whole, Field(alias="from", ge=-(2**63), lt=2**63)]
    last: Annotated[Whole, Field(alias="to", ge=-(2**63), lt=2**63)]
    step: Annotated[Whole, Field(ge=1)] | None = None
    times: Annotated[Whole, Field(ge=2)] | None = None

    @model_validator(mode="after")
    def _relations(self) -> Range:
        if (self.step is None) == (self.times is None):
            raise ValueError(
                "a range has either step or times: { from = 1, to = 9, step = 2 }, or "
                "{ from = 1, to = 64, times = 2 }"
            )
        if self.first > self.last or (self.times and self.first < 1):
            raise ValueError(
                f"from={self.first} and to={self.last} give no numbers: from must be at most to, "
                "and at least 1 if it grows by times"
            )
        return self

    @property
    def size(self) -> int:
        """How many numbers there are, without listing them."""
        if self.step:
            return (self.last - self.first) // self.step + 1
        return sum(1 for _ in self.numbers())  # it grows by factors: there are few

    def numbers(self) -> Iterator[int]:
        """Yield the numbers, ascending."""
        number = self.first
        while number <= self.last:
            yield number
            number = number + self.step if self.step else number * (self.times or 1)


Values = Range | list[Value] | Value
Grid = dict[str, Values]


class Conditional(Part):
    """Parameters that are varied only where others have certain values."""

    parameters: dict[str, Value]
    grid: Grid


def product(
    fixed: Mapping[str, Value], grid: Grid, when: Sequence[Conditional]
) -> Iterator[dict[str, Value]]:
    """Yield every combination of a grid, and where a condition holds, of its grid too."""
    begun = [(_combined(fixed, grid), when)]  # a list, not calls of calls: they may be many
    while begun:
        combined, conditions = begun[-1]
        parameters = next(combined, None)
        if parameters is None:
            begun.pop()
            continue
        there = parameters.items()
        met = next((one for one in conditions if one.parameters.items() <= there), None)
        if met is None:
            yield parameters
        else:
            rest = [one for one in conditions if one is not met]
            begun.append((_combined(parameters, met.grid), rest))


def _combined(fixed: Mapping[str, Value], grid: Grid) -> Iterator[dict[str, Value]]:
    for chosen in itertools.product(*(_listed(values) for values in grid.values())):
        yield {**fixed, **dict(zip(grid, chosen, strict=True))}


def size_of(values: Values) -> int:
    """Return how many values there are, without listing them."""
    if isinstance(values, Range):
        return values.size
    return len(values) if isinstance(values, list) else 1


def _listed(values: Values) -> list[Value]:
    if isinstance(values, Range):
        return list(values.numbers())
    return values if isinstance(values, list) else [values]
