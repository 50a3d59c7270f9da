"""One cluster, cycle by cycle: what each PE joined, and who waited for whom.

The kernel joins, costs and logs; here its log is put into words. All windows of the cluster are run
for what they take, and those that are shown once more, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from swatsim.simulator.interface import Event, Timeline, check_tile
from swatsim.simulator.machines.inner_join import kernel
from swatsim.simulator.machines.inner_join.config import InnerJoinConfig
from swatsim.simulator.machines.inner_join.kernel import Counts, Log, Rounds, Wanted, Words
from swatsim.simulator.machines.inner_join.machine import run
from swatsim.simulator.machines.inner_join.mapping import Held, Pass, hold, ones, passes, rounds_of
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask


def timeline(op: LoweredOp, config: InnerJoinConfig, tile: int) -> Timeline:
    """Return what one cluster does.

    Raises
    ------
    ConfigError
        If there is no such cluster.
    """
    check_tile(tile, config.clusters, op, "one of the clusters")
    stretches = list(_stretches(op, config, tile))
    begins = list(accumulate((one.cycles for one in stretches), initial=0))

    def events(window: range) -> Iterator[Event]:
        for stretch, begin in zip(stretches, begins, strict=False):
            if begin < window.stop and window.start < begin + stretch.cycles:
                yield from stretch.events(window, begin)

    pes = range(config.pes_per_cluster)
    about = {"tiles": config.clusters, "cluster": tile, "passes": len(stretches)}
    return Timeline(("cluster", *(f"PE {pe}" for pe in pes)), begins[-1], events, about)


def _stretches(op: LoweredOp, config: InnerJoinConfig, cluster: int) -> Iterator[_Stretch]:
    """Yield what the cluster has of each pass, in the order in which they run."""
    for number, part in enumerate(passes(op, config)):
        rounds = rounds_of(part.filters, config)
        streams = part.filter_streams(range(part.parts))
        held = hold(streams, ones(streams), rounds, config)
        windows, outputs = _own(part, config.clusters, cluster)
        slowest = run(part, range(part.parts), config).cycles.sum(axis=2).max(axis=1)
        for group in range(part.parts):
            own = held.of_part(group, None if outputs is None else outputs[group])
            where = {"pass": number, "part": group}
            numbers = np.arange(cluster, part.windows, config.clusters)
            one = windows[group], numbers, *own, rounds, int(slowest[group]), where
            yield _Stretch(*one, config.pes_per_cluster)


def _own(part: Pass, clusters: int, cluster: int) -> tuple[Words, Mask | None]:
    """Return the windows of a pass that run on a cluster, and what is wanted of them.

    Shapes (parts, windows, words) and (parts, windows, filters).
    """
    found, wanted, first = [], [], 0
    for windows, outputs in part.windows_and_wanted(range(part.parts)):
        own = slice((cluster - first) % clusters, None, clusters)
        found.append(windows[:, own])
        wanted += [] if outputs is None else [outputs[:, own]]
        first += windows.shape[1]
    streams = np.ascontiguousarray(np.concatenate(found, axis=1))
    return streams, np.concatenate(wanted, axis=1) if wanted else None


@dataclass
class _Stretch:
    """One cluster in one part of a pass.

    Parameters
    ----------
    windows : numpy.ndarray of uint64, shape (windows, words)
    numbers : numpy.ndarray of int64, shape (windows,)
        Of the windows, in the pass.
    held : Held
        Of this part alone.
    wanted : Wanted or None
    rounds : Rounds
    cycles : int
        Of the slowest cluster.
    where : dict
    pes : int
    """

    windows: Words
    numbers: Counts
    held: Held
    wanted: Wanted | None
    rounds: Rounds
    cycles: int
    where: dict[str, Any]
    pes: int

    def __post_init__(self) -> None:
        taken = np.zeros((len(self.windows), len(self.rounds.used)), np.int64)
        if taken.size:  # a row of its own for each window
            kernel.join(self.windows, self.held.words, self.rounds, 0, taken, self.wanted)
        self.taken: Counts = taken.T.ravel()
        self.ends: Counts = self.taken.cumsum()

    def events(self, window: range, begin: int) -> Iterator[Event]:
        """Yield the events of some cycles, the stretch itself beginning at one."""
        first = int(np.searchsorted(self.ends, window.start - begin, side="right"))
        for step in range(first, len(self.ends)):
            start = begin + int(self.ends[step] - self.taken[step])
            if start >= window.stop:
                return
            yield from self._step(step, start)
        yield from self._rest(begin)

    def _rest(self, begin: int) -> Iterator[Event]:
        """Yield what is left until the slowest cluster has finished."""
        own = int(self.taken.sum())
        begin, waits = begin + own, self.cycles - own
        if waits:
            had = len(self.windows) > 0
            used = int(self.rounds.used[0]) if had else 0
            yield Event(0, *_WAITS[had], begin, waits, {})
            for pe in range(self.pes):
                yield Event(1 + pe, *_WAITS[pe < used], begin, waits, {})

    def _step(self, step: int, begin: int) -> Iterator[Event]:
        """Yield one window in one round."""
        number, at = divmod(step, len(self.windows))
        cycles, used = int(self.taken[step]), int(self.rounds.used[number])
        where = {**self.where, "round": number, "window": int(self.numbers[at])}
        yield Event(0, f"window {self.numbers[at]}, round {number}", "step", begin, cycles, where)
        log = self._log(number, at)
        for pe in range(used):
            yield from self._pe(pe, number, log, begin, cycles)
        for pe in range(used, self.pes):
            yield Event(1 + pe, "no filter", "unmapped", begin, cycles, {})

    def _log(self, number: int, at: int) -> Log:
        """Run one window in one round, and write down what its pairs of chunks take."""
        one, row = slice(number, number + 1), slice(at, at + 1)
        words, rounds = self.held.words[one], Rounds(*(of[one] for of in self.rounds))
        shape = (1, 1, *self.held.filters.shape[1:])
        log = Log(np.zeros(shape, np.int64), np.zeros(shape, np.int64))
        wanted = self.wanted and Wanted(self.wanted.outputs[row], self.wanted.filters[one])
        taken = np.zeros((1, 1), np.int64)
        kernel.join(self.windows[row], words, rounds, 0, taken, wanted, log)
        return Log(*(of[0, 0] for of in log))

    def _pe(self, pe: int, number: int, log: Log, begin: int, cycles: int) -> Iterator[Event]:
        """Yield the pairs of chunks of one PE, and its waiting."""
        end = begin + cycles
        second = int(self.rounds.used[number]) + pe
        slots = [pe, second] if second < self.rounds.filters[number] else [pe]
        for chunk in range(len(log.costs)):
            for slot in slots:
                joined, cost = int(log.joined[chunk, slot]), int(log.costs[chunk, slot])
                if not cost:  # nobody wants its output
                    continue
                details = {
                    "filter": int(self.held.filters[number, chunk, slot]),
                    "part_of_stream": chunk,
                    "products": joined,
                }
                name = ("joins", "product") if joined else ("joins nothing", "idle")
                yield Event(1 + pe, *name, begin, cost, details)
                begin += cost
        if begin < end:
            yield Event(1 + pe, "waits for the slowest PE", "pe_sync", begin, end - begin, {})


#: What a PE of a cluster that has finished does, by whether it had something to do.
_WAITS = {
    True: ("waits for the slowest cluster", "tile_sync"),
    False: ("nothing to do", "unmapped"),
}
