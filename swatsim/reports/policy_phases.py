"""Phases of a run that its policy tells of: where they begin, and whether one was recorded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from swatsim.described import phases_of
from swatsim.results import Results

Policy = Mapping[str, Any]


def policy_of(results: Results) -> Policy:
    """Return the policy of a run as its results note it; empty where they don't."""
    parameters = results.provenance.get("parameters")
    policy = parameters.get("policy") if isinstance(parameters, Mapping) else None
    return policy if isinstance(policy, Mapping) else {}


def with_those_of(
    policy: Policy, placed: Mapping[int, int], steps: Sequence[int], size: int
) -> dict[int, int]:
    """Return cuts by the gap between recorded steps that each lies in: stated ones, and a policy's.

    Parameters
    ----------
    policy : mapping
        As it describes itself.
    placed : mapping of int to int
        What somebody stated: it holds where a policy's would lie in the same gap.
    steps : sequence of int
        The recorded ones, in order.
    size : int
        Steps of the run.
    """
    gaps = {bisect_right(steps, first - 1) - 1: first for first in _begins(policy, size)}
    known = {gap: first for gap, first in gaps.items() if 0 <= gap < len(steps) - 1}
    return dict(sorted({**known, **placed}.items()))


def not_recorded(policy: Policy, steps: Sequence[int], size: int) -> Iterator[str]:
    """Yield why not to trust a run of which some phases have no recorded step."""
    for first, end in pairwise([*_begins(policy, size, 0), size]):
        if not any(first <= step < end for step in steps):
            yield (
                f"no step of the policy's phase {first}..{end - 1} was recorded: its steps are "
                "taken for those nearest to it; record one of it"
            )


def _begins(policy: Policy, size: int, least: int = 1) -> list[int]:
    """Return where phases begin, within a run; one without phases has but its own beginning."""
    return [first for first, _ in phases_of(policy) if least <= first < size]
