"""The blocks that are tried for an op: they depend on its loops, and on no mask.

Legend of dimensions: m candidates for groups, filters and channels, n for rows, o for loop orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from swatsim.simulator.memory.config import ORDERS, MemoryConfig
from swatsim.simulator.memory.kernel import Counts
from swatsim.simulator.memory.pipeline import LACKS
from swatsim.simulator.memory.tensors import (
    ACT,
    GRAD_OUT,
    WEIGHT,
    Cuts,
    Shape,
    cut_channels,
    cut_rows,
)

#: Loops by their letters.
LOOPS = "KCN"
#: Of an axis up to so long all extents are looked at.
SHORT = 32
#: No axis is cut into more blocks, unless a user asks for it: half of what is simulated of an op.
MOST_CUT = 2**20


@dataclass(frozen=True, eq=False)
class Candidates:
    """What is tried.

    Parameters
    ----------
    gkc : numpy.ndarray of int64, shape (m, 3)
        Groups, filters, channels; descending.
    n : numpy.ndarray of int64, shape (n,)
        Rows; descending.
    orders : tuple of str
    rows, columns : tuple of Cuts
        Of the tables of weight, act and grad_out.
    row, column : tuple of numpy.ndarray of int64
        Which cut in `rows` and `columns` a candidate has; shapes (m, 1), and (m, 1) or (n,).
    times : numpy.ndarray of int64, shape (3, m, n, o)
        How often each block of a tensor comes by.
    blocks : numpy.ndarray of int64, shape (m, n)
    output_elements : numpy.ndarray of int64, shape (m, n)
        Elements of the output in a block.
    output_elements_total : int
    """

    gkc: Counts
    n: Counts
    orders: tuple[str, ...]
    rows: tuple[Cuts, Cuts, Cuts]
    columns: tuple[Cuts, Cuts, Cuts]
    row: tuple[Counts, Counts, Counts]
    column: tuple[Counts, Counts, Counts]
    times: Counts
    blocks: Counts
    output_elements: Counts
    output_elements_total: int


@lru_cache(maxsize=512)
def candidates(
    shape: Shape, order: str, filters: int | str, channels: int | str, rows: int | str
) -> Candidates:
    """Return what is tried for an op: it does not depend on masks."""
    ks = _few(_descending(shape.K), shape.K, shape.groups, filters)
    cs = _few(_descending(shape.C), shape.C, shape.groups, channels)
    gkc = [(1, k, c) for k in ks for c in cs]
    if ks[0] == shape.K and cs[0] == shape.C:
        together = _few([g for g in _descending(shape.groups) if g > 1], shape.groups)
        gkc = [(g, shape.K, shape.C) for g in together] + gkc
    gk = sorted({g * k for g, k, _ in gkc}, reverse=True)
    gc = sorted({g * c for g, _, c in gkc}, reverse=True)
    n = _rows(shape, rows)
    rows_of, columns_of = cut_axes(shape, gk, gc, cs, n)
    at_gk = np.array([[gk.index(g * k)] for g, k, _ in gkc], np.int64)
    at_gc = np.array([[gc.index(g * c)] for g, _, c in gkc], np.int64)
    at_c = np.array([[cs.index(c)] for _, _, c in gkc], np.int64)
    at_n = np.arange(len(n))
    orders = ORDERS if order == "auto" else (order,)
    table, extents = np.array(gkc, np.int64), np.array(n, np.int64)
    loops = _blocks_of_loops(shape, table, extents)
    return Candidates(
        gkc=table,
        n=extents,
        orders=orders,
        rows=rows_of,
        columns=columns_of,
        row=(at_gk, at_gc, at_gk),
        column=(at_c, at_n, at_n),
        times=np.stack([times_of(loops, orders, LACKS[tensor]) for tensor in range(3)]),
        blocks=-(-shape.groups // table[:, :1]) * loops[0] * loops[1] * loops[2],
        output_elements=elements(shape, table[:, :1], table[:, 1:2], table[:, 2:], extents),
        output_elements_total=elements(
            shape, shape.groups, shape.K, shape.C, shape.rows * shape.samples
        ),
    )


Three = tuple[Cuts, Cuts, Cuts]


def given_blocks(shape: Shape, config: MemoryConfig) -> int:
    """Return the blocks that the given extents alone make, as if the others were whole."""
    blocks = 1
    for size, extent in ((shape.K, config.block_filters), (shape.C, config.block_channels)):
        blocks *= 1 if extent == "auto" else -(-size // int(extent))
    blocks *= shape.groups if blocks > 1 else 1  # only whole groups lie in a block together
    if config.block_rows != "auto":
        rows = np.array(_rows(shape, config.block_rows), np.int64)
        blocks *= int(_blocks_of_rows(shape, rows)[0])
    return blocks


def cut_axes(
    shape: Shape, filters: list[int], channels: list[int], across: list[int], rows: list[int]
) -> tuple[Three, Three]:
    """Cut rows and columns of the tables of weight, act and grad_out by each of some extents.

    `filters` and `channels` are those over groups, `across` the channels of a group.
    """
    by_filters = Cuts(partial(cut_channels, inner=shape.K, outer=shape.groups), filters)
    by_channels = Cuts(partial(cut_channels, inner=shape.C, outer=shape.groups), channels)
    of_weight = Cuts(partial(cut_channels, inner=shape.C), across)
    of_act, of_grad = (Cuts(partial(cut_rows, shape, t), rows) for t in (ACT, GRAD_OUT))
    return (by_filters, by_channels, by_filters), (of_weight, of_act, of_grad)


def elements(
    shape: Shape, g: Counts | int, k: Counts | int, c: Counts | int, n: Counts | int
) -> Any:
    """Return the elements of the output in blocks."""
    sizes = {WEIGHT: (k, c), ACT: (c, n), GRAD_OUT: (k, n)}[shape.output]
    return (
        g * sizes[0] * sizes[1] * shape.cells[shape.output] + 0 * n
    )  # of shape (m, n) in any case


def _descending(size: int) -> list[int]:
    """Return a size, and the powers of two below it."""
    return [size, *(2**i for i in reversed(range((size - 1).bit_length())))]


class Extents(NamedTuple):
    """Extents of a fine grid, each descending.

    Parameters
    ----------
    groups : list of int
        Above one: blocks of several groups have all filters and channels of each.
    filters, channels, rows : list of int
        Of blocks within a group.
    """

    groups: list[int]
    filters: list[int]
    channels: list[int]
    rows: list[int]


def fine_extents(
    shape: Shape,
    filters: int | str,
    channels: int | str,
    rows: int | str,
    of_filters: tuple[int, ...] = (),
    of_channels: tuple[int, ...] = (),
) -> Extents:
    """Return the extents that are looked at where powers of two are too coarse.

    What a user gives is the only one. `of_filters` and `of_channels` are the M of operands that are
    stored N:M along them: where no M of them are cut, they take the fewest slots.
    """
    ks = _few(fine(shape.K, of_filters), shape.K, shape.groups, filters)
    cs = _few(fine(shape.C, of_channels), shape.C, shape.groups, channels)
    whole = ks[0] == shape.K and cs[0] == shape.C
    groups = _few([g for g in fine(shape.groups) if g > 1], shape.groups) if whole else []
    if rows != "auto":
        return Extents(groups, ks, cs, _rows(shape, rows))
    # rows of a gradient that the stride cuts in whole windows touch no window twice
    strides = (shape.stride,) if shape.output == ACT else ()
    return Extents(groups, ks, cs, _of_rows(shape, fine(shape.samples), fine(shape.rows, strides)))


def fine(size: int, steps: tuple[int, ...] = ()) -> list[int]:
    """Return extents of an axis, descending: all of a short one.

    Of a longer one the fewest that make j blocks, for every j, and the same in multiples of each of
    some steps.
    """
    if size <= SHORT:
        return list(range(size, 0, -1))
    found: set[int] = set()
    for step in (1, *steps):
        most = -(-size // step)
        j = np.arange(1, min(most, MOST_CUT) + 1)
        found.update(np.unique(np.minimum(size, step * -(-most // j))).tolist())
    return sorted(found, reverse=True)


def _few(extents: list[int], size: int, times: int = 1, wanted: int | str = "auto") -> list[int]:
    """Return the extents that do not cut so many axes of a size into too many blocks.

    What a user wants is the only one.
    """
    if wanted != "auto":
        return [min(int(wanted), size)]
    return [it for it in extents if times * -(-size // it) <= MOST_CUT] or extents[:1]


def _of_rows(shape: Shape, samples: list[int], rows: list[int]) -> list[int]:
    """Return the extents of rows: several whole samples, slices of one."""
    found = [shape.rows * n for n in _few([n for n in samples if n > 1], shape.samples)]
    return found + [n for n in rows if shape.samples * -(-shape.rows // n) <= MOST_CUT]


def _rows(shape: Shape, wanted: int | str) -> list[int]:
    """Return the extents of rows: whole samples, slices of one."""
    if wanted == "auto":
        return _of_rows(shape, _descending(shape.samples), _descending(shape.rows))
    n = int(wanted)
    return [n if n < shape.rows else shape.rows * min(n // shape.rows, shape.samples)]


def _blocks_of_loops(shape: Shape, gkc: Counts, n: Counts) -> tuple[Counts, Counts, Counts]:
    """Return the blocks of the loops K and C of a group, shape (m, 1), and N, shape (n,)."""
    return -(-shape.K // gkc[:, 1:2]), -(-shape.C // gkc[:, 2:]), _blocks_of_rows(shape, n)


def _blocks_of_rows(shape: Shape, n: Counts) -> Counts:
    slices = shape.samples * -(-shape.rows // n)
    samples = -(-shape.samples // np.maximum(n // shape.rows, 1))
    blocks: Counts = np.where(n < shape.rows, slices, samples)
    return blocks


def times_of(loops: tuple[Counts, ...], orders: tuple[str, ...], lacking: int) -> Counts:
    """Return how often each block of a tensor comes by, with so many blocks of the loops K, C, N.

    The loop orders are the last axis, behind those that the loops' broadcast to.

    Once, if all loops inside the one that it lacks have one block: it is still there.
    """
    times = []
    for order in orders:
        place = order.index(LOOPS[lacking])
        inside = 0 * (loops[0] + loops[1] + loops[2]) + 1
        for letter in order[place + 1 :]:
            inside = inside * loops[LOOPS.index(letter)]
        times.append(np.where(inside > 1, loops[lacking], 1))
    return np.stack(times, axis=-1)
