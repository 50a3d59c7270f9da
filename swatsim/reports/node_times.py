"""What one recorded step takes on a machine, node by node: for tools that schedule a step.

A node is an op of a layer, or what a module does of everything else. Nodes follow one another as a
step runs them (`in_run_order`), what else a phase does behind its layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from swatsim.columns import Role
from swatsim.counters import DRAM_BYTES
from swatsim.errors import ResultsError, listed
from swatsim.reports.span import span_of
from swatsim.reports.tables import label_of, summarise
from swatsim.results import Results
from swatsim.workload.phases import OTHER, PHASES, Phase, in_run_order
from swatsim.workload.value_types import DTYPES

Row = Mapping[str, Any]


class Node(NamedTuple):
    """One op of a layer, or what a module does of everything else.

    Parameters
    ----------
    layer : str
        Of everything else the module's.
    op : {"fprop", "dgrad", "wgrad", "other"}
    function : str
        Of everything else.
    phase : {"forward", "backward", "optimizer", "policy"}
    cycles, dram_bytes : int
    gradient : int
        Elements of the weight gradient that data-parallel replicas add up once this node is done.
    dtype : str
        Type of a value; "": the machine does not say.
    """

    layer: str
    op: str
    function: str
    phase: Phase
    cycles: int
    dram_bytes: int
    gradient: int
    dtype: str

    @property
    def name(self) -> str:
        """What it is called: unique in its step."""
        return " ".join(part for part in (self.layer, self.op, self.function) if part)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of that gradient, all of it, of the type of the machine's values.

        Raises
        ------
        ResultsError
            If that is not known.
        """
        if self.gradient and self.dtype not in DTYPES:
            raise ResultsError(
                f"the results don't say of which type the gradient of {self.layer!r} is, so its "
                "bytes are not known: simulate with --dtype, or export latencies"
            )
        return self.gradient * DTYPES[self.dtype] // 8 if self.gradient else 0


@dataclass(frozen=True)
class StepTimes:
    """One step on one machine.

    Parameters
    ----------
    trace, trace_id : str
    step : int
    machine : str
        As people call it: "tensordash dense".
    samples : int
        Images of the batch that the work is of.
    clock_mhz : int
        0: the machine has none.
    of : str
        All of this in words.
    left_out : str
        Why what multiplies no matrices is not among the nodes; "": it is.
    nodes : tuple of Node
    """

    trace: str
    trace_id: str
    step: int
    machine: str
    samples: int
    clock_mhz: int
    of: str
    left_out: str
    nodes: tuple[Node, ...]

    @property
    def cycles(self) -> int:
        """Cycles of all nodes: of the step."""
        return sum(node.cycles for node in self.nodes)

    def times(self, per_us: int) -> list[int]:
        """Return what each node takes in whole units of time.

        Ends are rounded, not durations: so these add up to what the step takes, rounded once.

        Parameters
        ----------
        per_us : int
            Units in a microsecond: 1000 are nanoseconds.

        Raises
        ------
        ResultsError
            If the machine has no clock.
        """
        if not self.clock_mhz:
            raise ResultsError(
                f"{self.machine} has no clock, so its cycles are no time: export latencies, or "
                "simulate a machine with one"
            )
        cycles, ends = 0, [0]
        for node in self.nodes:
            cycles += node.cycles
            ends.append((2 * cycles * per_us + self.clock_mhz) // (2 * self.clock_mhz))
        return [end - begin for begin, end in pairwise(ends)]


def step_times(results: Results, step: int | None, *, baseline: bool) -> StepTimes:
    """Return what a step takes, node by node.

    Parameters
    ----------
    results : Results
        Of one trace and machine.
    step : int or None
        A step in them; None: the first.
    baseline : bool
        Of the baseline, not of the machine.

    Raises
    ------
    ResultsError
        If there is no such step, or the rows don't belong together.
    """
    of_step = _of_step(results, step)
    rows = summarise(of_step).all_of(Role.BASELINE if baseline else Role.MACHINE)
    first, span = rows[0], span_of(of_step)
    return StepTimes(
        trace=first["trace"],
        trace_id=first["trace_id"],
        step=first["step"],
        machine=label_of(first),
        samples=span.images,
        clock_mhz=first["clock_mhz"],
        of=f"step {first['step']} of {first['trace']} on {label_of(first)} ({span})",
        left_out=span.left_out,
        nodes=tuple(_nodes(rows)),
    )


def _of_step(results: Results, step: int | None) -> Results:
    steps = sorted({row["step"] for row in results.rows})
    if not steps:
        raise ResultsError("the results hold no rows: simulate again")
    chosen = steps[0] if step is None else step
    if chosen not in steps:
        raise ResultsError(
            f"the results have no step {chosen}: in them are {listed(map(str, steps))}",
            of_argument=True,
        )
    rows = [row for row in results.rows if row["step"] == chosen]
    return Results(rows, results.provenance)


def _nodes(rows: Sequence[Row]) -> Iterator[Node]:
    last = _last_gradients(rows)
    for phase in PHASES:
        for row in in_run_order(rows, phase, lambda row: (row["layer"], row["op"])):
            yield _node(row, phase, _weights(row) if row["layer"] in last else 0)
        for row in rows:
            if row["op"] == OTHER and row["phase"] == phase:
                yield _node(row, phase, 0)


def _last_gradients(rows: Sequence[Row]) -> set[str]:
    """Return the runs of layers after which a weight gradient is whole.

    Of a layer that runs several times, `NAME` and `NAME@2`, the first run: it is the last one
    backward.
    """
    runs: dict[str, str] = {}
    for row in rows:
        if row["op"] == "wgrad":
            runs.setdefault(row["layer"].partition("@")[0], row["layer"])
    return set(runs.values())


def _weights(row: Row) -> int:
    """Return the elements of the gradient that an op makes of a parameter."""
    if row["op"] != "wgrad" or row["kind"] == "matmul":
        return 0
    return int(row["K"] * (row["C"] // row["groups"]) * row["R"] * row["S"])


def _node(row: Row, phase: Phase, gradient: int) -> Node:
    return Node(
        layer=row["layer"],
        op=row["op"],
        function=row["function"],
        phase=phase,
        cycles=row["cycles"],
        dram_bytes=sum(row[name] for name in DRAM_BYTES),
        gradient=gradient,
        dtype=row["dtype"] or "",
    )
