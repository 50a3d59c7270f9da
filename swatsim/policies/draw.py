"""Random numbers that depend on a seed, a layer's name and the turn, and on nothing else."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def generator(seed: int, layer: str, *turn: int) -> np.random.Generator:
    """Return a generator seeded by the layer's name: no other layer changes what is drawn."""
    name = int.from_bytes(blake2b(layer.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(name, *turn)))
