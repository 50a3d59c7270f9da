"""The naive twin of the `cartesian` machine. Convolution letters throughout.

`cartesian` is SCNN (Parashar et al., ISCA 2017): a grid of PEs, each of which owns a tile of the
image. A PE fetches vectors of I non-zero pixels and F non-zero weights of one channel, multiplies
each of the pixels with each of the weights, and scatters the I x F products over banks of
accumulators, by the output element they belong to. Zeros of both operands are never fetched; what
is lost is lost to products that belong nowhere, to partly filled vectors, to banks that are hit
twice, and to PEs that wait for each other. Queues before the banks, where there are any, take
products until their bank has time for them.

This file is the oracle of the fast kernel, so it is the slow and plain way to say the same: one PE
at a time, Python integers, every value carried from its operand through the queues into its
products, and through the queue of their bank. The output it returns is what the accumulators were
given, so that an equal `reference` proves that skipping lost nothing and that all queues drained;
where nobody wants an output it is 0. It imports nothing of the package on purpose.

The machine's letters: x, X, w, W go with the axis of r (of H and P in a layer), y, Y, h, H with
the axis of s (of W and Q). Of a PE's coordinates (i, j), i goes with x and j with y.

The file reads from top to bottom: the accounting; one PE, one step of all PEs; the same with queues
before the banks, cycle by cycle; fprop, and dgrad as the convolution it is after lowering; wgrad;
`simulate`.
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import gcd, isqrt
from typing import NamedTuple

import numpy as np

from tests.naive.common import (
    EVENTS,
    NaiveResult,
    Shape,
    ceil_div,
    chunks,
    convolution_shape,
    empty_output,
    lower_dgrad,
    operands_of,
    phase_of_axis,
    reference,
    samples_in,
    value_inside,
)

__all__ = ["NaiveResult", "reference", "simulate"]

BUCKETS = (
    "effectual",
    "ineffectual",
    "idle",
    "bank_conflict",
    "pe_sync",
    "unmapped",
    "halo",
)

LINEAR_SIDE = 16
"""A linear layer is seen as 16 x 16 images: 256 of its channels make one of the machine's."""


@dataclass(frozen=True)
class Mode:
    """What the machine leaves out: zeros (else it is its own dense baseline), bank conflicts."""

    skipping: bool
    conflicts: bool


@dataclass
class Meter:
    """The counters, as the run goes on. A lane is one multiplier of one PE."""

    config: object
    cycles: int = 0
    own: Counter = field(default_factory=Counter)
    waits: Counter = field(default_factory=Counter)
    lane_cycles: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))

    @property
    def multipliers(self) -> int:
        """The lanes of one PE."""
        return self.config.act_vector * self.config.weight_vector

    def add(self, bucket: str, lane_cycles: int) -> None:
        """Count lane-cycles in a bucket."""
        self.lane_cycles[bucket] += lane_cycles

    def count(self, event: str, times: int) -> None:
        """Count an event."""
        self.events[event] += times

    def issue(self, pair: "Pair") -> None:
        """Count a pair's cycle in the multipliers."""
        self.add("effectual", pair.effectual)
        self.add("ineffectual", pair.products - pair.effectual)
        self.add("idle", self.multipliers - pair.products)

    def land(self, product: "Product") -> None:
        """Let a bank add a product up: it reads a sum and writes it back."""
        product.output[product.at] += product.value
        self.count("accumulations", 2)

    def spend(self, pe: tuple, own: int, waits: int) -> None:
        """Let a PE be at work, and wait for slower ones, for some cycles."""
        self.own[pe] += own
        self.waits[pe] += waits

    def exchange_halos(self, cycles: int) -> None:
        """Let cycles pass in which PEs send each other partial sums and multiply nothing."""
        self.cycles += cycles
        for pe in np.ndindex(self.config.pe_h, self.config.pe_w):
            self.spend(pe, cycles, 0)
        self.add("halo", cycles * self.config.pe_h * self.config.pe_w * self.multipliers)


# ---------------------------------------------------------------------------------------------
# One PE, and one step of all PEs
# ---------------------------------------------------------------------------------------------


class Pixel(NamedTuple):
    """A value of the planar operand and its place; in wgrad an activation, x being its channel."""

    value: int
    x: int
    y: int


