"""One PE, cycle by cycle: which block met which, what conflicts cost, what it waited for.

A PE's pairs of blocks in plain Python; the kernels are asked only how long the slowest PE of each
step takes, so that a window far into an op is found without playing all that is before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from swatsim.errors import ConfigError
from swatsim.simulator.elements import Numbers, assemble, element, numbered
from swatsim.simulator.interface import Event, Timeline
from swatsim.simulator.machines.cartesian import kernel, kernel_wgrad
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.kernel import Bits, Counts
from swatsim.simulator.machines.cartesian.kernel_wgrad import Outer
from swatsim.simulator.machines.cartesian.machine import queue
from swatsim.simulator.machines.cartesian.mapping import (
    Channels,
    Planar,
    bank_table,
    outer_products,
    planar,
)
from swatsim.workload.layer import OPERANDS_OF
from swatsim.workload.lowering import LoweredOp

THREADS = ("steps", "products", "bank conflicts", "waits")
STEPS, PRODUCTS, CONFLICTS, WAITS = range(4)

Part = TypeVar("Part", Planar, Channels)
#: The numbers of the elements in a part's planar side (wgrad: act), and in the other.
Numbered = Callable[[], tuple[Numbers, Numbers]]


class Pair(NamedTuple):
    """A block of pixels against a block of weights; in wgrad of activations, of gradients.

    Parameters
    ----------
    pixels, weights : list of int
        Numbers of the elements.
    banks : list of list of (int or None)
        Bank of each pixel's product with each weight; None: it falls outside the output plane.
    """

    pixels: list[int]
    weights: list[int]
    banks: list[list[int | None]]

    def conflict(self) -> tuple[int | None, int]:
        """Name the bank that most products fall into, and how many: the pair's cost."""
        hits = Counter(bank for row in self.banks for bank in row if bank is not None)
        return hits.most_common(1)[0] if hits else (None, 1)


class Step(NamedTuple):
    """What PEs do before they wait for each other.

    Parameters
    ----------
    name : str
    where : dict
    cycles : int
        Of the slowest PE.
    pairs : callable, or None
        What this PE does; None: nothing, it has no part.
    sample : int
    """

    name: str
    where: dict[str, Any]
    cycles: int
    pairs: Callable[[], Iterator[Pair]] | None
    sample: int


def timeline(op: LoweredOp, config: CartesianConfig, tile: int) -> Timeline:
    """Play one PE: PE (i, j) is number i * pe_w + j.

    Raises
    ------
    ConfigError
        If there is no such PE.
    """
    if not isinstance(tile, int) or tile not in range(config.pes):
        raise ConfigError(
            f"tile={tile!r} is not allowed: a tile of this machine is one of its {config.pe_h} x "
            f"{config.pe_w} PEs; choose one of 0 to {config.pes - 1}"
        )
    pe = divmod(tile, config.pe_w)
    steps = list(_steps(op, config, pe))

    def events(window: range) -> Iterator[Event]:
        begin = 0
        for step in steps:
            if begin > window.stop:
                return
            if begin + max(1, step.cycles) > window.start:
                yield from _step_events(op, step, begin, window.stop, config.lanes)
            begin += step.cycles

    about = {"tiles": config.pes, "pe": list(pe), "steps": len(steps)}
    return Timeline(THREADS, sum(step.cycles for step in steps), events, about)


