"""Cut an op into passes of windows and filters, and filters into rounds.

Speaks convolution letters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from swatsim.jit import read_only
from swatsim.simulator.machines.inner_join.config import WORD, Balancing, InnerJoinConfig
from swatsim.simulator.machines.inner_join.kernel import (
    Counts,
    Rounds,
    Wanted,
    Words,
    gather,
    gather_rows,
    pack_channels,
    pack_rows,
)
from swatsim.workload.convolutions import Convolution, convolutions
from swatsim.workload.layer import Layer
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.windows import Mask, as_4d

#: Words of streams that are held at a time (16 MiB), or those of one window, filter or channel.
MOST_WORDS = 2**21
#: Words of filters that lie in slots at a time (4 MiB), or those of one round: some are copied.
#: Also numbers of cycles.
MOST_HELD = 2**19
#: Values that are laid out at a time before they are packed (4 MiB), or those of one.
MOST_VALUES = 2**22


@dataclass(frozen=True)
class Pass:
    """Windows that all meet the same filters; or several such parts alike, one after another.

    Parameters
    ----------
    parts : int
        Groups of the layer, in wgrad of each sample: with windows and filters of their own.
    windows, filters : int
        Of a part.
    length : int
        Values of a stream.
    window_streams : callable of range returning an iterator of numpy.ndarray of uint64
        Of some parts, shape (parts, some windows, words): in order, together all of them.
    filter_streams : callable of range returning numpy.ndarray of uint64
        Of some parts, shape (parts, filters, words).
    wanted : callable of range returning an iterator of numpy.ndarray of bool, optional
        Shape (parts, some windows, filters): with the window streams, of which windows and filters
        the outputs are wanted. By default all.
    """

    parts: int
    windows: int
    filters: int
    length: int
    window_streams: Callable[[range], Iterator[Words]]
    filter_streams: Callable[[range], Words]
    wanted: Callable[[range], Iterator[Mask]] | None = None

    def cuts(self) -> Iterator[range]:
        """Yield the parts in order, so many that their filters can be held at once."""
        at_once = max(1, MOST_WORDS // (max(self.filters, 64) * -(-self.length // WORD)))
        for first in range(0, self.parts, at_once):
            yield range(first, min(first + at_once, self.parts))

    def windows_and_wanted(self, parts: range) -> Iterator[tuple[Words, Mask | None]]:
        """Yield window streams of some parts, each with what is wanted of it."""
        if self.wanted is None:
            yield from ((windows, None) for windows in self.window_streams(parts))
        else:
            yield from zip(self.window_streams(parts), self.wanted(parts), strict=True)


class Held(NamedTuple):
    """Which filters lie in which slots of a cluster.

    Parameters
    ----------
    words : numpy.ndarray of uint64, shape (parts, rounds, chunks, words of a chunk, slots)
    filters : numpy.ndarray of int64, shape (parts, rounds, chunks, slots)
        Their indices in the group; of slots out of use some filter.
    sorted_by_chunk : bool
        Whether they differ from chunk to chunk.
    """

    words: Words
    filters: Counts
    sorted_by_chunk: bool = False

    def of_part(self, part: int, outputs: Mask | None) -> tuple[Held, Wanted | None]:
        """Return what one part holds, and which of its joins are begun, outputs as in `begun`."""
        own = Held(self.words[part], self.filters[part], self.sorted_by_chunk)
        return own, own.begun(outputs)

    def begun(self, outputs: Mask | None) -> Wanted | None:
        """Return which joins are begun, of outputs (.., windows, filters) that are wanted."""
        if outputs is None:
            return None
        filters = self.filters if self.sorted_by_chunk else self.filters[..., :1, :]
        return Wanted(read_only(outputs), read_only(filters))


def passes(op: LoweredOp, config: InnerJoinConfig) -> Iterator[Pass]:
    """Yield the passes of an op, which follow one another."""
    if op.name == "wgrad":
        yield _wgrad(op)
        return
    for conv in convolutions(op, config.dgrad_lowering):
        yield _convolution(conv.as_one_image() if op.is_matrix_product else conv)


def rounds_of(filters: int, config: InnerJoinConfig) -> Rounds:
    """Return how many filters and PEs each round has: what needs no second slot is not paired."""
    most, pes = config.filters_per_round, config.pes_per_cluster
    counts = np.full(-(-filters // most), most, np.int64)
    counts[-1] = filters - most * (len(counts) - 1)
    return Rounds(counts, np.where(counts > pes, -(-counts // 2), counts))


def hold(
    streams: Words,
    nonzero: Counts,
    rounds: Rounds,
    config: InnerJoinConfig,
    some: range | None = None,
) -> Held:
    """Lay filters (parts, filters, words) into the slots of some rounds, by default of all.

    `nonzero` is how many values of each are not zero: (parts, filters).
    """
    some = range(len(rounds.used)) if some is None else some
    own = slice(some.start, some.stop)
    held = Rounds(rounds.filters[own], rounds.used[own])
    filters = _filters_of(nonzero, rounds, some, config.balancing)
    words = config.chunk // WORD
    chunks = -(-streams.shape[2] // words)
    laid = np.zeros((*filters.shape, chunks * words), np.uint64)
    laid[..., : streams.shape[2]] = streams[np.arange(len(streams))[:, None, None], filters]
    cut = laid.reshape(*filters.shape, chunks, words).swapaxes(2, 3)  # chunks before slots
    by_chunk = config.balancing is Balancing.GREEDY_HARDWARE
    filters = np.broadcast_to(filters[:, :, None], cut.shape[:-1])
    if by_chunk:
        order = _sorted_by_chunk(np.bitwise_count(cut).sum(axis=4, dtype=np.int64), held)
        cut = np.take_along_axis(cut, order[..., None], axis=3)
        filters = np.take_along_axis(filters, order, axis=3)
    return Held(np.ascontiguousarray(cut.swapaxes(3, 4)), filters, by_chunk)


def _filters_of(nonzero: Counts, rounds: Rounds, some: range, balancing: Balancing) -> Counts:
    """Return the filters of some rounds before chunks sort them anew: (parts, rounds, slots)."""
    if balancing is not Balancing.GREEDY_SOFTWARE:
        every = _by_index(rounds, some)
        return np.broadcast_to(every, (len(nonzero), *every.shape))
    ranked = np.argsort(-nonzero, axis=1, kind="stable")
    return np.asarray(ranked[:, _from_both_ends(rounds, some)])


def _by_index(rounds: Rounds, some: range) -> Counts:
    """Return which filter by index lies at each place of some rounds: (rounds, places)."""
    most = int(rounds.filters.max())
    places = np.array(some)[:, None] * most + np.arange(most)
    return np.asarray(np.minimum(places, rounds.filters.sum() - 1))


def _from_both_ends(rounds: Rounds, some: range) -> Counts:
    """Return which filter of a ranking lies in each slot, the rounds taking from both its ends."""
    slots = np.zeros((len(some), int(rounds.filters.max())), np.int64)
    own, before = slice(some.start, some.stop), slice(some.start)
    first = int(rounds.used[before].sum())
    end = int(rounds.filters.sum() - rounds.filters[before].sum()) + first
    for row, filters, used in zip(slots, rounds.filters[own], rounds.used[own], strict=True):
        row[:used] = np.arange(first, first + used)
        row[used:filters] = np.arange(end - 1, end - 1 - (filters - used), -1)
        first, end = first + used, end - (filters - used)
    return slots


def _sorted_by_chunk(nonzero: Counts, rounds: Rounds) -> Counts:
    """Return which place of a round lies in each slot, ranked anew in each chunk where paired.

    Of values that are not zero, (parts, rounds, chunks, places); the same shape.
    """
    places = nonzero.shape[3]
    there = (np.arange(places) < rounds.filters[:, None])[:, None]
    unpaired = (rounds.filters == rounds.used)[:, None, None]
    counts = np.where(there, nonzero, -1)
    ranked = np.argsort(np.where(unpaired, 0, -counts), axis=3, kind="stable")
    slots = np.array([_paired(*pair, places) for pair in zip(*rounds, strict=True)])
    return np.take_along_axis(ranked, np.broadcast_to(slots[:, None], ranked.shape), axis=3)


def _paired(filters: int, used: int, slots: int) -> Counts:
    """Return which place of a ranking lies in each slot of one round."""
    found = np.zeros(slots, np.int64)
    found[:used] = np.arange(used)
    found[used:filters] = np.arange(filters - 1, used - 1, -1)
    return found


def ones(streams: Words) -> Counts:
    """Return how many values of each stream are not zero, (.., words) as (..)."""
    flat = streams.reshape(-1, streams.shape[-1])
    found = np.empty(len(flat), np.int64)
    at_once = max(1, MOST_WORDS // flat.shape[1])
    for first in range(0, len(flat), at_once):
        some = slice(first, first + at_once)
        found[some] = np.bitwise_count(flat[some]).sum(axis=1, dtype=np.int64)
    return found.reshape(streams.shape[:-1])


def pack(values: Mask) -> Words:
    """Return the last axis as words: (.., n) as (.., ceil(n/64)), value i in bit i."""
    octets = np.packbits(values, axis=-1, bitorder="little")
    filled = np.zeros((*values.shape[:-1], -(-values.shape[-1] // WORD) * 8), np.uint8)
    filled[..., : octets.shape[-1]] = octets
    return filled.view("<u8").astype(np.uint64, copy=False)


def _convolution(conv: Convolution) -> Pass:
    k, c, r, s = conv.weight.shape
    filters = k // conv.groups

    def filter_streams(parts: range) -> Words:
        words = np.empty((len(parts) * filters, -(-(r * s * c) // WORD)), np.uint64)
        own = conv.weight[parts.start * filters : parts.stop * filters]
        at_once = max(1, MOST_VALUES // (r * s * c))
        for first in range(0, len(own), at_once):
            some = own[first : first + at_once].transpose(0, 2, 3, 1)
            words[first : first + at_once] = pack(some.reshape(len(some), -1))
        return words.reshape(len(parts), filters, -1)

    return Pass(
        parts=conv.groups,
        windows=conv.samples * conv.output[0] * conv.output[1],
        filters=filters,
        length=r * s * c,
        window_streams=partial(_windows_of_samples, conv),
        filter_streams=filter_streams,
        wanted=None if conv.wanted is None else partial(_wanted_of_samples, conv, conv.wanted),
    )


def _rectangles(conv: Convolution, groups: int) -> Iterator[tuple[range, range]]:
    """Yield rows and columns of outputs: whole rows, or parts of one, as many as are held."""
    values = conv.weight.shape[1] * conv.weight.shape[2] * conv.weight.shape[3]
    most = MOST_WORDS // (groups * -(-values // WORD))
    if conv.wanted is not None:
        most = min(most, MOST_VALUES // (groups * len(conv.weight) // conv.groups))
    rows, columns = max(1, most // conv.output[1]), max(1, min(most, conv.output[1]))
    for p in range(0, conv.output[0], rows):
        for q in range(0, conv.output[1], columns):
            ends = min(p + rows, conv.output[0]), min(q + columns, conv.output[1])
            yield range(p, ends[0]), range(q, ends[1])


def _wanted_of_samples(conv: Convolution, outputs: Mask, parts: range) -> Iterator[Mask]:
    """Yield which outputs of some of a sample's windows are wanted: (parts, windows, filters)."""
    filters = len(conv.weight) // conv.groups
    for sample in outputs:
        own = sample[parts.start * filters : parts.stop * filters]
        for p, q in _rectangles(conv, len(parts)):
            some = own[:, p.start : p.stop, q.start : q.stop]
            yield some.reshape(len(parts), filters, -1).swapaxes(1, 2)


