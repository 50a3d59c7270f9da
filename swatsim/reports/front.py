"""Which of many costs no other beats: in n log n of up to three kinds of cost, else by a scan."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from math import isnan

import numpy as np

Costs = tuple[float, ...]


def unbeaten(costs: Iterable[Costs]) -> set[Costs]:
    """Return the costs that no other beats: at most as much in each kind, and less in one.

    Parameters
    ----------
    costs : iterable of tuple of float
        All of as many kinds. One that is not a number beats nothing, and nothing beats it.
    """
    # whoever beats another comes before it
    every = sorted(set(costs))
    if every and len(every[0]) <= 3 and not any(isnan(value) for cost in every for value in cost):
        return _by_stairs(every)
    return _by_scan(every)


def _by_stairs(every: Sequence[Costs]) -> set[Costs]:
    """Keep, of those so far, the least third cost up to each second one: stairs that descend."""
    front, seconds, thirds = set[Costs](), list[float](), list[float]()
    for cost in every:
        _, second, third = (*cost, 0.0, 0.0)[:3]
        place = bisect_right(seconds, second)
        if place and thirds[place - 1] <= third:
            continue
        front.add(cost)
        begin, end = bisect_left(seconds, second), place
        while end < len(thirds) and thirds[end] >= third:
            end += 1
        seconds[begin:end], thirds[begin:end] = [second], [third]
    return front


def _by_scan(every: Sequence[Costs]) -> set[Costs]:
    """Compare each with all of the front so far: one that is not in it is beaten by one of it."""
    found, front = np.empty((len(every), len(every[0]) if every else 0)), set[Costs]()
    for cost in every:
        if not (found[: len(front)] <= cost).all(axis=1).any():
            found[len(front)] = cost
            front.add(cost)
    return front
