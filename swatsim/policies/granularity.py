"""What survives together: single values, blocks, N of each M, or these in V:N:M.

A granularity is a function of scores (at least 0), a density, and of weights the layer's kind and
groups, and marks what survives: of equal scores what comes first, and never what has a score of 0.
A block's score is the sum of its values'; it survives whole, with its zeros. Weights are
(K, C/groups, R, S) or (K, C), of a transposed convolution (C, K/groups, R, S); activations and
gradients (N, ...), and lie as a plain convolution's whatever the layer. Speaks convolution letters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from typing import Literal, TypeAlias

from swatsim.errors import unknown
from swatsim.policies.arrays import Array, fold, namespace
from swatsim.policies.tiles import by_group, cut, fitting, grouped, joined
from swatsim.policies.topk import topk_mask
from swatsim.workload.layer import CHANNEL_AXIS, Kind

#: How many channels of a tile V:N:M leaves: those of which a sparse tensor core takes 2.
COLUMNS = 4
Granularity: TypeAlias = Callable[[Array, Fraction, Kind, int], Array]


def element(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
    """Return a mask of single values of the whole tensor: ceil(density * values) of them."""
    return topk_mask(scores, math.ceil(density * math.prod(scores.shape)))


def marked(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
    """Return a mask of all that has a score, however many: for scores that are a choice already."""
    return scores > 0


def sample(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
    """Return a mask of single values, equally many in each sample (row of a linear layer).

    Of a weight in each filter: what makes one output channel.
    """
    xp = namespace(scores)
    split, axis = by_group(scores, groups), 2 - CHANNEL_AXIS[kind]
    each = xp.moveaxis(split, axis, 1)  # group, filter, ..
    marks = xp.zeros_like(each, dtype=xp.bool)
    k = math.ceil(density * math.prod(each.shape[2:]))
    for at in product(*map(range, each.shape[:2])):
        marks[at] = topk_mask(each[at], k)
    return xp.reshape(xp.moveaxis(marks, 1, axis), scores.shape)


def position(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
    """Return a mask that is the same for all samples: the largest sums over the batch.

    Of a weight the same in all filters of a group: a tap of a channel, of which a grouped layer has
    as many as its groups together.
    """
    split, filters = by_group(scores, groups), 2 - CHANNEL_AXIS[kind]
    axes = tuple(axis for axis in range(split.ndim) if axis != filters)
    return namespace(scores).reshape(_blocks(split, density, axes), scores.shape)


def filter(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
    """Return a mask of whole filters of a weight: all that makes one output channel."""
    return _slices(scores, density, 1 - CHANNEL_AXIS[kind], groups)


def channel(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
    """Return a mask of whole channels: of a weight in all filters, else in all samples.

    A grouped layer has as many as its groups together: each group's filters read their own.
    """
    return _slices(scores, density, CHANNEL_AXIS[kind], groups)


def kernel(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
    """Return a mask of whole R x S kernels of a weight. Of a matrix they are single values."""
    return _blocks(scores, density, (0, 1))


#: What a user calls them.
GRANULARITIES: dict[str, Granularity] = {
    one.__name__: one for one in (element, sample, position, filter, channel, kernel)
}


def granularity(name: str) -> Granularity:
    """Return the granularity of a name.

    Raises
    ------
    ValueError
        If there is none of that name; ``N:M``, such as 2:4, ``V:N:M``, such as 64:2:8, and
        ``block:KxC``, such as block:32x32, are.
    """
    if pattern := _pattern(name):
        return v_n_m(*pattern) if pattern[0] else n_of_m(*pattern[1:])
    if sides := _sides(name):
        return block(*sides)
    if name not in GRANULARITIES:
        named = [*GRANULARITIES, "N:M", "V:N:M", "block:KxC"]
        raise ValueError(unknown("granularity", name, named))
    return GRANULARITIES[name]


def of_weights(name: str) -> bool:
    """Whether a granularity is one of weights only."""
    pattern = _pattern(name)
    return name in ("filter", "kernel") or bool(_sides(name)) or bool(pattern and pattern[0])


def _sides(name: str) -> tuple[int, int] | None:
    """Return the filters and channels of a block, of a name such as ``block:32x32``."""
    match = re.fullmatch(r"block:(\d{1,4})x(\d{1,4})", name, re.ASCII)
    rows, columns = (int(number) for number in match.groups()) if match else (0, 0)
    return (rows, columns) if rows and columns else None


def n_and_m(name: str) -> tuple[int, int] | None:
    """Return N and M of a name such as ``2:4`` or ``64:2:8``; None if it is another."""
    return pattern[1:] if (pattern := _pattern(name)) else None


def _pattern(name: str) -> tuple[int, int, int] | None:
    """Return V, N and M of a name; V is 0 where there is none."""
    match = re.fullmatch(r"(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9})", name, re.ASCII)
    if not match:
        return None
    v, n, m = (int(number or 0) for number in match.groups())
    fits = 1 <= n <= m and (match[1] is None or (v >= 1 and n <= COLUMNS <= m))
    return (v, n, m) if fits else None


def n_of_m(n: int, m: int, along: Literal["C", "K"] = "C") -> Granularity:
    """Return the granularity of n survivors in each m values that follow each other along an axis.

    Where m does not divide the channels (or, of a weight along K, the filters) of a group of the
    layer, the last m are fewer, and keep at most n as well: none lie across two groups.
    """

    def mark(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
        xp = namespace(scores)
        split = by_group(scores, groups)
        axis = 1 + CHANNEL_AXIS[kind] if along == "C" else 2 - CHANNEL_AXIS[kind]
        channels = split.shape[axis]
        parts = grouped(xp.moveaxis(split, axis, -1), min(m, channels))
        survivors = largest_along(parts, n) & (parts != 0)
        marks = xp.reshape(survivors, (*parts.shape[:-2], math.prod(parts.shape[-2:])))
        marks = marks[..., :channels]
        return xp.reshape(xp.moveaxis(marks, -1, axis), scores.shape)

    return mark


def v_n_m(v: int, n: int, m: int) -> Granularity:
    """Return the granularity of tiles of v filters x m channels, of which COLUMNS channels stay.

    Those of the largest sum of scores; of them each filter keeps n. Of a weight only, each tap by
    itself; what is at the edge of a group is a tile of its own, with at most as many.
    """

    def mark(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
        xp = namespace(scores)
        tiles = cut(scores, *fitting(scores, v, m, kind, groups), kind, groups)
        left = largest_along(fold(tiles, -2), COLUMNS)[..., None, :]
        rest = xp.where(left, tiles, xp.zeros_like(tiles))
        return joined(largest_along(rest, n) & (rest != 0), scores, kind, groups)

    return mark


def block(rows: int, columns: int) -> Granularity:
    """Return the granularity of whole blocks of rows filters x columns channels, tap by tap.

    Those of the largest sum of scores; of equal ones that of the first filters, then of the first
    channels, then of the first tap, group by group. Of a weight only. What is at the edge of a
    group is a block of its own, and counts as one.
    """

    def mark(scores: Array, density: Fraction, kind: Kind, groups: int = 1) -> Array:
        xp = namespace(scores)
        tiles = cut(scores, *fitting(scores, rows, columns, kind, groups), kind, groups)
        sums = fold(xp.reshape(tiles, (*tiles.shape[:4], math.prod(tiles.shape[4:]))))
        in_order = xp.moveaxis(sums, 1, -1)  # taps last
        marks = topk_mask(in_order, math.ceil(density * math.prod(in_order.shape)))
        whole = xp.moveaxis(marks, -1, 1)[..., None, None]
        return joined(xp.broadcast_to(whole, tiles.shape), scores, kind, groups)

    return mark


def largest_along(values: Array, n: int | Array) -> Array:
    """Return a mask of the n largest along the last axis; of equal ones the first.

    `n` may be an array, of one number for each row.
    """
    xp = namespace(values)
    order = xp.argsort(values, axis=-1, descending=True, stable=True)  # a NaN comes first
    return xp.argsort(order, axis=-1) < n


def share_of(n: int, m: int, channels: int) -> Fraction:
    """Return the share of the channels that survives n of each m."""
    whole, rest = divmod(channels, m)
    return Fraction(n * whole + min(n, rest), channels)


def _slices(scores: Array, density: Fraction, axis: int, groups: int) -> Array:
    """Return a mask of whole slices along an axis, of each group its own."""
    split = by_group(scores, groups)
    return namespace(scores).reshape(_blocks(split, density, (0, 1 + axis)), scores.shape)


def _blocks(scores: Array, density: Fraction, axes: tuple[int, ...]) -> Array:
    """Return a mask of whole blocks, one for each index of `axes`, by the sum of their scores."""
    xp = namespace(scores)
    others = [axis for axis in range(scores.ndim) if axis not in axes]
    if not others:
        return element(scores, density, "conv")
    block_counts = [scores.shape[axis] for axis in axes]
    size = math.prod(scores.shape[axis] for axis in others)
    flat = xp.reshape(xp.permute_dims(scores, (*axes, *others)), (*block_counts, size))
    norms = fold(flat)
    marks = topk_mask(norms, math.ceil(density * math.prod(block_counts)))
    shape = [scores.shape[axis] if axis in axes else 1 for axis in range(scores.ndim)]
    return xp.broadcast_to(xp.reshape(marks, tuple(shape)), scores.shape)
