"""What a sweep is to do: its points, those that are finished, and the jobs of all others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

from swatsim.errors import ConfigError, SwatsimError
from swatsim.simulator.energy.table import EnergyTable, energy_table
from swatsim.simulator.memory.dram import Dram
from swatsim.simulator.run import as_machine, checked
from swatsim.simulator.trace_run import Run
from swatsim.sweeps.gathered import Outcome
from swatsim.sweeps.spec import Point, Spec
from swatsim.sweeps.store import Store
from swatsim.sweeps.worker import SOURCES, Done, Job, drams_of
from swatsim.tracefile import Trace, covered, open_trace
from swatsim.workload.layer import OPS, OpName
from swatsim.workload.phases import OTHER


class Shard(NamedTuple):
    """A part of a sweep's computations: of every `of` one, the `part`-th, from 1."""

    part: int
    of: int


WHOLE = Shard(1, 1)


@dataclass
class Group:
    """Points that differ in nothing but memory: what they share is computed once.

    `done` has the places of the jobs that are done, `outcome` what they gave.
    """

    points: list[tuple[str, Point]]
    jobs: list[Job]
    resolved: list[dict[str, Any]]
    layers: list[str]
    drams: list[Dram]
    done: set[int] = field(default_factory=set)

    @cached_property
    def outcome(self) -> Outcome:
        """What its jobs gave so far."""
        return Outcome(len(self.points), self.layers)

    def add(self, place: int, done: Done) -> None:
        """Add what a job gave."""
        self.done.add(place)
        self.outcome.add(done)

    def clear(self) -> None:
        """Forget what jobs gave: it is written."""
        self.done.clear()
        self.__dict__.pop("outcome", None)


@dataclass(frozen=True)
class Plan:
    """All points, in order; those to do by what they share; and those that can't be, with why.

    `elsewhere` are those to do that belong to another part of the sweep.
    """

    points: list[tuple[str, Point]]
    groups: list[Group]
    impossible: list[tuple[str, Point, str]]
    elsewhere: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Points, those to compute and those kept, different computations, and impossible ones."""
        to_do = sum(len(group.points) for group in self.groups)
        others = to_do + len(self.impossible) + len(self.elsewhere)
        return {
            "points": len(self.points),
            "compute": to_do,
            "kept": len(self.points) - others,
            "computations": len(self.groups),
            "impossible": len(self.impossible),
            "other_parts": len(self.elsewhere),
        }

    def store_in(self, where: str | Literal[False]) -> None:
        """Have all jobs keep what they count somewhere, as `swatsim.store.open_store` takes it."""
        for group in self.groups:
            group.jobs = [replace(job, store=where) for job in group.jobs]

    def words(self, kept: str = "") -> str:
        """Return the plan's counts, in words; `kept`: which of its computations a store has."""
        found = self.counts
        s = "s" * (found["points"] != 1)
        parts = [f"{found['points']} point{s}", f"{found['compute']} to compute"]
        parts.append(f"{found['kept']} kept")
        if self.elsewhere:
            parts.append(f"{found['other_parts']} of other parts")
        if found["computations"]:
            s = "s" * (found["computations"] != 1)
            parts.append(f"{found['computations']} computation{s}")
            parts += [kept] if kept else []
        if self.impossible:
            parts.append(f"{len(self.impossible)} that no machine can be")
        return ", ".join(parts)


def make_plan(spec: Spec, store: Store, anew: bool = False, part: Shard = WHOLE) -> Plan:
    """Return the points sorted: finished, impossible, and the rest by what they share.

    `anew`: none counts as finished. Which part of a sweep a computation belongs to depends on the
    specification alone, and not on what is finished.
    """
    table = energy_table(spec.energy)
    traces = {path: _opened(path, spec) for path in spec.traces}
    there = {path: it for path, it in traces.items() if not isinstance(it, SwatsimError)}
    if not there:
        raise next(error for error in traces.values() if isinstance(error, SwatsimError))
    shares = {
        path: covered.describe(trace, spec.steps or trace.steps)
        for path, (trace, _) in there.items()
    }
    baseline = None if spec.baseline is None else as_machine(spec.baseline)
    plan = Plan([], [], [])
    groups: dict[str, Group] = {}
    numbers: dict[str, int] = {}
    for point in spec.points():
        found = traces[point.trace]
        try:
            if isinstance(found, SwatsimError):
                raise found
            run = Run(found[0], [point.machine()], baseline, table, spec.scope)
        except SwatsimError as error:
            key = Store.key({"trace": point.trace, "label": point.label})
            plan.points.append((key, point))
            plan.impossible.append((key, point, str(error)))
            continue
        share = shares[point.trace]
        resolved = checked(run.describe(run.machines[0], share, spec.steps))
        resolved |= {"steps": spec.steps, "ops": spec.ops, "sources": SOURCES}
        key = Store.key(resolved)
        plan.points.append((key, point))
        computation = point.computation()
        number = numbers.setdefault(computation, len(numbers))
        if not anew and store.is_done(key):
            continue
        if number % part.of != part.part - 1:
            plan.elsewhere.append(key)
            continue
        group = groups.setdefault(computation, Group([], [], [], [], []))
        group.points.append((key, point))
        group.resolved.append(resolved)
        group.drams.extend(drams_of(run.machines))
    for group in groups.values():
        group.drams.extend(drams_of([baseline]))
        _add_jobs(group, spec, table, *there[group.points[0][1].trace])
    plan.groups.extend(groups.values())
    return plan


def _opened(path: str, spec: Spec) -> tuple[Trace, _Ops] | SwatsimError:
    """Return a trace and its steps to run, opened once; a damaged one does not stop the others."""
    try:
        trace = open_trace(path)
        ops = _ops_of(trace, spec)
        wanted = spec.ops or OPS
        if not any(found & set(wanted) for _, found in ops):
            raise ConfigError(
                f"{path} holds none of the ops {', '.join(wanted)} with both masks: choose other "
                "steps or ops"
            )
    except SwatsimError as error:
        return error
    return trace, ops


_Ops = list[tuple[int, set[OpName]]]


def _ops_of(trace: Trace, spec: Spec) -> _Ops:
    """Return the steps to run, each with the ops whose two masks it has."""
    numbers = trace.steps if spec.steps is None else spec.steps
    return [(number, {op for _, op in trace.step(number).ops()}) for number in numbers]


def _add_jobs(group: Group, spec: Spec, table: EnergyTable, trace: Trace, ops: _Ops) -> None:
    """Cut a group into its steps and ops."""
    first = group.points[0][1]
    machines = tuple((point.preset, point.parameters) for _, point in group.points)
    group.layers.extend(layer.name for layer in trace.manifest.layers)
    drams = tuple(group.drams)
    for number, there in ops:
        counted = () if group.resolved[0]["others_left_out"] else (OTHER,)
        for op in (*(op for op in spec.ops or OPS if op in there), *counted):
            where = first.trace, trace.id, machines
            group.jobs.append(Job(*where, spec.baseline, table, number, op, spec.scope, drams))
