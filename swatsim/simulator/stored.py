"""What machines counted of ops, kept in a store: counted once, for whoever asks again.

A key is the digest of all that a count depends on, and of nothing else: the code that counts, the
machine's own parameters, what is counted, the op's shape, and the bits of the masks that the
machine looks at. Memory system, value type, clock, energies and names are in no key, nor is where
an op was recorded. What is kept are the machine's counters alone, before anything else is made of
them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from swatsim.counters import Counters
from swatsim.counts import declared
from swatsim.simulator.interface import Busy
from swatsim.simulator.versions import version_of
from swatsim.store import Store
from swatsim.workload.layer import Layer
from swatsim.workload.lowering import LoweredOp
from swatsim.workload.training_ops import MaskName

log = logging.getLogger(__name__)

#: Of entries: those of another form are found under other keys.
FORM = 1
#: What is counted of an op as it is: its counters, and its tiles; and of one without a zero. Dense
#: baselines have names of their own.
OP, BUSY, DENSE_OPERANDS = "op", "busy", "dense operands"
#: Of masks of fewer values effectual products are counted in less time than an entry takes.
QUICK = 2**18

#: Code that counts an op's effectual multiply-accumulates.
_EFFECTUAL = frozenset({"swatsim.workload.lowering"})
_NUMBERS = tuple(one.column for one in declared(Counters) if one.kind is int)

Found = TypeVar("Found")


class Basis(NamedTuple):
    """What a machine's counts depend on beside the op.

    Parameters
    ----------
    machine : str
        Digest of its code and its own parameters; empty: it can't be told, and nothing is kept.
    looks_at : collection of {"weight", "act", "grad_out", "output"} or None
        As `Mechanism.looks_at` says of the op; None: all, whatever is counted.
    """

    machine: str
    looks_at: Collection[MaskName] | None


class Stored:
    """The counts of machines in a store.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def entered(self, op: LoweredOp) -> LoweredOp:
        """Return an op that knows its effectual multiply-accumulates: kept ones, or counted now.

        Of one whose masks are small they are counted when they are asked for, and not kept.
        """
        small = sum(mask.size for mask in op.operands.values()) < QUICK
        version = "" if small else version_of(_EFFECTUAL)
        if "macs_effectual" not in vars(op) and version:
            key = key_of("effectual", op, Basis(version, None))
            op.know_effectual(self._kept(key, lambda: op.macs_effectual, lambda it: it, _whole))
        return op

    def counters(
        self, what: str, op: LoweredOp, basis: Basis, count: Callable[[], Counters]
    ) -> Counters:
        """Return what is counted of an op: kept, or counted now and kept."""
        if not basis.machine:
            return count()
        effectual = 0 if what == DENSE_OPERANDS else self.entered(op).macs_effectual
        return self._kept(
            key_of(what, op, basis),
            count,
            lambda counters: _as_entry(counters, effectual),
            lambda entry: _as_counters(entry, effectual),
        )

    def has(self, what: str, op: LoweredOp, basis: Basis) -> bool:
        """Whether something that is counted of an op is kept."""
        return bool(basis.machine) and self.store.get(key_of(what, op, basis)) is not None

    def busy(self, op: LoweredOp, basis: Basis, count: Callable[[], Busy]) -> Busy:
        """Return what each tile does in an op: kept, or counted now and kept."""
        return self._kept(key_of(BUSY, op, basis), count, _busy_as_entry, _as_busy)

    def _kept(
        self,
        key: str,
        count: Callable[[], Found],
        as_entry: Callable[[Found], Any],
        from_entry: Callable[[Any], Found],
    ) -> Found:
        payload = self.store.get(key)
        if payload is not None:
            try:
                return from_entry(json.loads(payload))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                log.info("entry %s in %s is none, and counted anew", key, self.store.place)
        found = count()
        entry = as_entry(found)
        if entry is not None:
            self.store.put(key, json.dumps(entry).encode())
        return found


def key_of(what: str, op: LoweredOp, basis: Basis) -> str:
    """Return the key of a count (32 hex digits)."""
    return digest_of(
        (
            *(FORM, what, basis.machine, _shape_of(op.layer)),
            *(op.name, op.samples, op.of_samples, op.of_transposed),
            _masks(what, op, basis.looks_at),
        )
    )


@lru_cache(maxsize=4096)  # one for each layer of a network
def _shape_of(layer: Layer) -> str:
    return digest_of(layer.model_dump(mode="json", exclude={"name"}))


def _masks(what: str, op: LoweredOp, names: Collection[MaskName] | None) -> Any:
    """Return what is taken from an op's masks: some, or only which ones the machine looks at."""
    if names is None:
        return dict(op.digests)
    if what not in (OP, BUSY):
        return sorted(names)
    return {name: digest for name, digest in op.digests.items() if name in names}


def digest_of(material: Any) -> str:
    """Return the digest of a JSON value (32 hex digits), whatever the order of its entries."""
    text = json.dumps(material, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _as_entry(counters: Any, effectual: int) -> dict[str, Any] | None:
    """Return counters as JSON: but for zeros, and products relative to the effectual ones.

    Those depend on all masks, what the machine makes of the op may not. None: a machine of
    somebody's own gave what is refused elsewhere.
    """
    if not isinstance(counters, Counters):
        return None
    numbers = {name: getattr(counters, name) for name in _NUMBERS}
    if not all(isinstance(number, int | np.integer) for number in numbers.values()):
        return None
    numbers["lane_cycles_ineffectual"] = counters.products
    numbers["lane_cycles_effectual"] -= effectual
    entry = {name: int(number) for name, number in numbers.items() if number}
    return {**entry, "compressed": counters.compressed}


def _as_counters(entry: Mapping[str, Any], effectual: int) -> Counters:
    numbers = {name: _whole(entry.get(name, 0)) for name in _NUMBERS}
    numbers["lane_cycles_effectual"] += effectual
    numbers["lane_cycles_ineffectual"] -= numbers["lane_cycles_effectual"]
    return Counters(**numbers, compressed=str(entry["compressed"]))


def _busy_as_entry(busy: Busy) -> dict[str, Any] | None:
    if not isinstance(busy, Busy) or any(it.dtype != np.int64 for it in busy[1:]):
        return None
    return {"tile": busy.tile, "own": busy.own.tolist(), "waits": busy.waits.tolist()}


def _as_busy(entry: Mapping[str, Any]) -> Busy:
    own, waits = (np.array(entry[name], np.int64) for name in ("own", "waits"))
    return Busy(str(entry["tile"]), own, waits)


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise TypeError(f"{number!r} is no count")
    return number
