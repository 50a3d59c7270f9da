"""The blocks of an op: the candidates, the one that is chosen, and why there may be none.

Legend of dimensions: m candidates for groups, filters and channels, n for rows, o for loop orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.errors import ConfigError
from swatsim.simulator.memory.config import ORDERS, MemoryConfig
from swatsim.simulator.memory.kernel import Counts
from swatsim.simulator.memory.tensors import (
    ACT,
    GRAD_OUT,
    WEIGHT,
    Cuts,
    Shape,
    Store,
    Stores,
    cut_channels,
    cut_rows,
    dense_stores,
    ends,
)
from swatsim.simulator.memory.walk import LACKS, SUM_BYTES
from swatsim.workload.layer import OPERANDS, Operand
from swatsim.workload.storage import DTYPES

#: Loops by their letters.
LOOPS = "KCN"

#: What is less than one in so many does not matter.
GRAIN = 64
KIB_BITS = 8 * 1024
#: More than any tensor has.
NO_LIMIT = 2**62
SUM_BITS = 8 * SUM_BYTES

Limits = tuple[int, int, int]


class Plan(NamedTuple):
    """How an op is cut: loops over blocks, outermost first; and a block's extents.

    Filters and channels are those of a group; rows are those of all samples.
    """

    order: str
    groups: int
    filters: int
    channels: int
    rows: int

    @property
    def loops(self) -> Counts:
        """The loops as numbers, outermost first."""
        return np.array([LOOPS.index(letter) for letter in self.order], np.int64)


class Choice(NamedTuple):
    """What bears on the choice, but for the stores: plans are remembered by it."""

    shape: Shape
    order: str
    filters: int | str
    channels: int | str
    rows: int | str
    limits: Limits
    value_bits: int
    pinned: int
    kept: bool


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
        Which way in `rows` and `columns` a candidate has; shapes (m, 1), and (m, 1) or (n,).
    times : numpy.ndarray of int64, shape (3, m, n, o)
        How often each block of a tensor comes by.
    blocks : numpy.ndarray of int64, shape (m, n)
    made : numpy.ndarray of int64, shape (m, n)
        Elements of the output in a block.
    made_in_all : int
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
    made: Counts
    made_in_all: int


def plan(
    shape: Shape,
    stores: Stores,
    config: MemoryConfig,
    where: str,
    pinned: Operand | None = None,
    kept: bool = False,
) -> Plan:
    """Choose the blocks of an op that move the fewest bytes.

    Parameters
    ----------
    shape : Shape
    stores : tuple of Store
    config : MemoryConfig
    where : str
        The layer and the op, for an error.
    pinned : {"weight", "act", "grad_out"}, optional
        An operand that must be one single block.
    kept : bool
        It is there already.

    Raises
    ------
    ConfigError
        If a buffer is too small: it names the buffer, and what would do.
    """
    found = find(shape, stores, config, pinned, kept)
    if found is None:
        raise ConfigError(_too_small(shape, stores, config, where))
    return found


def find(
    shape: Shape,
    stores: Stores,
    config: MemoryConfig,
    pinned: Operand | None = None,
    kept: bool = False,
) -> Plan | None:
    """Choose the blocks of an op; None if nothing fits."""
    choice = _choice(shape, config, pinned, kept)
    if all(store.sums is None and not store.by for store in stores):
        return _dense(choice)
    return _chosen(choice, stores)


def _choice(shape: Shape, config: MemoryConfig, pinned: Operand | None, kept: bool) -> Choice:
    capacities = [0, 0, 0]
    for tensor, buffer in buffers_of(shape.made).items():
        capacities[tensor] = getattr(config, f"buffer_{buffer}_kib")
    weight, act, grad_out = (kib * KIB_BITS // 2 for kib in capacities)
    extents = config.block_filters, config.block_channels, config.block_rows
    bits, number = DTYPES[config.dtype], -1 if pinned is None else OPERANDS.index(pinned)
    limits = weight, act, grad_out
    return Choice(shape, config.loop_order, *extents, limits, bits, number, kept)


def buffers_of(made: int) -> dict[int, str]:
    """Name the buffer of each tensor, of an op that makes the tensor `made`."""
    first, second = (tensor for tensor in range(3) if tensor != made)
    return {first: "a", second: "b", made: "out"}


@lru_cache(maxsize=10_000)
def _dense(choice: Choice) -> Plan | None:
    """Choose for dense tensors: the same in every step of a run."""
    return _chosen(choice, dense_stores(choice.shape, choice.value_bits))


def _chosen(choice: Choice, stores: Stores) -> Plan | None:
    tried = candidates(choice.shape, choice.order, choice.filters, choice.channels, choice.rows)
    fit = _fitting(choice, stores, tried)
    if not fit.any():
        return None
    moved = np.where(fit[:, :, None], _moved(choice, stores, tried), NO_LIMIT)
    least = int(moved.min())
    near = moved <= least + least // GRAIN
    first = np.maximum(_unoverlapped(choice, stores, tried), least // GRAIN)
    first = np.where(near.any(axis=2), first, NO_LIMIT)
    blocks = np.where(first == first.min(), tried.blocks, NO_LIMIT)
    m, n = (int(index) for index in np.unravel_index(blocks.argmin(), blocks.shape))
    order = tried.orders[int(near[m, n].argmax())]
    g, k, c = (int(extent) for extent in tried.gkc[m])
    return Plan(order, g, k, c, int(tried.n[n]))


def _operands(choice: Choice) -> list[int]:
    return [tensor for tensor in range(3) if tensor != choice.shape.made]


def _fitting(choice: Choice, stores: Stores, tried: Candidates) -> npt.NDArray[np.bool_]:
    """Tell which candidates (m, n) fit."""
    fit = tried.made * SUM_BITS <= choice.limits[choice.shape.made]
    for tensor in _operands(choice):
        rows, columns = tried.rows[tensor], tried.columns[tensor]
        widest = _widest(stores[tensor], rows, columns, choice.limits[tensor])
        fit = fit & (widest[tried.row[tensor]] <= tried.column[tensor])
    if choice.pinned >= 0:
        ways = tried.rows[choice.pinned].blocks, tried.columns[choice.pinned].blocks
        single = (ways[0] == 1)[tried.row[choice.pinned]] & (ways[1] == 1)[
            tried.column[choice.pinned]
        ]
        fit = fit & single
    return fit


def _widest(store: Store, rows: Cuts, columns: Cuts, limit: int) -> Counts:
    """Find, for each way to cut rows, the first of the descending ways to cut columns that fits.

    Blocks of powers of two lie in one another, so of a block that fits smaller ones do: the
    smallest rows take the widest columns.
    """
    found, j = np.zeros(len(rows.ways), np.int64), 0
    mean = store.bits_in_all(rows, columns) / (rows.blocks[:, None] * columns.blocks)

    def fits(i: int, j: int) -> bool:
        # if the mean block does not, there is one that does not
        return mean[i, j] <= limit and store.bits(rows.ways[i], columns.ways[j]).max() <= limit

    if fits(0, 0):
        return found
    for i in reversed(range(len(rows.ways))):
        while j < len(columns.ways) and not fits(i, j):
            j += 1
        found[i] = j
    return found


def _moved(choice: Choice, stores: Stores, tried: Candidates) -> Counts:
    """Bits that each candidate (m, n, o) moves."""
    made = choice.shape.made
    back_and_forth = 2 * SUM_BITS * (tried.times[made] - 1)
    moved: Counts = tried.made_in_all * (choice.value_bits + back_and_forth)
    for tensor in _operands(choice):
        if not (choice.kept and tensor == choice.pinned):
            once = stores[tensor].bits_in_all(tried.rows[tensor], tried.columns[tensor])
            own = once[tried.row[tensor], tried.column[tensor]]
            moved = moved + own[:, :, None] * tried.times[tensor]
    return moved


def _unoverlapped(choice: Choice, stores: Stores, tried: Candidates) -> Counts:
    """Bits, of each (m, n), of the first block's operands and of a result."""
    bits = tried.made * choice.value_bits
    for tensor in _operands(choice):
        if not (choice.kept and tensor == choice.pinned):
            leading = tried.rows[tensor].leading, tried.columns[tensor].leading
            first = stores[tensor].bits(*leading)
            bits = bits + first[tried.row[tensor], tried.column[tensor]]
    return bits


