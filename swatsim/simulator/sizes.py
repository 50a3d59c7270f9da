"""What can be counted: results hold whole numbers of 63 bits, and so must every sum of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from swatsim.columns import COLUMNS
from swatsim.errors import ConfigError
from swatsim.form import LARGEST
from swatsim.simulator.runnable import Runnable
from swatsim.simulator.systems import System
from swatsim.workload.layer import OUTPUT_OF, Layer, OpName
from swatsim.workload.lowering import lowered_shape

_SUMMED = tuple(
    column.name for column in COLUMNS if column.dtype == "int64" and column.adds == "sum"
)
_WHOLE = tuple(
    column.name for column in COLUMNS if column.dtype == "int64" and column.adds != "sum"
)
#: Bytes that an op may take beside its masks.
MOST_ROOM = 2**28
_ADVICE = "make the machine smaller, its clock slower, its DRAM faster, or simulate fewer steps"


class Sums:
    """Adds up rows of results while they come, in numbers without end.

    No part of them then adds up to more than a column holds, whatever a reader sums.
    """

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows.

        Raises
        ------
        ConfigError
            If a number, or the sum of a column so far, passes 63 bits.
        """
        for row in rows:
            for name in _SUMMED:
                self._sums[name] += int(row[name])
            too_large = [name for name in _SUMMED if self._sums[name] > LARGEST]
            if too_large or any(row[name] > LARGEST for name in _WHOLE):
                name = next(iter(too_large), "a parameter")
                where = f"layer {row['layer']!r}, {row['op']}, on {row['machine']}"
                raise ConfigError(
                    f"{where}: {name} would add up to {self._sums[name] or 'more'}, and at most "
                    f"{LARGEST} can be written: {_ADVICE}"
                )


def check_before(
    ops: Mapping[tuple[Layer, OpName, int], int], systems: Iterable[tuple[str, System]]
) -> None:
    """Refuse, before anything is simulated, what is sure to pass 63 bits.

    The lane-cycles of an op are at least those in which its first word and its result are on their
    way. What is not refused here, `Sums` may refuse when it is counted.

    Parameters
    ----------
    ops : mapping of (Layer, op, samples of the op's masks) to int
        How many there are of each.
    systems : iterable of (str, System)
        Each with its machine's name.

    Raises
    ------
    ConfigError
        Naming the machine.
    """
    outputs = Counter[int]()
    for (layer, op, samples), times in ops.items():
        outputs[prod(layer.shape_of(OUTPUT_OF[op], samples))] += times
    for name, system in systems:
        each = outputs.items()
        least = sum(times * system.least_lane_cycles(elements) for elements, times in each)
        if least > LARGEST:
            raise ConfigError(
                f"{name}: its lane-cycles would add up to {least} or more, and at most "
                f"{LARGEST} can be written: {_ADVICE}"
            )


def check_room(ops: Iterable[tuple[Layer, OpName]], machines: Iterable[Runnable]) -> None:
    """Refuse, before it is simulated, an op that can't be cut into pieces that fit `MOST_ROOM`.

    Raises
    ------
    ConfigError
        Naming the layer, the op and the machine.
    """
    every = tuple(machines)
    for layer, name in dict.fromkeys(ops):
        lowered = lowered_shape(layer, name)
        for machine in every:
            if (room := machine.room(*lowered)) > MOST_ROOM:
                raise ConfigError(
                    f"layer {layer.name!r}, {name}, on {machine.name}: its planes can't be cut, "
                    f"and take {room} bytes beside the masks; at most {MOST_ROOM} are taken: "
                    "record smaller images (crops of them), or choose another machine"
                )
