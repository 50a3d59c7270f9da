"""What a user says about a recording, checked when it is said."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import numpy as np

from swatsim.errors import RecordingError
from swatsim.policies.interface import Policy

Steps: TypeAlias = Collection[int] | Callable[[int], bool]


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Take a policy's description of itself, and refuse what is no policy."""
    if isinstance(policy, type):
        name = policy.__name__
        raise RecordingError(f"policy={name} is a class: make one of it, such as {name}(0.8)")
    if not all(callable(getattr(policy, name, None)) for name in ("density", "describe")):
        raise RecordingError(
            f"policy={policy!r} is not allowed: must have the methods density and describe, "
            "as SwatU(0.8) has"
        )
    try:
        description: dict[str, Any] = json.loads(json.dumps(dict(policy.describe())))
    except (TypeError, ValueError) as error:
        message = f"policy={policy!r}: its describe() must give a dict of JSON: {error}"
        raise RecordingError(message) from None
    return description


def checked_images(images: int | None) -> int | None:
    """Refuse what is no number of samples."""
    if images is None or (_is_count(images) and images >= 1):
        return images
    raise RecordingError(f"images={images!r} is not allowed: must be at least 1, or None for all")


def checked_start(start: int) -> int:
    """Refuse what is no step's number."""
    if _is_count(start):
        return operator.index(start)
    raise RecordingError(
        f"start={start!r} is not allowed: must be the number of this run's first step, counted "
        "from 0"
    )


def checked_steps(steps: Steps) -> tuple[Callable[[int], bool], Any]:
    """Make a question of `steps`, and a description of it in JSON."""
    if callable(steps):
        return lambda number: bool(steps(number)), getattr(steps, "__qualname__", repr(steps))
    if isinstance(steps, range):
        return steps.__contains__, repr(steps)
    iterable = isinstance(steps, Collection) and not isinstance(steps, str)
    if not iterable or not all(_is_count(number) for number in steps):
        raise RecordingError(
            f"steps={steps!r} is not allowed: must be step numbers counted from 0, such as "
            "(0, 500), a range, or a function of the number"
        )
    numbers = frozenset(map(operator.index, steps))
    return numbers.__contains__, sorted(numbers)


def _is_count(value: Any) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and value >= 0