class Weight(NamedTuple):
    """A value of the weight operand: tap (r, s) of filter k; in wgrad a gradient of channel k."""

    value: int
    k: int
    r: int
    s: int


class Address(NamedTuple):
    """The output element (k, w, h) that a product is added to."""

    k: int
    w: int
    h: int


class Queues(NamedTuple):
    """What a PE multiplies as a Cartesian product: each of the pixels with each of the weights."""

    pixels: list[Pixel]
    weights: list[Weight]


@dataclass(frozen=True)
class Step:
    """What all PEs do before they wait for each other.

    `pes` has the queues of each PE (i, j), in the order in which it takes them; a PE that owns
    nothing is missing. `address` tells where a product belongs: None if nowhere. `output` is the
    part of the op's output that the step adds to, indexed by `Address`; so is `wanted`, which of it
    somebody wants. `leaves_out`: a product for what nobody wants belongs nowhere. Taking a value
    from a buffer is the event `pixel_words` or `weight_words`.
    """

    pes: dict[tuple[int, int], list[Queues]]
    address: Callable[[Pixel, Weight], Address | None]
    output: np.ndarray
    wanted: np.ndarray
    leaves_out: bool
    pixel_words: str
    weight_words: str


def bank_of(at: Address, banks: int) -> int:
    """The accumulator bank of an output element."""
    mixed = (4 * (at.k & 4)) ^ (8 * (at.w & 2)) ^ (8 * (at.h & 2))
    return (mixed + 8 * (at.w & 1) + 4 * (at.h & 1) + (at.k & 3)) % banks


class Product(NamedTuple):
    """A valid product on its way to its bank, which adds it to `output[at]`."""

    value: int
    at: Address
    output: np.ndarray
    wanted: bool


@dataclass(frozen=True)
class Pair:
    """All that one vector of pixels makes with one of weights, in one cycle.

    `products` use a multiplier each; those that belong nowhere fall into no bank.
    """

    products: int
    by_bank: dict[int, list[Product]]

    @property
    def effectual(self) -> int:
        """The valid products of two values that are not zero, for outputs that are wanted."""
        into = itertools.chain(*self.by_bank.values())
        return sum(product.value != 0 and product.wanted for product in into)

    @property
    def fullest(self) -> int:
        """The most products that fall into one bank."""
        return max(map(len, self.by_bank.values()), default=0)


def multiply(pixels, weights, step: Step, banks: int) -> Pair:
    """Each of the pixels with each of the weights."""
    by_bank = {}
    for pixel in pixels:
        for weight in weights:
            at = step.address(pixel, weight)
            wanted = at is not None and bool(step.wanted[at])
            if at is not None and (wanted or not step.leaves_out):
                product = Product(pixel.value * weight.value, at, step.output, wanted)
                by_bank.setdefault(bank_of(at, banks), []).append(product)
    return Pair(len(pixels) * len(weights), by_bank)


def pairs_of(work: list[Queues], step: Step, meter: Meter) -> Iterator[Pair]:
    """Yield what one PE makes in a step: every vector of pixels meets every vector of weights.

    The last vector of a queue may be partial and costs a whole one; an empty queue has none. A
    vector of pixels is taken once, by all queued weights; without any it is not taken.
    """
    for queues in work:
        for pixels in chunks(queues.pixels, meter.config.act_vector) if queues.weights else []:
            meter.count(step.pixel_words, len(pixels))
            for weights in chunks(queues.weights, meter.config.weight_vector):
                meter.count(step.weight_words, len(weights))
                yield multiply(pixels, weights, step, meter.config.banks)


def run_pe(work: list[Queues], step: Step, mode: Mode, meter: Meter) -> int:
    """One PE without queues before its banks: the cycles that its part of a step takes.

    All products of a pair are made in one cycle; then each bank takes one of its products a cycle,
    and the multipliers wait for the fullest.
    """
    cycles = 0
    for pair in pairs_of(work, step, meter):
        meter.issue(pair)
        for product in itertools.chain(*pair.by_bank.values()):
            meter.land(product)
        cost = max(1, pair.fullest) if mode.conflicts else 1
        meter.add("bank_conflict", (cost - 1) * meter.multipliers)
        cycles += cost
    return cycles


