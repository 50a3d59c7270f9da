"""einsum with a weight, as products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from torch import Tensor

Sizes: TypeAlias = dict[str, int]


@dataclass(frozen=True)
class Plan:
    """How the operands of an einsum are products of matrices: one, or one a group.

    Parameters
    ----------
    x_letters, weight_letters, output_letters : str
        As in the equation.
    groups, rows, summed, filters : str
        Letters of all three, of input and output, of input and weight, of weight and output.
    sizes : dict of str to int
    """

    x_letters: str
    weight_letters: str
    output_letters: str
    groups: str
    rows: str
    summed: str
    filters: str
    sizes: Sizes

    def x(self, x: Tensor) -> Tensor:
        """Return the input as (groups, rows.., C); one group where there is none."""
        moved = _moved(x, self.x_letters, self.groups + self.rows + self.summed)
        rows = [self.sizes[letter] for letter in self.rows]
        return moved.reshape(self._size(self.groups), *rows, self._size(self.summed))

    def weight(self, weight: Tensor) -> Tensor:
        """Return the weight as (groups, K, C)."""
        moved = _moved(weight, self.weight_letters, self.groups + self.filters + self.summed)
        sizes = (self._size(part) for part in (self.groups, self.filters, self.summed))
        return moved.reshape(*sizes)

    def output(self, y: Tensor) -> Tensor:
        """Return the output of (groups, rows.., K)."""
        made = self.groups + self.rows + self.filters
        return _moved(y.reshape([self.sizes[letter] for letter in made]), made, self.output_letters)

    def _size(self, letters: str) -> int:
        return prod(self.sizes[letter] for letter in letters)


def planned(equation: str, shapes: Sequence[Sequence[int]], weight: int) -> Plan | None:
    """Return how an einsum of two operands is products of matrices; None if it is none.

    Parameters
    ----------
    equation : str
        As torch takes it.
    shapes : sequence of shape
        Of the operands.
    weight : int
        Which of them is the weight.
    """
    terms = _terms(equation, shapes)
    if terms is None:
        return None
    *inputs, output = terms
    x, w = inputs[1 - weight], inputs[weight]
    sizes = _sizes(inputs, shapes)
    if sizes is None or any(len(set(term)) != len(term) for term in terms):
        return None
    summed = "".join(each for each in w if each in x and each not in output)
    alone = [each for each in x + w if each not in output and each not in summed]
    if not summed or alone:
        return None
    groups = "".join(each for each in w if each in x and each in output)
    rows = "".join(each for each in x if each not in w)
    filters = "".join(each for each in w if each not in x)
    return Plan(x, w, output, groups, rows, summed, filters, sizes)


def _terms(equation: str, shapes: Sequence[Sequence[int]]) -> list[str] | None:
    """Return the letters of both operands and of the output, with some in place of dots."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        return None
    free = [chr(code) for code in range(0x3B1, 0x3B1 + 24)]
    spread = 0
    for i, (term, shape) in enumerate(zip(terms, shapes, strict=True)):
        if "..." in term:
            count = len(shape) - (len(term) - 3)
            if count < 0:
                return None
            spread = max(spread, count)
            terms[i] = term.replace("...", "".join(free[24 - count :]))
    if not arrow:
        both = "".join(terms)
        once = sorted(each for each in set(both) if both.count(each) == 1 and each not in free)
        right = "..." + "".join(once)
    return [*terms, right.replace("...", "".join(free[24 - spread :]) if spread else "")]


def _sizes(terms: Sequence[str], shapes: Sequence[Sequence[int]]) -> Sizes | None:
    sizes: Sizes = {}
    for term, shape in zip(terms, shapes, strict=True):
        if len(term) != len(shape):
            return None
        for letter, size in zip(term, shape, strict=True):
            if sizes.setdefault(letter, size) != size:  # broadcast, or wrong
                return None
    return sizes


def _moved(tensor: Tensor, letters: str, wanted: str) -> Tensor:
    return tensor.permute([letters.index(letter) for letter in wanted])
