"""What a training method is called: short, and without what all have alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swatsim.described import phases_of


def method(policy: Mapping[str, Any]) -> str:
    """Return a method in words: swat-u 80 %, sr-ste 2:4; "" if the trace does not say.

    Parameters
    ----------
    policy : mapping
        As a policy describes itself: its name and parameters.
    """
    first, *later = phases_of(policy)
    if later:
        return ", ".join(
            [method(first[1]), *(f"{method(of)} from {step} on" for step, of in later)]
        )
    name = str(policy.get("name", ""))
    sparsity, n, m = (policy.get(key) for key in ("sparsity", "n", "m"))
    for inner in (policy.get("policy"), policy.get("of")):
        if isinstance(inner, Mapping):
            return f"{name} {method(inner)}".strip()
    if isinstance(sparsity, int | float):
        return f"{name} {100 * sparsity:g} %".strip()
    return f"{name} {n}:{m}".strip() if n and m else name
