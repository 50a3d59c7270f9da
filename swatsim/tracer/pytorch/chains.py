"""Element-wise operations one after another as one work; equal works added up."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch

from swatsim.tracefile.others import Operation, OtherWork
from swatsim.tracefile.schema import VALUE_TYPES
from swatsim.tracer.pytorch.movement import Movement
from swatsim.tracer.pytorch.private import StorageRef
from swatsim.workload.phases import Phase

#: (function, elements, bytes read, bytes written)
Done = tuple[str, int, int, int]


class Key(NamedTuple):
    """What is equal in works that are added up."""

    phase: Phase
    module: str
    dtype: torch.dtype
    done: tuple[Done, ...]
    read: int
    written: int
    per_sample: bool | None

    def work(self, times: int) -> OtherWork:
        """Return it as a trace has it."""
        dtype = str(self.dtype).removeprefix("torch.")
        made = Operation.model_construct  # unchecked: they are ours, and checks take a while
        return OtherWork.model_construct(
            module=self.module,
            phase=self.phase,
            operations=tuple(
                made(function=function, elements=elements, read=read, written=written)
                for function, elements, read, written in self.done
            ),
            read=self.read,
            written=self.written,
            dtype=dtype if dtype in VALUE_TYPES else "float32",
            times=times,
            per_sample=self.per_sample,
        )


class Chain:
    """Element-wise operations one after another, or another operation alone.

    Attributes
    ----------
    made : dict of storage to bytes
        What its last operation made, or changed in place.
    on_the_way : dict of storage to (bytes, StorageRef)
        What others of its operations made, which the next one read.
    of_weights : bool
        Whether all of its operations work on parameters alone.
    reads_model : bool
        Outside of modules, whether one of them reads a parameter or a buffer.
    """

    __slots__ = (
        *("done", "dtype", "elements", "made", "module", "of_weights", "on_the_way", "phase"),
        *("places", "read", "reads_model", "written"),
    )

    def __init__(self, phase: Phase, module: str, first: Movement, of_weights: bool) -> None:
        self.phase, self.module, self.of_weights = phase, module, of_weights
        self.reads_model = False
        self.done: list[Done] = []
        self.dtype, self.elements = first.dtype, 0
        self.read = self.written = 0
        self.places: set[tuple[int, int]] = set()
        self.made: dict[int, int] = {}
        self.on_the_way: dict[int, tuple[int, StorageRef]] = {}
        self.add(first)

    def goes_on(self, phase: Phase, module: str, next_one: Movement) -> bool:
        """Whether an element-wise operation reads what this chain made."""
        same = self.phase == phase and self.module == module
        return same and any(storage in self.made for storage, _ in next_one.read)

    def add(self, one: Movement) -> None:
        """Add the next operation."""
        read = written = 0
        for place, (size, tensor) in one.read.items():
            read += size
            storage = place[0]
            if storage in self.made:
                if storage not in one.written:
                    ref = StorageRef(tensor)
                    self.on_the_way[storage] = self.made[storage], ref
            elif storage not in self.on_the_way and place not in self.places:
                self.places.add(place)
                self.read += size
        unread = self.made.keys() - one.written.keys() - self.on_the_way.keys()
        self.written += sum(self.made[storage] for storage in unread)
        self.made = {storage: size for storage, (size, _) in one.written.items()}
        for storage, size in self.made.items():
            written += size
            self.on_the_way.pop(storage, None)
        self.done.append((one.kind.function, one.elements, read, written))
        if one.elements > self.elements:
            self.elements, self.dtype = one.elements, one.dtype

    def key(self) -> Key:
        """Return what is counted, with all that it made on the way and that is still held."""
        held = sum(size for size, ref in self.on_the_way.values() if ref.is_held)
        written = self.written + held + sum(self.made.values())
        same = (self.phase, self.module, self.dtype)
        grows = False if self.of_weights else None
        return Key(*same, tuple(self.done), self.read, written, grows)


class Ledger:
    """Works, equal ones added up, and chains of which it is not known yet what they write."""

    def __init__(self) -> None:
        self.times: Counter[Key] = Counter()
        self.waiting: list[Chain] = []

    def add(self, chain: Chain) -> None:
        """Count a chain, or wait until it is known which of what it made is kept."""
        if chain.on_the_way:
            self.waiting.append(chain)
        else:
            self.times[chain.key()] += 1

    def settle(self, phase: Phase | None = None) -> None:
        """Count the chains that wait, of one phase or all: what they made and is held is saved."""
        waiting, self.waiting = self.waiting, []
        for chain in waiting:
            if phase is None or chain.phase == phase:
                self.times[chain.key()] += 1
            else:
                self.waiting.append(chain)

    def take(self, other: Ledger) -> None:
        """Add what another one has."""
        self.times.update(other.times)
        self.waiting += other.waiting
