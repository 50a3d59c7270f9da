"""The naive twin of the memory system. Convolution letters throughout.

Two operand buffers and one for the output, each double-buffered, lie between the PEs and a DRAM.
An op is cut into blocks that fit; block i+1 is loaded while block i is computed and block i-1 is
drained. `swatsim/simulator/memory/README.md` is the description; this was written from it alone.

This file is the oracle of the fast kernel, so it is the slow and plain way to say the same: every
candidate is cut into the real pieces of the real masks, every loop order is walked position by
position, and time is a fraction. It imports nothing of the package on purpose.

The file reads from top to bottom: the tensors; their blocks; the bits of a block; the walk along
a loop order; the candidates and the choice among them; time; `simulate`.
"""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise, product
from math import ceil

import numpy as np

from tests.naive.common import (
    OPERANDS,
    Shape,
    ceil_div,
    convolution_shape,
    empty_output,
    samples_in,
)

__all__ = ["NaiveMemory", "simulate"]

ORDERS = ("KCN", "KNC", "CKN", "CNK", "NKC", "NCK")

LOOPS = {"weight": "GKC", "act": "GCN", "grad_out": "GKN"}
"""The loops that cut a tensor. G, the groups, is outermost and cuts every tensor."""

OUTPUT = {"fprop": "grad_out", "dgrad": "act", "wgrad": "weight"}
"""The tensor in whose shape an op's output is; it stands in for the output."""

REDUCTION = {"fprop": "C", "dgrad": "K", "wgrad": "N"}

VALUE_BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "tf32": 32, "fp64": 64, "int8": 8}
VALUE_BITS |= {"fp8_e4m3": 8, "fp8_e5m2": 8}


@dataclass(frozen=True)
class NaiveMemory:
    """What was carried, how long the op took with it, and how it was cut into blocks."""

    cycles: int = 0
    lane_cycles: dict[str, int] = field(default_factory=dict)
    order: str = ""
    block: tuple[int, int, int, int] = (0, 0, 0, 0)
    blocks: int = 0
    loaded_bytes: dict[str, int] = field(default_factory=dict)
    result_bytes: int = 0
    partial_bytes: int = 0
    prune_bytes: int = 0
    refused: str | None = None


# ---------------------------------------------------------------------------------------------
# The tensors and their blocks
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """A whole tensor as it is stored: its non-zeros and its run-length padding, on 4 axes.

    `channels` is the axis of the channels of N:M, `layer_groups` the groups that follow on it.
    `packed` are the n and m of an operand that the machine runs n:m.
    """

    mask: np.ndarray
    padding: np.ndarray
    format: str
    channels: int = 1
    layer_groups: int = 1
    packed: tuple[int, int] | None = None


@dataclass(frozen=True)
class Packing:
    """The operand that the machine runs n of each m, and whether it is packed before the op."""

    operand: str
    n: int
    m: int
    each_step: bool = False


@dataclass(frozen=True)
class Problem:
    """An op of a layer. `tensors` has its operands, first a then b, and last its output.

    `rows` are those of a sample that the loop N runs over, `extents` how far each loop runs.
    """

    op: str
    shape: Shape
    samples: int
    rows: int
    extents: dict[str, int]
    value_bits: int
    tensors: dict[str, Tensor]


def make_tensor(mask: np.ndarray, form: str) -> Tensor:
    """A tensor with its padding, the whole a single run; one that has no zero is dense."""
    padding = np.zeros(mask.size, dtype=np.int64)
    zeros = 0
    for at, non_zero in enumerate(mask.ravel()):
        padding[at] = zeros // 16 if non_zero else 0
        zeros = 0 if non_zero else zeros + 1
    return Tensor(mask, padding.reshape(mask.shape), "dense" if mask.all() else form)


