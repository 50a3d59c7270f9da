"""The naive twin of the `inner_join` machine. Convolution letters throughout.

`inner_join` is after SparTen (Gondimalla et al., MICRO 2019): clusters of PEs with one multiplier
each. A window and a filter are streams of values, stored in chunks: a bitmask of where a value is
not zero, and those values, packed. A PE joins a chunk of a window with a chunk of a filter by the
AND of their masks, and makes one product a cycle, at one joined position after another. What is
lost is lost to pairs of chunks that join nothing, to PEs that wait for the others of their
cluster, and to clusters that wait for the slowest.

This file is the oracle of the fast kernel, so it is the slow and plain way to say the same: one PE
at a time, Python integers, every value carried from its operand through its packed chunk into its
products. The output it returns is what the PEs summed up, so that an equal `reference` proves that
skipping lost nothing. It imports nothing of the package on purpose.

The file reads from top to bottom: streams and their chunks; the passes of an op; rounds of filters
and their balancing; the run of the clusters, with its accounting; `simulate`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tests.naive.common import (
    EVENTS,
    NaiveResult,
    Shape,
    chunks,
    convolution_shape,
    empty_output,
    lower_dgrad,
    operands_of,
    reference,
    samples_in,
    value_inside,
    wanted_outputs,
)
from tests.naive.lane_array import Convolution, dgrad_phases, fprop_convolution

__all__ = ["NaiveResult", "reference", "simulate"]

OUTPUT_AXES = {"fprop": "nkpq", "dgrad": "nchv", "wgrad": "kcrs"}

BUCKETS = ("effectual", "ineffectual", "idle", "pe_sync", "tile_sync", "unmapped")


# ---------------------------------------------------------------------------------------------
# Streams and their chunks
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Consecutive values of a stream, as they are stored: a bitmask, and what its ones stand for.

    Bit i of the mask is position i. `nonzeros` is how many of the values are not zero, also where
    the dense baseline stores them all.
    """

    mask: int
    packed: list[int]
    nonzeros: int

    def at(self, bit: int) -> int:
        """The value at a position that the mask has, given as the position's bit."""
        return self.packed[(self.mask & (bit - 1)).bit_count()]


def stored(values: list[int], skipping: bool) -> Chunk:
    """Values as a chunk: the non-zero ones, or all of them in the dense baseline."""
    kept = [i for i, value in enumerate(values) if value or not skipping]
    nonzeros = sum(value != 0 for value in values)
    return Chunk(sum(1 << i for i in kept), [values[i] for i in kept], nonzeros)


def join(window: Chunk, other: Chunk) -> Iterator[int]:
    """Yield the products of two chunks, of one joined position after another: one a cycle."""
    joined = window.mask & other.mask
    while joined:
        bit = joined & -joined
        yield window.at(bit) * other.at(bit)
        joined ^= bit


@dataclass(frozen=True)
class Stream:
    """A window or a filter. `where` is the part of the output's index that it fixes, by letter."""

    where: dict[str, int]
    chunks: list[Chunk]

    @property
    def nonzeros(self) -> int:
        """Values of the stream that are not zero."""
        return sum(chunk.nonzeros for chunk in self.chunks)

    @property
    def words(self) -> int:
        """Values that are stored, and so sent."""
        return sum(len(chunk.packed) for chunk in self.chunks)


@dataclass(frozen=True)
class Cutter:
    """Cuts streams into chunks of `size` values, wherever a tap ends."""

    size: int
    skipping: bool

    def stream(self, where: dict[str, int], values: Iterator[int]) -> Stream:
        """The stream of these values."""
        return Stream(where, [stored(part, self.skipping) for part in chunks(values, self.size)])


# ---------------------------------------------------------------------------------------------
# The passes of an op
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """Windows and filters that all meet: of one group, one dgrad phase, in wgrad one sample.

    Sending a value of a window is the event `window_words`, one of a filter `filter_words`.
    """

    windows: list[Stream]
    filters: list[Stream]
    window_words: str
    filter_words: str


def convolution_passes(conv: Convolution, cutter: Cutter) -> Iterator[Pass]:
    """fprop, or one phase of dgrad: a pass a group, its windows of all samples, n outermost."""
    for group in range(conv.groups):
        order = [(tap, channel) for tap in conv.taps for channel in conv.channels_of(group)]
        filters = [
            cutter.stream({conv.filter_letter: f}, (conv.weight(f, c, tap) for tap, c in order))
            for f in conv.filters_of(group)
        ]
        windows = [
            cutter.stream(
                conv.window_index(n, window), (conv.image(n, c, window, tap) for tap, c in order)
            )
            for n in range(conv.samples)
            for window in conv.windows
        ]
        yield Pass(windows, filters, window_words="words_b", filter_words="words_a")