def _steps(op: LoweredOp, config: CartesianConfig, pe: tuple[int, int]) -> Iterator[Step]:
    """List all steps: sample by sample, so that only one's elements are numbered at a time."""
    for sample in range(op.samples):
        one = _one_sample(op, sample)
        if op.name == "wgrad":
            parts = _parts(one, config, outer_products, ("act", "grad"))
            for group, (channels, numbers) in enumerate(parts):
                yield from _outer_steps(channels, numbers, config, pe, (sample, group))
        else:
            convolutions = _parts(one, config, planar, ("data", "weight"))
            for i, (part, numbers) in enumerate(convolutions):
                where = {"sample": sample, "phase": i // op.layer.groups}
                where["group"] = i % op.layer.groups
                yield from _planar_steps(part, numbers, pe, config, where)


def _one_sample(op: LoweredOp, sample: int) -> LoweredOp:
    masks = {
        name: mask if name == "weight" else mask[sample : sample + 1]
        for name, mask in op.operands.items()
    }
    return op.with_masks(masks)


def _parts(
    op: LoweredOp,
    config: CartesianConfig,
    cut: Callable[[LoweredOp, CartesianConfig], Iterator[Part]],
    names: tuple[str, str],
) -> Iterator[tuple[Part, Numbered]]:
    """Cut an op into parts; the numbers of their elements are made when first asked for."""

    @cache
    def numbers() -> list[tuple[Numbers, Numbers]]:
        planes = zip(*(cut(plane, config) for plane in numbered(op)), strict=True)
        return [
            (
                assemble(getattr(p, names[0]) for p in bits),
                assemble(getattr(p, names[1]) for p in bits),
            )
            for bits in planes
        ]

    for i, part in enumerate(cut(op, config)):
        yield part, partial(lambda index: numbers()[index], i)


# ---- events ----------------------------------------------------------------------------------


def _step_events(op: LoweredOp, step: Step, begin: int, stop: int, lanes: int) -> Iterator[Event]:
    """Draw a step, as far as `stop`: its pairs one after another, then waiting."""
    yield Event(STEPS, step.name, "step", begin, step.cycles, step.where)
    if step.name == "halo":
        yield Event(WAITS, "exchanges halos", "halo", begin, step.cycles, step.where)
    elif step.pairs is None:
        if step.cycles:
            yield Event(WAITS, "owns nothing", "unmapped", begin, step.cycles, step.where)
    else:
        end = begin + step.cycles
        for pair in step.pairs():
            if begin >= stop:
                return
            bank, cost = pair.conflict()
            yield _products(op, pair, step.sample, begin, cost, lanes)
            if cost > 1:
                what = {"bank": bank, "products": cost}
                yield Event(CONFLICTS, "bank conflict", "bank_conflict", begin + 1, cost - 1, what)
            begin += cost
        if begin < end:
            wait = {"step": step.name}
            yield Event(WAITS, "waits for the slowest PE", "pe_sync", begin, end - begin, wait)


def _products(op: LoweredOp, pair: Pair, sample: int, begin: int, cost: int, lanes: int) -> Event:
    products = len(pair.pixels) * len(pair.weights)
    first, second = OPERANDS_OF[op.name]
    across, along = (first, second) if op.name == "wgrad" else (second, first)
    details: dict[str, Any] = {}
    for operand, numbers in ((across, pair.pixels), (along, pair.weights)):
        found = [element(op, operand, number) or {} for number in numbers]
        # numbered within one sample, so that it seems to be the first
        details[op.called(operand)] = [{**it, "n": sample} if "n" in it else it for it in found]
    details |= {"banks": pair.banks, "products": products, "idle": lanes - products}
    name = f"{len(pair.pixels)} x {len(pair.weights)}"
    return Event(PRODUCTS, name, "product", begin, cost, details)


def _blocks(queued: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [queued[first : first + size] for first in range(0, len(queued), size)]


# ---- fprop, and dgrad after lowering ---------------------------------------------------------


def _planar_steps(
    part: Planar,
    numbers: Numbered,
    pe: tuple[int, int],
    config: CartesianConfig,
    where: dict[str, Any],
) -> Iterator[Step]:
    """Chunk by chunk of filters, channel by channel; after each chunk its halo."""
    channels, filters = part.weight.shape[:2]
    owns = pe[0] * part.rows.tile < part.data.shape[2]
    owns &= pe[1] * part.columns.tile < part.data.shape[3]
    for chunk, first in enumerate(range(0, filters, part.array.chunk)):
        some = range(first, min(first + part.array.chunk, filters))
        for c in range(channels):
            data, weight = part.data[c : c + 1], part.weight[c : c + 1, some.start : some.stop]
            cycles = kernel.convolve(
                data, weight, part.first_k + first, part.rows, part.columns, part.array
            ).cycles

            def pairs(c: int = c, some: range = some) -> Iterator[Pair]:
                return _planar_pairs(part, numbers(), c, some, pe, config)

            at = {**where, "chunk": chunk, "filters": len(some), "channel": c}
            name = f"chunk {chunk}, channel {c}"
            yield Step(name, at, int(cycles), pairs if owns else None, where["sample"])
        if part.halo:
            at = {**where, "chunk": chunk, "filters": len(some)}
            yield Step("halo", at, part.halo * len(some), None, where["sample"])


def _planar_pairs(
    part: Planar,
    numbers: tuple[Numbers, Numbers],
    c: int,
    filters: range,
    pe: tuple[int, int],
    config: CartesianConfig,
) -> Iterator[Pair]:
    """Queue one channel's pixels and one chunk's weights, phase by phase, and pair their blocks."""
    rows, columns = part.rows, part.columns
    top, left = pe[0] * rows.tile, pe[1] * columns.tile
    image = part.data[c, 0, top : top + rows.tile, left : left + columns.tile]
    pixels = np.argwhere(image) + np.array([top, left])  # x outer, y inner
    kernels = part.weight[c, filters.start : filters.stop].transpose(1, 2, 0)
    weights = np.argwhere(kernels) + np.array([0, 0, filters.start])  # (r, s, k), k innermost
    for a, b in np.ndindex(rows.stride, columns.stride):
        queued = pixels[(pixels[:, 0] % rows.stride == a) & (pixels[:, 1] % columns.stride == b)]
        of_row, of_column = rows.tap_phase[weights[:, 0]], columns.tap_phase[weights[:, 1]]
        met = weights[(of_row == a) & (of_column == b)]
        for block in _blocks(queued.tolist(), config.act_vector):
            for against in _blocks(met.tolist(), config.weight_vector):
                yield Pair(
                    [int(numbers[0][c, 0, x, y]) for x, y in block],
                    [int(numbers[1][c, k, r, s]) for r, s, k in against],
                    [[_bank(part, pixel, weight) for weight in against] for pixel in block],
                )


def _bank(part: Planar, pixel: list[int], weight: list[int]) -> int | None:
    """Find the bank of a product; None: it falls outside the output plane."""
    (x, y), (r, s, k) = pixel, weight
    w = part.rows.output_bits[part.rows.pixel_class[x], r]
    h = part.columns.output_bits[part.columns.pixel_class[y], s]
    return None if w < 0 or h < 0 else int(part.array.bank[(part.first_k + k) % 8, w, h])


# ---- wgrad -----------------------------------------------------------------------------------


def _outer_steps(
    part: Channels,
    numbers: Numbered,
    config: CartesianConfig,
    pe: tuple[int, int],
    of: tuple[int, int],
) -> Iterator[Step]:
    """Tap by tap, round by round."""
    act, grad, table = queue(part, config)
    rounds = _rounds(act, part.blocks[0], config.pe_h), _rounds(grad, part.blocks[1], config.pe_w)
    for tap in range(len(part.met)):
        met = part.met[tap : tap + 1]
        for number, (i, j) in enumerate(np.ndindex(len(rounds[0]), len(rounds[1]))):
            (acts, rows), (grads, columns) = rounds[0][i], rounds[1][j]
            work = kernel_wgrad.outer_product(
                acts, grads, met, rows, columns, table, config.pe_h, config.pe_w
            )
            block = i * config.pe_h + pe[0], j * config.pe_w + pe[1]

            def pairs(tap: int = tap, block: tuple[int, int] = block) -> Iterator[Pair]:
                return _outer_pairs(part, numbers(), tap, block, config)

            owns = pe[0] < rows and pe[1] < columns
            at = {"sample": of[0], "group": of[1], "tap": tap, "round": number}
            name = f"tap {tap}, round {number}"
            yield Step(name, at, int(work.cycles), pairs if owns else None, of[0])


def _rounds(queued: Outer, blocks: int, pes: int) -> list[tuple[Outer, int]]:
    """Pick the PE blocks of each round out of an operand's queue, and count them."""
    lengths = np.diff(queued.starts)
    owner = np.arange(lengths.size) % blocks
    found = []
    for first in range(0, blocks, pes):
        chosen = (owner >= first) & (owner < first + pes)
        starts = np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64)
        patterns = queued.patterns[np.repeat(chosen, lengths)]
        found.append((Outer(patterns, starts, queued.nonzero[chosen]), min(pes, blocks - first)))
    return found


def _outer_pairs(
    part: Channels,
    numbers: tuple[Numbers, Numbers],
    tap: int,
    block: tuple[int, int],
    config: CartesianConfig,
) -> Iterator[Pair]:
    """Pair a PE's activations and gradients, position by position."""
    bank = bank_table(config.banks)[:, :, 0]
    for position, pixel in enumerate(part.met[tap].tolist()):
        if pixel < 0:
            continue
        acts = _channels(part.act[pixel], block[0], part.block_c)
        grads = _channels(part.grad[position], block[1], part.block_k)
        for some in _blocks(acts, config.act_vector):
            for others in _blocks(grads, config.weight_vector):
                yield Pair(
                    [int(numbers[0][pixel, c]) for c in some],
                    [int(numbers[1][position, k]) for k in others],
                    [[int(bank[k % 8, c % 4]) for k in others] for c in some],
                )


def _channels(values: Bits, block: int, size: int) -> list[int]:
    """List the non-zero channels of a PE's block."""
    own: Counts = np.flatnonzero(values[block * size : (block + 1) * size]) + block * size
    channels: list[int] = own.tolist()
    return channels