def run_step(step: Step, mode: Mode, meter: Meter) -> None:
    """All PEs, without queues before their banks; they wait for the slowest."""
    busy = {pe: run_pe(work, step, mode, meter) for pe, work in step.pes.items()}
    slowest = max(busy.values())
    meter.cycles += slowest
    for pe in np.ndindex(meter.config.pe_h, meter.config.pe_w):
        if pe in busy:
            meter.spend(pe, busy[pe], slowest - busy[pe])
            meter.add("pe_sync", (slowest - busy[pe]) * meter.multipliers)
        else:
            meter.add("unmapped", slowest * meter.multipliers)


def queued(values: list, skipping: bool) -> list:
    """The values that enter a queue: the non-zero ones, or all in the dense baseline."""
    return [item for item in values if item.value or not skipping]


# ---------------------------------------------------------------------------------------------
# Queues before the banks: all PEs, cycle by cycle
# ---------------------------------------------------------------------------------------------


@dataclass
class Banks:
    """The queues before the banks of one PE, by bank; a queue that is empty is not in them."""

    depth: int
    waiting: dict[int, deque[Product]] = field(default_factory=dict)

    def retire(self, meter: Meter) -> None:
        """Let every bank that has something in its queue take one product out of it."""
        for queue in self.waiting.values():
            meter.land(queue.popleft())
        self.waiting = {bank: queue for bank, queue in self.waiting.items() if queue}

    def have_room(self, pair: Pair) -> bool:
        """Whether every queue that a pair feeds is empty, or can hold what comes."""
        return all(
            bank not in self.waiting or len(self.waiting[bank]) + len(products) <= self.depth
            for bank, products in pair.by_bank.items()
        )

    def take(self, pair: Pair) -> None:
        """Queue all products of a pair; what was empty may so hold more than `depth`."""
        for bank, products in pair.by_bank.items():
            self.waiting.setdefault(bank, deque()).extend(products)


def cycle_of_pe(banks: Banks, left: deque[Pair], meter: Meter) -> None:
    """One cycle of one PE: banks first, then its next pair if there is one and room for it."""
    banks.retire(meter)
    if not left:
        meter.add("pe_sync", meter.multipliers)
    elif banks.have_room(left[0]):
        meter.issue(left[0])
        banks.take(left.popleft())
    else:
        meter.add("bank_conflict", meter.multipliers)


def run_queued_step(step: Step, banks: dict[tuple, Banks], meter: Meter) -> None:
    """All PEs until the last has issued its last pair; what is queued then stays queued."""
    left = {pe: deque(pairs_of(work, step, meter)) for pe, work in step.pes.items()}
    while any(left.values()):
        meter.cycles += 1
        for pe in np.ndindex(meter.config.pe_h, meter.config.pe_w):
            if pe in left:
                meter.spend(pe, *((1, 0) if left[pe] else (0, 1)))
                cycle_of_pe(banks[pe], left[pe], meter)
            else:
                meter.add("unmapped", meter.multipliers)


def drain(banks: dict[tuple, Banks], meter: Meter) -> None:
    """Let cycles pass until the queues of all PEs are empty; nothing is multiplied."""
    while any(queues.waiting for queues in banks.values()):
        meter.cycles += 1
        for pe in np.ndindex(meter.config.pe_h, meter.config.pe_w):
            if pe not in banks:
                meter.add("unmapped", meter.multipliers)
            elif banks[pe].waiting:
                meter.spend(pe, 1, 0)
                banks[pe].retire(meter)
                meter.add("bank_conflict", meter.multipliers)
            else:
                meter.spend(pe, 0, 1)
                meter.add("pe_sync", meter.multipliers)


def run_steps(steps: Iterable[Step], mode: Mode, meter: Meter) -> None:
    """Steps on the same accumulators: queues are empty before the first and after the last.

    Where no product waits for its bank nothing is queued either.
    """
    depth = meter.config.bank_queue if mode.conflicts else 0
    banks = {}
    for step in steps:
        if not depth:
            run_step(step, mode, meter)
            continue
        banks = banks or {pe: Banks(depth) for pe in step.pes}
        assert banks.keys() == step.pes.keys()  # what a PE owns is the same for each channel
        run_queued_step(step, banks, meter)
    drain(banks, meter)


