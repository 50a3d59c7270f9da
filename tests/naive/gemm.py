"""An op as matrix products, for the naive twins that are built of one. Convolution letters.

Each group is a matrix product of its own, and so is each stride phase of a split dgrad: rows by
terms of one operand times terms by columns of the other. Zeros of the padding, and those that a
dilated dgrad puts between gradients, are elements like any other. `reference` of `common.py` says
what comes out; this imports nothing of the package on purpose.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tests.naive.common import (
    Shape,
    ceil_div,
    chunks,
    convolution_shape,
    lower_dgrad,
    phase_of_axis,
    value_inside,
)

SIDES = {
    "fprop": ("act", "weight"),
    "dgrad": ("grad_out", "weight"),
    "wgrad": ("act", "grad_out"),
}
"""The operand on the left of each op's products, and the one on the right."""


@dataclass(frozen=True)
class Product:
    """One matrix product, with all its values; `rows` and `columns` say where results go."""

    left: np.ndarray
    """Rows, terms."""
    right: np.ndarray
    """Terms, columns."""
    rows: list[dict[str, int]]
    columns: list[dict[str, int]]
    axes: str
    phase: tuple[int, ...] = ()
    """Of a split dgrad: which of the stride's phases it is."""

    def place(self, row: int, column: int) -> tuple[int, ...]:
        """The index of a result in the op's output."""
        where = {**self.rows[row], **self.columns[column]}
        return tuple(where[letter] for letter in self.axes)


def filled(value, rows: list, columns: list) -> np.ndarray:
    """The matrix of `value(row, column)`."""
    matrix = np.zeros((len(rows), len(columns)), dtype=np.int64)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            matrix[i, j] = value(row, column)
    return matrix


def fprop_product(shape: Shape, group: int, weight, act) -> Product:
    """Rows n,p,q; terms r,s,c; columns the group's filters."""
    size_c, size_k = shape.C // shape.groups, shape.K // shape.groups
    rows = list(np.ndindex(act.shape[0], shape.P, shape.Q))
    terms = list(np.ndindex(shape.R, shape.S, size_c))
    filters = list(range(group * size_k, (group + 1) * size_k))

    def left(row, term):
        h, v = shape.input_row(row[1], term[0]), shape.input_column(row[2], term[1])
        return value_inside(act, row[0], group * size_c + term[2], h, v)

    return Product(
        filled(left, rows, terms),
        filled(lambda term, k: weight[k, term[2], term[0], term[1]], terms, filters),
        [dict(zip("npq", row, strict=True)) for row in rows],
        [{"k": k} for k in filters],
        "nkpq",
    )


def dgrad_product(shape: Shape, group: int, phase: tuple, weight, grad_out) -> Product | None:
    """Rows n and the phase's positions; terms the phase's taps, k; columns the group's channels.

    A phase without taps, or without positions, multiplies nothing.
    """
    size_c, size_k = shape.C // shape.groups, shape.K // shape.groups
    (r_taps, heights), (s_taps, widths) = (phase_of_axis(shape, a, phase[a]) for a in (0, 1))
    rows = [(n, h, v) for n in range(grad_out.shape[0]) for h in heights for v in widths]
    filters = range(group * size_k, (group + 1) * size_k)
    terms = [(r, s, k) for r in r_taps for s in s_taps for k in filters]
    if not (rows and terms):
        return None

    def left(row, term):
        p = (row[1] + shape.padding[0][0] - term[0] * shape.dilation[0]) // shape.stride[0]
        q = (row[2] + shape.padding[1][0] - term[1] * shape.dilation[1]) // shape.stride[1]
        return value_inside(grad_out, row[0], term[2], p, q)

    channels = list(range(size_c))
    return Product(
        filled(left, rows, terms),
        filled(lambda term, c: weight[term[2], c, term[0], term[1]], terms, channels),
        [dict(zip("nhv", row, strict=True)) for row in rows],
        [{"c": group * size_c + c} for c in channels],
        "nchv",
        phase,
    )


def wgrad_product(shape: Shape, group: int, act, grad_out) -> Product:
    """Rows r,s,c; terms n,p,q; columns the group's filters."""
    size_c, size_k = shape.C // shape.groups, shape.K // shape.groups
    rows = list(np.ndindex(shape.R, shape.S, size_c))
    terms = list(np.ndindex(act.shape[0], shape.P, shape.Q))
    filters = list(range(group * size_k, (group + 1) * size_k))

    def left(row, term):
        h, v = shape.input_row(term[1], row[0]), shape.input_column(term[2], row[1])
        return value_inside(act, term[0], group * size_c + row[2], h, v)

    return Product(
        filled(left, rows, terms),
        filled(lambda term, k: grad_out[term[0], k, term[1], term[2]], terms, filters),
        [dict(zip("rsc", row, strict=True)) for row in rows],
        [{"k": k} for k in filters],
        "kcrs",
    )


def lines_of(product: Product, side: str) -> np.ndarray:
    """The rows of the left matrix, or the columns of the right one, as rows: line, term."""
    return product.left if side == "left" else product.right.T


def pattern_of(text: str) -> tuple[int, int] | None:
    """n and m of "n:m"; None of a word that says that there is no pattern."""
    if ":" not in text:
        return None
    n, m = text.split(":")
    return int(n), int(m)


def kept_terms(terms: int, n: int, m: int) -> int:
    """How many values of a line are multiplied where it is packed."""
    return min(terms, n * ceil_div(terms, m))


def pack(line: list[int], n: int, m: int) -> list[tuple[int, int]]:
    """A line that obeys, as (value, place) pairs: of each group its non-zeros, then free slots.

    A free slot has the value 0, and a place of its group. The last group, which may be short, has
    the slots that `kept_terms` leaves.
    """
    packed, slots = [], kept_terms(len(line), n, m)
    groups = chunks(enumerate(line), m)
    for group in groups:
        room = n if group is not groups[-1] else slots - len(packed)
        kept = [(value, place) for place, value in group if value]
        if len(kept) > n:
            raise ValueError(f"{kept} are more than {n} of {m}")
        packed += kept + [(0, group[0][0])] * (room - len(kept))
    return packed


@dataclass
class Groups:
    """The groups of m values of an operand, and those with at most n that are not zero."""

    groups: int = 0
    obeying: int = 0

    def look_at(self, line: list[int], n: int, m: int) -> None:
        """Count a line's groups; the last may be short."""
        for group in chunks(line, m):
            self.groups += 1
            self.obeying += sum(value != 0 for value in group) <= n


def groups_of(op: str, name: str, products: list[Product], n: int, m: int) -> Groups:
    """The groups of one operand in all products of the op."""
    side = ("left", "right")[SIDES[op].index(name)]
    found = Groups()
    for product in products:
        for line in lines_of(product, side).tolist():
            found.look_at(line, n, m)
    return found


def products_of(op: str, layer, lowering: str, operands: dict) -> Iterator[Product]:
    """The op's products, one after another; a linear layer is a convolution of one pixel."""
    shape, linear = convolution_shape(layer), layer.kind == "linear"
    given = {name: a[:, :, None, None] if linear else a for name, a in operands.items()}
    if op == "dgrad":
        shape, given["grad_out"] = lower_dgrad(lowering, shape, given["grad_out"])
        phases = list(np.ndindex(*shape.stride))
    for group in range(shape.groups):
        if op == "fprop":
            yield fprop_product(shape, group, **given)
        elif op == "wgrad":
            yield wgrad_product(shape, group, **given)
        else:
            found = (dgrad_product(shape, group, phase, **given) for phase in phases)
            yield from (product for product in found if product is not None)
