"""Which values of a pass clusters are sent: windows round by round, filters once a cluster."""

from __future__ import annotations

import numpy as np

from swatsim.simulator.machines.inner_join.config import InnerJoinConfig
from swatsim.simulator.machines.inner_join.kernel import Counts, Rounds, Words
from swatsim.simulator.machines.inner_join.mapping import Pass, ones
from swatsim.workload.windows import Mask


def clusters_used(part: Pass, config: InnerJoinConfig) -> int:
    """Return how many clusters have a window of a pass: the first ones."""
    return min(config.clusters, part.windows)


class Sent:
    """Adds up the words of a pass: of streams that a join of an output somebody wants reads.

    Parameters
    ----------
    part : Pass
    parts : int
        So many of its parts.
    config : InnerJoinConfig
    rounds : Rounds
    filters : numpy.ndarray of int64, shape (parts, rounds, slots)
        That a cluster holds in each round.
    """

    def __init__(
        self, part: Pass, parts: int, config: InnerJoinConfig, rounds: Rounds, filters: Counts
    ) -> None:
        self.config = config
        self.rounds = rounds
        self.filters = filters
        self.clusters = clusters_used(part, config)
        self.window_words = 0
        masked = part.wanted is not None
        self._met = np.zeros((self.clusters, parts, part.filters), np.bool_) if masked else None

    def add(self, windows: Words, outputs: Mask | None, first: int) -> None:
        """Add windows, from the first one's number on, of which some outputs are wanted."""
        if outputs is None or self._met is None:
            self.window_words += len(self.rounds.used) * int(ones(windows).sum())
            return
        self.window_words += int((self._rounds_that_want(outputs) * ones(windows)).sum())
        for cluster, met in enumerate(self._met):
            own = outputs[:, (cluster - first) % self.config.clusters :: self.config.clusters]
            met |= own.any(axis=1)

    def _rounds_that_want(self, outputs: Mask) -> Counts:
        """Return how many rounds have an output of each window that is wanted."""
        wanting = np.zeros(outputs.shape[:2], np.int64)
        for part, (own, rounds) in enumerate(zip(outputs, self.filters, strict=True)):
            for filters, held in zip(self.rounds.filters, rounds, strict=True):
                wanting[part] += own[:, held[:filters]].any(axis=1)
        return wanting

    def filter_words(self, nonzero: Counts) -> int:
        """Return the words of filters that clusters are sent, whose windows have all been added.

        Of each filter so many values are not zero: (parts, filters).
        """
        if self._met is None:
            return self.clusters * int(nonzero.sum())
        return int((self._met * nonzero).sum())
