"""The fewest bytes that any blocks of an op move, by trying all of a grid.

Written from `swatsim/simulator/memory/README.md` alone: sums over blocks from tables of prefix
sums, so that layers of real networks can be tried too. It imports nothing of the package.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from tests.naive.common import OPERANDS, ceil_div
from tests.naive.memory import ORDERS, OUTPUT, VALUE_BITS, width

__all__ = ["Fewest", "even", "every", "fewest"]

LACKS = {"weight": "N", "act": "K", "grad_out": "C"}
"""The loop that each tensor lacks."""


@dataclass(frozen=True)
class Fewest:
    """Blocks that move the fewest bytes: (g, k, c, n)."""

    moved: int
    block: tuple[int, int, int, int]
    order: str


def every(size: int) -> list[int]:
    """All extents of an axis."""
    return list(range(1, size + 1))


def even(size: int) -> list[int]:
    """The fewest elements that make j blocks, for every j."""
    return sorted({ceil_div(size, j) for j in range(1, size + 1)})


@dataclass(frozen=True)
class Cut:
    """Blocks of one axis of a table: from `first` to below `last`; samples in each."""

    first: np.ndarray
    last: np.ndarray
    samples: np.ndarray

    @property
    def size(self) -> np.ndarray:
        return self.last - self.first


def cut(total: int, size: int, times: int = 1, inner: int = 1, outer: int = 0) -> Cut:
    """`total` in blocks of `size`, each element `inner` wide; again `times`, `outer` apart."""
    first = np.arange(0, total, size)
    last = np.minimum(first + size, total)
    again = np.arange(times)[:, None] * outer
    samples = np.tile(last - first, times)
    return Cut((first * inner + again).reshape(-1), (last * inner + again).reshape(-1), samples)


class Tensor:
    """An operand with its entries summed over all that lies before, by rows and columns."""

    def __init__(self, name: str, mask: np.ndarray, format: str, bits: int) -> None:
        mask = mask[:, :, None, None] if mask.ndim == 2 else mask
        self.name, self.shape, self.bits = name, mask.shape, bits
        self.format = "dense" if mask.all() else format
        at = np.flatnonzero(mask)
        entries = np.zeros(mask.size, np.int64)
        gaps = (np.diff(at, prepend=-1) - 1) // 16
        entries[at] = 1 + gaps * (self.format == "run-length")
        entries = entries.reshape(mask.shape)
        if name == "weight":
            table = entries.sum(axis=(2, 3))
        else:
            table = entries.sum(axis=3).transpose(1, 0, 2).reshape(mask.shape[1], -1)
        self.sums = np.zeros([size + 1 for size in table.shape], np.int64)
        self.sums[1:, 1:] = table.cumsum(axis=0).cumsum(axis=1)

    def block_bits(self, rows: Cut, columns: Cut, cell: int, of_group: int) -> np.ndarray:
        """The bits of all blocks; `of_group` channels follow one another in a group."""
        elements, b = rows.size[:, None] * columns.size * cell, self.bits
        if self.format == "dense":
            return elements * b
        if ":" in self.format:
            return self._slots(rows, columns, cell, of_group)
        part = self.sums[rows.last] - self.sums[rows.first]
        values = part[:, columns.last] - part[:, columns.first]
        whole, leading = prod(self.shape), self.shape[0]
        lines = rows.size[:, None] if self.name == "weight" else columns.samples
        if self.format == "bitmask":
            return values * b + elements
        if self.format == "csr":
            return values * (b + width(whole // leading - 1)) + (lines + 1) * width(whole)
        if self.format == "csc":
            pointers = elements // lines + 1
            return values * (b + width(leading - 1)) + pointers * width(whole)
        return values * (b + 4)

    def _slots(self, rows: Cut, columns: Cut, cell: int, of_group: int) -> np.ndarray:
        """N of each M channels, or as many as there are of them."""
        n, m = map(int, self.format.split(":"))
        channels, other = (columns, rows) if self.name == "weight" else (rows, columns)
        slots = np.zeros(len(channels.first), np.int64)
        for at, (low, high) in enumerate(zip(channels.first, channels.last, strict=True)):
            within = np.arange(low, high)
            groups = within // of_group * of_group + within % of_group // m * m
            slots[at] = np.minimum(np.unique(groups, return_counts=True)[1], n).sum()
        table = (
            slots * other.size[:, None] if self.name == "weight" else slots[:, None] * other.size
        )
        return table * cell * (self.bits + (m - 1).bit_length())


class Op:
    """An op of a layer that is no transposed one: its loops, cuts and tables."""

    def __init__(self, name: str, layer, config, masks: dict, grid: Callable[[int], list[int]]):
        self.name, self.layer, self.config, self.grid = name, layer, config, grid
        self.bits = VALUE_BITS[config.dtype]
        self.tensors = {
            it: Tensor(it, np.asarray(masks[it], bool), getattr(config, f"format_{it}"), self.bits)
            for it in OPERANDS[name]
        }
        shapes = {it: tensor.shape for it, tensor in self.tensors.items()}
        self.samples = shapes["act" if "act" in shapes else "grad_out"][0]
        self.rows = layer.H if name == "dgrad" else layer.P
        self.per_group = {"K": layer.K // layer.groups, "C": layer.C // layer.groups}
        self.cells = {"weight": layer.R * layer.S, "act": layer.W, "grad_out": layer.Q}
        a, b = OPERANDS[name]
        kib = {a: config.buffer_a_kib, b: config.buffer_b_kib, OUTPUT[name]: config.buffer_out_kib}
        self.limits = {it: size * 8192 // 2 for it, size in kib.items()}

    def extents(self, loop: str) -> list[int]:
        """The extents of K, C or N; what the configuration gives is the only one."""
        names = {"K": "block_filters", "C": "block_channels", "N": "block_rows"}
        given = getattr(self.config, names[loop])
        if loop != "N":
            full = self.per_group[loop]
            return self.grid(full) if given == "auto" else [min(given, full)]
        if given == "auto":
            slices = [n for n in self.grid(self.rows) if n < self.rows]
            return slices + [self.rows * n for n in self.grid(self.samples)]
        whole = self.rows * min(given // self.rows, self.samples)
        return [given if given < self.rows else whole]

    def channels(self, loop: str, g: int, extent: int) -> Cut:
        """Filters or channels over groups."""
        full, groups = self.per_group[loop], self.layer.groups
        return cut(groups, g, 1, full) if g > 1 else cut(full, extent, groups, 1, full)

    def columns(self, name: str, n: int) -> Cut:
        """The rows of act or grad_out in each block of n."""
        own = self.layer.H if name == "act" else self.layer.P
        if n >= self.rows:
            return cut(self.samples, n // self.rows, 1, own)
        ends = [
            self.touched(name, low, min(low + n, self.rows), own) for low in range(0, self.rows, n)
        ]
        low, high = np.array(ends).T
        again = np.arange(self.samples)[:, None] * own
        low, high = (low + again).reshape(-1), (high + again).reshape(-1)
        return Cut(low, high, np.ones_like(low))

    def touched(self, name: str, low: int, high: int, own: int) -> tuple[int, int]:
        """The rows of a sample that a slice has."""
        layer = self.layer
        stride, before = layer.stride[0], layer.padding[0][0]
        reach = (layer.R - 1) * layer.dilation[0]
        first, end = low, high
        if name == "act" and self.name != "dgrad":
            first = low * stride - before
            end = max((high - 1) * stride + reach - before + 1, high * stride - before)
        if name == "grad_out" and self.name == "dgrad":
            first = ceil_div(low + before - reach, stride)
            end = (high - 1 + before) // stride + 1
        first, end = (min(max(at, 0), own) for at in (first, end))
        first, end = 0 if low == 0 else first, own if high == self.rows else end
        return first, max(first, end)

    def table(self, name: str, rows: list[Cut], columns: list[Cut]) -> tuple[np.ndarray, ...]:
        """Bytes of all blocks, and whether all fit, for each pair of cuts."""
        moved = np.zeros((len(rows), len(columns)), np.int64)
        fits = np.zeros(moved.shape, bool)
        # of weights M channels are within a group, of activations of all channels
        channels = {"weight": self.per_group["C"], "act": self.layer.C, "grad_out": self.layer.K}
        for i, j in product(range(len(rows)), range(len(columns))):
            if name == OUTPUT[self.name]:
                sums = rows[i].size.max() * columns[j].size.max() * self.cells[name] * 32
                fits[i, j] = sums <= self.limits[name]
                continue
            tensor, of_group = self.tensors[name], channels[name]
            bits = tensor.block_bits(rows[i], columns[j], self.cells[name], of_group)
            moved[i, j], fits[i, j] = ((bits + 7) // 8).sum(), bits.max() <= self.limits[name]
        return moved, fits

    def fewest(self, gs: list[int], ks: list[int], cs: list[int]) -> Fewest | None:
        """The best of all combinations, of g = 1, or of several groups with all k and c."""
        ns, tied = self.extents("N"), gs != [1]
        filters = [self.channels("K", g, k) for g in gs for k in ks]
        channels = [self.channels("C", g, c) for g in gs for c in cs]
        across = [cut(self.per_group["C"], c) for c in cs]
        rows = {it: [self.columns(it, n) for n in ns] for it in ("act", "grad_out")}
        tables = {
            "weight": self.table("weight", filters, across),
            "act": self.table("act", channels, rows["act"]),
            "grad_out": self.table("grad_out", filters, rows["grad_out"]),
        }
        axes = {"weight": (0, 1), "act": (0, 2) if tied else (1, 2), "grad_out": (0, 2)}
        spread = {
            it: [np.expand_dims(part, 3 - sum(axes[it])) for part in tables[it]] for it in tables
        }
        loops = "act" if self.name == "dgrad" else "grad_out"
        blocks = {
            "K": np.array([ceil_div(self.per_group["K"], k) for _ in gs for k in ks])[
                :, None, None
            ],
            "C": np.array([ceil_div(self.per_group["C"], c) for c in cs])[None, :, None],
            "N": np.array([len(it.first) for it in rows[loops]])[None, None, :],
        }
        fits = np.logical_and.reduce(np.broadcast_arrays(*(it[1] for it in spread.values())))
        orders = ORDERS if self.config.loop_order == "auto" else (self.config.loop_order,)
        best = None
        for order in orders:
            moved = sum(self.carried(it, spread[it][0], blocks, order) for it in spread)
            moved = np.where(fits, moved, 2**62)
            i, j, n = (int(at) for at in np.unravel_index(moved.argmin(), moved.shape))
            g, k = [(g, k) for g in gs for k in ks][i]
            found = Fewest(int(moved[i, j, n]), (g, k, cs[j], ns[n]), order)
            best = found if best is None or found.moved < best.moved else best
        return best if fits.any() else None

    def carried(self, name: str, once: np.ndarray, blocks: dict, order: str) -> np.ndarray:
        """A tensor's bytes: its blocks as often as they come by; sums go out and come back."""
        inside = prod(blocks[loop] for loop in order[order.index(LACKS[name]) + 1 :])
        times = np.where(np.asarray(inside) > 1, blocks[LACKS[name]], 1)
        if name != OUTPUT[self.name]:
            return once * times
        layer, samples = self.layer, self.samples
        elements = {
            "weight": layer.K * self.per_group["C"] * layer.R * layer.S,
            "act": samples * layer.C * layer.H * layer.W,
            "grad_out": samples * layer.K * layer.P * layer.Q,
        }[name]
        return elements * (self.bits // 8 + 2 * 4 * (times - 1))


def fewest(
    name: str, layer, config, masks: dict, grid: Callable[[int], list[int]] = every
) -> Fewest | None:
    """The blocks that move the fewest bytes of all that fit; None: none does."""
    op = Op(name, layer, config, masks, grid)
    ks, cs = op.extents("K"), op.extents("C")
    found = [op.fewest([1], ks, cs)]
    several = [g for g in grid(layer.groups) if g > 1]
    full = op.per_group["K"], op.per_group["C"]
    if several and (max(ks), max(cs)) == full:
        found.append(op.fewest(several, [full[0]], [full[1]]))
    return min((it for it in found if it), key=lambda it: it.moved, default=None)