def _windows_of_samples(conv: Convolution, parts: range) -> Iterator[Words]:
    """Yield some of a sample's windows, sample by sample."""
    depth = conv.weight.shape[1]
    for sample in range(conv.samples):
        some = slice(parts.start * depth, parts.stop * depth)
        own = conv.data(slice(sample, sample + 1), some)[0]
        for p, q in _rectangles(conv, len(parts)):
            yield _windows(conv, own, len(parts), p, q)


def _windows(conv: Convolution, sample: Mask, groups: int, p: range, q: range) -> Words:
    """Return windows of one sample: channels are packed first, then gathered tap by tap."""
    _, c, r, s = conv.weight.shape
    origin, inside = [0, 0], [slice(0), slice(0)]
    for axis, some in enumerate((p, q)):  # nothing is packed that these don't read
        first = conv.origin[axis] + some.start * conv.stride[axis]
        span = (len(some) - 1) * conv.stride[axis] + ((r, s)[axis] - 1) * conv.dilation[axis] + 1
        begin, end = (min(max(at, 0), sample.shape[1 + axis]) for at in (first, first + span))
        origin[axis], inside[axis] = first - begin, slice(begin, end)
    streams = np.zeros((groups, len(p), len(q), -(-(r * s * c) // WORD)), np.uint64)
    packed = pack_channels(read_only(sample[:, *inside]), groups)
    at = origin[0], origin[1]
    gather(packed, c, (r, s), conv.stride, conv.dilation, at, streams)
    return streams.reshape(groups, -1, streams.shape[-1])


def _wgrad(op: LoweredOp) -> Pass:
    layer, grad_out = op.layer, as_4d(op.grad_out)
    parts, filters = op.samples * layer.groups, layer.K // layer.groups
    positions = layer.P * layer.Q
    grads = grad_out.reshape(parts, filters, positions)
    return Pass(
        parts=parts,
        windows=layer.R * layer.S * (layer.C // layer.groups),
        filters=filters,
        length=positions,
        window_streams=partial(_taps, op),
        filter_streams=lambda some: pack(grads[some.start : some.stop]),
        wanted=None if op.output is None else partial(_wanted_weights, op),
    )


def _channels(op: LoweredOp, parts: int) -> Iterator[range]:
    """Yield the channels of a group in order, as many as are held."""
    layer = op.layer
    channels, taps = layer.C // layer.groups, layer.R * layer.S
    words = max(-(-layer.P * layer.Q // WORD), layer.H * -(-layer.Q // WORD) // layer.R)
    most = MOST_WORDS // (parts * taps * words)
    if op.output is not None:
        most = min(most, MOST_VALUES // (parts * taps * layer.K // layer.groups))
    for first in range(0, channels, max(1, most)):
        yield range(first, min(first + max(1, most), channels))


def _wanted_weights(op: LoweredOp, parts: range) -> Iterator[Mask]:
    """Yield which weight gradients are wanted, the same of each sample."""
    groups = op.layer.groups
    own = as_4d(op.output).reshape(groups, op.layer.K // groups, op.layer.C // groups, -1)
    for channels in _channels(op, len(parts)):
        of_parts = own[[part % groups for part in parts], :, channels.start : channels.stop]
        yield of_parts.reshape(len(parts), own.shape[1], -1).swapaxes(1, 2)


def _taps(op: LoweredOp, parts: range) -> Iterator[Words]:
    """Yield what each tap of some channels meets: rows are packed first, then put together."""
    layer, act = op.layer, as_4d(op.act)
    each, words = layer.C // layer.groups, -(-layer.P * layer.Q // WORD)
    for channels in _channels(op, len(parts)):
        shape = (len(parts), len(channels), layer.R, layer.S, words)
        streams = np.zeros(shape, np.uint64)
        at_once = layer.groups if len(channels) == each else 1  # whole groups lie together
        for part in _parts_of_samples(parts, layer.groups, at_once):
            sample, group = divmod(part.start, layer.groups)
            first = group * each + channels.start
            own = act[sample, first : first + len(part) * len(channels)]
            _fill_taps(layer, own, streams[part.start - parts.start : part.stop - parts.start])
        yield streams.reshape(len(parts), -1, words)


def _parts_of_samples(parts: range, groups: int, most: int) -> Iterator[range]:
    """Yield parts in order, at most so many that are of one sample."""
    at = parts.start
    while at < parts.stop:
        end = min(at + most, at - at % groups + groups, parts.stop)
        yield range(at, end)
        at = end


def _fill_taps(layer: Layer, sample: Mask, streams: Words) -> None:
    (stride_h, stride_w), (dilation_h, dilation_w) = layer.stride, layer.dilation
    (before_h, _), (before_w, _) = layer.padding
    packed = pack_rows(read_only(sample), layer.S, stride_w, dilation_w, -before_w, layer.Q)
    gather_rows(packed, (layer.P, layer.Q), stride_h, dilation_h, -before_h, streams)
