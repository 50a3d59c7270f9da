"""Count an op's products, and share them out among the multipliers."""

from __future__ import annotations

from math import prod

from swatsim.counters import Counters
from swatsim.simulator.machines.ideal.config import IdealConfig, Skips
from swatsim.workload import flops
from swatsim.workload.layer import Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.training_ops import MaskName

#: Images of a batch are laid out so many values at a time: what is rounded up once a round is then
#: nothing beside the round.
ROUND_VALUES = 2**22


def simulate_op(op: LoweredOp, config: IdealConfig) -> Counters:
    """Return the counters of the products that remain, of outputs that are wanted."""
    skipped = _skipped(op, config)
    words = {
        name: op.counts[name] if name in skipped else mask.size
        for name, mask in op.operands.items()
    }
    products = op.with_zeros_of(skipped).macs_effectual
    return _counters(op, config, products, words, op.outputs_wanted)


def simulate_dense(op: LoweredOp, config: IdealConfig) -> Counters:
    """Return the counters of all products, those with padding or of unwanted outputs too."""
    words = {name: mask.size for name, mask in op.operands.items()}
    products = flops.macs_dense(op.layer, op.samples)
    return _counters(op, config, products, words, prod(op.output_shape))


def reads_images(op: LoweredOp, config: IdealConfig) -> bool:
    """Whether zeros of images are skipped, and not those of weights alone, or none."""
    return not op.operands_of_images.isdisjoint(_skipped(op, config))


def looks_at(op: LoweredOp, config: IdealConfig) -> set[MaskName]:
    """Return the operands whose zeros are skipped, and the outputs."""
    return {*_skipped(op, config), "output"}


def in_rounds(op: LoweredOp, config: IdealConfig) -> tuple[IdealConfig, int] | None:
    """Return how many images are a round; None: all, where they need not be laid out."""
    if not reads_images(op, config):
        return None
    largest = max(op.operands[name].size for name in op.operands_of_images)
    return config, max(1, ROUND_VALUES * op.images // largest)


def _skipped(op: LoweredOp, config: IdealConfig) -> list[Operand]:
    """Return the operands whose zeros are skipped; a config names them as the layer does."""
    if config.skips is Skips.BOTH:
        return [*op.operands]
    return [name for name in op.operands if op.called(name) == config.skips.value]


def _counters(
    op: LoweredOp, config: IdealConfig, products: int, words: dict[Operand, int], written: int
) -> Counters:
    cycles = -(-products // config.multipliers)
    first, second = words.values()
    return Counters(
        cycles_compute=cycles,
        pes=config.pes,
        lanes=config.lanes,
        lane_cycles_effectual=op.macs_effectual,
        lane_cycles_ineffectual=products - op.macs_effectual,
        lane_cycles_idle=cycles * config.multipliers - products,
        words_a=first,
        words_b=second,
        sums_written=written,
    )
