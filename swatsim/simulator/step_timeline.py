"""A whole step as a trace of events: its ops in order, their blocks, and what they wait for.

The ops of a step follow one another: forward in the network's order, then backward from the last
layer on, dgrad before wgrad. What else a phase does comes behind its layers, for no trace says when
it was done between them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from swatsim import provenance
from swatsim.columns import Role
from swatsim.errors import ConfigError
from swatsim.simulator.abreast import in_order
from swatsim.simulator.energy.table import energy_table
from swatsim.simulator.jobs import Job
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.run import checked, threads_of
from swatsim.simulator.runnable import Runnable
from swatsim.simulator.step_tiles import EVENTS_OF_TILE
from swatsim.simulator.step_tracks import Tracks
from swatsim.simulator.systems import Row
from swatsim.simulator.trace_events import UNIT, Json
from swatsim.simulator.trace_run import Run, Scheduled
from swatsim.store import Store
from swatsim.tracefile import Step, Trace, covered
from swatsim.workload.phases import PHASES, in_run_order

log = logging.getLogger(__name__)

#: Blocks of an op that are drawn apart, by default and at most.
BLOCKS, MAX_BLOCKS = 64, 10_000
#: Tiles of the machine that are drawn, by default and at most.
TILES, MAX_TILES = 4, 1024
#: Events of a step for which a viewer stays quick, and of a block, at most.
EVENTS, EVENTS_OF_BLOCK = 200_000, 10
#: A viewer is slow beyond: about 100 MB of JSON.
MAX_EVENTS = 500_000

DRAWN = (
    "ops one after another, forward in the network's order, backward from the last layer on, dgrad "
    "before wgrad; what else a phase does behind its layers; while a block is computed the next "
    "one's loads before the last one's stores, and waiting after computing; of each op first a "
    "tile's own work, then its waiting for slower ones, then what nothing is mapped on it, then "
    "what memory takes"
)


def step_timeline(
    trace: Trace, machine: Runnable, number: int, apart: tuple[int, int], store: Store | None
) -> dict[str, Any]:
    """Return what a step does on a machine, as `swatsim.timeline` does.

    `apart` are the blocks of an op, and the tiles, that are drawn apart at most.

    Raises
    ------
    TraceError
        If the trace has no such step, or is damaged.
    ConfigError
        If a number of blocks or tiles is none, a buffer is too small, what the machine says of its
        tiles is wrong, or there are too many ops to draw.
    """
    blocks, tiles = apart
    _check(blocks, tiles)
    run = Run(trace, [machine], None, energy_table("45nm"), store=store)
    jobs = list(run.jobs([number]))
    run.check_before(jobs)
    resolved = checked(run.describe(machine, covered.describe(trace, [number]), [number]))
    step, left_out = jobs[0][0], resolved["others_left_out"]
    left = EVENTS // len(jobs) - EVENTS_OF_TILE * tiles
    blocks = max(1, min(blocks, left // EVENTS_OF_BLOCK))
    tracks = Tracks(machine, _title(trace, step, machine, left_out), blocks, tiles)
    others = [] if left_out else run.others(step)[0]
    _draw(
        tracks,
        _scheduled(run, jobs, tiles > 0),
        [row for row in others if row["role"] == Role.MACHINE],
    )
    events = tracks.end()
    if len(events) > MAX_EVENTS:
        raise ConfigError(
            f"step {number} of {trace.name} has {len(jobs)} ops: more than {MAX_EVENTS} events, "
            "the most that is written; choose fewer tiles (--tiles), or one of its ops (--layer "
            "and --op)"
        )
    log.info("%d events of step %d", len(events), number)
    about = {
        **_sizes(machine, tracks.now),
        "machine": machine.name,
        "step": number,
        "trace": trace.name,
        "trace_id": trace.id,
        "drawn": DRAWN,
        "blocks_apart": f"at most {blocks} of an op; {tracks.merged} are drawn with others",
        "tiles_drawn": tracks.tiles or ("none: " + _no_tiles(machine, tiles)),
        "provenance": provenance.collect(resolved),
    }
    return {"otherData": about, "displayTimeUnit": "ms", "traceEvents": events}


def _check(blocks: int, tiles: int) -> None:
    if blocks not in range(1, MAX_BLOCKS + 1):
        raise ConfigError(f"blocks={blocks} is not allowed: must be 1 to {MAX_BLOCKS}")
    if tiles not in range(MAX_TILES + 1):
        raise ConfigError(f"tiles={tiles} is not allowed: must be 0 to {MAX_TILES}")


def _no_tiles(machine: Runnable, tiles: int) -> str:
    return f"{machine.name} does not say what its tiles do" if tiles else "none were asked for"


def _scheduled(run: Run, jobs: Sequence[Job], tiles: bool) -> list[Scheduled]:
    """Return the ops of the jobs, block by block, on all cores."""
    try:
        return list(in_order(partial(run.scheduled, tiles=tiles), jobs, threads_of(None), None))
    except BufferTooSmallError as error:
        raise run.refusal(error, jobs) from None


def _draw(tracks: Tracks, ops: Sequence[Scheduled], others: Sequence[Row]) -> None:
    for phase in PHASES:
        begin = tracks.now
        for op in in_run_order(ops, phase, lambda op: (op.layer, op.op)):
            tracks.op(op)
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
