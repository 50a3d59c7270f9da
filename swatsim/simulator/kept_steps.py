"""Rows of whole steps, kept in a store: what was run before is neither counted nor planned again.

An entry holds the rows of a step's ops, or those of everything else in it, on a machine and beside
its baseline. Its key is the digest of all that rows depend on: the package's code, what the step's
file says of it (layers, digests of masks, types, other work), the machines as they describe
themselves, the energies, and what of a step is run. The trace's name and id are put in as rows are
read. An entry counts as nothing unless it is whole: where any part is at odds, all is run.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from swatsim.columns import COLUMNS
from swatsim.provenance import sources
from swatsim.simulator.stored import digest_of
from swatsim.simulator.systems import Row
from swatsim.simulator.trace_run import Run
from swatsim.store import Store
from swatsim.tracefile import Step
from swatsim.workload.layer import Layer, OpName

#: Of entries: those of another form are found under other keys.
FORM = 1
#: What is kept of a step.
OPS, OTHERS = "ops", "others"
#: Of an entry as it is written; larger ones are not kept.
MOST_BYTES = 2**19

_COLUMNS = {column.name for column in COLUMNS}

Found = dict[tuple[str, str], list[Row]]


class _Opened(NamedTuple):
    """A step: the key of its ops' rows, those that are kept, those that were run meanwhile."""

    key: str
    kept: Found
    run: Found


class KeptSteps:
    """A run on one machine whose rows are kept.

    Without a store, or where it can't be told what they depend on, all is run.

    Parameters
    ----------
    run : Run
    store : Store or None
    """

    def __init__(self, run: Run, store: Store | None) -> None:
        self._run = run
        self._basis = _basis(run)
        self._store = store if self._basis else None
        self._steps = WeakKeyDictionary[Step, _Opened]()
        self._lock = Lock()

    def rows(self, step: Step, layer: Layer, name: OpName) -> list[list[Row]]:
        """Return what `Run.rows` does; threads may ask together."""
        opened = self._opened(step)
        kept = opened.kept.pop((layer.name, name), None)  # of many open steps none stays
        if kept is not None:
            return [kept]
        rows = self._run.rows(step, layer, name)
        if opened.key:
            self._note(step, opened, (layer.name, name), rows[0])
        return rows

    def others(self, step: Step) -> list[list[Row]]:
        """Return what `Run.others` does."""
        key = self._key(OTHERS, step)
        kept = self._read(key)
        if kept is not None:
            return [kept]
        rows = self._run.others(step)
        self._keep(key, rows[0])
        return rows

    def _opened(self, step: Step) -> _Opened:
        with self._lock:
            if step not in self._steps:
                key = self._key(OPS, step)
                found = _by_op(self._read(key) or ())
                whole = found.keys() == self._wanted(step)
                self._steps[step] = _Opened(key, found if whole else {}, {})
                if whole and self._store is not None:
                    self._store.note_step()
            return self._steps[step]

    def _wanted(self, step: Step) -> set[tuple[str, str]]:
        return {(it.name, name) for it, name in step.ops() if name in self._run.scope.ops}

    def _note(self, step: Step, opened: _Opened, op: tuple[str, str], rows: list[Row]) -> None:
        """Keep a step's rows once those of its last op are there."""
        with self._lock:
            opened.run[op] = rows
            whole = opened.run.keys() == self._wanted(step)
        if whole:
            self._keep(opened.key, [row for some in opened.run.values() for row in some])
            opened.run.clear()

    def _key(self, what: str, step: Step) -> str:
        """Return the key of a step's rows; empty: they are not kept.

        In format 1 not all that rows depend on stands in the step's own file.
        """
        if self._store is None or step.manifest.schema_version == 1:
            return ""
        return digest_of((FORM, what, self._basis, step.number, step.header))

    def _read(self, key: str) -> list[Row] | None:
        payload = self._store.get(key, counted=False) if self._store and key else None
        if payload is None:
            return None
        try:
            columns = json.loads(zlib.decompress(payload))
            if columns.keys() != _COLUMNS:
                return None
            own = {"trace": self._run.trace.name, "trace_id": self._run.trace.id}
            cells = zip(*columns.values(), strict=True)
            return [{**dict(zip(columns, row, strict=True)), **own} for row in cells]
        except (ValueError, TypeError, AttributeError, RecursionError, zlib.error):
            return None

    def _keep(self, key: str, rows: Sequence[Row]) -> None:
        if self._store is None or not key:
            return
        payload = _packed(rows)
        if payload is not None and len(payload) <= MOST_BYTES:
            self._store.put(key, payload)


def _packed(rows: Sequence[Row]) -> bytes | None:
    """Return rows as columns; None: some are none of results, or hold what JSON can't say."""
    if any(row.keys() != _COLUMNS for row in rows):
        return None
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else _COLUMNS)}
    if not all(_is_plain(values) for values in columns.values()):
        return None
    return zlib.compress(json.dumps(columns).encode(), 1)


def _is_plain(values: Iterable[Any]) -> bool:
    """Whether values come out of JSON as they went in."""
    return {*map(type, values)} <= {int, float, str, type(None)}


def _by_op(rows: Iterable[Row]) -> Found:
    found: Found = {}
    for row in rows:
        found.setdefault((row["layer"], row["op"]), []).append(row)
    return found


def _basis(run: Run) -> str:
    """Return the digest of all that rows depend on beside the step; empty: it can't be told."""
    machines = [*run.machines, *([] if run.baseline is None else [run.baseline])]
    code = [sources(), *(one.code for one in machines)]
    if not all(code) or len(run.machines) > 1:
        return ""
    material: Mapping[str, Any] = {
        "code": code,
        "machines": [one.describe() for one in machines],
        "is_compared": run.baseline is not None,
        "energy": run.energy.model_dump(mode="json"),
        "scope": run.scope,
    }
    return digest_of(material)
