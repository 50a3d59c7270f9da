"""The blocks of an op: the candidates, the one that is chosen, and why there may be none.

Legend of dimensions: m candidates for groups, filters and channels, n for rows, o for loop orders.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.errors import ConfigError
from swatsim.simulator.memory.candidates import LOOPS, Candidates, candidates, given_blocks
from swatsim.simulator.memory.config import ORDERS, MemoryConfig
from swatsim.simulator.memory.fine import NO_LIMIT, Constraints, Fine
from swatsim.simulator.memory.kernel import Counts
from swatsim.simulator.memory.pipeline import SUM_BYTES
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.memory.stores import Store, Stores, dense_stores, slots_along
from swatsim.simulator.memory.tensors import Cuts, Shape
from swatsim.workload.layer import OPERANDS, Operand
from swatsim.workload.value_types import DTYPES

#: More blocks than these take more memory than they tell.
MAX_BLOCKS = 2**21

#: What is less than one in so many does not matter.
GRAIN = 64
KIB_BITS = 8 * 1024
SUM_BITS = 8 * SUM_BYTES

Limits = tuple[int, int, int]


class Plan(NamedTuple):
    """How an op is cut: loops over blocks, outermost first; a block's extents; how many there are.

    Filters and channels are those of a group; rows are those of all samples.
    """

    order: str
    groups: int
    filters: int
    channels: int
    rows: int
    blocks: int

    @property
    def loops(self) -> Counts:
        """The loops as numbers, outermost first."""
        return np.array([LOOPS.index(letter) for letter in self.order], np.int64)


class Problem(NamedTuple):
    """What bears on the choice, but for the stores: plans are remembered by it."""

    shape: Shape
    order: str
    filters: int | str
    channels: int | str
    rows: int | str
    limits: Limits
    value_bits: int
    pinned: int
    resident: bool


def plan(
    shape: Shape,
    stores: Stores,
    config: MemoryConfig,
    where: str,
    pinned: Operand | None = None,
    resident: bool = False,
) -> Plan:
    """Return the blocks of an op that move the fewest bytes of a fine grid, within a 64th.

    Parameters
    ----------
    shape : Shape
    stores : tuple of Store
    config : MemoryConfig
    where : str
        The layer and the op, for an error.
    pinned : {"weight", "act", "grad_out"}, optional
        An operand that must be one single block.
    resident : bool
        It is there already.

    Raises
    ------
    ConfigError
        If a buffer is too small: it names the buffer, and what would do.
    """
    _check_number(given_blocks(shape, config), where)  # before so many are laid out
    chosen = find(shape, stores, config, pinned, resident)
    if chosen is None:
        raise _too_small(shape, stores, config, where)
    _check_number(chosen.blocks, where)
    return chosen


def _check_number(blocks: int, where: str) -> None:
    if blocks > MAX_BLOCKS:
        raise ConfigError(
            f"{where}: {blocks} blocks are too many: at most {MAX_BLOCKS} are simulated; "
            "raise block_filters, block_channels or block_rows, or leave them auto"
        )


def find(
    shape: Shape,
    stores: Stores,
    config: MemoryConfig,
    pinned: Operand | None = None,
    resident: bool = False,
) -> Plan | None:
    """Return the blocks of an op; None if nothing fits."""
    problem = _problem(shape, config, pinned, resident)
    if all(store.plain for store in stores):
        return _dense(problem)
    return _chosen(problem, stores)


def _problem(shape: Shape, config: MemoryConfig, pinned: Operand | None, resident: bool) -> Problem:
    capacities = [0, 0, 0]
    for tensor, buffer in buffers_of(shape.output).items():
        capacities[tensor] = getattr(config, f"buffer_{buffer}_kib")
    weight, act, grad_out = (kib * KIB_BITS // 2 for kib in capacities)
    extents = config.block_filters, config.block_channels, config.block_rows
    bits, number = DTYPES[config.dtype], -1 if pinned is None else OPERANDS.index(pinned)
    limits = weight, act, grad_out
    return Problem(shape, config.loop_order, *extents, limits, bits, number, resident)


def buffers_of(output: int) -> dict[int, str]:
    """Return the buffer of each tensor, of an op whose output is the tensor `output`."""
    first, second = (tensor for tensor in range(3) if tensor != output)
    return {first: "a", second: "b", output: "out"}


@lru_cache(maxsize=10_000)
def _dense(problem: Problem) -> Plan | None:
    """Return the blocks for dense tensors: the same in every step of a run."""
    return _chosen(problem, dense_stores(problem.shape, problem.value_bits))


def _chosen(problem: Problem, stores: Stores) -> Plan | None:
    """Return the best of powers of two, unless others move fewer bytes by more than the grain."""
    best = _of_powers(problem, stores)
    if best is None:
        return None
    of_powers, moved = best
    if "auto" not in (problem.filters, problem.channels, problem.rows):
        return of_powers
    fine = Fine(stores, _constraints(problem, stores))
    if moved <= fine.bound + fine.bound // GRAIN:
        return of_powers
    other, least = fine.best()
    if moved <= least + least // GRAIN:
        return of_powers
    return Plan(*other)


def _constraints(problem: Problem, stores: Stores) -> Constraints:
    of_filters, of_channels = slots_along(stores)
    return Constraints(
        shape=problem.shape,
        orders=ORDERS if problem.order == "auto" else (problem.order,),
        extents=(problem.filters, problem.channels, problem.rows),
        limits=problem.limits,
        value_bytes=problem.value_bits // 8,
        single=problem.pinned,
        loaded=tuple(_loaded(problem)),
        grain=GRAIN,
        of_filters=of_filters,
        of_channels=of_channels,
    )


def _of_powers(problem: Problem, stores: Stores) -> tuple[Plan, int] | None:
    """Return the best of powers of two, and the bytes that it moves; None if nothing fits."""
    tried = candidates(
        problem.shape, problem.order, problem.filters, problem.channels, problem.rows
    )
    fit = _fitting(problem, stores, tried)
    if not fit.any():
        return None
    near, moved = _near(problem, stores, tried, fit)
    least = int(moved.min())
    first = np.maximum(_unoverlapped(problem, stores, tried), least // GRAIN)
    first = np.where(near.any(axis=2), first, NO_LIMIT)
    blocks = np.where(first == first.min(), tried.blocks, NO_LIMIT)
    m, n = (int(index) for index in np.unravel_index(blocks.argmin(), blocks.shape))
    o = int(near[m, n].argmax())
    g, k, c = (int(extent) for extent in tried.gkc[m])
    plan = Plan(tried.orders[o], g, k, c, int(tried.n[n]), int(tried.blocks[m, n]))
    return plan, int(moved[m, n, o])


def _operands(problem: Problem) -> list[int]:
    return [tensor for tensor in range(3) if tensor != problem.shape.output]


def _fitting(problem: Problem, stores: Stores, tried: Candidates) -> npt.NDArray[np.bool_]:
    """Return which candidates (m, n) fit."""
    fit = tried.output_elements * SUM_BITS <= problem.limits[problem.shape.output]
    for tensor in _operands(problem):
        rows, columns = tried.rows[tensor], tried.columns[tensor]
        widest = _widest(stores[tensor], rows, columns, problem.limits[tensor])
        fit = fit & (widest[tried.row[tensor]] <= tried.column[tensor])
    if problem.pinned >= 0:
        rows, columns = tried.rows[problem.pinned], tried.columns[problem.pinned]
        fit = fit & (rows.blocks == 1)[tried.row[problem.pinned]]
        fit = fit & (columns.blocks == 1)[tried.column[problem.pinned]]
    return fit


def _widest(store: Store, rows: Cuts, columns: Cuts, limit: int) -> Counts:
    """Return, for each cut of the rows, the first of the descending cuts of the columns that fits.

    Blocks of powers of two lie in one another, so of a block that fits smaller ones do: the
    smallest rows take the widest columns.
    """
    widest, j = np.zeros(len(rows), np.int64), 0
    mean = store.bits_in_all(rows, columns) / (rows.blocks[:, None] * columns.blocks)

    def fits(i: int, j: int) -> bool:
        # if the mean block does not, there is one that does not
        return bool(
            mean[i, j] <= limit and store.largest_and_bytes(rows[i], columns[j])[0] <= limit
        )

    if fits(0, 0):
        return widest
    for i in reversed(range(len(rows))):
        while j < len(columns) and not fits(i, j):
            j += 1
        widest[i] = j
    return widest


def _near(
    problem: Problem, stores: Stores, tried: Candidates, fit: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], Counts]:
    """Return which of the candidates (m, n, o) that fit move few bytes, and the bytes of all.

    Bytes of blocks that are bounds at first are counted where the bound leaves it open.
    """
    block_bytes = {tensor: _BlockBytes(stores[tensor], tried) for tensor in _loaded(problem)}
    while True:
        moved = np.where(fit[:, :, None], _moved(problem, tried, block_bytes), NO_LIMIT)
        least = int(moved.min())
        near: npt.NDArray[np.bool_] = moved <= least + least // GRAIN
        some: npt.NDArray[np.bool_] = np.logical_or.reduce(near, axis=2)
        if not sum(counted.count(some) for counted in block_bytes.values()):
            return near, moved


class _BlockBytes:
    """Bytes of a tensor's blocks, each counted once, for all pairs of cuts."""

    def __init__(self, store: Store, tried: Candidates) -> None:
        self.store = store
        self.rows, self.columns = tried.rows[store.tensor], tried.columns[store.tensor]
        self.at = tried.row[store.tensor], tried.column[store.tensor]
        bytes_, exact = store.bytes_in_all(self.rows, self.columns)
        self._bytes = bytes_
        self._known = np.full(bytes_.shape, exact)

    @property
    def of_candidates(self) -> Counts:
        """Bytes of each candidate (m, n)."""
        bytes_: Counts = self._bytes[self.at]
        return bytes_

    def count(self, near: npt.NDArray[np.bool_]) -> int:
        """Count the bytes of candidates (m, n); return how many of them were not known."""
        m, n = np.nonzero(near & ~self._known[self.at])
        rows, columns = (np.broadcast_to(index, near.shape)[m, n] for index in self.at)
        for i, j in set(zip(rows.tolist(), columns.tolist(), strict=True)):
            cuts = self.rows[i], self.columns[j]
            self._bytes[i, j] = self.store.largest_and_bytes(*cuts)[1]
            self._known[i, j] = True
        return len(m)


