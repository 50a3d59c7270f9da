"""The naive twin of the `systolic` machine. Convolution letters, but in matrix products.

`systolic` is an array of `rows` x `columns` PEs through which values move from PE to neighbour, a
PE a cycle: SCALE-Sim's (Samajdar et al., arXiv:1811.02883), in its three dataflows. What is
counted is in `swatsim/simulator/machines/systolic/README.md`; this was written from it alone.

This file is the oracle of the fast one, so it is the slow and plain way to say the same: in every
cycle every value is in some PE, and moves on in the next; a fold ends when nothing is left in the
array. So no cycle is computed by a formula. The output it returns is what the sums came to, so
that an equal `reference` proves that all values met. It imports nothing of the package on purpose.

The folds of one product know nothing of each other, so here they all move at once: `grid[i, j]`
has what is in PE (i, j) of each of them. Their cycles are counted one after another.

Where the README left a choice: a phase of dgrad without outputs is no product, as one without
taps; and under `is` no group is looked at, whatever the pattern.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tests.naive.common import (
    EVENTS,
    OPERANDS,
    NaiveResult,
    chunks,
    convolution_shape,
    empty_output,
    operands_of,
    reference,
    samples_in,
    wanted_outputs,
)
from tests.naive.gemm import (
    SIDES,
    Product,
    groups_of,
    kept_terms,
    pack,
    pattern_of,
    products_of,
)

__all__ = ["NaiveResult", "reference", "simulate"]

BUCKETS = ("effectual", "ineffectual", "unmapped", "skew")


@dataclass
class Meter:
    """The output and the counters, as the run goes on."""

    config: object
    output: np.ndarray
    wanted: np.ndarray
    keeps_all: bool
    """Whether sums that nobody wants are kept as well: they are made in any case."""
    cycles: int = 0
    lane_cycles: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))

    def count(self, event: str, times) -> None:
        """Count an event."""
        self.events[event] += int(times)

    def spend(
        self, holds: np.ndarray, pairs: np.ndarray, made: np.ndarray, wanted: np.ndarray
    ) -> None:
        """One cycle of every PE: whether it holds something, has a pair, and their product.

        `wanted` says of a PE that has a pair whether somebody wants what it is added to.
        """
        effectual = pairs & (made != 0) & wanted
        self.lane_cycles["unmapped"] += int((~holds).sum())
        self.lane_cycles["skew"] += int((holds & ~pairs).sum())
        self.lane_cycles["effectual"] += int(effectual.sum())
        self.lane_cycles["ineffectual"] += int((pairs & ~effectual).sum())

    def wanted_of(self, product: Product) -> np.ndarray:
        """Which results of a product somebody wants: [row, column]."""
        size = len(product.rows), len(product.columns)
        places = (product.place(row, column) for row, column in np.ndindex(*size))
        return np.array([self.wanted[place] for place in places], dtype=bool).reshape(size)


# ---------------------------------------------------------------------------------------------
# What moves
# ---------------------------------------------------------------------------------------------


def token(width: int) -> np.dtype:
    """What is in one PE: a part of a wave, with `width` values of which one is multiplied.

    `wave`: whether there is one; `real`: whether it has values, which rows and columns that a fold
    lacks do not. `turn` is the wave's number. `place` says which of the partner's values is
    wanted. `words` are the values that came from the buffer for it.
    """
    return np.dtype(
        [
            ("wave", bool),
            ("real", bool),
            ("turn", np.int64),
            ("values", np.int64, (width,)),
            ("place", np.int64),
            ("words", np.int64),
        ]
    )


@dataclass(frozen=True)
class Operands:
    """A product's two sides as tokens: [row, slot] on the left, [slot, column] on the right.

    A slot is one value of each, or, packed, a kept value of the right and all the values of its
    group of the left, which come for the group's first slot and stay for the others.
    """

    left: np.ndarray
    right: np.ndarray


def plain_operands(product: Product) -> Operands:
    """Every value in a slot of its own."""
    left = np.zeros(product.left.shape, token(1))
    right = np.zeros(product.right.shape, token(1))
    for tokens, values in ((left, product.left), (right, product.right)):
        tokens["values"][..., 0], tokens["words"] = values, 1
        tokens["wave"] = tokens["real"] = True
    return Operands(left, right)


def packed_operands(product: Product, n: int, m: int) -> Operands:
    """The weights, on the right, in n slots of each group of m."""
    (rows, terms), columns = product.left.shape, product.right.shape[1]
    slots = kept_terms(terms, n, m)
    left = np.zeros((rows, slots), token(m))
    right = np.zeros((slots, columns), token(1))
    left["wave"] = left["real"] = right["wave"] = right["real"] = True
    for column in range(columns):
        for slot, (value, place) in enumerate(pack(product.right[:, column].tolist(), n, m)):
            assert place // m == slot // n
            right[slot, column]["values"][0] = value
            right[slot, column]["place"] = place % m
    right["words"] = 1
    for slot in range(slots):
        group = product.left[:, slot // n * m : slot // n * m + m]
        left["values"][:, slot, : group.shape[1]] = group
        left["words"][:, slot] = group.shape[1] if slot % n == 0 else 0
    return Operands(left, right)


def move(grid: np.ndarray, axis: int, entering: np.ndarray) -> np.ndarray:
    """All tokens a PE further along the axis; those at its end leave, others enter at its edge."""
    moved = np.empty_like(grid)
    if axis == 0:
        moved[1:], moved[0] = grid[:-1], entering
    else:
        moved[:, 1:], moved[:, 0] = grid[:, :-1], entering
    return moved


def entering(edge: np.ndarray, cycle: int) -> np.ndarray:
    """What enters in a cycle along an edge of `edge[line, turn]`: line i is i cycles late."""
    lines, turns = edge.shape[:2]
    found = np.zeros((lines, *edge.shape[2:]), edge.dtype)
    for line in range(lines):
        if 0 <= cycle - line < turns:
            found[line] = edge[line, cycle - line]
    return found


def multiplied(many: np.ndarray, one: np.ndarray) -> np.ndarray:
    """The product of a token's value and of the partner's that it wants."""
    wanted = np.take_along_axis(many["values"], one["place"][..., None], axis=-1)
    return wanted[..., 0] * one["values"][..., 0]


# ---------------------------------------------------------------------------------------------
# Folds
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fold:
    """What lies on the array's rows and columns, by number."""

    rows: list[int]
    columns: list[int]