def wgrad_passes(shape: Shape, act, grad_out, cutter: Cutter) -> Iterator[Pass]:
    """A pass a sample and group: act's streams of (c,r,s), c outermost, by grad_out's of k."""
    C_group, K_group = shape.C // shape.groups, shape.K // shape.groups
    positions = list(np.ndindex(shape.P, shape.Q))

    def window(n, group, c, r, s):
        where = [(shape.input_row(p, r), shape.input_column(q, s)) for p, q in positions]
        values = (value_inside(act, n, group * C_group + c, h, v) for h, v in where)
        return cutter.stream({"r": r, "s": s, "c": c}, values)

    for n, group in np.ndindex(act.shape[0], shape.groups):
        windows = [window(n, group, *index) for index in np.ndindex(C_group, shape.R, shape.S)]
        filters = [
            cutter.stream({"k": k}, (int(grad_out[n, k, p, q]) for p, q in positions))
            for k in range(group * K_group, (group + 1) * K_group)
        ]
        yield Pass(windows, filters, window_words="words_a", filter_words="words_b")


def passes_of(op: str, shape: Shape, images: dict, cutter: Cutter, config) -> Iterator[Pass]:
    """All the passes of an op, in the order in which the machine takes them."""
    if op == "wgrad":
        yield from wgrad_passes(shape, images["act"], images["grad_out"], cutter)
        return
    if op == "fprop":
        convolutions = iter([fprop_convolution(shape, images["weight"], images["act"])])
    else:
        lowered = lower_dgrad(config.dgrad_lowering, shape, images["grad_out"])
        convolutions = dgrad_phases(*lowered, images["weight"])
    for conv in convolutions:
        yield from convolution_passes(conv, cutter)


# ---------------------------------------------------------------------------------------------
# Rounds of filters, and balancing
# ---------------------------------------------------------------------------------------------


def rounds_of(filters: list[Stream], config) -> list[list[Stream]]:
    """The filters that the PEs of each cluster hold at a time, round by round.

    `greedy-software` takes the densest and the sparsest of what is left; the others go by index.
    """
    pes = config.pes_per_cluster
    if config.balancing == "none":
        return chunks(filters, pes)
    if config.balancing == "greedy-hardware":
        return chunks(filters, 2 * pes)
    if config.balancing != "greedy-software":
        raise ValueError(f"balancing={config.balancing!r} is none of the three")
    left = sorted(filters, key=lambda stream: -stream.nonzeros)  # stable: ties by index
    rounds = []
    while len(left) > 2 * pes:
        rounds.append(left[:pes] + left[-pes:])
        left = left[pes:-pes]
    return [*rounds, left]


def paired(filters: list[Stream]) -> list[list[Stream]]:
    """The first with the last, the second with the last but one; the middle one may be alone."""
    half = (len(filters) + 1) // 2
    pairs = [[filters[i], filters[-1 - i]] for i in range(half)]
    if len(filters) % 2:
        pairs[-1] = pairs[-1][:1]
    return pairs


def held(filters: list[Stream], t: int, config) -> list[list[Stream]]:
    """The filters of a round by the PE that joins their chunk t: one a PE, or two."""
    if len(filters) <= config.pes_per_cluster:
        return [[stream] for stream in filters]
    if config.balancing == "greedy-hardware":
        return paired(sorted(filters, key=lambda stream: -stream.chunks[t].nonzeros))
    return paired(filters)


# ---------------------------------------------------------------------------------------------
# The run: cluster by cluster, PE by PE, every lane-cycle in a bucket
# ---------------------------------------------------------------------------------------------


@dataclass
class Meter:
    """The output and the counters, as the run goes on. A lane is a PE."""

    axes: str
    output: np.ndarray
    wanted: np.ndarray
    joins_all: bool
    """Whether outputs that nobody wants are made too: so the dense baseline."""
    own: list[int]
    waits: list[int]
    cycles: int = 0
    lane_cycles: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))

    def add(self, bucket: str, lane_cycles: int) -> None:
        """Count lane-cycles in a bucket."""
        self.lane_cycles[bucket] += lane_cycles

    def count(self, event: str, times: int) -> None:
        """Count an event."""
        self.events[event] += times

    def wants(self, window: Stream, other: Stream) -> bool:
        """Whether somebody wants what a window and a filter make."""
        where = {**window.where, **other.where}
        return bool(self.wanted[tuple(where[letter] for letter in self.axes)])

    def joins(self, window: Stream, other: Stream) -> bool:
        """Whether a window and a filter are joined."""
        return self.joins_all or self.wants(window, other)

    def accumulate(self, window: Stream, other: Stream, value: int) -> None:
        """Add a value to the element of the output that a window and a filter make."""
        where = {**window.where, **other.where}
        self.output[tuple(where[letter] for letter in self.axes)] += value


