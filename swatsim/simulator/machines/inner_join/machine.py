"""Run an op: join its streams, add up cycles and lane-cycles."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from swatsim.counters import Counters
from swatsim.simulator.interface import Busy
from swatsim.simulator.machines.inner_join import kernel, mapping
from swatsim.simulator.machines.inner_join.config import WORD, InnerJoinConfig
from swatsim.simulator.machines.inner_join.kernel import Counts, Rounds, Words
from swatsim.simulator.machines.inner_join.mapping import Pass, hold, ones, passes, rounds_of
from swatsim.simulator.machines.inner_join.sent import Sent, clusters_used
from swatsim.workload.layer import Layer, OpName
from swatsim.workload.lowering import LoweredOp


def simulate_op(op: LoweredOp, config: InnerJoinConfig) -> Counters:
    """Return an op's counters on an `inner_join`: only values that meet are multiplied."""
    return _joined(op, config).counters(op.name, op.macs_effectual)


def busy(op: LoweredOp, config: InnerJoinConfig) -> Busy:
    """Return in how many cycles each cluster joins, and waits for the slowest of a pass."""
    return Busy("cluster", *_joined(op, config).clusters)


def _joined(op: LoweredOp, config: InnerJoinConfig) -> _Tally:
    tally = _Tally(config)
    for part in passes(op, config):
        for some in part.cuts():
            joined = run(part, some, config)
            tally.add(part, joined.cycles, joined.working)
            tally.send(joined.window_words, joined.filter_words)
    return tally


def simulate_dense(op: LoweredOp, config: InnerJoinConfig) -> Counters:
    """Return the counters with every pair of chunks costing its length."""
    tally = _Tally(config)
    for part in passes(op, config):
        turns = (part.windows + np.arange(config.clusters)[::-1]) // config.clusters
        tally.add_alike(part, np.broadcast_to(part.length * turns, (part.parts, len(turns))))
        values = part.parts * part.length
        tally.take(part, values * part.windows, values * part.filters)
    return tally.counters(op.name, op.macs_effectual, tally.working - op.macs_effectual)


def simulate_dense_operands(op: LoweredOp, config: InnerJoinConfig) -> Counters:
    """Return the counters were no value zero; padding and inserted zeros are skipped as ever."""
    anonymous = op.layer.model_copy(update={"name": "dense"})
    return _without_zeros(anonymous, op.name, op.samples, config)


def by_image(op: LoweredOp, config: InnerJoinConfig) -> InnerJoinConfig | None:
    """Return the config if the op's images follow one another: in wgrad they do.

    In fprop and dgrad clusters take windows of the next image before others end the last one, but
    for products of activations: their images are groups.
    """
    return config if op.name == "wgrad" or op.of_samples else None


class Joined(NamedTuple):
    """What a pass takes.

    Parameters
    ----------
    cycles : numpy.ndarray of int64, shape (parts, clusters, rounds)
    working : int
        Cycles that PEs join, added up.
    window_words, filter_words : int
        Values of windows and of filters that clusters are sent.
    """

    cycles: Counts
    working: int
    window_words: int
    filter_words: int


