"""The naive twin of the `lane_array` machine. Convolution letters throughout.

`lane_array` is a grid of inner-product PEs in the manner of DaDianNao. A row of a tile holds one
stream of one operand, a column one stream of the other, and the PE where they cross multiplies
them, `lanes` products a cycle, into one output value. A window scheduler may skip the zeros of
the operand on the rows: Bit-Tactical (ASPLOS 2019) does so for weights before the run,
TensorDash (MICRO 2020) for either operand of an op during it.

This file is the oracle of the fast kernel, so it is the slow and plain way to say the same: one PE
at a time, Python integers, every value carried from the operand through the schedule into its
product. The output it returns is what the machine accumulated, so that an equal `reference`
proves that skipping lost nothing; where nobody wants an output it is 0. It imports nothing of the
package on purpose.

The file reads from top to bottom: which operand lies on the rows; the operands, as streams; the
window scheduler; the run of the tiles, with its accounting; `simulate`.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from tests.naive.common import (
    EVENTS,
    OPERANDS,
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

OUTPUT_AXES = {"fprop": "nkpq", "dgrad": "nchv", "wgrad": "kcrs"}

BUCKETS = ("effectual", "ineffectual", "lane_idle", "row_sync", "tile_sync", "unmapped")


# ---------------------------------------------------------------------------------------------
# The layer, and which operand lies on the rows
# ---------------------------------------------------------------------------------------------


def as_images(layer, op: str, operands: dict) -> tuple[Shape, dict]:
    """The shape and the operands as 4-axis arrays, as the machine sees them.

    In fprop and dgrad a linear layer is one image of one column whose N samples are its windows,
    so that sets of windows hold several samples. In wgrad each sample stays an image of its own.
    """
    shape = convolution_shape(layer)
    if layer.kind != "linear":
        return shape, operands
    images = {name: array[:, :, None, None] for name, array in operands.items()}
    if op == "wgrad":
        return shape, images
    images = {n: a if n == "weight" else a.transpose(2, 1, 0, 3) for n, a in images.items()}
    samples = next(a.shape[2] for name, a in images.items() if name != "weight")
    return replace(shape, H=samples, P=samples), images


def density_is_lower(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the non-zeros of `a`, as a share of the whole operand, are fewer than `b`'s."""
    return np.count_nonzero(a) * b.size < np.count_nonzero(b) * a.size


def row_operand(op: str, config, operands: dict) -> tuple[str, bool]:
    """The operand on the rows, and whether it is scheduled (its zeros skipped).

    The scheduled operand lies on the rows. An operand that the op lacks can't be scheduled: the
    op then runs dense, as Bit-Tactical's wgrad does. "sparser" is TensorDash's choice: the lower
    density of the whole operand, not counting padding or zeros that a lowering inserts. The first
    operand of an op is taken when the densities are equal, and lies on the rows when nothing is
    scheduled.
    """
    first, second = OPERANDS[op]
    if config.scheduled == "sparser":
        return (second if density_is_lower(operands[second], operands[first]) else first), True
    if config.scheduled in (first, second):
        return config.scheduled, True
    return first, False


# ---------------------------------------------------------------------------------------------
# Streams: an operand cut in lines of `lanes` values
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """The lines of one side of an inner product; `lines[t][lane]` is None where a slot is free.

    A free slot is the rest of a partly filled line. A zero of the operand, of the padding or of
    the folding's fill is an element of the stream: it is 0, not None. `where` is the part of the
    output's index that this stream fixes, by letter. Taking an element from its buffer is the event
    `words`.
    """

    where: dict[str, int]
    lines: list[list[int | None]]
    words: str


@dataclass(frozen=True)
class Pass:
    """Streams that are all multiplied with each other: one sample, one group, one dgrad phase.

    In a wgrad that reduces over the batch a pass has all samples. Sets are made of streams of one
    pass only, and so are groups of tiles.
    """

    row_sets: list[list[Stream]]
    column_sets: list[list[Stream]]


