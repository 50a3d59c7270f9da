"""What an executor runs: one op of one step, on machines that count alike."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from swatsim import provenance
from swatsim._version import __version__
from swatsim.errors import SwatsimError
from swatsim.simulator.energy.table import EnergyTable
from swatsim.simulator.machines import machine
from swatsim.simulator.memory.dram import Dram
from swatsim.simulator.run import as_machine
from swatsim.simulator.runnable import ConfiguredMachine, Runnable
from swatsim.simulator.sizes import check_room
from swatsim.simulator.systems import Row
from swatsim.simulator.trace_run import Run, Scope
from swatsim.store import Looked, Store, open_store
from swatsim.sweeps.expression import Value
from swatsim.tracefile import Step, Trace, open_trace
from swatsim.workload.layer import OPERANDS_OF, Layer, Operand, OpName
from swatsim.workload.phases import OTHER
from swatsim.workload.training_ops import Op

#: Masks of so many bytes stay in memory for the next job: many machines meet the same ones.
MAX_CACHED_BYTES = 2**29

#: The code that this process runs: a cluster's workers may have been started with another.
SOURCES = provenance.sources() or __version__


@dataclass(frozen=True)
class Job:
    """All layers of one op of one step, on machines that differ only in memory.

    Parameters
    ----------
    trace : str
    trace_id : str
        It must still be this one.
    machines : tuple of (str, mapping)
        Preset and parameters of each machine.
    baseline : str or None
    energy : EnergyTable
    step : int
    op : {"fprop", "dgrad", "wgrad", "other"}
        other: what the step does beside these.
    scope : Scope
        All that the sweep runs.
    drams : tuple of Dram
        Of each machine, and of the baseline: their files must still be these.
    store : str or False
        Where counts are kept, as `swatsim.store.open_store` takes it; False: nowhere.
    sources : str
        `SOURCES` of the process that asks: counts of other code are not what it asks for.
    """

    trace: str
    trace_id: str
    machines: tuple[tuple[str, Mapping[str, Value]], ...]
    baseline: str | None
    energy: EnergyTable
    step: int
    op: OpName | Literal["other"]
    scope: Scope
    drams: tuple[Dram, ...]
    store: str | Literal[False] = False
    sources: str = SOURCES


@dataclass(frozen=True)
class Done:
    """What a job gives for each of its machines: rows, or why there are none; what is logged.

    And what was looked for in its store.
    """

    rows: list[list[Row]]
    errors: list[str | None]
    log: str = ""
    looked: Looked = field(default_factory=Looked)


def work(job: Job) -> Done:
    """Return a job's rows and errors; a machine that can't run does not stop the others."""
    if job.sources != SOURCES:
        raise SwatsimError(
            f"the worker runs other code than the sweep (swatsim {__version__} here): "
            "install the same everywhere, start the workers again, and sweep again"
        )
    trace = _trace(job.trace, job.trace_id)
    step = trace.step(job.step)
    machines = [machine(preset, **parameters) for preset, parameters in job.machines]
    baseline = None if job.baseline is None else as_machine(job.baseline)
    if drams_of([*machines, baseline]) != job.drams:
        raise SwatsimError(
            "the file of a DRAM is another than the sweep began with: sweep again, with the same "
            "file under the same path everywhere"
        )
    try:
        return Done(_rows(trace, step, machines, job), [None] * len(machines))
    except SwatsimError as error:
        if len(machines) == 1:
            return Done([[]], [str(error)])
    alone = [_alone(trace, step, one, job) for one in machines]
    return Done([rows for rows, _ in alone], [error for _, error in alone])


def drams_of(machines: Iterable[Runnable | None]) -> tuple[Dram, ...]:
    """Return the DRAM of each machine that has a memory system."""
    return tuple(each.config.dram for each in machines if each is not None and each.config)


def _alone(
    trace: Trace, step: Step, one: ConfiguredMachine, job: Job
) -> tuple[list[Row], str | None]:
    try:
        return _rows(trace, step, [one], job)[0], None
    except SwatsimError as error:
        return [], str(error)


def _rows(
    trace: Trace, step: Step, machines: Sequence[ConfiguredMachine], job: Job
) -> list[list[Row]]:
    baseline = None if job.baseline is None else as_machine(job.baseline)
    store = _store(job.store)
    run = Run(trace, machines, baseline, job.energy, job.scope, OPS.read, store)
    if job.op == OTHER:
        return run.others(step)
    layers = [layer for layer, op in step.ops() if op == job.op]
    check_room(((layer, job.op) for layer in layers), run.machines[:1])
    rows = [run.rows(step, layer, job.op) for layer in layers]
    return [[row for of_layer in rows for row in of_layer[i]] for i in range(len(machines))]


@lru_cache(maxsize=8)
def _trace(path: str, trace_id: str) -> Trace:
    """Return a trace, opened; what is remembered of it is of its content.

    All its steps were read for its id, and it refuses one that was replaced since.
    """
    trace = open_trace(path)
    if trace.id != trace_id:
        raise SwatsimError(f"{path} is another trace than the sweep began with: sweep again")
    return trace


@lru_cache(maxsize=8)
def _store(where: str | Literal[False]) -> Store | None:
    """Return a store, opened once: what it remembers is of use to the next job."""
    return open_store(where)


def looked_by(job: Job) -> Looked:
    """Return what was looked for so far in a job's store, by this process."""
    store = _store(job.store)
    return Looked() if store is None else store.looked


#: What an op is: its layer, its name, and of each mask, the output's too if there is one, the
#: shape, the ones and their digest.
Content = tuple[Layer, OpName, tuple[tuple[Operand, tuple[int, ...], int, str | None], ...]]


class OpCache:
    """Ops that were read, with what was counted of them; those not asked for longest make room.

    An op is known by the digests of its masks, never by where they lay: a trace may be recorded
    anew under the same path while a cluster's worker, or a user's own pool, goes on.
    """

    def __init__(self) -> None:
        self._ops: OrderedDict[Content, Op] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()  # a worker may have threads

    def read(self, step: Step, layer: Layer, name: OpName) -> Op:
        """Return an op, read from its step unless it is in the cache."""
        read = (step.record(layer.name, name, operand) for operand in OPERANDS_OF[name])
        records = (*read, step.output_record(layer.name, name))
        masks = tuple((it.operand, it.shape, it.ones, it.digest) for it in records if it)
        key = layer, name, masks
        with self._lock:
            if key in self._ops:
                self._ops.move_to_end(key)
                return self._ops[key]
        op = step.op(layer, name)
        with self._lock:
            self._add(key, op)
        return op

    def _add(self, key: Content, op: Op) -> None:
        if key in self._ops or _size(op) > MAX_CACHED_BYTES:
            return
        self._ops[key] = op
        self._bytes += _size(op)
        while self._bytes > MAX_CACHED_BYTES:
            _, oldest = self._ops.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(op: Op) -> int:
    masks = (*op.operands.values(), op.output)
    return sum(mask.nbytes for mask in masks if mask is not None)


#: Of this process.
OPS = OpCache()