def run(part: Pass, parts: range, config: InnerJoinConfig) -> Joined:
    """Run all windows of some parts of a pass through its rounds, as many rounds as are held."""
    rounds = rounds_of(part.filters, config)
    streams = part.filter_streams(parts)
    cycles = np.zeros((len(parts), config.clusters, len(rounds.used)), np.int64)
    nonzero = ones(streams)
    of_round = len(parts) * int(rounds.filters.max()) * streams.shape[2]
    at_once = max(1, mapping.MOST_HELD // of_round)
    working = window_words = filter_words = 0
    for begin in range(0, len(rounds.used), at_once):
        some = range(begin, min(begin + at_once, len(rounds.used)))
        taken = _run_rounds(part, parts, streams, nonzero, config, some)
        cycles[:, :, begin : some.stop] = taken.cycles
        working += taken.working
        window_words += taken.window_words
        filter_words = taken.filter_words  # whatever the rounds
    return Joined(cycles, working, window_words, filter_words)


def _run_rounds(
    part: Pass,
    parts: range,
    streams: Words,
    nonzero: Counts,
    config: InnerJoinConfig,
    some: range,
) -> Joined:
    """Run all windows of some parts through some rounds, whose filters are held meanwhile."""
    rounds = rounds_of(part.filters, config)
    held = hold(streams, nonzero, rounds, config, some)
    own = Rounds(*(each[some.start : some.stop] for each in rounds))
    sent, first, working = Sent(part, len(parts), config, own, held.filters[:, :, 0]), 0, 0
    taken = np.zeros((len(parts), config.clusters, len(some)), np.int64)
    for windows, outputs in part.windows_and_wanted(parts):
        working += kernel.join_parts(windows, held.words, own, first, taken, held.begun(outputs))
        sent.add(windows, outputs, first)
        first += windows.shape[1]
    return Joined(taken, working, sent.window_words, sent.filter_words(nonzero))


@lru_cache(maxsize=10_000)
def _without_zeros(layer: Layer, name: OpName, samples: int, config: InnerJoinConfig) -> Counters:
    """Return the counters from one sample's windows: all filters are alike, and all samples."""
    one, tally = LoweredOp.dense(layer, name, 1), _Tally(config)
    in_a_row = 1 if name == "wgrad" else samples  # else the samples follow one another
    for part in passes(one, config):
        whole = replace(part, windows=part.windows * in_a_row)
        for some in part.cuts():
            own, first, sent = np.zeros((len(some), config.clusters), np.int64), 0, 0
            for windows in part.window_streams(some):
                costs = _costs_of_ones(windows, config.chunk)
                own += _by_cluster(costs, first % config.clusters, config.clusters)
                first += costs.shape[1]
                sent += int(ones(windows).sum())
            rolled = (np.roll(own, sample * part.windows, axis=1) for sample in range(in_a_row))
            tally.add_alike(whole, sum(rolled, np.zeros_like(own)))
            tally.take(whole, in_a_row * sent, len(some) * part.length * part.filters)
    return tally.counters(name, in_a_row * one.macs_effectual).times(samples // in_a_row)


def _costs_of_ones(windows: Words, chunk: int) -> Counts:
    """Return what one filter without a zero takes for each window: (parts, windows)."""
    chunks = np.arange(0, windows.shape[-1], chunk // WORD)
    counts = np.add.reduceat(np.bitwise_count(windows), chunks, axis=-1, dtype=np.int64)
    return np.asarray(np.maximum(counts, 1).sum(axis=-1))


def _by_cluster(costs: Counts, first: int, clusters: int) -> Counts:
    """Return what windows (parts, windows) cost each cluster, in turn from one on: by cluster."""
    turns = -(-(first + costs.shape[1]) // clusters)
    filled = np.zeros((len(costs), turns * clusters), np.int64)
    filled[:, first : first + costs.shape[1]] = costs
    return np.asarray(filled.reshape(len(costs), turns, clusters).sum(axis=1))


class _Tally:
    """Adds up the passes of an op.

    A PE in use is working, or waits for others of its cluster, or for other clusters. `clusters`
    are, of each, the cycles in which it joins, and those in which it waits for others.
    """

    def __init__(self, config: InnerJoinConfig) -> None:
        self.config = config
        self.cycles = self.working = self.pe_sync = self.tile_sync = 0
        self.window_words = self.filter_words = 0
        self.clusters = np.zeros((2, config.clusters), np.int64)

    def add(self, part: Pass, cycles: Counts, working: int) -> None:
        """Add a pass of which each cluster takes some cycles in each round."""
        used = rounds_of(part.filters, self.config).used
        taken = cycles.sum(axis=2)
        slowest = taken.max(axis=1, keepdims=True)
        waits = (slowest - taken)[:, : clusters_used(part, self.config)]
        self.clusters[0] += taken.sum(axis=0)
        self.clusters[1, : waits.shape[1]] += waits.sum(axis=0)
        self.cycles += int(slowest.sum())
        self.working += working
        self.pe_sync += int(cycles.sum(axis=(0, 1)) @ used) - working
        self.tile_sync += int(used[0] * waits.sum())

    def add_alike(self, part: Pass, costs: Counts) -> None:
        """Add parts whose windows take of each filter so much of clusters: (parts, clusters)."""
        rounds = rounds_of(part.filters, self.config)
        filters_a_pe = -(-rounds.filters // rounds.used)
        at_once = max(1, mapping.MOST_HELD // (costs.shape[1] * len(filters_a_pe)))
        for first in range(0, len(costs), at_once):
            own = costs[first : first + at_once]
            self.add(part, own[..., None] * filters_a_pe, int(own.sum()) * part.filters)

    def take(self, part: Pass, window_words: int, filter_words: int) -> None:
        """Count the words of a pass's streams: windows in each round, filters in each cluster."""
        rounds = len(rounds_of(part.filters, self.config).used)
        self.send(rounds * window_words, clusters_used(part, self.config) * filter_words)

    def send(self, window_words: int, filter_words: int) -> None:
        """Count words that clusters are sent."""
        self.window_words += window_words
        self.filter_words += filter_words

    def counters(self, name: OpName, effectual: int, ineffectual: int = 0) -> Counters:
        """Return the counters: lane-cycles sorted into their buckets."""
        total = self.cycles * self.config.pes
        words = self.filter_words, self.window_words
        return Counters(
            cycles_compute=self.cycles,
            pes=self.config.pes,
            lanes=self.config.lanes,
            lane_cycles_effectual=effectual,
            lane_cycles_ineffectual=ineffectual,
            lane_cycles_idle=self.working - effectual - ineffectual,
            lane_cycles_pe_sync=self.pe_sync,
            lane_cycles_tile_sync=self.tile_sync,
            lane_cycles_unmapped=total - self.working - self.pe_sync - self.tile_sync,
            words_a=words[1] if name == "wgrad" else words[0],
            words_b=words[0] if name == "wgrad" else words[1],
        )
