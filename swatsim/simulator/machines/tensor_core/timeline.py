"""One core, cycle by cycle: which block it computes in which wave, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from swatsim.simulator.interface import Event, Timeline, check_tile
from swatsim.simulator.machines.tensor_core.config import TensorCoreConfig
from swatsim.simulator.machines.tensor_core.machine import compressed, obeying
from swatsim.simulator.machines.tensor_core.mapping import Part, parts
from swatsim.workload.lowering import LoweredOp

WAVES, CORE = range(2)


def timeline(op: LoweredOp, config: TensorCoreConfig, tile: int) -> Timeline:
    """Return what one core does in an op.

    Raises
    ------
    ConfigError
        If the core has no block of the op.
    """
    return _Core(op, config, tile).timeline()


@dataclass(frozen=True)
class _Wave:
    """A wave: of which phase's GEMMs, which one of theirs, from which cycle on."""

    part: Part
    gemm: int
    number: int
    begin: int


@dataclass
class _Core:
    op: LoweredOp
    config: TensorCoreConfig
    number: int

    def __post_init__(self) -> None:
        self.chosen = compressed(self.op, self.config, obeying(self.op, self.config))
        self.parts = parts(self.op, self.config, self.chosen is not None)
        most = max((part.blocks.count for part in self.parts), default=0)
        self.used = min(self.config.cores, most)
        check_tile(self.number, self.used, self.op, "a core that has a block of it")

    def timeline(self) -> Timeline:
        """Return the timeline: its threads, how long it takes, its events when asked."""
        about = {
            "tiles": self.used,
            "compressed": self.op.called(self.chosen) if self.chosen else None,
            "gemms": [{**it.gemm._asdict(), "kept": it.kept} for it in self.parts],
        }
        return Timeline(("waves", "core"), self.ends[-1], self._events, about)

    @cached_property
    def ends(self) -> list[int]:
        """The cycle at which the GEMMs of each phase are done."""
        ends, cycle = [], 0
        for part in self.parts:
            cycle += part.waves * part.cycles
            ends.append(cycle)
        return ends

    def _events(self, window: range) -> Iterator[Event]:
        for wave in self._waves(window):
            details = {"gemm": wave.gemm, "wave": wave.number}
            yield Event(WAVES, "wave", "step", wave.begin, wave.part.cycles, details)
            block = wave.number * self.config.cores + self.number
            if block < wave.part.blocks.count:
                yield from self._block(wave, *wave.part.blocks.place(block), window)
            else:
                yield Event(CORE, "no block", "unmapped", wave.begin, wave.part.cycles, {})

    def _waves(self, window: range) -> Iterator[_Wave]:
        """Yield the waves that have a cycle of a window."""
        for gemm, (part, end) in enumerate(zip(self.parts, self.ends, strict=True)):
            begin = end - part.waves * part.cycles
            first = max(0, (window.start - begin) // part.cycles)
            last = min(part.waves, -(-(window.stop - begin) // part.cycles))
            for i in range(first, last):
                yield _Wave(part, gemm, i, begin + i * part.cycles)

    def _block(
        self, wave: _Wave, group: int, row: int, column: int, window: range
    ) -> Iterator[Event]:
        """Yield a block's steps with a cycle of a window; as one, if they end together."""
        begin = 0
        for end, together in groupby(range(wave.part.steps), wave.part.ends):
            steps = list(together)
            if wave.begin + end > window.start:
                details: dict[str, Any] = {
                    "group": group,
                    "block": [row, column],
                    "steps": [steps[0], steps[-1]],
                }
                yield Event(CORE, "block", "product", wave.begin + begin, end - begin, details)
            if wave.begin + end >= window.stop:
                return
            begin = end
