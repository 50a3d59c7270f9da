"""Run an op: schedule its row streams, add up cycles and lane-cycles.

One schedule of `rows` row streams serves every column and every column set, so it is made once and
multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import gcd

import numpy as np

from swatsim.counters import Counters
from swatsim.simulator.interface import Busy
from swatsim.simulator.machines.lane_array import kernel
from swatsim.simulator.machines.lane_array.config import (
    LEVELS,
    LaneArrayConfig,
    Scheduled,
    Scheduling,
)
from swatsim.simulator.machines.lane_array.config import Scheduler as Choice
from swatsim.simulator.machines.lane_array.kernel import Runs, Schedule, Scheduler
from swatsim.simulator.machines.lane_array.mapping import passes, scheduled_operand
from swatsim.simulator.machines.lane_array.streams import Pass
from swatsim.simulator.machines.lane_array.wgrad import sums_batch
from swatsim.workload.layer import OPERANDS_OF, Layer, Operand, OpName
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.training_ops import MaskName

#: Lines of a round of images that are one reduction: many beside any lookahead that is in use.
ROUND_LINES = 256


def simulate_op(op: LoweredOp, config: LaneArrayConfig) -> Counters:
    """Return an op's counters on a `lane_array`, its zeros skipped as the config says."""
    return _run(op, config).counters()


def busy(op: LoweredOp, config: LaneArrayConfig) -> Busy:
    """Return in how many cycles each tile has a row set, and waits for the slowest of a group."""
    return Busy("tile", *_run(op, config).tiles)


def _run(op: LoweredOp, config: LaneArrayConfig) -> _Tally:
    scheduled = scheduled_operand(op, config)
    if scheduled:
        return _scheduled(op, config, scheduled)
    # what skips no zeros of this op skips outputs; what skips nothing, nothing
    outputs = config.scheduled is not Scheduled.NONE
    return _dense(op, config, OPERANDS_OF[op.name][0], outputs)