def run_pair(window: Stream, other: Stream, t: int, meter: Meter) -> int:
    """One PE, chunk t of a window and of one filter: the cycles it takes, at least one."""
    cycles = 0
    for product in join(window.chunks[t], other.chunks[t]):
        meter.accumulate(window, other, product)
        effectual = product and meter.wants(window, other)
        meter.add("effectual" if effectual else "ineffectual", 1)
        cycles += 1
    if cycles == 0:
        meter.add("idle", 1)
    return max(1, cycles)


def run_window(window: Stream, plan: list[list[list[Stream]]], config, meter: Meter) -> int:
    """One cluster, one window, one round of filters: the cycles until its slowest PE has ended.

    `plan` has the filters `[chunk][pe]`; a PE goes from chunk to chunk without waiting. It does
    not begin what nobody wants.
    """
    busy = Counter()
    for t, pes in enumerate(plan):
        for pe, streams in enumerate(pes):
            busy[pe] += sum(
                run_pair(window, stream, t, meter)
                for stream in streams
                if meter.joins(window, stream)
            )
    slowest = max(busy.values())
    for pe in range(config.pes_per_cluster):
        if pe in busy:
            meter.add("pe_sync", slowest - busy[pe])
        else:
            meter.add("unmapped", slowest)
    return slowest


def run_cluster(work: Pass, windows: list[Stream], config, meter: Meter) -> int:
    """All rounds of a pass on one cluster, in each all of its windows: the cycles it is busy."""
    cycles = 0
    for filters in rounds_of(work.filters, config) if windows else []:
        for stream in filters:
            sent = any(meter.joins(window, stream) for window in windows)
            meter.count(work.filter_words, stream.words if sent else 0)
        plan = [held(filters, t, config) for t in range(len(filters[0].chunks))]
        for window in windows:
            sent = any(meter.joins(window, stream) for stream in filters)
            meter.count(work.window_words, window.words if sent else 0)
            cycles += run_window(window, plan, config, meter)
    return cycles


def run_pass(work: Pass, config, meter: Meter) -> None:
    """Windows go round robin over the clusters, which wait for the slowest of them at the end."""
    shares = [work.windows[cluster :: config.clusters] for cluster in range(config.clusters)]
    busy = [run_cluster(work, windows, config, meter) for windows in shares]
    meter.cycles += max(busy)
    in_use = len(held(rounds_of(work.filters, config)[0], 0, config))
    for cluster, (windows, cycles) in enumerate(zip(shares, busy, strict=True)):
        mapped = in_use if windows else 0
        meter.own[cluster] += cycles
        meter.waits[cluster] += max(busy) - cycles if windows else 0
        meter.add("tile_sync", (max(busy) - cycles) * mapped)
        meter.add("unmapped", (max(busy) - cycles) * (config.pes_per_cluster - mapped))


# ---------------------------------------------------------------------------------------------
# The entry point
# ---------------------------------------------------------------------------------------------


def simulate(
    op, layer, config, *, weight=None, act=None, grad_out=None, wanted=None, skipping=True
) -> NaiveResult:
    """Run one op of one layer on the machine.

    Without `skipping` it is the machine's dense baseline: the same windows, rounds and pairs, but
    every value of a stream is stored, sent and joined. `wanted` says which outputs somebody wants;
    None: all of them.
    """
    operands = operands_of(op, {"weight": weight, "act": act, "grad_out": grad_out})
    linear = layer.kind == "linear"
    images = {name: a[:, :, None, None] if linear else a for name, a in operands.items()}
    shape = convolution_shape(layer)
    output = empty_output(op, shape, samples_in(images))
    meter = Meter(
        OUTPUT_AXES[op],
        output,
        wanted_outputs(output, wanted),
        joins_all=not skipping,
        own=[0] * config.clusters,
        waits=[0] * config.clusters,
    )
    cutter = Cutter(config.chunk, skipping)
    for work in passes_of(op, shape, images, cutter, config):
        run_pass(work, config, meter)
    pes = config.clusters * config.pes_per_cluster
    assert sum(meter.lane_cycles.values()) == meter.cycles * pes
    output = meter.output[:, :, 0, 0] if linear else meter.output
    counted = meter.cycles, meter.lane_cycles, meter.events
    return NaiveResult(output, *counted, own=meter.own, waits=meter.waits)
