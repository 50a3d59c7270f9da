"""What of results is compared with others: of a mean step, and what it is of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swatsim.errors import ResultsError
from swatsim.reports import differences, tables
from swatsim.reports.comparable import has_dram
from swatsim.reports.inputs import Source
from swatsim.reports.made import simulated, stated
from swatsim.reports.rates import rates
from swatsim.reports.span import Span, span_of
from swatsim.reports.tables import Row, Summary, quotient
from swatsim.reports.verdict import Verdict, verdict
from swatsim.results import PROVENANCE, Results
from swatsim.workload.layer import OPS

Progress = Callable[[int, int], None]

#: Why what multiplies no matrices is in no figure of results that have it.
LEFT_OUT = "left out here, as not all results have it"


@dataclass(frozen=True)
class Side:
    """A machine of results, or what they are compared with themselves: what it takes.

    Parameters
    ----------
    name : str
    step : dict
        Of a mean step, or of what of it is compared: what `swatsim.reports.rates.rates` has, and
        `cycles`.
    layers : dict
        The same of its layers alone.
    clock_mhz : int
        0: it has none.
    has_dram : bool
        Whether a DRAM's energy is in its energy.
    """

    name: str
    step: Row
    layers: Row
    clock_mhz: int
    has_dram: bool


@dataclass(frozen=True)
class Compared:
    """Results, as far as they are compared.

    Parameters
    ----------
    source : Source
        Where they are.
    trace, trace_id, version : str
        The trace's name and its fingerprint; the swatsim that simulated it.
    policy : mapping
        What the trace says of the method; empty: nothing.
    span : Span
        What figures are of.
    numbers : tuple of int
        The recorded steps.
    machine, baseline : Side
    own : dict
        Of the machine's totals over its own baseline's: `speed_up`, `energy_efficiency`.
    macs : float
        Multiply-accumulates of the layers and ops, dense, an image.
    ranked : swatsim.reports.differences.Ranked
        What machines may differ in.
    energy_table : str
    verdict : Verdict
    made : str
        Where they are and their digest there, by which command they were made, and when.
    """

    source: Source
    trace: str
    trace_id: str
    version: str
    policy: Mapping[str, Any]
    span: Span
    numbers: tuple[int, ...]
    machine: Side
    baseline: Side
    own: Row
    macs: float
    ranked: differences.Ranked
    energy_table: str
    verdict: Verdict
    made: str


def look(source: Source, ops: Collection[str] = OPS, whole: bool = True) -> Compared:
    """Return what of results is compared.

    Parameters
    ----------
    source : Source
    ops : collection of str
        Of the layers, the ops that count.
    whole : bool
        Whether everything else counts that a step does, if the results have it.

    Raises
    ------
    ResultsError
        If the results can't be read, or their rows don't belong together.
    """
    results = restricted(source.read(), ops, whole)
    first, span, parameters = results.rows[0], span_of(results), _parameters(results)
    step, layers = results.ops[-1], results.of_layers
    policy = parameters.get("policy")
    return Compared(
        source=source,
        trace=first["trace"],
        trace_id=first["trace_id"],
        version=str(results.provenance.get("swatsim", "")),
        policy=policy if isinstance(policy, Mapping) else {},
        span=span,
        numbers=tuple(sorted({row["step"] for row in results.rows})),
        machine=_side(results.rows[0]["machine"], step, layers, span),
        baseline=_side(tables.baseline_of(results), step["baseline"], layers["baseline"], span),
        own={name: step[name] for name in ("speed_up", "energy_efficiency")},
        macs=quotient(layers["macs_dense"], span.steps * span.images),
        ranked=differences.of_results(results),
        energy_table=tables.energy_table_of(results),
        verdict=verdict(results),
        made=f"{_whose(source)}: {simulated(results)}",
    )


def _whose(source: Source) -> str:
    """Return where results are, and the digest that stands beside them; a point has a key."""
    if not source.place:
        return "in memory"
    folder = Path(source.place)
    digest = f", digest {stated(folder / PROVENANCE)}" if folder.is_dir() else ""
    return f"{source.place}{digest}"


def restricted(results: Results, ops: Collection[str], whole: bool) -> Summary:
    """Return the rows of some ops; without everything else of a step, if that is not to count."""
    if not whole:
        why = str(_parameters(results).get("others_left_out") or LEFT_OUT)
        results = _saying(results.layers_only(), why)
    own = {row["op"] for row in results.rows}.intersection(OPS)
    if own <= set(ops):
        return tables.summarise(results)
    return tables.summarise(_of_ops(results, ops))


def _saying(results: Results, why: str) -> Results:
    parameters = {**_parameters(results), "others_left_out": why}
    return Results(results.rows, {**results.provenance, "parameters": parameters})


def _of_ops(results: Results, ops: Collection[str]) -> Results:
    rows = [row for row in results.rows if row["op"] in ops]
    if not rows:
        raise ResultsError(f"the results hold none of {', '.join(ops)}: simulate the same ops")
    return Results(rows, results.provenance)


def _parameters(results: Results) -> Mapping[str, Any]:
    found = results.provenance.get("parameters")
    return found if isinstance(found, Mapping) else {}


def _side(name: str, step: Row, layers: Row, span: Span) -> Side:
    def taken(row: Row) -> Row:
        cycles = tables.per_step(row, span.steps)["cycles"]
        return {**rates(row, span.steps, span.images), "cycles": cycles}

    return Side(name, taken(step), taken(layers), step["clock_mhz"], has_dram(step))


def all_of(
    sources: Sequence[Source], progress: Progress | None = None
) -> tuple[list[Compared], list[Compared]]:
    """Return what of each is compared, as it is, and as far as all have it.

    Where some are of layers alone all are; where some are of some ops, all are of the ops that all
    have. `progress` is told how many of how many are looked at, each time from the first on.

    Raises
    ------
    ResultsError
        If they have no op in common.
    """
    found = [look(source) for source in _shown(sources, progress)]
    ops = [op for op in OPS if all(op in one.span.ops for one in found)]
    if not ops:
        words = "; ".join(dict.fromkeys(", ".join(one.span.ops) for one in found))
        raise ResultsError(f"the results have no op in common ({words}): simulate the same ops")
    whole = not any(one.span.left_out for one in found)
    if all(tuple(ops) == one.span.ops and bool(one.span.left_out) != whole for one in found):
        return found, found
    return found, [look(source, ops, whole) for source in _shown(sources, progress)]


def _shown(sources: Sequence[Source], progress: Progress | None) -> Iterator[Source]:
    """Yield sources, and tell of each when the next is asked for."""
    for done, source in enumerate(sources, start=1):
        yield source
        if progress:
            progress(done, len(sources))
