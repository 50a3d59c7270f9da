"""What a machine is: an op in, counters out; and what it may show, cycle by cycle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from swatsim.counters import Counters
from swatsim.errors import ConfigError
from swatsim.workload.lowering import LoweredOp

Counts = npt.NDArray[np.int64]


class Event(NamedTuple):
    """What a thread of a timeline does for some cycles; 0 cycles: an instant.

    Events of one thread don't overlap. Neighbours of one name and without `details` are drawn as
    one.

    Parameters
    ----------
    thread : int
        Index in `Timeline.threads`.
    name : str
    category : str
        The bucket of its lane-cycles, without "lane_cycles", or "product", "step", "dropped".
    begin, cycles : int
    details : mapping
        JSON types.
    """

    thread: int
    name: str
    category: str
    begin: int
    cycles: int
    details: Mapping[str, Any]


class Timeline(NamedTuple):
    """What one tile, or one PE, does cycle by cycle.

    Parameters
    ----------
    threads : tuple of str
        Names, in the order in which they are shown.
    cycles : int
        All of it, waiting for others included.
    events : callable of range to iterator of Event
        At least the events of a range of cycles, in any order.
    about : mapping
        Which part of the op it is, as JSON types.
    """

    threads: tuple[str, ...]
    cycles: int
    events: Callable[[range], Iterator[Event]]
    about: Mapping[str, Any]


class Busy(NamedTuple):
    """What each tile of a machine does in an op's compute cycles, added up over the op.

    In what is left of these cycles nothing is mapped on the tile.

    Parameters
    ----------
    tile : str
        What a tile of the machine is, for people: "cluster".
    own : numpy.ndarray of int64, shape (tiles,)
        Cycles in which a tile has work of its own.
    waits : numpy.ndarray of int64, shape (tiles,)
        Cycles in which it has done its part, and waits for slower tiles.
    """

    tile: str
    own: Counts
    waits: Counts


def checked_busy(busy: Busy, cycles: int) -> Busy:
    """Return what a machine says of its tiles in an op of so many compute cycles.

    Raises
    ------
    ConfigError
        If it is none, or more than the op takes.
    """
    given = isinstance(busy, Busy) and [np.asarray(of) for of in (busy.own, busy.waits)]
    if not given or not all(of.ndim == 1 and of.dtype == np.int64 for of in given):
        raise ConfigError(
            f"the machine gave {busy!r}: busy must give a swatsim.Busy, its own and waits arrays "
            "of int64, a number for each tile"
        )
    own, waits = given
    if own.shape != waits.shape or min(own.min(initial=0), waits.min(initial=0)) < 0:
        raise ConfigError(f"the machine gave {busy!r}: own and waits are 0 or more, of all tiles")
    if (own + waits).max(initial=0) > cycles:
        raise ConfigError(
            f"the machine gave {busy!r}: own and waits of a tile must be at most the op's compute "
            f"cycles, {cycles}"
        )
    return busy


def check_tile(tile: object, tiles: int, op: LoweredOp, one: str) -> None:
    """Refuse a tile that an op does not have: they are numbered from 0.

    Raises
    ------
    ConfigError
        If there is no such tile; it says what `one` of the op's is.
    """
    of = f"{op.layer.name!r} {op.own_name}"
    if not tiles:
        raise ConfigError(f"{of} has no tiles: it has no products at all; choose another op")
    if not isinstance(tile, int) or tile not in range(tiles):
        raise ConfigError(
            f"tile={tile!r} is not allowed: a tile of {of} on this machine is {one}; choose one of "
            f"0 to {tiles - 1}"
        )


@runtime_checkable
class Machine(Protocol):
    """What `swatsim.simulate` asks of a machine; any object that has these will do.

    It is given ops as `swatsim.lower` makes them: of convolutions and of linear layers only. A
    transposed convolution's comes as its adjoint's, the layer's fprop as a dgrad for example;
    `op.own_name` and `op.called(operand)` tell what the layer calls it. A product of activations
    comes as a grouped 1 x 1 convolution of one sample; `op.of_samples` tells of how many it is.

    Such an object has compute cycles alone. A memory system, energy, sweeps, estimates and a
    timeline come with a `Mechanism` and a `MachineConfig`.
    """

    @property
    def name(self) -> str:
        """How the machine is called in results."""

    def simulate_op(self, op: LoweredOp) -> Counters:
        """Run one op: a pure function of the op and of the machine's configuration."""

    def simulate_dense(self, op: LoweredOp) -> Counters:
        """Run the op's baseline: the same geometry and mapping, with nothing skipped."""

    def describe(self) -> dict[str, Any]:
        """Return the fully resolved configuration, as JSON types, for the provenance."""