def folds_of(rows: int, columns: int, config) -> list[Fold]:
    """Blocks of columns outer, of rows inner."""
    return [
        Fold(some, others)
        for others in chunks(range(columns), config.columns)
        for some in chunks(range(rows), config.rows)
    ]


def edge_of(lines: np.ndarray, parts: list[list[int]], size: int) -> np.ndarray:
    """What enters along an edge of `size` PEs: [line, turn, fold], of `lines[line, turn]`.

    A line that a fold lacks has waves as all others, without a value.
    """
    turns = lines.shape[1]
    edge = np.zeros((size, turns, len(parts)), lines.dtype)
    edge["wave"] = True
    for fold, part in enumerate(parts):
        edge[: len(part), :, fold] = lines[part]
    edge["turn"] = np.arange(turns)[:, None]
    return edge


def mapped(folds: list[Fold], config) -> np.ndarray:
    """Whether a PE holds something, fold by fold."""
    holds = np.zeros((config.rows, config.columns, len(folds)), bool)
    for at, fold in enumerate(folds):
        holds[: len(fold.rows), : len(fold.columns), at] = True
    return holds


def run_with_sums_held(
    tokens: Operands, wanted: np.ndarray, folds: list[Fold], words: list[str], meter
) -> Iterator:
    """`os`: left values move to the right, right ones down; yield row, column and sum.

    `wanted` is [row, column]; `words` are the events of left and right.
    """
    H, W = meter.config.rows, meter.config.columns
    left_edge = edge_of(tokens.left, [fold.rows for fold in folds], H)
    right_edge = edge_of(tokens.right.T, [fold.columns for fold in folds], W)
    left = np.zeros((H, W, len(folds)), left_edge.dtype)
    right = np.zeros((H, W, len(folds)), right_edge.dtype)
    sums = np.zeros((H, W, len(folds)), np.int64)
    holds = mapped(folds, meter.config)
    wants = to_be_held(wanted, folds, meter.config)
    cycle = 0
    while True:
        left = move(left, 1, entering(left_edge, cycle))
        right = move(right, 0, entering(right_edge, cycle))
        if not (left["wave"].any() or right["wave"].any()):
            break
        assert (left["turn"] == right["turn"])[left["wave"] & right["wave"]].all()
        meter.count(words[0], (left["words"] * left["real"])[:, 0].sum())
        meter.count(words[1], (right["words"] * right["real"])[0].sum())
        pairs, made = left["real"] & right["real"], multiplied(left, right)
        sums += np.where(pairs, made, 0)
        meter.spend(holds, pairs, made, wants)
        cycle += 1
    meter.cycles += cycle * len(folds)
    for at, fold in enumerate(folds):
        for i, j in np.ndindex(len(fold.rows), len(fold.columns)):
            meter.count("sums_written", 1)
            yield fold.rows[i], fold.columns[j], sums[i, j, at]


