"""A machine from outside the package, whole: memory, energy, sweeps, estimates, timeline.

`skipping_vector` has PEs of a few multipliers. A PE takes one filter; in a cycle it takes so many
of the filter's next non-zero weights, and the values that meet them, and adds the products to one
output. Filters come in rounds of as many as there are PEs, and a round ends with its slowest
filter; every output position of every sample runs all rounds. dgrad runs as the convolutions that
compute it; in wgrad the filters are the channels of grad_out, of one sample at a time, and the
outputs are the weights of one filter.

Run it by its module's name, wherever that can be imported::

    swatsim simulate TRACE --machine examples.own_machine:vector8
    swatsim simulate TRACE --machine examples.own_machine:vector8 --set pes=64
    swatsim timeline TRACE --machine examples.own_machine:vector8 --layer conv1 --op fprop -o t.json

and in a sweep as `preset = "examples.own_machine:vector8"`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from swatsim import Counters, Event, LoweredOp, MachineConfig, Mechanism, Preset, Timeline
from swatsim.errors import ConfigError
from swatsim.workload.convolutions import convolutions

Counts = npt.NDArray[np.int64]


class VectorConfig(MachineConfig):
    """Geometry of a `skipping_vector`; memory parameters are those of every machine."""

    pes: Annotated[int, Field(ge=1, le=2**16, description="PEs", json_schema_extra={"unit": "PEs"})]
    lanes: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="multipliers of a PE",
            json_schema_extra={"unit": "multipliers"},
        ),
    ]

    presets: ClassVar[Mapping[str, Preset]] = {
        "vector8": Preset(
            "made up, to show how a machine is written",
            {"pes": 32, "lanes": 8, "dtype": "fp16", "clock_mhz": 1000},
            "made up: the defaults",
        )
    }


@dataclass(frozen=True)
class Part:
    """Filters that run together: `weights[k]` of filter k take part, at so many outputs."""

    weights: Counts
    outputs: int

    def rounds(self, pes: int) -> Counts:
        """Return the weights as (rounds, PEs); -1 where a PE has no filter."""
        filled = np.full(-(-len(self.weights) // pes) * pes, -1, np.int64)
        filled[: len(self.weights)] = self.weights
        return filled.reshape(-1, pes)


def parts(op: LoweredOp, config: VectorConfig, skips: bool) -> Iterator[Part]:
    """Cut an op into parts, group by group and, in wgrad, sample by sample."""
    if op.name == "wgrad":
        layer = op.layer
        for sample in op.operands["grad_out"]:
            of_group = layer.C // layer.groups * layer.R * layer.S
            yield from _groups(sample, layer.groups, of_group, skips)
        return
    for conv in convolutions(op, config.dgrad_lowering):
        outputs = conv.samples * conv.output[0] * conv.output[1]
        yield from _groups(conv.weight, conv.groups, outputs, skips)


def _groups(
    filters: npt.NDArray[np.bool_], groups: int, outputs: int, skips: bool
) -> Iterator[Part]:
    flat = filters.reshape(len(filters), -1)
    taken = np.count_nonzero(flat, axis=1) if skips else np.full(len(flat), flat.shape[1])
    for group in taken.astype(np.int64).reshape(groups, -1):
        yield Part(group, outputs)


def count(op: LoweredOp, config: VectorConfig, skips: bool) -> Counters:
    """Add up cycles, and put every lane-cycle into its bucket."""
    cycles = products = idle = sync = unmapped = 0
    for part in parts(op, config, skips):
        rounds = part.rounds(config.pes)
        own = np.where(rounds < 0, 0, -(-rounds // config.lanes))
        slowest = own.max(axis=1, keepdims=True)
        there = rounds >= 0
        cycles += part.outputs * int(slowest.sum())
        products += part.outputs * int(rounds[there].sum())
        idle += part.outputs * int((own * config.lanes - rounds)[there].sum())
        sync += part.outputs * config.lanes * int((slowest - own)[there].sum())
        unmapped += part.outputs * config.lanes * int((slowest * ~there).sum())
    return Counters(
        cycles_compute=cycles,
        pes=config.pes,
        lanes=config.lanes,
        lane_cycles_effectual=op.macs_effectual,
        lane_cycles_ineffectual=products - op.macs_effectual,
        lane_cycles_idle=idle,
        lane_cycles_pe_sync=sync,
        lane_cycles_unmapped=unmapped,
        words_a=products,
        words_b=products,
    )


def simulate_op(op: LoweredOp, config: VectorConfig) -> Counters:
    """Count an op's cycles, the zeros of the filters skipped."""
    return count(op, config, skips=True)


def simulate_dense(op: LoweredOp, config: VectorConfig) -> Counters:
    """Count an op's cycles with nothing skipped."""
    return count(op, config, skips=False)


def timeline(op: LoweredOp, config: VectorConfig, tile: int) -> Timeline:
    """Show one PE: a product event for each round of each output, then what it waits."""
    if tile not in range(config.pes):
        raise ConfigError(f"tile={tile} is not allowed: a tile is a PE; 0 to {config.pes - 1}")
    own: list[tuple[int, int, int]] = []
    for part in parts(op, config, skips=True):
        rounds = -(-np.maximum(part.rounds(config.pes), 0) // config.lanes)
        one = [(number, int(row[tile]), int(row.max())) for number, row in enumerate(rounds)]
        own += one * part.outputs

    def events(window: range) -> Iterator[Event]:
        begin = 0
        for number, works, lasts in own:
            if begin >= window.stop:
                return
            if works and begin + lasts > window.start:
                yield Event(0, f"round {number}", "product", begin, works, {"round": number})
            if lasts > works and begin + lasts > window.start:
                yield Event(1, "waits", "pe_sync", begin + works, lasts - works, {})
            begin += lasts

    return Timeline(("products", "waits"), sum(it[2] for it in own), events, {"tiles": config.pes})


SKIPPING_VECTOR = Mechanism(
    name="skipping_vector",
    summary="PEs of a few multipliers that skip a filter's zeros; an example",
    config_type=VectorConfig,
    simulate_op=simulate_op,
    simulate_dense=simulate_dense,
    timeline=timeline,
    tile="a PE",
    by_image=lambda op, config: config,  # samples follow one another
    reads_images=lambda op, config: op.name == "wgrad",
)

#: What swatsim looks for in a module.
MACHINES = (SKIPPING_VECTOR,)