# ---- candidates ----------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def candidates(
    shape: Shape, order: str, filters: int | str, channels: int | str, rows: int | str
) -> Candidates:
    """List what is tried for an op: it does not depend on masks."""
    ks = _descending(shape.K) if filters == "auto" else [min(int(filters), shape.K)]
    cs = _descending(shape.C) if channels == "auto" else [min(int(channels), shape.C)]
    gkc = [(1, k, c) for k in ks for c in cs]
    if ks[0] == shape.K and cs[0] == shape.C:
        gkc = [(g, shape.K, shape.C) for g in _descending(shape.groups) if g > 1] + gkc
    gk = sorted({g * k for g, k, _ in gkc}, reverse=True)
    gc = sorted({g * c for g, _, c in gkc}, reverse=True)
    n = _rows(shape, rows)
    by_filters = Cuts([cut_channels(ends(extent, shape.K, shape.groups)) for extent in gk])
    by_channels = Cuts([cut_channels(ends(extent, shape.C, shape.groups)) for extent in gc])
    across = Cuts([cut_channels(ends(c, shape.C)) for c in cs])
    of_act, of_grad = (Cuts([cut_rows(shape, t, e) for e in n]) for t in (ACT, GRAD_OUT))
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
        rows=(by_filters, by_channels, by_filters),
        columns=(across, of_act, of_grad),
        row=(at_gk, at_gc, at_gk),
        column=(at_c, at_n, at_n),
        times=np.stack([_times(loops, orders, LACKS[tensor]) for tensor in range(3)]),
        blocks=-(-shape.groups // table[:, :1]) * loops[0] * loops[1] * loops[2],
        made=elements(shape, table[:, :1], table[:, 1:2], table[:, 2:], extents),
        made_in_all=elements(shape, shape.groups, shape.K, shape.C, shape.rows * shape.samples),
    )


