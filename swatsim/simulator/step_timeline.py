"""A whole step as a trace of events: its ops in order, their blocks, and what they wait for.

The ops of a step follow one another: forward in the network's order, then backward from the last
layer on, dgrad before wgrad. What else a phase does comes behind its layers, for no trace says when
it was done between them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from swatsim import provenance
from swatsim.columns import Role
from swatsim.errors import ConfigError
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.mechanism import ConfiguredMachine, Runnable
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.run import checked, in_order, threads_of
from swatsim.simulator.step_tracks import Drawn, Tracks
from swatsim.simulator.systems import Row
from swatsim.simulator.tiles import spread
from swatsim.simulator.trace_events import UNIT, Json
from swatsim.simulator.trace_run import Job, Run
from swatsim.tracefile import Step, Trace, covered
from swatsim.workload.layer import Layer, OpName
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.phases import PHASES, in_run_order

log = logging.getLogger(__name__)

#: Blocks of an op that are drawn apart, by default and at most.
BLOCKS, MAX_BLOCKS = 64, 10_000
#: Tiles that are drawn, by default and at most.
TILES, MAX_TILES = 4, 1000
#: Events of a step for which a viewer stays quick; of a block, and of a tile in an op, at most.
EVENTS, EVENTS_OF_BLOCK, EVENTS_OF_TILE = 200_000, 10, 2
#: A viewer is slow beyond: about 100 MB of JSON.
MAX_EVENTS = 500_000

DRAWN = (
    "ops one after another, forward in the network's order, backward from the last layer on, dgrad "
    "before wgrad; what else a phase does behind its layers; while a block is computed the next "
    "one's loads before the last one's stores, and waiting after computing; in an op a tile's own "
    "work first, then its waiting for slower ones, then what the op waits for memory"
)


def step_timeline(
    trace: Trace, machine: Runnable, number: int, blocks: int, tiles: int = TILES
) -> dict[str, Any]:
    """Return what a step does on a machine, as `swatsim.timeline` does.

    Raises
    ------
    TraceError
        If the trace has no such step, or is damaged.
    ConfigError
        If a number of blocks or of tiles is none, a buffer is too small, or there are too many ops
        to draw.
    """
    if blocks not in range(1, MAX_BLOCKS + 1):
        raise ConfigError(f"blocks={blocks} is not allowed: must be 1 to {MAX_BLOCKS}")
    if tiles not in range(MAX_TILES + 1):
        raise ConfigError(f"tiles={tiles} is not allowed: must be 0 to {MAX_TILES}")
    run = Run(trace, [machine], None, energy_table("45nm"))
    jobs = run.jobs([number])
    run.check_before(jobs)
    resolved = checked(run.describe(machine, covered.describe(trace, [number]), [number]))
    step, left_out = jobs[0][0], resolved["others_left_out"]
    shown = _Shown.of(machine, tiles)
    left = EVENTS // len(jobs) - EVENTS_OF_TILE * len(shown.numbers)
    apart = max(1, min(blocks, left // EVENTS_OF_BLOCK))
    title = _title(trace, step, machine, left_out)
    tracks = Tracks(machine, title, apart, shown.names, shown.title)
    others = [] if left_out else run.others(step)[0]
    _draw(
        tracks, _scheduled(run, jobs, shown), [row for row in others if row["role"] == Role.MACHINE]
    )
    events = tracks.end()
    if len(events) > MAX_EVENTS:
        raise ConfigError(
            f"step {number} of {trace.name} has {len(jobs)} ops: more than {MAX_EVENTS} events, "
            "the most that is written; choose one of its ops (--layer and --op)"
        )
    log.info("%d events of step %d", len(events), number)
    about = {
        **_sizes(machine, tracks.now),
        "machine": machine.name,
        "step": number,
        "trace": trace.name,
        "trace_id": trace.id,
        "drawn": DRAWN,
        "blocks_apart": f"at most {apart} of an op; {tracks.merged} are drawn with others",
        "tiles_drawn": shown.names,
        "provenance": provenance.collect(resolved),
    }
    return {"otherData": about, "displayTimeUnit": "ms", "traceEvents": events}


class _Shown(NamedTuple):
    """The tiles that are drawn.

    Parameters
    ----------
    numbers : list of int
    names : list of str
    title : str
    own : callable of LoweredOp to list of int
        Cycles of an op that each has work of its own.
    """

    numbers: list[int]
    names: list[str]
    title: str
    own: Callable[[LoweredOp], list[int]]

    @classmethod
    def of(cls, machine: Runnable, at_most: int) -> _Shown:
        """Return so many tiles of a machine at most, evenly spread; none of one that names none."""
        of = machine.mechanism.tiles if isinstance(machine, ConfiguredMachine) else None
        if of is None or not at_most:
            return cls([], [], "", lambda op: [])
        count = of.count(machine.config)
        numbers = spread(count, at_most)
        title = f"single {of.name}s, {len(numbers)} of {count}: what each has to do in an op"
        names = [f"{of.name} {number}" for number in numbers]
        return cls(numbers, names, title, lambda op: of.own(op, machine.config, numbers))


def _scheduled(run: Run, jobs: Sequence[Job], shown: _Shown) -> list[Drawn]:
    """Return the ops of the jobs, block by block, with what tiles do, on all cores."""

    def scheduled(step: Step, layer: Layer, name: OpName) -> Drawn:
        of = run.scheduled(step, layer, name)
        own = shown.own(lower(run.read(step, layer, name))) if shown.numbers else []
        return Drawn(of, own)

    try:
        return list(in_order(scheduled, jobs, threads_of(None), None))
    except BufferTooSmallError as error:
        raise run.refusal(error, jobs) from None


def _draw(tracks: Tracks, ops: Sequence[Drawn], others: Sequence[Row]) -> None:
    for phase in PHASES:
        begin = tracks.now
        for op in in_run_order(ops, phase, lambda op: (op.of.layer, op.of.op)):
            tracks.op(*op)
        for row in others:
            if row["phase"] == phase:
                tracks.other(row)
        if tracks.now > begin:
            tracks.phase(phase, begin)


def _sizes(machine: Runnable, cycles: int) -> Json:
    """Return how long a cycle is, and how long the step takes."""
    config = machine.config
    if config is None:
        return {"unit": UNIT, "cycles": cycles}
    return {
        "unit": f"{UNIT}, of {1000 / config.clock_mhz:g} ns at {config.clock_mhz} MHz",
        "cycles": cycles,
        "time_ms": cycles / (1000 * config.clock_mhz),
        "dram_mb_per_s": config.finite_mb_per_s,
        "pes": config.pes,
        "lanes": config.lanes,
    }


def _title(trace: Trace, step: Step, machine: Runnable, left_out: str) -> str:
    """Return in words what is drawn: whose time, of which step, and how much of it."""
    images = max(step.samples_of(layer.name) for layer in step.layers)
    batch = max(step.batch_of(layer.name) for layer in step.layers)
    of = f"{images} of {batch} images" if images < batch else f"{images} images"
    held = f", {step.coverage.share:.1%} of its multiplications" if step.coverage else ""
    alone = f"; its layers alone: {left_out}" if left_out else ""
    return f"{machine.name}: step {step.number} of {trace.name}, {of}{held}{alone}"
