"""The naive twin of the `ideal` machine. Convolution letters throughout.

`ideal` computes a product a cycle with each of its multipliers, of those that are left once the
zeros of one operand, or of both, are skipped. What is counted is in
`swatsim/simulator/machines/ideal/README.md`; this was written from it alone.

This file is the oracle of the fast one, so it is the slow and plain way to say the same: it walks
through all products of the op, one by one, and hands those that remain to the multipliers. The
output it returns is what they added up, so that an equal `reference` proves that skipping lost
nothing. It imports nothing of the package on purpose.

Where the README left a choice: all three ops have the same products, one for each n, k, p, q, r, s
and c; each takes one value of two of weight, act and grad_out and adds to one of the third. Of
dgrad it is that third one, of act, that has to lie inside of the image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from tests.naive.common import (
    EVENTS,
    OPERANDS,
    NaiveResult,
    Shape,
    ceil_div,
    convolution_shape,
    empty_output,
    operands_of,
    reference,
    samples_in,
    wanted_outputs,
)

__all__ = ["NaiveResult", "reference", "simulate"]

OUTPUT = {"fprop": "grad_out", "dgrad": "act", "wgrad": "weight"}
"""The tensor in whose shape an op's output is."""

Index = tuple[int, ...]


@dataclass
class Multipliers:
    """What they computed, and the multiplier that takes the next product."""

    count: int
    cycles: int = 0
    next: int = 0
    effectual: int = 0
    ineffectual: int = 0

    def take(self, value: int, wanted: bool) -> None:
        """Compute a product; the first one of a cycle begins it."""
        self.cycles += self.next == 0
        self.next = (self.next + 1) % self.count
        effectual = wanted and value != 0
        self.effectual += effectual
        self.ineffectual += not effectual


def places(shape: Shape, samples: int) -> Iterator[tuple[bool, dict[str, Index]]]:
    """Each product: whether it lies inside the image, and its value in each of the tensors."""
    size_c, size_k = shape.C // shape.groups, shape.K // shape.groups
    for p, q, r, s in product(*(range(size) for size in (shape.P, shape.Q, shape.R, shape.S))):
        h, v = shape.input_row(p, r), shape.input_column(q, s)
        inside = 0 <= h < shape.H and 0 <= v < shape.W
        for n, k, c in product(range(samples), range(shape.K), range(size_c)):
            channel = k // size_k * size_c + c
            act = (n, channel, h, v)
            yield inside, {"weight": (k, c, r, s), "act": act, "grad_out": (n, k, p, q)}


def skipped_operands(op: str, config) -> tuple[str, ...]:
    """The operands whose zeros are skipped; one that the op does not read is none."""
    if config.skips == "both":
        return OPERANDS[op]
    return tuple(name for name in OPERANDS[op] if name == config.skips)


def words_of(operand: np.ndarray, skipped: bool) -> int:
    """Each value once, or each that is not zero."""
    return sum(1 for value in operand.ravel() if value or not skipped)


def simulate(
    op, layer, config, *, weight=None, act=None, grad_out=None, wanted=None, skipping=True
) -> NaiveResult:
    """Run one op of one layer on the machine; without `skipping` all products, of padding too.

    `wanted` says which outputs somebody wants; None: all of them.
    """
    operands = operands_of(op, {"weight": weight, "act": act, "grad_out": grad_out})
    skipped = skipped_operands(op, config) if skipping else ()
    linear, shape = layer.kind == "linear", convolution_shape(layer)
    given = {name: a[:, :, None, None] if linear else a for name, a in operands.items()}
    output = empty_output(op, shape, samples_in(given))
    wants = wanted_outputs(output, wanted)
    multipliers = Multipliers(config.multipliers)
    for inside, at in places(shape, samples_in(given)):
        factors = {name: int(given[name][at[name]]) if inside else 0 for name in OPERANDS[op]}
        if skipping and (not inside or any(factors[name] == 0 for name in skipped)):
            continue
        is_wanted = bool(inside and wants[at[OUTPUT[op]]])
        if skipping and not is_wanted:
            continue
        first, second = factors.values()
        multipliers.take(first * second, is_wanted)
        if inside:
            output[at[OUTPUT[op]]] += first * second
    events = dict.fromkeys(EVENTS, 0)
    for word, name in zip(("words_a", "words_b"), OPERANDS[op], strict=True):
        events[word] = words_of(operands[name], name in skipped)
    events["sums_written"] = int(wants.sum()) if skipping else output.size
    lane_cycles = {
        "effectual": multipliers.effectual,
        "ineffectual": multipliers.ineffectual,
        "idle": -(multipliers.effectual + multipliers.ineffectual) % config.multipliers,
    }
    assert multipliers.cycles == ceil_div(sum(lane_cycles.values()), config.multipliers)
    output = output[:, :, 0, 0] if linear else output
    return NaiveResult(output, multipliers.cycles, lane_cycles, events)