# ---------------------------------------------------------------------------------------------
# fprop, and dgrad as the convolution it is after lowering
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: its planar operand, its kernel and its outputs.

    `origin` is where in the operand the padded operand starts: below 0 are zeros before the first
    element, above 0 are elements that no output reads. `padded` is the size of the padded operand.
    """

    taps: int
    stride: int
    dilation: int
    outputs: int
    origin: int
    padded: int

    @property
    def before(self) -> int:
        """The zeros before the first element."""
        return max(0, -self.origin)

    def reach(self, pes: int) -> tuple[int, int, int]:
        """How far a kernel reaches out of a tile, in pixels: past its end, along it, before it."""
        after = max(0, (self.taps - 1) * self.dilation - self.before)
        return after, ceil_div(self.padded, pes), self.before

    def sums(self, pes: int) -> tuple[int, int, int]:
        """The same in sums: one for each stride, and no more than lie in the plane.

        Outside a tile there are as many outputs as its own output tile leaves.
        """
        after, along, before = (ceil_div(pixels, self.stride) for pixels in self.reach(pes))
        others = self.outputs - ceil_div(self.outputs, pes)
        return min(after, others), min(along, self.outputs), min(before, others)

    def halo(self, rule: str, pes: int) -> tuple[int, int, int]:
        """The sides of what the PEs at an edge send to the next: past it, along it, before it."""
        return {"reach": self.reach, "output": self.sums}[rule](pes)

    def output_of(self, pixel: int, tap: int) -> int | None:
        """The output that a tap makes of a pixel of its phase, None if there is no such output."""
        output, rest = divmod(pixel - tap * self.dilation, self.stride)
        assert rest == 0
        return output if 0 <= output < self.outputs else None

    def phase_of_pixel(self, pixel: int) -> int:
        """The stride phase of a pixel, in padded coordinates."""
        return pixel % self.stride

    def phase_of_tap(self, tap: int) -> int:
        """The stride phase of the pixels that a tap meets."""
        return tap * self.dilation % self.stride

    def tile(self, index: int, pes: int) -> range:
        """The pixels that the PEs at `index` of `pes` own; pixels past the image do not exist."""
        size = ceil_div(self.padded, pes)
        return range(index * size, min((index + 1) * size, self.padded))


@dataclass(frozen=True)
class Convolution:
    """A convolution as the machine runs it.

    The words are those of the computation itself: in dgrad a *filter* makes one input channel c of
    the layer and a *channel*, what is summed over, is an out-channel k.
    """

    x: Axis
    y: Axis
    groups: int
    weight: np.ndarray
    """Filter, channel within the group, tap r, tap s."""
    planar: np.ndarray
    """Sample, channel, then the two axes; without padding."""
    output: np.ndarray
    """Sample, filter, w, h: a view of the op's output, added to."""
    wanted: np.ndarray
    """Which of it somebody wants."""
    missing: int = 0
    """Pixels, the last of the last row, that do not exist."""

    def filters_of(self, group: int) -> range:
        """The filters of a group, numbered in the layer."""
        size = self.weight.shape[0] // self.groups
        return range(group * size, (group + 1) * size)

    def channels_of(self, group: int) -> range:
        """The channels that the filters of a group sum over, numbered in the layer."""
        size = self.planar.shape[1] // self.groups
        return range(group * size, (group + 1) * size)

    def exists(self, x: int, y: int) -> bool:
        """Whether there is such a pixel in the padded plane."""
        return x * self.y.padded + y < self.x.padded * self.y.padded - self.missing

    def phases(self) -> Iterator[tuple[int, int]]:
        """The stride phases; a pixel and a weight of different ones never meet."""
        return np.ndindex(self.x.stride, self.y.stride)

    def address(self, pixel: Pixel, weight: Weight) -> Address | None:
        """The output element of a product, None if it falls outside the output plane."""
        w = self.x.output_of(pixel.x, weight.r)
        if w is None:
            return None
        h = self.y.output_of(pixel.y, weight.s)
        return None if h is None else Address(weight.k, w, h)


