"""What an op takes on a `tensor_core`: which operand is compressed, and all that follows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from swatsim.counters import Counters
from swatsim.simulator.interface import Busy
from swatsim.simulator.machines.tensor_core.config import TensorCoreConfig
from swatsim.simulator.machines.tensor_core.mapping import Part, parts
from swatsim.simulator.n_of_m import NONE as NO_PATTERN
from swatsim.workload.gemm import SIDES
from swatsim.workload.layer import OPERANDS_OF, Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.patterns import Pattern, patterns
from swatsim.workload.training_ops import MaskName

#: Images of a batch are laid out so many values at a time at most (128 MiB). Where no number of
#: them fills whole waves, what a round leaves of its last one is little beside the round.
ROUND_VALUES = 2**27


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


def busy(op: LoweredOp, config: TensorCoreConfig) -> Busy:
    """Return in how many cycles each core computes a block: none of a wave waits for another."""
    own = np.zeros(config.cores, np.int64)
    for part in parts(op, config, compressed(op, config, obeying(op, config)) is not None):
        last = part.blocks.count - (part.waves - 1) * config.cores
        own += (part.waves - (np.arange(config.cores) >= last)) * part.cycles
    return Busy("core", own, np.zeros_like(own))


def simulate_dense(op: LoweredOp, config: TensorCoreConfig) -> Counters:
    """Return the counters of the op's dense baseline: all blocks, and nothing is compressed."""
    return _counters(op, config, parts(op.of_all_outputs(), config, False), None)


def in_rounds(op: LoweredOp, config: TensorCoreConfig) -> tuple[TensorCoreConfig, int] | None:
    """Return the config that compresses what the op does, and how many images fill its waves best.

    Only a product of activations has them: its images are groups; any other op's share its GEMMs.
    None, too, where they need not be laid out.
    """
    if not op.of_samples or (op.output is None and not reads_images(op, config)):
        return None
    chosen = compressed(op, config, obeying(op, config))
    fixed = {"sparse_operands": op.called(chosen)} if chosen else {"pattern": NO_PATTERN}
    sizes = (mask.size for mask in (*op.operands.values(), op.output) if mask is not None)
    most = max(1, ROUND_VALUES * op.images // max(sizes))
    return config.model_copy(update=fixed), _images_of_full_waves(op, config, most)


def _images_of_full_waves(op: LoweredOp, config: TensorCoreConfig, most: int) -> int:
    """Return how many images leave the fewest cores idle, by the op and by its dense baseline."""
    runs = (part for one in (op, op.of_all_outputs()) for part in parts(one, config, False))
    counts = [part.blocks.counts_of(op.images) for part in runs]
    alike = all((each == each[0]).all() for each in counts)
    step = 1 if alike or op.images > most else op.images
    blocks, cores = [int(each[:step].sum()) for each in counts], config.cores

    def idle(times: int) -> float:
        return sum(-times * each % cores for each in blocks) / times

    return step * min(range(1, min(cores, most // step) + 1), key=idle)


def reads_images(op: LoweredOp, config: TensorCoreConfig) -> bool:
    """Whether an operand of images obeys: where some images do not, no batch that has them does.

    Or may obey: a group of a wgrad has values of two images where m does not divide an image's.
    """
    cut = op.name == "wgrad" and not op.of_samples
    if cut and config.packing and op.layer.positions % config.packing[1]:
        return bool(_allowed(op, config))
    found = obeying(op, config)
    return any(found[operand].obeys for operand in op.operands_of_images & found.keys())


def looks_at(op: LoweredOp, config: TensorCoreConfig) -> set[MaskName]:
    """Return the operands that may be compressed, and the outputs, whose blocks are left out."""
    return {*_allowed(op, config), "output"}


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
