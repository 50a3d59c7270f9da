"""Parts of an op run with queues before the banks; and such whose channels or positions are alike.

With queues a channel is not like the one before even if all their values are: it finds other
queues. But what it takes, and how it leaves them, depends on no more than how it found them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from swatsim.simulator.machines.cartesian import (
    kernel_queued,
    kernel_wanted,
    kernel_wgrad_queued,
)
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.groups import Planar
from swatsim.simulator.machines.cartesian.kernel import PixelLog, Work
from swatsim.simulator.machines.cartesian.kernel_banks import BANKS
from swatsim.simulator.machines.cartesian.kernel_patterns import Bits, Counts, Words
from swatsim.simulator.machines.cartesian.kernel_queue import words_of_queues
from swatsim.simulator.machines.cartesian.kernel_queued import Plane
from swatsim.simulator.machines.cartesian.kernel_wgrad import Outer


def added(works: Iterable[Work]) -> Work:
    """Return the sum of what several parts take."""
    none = np.zeros((0, 0), np.int64)
    total = Work(0, none, 0, 0, none, 0, 0)
    for work in works:
        total = Work._make(_plus(*of) for of in zip(total, work, strict=True))
    return total


def _plus(total: Any, of: Any) -> Any:
    """Return the sum; of what PEs take, the first rows and columns of either are the same."""
    if not isinstance(of, np.ndarray):
        return int(total) + int(of)
    if total.shape == of.shape:
        return total + of
    size = [max(sides) for sides in zip(total.shape, of.shape, strict=True)]
    added_up = np.zeros(size, np.int64)
    for one in (total, of):
        added_up[: one.shape[0], : one.shape[1]] += one
    return added_up


def convolve(part: Planar, log: PixelLog | None = None) -> Work:
    """Run one group's convolution, drains included; a log has them after all other steps.

    Without queues it takes a part of which not all outputs are wanted.
    """
    queues = _empty(part)
    logs = () if log is None else (log,)  # so that it is compiled without one
    work = _run(part, queues, *logs)
    if not part.array.queue:
        return work
    return added([work, kernel_queued.drain(queues, part.array, *logs)])


def convolve_in_turn(pieces: Iterable[Planar]) -> Work:
    """Run the channels of some samples and chunks, piece by piece; then their drain.

    Where not all outputs are wanted that is slow: of a piece channels that are alike run once.
    """
    queues, works = None, []
    for piece in pieces:
        queues = _empty(piece) if queues is None else queues
        kinds = None if piece.wanted is None else _kinds(piece)
        if kinds is None or len(set(kinds)) == len(kinds):
            works.append(_run(piece, queues))
            continue
        ones = {
            kind: replace(piece, data=piece.data[c : c + 1], weight=piece.weight[c : c + 1])
            for c, kind in enumerate(kinds)
        }
        work, queues = _run_alike(ones, kinds, queues)
        works.append(work)
    assert queues is not None, "a block has channels"
    return added([*works, kernel_queued.drain(queues, piece.array)])


def _kinds(piece: Planar) -> list[Hashable]:
    pairs = zip(piece.data, piece.weight, strict=True)
    return [kind_of(data, weight) for data, weight in pairs]


def kind_of(data: Bits, weight: Bits) -> Hashable:
    """Return what tells a channel from those with other values."""
    laid = map(np.ascontiguousarray, (data, weight))
    return tuple(blake2b(it.data, digest_size=16).digest() for it in laid)


def _run(part: Planar, queues: Words, *logs: PixelLog) -> Work:
    """Run one group's convolution, and leave in the queues what is in them in the end."""
    plane = Plane(part.rows, part.columns, part.array)
    run = part.data, part.weight, part.first_k, plane, queues
    if part.wanted is None:
        return kernel_queued.convolve_queued(*run, *logs)
    return kernel_wanted.convolve_wanted(*run, part.wanted, *logs)


def convolve_alike(ones: Mapping[Hashable, Planar], order: Iterable[Hashable]) -> Work:
    """Run the channels of one chunk of filters, in an order, each like one of `ones`."""
    first = next(iter(ones.values()))
    work, queues = _run_alike(ones, order, _empty(first))
    return added([work, kernel_queued.drain(queues, first.array)])


def _run_alike(
    ones: Mapping[Hashable, Planar], order: Iterable[Hashable], queues: Words
) -> tuple[Work, Words]:
    """Return what channels take, and what they leave in the queues."""
    seen: dict[tuple[Hashable, bytes], tuple[Work, Words]] = {}
    times: Counter[tuple[Hashable, bytes]] = Counter()
    for kind in order:
        found = kind, queues.tobytes()
        if found not in seen:
            after = queues.copy()
            seen[found] = _run(ones[kind], after), after
        times[found] += 1
        queues = seen[found][1]
    return added(_times(work, times[found]) for found, (work, _) in seen.items()), queues


def _empty(part: Planar) -> Words:
    """Return the queues of all chunks and PEs of all samples, before anything is in them."""
    array = part.array
    chunks = -(-part.weight.shape[1] // array.chunk)
    parts = part.data.shape[1] * array.pe_h * array.pe_w
    return np.zeros((chunks, parts, words_of_queues(array.queue, BANKS)), np.uint64)


class Alike(NamedTuple):
    """A wgrad whose channels hold the same at every position that a tap meets.

    Parameters
    ----------
    act, grad : Outer
        Of one position.
    blocks : pair of int
        Blocks of input channels and of out-channels.
    positions : Counter of int
        How many taps meet so many positions.
    """

    act: Outer
    grad: Outer
    blocks: tuple[int, int]
    positions: Counter[int]


def outer_alike(alike: Alike, products: Words, config: CartesianConfig) -> Work:
    """Return the cycles of a wgrad; how many pairs and words there are does not depend on queues.

    ``products[act, grad, word]`` is what each pair of block patterns feeds into the banks.
    """
    depth, ends = config.bank_queue, sorted(alike.positions)
    acts, grads = (_blocks(it, n) for it, n in zip(alike[:2], alike.blocks, strict=True))
    seen = {
        (a, g): kernel_wgrad_queued.issue_alike(
            np.array(a, np.int16), np.array(g, np.int16), products, depth, np.array(ends)
        )
        for a in set(acts)
        for g in set(grads)
    }
    works = []
    for end, positions in enumerate(ends):
        spent, left = (
            np.array([[seen[a, g][kind][end] for g in grads] for a in acts]) for kind in (0, 1)
        )
        works += [_times(work, alike.positions[positions]) for work in _rounds(spent, left, config)]
    return added(works)


def _blocks(queued: Outer, blocks: int) -> list[tuple[int, ...]]:
    ends = queued.starts[: blocks + 1].tolist()
    return [tuple(queued.patterns[a:b].tolist()) for a, b in pairwise(ends)]


def _rounds(spent: Counts, left: Counts, config: CartesianConfig) -> Iterator[Work]:
    """Yield the step and the drain of each round, of what each pair of channel blocks takes."""
    for i in range(0, spent.shape[0], config.pe_h):
        for j in range(0, spent.shape[1], config.pe_w):
            here = slice(i, i + config.pe_h), slice(j, j + config.pe_w)
            waits = spent[here].max() - spent[here]
            # who waits for the slowest goes on retiring
            for taken in (spent[here], np.maximum(left[here] - waits, 0)):
                slowest = int(taken.max())
                yield Work(slowest, taken, 0, 0, np.full_like(taken, slowest), 0, 0)


def _times(work: Work, times: int) -> Work:
    return Work._make(times * n for n in work)
