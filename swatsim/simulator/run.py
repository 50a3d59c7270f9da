"""Play a trace through a machine: every op of every step, dense baseline beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from swatsim import provenance
from swatsim.arguments import (
    arguments,
    either,
    flag,
    function,
    instance_of,
    maybe,
    path_like,
    several,
    string,
    whole_number,
)
from swatsim.counters import Counters
from swatsim.errors import ConfigError, shown, unknown
from swatsim.printable import printable_json
from swatsim.results import Results
from swatsim.simulator.abreast import Announce, Progress, Told, in_order
from swatsim.simulator.energy.table import EnergyTable, energy_table
from swatsim.simulator.interface import Machine
from swatsim.simulator.kept_steps import KeptSteps
from swatsim.simulator.machines import machine as find_machine
from swatsim.simulator.memory.refusals import BufferTooSmallError
from swatsim.simulator.runnable import ConfiguredMachine, OwnMachine, Runnable
from swatsim.simulator.sizes import Sums
from swatsim.simulator.systems import Row
from swatsim.simulator.trace_run import Run, Scope
from swatsim.store import Store, Where, open_store
from swatsim.table import Gathered, Rows
from swatsim.tracefile import Trace, covered, open_trace
from swatsim.workload.layer import OPS, OpName
from swatsim.workload.lowering import lower
from swatsim.workload.training_ops import Op

#: Arguments that say which trace is meant, and which store.
TRACE = either(path_like, instance_of(Trace))
WHERE = either(flag, path_like, instance_of(Store))


def as_machine(machine: str | Machine, name: str = "machine") -> Runnable:
    """Return a preset's machine by its name, any other as the simulator wants it.

    Raises
    ------
    ConfigError
        If the preset is unknown, or the object is not a machine.
    """
    if isinstance(machine, str):
        return find_machine(machine)
    if isinstance(machine, ConfiguredMachine | OwnMachine):
        return machine
    if isinstance(machine, Machine):
        return OwnMachine(_named(machine))
    raise ConfigError(
        f"{name}: {type(machine).__name__} is not a machine: pass a preset's name, "
        "swatsim.machine(..), or an object with name, simulate_op, simulate_dense and describe"
    )


def _named(machine: Machine) -> Machine:
    """Refuse a machine of a user's own whose name can't stand in a table."""
    name = machine.name
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ConfigError(
            f"the machine's name={name!r} is not allowed: must be a text of printable characters"
        )
    return machine


def simulate_op(op: Op, machine: str | Machine) -> Counters:
    """Return what one op takes on a machine; no trace is needed.

    Parameters
    ----------
    op : Op
        A layer's shape, the op's name and the boolean masks of its two operands.
    machine : str or Machine
        A preset's name, `swatsim.machine(..)`, or an object of your own.

    Returns
    -------
    Counters
        Cycles, and where the lane-cycles went. The dense baseline is
        ``machine.simulate_dense(op)``, of a machine of your own
        ``machine.simulate_dense(swatsim.lower(op))``.

    Raises
    ------
    ConfigError
        If the machine is unknown.
    WorkloadError
        If `op` is none.
    """
    return as_machine(machine).simulate_op(lower(op))


@arguments(
    ConfigError,
    trace=TRACE,
    energy=either(path_like, instance_of(EnergyTable)),
    steps=maybe(several(whole_number, "whole numbers, of recorded steps")),
    ops=several(string, ", ".join(OPS)),
    layers_only=flag,
    dense_outputs=flag,
    workers=maybe(whole_number),
    progress=maybe(function),
    announce=maybe(function),
    store=WHERE,
)
def simulate(
    trace: str | os.PathLike[str] | Trace,
    machine: str | Machine,
    *,
    baseline: str | Machine | None = None,
    energy: str | os.PathLike[str] | EnergyTable = "45nm",
    steps: Sequence[int] | None = None,
    ops: Sequence[OpName] = OPS,
    layers_only: bool = False,
    dense_outputs: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
    store: Where = True,
) -> Results:
    """Run every recorded op of a trace on a machine, and on its baseline.

    What the steps do beside multiplying matrices runs on their vector units, if the trace notes it
    and all ops are run; the policy's own work is charged to the machine alone.

    Parameters
    ----------
    trace : path or Trace
    machine : str or Machine
        A preset's name, `swatsim.machine(..)`, or an object of your own.
    baseline : str or Machine, optional
        What to compare with. By default the same machine with nothing skipped: same geometry,
        same operand on the rows.
    energy : str, path or EnergyTable
        Energies of events, areas, leakages: a table that ships, or a TOML file of your own.
    steps, ops : sequence of int, sequence of {"fprop", "dgrad", "wgrad"}, optional
        Which recorded steps, and which ops; all by default.
    layers_only, dense_outputs : bool
        Run nothing but what multiplies matrices; compute outputs that nobody wants, too.
    workers : int, optional
        Threads; one a core by default.
    progress, announce : callable of (int, int), callable of Work, optional
        Told how many of how many ops are done; and before, which they are.
    store : bool, path or str
        Where counts are kept and looked for: a folder, a URL, False: nowhere.

    Returns
    -------
    Results
        Two rows an op: role "machine" and role "baseline"; role "alternative" where a machine has
        another dense baseline. Then, of each step, rows of op "other".

    Raises
    ------
    TraceError, WorkloadError
        If the trace, or a mask in it, is missing or damaged.
    ConfigError
        If the machine or the table is unknown, a buffer is too small, or the table lacks an event.
    """
    source = trace if isinstance(trace, Trace) else open_trace(trace)
    other = None if baseline is None else as_machine(baseline, "baseline")
    what = other, energy_table(energy), Scope(choice("ops", ops, OPS), layers_only, dense_outputs)
    run = Run(source, [as_machine(machine)], *what, store=open_store(store))
    chosen = choice("steps", source.steps if steps is None else steps)
    return _results(run, chosen, threads_of(workers), Told(progress, announce))


def _results(run: Run, steps: Sequence[int], threads: int, told: Told) -> Results:
    shares = covered.describe(run.trace, steps)
    resolved = checked(run.describe(run.machines[0], shares, steps))
    rows = _rows(run, steps, not resolved["others_left_out"], threads, told)
    return Results(rows, provenance.collect(resolved))


def _rows(
    run: Run,
    steps: Sequence[int],
    whole: bool,
    threads: int,
    told: Told,
) -> Rows:
    """Return the rows of all ops of some steps; of whole ones, then, of what else they do."""
    jobs, kept = run.jobs(steps), KeptSteps(run, run.store)
    run.check_before(jobs)
    others = (kept.others(run.trace.step(number)) for number in steps if whole)
    try:
        return _added(chain(in_order(kept.rows, jobs, threads, *told), others))
    except BufferTooSmallError as error:
        raise run.refusal(error, jobs) from None


def _added(results: Iterable[list[list[Row]]]) -> Rows:
    """Return the rows of one machine; stop where their sums pass what can be written."""
    rows, sums = Gathered(), Sums()
    for (of_machine,) in results:
        sums.add(of_machine)
        rows.add(of_machine)
    return rows.rows()


def checked(description: dict[str, Any]) -> dict[str, Any]:
    """Return what is written of a machine; refuse one that can't be, before it is simulated."""
    try:
        json.dumps(description)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the machine's describe() must give JSON types only, for the provenance: {error}"
        ) from None
    written: dict[str, Any] = printable_json(description)
    return written


def choice(what: str, values: Any, known: Sequence[str] | None = None) -> list[Any]:
    """Return each of a choice once, in order."""
    if isinstance(values, str | int) or not all(isinstance(v, str | int) for v in values):
        raise ConfigError(f"{what}={shown(values)} is not allowed: must be a sequence of them")
    for value in values:
        if known is not None and value not in known:
            raise ConfigError(unknown("op", str(value), known))
    if not values:
        raise ConfigError(f"{what}={shown(values)} is not allowed: must hold at least one")
    return list(dict.fromkeys(values))


def threads_of(workers: int | None) -> int:
    """Return a number of threads: one a core, unless told."""
    if workers is not None and workers < 1:
        raise ConfigError(f"workers={shown(workers)} is not allowed: must be at least 1, or None")
    return workers or os.cpu_count() or 1