@dataclass(frozen=True)
class Convolution:
    """fprop, or one phase of dgrad: filters over taps and channels, windows of an image.

    The words are those of the computation itself: in dgrad a *filter* makes one input channel c of
    the layer and a *channel*, what is summed over, is an out-channel k. `taps` and `windows` are in
    the order in which they are taken. `weight(filter, channel, tap)` and
    `image(sample, channel, window, tap)` give the two values that meet.
    """

    samples: int
    groups: int
    filters: int
    channels: int
    taps: list[tuple[int, int]]
    windows: list[tuple[int, int]]
    weight: Callable[[int, int, tuple[int, int]], int]
    image: Callable[[int, int, tuple[int, int], tuple[int, int]], int]
    filter_letter: str
    window_letters: str

    def filters_of(self, group: int) -> range:
        """The filters of a group, numbered in the layer."""
        size = self.filters // self.groups
        return range(group * size, (group + 1) * size)

    def channels_of(self, group: int) -> range:
        """The channels that the filters of a group sum over, numbered in the layer."""
        size = self.channels // self.groups
        return range(group * size, (group + 1) * size)

    def window_index(self, sample: int, window: tuple[int, int]) -> dict[str, int]:
        """The letters of the output's index that a window fixes."""
        return dict(zip(self.window_letters, (sample, *window), strict=True))


def fprop_convolution(shape: Shape, weight: np.ndarray, act: np.ndarray) -> Convolution:
    """Forward: taps r outer, s inner, ascending; windows p outer, q inner."""
    per_group = shape.C // shape.groups

    def image(n, c, window, tap):
        i = shape.input_row(window[0], tap[0])
        j = shape.input_column(window[1], tap[1])
        return value_inside(act, n, c, i, j)

    return Convolution(
        samples=act.shape[0],
        groups=shape.groups,
        filters=shape.K,
        channels=shape.C,
        taps=[(r, s) for r in range(shape.R) for s in range(shape.S)],
        windows=[(p, q) for p in range(shape.P) for q in range(shape.Q)],
        weight=lambda k, c, tap: int(weight[k, c % per_group, tap[0], tap[1]]),
        image=image,
        filter_letter="k",
        window_letters="npq",
    )


def dgrad_phases(shape: Shape, grad_out: np.ndarray, weight: np.ndarray) -> Iterator[Convolution]:
    """Input gradient of a lowered layer: a convolution for each of its stride phases.

    Each convolves the output gradient with a part of the rotated kernel; with a stride of 1 there
    is one, with all of it. A phase without taps only has zeros to write: there is nothing to
    stream, and it costs nothing.
    """
    per_group = shape.C // shape.groups

    def image(n, k, window, tap):
        p = (window[0] + shape.padding[0][0] - tap[0] * shape.dilation[0]) // shape.stride[0]
        q = (window[1] + shape.padding[1][0] - tap[1] * shape.dilation[1]) // shape.stride[1]
        return value_inside(grad_out, n, k, p, q)

    for phase in np.ndindex(*shape.stride):
        (r_taps, rows), (s_taps, columns) = (phase_of_axis(shape, a, phase[a]) for a in (0, 1))
        if not (r_taps and s_taps):
            continue
        yield Convolution(
            samples=grad_out.shape[0],
            groups=shape.groups,
            filters=shape.C,
            channels=shape.K,
            taps=[(r, s) for r in r_taps for s in s_taps],
            windows=[(h, v) for h in rows for v in columns],
            weight=lambda c, k, tap: int(weight[k, c % per_group, tap[0], tap[1]]),
            image=image,
            filter_letter="c",
            window_letters="nhv",
        )


def stem_folds(shape: Shape, config) -> bool:
    """Whether the layer is a strided first layer of three channels, and folding is on."""
    three = shape.C == 3 and shape.groups == 1
    return bool(config.fold_stem) and three and shape.dilation == (1, 1) and max(shape.stride) > 1