def elements(
    shape: Shape, g: Counts | int, k: Counts | int, c: Counts | int, n: Counts | int
) -> Any:
    """Count the elements of the output in blocks."""
    sizes = {WEIGHT: (k, c), ACT: (c, n), GRAD_OUT: (k, n)}[shape.made]
    return g * sizes[0] * sizes[1] * shape.cells[shape.made] + 0 * n  # of shape (m, n) in any case


def _descending(size: int) -> list[int]:
    """List a size, and the powers of two below it."""
    return [size, *(2**i for i in reversed(range((size - 1).bit_length())))]


def _rows(shape: Shape, wanted: int | str) -> list[int]:
    """List the extents of rows: whole samples, slices of one."""
    if wanted == "auto":
        samples = [shape.rows * n for n in _descending(shape.samples) if n > 1]
        return samples + _descending(shape.rows)
    n = int(wanted)
    return [n if n < shape.rows else shape.rows * min(n // shape.rows, shape.samples)]


def _blocks_of_loops(shape: Shape, gkc: Counts, n: Counts) -> tuple[Counts, Counts, Counts]:
    """Count the blocks of the loops K and C of a group, shape (m, 1), and N, shape (n,)."""
    slices = shape.samples * -(-shape.rows // n)
    samples = -(-shape.samples // np.maximum(n // shape.rows, 1))
    rows = np.where(n < shape.rows, slices, samples)
    return -(-shape.K // gkc[:, 1:2]), -(-shape.C // gkc[:, 2:]), rows


def _times(loops: tuple[Counts, ...], orders: tuple[str, ...], lacking: int) -> Counts:
    """Count how often each block of a tensor comes by, shape (m, n, o).

    Once, if all loops inside the one that it lacks have one block: it is still there.
    """
    times = []
    for order in orders:
        place = order.index(LOOPS[lacking])
        inside = loops[0] * 0 + loops[2] * 0 + 1
        for letter in order[place + 1 :]:
            inside = inside * loops[LOOPS.index(letter)]
        times.append(np.where(inside > 1, loops[lacking], 1))
    return np.stack(times, axis=2)


# ---- refusals ------------------------------------------------------------------------------------


def _too_small(shape: Shape, stores: Stores, config: MemoryConfig, where: str) -> str:
    """Say which buffer is too small, and the smallest capacity that would do."""
    choice = _choice(shape, config, None, False)
    tensor, kib = next(
        (tensor, kib)
        for tensor in buffers_of(shape.made)
        if (kib := _smallest(choice, stores, tensor)) * KIB_BITS // 2 > choice.limits[tensor]
    )
    name, operand = f"buffer_{buffers_of(shape.made)[tensor]}_kib", OPERANDS[tensor]
    what = f"the output (like {operand}, in fp32 sums)" if tensor == shape.made else operand
    given = [
        f"{loop}={getattr(config, loop)}"
        for loop in ("block_filters", "block_channels", "block_rows")
        if getattr(config, loop) != "auto"
    ]
    blocks = f" of {' and '.join(given)}" if given else ""
    return (
        f"{where}: {name}={getattr(config, name)} is too small for one block{blocks} of {what}, "
        f"which may fill half of it: set {name} to at least {kib}"
    )


def _smallest(choice: Choice, stores: Stores, tensor: int) -> int:
    """Find the smallest capacity, in KiB, of a tensor's buffer, the other buffers unlimited."""
    low, high = 0, 1
    while not _fits_alone(choice, stores, tensor, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = _fits_alone(choice, stores, tensor, middle)
        low, high = (low, middle) if fits else (middle, high)
    return high


def _fits_alone(choice: Choice, stores: Stores, tensor: int, kib: int) -> bool:
    weight, act, grad_out = (
        kib * KIB_BITS // 2 if other == tensor else NO_LIMIT for other in range(3)
    )
    return _chosen(choice._replace(limits=(weight, act, grad_out)), stores) is not None
