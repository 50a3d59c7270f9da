"""How the values of a synthetic trace are drawn, one operand of one layer at a time.

`synthetic.py` says how uneven `uneven` is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from swatsim.policies.draw import generator
from swatsim.workload.layer import OPERANDS, Layer, Operand
from swatsim.workload.tables import Network
from swatsim.workload.windows import Mask

Values = npt.NDArray[np.float32]

#: Of `uneven`: the log of a channel's scale is this times a Student's t of so many degrees of
#: freedom. A log-normal scale that fits the bulk of trained layers has no channel that is all but
#: empty or full, and they have.
SCALE, FREEDOM = 0.2, 3
#: Values that are thinned at a time (16 MiB), or those of a sample: the same draws as all at once.
MOST_VALUES = 2**22
#: Of `uneven`: the deviation of a channel's natural density, on the scale of a normal's quantiles.
NATURAL_SPREAD = 0.45


@dataclass(frozen=True)
class Drawing:
    """How values are drawn, and whose turn it is.

    Parameters
    ----------
    network : str or None
    layers : sequence of Layer
        The input of the first one is dense.
    batch, seed : int
    density : mapping of Operand to float
        Natural density of act and grad_out.
    uneven : bool
    table : Network, optional
        Says which other inputs are dense, and what a causal mask hides.
    """

    network: str | None
    layers: Sequence[Layer]
    batch: int
    seed: int
    density: Mapping[Operand, float]
    uneven: bool
    table: Network | None = None

    @property
    def embedded(self) -> bool:
        """Whether what the first layer reads is trained."""
        return self.table is not None and self.table.embedded

    @property
    def without_dgrad(self) -> str | None:
        """The layer that has no dgrad: what the first one reads is not trained."""
        return None if self.embedded else self.layers[0].name

    def describe(self) -> dict[str, Any]:
        """Return what the values are drawn with, as JSON, for the trace's provenance."""
        density = {f"{name.removesuffix('_out')}_density": x for name, x in self.density.items()}
        seeds = {"batch": self.batch, "seed": self.seed, "uneven": self.uneven}
        return {"synthetic": True, "network": self.network, **seeds, **density}

    def values(self, layer: Layer, operand: Operand, step: int) -> Values:
        """Return drawn values of an operand: magnitudes (no mask depends on signs), and zeros."""
        rng = self._rng(layer, operand, step + 1)
        drawn = rng.standard_normal(layer.shape_of(operand, self.batch), dtype=np.float32)
        np.abs(drawn, out=drawn)
        for axis, scales in self._scales(layer, operand):
            drawn *= _along(axis, scales, drawn.ndim)
        return self._thin(drawn, layer, operand, rng)

    def _thin(
        self, drawn: Values, layer: Layer, operand: Operand, rng: np.random.Generator
    ) -> Values:
        """Return values with natural zeros, as a ReLU makes them."""
        density = self.natural(layer, operand)
        if density == 1:
            return drawn
        chance: Any = density
        if self.uneven and operand == "act":
            chance = _along(1, self._natural_of_channels(layer, density), drawn.ndim)
        at_once = max(1, MOST_VALUES // drawn[0].size)
        for first in range(0, len(drawn), at_once):
            some = drawn[first : first + at_once]
            some *= rng.random(some.shape, dtype=np.float32) < chance
        return drawn

    def natural(self, layer: Layer, operand: Operand) -> float:
        """Return how dense an operand is before anything is dropped; 1 needs no drawing.

        That is but for what a causal mask hides. Both factors of a product of two activations are
        dense.
        """
        if operand == "act" and (layer.multiplies_activations or self._is_dense(layer)):
            return 1.0
        return self.density.get(operand, 1.0)

    def _is_dense(self, layer: Layer) -> bool:
        known = self.table is not None and layer.name in self.table.dense
        return known or layer.name == self.layers[0].name

    def causal(self, layer: Layer, operand: Operand) -> Mask | None:
        """Return what a causal mask leaves of a tensor of queries by keys; None: it hides nothing.

        Query i sees keys 0 to i. Keys lie along the channels, head by head, and queries along H.
        """
        if self.table is None or self.table.causal.get(layer.name) != operand:
            return None
        N, channels, queries, _ = layer.shape_of(operand, self.batch)
        keys = channels // layer.groups
        seen = np.triu(np.ones((keys, queries), np.bool_))
        whole = np.broadcast_to(seen, (N, layer.groups, keys, queries))
        return whole.reshape(N, channels, queries, 1)

    def _scales(self, layer: Layer, operand: Operand) -> Iterator[tuple[int, Values]]:
        """Yield the scales of filters and input channels: the same ones in every step."""
        axes = {"weight": (0, 1), "act": (1,), "grad_out": ()}[operand]
        is_input = operand == "act" and layer.name == self.layers[0].name and not self.embedded
        if not self.uneven or is_input:
            return
        rng = self._rng(layer, operand, 0)
        shape = layer.shape_of(operand, self.batch)
        for axis in axes:
            yield axis, np.exp(SCALE * rng.standard_t(FREEDOM, shape[axis])).astype(np.float32)

    def _natural_of_channels(self, layer: Layer, density: float) -> Values:
        """Return each channel's natural density, drawn so that their mean is the one asked for."""
        normal = NormalDist()
        centre = normal.inv_cdf(density) * math.hypot(1, NATURAL_SPREAD)
        rng = self._rng(layer, "grad_out", 0)  # whose scales are never drawn
        quantiles = centre + NATURAL_SPREAD * rng.standard_normal(layer.C)
        return np.array([normal.cdf(x) for x in quantiles], np.float32)

    def _rng(self, layer: Layer, operand: Operand, turn: int) -> np.random.Generator:
        """Return the generator of one operand of one layer."""
        return generator(self.seed, layer.name, OPERANDS.index(operand), turn)


def _along(axis: int, values: Values, ndim: int) -> Values:
    """Return one value a channel in the shape that meets a tensor along an axis."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])
