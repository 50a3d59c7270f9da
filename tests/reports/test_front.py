"""Which costs no other beats: against the definition."""

from __future__ import annotations

import random
from itertools import pairwise
from math import nan

import pytest

from swatsim.reports import front
from swatsim.reports.front import Costs, unbeaten


def by_definition(costs: list[Costs]) -> set[Costs]:
    def beats(one: Costs, other: Costs) -> bool:
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    return {cost for cost in costs if not any(beats(one, cost) for one in costs)}


@pytest.mark.parametrize("kinds", [1, 2, 3, 4])
@pytest.mark.parametrize("values", [2, 5, 1000])  # few: ties
def test_the_front_is_that_of_the_definition(kinds: int, values: int) -> None:
    drawn = random.Random(f"{kinds} {values}")
    for number in range(60):
        costs = [tuple(float(drawn.randrange(values)) for _ in range(kinds)) for _ in range(number)]
        assert unbeaten(costs) == by_definition(costs)


def test_what_is_not_a_number_is_on_the_front_and_beats_nothing() -> None:
    least, more, unknown = (1.0, 1.0), (2.0, 2.0), (0.0, nan)
    assert unbeaten([more, unknown, least]) == {unknown, least}


def test_a_front_of_many_points_is_not_compared_pair_by_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = [0]

    class Counted(float):
        def __lt__(self, other: float) -> bool:
            compared[0] += 1
            return float(self) < float(other)

        def __le__(self, other: float) -> bool:
            compared[0] += 1
            return float(self) <= float(other)

        def __ge__(self, other: float) -> bool:
            compared[0] += 1
            return float(self) >= float(other)

        __hash__ = float.__hash__

    monkeypatch.setattr(front, "_by_scan", None)
    taken = []
    for points in (500, 1000, 2000):
        drawn, compared[0] = random.Random(points), 0
        every = list(range(points))
        drawn.shuffle(every)
        costs = [(Counted(i), Counted(points - i), Counted(at)) for i, at in enumerate(every)]
        assert len(unbeaten(costs)) == points
        taken.append(compared[0])
    assert all(more < 2.5 * fewer for fewer, more in pairwise(taken))