def make_problem(
    op: str,
    layer,
    config,
    dense: bool,
    masks: dict,
    transposed: bool = False,
    packing: Packing | None = None,
    of_activations: bool = False,
) -> Problem:
    """The op with its tensors on 4 axes, a linear layer as a convolution of one pixel.

    `transposed`: the layer is the adjoint of a transposed convolution. `of_activations`: it is a
    product of two activations, whose heads share no M channels.
    """
    if set(masks) != set(OPERANDS[op]):
        raise ValueError(f"{op} reads {OPERANDS[op]}, not {sorted(masks)}")
    shape = convolution_shape(layer)
    tensors = {}
    for name in OPERANDS[op]:
        mask = np.asarray(masks[name], dtype=bool)
        mask = mask[:, :, None, None] if layer.kind == "linear" else mask
        tensor = make_tensor(mask, "dense" if dense else getattr(config, f"format_{name}"))
        if transposed and name == "weight":
            tensor = replace(tensor, channels=0, layer_groups=layer.groups)
        if of_activations and name != "weight":
            tensor = replace(tensor, layer_groups=layer.groups)
        if packing and packing.operand == name and not mask.all():
            tensor = replace(tensor, packed=(packing.n, packing.m))
        tensors[name] = tensor
    samples = samples_in({name: tensor.mask for name, tensor in tensors.items()})
    whole_output = np.ones_like(empty_output(op, shape, samples), dtype=bool)
    tensors[OUTPUT[op]] = make_tensor(whole_output, "dense")
    rows, groups = shape.H if op == "dgrad" else shape.P, shape.groups
    extents = {"G": groups, "K": shape.K // groups, "C": shape.C // groups, "N": rows * samples}
    return Problem(op, shape, samples, rows, extents, VALUE_BITS[config.dtype], tensors)


@dataclass(frozen=True)
class Piece:
    """A block's part of the loop N: samples, and which rows of each."""

    samples: range
    rows: range


def ranges(total: int, size: int) -> list[range]:
    """0..total cut in ranges of `size`; the last may be shorter."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)]


def cut(problem: Problem, block: tuple[int, int, int, int]) -> dict[str, list]:
    """Of each loop its parts, in order."""
    g, k, c, n = block
    rows, sizes = problem.rows, {"G": g, "K": k, "C": c}
    parts = {loop: ranges(problem.extents[loop], size) for loop, size in sizes.items()}
    if n < rows:
        alone = ranges(problem.samples, 1)
        parts["N"] = [Piece(sample, part) for sample in alone for part in ranges(rows, n)]
    else:
        parts["N"] = [Piece(some, range(rows)) for some in ranges(problem.samples, n // rows)]
    return parts


def rows_of(problem: Problem, name: str, rows: range) -> slice:
    """The rows of act or of grad_out in a block that has these rows of the loop N."""
    shape = problem.shape
    size = shape.H if name == "act" else shape.P
    if len(rows) == problem.rows:
        return slice(0, size)
    if (name == "act") == (problem.op == "dgrad"):
        return slice(rows.start, rows.stop)
    stride, before = shape.stride[0], shape.padding[0][0]
    reach = (shape.R - 1) * shape.dilation[0]
    if name == "act":
        first, last = rows[0] * stride - before, rows[-1] * stride + reach - before
        last = max(last, rows.stop * stride - before - 1)
    else:
        first, last = ceil_div(rows[0] + before - reach, stride), (rows[-1] + before) // stride
    first, last = min(max(first, 0), size), min(last, size - 1)
    if rows.start == 0:
        first = 0
    if rows.stop == problem.rows:
        last = size - 1
    return slice(first, max(first, last + 1))


def slices_of(problem: Problem, name: str, part: dict) -> tuple[slice, ...]:
    """Where a tensor's block lies in it; `part` has the block's part of each loop.

    With several groups the part of K or C is all of them, so that what they have is contiguous.
    """

    def in_groups(loop: str) -> slice:
        """The filters or channels of the part's groups."""
        size, groups = problem.extents[loop], part["G"]
        return slice(groups[0] * size + part[loop].start, groups[-1] * size + part[loop].stop)

    if name == "weight":
        return in_groups("K"), slice(part["C"].start, part["C"].stop)
    samples = slice(part["N"].samples.start, part["N"].samples.stop)
    rows = rows_of(problem, name, part["N"].rows)
    return samples, in_groups("C" if name == "act" else "K"), rows


# ---------------------------------------------------------------------------------------------
# The bits of a block, and the walk along a loop order
# ---------------------------------------------------------------------------------------------


def width(largest: int) -> int:
    """The fewest of 8, 16, 32, 64 bits that hold this number."""
    return next(bits for bits in (8, 16, 32, 64) if largest < 2**bits)


def packed_bits(elements: int, n: int, m: int, b: int) -> int:
    """The bits of so many elements, packed: in each slot a value and its place among m."""
    return ceil_div(elements * n, m) * (b + (m - 1).bit_length())


def bits_of(tensor: Tensor, where: tuple[slice, ...], b: int) -> int:
    """The bits of the block at `where`, with b bits a value, as the tensor's format says."""
    mask, padding = tensor.mask[where], tensor.padding[where]
    elements, values = mask.size, int(np.count_nonzero(mask))
    whole, leading = tensor.mask.size, tensor.mask.shape[0]
    lines = mask.shape[0]
    if tensor.packed:
        return packed_bits(elements, *tensor.packed, b)
    if tensor.format == "dense":
        return elements * b
    if tensor.format == "bitmask":
        return values * b + elements
    if tensor.format == "csr":
        return values * (b + width(whole // leading - 1)) + (lines + 1) * width(whole)
    if tensor.format == "csc":
        return values * (b + width(leading - 1)) + (elements // lines + 1) * width(whole)
    if tensor.format == "run-length":
        return (values + int(padding.sum())) * (b + 4)
    kept, of = (int(number) for number in tensor.format.split(":"))
    channels, size = mask.shape[tensor.channels], tensor.mask.shape[tensor.channels]
    here = range(size)[where[tensor.channels]]
    of_group = size // tensor.layer_groups
    groups = [
        range(start, min(start + of, first + of_group))
        for first in range(0, size, of_group)
        for start in range(first, first + of_group, of)
    ]
    slots = sum(min(kept, sum(channel in here for channel in group)) for group in groups)
    return slots * (elements // channels) * (b + (of - 1).bit_length())


def bits_of_blocks(problem: Problem, parts: dict[str, list], name: str) -> dict[tuple, int]:
    """Bits of each block of a tensor, by the numbers of its parts; of the output, the result's."""
    bits = {}
    for key in product(*(range(len(parts[loop])) for loop in LOOPS[name])):
        part = {loop: parts[loop][at] for loop, at in zip(LOOPS[name], key, strict=True)}
        where = slices_of(problem, name, part)
        bits[key] = bits_of(problem.tensors[name], where, problem.value_bits)
    return bits


def partial_bits(problem: Problem, result_bits: int) -> int:
    """The bits of an output block's partial sums."""
    return result_bits // problem.value_bits * 32


@dataclass(frozen=True)
class Step:
    """What moves for one position: (kind, bits), of kind an operand, "result" or "partial"."""

    loads: list[tuple[str, int]]
    drains: list[tuple[str, int]]


def key_of(name: str, position: dict[str, int] | None) -> tuple[int, ...] | None:
    """Which block of a tensor a position has; beyond the ends there is none."""
    return position and tuple(position[loop] for loop in LOOPS[name])


def walk(problem: Problem, parts: dict, bits: dict, order: str, kept: frozenset) -> list[Step]:
    """What is loaded and drained at each position; what is kept as a single block never is."""
    output, needed = OUTPUT[problem.op], len(parts[REDUCTION[problem.op]])
    numbers = product(*(range(len(parts[loop])) for loop in "G" + order))
    path = [dict(zip("G" + order, number, strict=True)) for number in numbers]
    added = dict.fromkeys(bits[output], 0)
    steps = []
    for before, here, after in zip([None, *path], path, [*path[1:], None], strict=False):
        loads, drains = [], []
        for name in OPERANDS[problem.op]:
            on_chip = name in kept and len(bits[name]) == 1
            if key_of(name, here) != key_of(name, before) and not on_chip:
                loads.append((name, bits[name][key_of(name, here)]))
        key = key_of(output, here)
        if key != key_of(output, before) and added[key] > 0:
            loads.append(("partial", partial_bits(problem, bits[output][key])))
        added[key] += 1
        if key != key_of(output, after) and added[key] == needed:
            drains.append(("result", bits[output][key]))
        elif key != key_of(output, after):
            drains.append(("partial", partial_bits(problem, bits[output][key])))
        steps.append(Step(loads, drains))
    return steps


# ---------------------------------------------------------------------------------------------
# The candidates and the choice among them
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A block, a loop order, what the op then moves, and the bytes nothing can overlap with.

    `single` are the tensors that are one single block.
    """

    block: tuple[int, int, int, int]
    order: str
    steps: list[Step]
    moved: int
    first: int
    single: frozenset[str]


def powers_and(limit: int) -> list[int]:
    """The powers of two below `limit`, and `limit`."""
    return [2**e for e in range(limit.bit_length()) if 2**e < limit] + [limit]


def candidate_blocks(problem: Problem, config) -> list[tuple[int, int, int, int]]:
    """Every candidate (g, k, c, n), descending. Several groups only if both k and c are full."""
    rows, samples, extents = problem.rows, problem.samples, problem.extents
    sizes = {"G": powers_and(extents["G"])}
    for loop, wanted in (("K", config.block_filters), ("C", config.block_channels)):
        full = extents[loop]
        sizes[loop] = powers_and(full) if wanted == "auto" else [min(wanted, full)]
    n = config.block_rows
    if n == "auto":
        sizes["N"] = powers_and(rows)[:-1] + [rows * count for count in powers_and(samples)]
    else:
        sizes["N"] = [n if n < rows else rows * min(n // rows, samples)]
    blocks = product(*(sizes[loop] for loop in "GKCN"))
    full = (extents["K"], extents["C"])
    return sorted((b for b in blocks if b[0] == 1 or b[1:3] == full), reverse=True)


def make_candidate(problem: Problem, block, parts, bits, order: str, kept: frozenset) -> Candidate:
    """A candidate, walked; its first block of the output is always a whole one."""
    steps = walk(problem, parts, bits, order, kept)
    moved = sum(bytes_of(step.loads) + bytes_of(step.drains) for step in steps)
    first = bytes_of(steps[0].loads) + ceil_div(bits[OUTPUT[problem.op]][0, 0, 0], 8)
    single = frozenset(name for name in bits if len(bits[name]) == 1)
    return Candidate(block, order, steps, moved, first, single)


def candidates(problem: Problem, config, kept: frozenset) -> tuple[list[Candidate], str | None]:
    """Every candidate that fits, in the order that breaks ties; the buffer to blame if none does.

    To blame is the first buffer that by itself rules out every candidate. If none does, because
    each can be satisfied but no candidate satisfies all of them, it is 'a'.
    """
    a, b = OPERANDS[problem.op]
    halves = {name: getattr(config, f"buffer_{name}_kib") * 8192 // 2 for name in ("a", "b", "out")}
    orders = ORDERS if config.loop_order == "auto" else (config.loop_order,)
    found, fits_alone = [], dict.fromkeys(halves, False)
    for block in candidate_blocks(problem, config):
        parts = cut(problem, block)
        bits = {name: bits_of_blocks(problem, parts, name) for name in problem.tensors}
        largest = {name: max(of_blocks.values()) for name, of_blocks in bits.items()}
        out = partial_bits(problem, largest[OUTPUT[problem.op]])
        needs = {"a": largest[a], "b": largest[b], "out": out}
        fits = {name: needs[name] <= halves[name] for name in halves}
        fits_alone = {name: fits_alone[name] or fits[name] for name in halves}
        if all(fits.values()):
            found += [make_candidate(problem, block, parts, bits, o, kept) for o in orders]
    too_small = [name for name in halves if not fits_alone[name]]
    return found, None if found else [*too_small, "a"][0]


def fine(limit: int, steps: tuple[int, ...] = ()) -> list[int]:
    """Every extent up to 32; above, ceil(limit / j) for every j, and likewise in multiples."""
    if limit <= 32:
        return list(range(limit, 0, -1))
    found = {ceil_div(limit, j) for j in range(1, limit + 1)}
    for step in steps:
        multiples = ceil_div(limit, step)
        found |= {min(limit, step * ceil_div(multiples, j)) for j in range(1, multiples + 1)}
    return sorted(found, reverse=True)


def slots_along(problem: Problem) -> dict[str, set[int]]:
    """The M of operands stored N:M, by the loop that their channels are of."""
    found: dict[str, set[int]] = {"K": set(), "C": set()}
    for name in OPERANDS[problem.op]:
        tensor = problem.tensors[name]
        if ":" in tensor.format and not tensor.packed:
            of_filters = name == "grad_out" or (name == "weight" and tensor.channels == 0)
            found["K" if of_filters else "C"].add(int(tensor.format.split(":")[1]))
    return found


def fine_sizes(problem: Problem, config) -> dict[str, list[int]]:
    """The sizes of the fine candidates, descending."""
    rows, samples, extents = problem.rows, problem.samples, problem.extents
    sizes, slots = {}, slots_along(problem)
    for loop, wanted in (("K", config.block_filters), ("C", config.block_channels)):
        full = extents[loop]
        sizes[loop] = fine(full, tuple(slots[loop])) if wanted == "auto" else [min(wanted, full)]
    n = config.block_rows
    if n == "auto":
        whole = [rows * count for count in fine(samples)]
        stride = (problem.shape.stride[0],) if problem.op == "dgrad" else ()
        sizes["N"] = whole + [size for size in fine(rows, stride) if size < rows]
    else:
        sizes["N"] = [n if n < rows else rows * min(n // rows, samples)]
    return sizes


def fine_candidates(problem: Problem, config, kept: frozenset, held: frozenset) -> list[Candidate]:
    """For each fine number of channels and rows the most filters of which every block fits.

    The same among the multiples of each M that filters are stored by. And several groups.
    """
    a, b = OPERANDS[problem.op]
    halves = {name: getattr(config, f"buffer_{name}_kib") * 8192 // 2 for name in ("a", "b", "out")}
    orders = ORDERS if config.loop_order == "auto" else (config.loop_order,)
    sizes, known, found = fine_sizes(problem, config), {}, {}
    full = problem.extents["K"], problem.extents["C"]

    def of(name: str, parts: dict, where: tuple) -> dict:
        """The bits of a tensor's blocks; many candidates have the same."""
        key = name, tuple(where[["G", "K", "C", "N"].index(loop)] for loop in LOOPS[name])
        if key not in known:
            known[key] = bits_of_blocks(problem, parts, name)
        return known[key]

    def take(block: tuple[int, int, int, int]) -> bool:
        """Whether every block fits; if so it is a candidate."""
        parts = cut(problem, block)
        bits = {name: of(name, parts, block) for name in problem.tensors}
        largest = {name: max(of_blocks.values()) for name, of_blocks in bits.items()}
        out = partial_bits(problem, largest[OUTPUT[problem.op]])
        fits = largest[a] <= halves["a"] and largest[b] <= halves["b"] and out <= halves["out"]
        if fits and all(len(bits[name]) == 1 for name in held) and block not in found:
            found[block] = [make_candidate(problem, block, parts, bits, o, kept) for o in orders]
        return block in found

    for c, n in product(sizes["C"], sizes["N"]):
        for step in (1, *slots_along(problem)["K"]):
            some = (k for k in sizes["K"] if k % step == 0 or k == full[0])
            any(take((1, k, c, n)) for k in some)  # up to the first that fits
    if (sizes["K"][0], sizes["C"][0]) == full:
        for g, n in product(fine(problem.extents["G"]), sizes["N"]):
            take((g, *full, n))
    return [one for block in sorted(found, reverse=True) for one in found[block]]


def best_of(fitting: list[Candidate]) -> Candidate:
    """The best candidate; `min` takes the first of equal ones."""
    least = min(candidate.moved for candidate in fitting)
    near = [candidate for candidate in fitting if candidate.moved <= least + least // 64]
    return min(near, key=lambda one: (max(one.first, least // 64), len(one.steps)))


def choose(problem: Problem, config, fitting: list, kept: frozenset, held: frozenset) -> Candidate:
    """The best of the powers of two, unless the fine ones move fewer bytes by over a 64th.

    Where a tensor in `held` can be a single block, only such candidates count.
    """
    single = frozenset(name for name in held if any(name in one.single for one in fitting))
    best = best_of([one for one in fitting if single <= one.single])
    if "auto" not in (config.block_filters, config.block_channels, config.block_rows):
        return best
    others = fine_candidates(problem, config, kept, single)
    least = min((one.moved for one in others), default=best.moved)
    return best if best.moved <= least + least // 64 else best_of(others)


# ---------------------------------------------------------------------------------------------
# Time
# ---------------------------------------------------------------------------------------------


def bytes_of(moves: list[tuple[str, int]], *kinds: str) -> int:
    """The bytes of the moves of these kinds, or of all if none is named; each is rounded up."""
    return sum(ceil_div(bits, 8) for kind, bits in moves if kind in kinds or not kinds)


def spread(parts: dict[str, list], loops: str, total: int) -> list[int]:
    """The cycles of each block, in order: `total` shared out loop by loop."""
    if not loops:
        return [total]
    ends = [0]
    for part in parts[loops[0]]:
        extent = len(part.samples) * len(part.rows) if isinstance(part, Piece) else len(part)
        ends.append(ends[-1] + extent)
    cycles = []
    for start, end in pairwise(ends):
        share = total * end // ends[-1] - total * start // ends[-1]
        cycles += spread(parts, loops[1:], share)
    return cycles


def pipeline(config, steps: list[Step], busy: list[int]) -> tuple[Fraction, Fraction, int]:
    """The start, the end and the total; `busy` are the cycles that each block computes."""
    if config.dram_ideal:
        return Fraction(0), Fraction(sum(busy)), sum(busy)
    rate = Fraction(config.dram_mb_per_s, config.clock_mhz)
    loaded = [bytes_of(step.loads) for step in steps] + [0]
    drained = [0] + [bytes_of(step.drains) for step in steps]
    start = ceil_div(config.dram_latency_ns * config.clock_mhz, 1000) + loaded[0] / rate
    end = start
    for i, cycles in enumerate(busy):
        moved = loaded[i + 1] + drained[i]  # `drained` starts at block -1
        end += max(Fraction(cycles), moved / rate)
    return start, end, ceil(end + drained[-1] / rate)


def pruning(problem: Problem, config, packing: Packing | None) -> tuple[int, int]:
    """The bytes and the cycles of packing an operand before the op."""
    if packing is None or not packing.each_step:
        return 0, 0
    elements, b = problem.tensors[packing.operand].mask.size, problem.value_bits
    read = ceil_div(elements * b, 8)
    written = ceil_div(packed_bits(elements, packing.n, packing.m, b), 8)
    if config.dram_ideal:
        return read + written, 0
    carried = ceil_div((read + written) * config.clock_mhz, config.dram_mb_per_s)
    return read + written, ceil_div(config.dram_latency_ns * config.clock_mhz, 1000) + carried


def output_words(problem: Problem, wanted: np.ndarray | None) -> int:
    """Accesses of the output's buffer where the machine does not say them: written and read."""
    whole = problem.tensors[OUTPUT[problem.op]].mask.size
    elements = whole if wanted is None else sum(1 for each in wanted.ravel() if each)
    if problem.op != "wgrad":
        return elements
    return elements * problem.samples + elements * (problem.samples - 1)


def simulate(
    op: str,
    layer,
    config,
    *,
    cycles_compute: int,
    pes: int,
    lanes: int,
    words: tuple[int, int],
    sums: int = 0,
    packing: Packing | None = None,
    dense: bool = False,
    kept: frozenset[str] = frozenset(),
    held: frozenset[str] = frozenset(),
    transposed: bool = False,
    of_activations: bool = False,
    wanted: np.ndarray | None = None,
    **masks,
) -> NaiveMemory:
    """The op behind the memory system; `masks` are the non-zeros of the two operands it reads.

    `kept` lie on chip from the op before, `held` are loaded and stay for the op after: of either
    only candidates with a single block count, if one fits; else they are as any other operand.
    `sums` are written into the output's buffer and read back; 0: the machine does not say. `wanted`
    are the outputs that somebody wants; None: all.
    """
    problem = make_problem(op, layer, config, dense, masks, transposed, packing, of_activations)
    fitting, refused = candidates(problem, config, kept)
    if refused:
        return NaiveMemory(refused=refused)
    chosen = choose(problem, config, fitting, kept, kept | held)
    rates = (config.buffer_a_words, config.buffer_b_words, config.buffer_out_words)
    taken = (*words, sums or output_words(problem, wanted))
    serving = (ceil_div(count, rate) for count, rate in zip(taken, rates, strict=True))
    computing = max(cycles_compute, *serving)
    busy = spread(cut(problem, chosen.block), "G" + chosen.order, computing)
    start, end, total = pipeline(config, chosen.steps, busy)
    waited = ceil(start) + total - ceil(end)
    prune_bytes, prune_cycles = pruning(problem, config, packing)
    cycles = {
        "buffer": computing - cycles_compute,
        "prune": prune_cycles,
        "fill_drain": waited,
        "dram": total - computing - waited,
    }
    loads = [move for step in chosen.steps for move in step.loads]
    drains = [move for step in chosen.steps for move in step.drains]
    return NaiveMemory(
        cycles=prune_cycles + total,
        lane_cycles={bucket: count * pes * lanes for bucket, count in cycles.items()},
        order=chosen.order,
        block=chosen.block,
        blocks=len(chosen.steps),
        loaded_bytes={name: bytes_of(loads, name) for name in OPERANDS[op]},
        result_bytes=bytes_of(drains, "result"),
        partial_bytes=bytes_of(loads + drains, "partial"),
        prune_bytes=prune_bytes,
    )
