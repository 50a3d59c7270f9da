"""Random values for the circuits: dense, sparse, empty, in turn; their seeds are the drivers'."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

#: The variable that says how many streams a driver runs.
COUNT = "SWATSIM_RTL_STREAMS"
#: Shares of values that are not zero, in turn.
DENSITIES = (1.0, 0.5, 0.2, 0.05, 0.0, 0.8, 0.35)


def turns() -> range:
    """Return the numbers of a driver's streams."""
    return range(int(os.environ[COUNT]))


def values(rng: np.random.Generator, shape: tuple[int, ...], turn: int) -> Any:
    """Return signed bytes, of a density that is `turn`'s."""
    density = DENSITIES[turn % len(DENSITIES)]
    drawn = rng.integers(1, 128, shape) * rng.choice([-1, 1], shape)
    return np.where(rng.random(shape) < density, drawn, 0)
