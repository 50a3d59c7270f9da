"""The naive twin of the `tensor_core` machine. Convolution letters, but in matrix products.

`tensor_core` is a GPU's matrix units: each core computes a block of the output at a time, k step
by k step, and one operand whose groups of m values have at most n non-zeros runs packed, each
value with the place that it came from (Mishra et al., arXiv:2104.08378, of 2:4). What is counted
is in `swatsim/simulator/machines/tensor_core/README.md`; this was written from it alone.

This file is the oracle of the fast one, so it is the slow and plain way to say the same: every
value is laid out (im2col), packed, and multiplied with the value that its place names. The output
it returns is what the cores accumulated, so that an equal `reference` proves that packing lost
nothing. It imports nothing of the package on purpose.

Where the README left a choice: a phase of dgrad without outputs is no product, as one without
taps (so no groups of weights are looked at in it).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tests.naive.common import (
    EVENTS,
    OPERANDS,
    NaiveResult,
    ceil_div,
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
    Groups,
    Product,
    groups_of,
    kept_terms,
    lines_of,
    pack,
    pattern_of,
    products_of,
)

__all__ = ["NaiveResult", "reference", "simulate"]

BUCKETS = ("effectual", "ineffectual", "unmapped")

Slot = tuple[int, int]
"""A value that is multiplied, and its place along the terms of its line."""


@dataclass
class Meter:
    """The output and the counters, as the run goes on."""

    config: object
    output: np.ndarray
    wanted: np.ndarray
    leaves_out: bool
    """Whether blocks of which no output is wanted are; what else nobody wants is then not kept."""
    own: list[int]
    cycles: int = 0
    lane_cycles: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))


# ---------------------------------------------------------------------------------------------
# Which operand is packed
# ---------------------------------------------------------------------------------------------


def allowed_operands(op: str, config) -> list[str]:
    """The operands of the op that may run packed."""
    names = config.sparse_operands.split("+")
    return [name for name in OPERANDS[op] if config.sparse_operands == "any" or name in names]


def look_for_pattern(op: str, products: list[Product], config) -> dict[str, Groups]:
    """The groups of each operand that is looked at."""
    pattern = pattern_of(config.pattern)
    if pattern is None:
        return {}
    return {name: groups_of(op, name, products, *pattern) for name in allowed_operands(op, config)}


def choose(products: list[Product], found: dict, operands: dict, config) -> str:
    """The operand that runs packed, "" if none: of those that obey the one of lower density.

    `found` are in the op's order, and `min` takes the first of equal ones.
    """
    pattern = pattern_of(config.pattern)
    obey = [name for name, groups in found.items() if groups.obeying == groups.groups]
    sizes = [product.left.shape[1] for product in products]
    if not obey or all(kept_terms(size, *pattern) == size for size in sizes):
        return ""
    return min(obey, key=lambda name: np.count_nonzero(operands[name]) / operands[name].size)


# ---------------------------------------------------------------------------------------------
# Blocks
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """An operand of a product as its lines: packed or not, what is multiplied of each."""

    lines: list[list[int]]
    slots: list[list[Slot]] | None
    """Of the side that is packed. None: the other side says which of its values are taken."""
    words: str

    def words_of(self, lines: range) -> int:
        """The values that a core takes of some lines."""
        return sum(len((self.slots or self.lines)[line]) for line in lines)


def sides_of(op: str, product: Product, packed: str, config) -> list[Side]:
    """Left and right. Where none is packed, every value of the right is a slot of its own."""
    sides = []
    for side, name in zip(("left", "right"), SIDES[op], strict=True):
        lines = lines_of(product, side).tolist()
        slots = None
        if name == packed:
            slots = [pack(line, *pattern_of(config.pattern)) for line in lines]
        elif not packed and side == "right":
            slots = [[(value, place) for place, value in enumerate(line)] for line in lines]
        sides.append(Side(lines, slots, "ab"[OPERANDS[op].index(name)]))
    return sides


def multiply(left: Side, right: Side, row: int, column: int) -> list[tuple[int, int]]:
    """The pairs of values that make one result, in the order of the slots."""
    if left.slots is not None:
        other = right.lines[column]
        return [(value, other[place]) for value, place in left.slots[row]]
    other = left.lines[row]
    return [(other[place], value) for value, place in right.slots[column]]


def run_block(product: Product, sides: list[Side], block, terms: int, meter: Meter) -> int:
    """One block of the output on one core; return how many multiplications it has room for.

    `terms` are those that are multiplied for each result. A step has room for a whole block's,
    whatever the sizes leave of it.
    """
    (rows, columns), config, room = block, meter.config, 0
    pairs = {(i, j): multiply(*sides, i, j) for i in rows for j in columns}
    for step in chunks(range(terms), config.k_step):
        room += config.tile_m * config.tile_n * config.k_step
        for (i, j), line in pairs.items():
            made = [a * b for a, b in line[step[0] : step[-1] + 1]]
            place = product.place(i, j)
            effectual = sum(value != 0 for value in made) if meter.wanted[place] else 0
            if meter.wanted[place] or not meter.leaves_out:
                meter.output[place] += sum(made)
            meter.lane_cycles["effectual"] += effectual
            meter.lane_cycles["ineffectual"] += len(made) - effectual
    for side, lines in zip(sides, block, strict=True):
        meter.events[f"words_{side.words}"] += side.words_of(lines)
    meter.events["sums_written"] += len(pairs)
    if terms < product.left.shape[1]:
        meter.events["multiplexed"] += len(pairs) * terms
    return room


def blocks_of(product: Product, config) -> Iterator[tuple[range, range]]:
    """Rows of blocks outer, columns inner."""
    rows, columns = len(product.rows), len(product.columns)
    for row in range(0, rows, config.tile_m):
        for column in range(0, columns, config.tile_n):
            yield (
                range(row, min(row + config.tile_m, rows)),
                range(column, min(column + config.tile_n, columns)),
            )


def is_begun(product: Product, block, meter: Meter) -> bool:
    """Whether a block has an output that is wanted; where nothing is left out all are begun."""
    rows, columns = block
    wanted = any(meter.wanted[product.place(i, j)] for i in rows for j in columns)
    return wanted or not meter.leaves_out


def run_batch(op: str, batch: list[Product], packed: str, meter: Meter) -> None:
    """The products of all groups: a block a core, and all cores wait for each other.

    They are alike in rows, columns and terms, and a wave may have blocks of several.
    """
    config, terms = meter.config, batch[0].left.shape[1]
    if packed:
        terms = kept_terms(terms, *pattern_of(config.pattern))
    run = [
        (product, sides, block)
        for product in batch
        for sides in [sides_of(op, product, packed, config)]
        for block in blocks_of(product, config)
        if is_begun(product, block, meter)
    ]
    for wave in chunks(run, config.cores):
        rooms = [run_block(*one, terms, meter) for one in wave]
        meter.cycles += ceil_div(max(rooms), config.macs)
        for core, room in enumerate(rooms):
            meter.own[core] += ceil_div(room, config.macs)


def batches_of(products: list[Product]) -> list[list[Product]]:
    """The products of one phase together, groups in order; without phases that is all of them."""
    phases = dict.fromkeys(product.phase for product in products)
    return [[product for product in products if product.phase == phase] for phase in phases]


# ---------------------------------------------------------------------------------------------
# The entry point
# ---------------------------------------------------------------------------------------------


def simulate(
    op, layer, config, *, weight=None, act=None, grad_out=None, wanted=None, skipping=True
) -> NaiveResult:
    """Run one op of one layer on the machine; without `skipping` nothing is packed or looked at.

    `wanted` says which outputs somebody wants; None: all of them.
    """
    operands = operands_of(op, {"weight": weight, "act": act, "grad_out": grad_out})
    output = empty_output(op, convolution_shape(layer), samples_in(operands))
    meter = Meter(config, output, wanted_outputs(output, wanted), skipping, [0] * config.cores)
    products = list(products_of(op, layer, config.dgrad_lowering, operands))
    found = look_for_pattern(op, products, config) if skipping else {}
    packed = choose(products, found, operands, config)
    for batch in batches_of(products):
        run_batch(op, batch, packed, meter)
    for name, groups in found.items():
        which = "ab"[OPERANDS[op].index(name)]
        meter.events[f"pattern_groups_{which}"] = groups.groups
        meter.events[f"pattern_obeying_{which}"] = groups.obeying
    products_made = meter.lane_cycles["effectual"] + meter.lane_cycles["ineffectual"]
    room = meter.cycles * config.cores * config.macs
    meter.lane_cycles["unmapped"] = room - products_made
    assert meter.lane_cycles["unmapped"] >= 0
    output = output[:, :, 0, 0] if layer.kind == "linear" else output
    counted = meter.cycles, meter.lane_cycles, meter.events
    return NaiveResult(output, *counted, packed, meter.own, [0] * config.cores)