def simulate_dense_operands(op: LoweredOp, config: LaneArrayConfig) -> Counters:
    """Return the counters were no value zero, the operand on the rows that of the op itself.

    Fewer than the dense baseline's where streams hold zeros of padding, or lines have free lanes.
    """
    scheduled = scheduled_operand(op, config)
    if scheduled is None:
        return simulate_dense(op.without_zeros(), config)
    anonymous = op.layer.model_copy(update={"name": "dense"})
    # one image runs for all, where they follow one another
    together = op.samples if _share(op, config) else 1
    counters = _without_zeros(anonymous, op.name, together, config, scheduled)
    return counters.times(op.samples // together)


def looks_at(op: LoweredOp, config: LaneArrayConfig) -> set[MaskName]:
    """Return the operand whose zeros are skipped, and the outputs; of what skips nothing, none."""
    scheduled = scheduled_operand(op, config)
    outputs: set[MaskName] = set() if config.scheduled is Scheduled.NONE else {"output"}
    return outputs | ({scheduled} if scheduled else set())


@lru_cache(maxsize=10_000)
def _without_zeros(
    layer: Layer, name: OpName, samples: int, config: LaneArrayConfig, scheduled: Operand
) -> Counters:
    op = LoweredOp.dense(layer, name, samples)
    return _scheduled(op, config, scheduled, alike=True).counters()


def _scheduled(
    op: LoweredOp, config: LaneArrayConfig, scheduled: Operand, alike: bool = False
) -> _Tally:
    """Run an op with one operand's zeros skipped; `alike`: row sets should be equal."""
    scheduler = scheduler_of(config)
    tally = _Tally(op, config, scheduled, outputs=True, zeros=True)
    for part in passes(op, config, scheduled):
        mapped = np.tile(part.mapped, part.groups)
        whole, work = Schedule(np.zeros_like(mapped), np.zeros_like(mapped)), np.zeros_like(mapped)
        for some, lines in part.lines():
            work[some] = np.bitwise_count(lines).sum(axis=(1, 2), dtype=np.int64)
            schedule = _schedule_once if alike else kernel.schedule
            whole.lines[some], whole.waits[some] = schedule(lines, mapped[some], scheduler)
        tally.add(part, whole, work)
    return tally


def _schedule_once(lines: kernel.Words, mapped: kernel.Counts, scheduler: Scheduler) -> Schedule:
    """Schedule each different row set once; equal ones take the same."""
    kinds: dict[tuple[bytes, int], int] = {}
    sets = zip(lines, mapped.tolist(), strict=True)
    which = [kinds.setdefault((rows.tobytes(), used), len(kinds)) for rows, used in sets]
    _, first = np.unique(which, return_index=True)
    once = kernel.schedule(lines[first], mapped[first], scheduler)
    return Schedule(once.lines[which], once.waits[which])


def simulate_dense(op: LoweredOp, config: LaneArrayConfig) -> Counters:
    """Return the counters with the same operand on the rows and every line costing its cycle."""
    rows_hold = scheduled_operand(op, config) or OPERANDS_OF[op.name][0]
    return _dense(op, config, rows_hold, outputs=False).counters()


def simulate_dense_plain(op: LoweredOp, config: LaneArrayConfig) -> Counters:
    """Return the counters with nothing skipped, the operands where a dense machine has them.

    Weights on the rows, in wgrad activations: where zero skipping moved another operand there, the
    mapping can cost more than the skipping gains.
    """
    return _dense(op, config, OPERANDS_OF[op.name][0], outputs=False).counters()


def by_image(op: LoweredOp, config: LaneArrayConfig) -> LaneArrayConfig | None:
    """Return the config with a fixed operand on the rows, if an op's images follow one another.

    The images of a linear layer are the windows of one, but in its wgrad; those of a wgrad may be
    one reduction. Those of a product of activations are groups; of one channel they share sets.
    """
    return None if _share(op, config) else _fixed(op, config)


def in_rounds(op: LoweredOp, config: LaneArrayConfig) -> tuple[LaneArrayConfig, int] | None:
    """Return the config with a fixed operand on the rows, and how many images share the array.

    Where they are one reduction, as many as fill whole lines, and enough of them: what is lost is
    what would be taken from the lines of the next round. None: groups of one channel, all at once.
    """
    if not _share(op, config):
        return _fixed(op, config), 1
    if op.of_samples:
        return None
    if op.name == "wgrad":
        whole = config.lanes // gcd(config.lanes, op.layer.positions)
        lines = whole * op.layer.positions // config.lanes
        return _fixed(op, config), whole * -(-ROUND_LINES // lines)
    on_rows = scheduled_operand(op, config) or OPERANDS_OF[op.name][0]
    images = config.columns if on_rows == "weight" else config.rows * config.tiles
    return _fixed(op, config), images


def reads_images(op: LoweredOp, config: LaneArrayConfig) -> bool:
    """Whether an operand of images is scheduled, and not weights, or nothing."""
    return scheduled_operand(op, config) in op.operands_of_images


def _fixed(op: LoweredOp, config: LaneArrayConfig) -> LaneArrayConfig:
    if config.scheduled is not Scheduled.SPARSER:
        return config
    chosen = scheduled_operand(op, config)
    assert chosen is not None, "the sparser of two is one of them"
    # what the run chooses it also schedules, though it be the weights
    fixed = {"scheduled": Scheduled(op.called(chosen)), "scheduling": Scheduling.DYNAMIC}
    return config.model_copy(update=fixed)


def _share(op: LoweredOp, config: LaneArrayConfig) -> bool:
    """Whether an op's images share streams or sets: as windows of one image, or one reduction."""
    if op.of_samples:
        depth = op.layer.C if op.name == "fprop" else op.layer.K
        on_rows = scheduled_operand(op, config) or OPERANDS_OF[op.name][0]
        return on_rows == "weight" and depth == op.layer.groups
    return sums_batch(config) if op.name == "wgrad" else op.is_matrix_product


def _dense(op: LoweredOp, config: LaneArrayConfig, rows_hold: Operand, outputs: bool) -> _Tally:
    """Run an op with no zero skipped; `outputs`: but outputs that nobody wants."""
    tally = _Tally(op, config, rows_hold, outputs, zeros=False)
    for part in passes(op, config, rows_hold):
        mapped = np.tile(part.mapped, part.groups)
        schedule = Schedule(np.full_like(mapped, part.length), np.zeros_like(mapped))
        tally.add(part, schedule, mapped * part.elements)
    return tally


def scheduler_of(config: LaneArrayConfig) -> Scheduler:
    """Return the scheduler's parameters as the kernel reads them."""
    moves = np.array(config.moves, np.int64).reshape(-1, 2)
    most, levels = _PRIORITIES[config.scheduler]
    return Scheduler(
        lanes=config.lanes,
        lookahead=config.lookahead,
        dt=np.ascontiguousarray(moves[:, 0]),
        dl=moves[:, 1] % config.lanes,
        most=most,
        levels=np.array([sum(1 << lane for lane in level) for level in levels], np.uint64),
    )


def without_moves(scheduler: Scheduler) -> Scheduler:
    """Return a schedule in which every line costs its cycle, as where no operand is scheduled."""
    return scheduler._replace(lookahead=0, dt=scheduler.dt[:0], dl=scheduler.dl[:0])


#: Of each scheduler: whether the lane with most candidates is first, and the levels.
_PRIORITIES: Mapping[Choice, tuple[bool, tuple[tuple[int, ...], ...]]] = {
    Choice.MOST_CANDIDATES: (True, ()),
    Choice.FEWEST_CANDIDATES: (False, ()),
    Choice.LEVELS: (False, LEVELS),
}


class _Tally:
    """Adds up the passes of an op.

    A PE with a stream on both sides is *mapped*. Its lane-cycles are work, idle lanes, or waiting
    for rows while its own tile runs, and waiting for tiles after that. `outputs`: those that
    nobody wants are skipped; `zeros`: those of one operand are. `tiles` are, of each, the cycles
    in which it has a row set, and those in which it waits for the slowest.
    """

    def __init__(
        self, op: LoweredOp, config: LaneArrayConfig, rows_hold: Operand, outputs: bool, zeros: bool
    ) -> None:
        self.outputs, self.zeros = outputs, zeros
        self.tiles = np.zeros((2, config.tiles), np.int64)
        self.op = op
        self.config = config
        self.rows_hold = rows_hold
        self.cycles = self.work = self.running = self.row_sync = self.tile_sync = 0
        self.row_words = self.column_words = self.schedules = 0

    def add(self, part: Pass, schedule: Schedule, work: kernel.Counts) -> None:
        """Add a pass whose row sets hold `work` values each (dense: elements)."""
        taken = schedule.lines.reshape(part.groups, -1)
        runs = self._runs(part, taken)
        lanes, mapped = self.config.lanes, part.mapped
        self.cycles += runs.cycles
        self.tiles[:, : part.tiles] += runs.tiles
        self.work += int((runs.streams * work.reshape(taken.shape)).sum())
        self.row_words += part.elements * int((mapped * runs.sets).sum())
        self.column_words += int((part.followed * runs.streams).sum())
        self.schedules += int((mapped * taken * runs.sets).sum())
        self.running += lanes * int((mapped * taken * runs.streams).sum())
        self.row_sync += lanes * int((schedule.waits.reshape(taken.shape) * runs.streams).sum())
        self.tile_sync += lanes * int((mapped * runs.waits).sum())

    def _runs(self, part: Pass, taken: kernel.Counts) -> Runs:
        """Return how often each row set runs, and what it waits for, with lines that it takes."""
        if self.outputs and part.wanted is not None:
            wanted = np.ascontiguousarray(part.wanted())
            return kernel.run_wanted(wanted, taken, part.columns, part.tiles)
        slowest = _slowest_of_tiles(taken, part.tiles)
        sets, streams = part.repeats * part.columns.size, part.repeats * part.following
        return Runs(
            sets * int(slowest[:, :: part.tiles].sum()),
            np.full_like(taken, sets),
            np.full_like(taken, streams),
            streams * (slowest - taken),
            sets * np.array([_of_tiles(of, part.tiles) for of in (taken, slowest - taken)]),
        )

    def counters(self) -> Counters:
        """Return the counters: lane-cycles sorted into their buckets."""
        effectual = self.op.macs_effectual
        once = self.op.name == "wgrad" and sums_batch(self.config)
        total = self.cycles * self.config.pes * self.config.lanes
        words = self.row_words, self.column_words
        if self.rows_hold != OPERANDS_OF[self.op.name][0]:
            words = words[1], words[0]
        return Counters(
            cycles_compute=self.cycles,
            pes=self.config.pes,
            lanes=self.config.lanes,
            lane_cycles_effectual=effectual,
            lane_cycles_ineffectual=self.work - effectual,
            lane_cycles_idle=self.running - self.row_sync - self.work,
            lane_cycles_row_sync=self.row_sync,
            lane_cycles_tile_sync=self.tile_sync,
            lane_cycles_unmapped=total - self.running - self.tile_sync,
            words_a=words[0],
            words_b=words[1],
            multiplexed=self.work if self.zeros and self.config.lookahead else 0,
            schedules=self.schedules if self.zeros and not self.config.scheduled_before else 0,
            sums_written=self._sums if once else 0,
        )

    @property
    def _sums(self) -> int:
        """Weight gradients, of which each is written once."""
        return self.op.outputs_wanted if self.outputs else self.op.layer.weights


def _slowest_of_tiles(lines: kernel.Counts, tiles: int) -> kernel.Counts:
    """Return, for each row set, the lines of the slowest of its `tiles` consecutive sets."""
    slowest = _rounds(lines, tiles).max(axis=2)
    return np.repeat(slowest, tiles, axis=1)[:, : lines.shape[1]]


def _of_tiles(lines: kernel.Counts, tiles: int) -> kernel.Counts:
    """Return the lines of each tile, to which consecutive row sets go in turn."""
    return np.asarray(_rounds(lines, tiles).sum(axis=(0, 1)))


def _rounds(lines: kernel.Counts, tiles: int) -> kernel.Counts:
    """Return the lines of row sets as (groups, rounds, tiles), those of none 0."""
    groups, sets = lines.shape
    rounds = -(-sets // tiles)
    filled = np.zeros((groups, rounds * tiles), np.int64)
    filled[:, :sets] = lines
    return filled.reshape(groups, rounds, tiles)
