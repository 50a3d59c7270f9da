"""What the jobs of a computation gave so far: rows of all its points, as columns."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from swatsim.errors import ConfigError
from swatsim.simulator.sizes import Sums
from swatsim.sweeps.worker import Done
from swatsim.table import Gathered, Record, column_of
from swatsim.workload.layer import OPS
from swatsim.workload.phases import OTHER


class Outcome:
    """Rows of some points, and why a point has none, as jobs give them in any order.

    Parameters
    ----------
    points : int
    layers : sequence of str
        In the order of their rows.
    """

    def __init__(self, points: int, layers: Sequence[str]) -> None:
        self.errors: list[str | None] = [None] * points
        self._sums = [Sums() for _ in range(points)]
        self._layers = {name: place for place, name in enumerate(layers)}
        self._gathered = Gathered()
        self._whose = array("q")

    def add(self, done: Done) -> None:
        """Add what a job gave."""
        for point, (rows, error) in enumerate(zip(done.rows, done.errors, strict=True)):
            try:
                self._sums[point].add(rows)
            except ConfigError as too_large:
                error = error or str(too_large)
            self.errors[point] = self.errors[point] or error
            if not self.errors[point]:
                self._gathered.add(rows)
                self._whose.extend([point] * len(rows))

    def rows(self) -> list[Sequence[Record]]:
        """Return each point's rows, in their order; nothing is added any more."""
        rows, whose = self._gathered.rows(), np.array(self._whose, np.int64)
        if not len(rows):
            return [rows] * len(self.errors)
        # everything else behind all ops, as it came
        others = np.array([op == OTHER for op in column_of(rows, "op")], bool)
        steps = np.array(column_of(rows, "step"), np.int64)
        layers = np.array([self._layers.get(name, 0) for name in column_of(rows, "layer")])
        ops = np.array([0 if op == OTHER else OPS.index(op) for op in column_of(rows, "op")])
        layers[others] = 0
        order = np.lexsort((ops, layers, steps, others, whose))
        edges = np.searchsorted(whose[order], range(1, len(self.errors)))
        return [rows.at(places) for places in np.split(order, edges)]