def space_to_depth(array: np.ndarray, stride: tuple[int, int]) -> np.ndarray:
    """Fold blocks of stride rows by stride columns into channels, zero-filled at the far ends.

    The folded channel is (row offset * column stride + column offset) * C + c.
    """
    outer, channels, height, width = array.shape
    sh, sw = stride
    shape = (outer, channels * sh * sw, ceil_div(height, sh), ceil_div(width, sw))
    folded = np.zeros(shape, dtype=array.dtype)
    for i, j in np.ndindex(height, width):
        first = (i % sh * sw + j % sw) * channels
        folded[:, first : first + channels, i // sh, j // sw] = array[:, :, i, j]
    return folded


def fold_stem(shape: Shape, weight: np.ndarray, act: np.ndarray):
    """A strided first layer as the stride-1 convolution of more channels that it equals.

    The image is padded first. P and Q stay the layer's: the fill may make room for a window more.
    """
    act = space_to_depth(np.pad(act, ((0, 0), (0, 0), *shape.padding)), shape.stride)
    weight = space_to_depth(weight, shape.stride)
    _, C, H, W = act.shape
    R, S = weight.shape[2:]
    folded = Shape(C=C, K=shape.K, H=H, W=W, R=R, S=S, P=shape.P, Q=shape.Q)
    return folded, weight, act


def channel_lines(taps, channels, lanes: int, value: Callable) -> list[list[int | None]]:
    """Lines of fprop and dgrad: tap by tap, blocks of `lanes` channels; a new tap, a new line."""
    lines = []
    for tap in taps:
        for block in chunks(channels, lanes):
            free = [None] * (lanes - len(block))
            lines.append([value(channel, tap) for channel in block] + free)
    return lines


def filter_stream(conv: Convolution, f: int, channels, lanes: int) -> Stream:
    """The stream of one filter."""
    lines = channel_lines(conv.taps, channels, lanes, lambda c, tap: conv.weight(f, c, tap))
    return Stream({conv.filter_letter: f}, lines, "words_a")


def window_stream(conv: Convolution, n: int, window, channels, lanes: int) -> Stream:
    """The stream of one window, over the same taps and channels as its filters'."""
    lines = channel_lines(conv.taps, channels, lanes, lambda c, t: conv.image(n, c, window, t))
    return Stream(conv.window_index(n, window), lines, "words_b")


def convolution_passes(conv: Convolution, weights_on_rows: bool, config) -> Iterator[Pass]:
    """The sets of filters and of windows, sample by sample, group by group."""
    lanes = config.lanes
    filters_a_set, windows_a_set = config.columns, config.rows
    if weights_on_rows:
        filters_a_set, windows_a_set = config.rows, config.columns
    for n, group in np.ndindex(conv.samples, conv.groups):
        channels = conv.channels_of(group)
        filters = [filter_stream(conv, f, channels, lanes) for f in conv.filters_of(group)]
        windows = [window_stream(conv, n, window, channels, lanes) for window in conv.windows]
        filter_sets, window_sets = chunks(filters, filters_a_set), chunks(windows, windows_a_set)
        if weights_on_rows:
            yield Pass(filter_sets, window_sets)
        else:
            yield Pass(window_sets, filter_sets)


def depthwise_applies(conv: Convolution, weights_on_rows: bool) -> bool:
    """Depthwise rule: groups that each sum over one channel only, weights on the rows."""
    return weights_on_rows and conv.groups > 1 and conv.channels == conv.groups


def depthwise_passes(conv: Convolution, config) -> Iterator[Pass]:
    """Depthwise: a set of filters is diagonal, row i holding its filter's taps in lane i.

    So one set of windows serves the filters of many groups: lane i of a window's stream holds the
    channel that filter i reads. The sets follow one another, on one tile: a pass each.
    """
    filters_a_group = conv.filters // conv.groups
    for n in range(conv.samples):
        for filters in chunks(range(conv.filters), min(config.lanes, config.rows)):
            read = [f // filters_a_group for f in filters]
            rows = [diagonal_stream(conv, i, filters[i], read[i], config) for i in range(len(read))]
            windows = [window_stream(conv, n, w, read, config.lanes) for w in conv.windows]
            yield Pass([rows], chunks(windows, config.columns))


def diagonal_stream(conv: Convolution, lane: int, f: int, channel: int, config) -> Stream:
    """A depthwise filter in one lane, a tap a line; its other lanes are free."""
    lines = []
    for tap in conv.taps:
        line = [None] * config.lanes
        line[lane] = conv.weight(f, channel, tap)
        lines.append(line)
    return Stream({conv.filter_letter: f}, lines, "words_a")


def position_lines(positions: list[tuple], lanes: int, value: Callable) -> list[list[int | None]]:
    """Lines of wgrad: the positions (n, p, q) that it reduces over, `lanes` of them a line."""
    return [
        [value(*position) for position in line] + [None] * (lanes - len(line))
        for line in chunks(positions, lanes)
    ]


def act_stream(shape: Shape, act: np.ndarray, positions, index: tuple, lanes: int) -> Stream:
    """wgrad's stream of one (r,s,c): what tap (r,s) of channel c meets at each position."""
    r, s, c = index

    def value(n, p, q):
        return value_inside(act, n, c, shape.input_row(p, r), shape.input_column(q, s))

    in_group = c % (shape.C // shape.groups)
    lines = position_lines(positions, lanes, value)
    return Stream({"r": r, "s": s, "c": in_group}, lines, "words_a")


def grad_stream(grad_out: np.ndarray, positions, k: int, lanes: int) -> Stream:
    """wgrad's stream of one out-channel."""
    lines = position_lines(positions, lanes, lambda n, p, q: int(grad_out[n, k, p, q]))
    return Stream({"k": k}, lines, "words_b")


def reductions(shape: Shape, samples: int, wgrad_reduces: str) -> list[list[tuple]]:
    """The positions (n, p, q) of each reduction of a wgrad: one a sample, or one of the batch.

    n is outermost, q innermost; where the batch is one reduction, a line may hold positions of two
    samples or more.
    """
    by_sample = [[(n, *at) for at in np.ndindex(shape.P, shape.Q)] for n in range(samples)]
    if wgrad_reduces == "batch":
        return [[position for positions in by_sample for position in positions]]
    if wgrad_reduces == "positions":
        return by_sample
    raise ValueError(f"wgrad_reduces={wgrad_reduces!r} is neither 'positions' nor 'batch'")


def wgrad_passes(shape: Shape, act, grad_out, act_on_rows: bool, config) -> Iterator[Pass]:
    """Reduction by reduction, group by group; a set of act streams has channels of one (r,s)."""
    acts_a_set, grads_a_set = config.columns, config.rows
    if act_on_rows:
        acts_a_set, grads_a_set = config.rows, config.columns
    C_group, K_group = shape.C // shape.groups, shape.K // shape.groups
    all_positions = reductions(shape, act.shape[0], config.wgrad_reduces)
    for positions, group in itertools.product(all_positions, range(shape.groups)):
        channels = range(group * C_group, (group + 1) * C_group)
        act_sets = [
            [act_stream(shape, act, positions, (r, s, c), config.lanes) for c in block]
            for r, s in np.ndindex(shape.R, shape.S)
            for block in chunks(channels, acts_a_set)
        ]
        out_channels = range(group * K_group, (group + 1) * K_group)
        grads = [grad_stream(grad_out, positions, k, config.lanes) for k in out_channels]
        grad_sets = chunks(grads, grads_a_set)
        yield Pass(act_sets, grad_sets) if act_on_rows else Pass(grad_sets, act_sets)


def passes_of(op: str, shape: Shape, images: dict, on_rows: str, config) -> Iterator[Pass]:
    """All the passes of an op, in the order in which the machine takes them."""
    if op == "wgrad":
        act_on_rows = on_rows == "act"
        yield from wgrad_passes(shape, images["act"], images["grad_out"], act_on_rows, config)
        return
    weight = images["weight"]
    if op == "dgrad":
        lowering = getattr(config, "dgrad_lowering", "split")
        convolutions = dgrad_phases(*lower_dgrad(lowering, shape, images["grad_out"]), weight)
    elif stem_folds(shape, config):
        convolutions = [fprop_convolution(*fold_stem(shape, weight, images["act"]))]
    else:
        convolutions = [fprop_convolution(shape, weight, images["act"])]
    weights_on_rows = on_rows == "weight"
    for conv in convolutions:
        if depthwise_applies(conv, weights_on_rows):
            yield from depthwise_passes(conv, config)
        else:
            yield from convolution_passes(conv, weights_on_rows, config)


# ---------------------------------------------------------------------------------------------
# The window scheduler
# ---------------------------------------------------------------------------------------------

LEVELS = ((0, 5, 10), (1, 6, 11), (2, 7, 12), (3, 8, 13), (4, 9, 14), (15,))
"""TensorDash's levels of 16 lanes: those of one level never compete for a value."""

LEVELS_MOVES = [(1, 0), (2, 0), (1, -1), (1, 1), (2, -2), (2, 2), (1, -3)]
"""TensorDash's candidates, by priority: (lines ahead, lanes aside)."""


class Source(NamedTuple):
    """A non-zero value of a row's stream, and the slot it comes from.

    A moved value takes its origin along: its partner in a column's stream is in that same slot.
    """

    value: int
    line: int
    lane: int


def move_list(config) -> list[tuple[int, int]]:
    """The moves (lines ahead, lanes aside) that a multiplexer offers, in order of preference."""
    h, d = config.lookahead, config.lookaside
    moves = [(ahead, 0) for ahead in range(1, h + 1)]
    if config.move_shape == "L":
        moves += [(1, -aside) for aside in range(1, d + 1)]
    else:
        first = {"T": 1, "T-mirrored": -1}[config.move_shape]
        for side in range(d):
            j = side // 2 + 1
            sign = first if side % 2 == 0 else -first
            moves.append(((j - 1) % h + 1, sign * j))
    return {"as_written": list, "sorted": sorted}[config.map_order](moves)


def candidates(row: list[list], t: int, lane: int, moves) -> list[tuple[int, int]]:
    """The slots of the row whose values could move to (t, lane), in the order of the moves.

    Lanes wrap around; lines past the end of the stream do not exist. Where few lanes make two moves
    name the same slot, it is a candidate twice.
    """
    slots = [(t + ahead, (lane + aside) % len(row[t])) for ahead, aside in moves]
    return [(u, m) for u, m in slots if u < len(row) and row[u][m] is not None]


def take_first(row: list[list], t: int, lane: int, found: list[tuple[int, int]]) -> None:
    """Move the first candidate to (t, lane); its own slot becomes free."""
    u, m = found[0]
    row[t][lane], row[u][m] = row[u][m], None


def fill_by_count(row: list[list], t: int, moves, preferred: Callable) -> None:
    """Serve the free lane with the most (or the fewest) candidates, then count again.

    `preferred` is max, as DNNsim's schedulers have it, or min over the positive counts, as
    Bit-Tactical's text has it. Equal counts: the lowest lane.
    """
    while True:
        free = [lane for lane in range(len(row[t])) if row[t][lane] is None]
        found = {lane: candidates(row, t, lane, moves) for lane in free}
        found = {lane: slots for lane, slots in found.items() if slots}
        if not found:
            return
        wanted = preferred(len(slots) for slots in found.values())
        lane = min(lane for lane, slots in found.items() if len(slots) == wanted)
        take_first(row, t, lane, found[lane])


def fill_by_levels(row: list[list], t: int) -> None:
    """TensorDash: level by level, each lane with a zero takes its first candidate; once."""
    for level in LEVELS:
        for lane in level:
            found = candidates(row, t, lane, LEVELS_MOVES)
            if row[t][lane] is None and found:
                take_first(row, t, lane, found)


def fill_line(row: list[list], t: int, config) -> None:
    """Fill the free slots of line t of one row from its later lines."""
    if config.scheduler == "levels":
        if config.lanes != 16 or config.lookahead != 2:
            raise ValueError("the levels scheduler has 16 lanes and a lookahead of 2")
        fill_by_levels(row, t)
    else:
        preferred = {"most_candidates": max, "fewest_candidates": min}[config.scheduler]
        fill_by_count(row, t, move_list(config), preferred)


def schedule_row_set(streams: list[Stream], config) -> list[list[list[Source | None]]]:
    """The scheduled lines of one tile: `[cycle][row][lane]`, the value multiplied there or None.

    The rows share the window, so a line is dropped only if it is empty in all of them by the time
    the window reaches it, and never more than `lookahead` lines running: the next then costs its
    cycle, empty or not. A row that is missing from a ragged set is empty and drops with any.
    """
    rows = [occupied_slots(stream) for stream in streams]
    scheduled = []
    skipped = 0
    for t in range(len(rows[0])):
        empty = all(slot is None for row in rows for slot in row[t])
        if empty and skipped < config.lookahead:
            skipped += 1
            continue
        skipped = 0
        for row in rows:
            fill_line(row, t, config)
        scheduled.append([row[t] for row in rows])
    return scheduled


def occupied_slots(stream: Stream) -> list[list[Source | None]]:
    """A stream's non-zero values with their origins; None in every other slot."""
    return [
        [Source(value, t, lane) if value else None for lane, value in enumerate(line)]
        for t, line in enumerate(stream.lines)
    ]


# ---------------------------------------------------------------------------------------------
# The run: tiles in lockstep, PE by PE, every lane-cycle in a bucket
# ---------------------------------------------------------------------------------------------


@dataclass
class Meter:
    """The output and the counters, as the run goes on.

    `tells_sums`: whether the machine tells how many sums its PEs write; where it does not, the
    memory system has a rule of its own, and the event stays 0. `wanted` are the outputs that
    somebody wants; `leaves_out`: whether the others are skipped where nothing is lost by it, and
    `keeps_all` whether they are kept where they are made.
    """

    axes: str
    output: np.ndarray
    wanted: np.ndarray
    leaves_out: bool
    keeps_all: bool
    tells_sums: bool
    own: list[int]
    waits: list[int]
    cycles: int = 0
    lane_cycles: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))

    def add(self, bucket: str, lane_cycles: int) -> None:
        """Count lane-cycles in a bucket."""
        self.lane_cycles[bucket] += lane_cycles

    def count(self, event: str, times: int) -> None:
        """Count an event."""
        self.events[event] += times

    def take(self, stream: Stream) -> None:
        """Count the words of a stream, each element once: zeros too, free slots not."""
        for line in stream.lines:
            self.count(stream.words, sum(value is not None for value in line))

    def place(self, row: Stream, column: Stream) -> tuple[int, ...]:
        """Where the output is that two streams make."""
        where = {**row.where, **column.where}
        return tuple(where[letter] for letter in self.axes)

    def wants(self, row: Stream, column: Stream) -> bool:
        """Whether somebody wants the output that two streams make."""
        return bool(self.wanted[self.place(row, column)])

    def runs(self, rows: list[Stream], columns: list[Stream]) -> bool:
        """Whether a row set runs with a column set: if any of their outputs is wanted."""
        return not self.leaves_out or any(self.wants(r, c) for r in rows for c in columns)

    def accumulate(self, row: Stream, column: Stream, value: int) -> None:
        """Add what a PE reduced to the output value that its two streams make."""
        wanted = self.wants(row, column)
        self.output[self.place(row, column)] += value * (wanted or self.keeps_all)
        self.count("sums_written", int(self.tells_sums and (wanted or not self.leaves_out)))


@dataclass(frozen=True)
class RowPlan:
    """A row's part of its tile's schedule: what its PEs multiply, in order, and where they don't.

    `idle` are lanes without work in a line where the row has some, `waiting` the lanes of lines in
    which the row has none at all. `multiplexed` are the values that reach each of its PEs through a
    multiplexer, `schedules` the lines that are scheduled for it during the run.
    """

    stream: Stream
    sources: list[Source]
    idle: int
    waiting: int
    multiplexed: int = 0
    schedules: int = 0


@dataclass(frozen=True)
class TilePlan:
    """The schedule of one row set: its length and its rows. It serves all columns."""

    cycles: int
    rows: list[RowPlan]


def skipping_plan(streams: list[Stream], config) -> TilePlan:
    """The plan of a tile whose window scheduler is on.

    Without lookahead there is no move, so no multiplexer. Statically, weights are scheduled before
    the run.
    """
    scheduled = schedule_row_set(streams, config)
    during_run = (config.scheduled, config.scheduling) != ("weight", "static")
    rows = []
    for i, stream in enumerate(streams):
        lines = [[slot for slot in line[i] if slot is not None] for line in scheduled]
        idle = sum(config.lanes - len(line) for line in lines if line)
        waiting = sum(config.lanes for line in lines if not line)
        sources = [slot for line in lines for slot in line]
        multiplexed = len(sources) if config.lookahead else 0
        schedules = len(lines) if during_run else 0
        rows.append(RowPlan(stream, sources, idle, waiting, multiplexed, schedules))
    return TilePlan(len(scheduled), rows)


def dense_plan(streams: list[Stream], config) -> TilePlan:
    """The plan of a tile that skips nothing: every line costs its cycle, every element its lane."""
    length = len(streams[0].lines)
    rows = []
    for stream in streams:
        sources = [
            Source(value, t, lane)
            for t, line in enumerate(stream.lines)
            for lane, value in enumerate(line)
            if value is not None
        ]
        rows.append(RowPlan(stream, sources, length * config.lanes - len(sources), 0))
    return TilePlan(length, rows)


def multiply(sources: list[Source], column: Stream) -> tuple[int, int]:
    """One PE: the sum of its products, and how many had no zero in them."""
    total = effectual = 0
    for value, line, lane in sources:
        product = value * column.lines[line][lane]
        if product:
            total += product
            effectual += 1
    return total, effectual


def run_pe(row: RowPlan | None, column: Stream | None, own: int, group: int, lanes: int, meter):
    """One PE for the `group` cycles of its group of tiles, its own tile being busy for `own`."""
    if row is None or column is None:
        meter.add("unmapped", group * lanes)
        return
    total, effectual = multiply(row.sources, column)
    meter.accumulate(row.stream, column, total)
    effectual *= meter.wants(row.stream, column)
    meter.add("effectual", effectual)
    meter.add("ineffectual", len(row.sources) - effectual)
    meter.add("lane_idle", row.idle)
    meter.add("row_sync", row.waiting)
    meter.add("tile_sync", (group - own) * lanes)
    meter.count("multiplexed", row.multiplexed)


def filled(items: list, size: int) -> list:
    """The items, and None for those that are missing from `size`."""
    return items + [None] * (size - len(items))


def take_streams(plan: TilePlan, columns: list[Stream], meter: Meter) -> None:
    """What a tile with a row set takes for one column set: a row's PEs share it, a column's too."""
    for row in plan.rows:
        meter.take(row.stream)
        meter.count("schedules", row.schedules)
    for column in columns if plan.rows else []:
        meter.take(column)


def run_tile(plan: TilePlan, columns: list[Stream], group: int, config, meter: Meter) -> None:
    """All PEs of one tile for one column set."""
    take_streams(plan, columns, meter)
    for row in filled(plan.rows, config.rows):
        for column in filled(columns, config.columns):
            run_pe(row, column, plan.cycles, group, config.lanes, meter)


def run_pass(work: Pass, skipping: bool, config, meter: Meter) -> None:
    """Consecutive row sets on consecutive tiles; a group of tiles waits for its slowest.

    Each row set is scheduled once. With each column set run those of which it makes an output that
    somebody wants, in order, as if there were no others.
    """
    make_plan = skipping_plan if skipping else dense_plan
    no_plan = TilePlan(0, [])
    every = [make_plan(streams, config) for streams in work.row_sets]
    for columns in work.column_sets:
        sets = zip(every, work.row_sets, strict=True)
        left = [plan for plan, streams in sets if meter.runs(streams, columns)]
        for plans in chunks(left, config.tiles):
            slowest = max(plan.cycles for plan in plans)
            meter.cycles += slowest
            for tile, plan in enumerate(filled(plans, config.tiles)):
                meter.own[tile] += plan.cycles if plan else 0
                meter.waits[tile] += slowest - plan.cycles if plan else 0
                run_tile(plan or no_plan, columns, slowest, config, meter)


# ---------------------------------------------------------------------------------------------
# The entry point
# ---------------------------------------------------------------------------------------------


def as_layer_output(layer, op: str, output: np.ndarray) -> np.ndarray:
    """Undo `as_images`: a linear layer's output has two axes."""
    if layer.kind != "linear":
        return output
    return output[:, :, 0, 0] if op == "wgrad" else output[0, :, :, 0].T.copy()


def as_machine_output(layer, op: str, output: np.ndarray) -> np.ndarray:
    """The opposite of `as_layer_output`."""
    if layer.kind != "linear":
        return output
    return output[:, :, None, None] if op == "wgrad" else output.T[None, :, :, None]


def simulate(
    op, layer, config, *, weight=None, act=None, grad_out=None, skipping=True, wanted=None
) -> NaiveResult:
    """Run one op of one layer on the machine.

    Without `skipping` it is the machine's dense baseline: the same operand on the rows, the same
    sets of streams, but every line of every stream costs its cycle. `wanted` are the outputs that
    somebody wants, in the output's shape; None: all. The baseline makes all.
    """
    operands = operands_of(op, {"weight": weight, "act": act, "grad_out": grad_out})
    on_rows, scheduled = row_operand(op, config, operands)
    shape, images = as_images(layer, op, operands)
    of_batch = op == "wgrad" and config.wgrad_reduces == "batch"
    output = empty_output(op, shape, samples_in(images))
    meter = Meter(
        axes=OUTPUT_AXES[op],
        output=output,
        wanted=np.ones_like(output) if wanted is None else as_machine_output(layer, op, wanted),
        leaves_out=skipping and config.scheduled != "none",
        keeps_all=not skipping,
        tells_sums=of_batch,
        own=[0] * config.tiles,
        waits=[0] * config.tiles,
    )
    for work in passes_of(op, shape, images, on_rows, config):
        run_pass(work, skipping and scheduled, config, meter)
    machine_lanes = config.tiles * config.rows * config.columns * config.lanes
    assert sum(meter.lane_cycles.values()) == meter.cycles * machine_lanes
    output = as_layer_output(layer, op, meter.output)
    counted = meter.cycles, meter.lane_cycles, meter.events
    return NaiveResult(output, *counted, own=meter.own, waits=meter.waits)
