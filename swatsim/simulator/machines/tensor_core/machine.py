"""What an op takes on a `tensor_core`: which operand is compressed, and all that follows."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

from swatsim.counters import Counters
from swatsim.simulator.machines.tensor_core.config import TensorCoreConfig
from swatsim.simulator.machines.tensor_core.mapping import Part, parts
from swatsim.simulator.n_of_m import NONE as NO_PATTERN
from swatsim.workload.gemm import SIDES
from swatsim.workload.layer import OPERANDS_OF, Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.patterns import Pattern, patterns

#: Images of a batch are laid out so many values at a time, if no whole waves come before: what a
#: round leaves of its last wave is then little beside the round.
ROUND_VALUES = 2**26


def simulate_op(op: LoweredOp, config: TensorCoreConfig) -> Counters:
    """Return the counters of one op."""
    found = obeying(op, config)
    chosen = compressed(op, config, found)
    counters = _counters(op, config, parts(op, config, chosen is not None), chosen)
    seen = {
        f"pattern_{what}_{side}": getattr(found[operand], what)
        for side, operand in zip("ab", OPERANDS_OF[op.name], strict=True)
        for what in Pattern._fields
        if operand in found
    }
    return counters._replace(**seen)


def simulate_dense(op: LoweredOp, config: TensorCoreConfig) -> Counters:
    """Return the counters of the op's dense baseline: all blocks, and nothing is compressed."""
    return _counters(op, config, parts(op.of_all_outputs(), config, False), None)


def in_rounds(op: LoweredOp, config: TensorCoreConfig) -> tuple[TensorCoreConfig, int] | None:
    """Return the config that compresses what the op does, and how many images fill whole waves.

    Only a product of activations has them: its images are groups; any other op's share its GEMMs.
    None, too, where they need not be laid out.
    """
    if not op.of_samples or (op.output is None and not reads_images(op, config)):
        return None
    chosen = compressed(op, config, obeying(op, config))
    fixed = {"sparse_operands": op.called(chosen)} if chosen else {"pattern": NO_PATTERN}
    sizes = (mask.size for mask in (*op.operands.values(), op.output) if mask is not None)
    largest = max(sizes) // op.images
    at_once = min(_images_of_whole_waves(op, config), max(1, ROUND_VALUES // largest))
    return config.model_copy(update=fixed), at_once


def _images_of_whole_waves(op: LoweredOp, config: TensorCoreConfig) -> int:
    """Return after how many images both the op and its dense baseline have filled all cores."""
    images, blocks = 1, []
    for one in (op, op.of_all_outputs()):
        for part in parts(one, config, False):
            counts = part.blocks.counts_of(op.images)
            if (counts != counts[0]).any():
                images = op.images
            blocks.append(counts)
    shared = (int(counts[:images].sum()) for counts in blocks)
    return images * config.cores // gcd(config.cores, *shared)


def reads_images(op: LoweredOp, config: TensorCoreConfig) -> bool:
    """Whether an operand of images obeys: where some images do not, no batch that has them does.

    Or may obey: a group of a wgrad has values of two images where m does not divide an image's.
    """
    cut = op.name == "wgrad" and not op.of_samples
    if cut and config.packing and op.layer.positions % config.packing[1]:
        return bool(_allowed(op, config))
    found = obeying(op, config)
    return any(found[operand].obeys for operand in op.operands_of_images & found.keys())


def _allowed(op: LoweredOp, config: TensorCoreConfig) -> set[Operand]:
    """Return the operands of an op that may be compressed."""
    if config.packing is None:
        return set()
    return {operand for operand in op.operands if op.called(operand) in config.allowed}


def obeying(op: LoweredOp, config: TensorCoreConfig) -> Mapping[Operand, Pattern]:
    """Return what obeys the pattern, of each operand that may be compressed."""
    if config.packing is None:
        return {}
    return patterns(op, config.dgrad_lowering, *config.packing, _allowed(op, config))


def compressed(
    op: LoweredOp, config: TensorCoreConfig, found: Mapping[Operand, Pattern]
) -> Operand | None:
    """Return the operand that is compressed: of those that obey the sparser."""
    packed = parts(op, config, True)
    if all(part.kept == part.gemm.depth for part in packed):
        return None
    able = [it for it in found if found[it].obeys]
    if len(able) == 2:
        (a, b), size = able, {it: op.operands[it].size for it in able}
        return b if op.counts[b] * size[a] < op.counts[a] * size[b] else a
    return able[0] if able else None


def _counters(
    op: LoweredOp, config: TensorCoreConfig, run: list[Part], chosen: Operand | None
) -> Counters:
    cycles = sum(part.waves * part.cycles for part in run)
    computed = sum(part.macs_computed for part in run)
    words = {
        operand: sum(part.words(side, operand == chosen) for part in run)
        for side, operand in enumerate(SIDES[op.name])
    }
    first, second = OPERANDS_OF[op.name]
    return Counters(
        cycles_compute=cycles,
        pes=config.pes,
        lanes=config.lanes,
        lane_cycles_effectual=op.macs_effectual,
        lane_cycles_ineffectual=computed - op.macs_effectual,
        lane_cycles_unmapped=cycles * config.multipliers - computed,
        words_a=words[first],
        words_b=words[second],
        multiplexed=sum(part.macs_computed for part in run if part.kept < part.gemm.depth),
        sums_written=sum(part.blocks.outputs for part in run),
        compressed=chosen or "",
    )
