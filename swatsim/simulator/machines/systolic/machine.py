"""Run an op, and its dense baseline: closed forms, for no cycle depends on a value.

Only whether the weights obey a pattern is looked at.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from swatsim.counters import Counters
from swatsim.simulator.interface import Busy
from swatsim.simulator.machines.systolic.config import SystolicConfig
from swatsim.simulator.machines.systolic.mapping import Product, layout, products, words
from swatsim.simulator.n_of_m import NONE as NO_PATTERN
from swatsim.workload.layer import Operand
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.patterns import Pattern, patterns
from swatsim.workload.training_ops import MaskName

#: Operands that may run n:m.
LOOKED_AT: tuple[Operand, ...] = ("weight",)


def simulate_op(op: LoweredOp, config: SystolicConfig) -> Counters:
    """Return an op's counters on a `systolic`, its weights compressed where they obey."""
    found = _pattern(op, config)
    counters = _counters(op, config, _compresses(op, config, found))
    return counters._replace(pattern_groups_a=found.groups, pattern_obeying_a=found.obeying)


def busy(op: LoweredOp, config: SystolicConfig) -> Busy:
    """Return the op's cycles: there is one array, and waves pass it in all of them."""
    own = np.array([simulate_op(op, config).cycles_compute])
    return Busy("array", own, np.zeros_like(own))


def simulate_dense(op: LoweredOp, config: SystolicConfig) -> Counters:
    """Return the counters with all products, whether the weights obey or not."""
    return _counters(op, config, compressed=False)


def by_image(op: LoweredOp, config: SystolicConfig) -> SystolicConfig | None:
    """Return the config that compresses as the op does, if it is a product of activations.

    Its images are groups, which follow one another; any other op's share its products.
    """
    if not op.of_samples:
        return None
    fixed = {} if runs_compressed(op, config) else {"pattern": NO_PATTERN}
    return config.model_copy(update=fixed)


def reads_images(op: LoweredOp, config: SystolicConfig) -> bool:
    """Whether cycles depend on the images: where weights are such, and obey the pattern."""
    return bool(op.of_samples) and runs_compressed(op, config)


def looks_at(op: LoweredOp, config: SystolicConfig) -> Collection[MaskName]:
    """Return the operands that may run n:m."""
    return LOOKED_AT if config.packing is not None and op.name != "wgrad" else ()


def runs_compressed(op: LoweredOp, config: SystolicConfig) -> bool:
    """Whether all groups of the weights obey the pattern, and a product is shorter for it."""
    return _compresses(op, config, _pattern(op, config))


def _pattern(op: LoweredOp, config: SystolicConfig) -> Pattern:
    """Return what is seen of the weights; no groups: they are not looked at."""
    if config.packing is None or op.name == "wgrad":
        return Pattern(0, 0)
    n, m = config.packing
    return patterns(op, config.dgrad_lowering, n, m, operands=LOOKED_AT)["weight"]


def _compresses(op: LoweredOp, config: SystolicConfig, found: Pattern) -> bool:
    if not found.groups or not found.obeys:
        return False
    return any(one.kept < one.K for one in products(op, config, compressed=True))


def _counters(op: LoweredOp, config: SystolicConfig, compressed: bool) -> Counters:
    """Return the sum of the products, lane-cycles sorted into their buckets."""
    every = list(products(op, config, compressed))
    cycles, held, work, left, right, written, read = _summed(every, config)
    first, second = (left, right) if op.name == "wgrad" else (right, left)
    return Counters(
        cycles_compute=cycles,
        pes=config.pes,
        lanes=config.lanes,
        lane_cycles_effectual=op.macs_effectual,
        lane_cycles_ineffectual=work - op.macs_effectual,
        lane_cycles_unmapped=cycles * config.pes - held,
        lane_cycles_skew=held - work,
        words_a=first,
        words_b=second,
        multiplexed=sum(one.times * one.M * one.N * one.kept for one in every if one.kept < one.K),
        compressed="weight" if compressed else "",
        sums_written=written,
        sums_read=read,
    )


def _summed(every: list[Product], config: SystolicConfig) -> list[int]:
    """Return cycles, lane-cycles of PEs that hold something, products, and the four words."""
    totals = [0] * 7
    for one in every:
        laid = layout(one, config)
        work = one.M * one.N * one.kept
        of_one = (laid.folds * laid.lines, laid.held * laid.lines, work, *words(one, config))
        totals = [total + one.times * value for total, value in zip(totals, of_one, strict=True)]
    return totals