def to_be_held(values: np.ndarray, folds: list[Fold], config) -> np.ndarray:
    """What each PE will hold, of `values[K index, column]`; nothing where a fold lacks it."""
    held = np.zeros((config.rows, config.columns, len(folds)), values.dtype)
    for at, fold in enumerate(folds):
        part = values[np.ix_(fold.rows, fold.columns)]
        held[: len(fold.rows), : len(fold.columns), at] = part
    return held


def run_with_values_held(
    held: np.ndarray,
    streamed: np.ndarray,
    wanted: np.ndarray,
    folds: list[Fold],
    words: list[str],
    meter: Meter,
) -> Iterator:
    """`ws` and `is`: values move to the right, sums down; yield column, turn and a fold's sum.

    `held` is [K index, column], `streamed` [K index, turn] and `wanted` [column, turn]; `words` are
    the events of the first two.
    What is held comes down from the top first, the last row's first.
    """
    H, W = meter.config.rows, meter.config.columns
    waiting = to_be_held(held, folds, meter.config)
    edge = edge_of(streamed, [fold.rows for fold in folds], H)
    inside = np.zeros_like(waiting)
    moving = np.zeros((H, W, len(folds)), edge.dtype)
    sums = np.zeros((H, W, len(folds)), np.int64)
    holds = mapped(folds, meter.config)
    cycle = 0
    while True:
        if cycle < H:
            inside = move(inside, 0, waiting[H - 1 - cycle])
            meter.count(words[0], inside["words"][0].sum())
        moving = move(moving, 1, entering(edge, cycle - H))
        if cycle >= H and not moving["wave"].any():
            break
        meter.count(words[1], (moving["words"] * moving["real"])[:, 0].sum())
        pairs = inside["real"] & moving["real"]
        made = multiplied(moving, inside)
        sums = move(sums, 0, np.zeros_like(sums[0])) + np.where(pairs, made, 0)
        meter.spend(holds, pairs, made, wanted_now(wanted, moving["turn"], folds))
        yield from leaving(moving[-1], sums[-1], folds, meter)
        cycle += 1
    meter.cycles += cycle * len(folds)


def wanted_now(wanted: np.ndarray, turns: np.ndarray, folds: list[Fold]) -> np.ndarray:
    """Whether what each PE's turn is added to is wanted, of `wanted[column, turn]`."""
    wants = np.zeros(turns.shape, dtype=bool)
    for at, fold in enumerate(folds):
        for j, column in enumerate(fold.columns):
            wants[:, j, at] = wanted[column, turns[:, j, at]]
    return wants


