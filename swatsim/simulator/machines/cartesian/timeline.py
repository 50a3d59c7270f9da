"""One PE, cycle by cycle: which block met which, what conflicts cost, what it waited for.

The kernels queue, pair, cost and log; here their log is put into words. Each part of an op is run
twice, for its steps and for the pairs of blocks of those in the window, so that a log is as long as
a window, wherever that lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from swatsim.simulator.elements import Numbers, assemble, element, numbered
from swatsim.simulator.interface import Event, Timeline, check_tile
from swatsim.simulator.machines.cartesian.channels import Channels
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.groups import Planar
from swatsim.simulator.machines.cartesian.kernel_log import Log
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts
from swatsim.simulator.machines.cartesian.logged import log_pairs, log_steps
from swatsim.simulator.machines.cartesian.mapping import outer_products, planar
from swatsim.workload.layer import OPERANDS_OF
from swatsim.workload.lowering import LoweredOp

THREADS = ("steps", "products", "bank conflicts", "waits")
STEPS, PRODUCTS, CONFLICTS, WAITS = range(4)

Part = TypeVar("Part", Planar, Channels)
#: The numbers of the elements in a part's planar side (wgrad: act), and in the other.
Numbered = Callable[[], tuple[Numbers, Numbers]]


class Piece(NamedTuple):
    """One sample's part of an op, and the PE that is drawn.

    Parameters
    ----------
    log : callable of numpy.ndarray, numpy.ndarray to Log
        As `logged.log_pairs`, for the first and end of each step.
    numbers : callable
        Those of its elements.
    steps : int
        Of the kernel; halos are none of them.
    """

    log: Callable[[Counts, Counts], Log]
    numbers: Numbered
    steps: int


class Step(NamedTuple):
    """What PEs do before they wait for each other.

    Parameters
    ----------
    name : str
    where : dict
    cycles : int
        Of the slowest PE.
    own : int
        Of this PE; -1: it has no part.
    piece : Piece
    number : int
        Among the piece's steps, drains included, in the kernel's order; -1: a halo.
    corner : tuple of int, or None
        Channel, and first filter of the chunk; in wgrad None.
    """

    name: str
    where: dict[str, Any]
    cycles: int
    own: int
    piece: Piece
    number: int
    corner: tuple[int, int] | None = None


def timeline(op: LoweredOp, config: CartesianConfig, tile: int) -> Timeline:
    """Return what one PE does: PE (i, j) is number i * pe_w + j.

    Raises
    ------
    ConfigError
        If there is no such PE.
    """
    check_tile(tile, config.pes, op, f"one of the {config.pe_h} x {config.pe_w} PEs")
    pe = divmod(tile, config.pe_w)
    steps = list(_steps(op, config, pe))

    def events(window: range) -> Iterator[Event]:
        begin = 0
        for piece, some in groupby(steps, attrgetter("piece")):
            of_piece = list(some)
            end = begin + sum(step.cycles for step in of_piece)
            if window.start <= end and begin <= window.stop:
                yield from _piece_events(op, piece, of_piece, begin, window, config.lanes)
            begin = end

    about = {"tiles": config.pes, "pe": list(pe), "steps": len(steps)}
    return Timeline(THREADS, sum(step.cycles for step in steps), events, about)


def _steps(op: LoweredOp, config: CartesianConfig, pe: tuple[int, int]) -> Iterator[Step]:
    """Yield all steps: sample by sample, so that only one's elements are numbered at a time."""
    for sample in range(op.samples):
        one = _one_sample(op, sample)
        if op.name == "wgrad":
            parts = _parts(one, config, _whole_products, ("act", "grad"))
            for group, (channels, numbers) in enumerate(parts):
                where = {"sample": sample, "group": group}
                yield from _outer_steps(channels, numbers, config, pe, where)
        else:
            convolutions = _parts(one, config, planar, ("data", "weight"))
            for i, (part, numbers) in enumerate(convolutions):
                where = {"sample": sample, "phase": i // op.layer.groups}
                where["group"] = i % op.layer.groups
                yield from _planar_steps(part, numbers, config, pe, where)


def _planar_steps(
    part: Planar,
    numbers: Numbered,
    config: CartesianConfig,
    pe: tuple[int, int],
    where: dict[str, Any],
) -> Iterator[Step]:
    """Yield the steps chunk by chunk of filters, channel by channel; then its drain and halo."""
    channels, filters = part.weight.shape[:2]
    chunks = -(-filters // part.array.chunk)
    cycles, own = (log.reshape(-1, chunks) for log in log_steps(part, config, pe))
    piece = Piece(partial(log_pairs, part, config, pe), numbers, cycles.size)
    for chunk in range(chunks):
        if part.wanted is not None and not part.wanted.chunks[chunk, 0]:
            continue
        first = chunk * part.array.chunk
        filters_here = min(part.array.chunk, filters - first)
        at = {**where, "chunk": chunk, "filters": filters_here}
        for c in range(channels):
            taken = int(cycles[c, chunk]), int(own[c, chunk])
            name, number = f"chunk {chunk}, channel {c}", c * chunks + chunk
            yield Step(name, {**at, "channel": c}, *taken, piece, number, (c, first))
        for drain in range(channels, cycles.shape[0]):
            taken = int(cycles[drain, chunk]), int(own[drain, chunk])
            yield Step("drain", at, *taken, piece, drain * chunks + chunk)
        if part.halo:
            yield Step("halo", at, part.halo * filters_here, -1, piece, -1)


def _outer_steps(
    part: Channels,
    numbers: Numbered,
    config: CartesianConfig,
    pe: tuple[int, int],
    where: dict[str, Any],
) -> Iterator[Step]:
    """Yield the steps tap by tap, round by round, each with its drain if there is one."""
    cycles, own = log_steps(part, config, pe)
    rounds = -(-part.blocks[0] // config.pe_h) * -(-part.blocks[1] // config.pe_w)
    piece = Piece(partial(log_pairs, part, config, pe), numbers, cycles.size)
    each = cycles.size // (part.met.taps * rounds)
    for number, taken in enumerate(zip(cycles.tolist(), own.tolist(), strict=True)):
        tap, round_ = divmod(number // each, rounds)
        name = "drain" if number % each else f"tap {tap}, round {round_}"
        yield Step(name, {**where, "tap": tap, "round": round_}, *taken, piece, number)


def _whole_products(op: LoweredOp, config: CartesianConfig) -> Iterator[Channels]:
    return (product.whole() for product in outer_products(op, config))


def _one_sample(op: LoweredOp, sample: int) -> LoweredOp:
    masks = {
        name: mask if name == "weight" else mask[sample : sample + 1]
        for name, mask in op.operands.items()
    }
    if op.output is None or op.name == "wgrad":
        return op.with_masks(masks)
    own = op.output[sample : sample + 1]
    return replace(op.of_all_outputs().with_masks(masks), output=own)


def _parts(
    op: LoweredOp,
    config: CartesianConfig,
    cut: Callable[[LoweredOp, CartesianConfig], Iterator[Part]],
    names: tuple[str, str],
) -> Iterator[tuple[Part, Numbered]]:
    """Yield the parts of an op; the numbers of their elements are made when first asked for."""

    @cache
    def numbers() -> list[tuple[Numbers, Numbers]]:
        planes = zip(*(cut(plane, config) for plane in numbered(op.of_all_outputs())), strict=True)
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


def _piece_events(
    op: LoweredOp, piece: Piece, steps: list[Step], begin: int, window: range, lanes: int
) -> Iterator[Event]:
    """Yield the events of those steps of a piece that lie in a window; it begins at `begin`."""
    first, end = np.zeros((2, piece.steps), np.int64)
    begins = begin + np.cumsum([0, *(step.cycles for step in steps)])
    for step, at in zip(steps, begins.tolist(), strict=False):
        if step.number >= 0:
            first[step.number], end[step.number] = (
                min(max(0, edge - at), step.cycles) for edge in (window.start, window.stop)
            )
    log = piece.log(first, end)
    for step, at in zip(steps, begins.tolist(), strict=False):
        if at <= window.stop and at + max(1, step.cycles) > window.start:
            yield from _step_events(op, step, at, log, lanes)


def _step_events(op: LoweredOp, step: Step, begin: int, log: Log, lanes: int) -> Iterator[Event]:
    """Yield the events of a step: the pairs that are logged one after another, then waiting."""
    yield Event(STEPS, step.name, "step", begin, step.cycles, step.where)
    if step.name == "halo":
        yield Event(WAITS, "exchanges halos", "halo", begin, step.cycles, step.where)
    elif step.own < 0:
        if step.cycles:
            yield Event(WAITS, "owns nothing", "unmapped", begin, step.cycles, step.where)
    else:
        for pair in np.flatnonzero(log.step[: log.size[1]] == step.number).tolist():
            yield from _pair_events(op, step, log, pair, begin, lanes)
        if step.name == "drain" and step.own:
            yield Event(CONFLICTS, "drains", "bank_conflict", begin, step.own, step.where)
        if step.own < step.cycles:
            wait = begin + step.own, step.cycles - step.own
            of = {"step": step.name}
            yield Event(WAITS, "waits for the slowest PE", "pe_sync", *wait, of)


def _pair_events(
    op: LoweredOp, step: Step, log: Log, pair: int, begin: int, lanes: int
) -> Iterator[Event]:
    """Yield the events of a pair: issued, it waits for its fullest bank; or it waits to be."""
    at, cost = begin + int(log.begin[pair]), int(log.cost[pair])
    if log.queued:
        yield _product(op, step, log, pair, (at + cost - 1, 1), lanes)
        if cost > 1:
            what = {"stalls": cost - 1}
            yield Event(CONFLICTS, "waits for a queue", "bank_conflict", at, cost - 1, what)
        return
    yield _product(op, step, log, pair, (at, cost), lanes)
    if cost > 1:
        what = {"bank": int(log.fullest[pair]), "products": cost}
        yield Event(CONFLICTS, "bank conflict", "bank_conflict", at + 1, cost - 1, what)


def _product(
    op: LoweredOp, step: Step, log: Log, pair: int, when: tuple[int, int], lanes: int
) -> Event:
    """Return the event of a pair of blocks, which begins and lasts as `when` says."""
    pixels, weights = _numbers_of(step, log, pair)
    first, second = OPERANDS_OF[op.name]
    across, along = (first, second) if op.name == "wgrad" else (second, first)
    details: dict[str, Any] = {}
    for operand, numbers in ((across, pixels), (along, weights)):
        elements = [element(op, operand, number) or {} for number in numbers]
        # numbered within one sample, so that it seems to be the first
        sample = step.where["sample"]
        details[op.called(operand)] = [
            {**element_, "n": sample} if "n" in element_ else element_ for element_ in elements
        ]
    banks = log.banks[pair, : len(pixels), : len(weights)].tolist()
    products = len(pixels) * len(weights)
    details["banks"] = [[None if bank < 0 else bank for bank in row] for row in banks]
    details |= {"products": products, "idle": lanes - products}
    name = f"{len(pixels)} x {len(weights)}"
    return Event(PRODUCTS, name, "product", *when, details)


def _numbers_of(step: Step, log: Log, pair: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the elements that a pair's blocks hold."""
    across, along = step.piece.numbers()
    pixels, weights = (places[pair] for places in (log.pixels, log.weights))
    i, j = pixels[pixels[:, 0] >= 0].T
    weights = weights[weights[:, 0] >= 0]
    if step.corner is None:
        position, k = weights.T
        return across[i, j].tolist(), along[position, k].tolist()
    c, first = step.corner
    r, s, k = weights.T
    return across[c, 0, i, j].tolist(), along[c, first + k, r, s].tolist()