def _loaded(problem: Problem) -> list[int]:
    """Return the operands that come from DRAM."""
    resident = problem.pinned if problem.resident else -1
    return [tensor for tensor in _operands(problem) if tensor != resident]


def _moved(problem: Problem, tried: Candidates, block_bytes: dict[int, _BlockBytes]) -> Counts:
    """Return the bytes that each candidate (m, n, o) moves."""
    output = problem.shape.output
    back_and_forth = 2 * SUM_BYTES * (tried.times[output] - 1)
    moved: Counts = tried.output_elements_total * (problem.value_bits // 8 + back_and_forth)
    for tensor, of_tensor in block_bytes.items():
        moved = moved + of_tensor.of_candidates[:, :, None] * tried.times[tensor]
    return moved


def _unoverlapped(problem: Problem, stores: Stores, tried: Candidates) -> Counts:
    """Return the bytes, of each (m, n), of the first block's operands and of a result."""
    total = tried.output_elements * (problem.value_bits // 8)
    for tensor in _loaded(problem):
        leading = tried.rows[tensor].leading, tried.columns[tensor].leading
        first = stores[tensor].bytes(*leading)
        total = total + first[tried.row[tensor], tried.column[tensor]]
    return total


# ---- refusals ----------------------------------------------------------------------------------


def smallest_capacities(shape: Shape, stores: Stores, config: MemoryConfig) -> dict[str, int]:
    """Return the smallest capacity in KiB that each buffer needs, by the parameters' names."""
    problem = _problem(shape, config, None, False)
    return {
        f"buffer_{buffer}_kib": _smallest(problem, stores, tensor)
        for tensor, buffer in buffers_of(shape.output).items()
    }


def _too_small(
    shape: Shape, stores: Stores, config: MemoryConfig, where: str
) -> BufferTooSmallError:
    """Return the refusal: which buffer is too small, and the smallest capacity that would do."""
    loops = ("block_filters", "block_channels", "block_rows")
    given = [f"{loop}={extent}" for loop in loops if (extent := getattr(config, loop)) != "auto"]
    name, needed = next(
        (name, kib)
        for name, kib in smallest_capacities(shape, stores, config).items()
        if kib > getattr(config, name)
    )
    return BufferTooSmallError(where, " and ".join(given), name, getattr(config, name), needed)


def _smallest(problem: Problem, stores: Stores, tensor: int) -> int:
    """Return the smallest capacity, in KiB, of a tensor's buffer, the other buffers unlimited."""
    low, high = 0, 1
    while not _fits_alone(problem, stores, tensor, high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = _fits_alone(problem, stores, tensor, middle)
        low, high = (low, middle) if fits else (middle, high)
    return high


def _fits_alone(problem: Problem, stores: Stores, tensor: int, kib: int) -> bool:
    weight, act, grad_out = (
        kib * KIB_BITS // 2 if other == tensor else NO_LIMIT for other in range(3)
    )
    return _of_powers(problem._replace(limits=(weight, act, grad_out)), stores) is not None
