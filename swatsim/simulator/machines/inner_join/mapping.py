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
    window_streams : callable returning an iterator of numpy.ndarray of uint64
        Shape (parts, some windows, words): in order, together all of them.
    filter_streams : callable returning numpy.ndarray of uint64, shape (parts, filters, words)
    wanted : callable returning an iterator of numpy.ndarray of bool, optional
        Shape (parts, some windows, filters): with the window streams, of which windows and filters
        the outputs are wanted. By default all.
    """

    parts: int
    windows: int
    filters: int
    length: int
    window_streams: Callable[[], Iterator[Words]]
    filter_streams: Callable[[], Words]
    wanted: Callable[[], Iterator[Mask]] | None = None

    def windows_and_wanted(self) -> Iterator[tuple[Words, Mask | None]]:
        """Yield window streams, each with what is wanted of it."""
        if self.wanted is None:
            yield from ((windows, None) for windows in self.window_streams())
        else:
            yield from zip(self.window_streams(), self.wanted(), strict=True)


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


def hold(streams: Words, rounds: Rounds, config: InnerJoinConfig) -> Held:
    """Lay filters (parts, filters, words) into slots, round by round."""
    words = config.chunk // WORD
    chunks = -(-streams.shape[2] // words)
    filled = np.zeros((*streams.shape[:2], chunks * words), np.uint64)
    filled[..., : streams.shape[2]] = streams
    cut = filled.reshape(*streams.shape[:2], chunks, words)
    filters = _slots(cut, rounds, config.balancing)
    group = np.arange(len(streams))[:, None, None, None]
    chunk = np.arange(chunks)[:, None]
    laid = cut[group, filters, chunk]  # (parts, rounds, chunks, slots, words)
    by_chunk = config.balancing is Balancing.GREEDY_HARDWARE
    return Held(np.ascontiguousarray(laid.swapaxes(3, 4)), filters, by_chunk)


def _slots(cut: Words, rounds: Rounds, balancing: Balancing) -> Counts:
    """Return the filters in the slots: (parts, rounds, chunks, slots)."""
    parts, filters, chunks, _ = cut.shape
    nonzero = np.bitwise_count(cut).sum(axis=3, dtype=np.int64)  # (parts, filters, chunks)
    match balancing:
        case Balancing.NONE:
            order = np.arange(filters)[None, _by_index(rounds)][..., None, :]
        case Balancing.GREEDY_SOFTWARE:
            ranked = np.argsort(-nonzero.sum(axis=2), axis=1, kind="stable")
            order = ranked[:, _from_both_ends(rounds)][..., None, :]
        case Balancing.GREEDY_HARDWARE:
            order = _sorted_by_chunk(nonzero, rounds)
    return np.broadcast_to(order, (parts, len(rounds.filters), chunks, order.shape[-1]))


def _by_index(rounds: Rounds) -> Counts:
    """Return which filter by index lies at each place of a round: (rounds, places)."""
    most = int(rounds.filters.max())
    places = np.arange(len(rounds.filters))[:, None] * most + np.arange(most)
    return np.asarray(np.minimum(places, rounds.filters.sum() - 1))


def _from_both_ends(rounds: Rounds) -> Counts:
    """Return which filter of a ranking lies in each slot, the rounds taking from both its ends."""
    slots = np.zeros((len(rounds.filters), int(rounds.filters.max())), np.int64)
    first, end = 0, int(rounds.filters.sum())
    for row, filters, used in zip(slots, rounds.filters, rounds.used, strict=True):
        row[:used] = np.arange(first, first + used)
        row[used:filters] = np.arange(end - 1, end - 1 - (filters - used), -1)
        first, end = first + used, end - (filters - used)
    return slots


def _sorted_by_chunk(nonzero: Counts, rounds: Rounds) -> Counts:
    """Return the filters in the slots, each round ranked anew in each chunk where it is paired."""
    places = _by_index(rounds)
    there = np.arange(places.shape[1]) < rounds.filters[:, None]
    counts = np.where(there[..., None], nonzero[:, places], -1)  # (parts, rounds, places, chunks)
    unpaired = (rounds.filters == rounds.used)[:, None, None]
    ranked = np.argsort(np.where(unpaired, 0, -counts), axis=2, kind="stable")
    slots = np.array([_paired(*pair, places.shape[1]) for pair in zip(*rounds, strict=True)])
    row = np.arange(len(places))[:, None]
    laid = ranked[:, row, slots]  # (parts, rounds, slots, chunks)
    return np.asarray(places[row[..., None], laid]).swapaxes(2, 3)


def _paired(filters: int, used: int, slots: int) -> Counts:
    """Return which place of a ranking lies in each slot of one round."""
    found = np.zeros(slots, np.int64)
    found[:used] = np.arange(used)
    found[used:filters] = np.arange(filters - 1, used - 1, -1)
    return found


def pack(values: Mask) -> Words:
    """Return the last axis as words: (.., n) as (.., ceil(n/64)), value i in bit i."""
    octets = np.packbits(values, axis=-1, bitorder="little")
    filled = np.zeros((*values.shape[:-1], -(-values.shape[-1] // WORD) * 8), np.uint8)
    filled[..., : octets.shape[-1]] = octets
    return filled.view("<u8").astype(np.uint64, copy=False)


def _convolution(conv: Convolution) -> Pass:
    k, c, r, s = conv.weight.shape
    filters = conv.weight.transpose(0, 2, 3, 1).reshape(conv.groups, k // conv.groups, -1)
    return Pass(
        parts=conv.groups,
        windows=len(conv.data) * conv.output[0] * conv.output[1],
        filters=k // conv.groups,
        length=r * s * c,
        window_streams=lambda: (_windows(conv, sample) for sample in conv.data),
        filter_streams=lambda: pack(filters),
        wanted=None if conv.wanted is None else partial(_wanted_of_samples, conv, conv.wanted),
    )


def _wanted_of_samples(conv: Convolution, outputs: Mask) -> Iterator[Mask]:
    """Yield which outputs of a sample are wanted: (groups, windows, filters)."""
    for sample in outputs:
        yield sample.reshape(conv.groups, len(sample) // conv.groups, -1).swapaxes(1, 2)


def _windows(conv: Convolution, sample: Mask) -> Words:
    """Return one sample's windows: channels are packed first, then gathered tap by tap."""
    _, c, r, s = conv.weight.shape
    words = -(-(r * s * c) // WORD)
    streams = np.zeros((conv.groups, *conv.output, words), np.uint64)
    packed = pack_channels(read_only(sample), conv.groups)
    gather(packed, c, (r, s), conv.stride, conv.dilation, conv.origin, streams)
    return streams.reshape(conv.groups, -1, words)


def _wgrad(op: LoweredOp) -> Pass:
    layer, act, grad_out = op.layer, as_4d(op.act), as_4d(op.grad_out)
    parts, filters = op.samples * layer.groups, layer.K // layer.groups
    positions = layer.P * layer.Q
    return Pass(
        parts=parts,
        windows=layer.R * layer.S * (layer.C // layer.groups),
        filters=filters,
        length=positions,
        window_streams=lambda: iter([_taps(layer, act)]),
        filter_streams=lambda: pack(grad_out.reshape(parts, filters, positions)),
        wanted=None if op.output is None else partial(_wanted_weights, op),
    )


def _wanted_weights(op: LoweredOp) -> Iterator[Mask]:
    """Yield which weight gradients are wanted, the same of each sample."""
    own = as_4d(op.output).reshape(op.layer.groups, op.layer.K // op.layer.groups, -1)
    every = np.broadcast_to(own.swapaxes(1, 2), (op.samples, len(own), own.shape[2], own.shape[1]))
    yield every.reshape(-1, *every.shape[2:])


def _taps(layer: Layer, act: Mask) -> Words:
    """Return what each tap of each channel meets: rows are packed first, then put together."""
    channels, words = layer.C // layer.groups, -(-layer.P * layer.Q // WORD)
    shape = (len(act), layer.groups, channels, layer.R, layer.S, words)
    streams = np.zeros(shape, np.uint64)
    (stride_h, stride_w), (dilation_h, dilation_w) = layer.stride, layer.dilation
    (before_h, _), (before_w, _) = layer.padding
    for sample, own in zip(act, streams, strict=True):
        row = (layer.S, stride_w, dilation_w, -before_w, layer.Q)
        packed = pack_rows(read_only(sample), *row)
        gather_rows(packed, (layer.P, layer.Q), stride_h, dilation_h, -before_h, own)
    return streams.reshape(len(act) * layer.groups, -1, words)
