"""Weights cut into tiles of so many filters by so many channels, group by group and tap by tap."""

from __future__ import annotations

import math

from swatsim.policies.arrays import Array, namespace
from swatsim.workload.layer import CHANNEL_AXIS, Kind


def by_group(weights: Array, groups: int) -> Array:
    """Return a view of weights as (groups, ..): the first axis has one group after another."""
    first, *rest = weights.shape
    return namespace(weights).reshape(weights, (groups, first // groups, *rest))


def grouped(values: Array, m: int) -> Array:
    """Return the last axis cut into groups of m, the last one filled up with zeros."""
    xp = namespace(values)
    missing = -values.shape[-1] % m
    if missing:
        shape = (*values.shape[:-1], missing)
        zeros = xp.zeros(shape, dtype=values.dtype, device=values.device)
        values = xp.concat([values, zeros], axis=-1)
    return xp.reshape(values, (*values.shape[:-1], values.shape[-1] // m, m))


def cut(weights: Array, rows: int, columns: int, kind: Kind, groups: int) -> Array:
    """Return weights as tiles, filled up with zeros at the edges of each group.

    Parameters
    ----------
    weights : array (K, C/groups, ..), of a transposed convolution (C, K/groups, ..)
    rows, columns : int
        Filters and channels of a tile.
    kind : Kind
    groups : int

    Returns
    -------
    array (groups, taps, K/groups/rows, C/groups/columns, rows, columns)
    """
    xp = namespace(weights)
    split = by_group(weights, groups)
    moved = xp.moveaxis(split, _axes(kind), (-2, -1))  # groups, .., K, C
    planes = xp.reshape(moved, (groups, math.prod(moved.shape[1:-2]), *moved.shape[-2:]))
    wide = grouped(planes, columns)  # groups, taps, K, C/columns, columns
    tall = grouped(xp.moveaxis(wide, 2, -1), rows)  # .., C/columns, columns, K/rows, rows
    return xp.permute_dims(tall, (0, 1, 4, 2, 5, 3))


def fitting(weights: Array, rows: int, columns: int, kind: Kind, groups: int) -> tuple[int, int]:
    """Return the sides of a tile, none longer than a group of a layer: what is there is as much."""
    K, C = (by_group(weights, groups).shape[axis] for axis in _axes(kind))
    return max(1, min(rows, K)), max(1, min(columns, C))


def joined(tiles: Array, like: Array, kind: Kind, groups: int) -> Array:
    """Return tiles as `cut` made them of weights, in the shape of these weights."""
    xp = namespace(tiles)
    K, C = (by_group(like, groups).shape[axis] for axis in _axes(kind))
    n, taps, k, c, rows, columns = tiles.shape
    whole = xp.reshape(xp.moveaxis(tiles, 3, 4), (n, taps, k * rows, c * columns))[..., :K, :C]
    moved = xp.reshape(whole, (groups, *like.shape[2:], K, C))
    return xp.reshape(xp.moveaxis(moved, (-2, -1), _axes(kind)), like.shape)


def _axes(kind: Kind) -> tuple[int, int]:
    """Return the axes of the filters and of the channels of weights by group."""
    return 2 - CHANNEL_AXIS[kind], 1 + CHANNEL_AXIS[kind]


def by_filter(weights: Array, kind: Kind, groups: int) -> Array:
    """Return weights as (K, fan-in): a row for each filter of the layer, group by group."""
    xp = namespace(weights)
    moved = xp.moveaxis(by_group(weights, groups), _axes(kind)[0], 1)
    rows = math.prod(moved.shape[:2])
    return xp.reshape(moved, (rows, math.prod(moved.shape[2:])))


def from_filters(rows: Array, like: Array, kind: Kind, groups: int) -> Array:
    """Return rows as `by_filter` made them of weights, in the shape of these weights."""
    xp, axis = namespace(rows), _axes(kind)[0]
    shape = list(by_group(like, groups).shape)
    filters = shape.pop(axis)
    moved = xp.reshape(rows, (groups, filters, *shape[1:]))
    return xp.reshape(xp.moveaxis(moved, 1, axis), like.shape)
