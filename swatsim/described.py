"""Policies as a manifest describes them: in words, and which one a step had."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PHASED = "phased"


def phases_of(policy: Mapping[str, Any]) -> tuple[tuple[int, Mapping[str, Any]], ...]:
    """Return the first step of each phase of a run, and its policy; of a run without phases one.

    Parameters
    ----------
    policy : mapping
        As a policy describes itself. One that only calls itself so is a policy like any other.
    """
    phases = policy.get("phases") if policy.get("name") == PHASED else None
    if not isinstance(phases, list) or not phases or not all(map(_is_phase, phases)):
        return ((0, policy),)
    return tuple((phase["from"], phase["policy"]) for phase in phases)


def policy_at(policy: Mapping[str, Any], step: int) -> Mapping[str, Any]:
    """Return the policy of a step, as it describes itself."""
    first, *later = phases_of(policy)
    return next((of for begin, of in reversed(later) if begin <= step), first[1])


def in_words(policy: Mapping[str, Any]) -> str:
    """Return a policy and its parameters; "not stated" without a name."""
    first, *later = phases_of(policy)
    if later:
        of = [f"{in_words(one)} from step {begin} on" for begin, one in later]
        return ", then ".join([in_words(first[1]), *of])
    stated = ", ".join(f"{key}={value}" for key, value in policy.items() if key != "name")
    return f"{policy.get('name', 'not stated')} {stated}".strip()


def _is_phase(phase: Any) -> bool:
    return (
        isinstance(phase, Mapping)
        and isinstance(phase.get("from"), int)
        and isinstance(phase.get("policy"), Mapping)
    )