def leaving(wave: np.ndarray, sums: np.ndarray, folds: list[Fold], meter: Meter) -> Iterator:
    """The sums that leave at the bottom in a cycle; those of later folds along K meet others."""
    for j, at in np.argwhere(wave["wave"]).tolist():
        if j < len(folds[at].columns):
            meter.count("sums_written", 1)
            meter.count("sums_read", folds[at].rows[0] > 0)
            yield folds[at].columns[j], int(wave["turn"][j, at]), int(sums[j, at])


# ---------------------------------------------------------------------------------------------
# A product, and whether its weights are packed
# ---------------------------------------------------------------------------------------------


def run_product(product: Product, tokens: Operands, words: list[str], meter: Meter) -> None:
    """All folds of a product; each adds to the output what it summed."""
    config = meter.config
    (rows, slots), columns = tokens.left.shape, tokens.right.shape[1]
    wanted = meter.wanted_of(product)
    if config.dataflow == "os":
        folds = folds_of(rows, columns, config)
        found = run_with_sums_held(tokens, wanted, folds, words, meter)
    elif config.dataflow == "ws":
        folds = folds_of(slots, columns, config)
        run = tokens.right, tokens.left.T, wanted.T
        moved = run_with_values_held(*run, folds, words[::-1], meter)
        found = ((row, column, value) for column, row, value in moved)
    else:
        folds = folds_of(slots, rows, config)
        run = tokens.left.T, tokens.right, wanted
        found = run_with_values_held(*run, folds, words, meter)
    for row, column, value in found:
        if wanted[row, column] or meter.keeps_all:
            meter.output[product.place(row, column)] += value


def gains(product: Product, config) -> bool:
    """Whether fewer values of K are multiplied than there are, where the weights are packed."""
    terms = product.left.shape[1]
    return kept_terms(terms, *pattern_of(config.pattern)) < terms


def weights_are_packed(op: str, products: list[Product], meter: Meter) -> bool:
    """Whether all groups of the weights obey, and that saves something; counts them.

    Only those of fprop and dgrad are looked at, and never under `is`.
    """
    config = meter.config
    pattern = pattern_of(config.pattern)
    if pattern is None or op == "wgrad" or config.dataflow == "is":
        return False
    found = groups_of(op, "weight", products, *pattern)
    meter.count("pattern_groups_a", found.groups)
    meter.count("pattern_obeying_a", found.obeying)
    obeys = found.obeying == found.groups
    return obeys and any(gains(product, config) for product in products)


def as_tokens(product: Product, packed: bool, meter: Meter) -> Operands:
    """The values of a product; of one that is packed each goes through a multiplexer."""
    if not (packed and gains(product, meter.config)):
        return plain_operands(product)
    tokens = packed_operands(product, *pattern_of(meter.config.pattern))
    meter.count("multiplexed", tokens.left.size * tokens.right.shape[1])
    return tokens


# ---------------------------------------------------------------------------------------------
# The entry point
# ---------------------------------------------------------------------------------------------


def simulate(
    op, layer, config, *, weight=None, act=None, grad_out=None, wanted=None, skipping=True
) -> NaiveResult:
    """Run one op of one layer on the machine; without `skipping`, as without a pattern.

    `wanted` says which outputs somebody wants; None: all of them.
    """
    operands = operands_of(op, {"weight": weight, "act": act, "grad_out": grad_out})
    output = empty_output(op, convolution_shape(layer), samples_in(operands))
    meter = Meter(config, output, wanted_outputs(output, wanted), keeps_all=not skipping)
    products = list(products_of(op, layer, config.dgrad_lowering, operands))
    packed = skipping and weights_are_packed(op, products, meter)
    words = ["words_" + "ab"[OPERANDS[op].index(name)] for name in SIDES[op]]
    for product in products:
        run_product(product, as_tokens(product, packed, meter), words, meter)
    assert sum(meter.lane_cycles.values()) == meter.cycles * config.rows * config.columns
    output = output[:, :, 0, 0] if layer.kind == "linear" else output
    name = "weight" if packed else ""
    counted = meter.cycles, meter.lane_cycles, meter.events
    return NaiveResult(output, *counted, name, own=[meter.cycles], waits=[0])