def filters_a_chunk(conv: Convolution, config) -> int:
    """Kc: as many filters as the accumulators of a PE have room for, each with an output tile."""
    tile = ceil_div(conv.x.outputs, config.pe_h) * ceil_div(conv.y.outputs, config.pe_w)
    return max(1, config.accumulator // tile)


def halo_of_filter(conv: Convolution, config) -> int:
    """The cycles that a filter's partial sums outside the tiles take to get to the neighbours.

    The sums that a tile holds for its eight neighbours are sent at the same time; the largest of
    the eight rectangles takes longest.
    """
    along_x = conv.x.halo(config.halo, config.pe_h)
    along_y = conv.y.halo(config.halo, config.pe_w)
    here = (1, 1)
    neighbours = [side for side in np.ndindex(3, 3) if side != here]
    return max(along_x[a] * along_y[b] for a, b in neighbours)


def tile_pixels(conv: Convolution, n: int, channel: int, xs: range, ys: range) -> list[Pixel]:
    """The pixels of a tile that exist, zeros of the padding included: x outer, y inner."""
    return [
        Pixel(value_inside(conv.planar, n, channel, x + conv.x.origin, y + conv.y.origin), x, y)
        for x in xs
        for y in ys
        if conv.exists(x, y)
    ]


def chunk_weights(conv: Convolution, channel: int, filters: list[int]) -> list[Weight]:
    """The weights of a channel and a chunk of filters: r, then s, then k innermost."""
    in_group = channel % conv.weight.shape[1]
    return [
        Weight(int(conv.weight[k, in_group, r, s]), k, r, s)
        for r in range(conv.x.taps)
        for s in range(conv.y.taps)
        for k in filters
    ]


def queues_by_phase(conv: Convolution, pixels: list[Pixel], weights: list[Weight]) -> list[Queues]:
    """The queues of one PE: the pixels of a stride phase with the weights that meet them."""

    def pixel_phase(pixel):
        return conv.x.phase_of_pixel(pixel.x), conv.y.phase_of_pixel(pixel.y)

    def weight_phase(weight):
        return conv.x.phase_of_tap(weight.r), conv.y.phase_of_tap(weight.s)

    return [
        Queues(
            [pixel for pixel in pixels if pixel_phase(pixel) == phase],
            [weight for weight in weights if weight_phase(weight) == phase],
        )
        for phase in conv.phases()
    ]


def convolution_step(conv, n: int, channel: int, filters: list[int], mode: Mode, config) -> Step:
    """One channel of one sample with a chunk of filters: all PEs, each on its own tile."""
    weights = queued(chunk_weights(conv, channel, filters), mode.skipping)
    pes = {}
    for i, j in np.ndindex(config.pe_h, config.pe_w):
        xs, ys = conv.x.tile(i, config.pe_h), conv.y.tile(j, config.pe_w)
        owned = tile_pixels(conv, n, channel, xs, ys)
        if owned:
            pes[i, j] = queues_by_phase(conv, queued(owned, mode.skipping), weights)
    part = conv.output[n], conv.wanted[n], mode.skipping
    return Step(pes, conv.address, *part, pixel_words="words_b", weight_words="words_a")


def run_convolution(conv: Convolution, mode: Mode, meter: Meter) -> None:
    """Samples, groups and chunks of filters, one after another.

    A chunk ends with what is still queued, and then with its halos. One of which nobody wants an
    output is left out.
    """
    config = meter.config
    halo, chunk = halo_of_filter(conv, config), filters_a_chunk(conv, config)
    for n, group in np.ndindex(conv.planar.shape[0], conv.groups):
        for filters in chunks(conv.filters_of(group), chunk):
            if mode.skipping and not conv.wanted[n, filters].any():
                continue
            steps = (
                convolution_step(conv, n, channel, filters, mode, config)
                for channel in conv.channels_of(group)
            )
            run_steps(steps, mode, meter)
            meter.exchange_halos(halo * len(filters))


def fprop_axis(shape: Shape, axis: int) -> Axis:
    """Forward: the layer as it is; the whole padded image, read or not."""
    before, after = shape.padding[axis]
    return Axis(
        taps=(shape.R, shape.S)[axis],
        stride=shape.stride[axis],
        dilation=shape.dilation[axis],
        outputs=(shape.P, shape.Q)[axis],
        origin=-before,
        padded=before + (shape.H, shape.W)[axis] + after,
    )


def fprop_convolution(shape: Shape, weight, act, output, wanted) -> Convolution:
    """Forward."""
    x, y = fprop_axis(shape, 0), fprop_axis(shape, 1)
    return Convolution(x, y, shape.groups, weight, act, output, wanted)


def dgrad_axis(shape: Shape, axis: int, taps: list[int], outputs: list[int]) -> Axis:
    """One phase of dgrad: descending taps and the input positions they make, with a stride of 1.

    The padded operand is what the outputs read, so it starts at the element of the gradient where
    the first output meets the first tap.
    """
    stride, dilation = shape.stride[axis], shape.dilation[axis]
    lowered = dilation // gcd(dilation, stride)
    return Axis(
        taps=len(taps),
        stride=1,
        dilation=lowered,
        outputs=len(outputs),
        origin=(outputs[0] + shape.padding[axis][0] - taps[0] * dilation) // stride,
        padded=len(outputs) + (len(taps) - 1) * lowered,
    )


def rotated(weight: np.ndarray, groups: int) -> np.ndarray:
    """Swap filters and channels within each group: (C, K/groups, R, S). Taps stay in place."""
    K, C_group, R, S = weight.shape
    by_group = weight.reshape(groups, K // groups, C_group, R, S)
    return by_group.swapaxes(1, 2).reshape(groups * C_group, K // groups, R, S)


def dgrad_phases(shape: Shape, grad_out, weight, output, wanted) -> Iterator[Convolution]:
    """Input gradient of a lowered layer: a convolution for each of its stride phases.

    Each convolves the output gradient with a part of the rotated kernel; with a stride of 1 there
    is one, with all of it. A phase without taps only has zeros to write, and one without outputs
    has nothing to write: neither costs anything.
    """
    weight = rotated(weight, shape.groups)
    for phase in np.ndindex(*shape.stride):
        (r_taps, rows), (s_taps, columns) = (phase_of_axis(shape, a, phase[a]) for a in (0, 1))
        if not (r_taps and s_taps and rows and columns):
            continue
        of_phase = np.s_[:, :, rows[0] :: shape.stride[0], columns[0] :: shape.stride[1]]
        yield Convolution(
            x=dgrad_axis(shape, 0, r_taps, rows),
            y=dgrad_axis(shape, 1, s_taps, columns),
            groups=shape.groups,
            weight=weight[:, :, r_taps][:, :, :, s_taps],
            planar=grad_out,
            output=output[of_phase],
            wanted=wanted[of_phase],
        )


def as_squares(matrix: np.ndarray) -> np.ndarray:
    """Rows of channels as 16 x 16 images, zeros filling the last of them.

    Channel 256 * block + 16 * x + y is pixel (x, y) of image `block`.
    """
    rows, channels = matrix.shape
    square = LINEAR_SIDE * LINEAR_SIDE
    filled = np.pad(matrix, ((0, 0), (0, -channels % square)))
    return filled.reshape(rows, -1, LINEAR_SIDE, LINEAR_SIDE)


def linear_convolution(weight: np.ndarray, planar: np.ndarray, output, wanted) -> Convolution:
    """A linear layer as one application of a 16 x 16 kernel to each sample's 16 x 16 images."""
    side = LINEAR_SIDE
    axis = Axis(taps=side, stride=1, dilation=1, outputs=1, origin=0, padded=side)
    return Convolution(axis, axis, 1, as_squares(weight), as_squares(planar), output, wanted)


def lies_anyhow(layer) -> bool:
    """Whether a layer's positions are tokens: in a row, and none the neighbour of another."""
    if layer.kind == "linear":
        return False
    shape = convolution_shape(layer)
    alone = (shape.R, shape.S) == (1, 1) == shape.stride and not np.any(shape.padding)
    return bool(alone and 1 in (shape.H, shape.W))


def square_sides(positions: int, config) -> tuple[int, int]:
    """The plane, a x b, on which so many positions keep the PEs busiest.

    Rows of b, the last of them perhaps not full: of all these the one with the fewest pixels of a
    tile, then the most square, then the one of more rows.
    """
    planes = [(ceil_div(positions, b), b) for b in range(1, positions + 1)]

    def preference(plane):
        a, b = plane
        return ceil_div(a, config.pe_h) * ceil_div(b, config.pe_w), abs(a - b), -a

    return min(planes, key=preference)


def on_plane(images: np.ndarray, a: int, b: int) -> np.ndarray:
    """Images whose positions, row by row, fill a plane of rows of b; zeros where none is left."""
    flat = images.reshape(*images.shape[:2], -1)
    fill = a * b - flat.shape[2]
    return np.pad(flat, ((0, 0), (0, 0), (0, fill))).reshape(*images.shape[:2], a, b)


def run_square(op: str, layer, weight, planar, wanted, mode: Mode, meter: Meter) -> np.ndarray:
    """fprop or dgrad of tokens on the plane that suits the PEs; the output as it was recorded."""
    shape = convolution_shape(layer)
    weight = weight if op == "fprop" else rotated(weight, shape.groups)
    a, b = square_sides(shape.H * shape.W, meter.config)
    x, y = (Axis(taps=1, stride=1, dilation=1, outputs=n, origin=0, padded=n) for n in (a, b))
    output = np.zeros((len(planar), len(weight), a, b), dtype=np.int64)
    missing = a * b - shape.H * shape.W
    planes = on_plane(planar, a, b), output, on_plane(wanted, a, b)
    conv = Convolution(x, y, shape.groups, weight, *planes, missing)
    run_convolution(conv, mode, meter)
    there = output.reshape(len(planar), len(weight), -1)[:, :, : shape.H * shape.W]
    return there.reshape(len(planar), len(weight), shape.H, shape.W)


# ---------------------------------------------------------------------------------------------
# wgrad
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OuterProduct:
    """wgrad of one sample and one group: at every tap and position, channels by out-channels.

    SCNN does not say how it would do this; the mapping is ours.
    """

    shape: Shape
    act: np.ndarray
    """The group's channels, H, W."""
    grad_out: np.ndarray
    """The group's out-channels, P, Q."""
    output: np.ndarray
    """Out-channel and channel within the group, R, S: a view of the op's output, added to."""
    wanted: np.ndarray
    """Which of it somebody wants."""

    def activations(self, channels: list[int], at: tuple, tap: tuple) -> list[Pixel]:
        """What a tap meets at an output position, in each of the channels; 0 in the padding."""
        h = self.shape.input_row(at[0], tap[0])
        v = self.shape.input_column(at[1], tap[1])
        return [Pixel(value_inside(self.act[None], 0, c, h, v), c, 0) for c in channels]

    def gradients(self, out_channels: list[int], at: tuple) -> list[Weight]:
        """The gradients at an output position."""
        return [Weight(int(self.grad_out[k, at[0], at[1]]), k, 0, 0) for k in out_channels]


def rounds_of(channels: int, pes: int, accumulator: int) -> list[list[list[int]]]:
    """Channels in blocks, a block a PE, as many PEs as there are in a round: `[round][pe]`."""
    block = min(isqrt(accumulator), ceil_div(channels, pes))
    return chunks(chunks(range(channels), block), pes)


def wgrad_step(work: OuterProduct, tap, c_blocks, k_blocks, mode: Mode) -> Step:
    """One tap, all positions: PE (i, j) has block i of the channels, j of the out-channels.

    A PE of whose weights nobody wants one owns nothing.
    """
    output, wanted = (part[:, :, tap[0], tap[1], None] for part in (work.output, work.wanted))

    def queues(channels, out_channels, at) -> Queues:
        activations = work.activations(channels, at, tap)
        gradients = work.gradients(out_channels, at)
        return Queues(queued(activations, mode.skipping), queued(gradients, mode.skipping))

    positions = list(np.ndindex(work.shape.P, work.shape.Q))
    pes = {
        (i, j): [queues(channels, out_channels, at) for at in positions]
        for i, channels in enumerate(c_blocks)
        for j, out_channels in enumerate(k_blocks)
        if not mode.skipping or wanted[np.ix_(out_channels, channels)].any()
    }

    def address(act, grad) -> Address:
        return Address(grad.k, act.x, 0)

    part = output, wanted, mode.skipping
    return Step(pes, address, *part, pixel_words="words_a", weight_words="words_b")


def outer_products(shape: Shape, act, grad_out, output, wanted) -> Iterator[OuterProduct]:
    """Samples and groups, one after another."""
    C_group, K_group = shape.C // shape.groups, shape.K // shape.groups
    for n, group in np.ndindex(act.shape[0], shape.groups):
        c = slice(group * C_group, (group + 1) * C_group)
        k = slice(group * K_group, (group + 1) * K_group)
        yield OuterProduct(shape, act[n, c], grad_out[n, k], output[k], wanted[k])


def run_wgrad(work: OuterProduct, mode: Mode, meter: Meter) -> None:
    """Taps, and rounds of blocks of channels, one after another.

    Each step has sums of its own in the accumulators, so each ends with what is still queued. One
    in which no PE owns anything is none.
    """
    config = meter.config
    c_rounds = rounds_of(work.act.shape[0], config.pe_h, config.accumulator)
    k_rounds = rounds_of(work.grad_out.shape[0], config.pe_w, config.accumulator)
    for tap in np.ndindex(work.shape.R, work.shape.S):
        for c_blocks in c_rounds:
            for k_blocks in k_rounds:
                step = wgrad_step(work, tap, c_blocks, k_blocks, mode)
                if step.pes:
                    run_steps([step], mode, meter)


# ---------------------------------------------------------------------------------------------
# The entry point
# ---------------------------------------------------------------------------------------------


def convolutions_of(op: str, layer, operands: dict, output, wanted, config):
    """fprop or dgrad as the convolutions that the machine runs, one after another."""
    shape = convolution_shape(layer)
    weight, planar = operands["weight"], operands["act" if op == "fprop" else "grad_out"]
    if layer.kind == "linear":
        filters = weight if op == "fprop" else weight.T
        return [linear_convolution(filters, planar, output, wanted)]
    if op == "fprop":
        return [fprop_convolution(shape, weight, planar, output, wanted)]
    return dgrad_phases(*lower_dgrad(config.dgrad_lowering, shape, planar), weight, output, wanted)


def run(op: str, layer, operands: dict, output, wanted, mode: Mode, meter: Meter) -> None:
    """Run the op, adding to `output`, which has four axes for a linear layer too, as `wanted`."""
    if op != "wgrad" and meter.config.positions == "square" and lies_anyhow(layer):
        output += run_square(op, layer, *operands.values(), wanted, mode, meter)
        return
    if op != "wgrad":
        for conv in convolutions_of(op, layer, operands, output, wanted, meter.config):
            run_convolution(conv, mode, meter)
        return
    linear = layer.kind == "linear"
    images = {name: a[:, :, None, None] if linear else a for name, a in operands.items()}
    for work in outer_products(convolution_shape(layer), **images, output=output, wanted=wanted):
        run_wgrad(work, mode, meter)


def simulate(
    op,
    layer,
    config,
    *,
    weight=None,
    act=None,
    grad_out=None,
    skipping=True,
    conflicts=True,
    wanted=None,
) -> NaiveResult:
    """Run one op of one layer on the machine.

    Without `skipping` it is the machine's dense baseline: the same loops with every pixel and every
    weight in the queues. Without `conflicts`, too, no product ever waits for its bank. `wanted` are
    the outputs that somebody wants, in the output's shape; None: all. The baseline makes all.
    """
    operands = operands_of(op, {"weight": weight, "act": act, "grad_out": grad_out})
    output = empty_output(op, convolution_shape(layer), samples_in(operands))
    wanted = np.ones(output.shape, bool) if wanted is None else wanted.reshape(output.shape)
    meter = Meter(config)
    run(op, layer, operands, output, wanted, Mode(skipping, conflicts), meter)
    lanes = config.pe_h * config.pe_w * meter.multipliers
    assert sum(meter.lane_cycles.values()) == meter.cycles * lanes
    if layer.kind == "linear":
        output = output[:, :, 0, 0]
    counted = meter.cycles, meter.lane_cycles, meter.events
    pes = list(np.ndindex(config.pe_h, config.pe_w))
    by_pe = ([of[pe] for pe in pes] for of in (meter.own, meter.waits))
    return NaiveResult(output, *counted, "", *by_pe)
