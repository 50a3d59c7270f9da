"""What a trace holds, added up as its steps are opened one after another: no mask is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from swatsim.cli.progress import reading
from swatsim.errors import TraceError
from swatsim.reports.tables import quotient
from swatsim.tracefile import Step, Trace
from swatsim.tracefile.covered import Covered
from swatsim.tracefile.notes import Drift, drifts, not_modelled, not_recorded
from swatsim.tracefile.others import OtherWork
from swatsim.workload.layer import OPERANDS_OF, Layer
from swatsim.workload.phases import Phase
from swatsim.workload.value_types import of_recorded

#: What each op reads.
READS = [(op, operand) for op, operands in OPERANDS_OF.items() for operand in operands]
NOT_KNOWN = "not known"

#: Ones and elements by layer ("": of all), op and operand.
Totals = dict[tuple[str, str, str], tuple[int, int]]
Row = dict[str, Any]


class Contents:
    """What the steps of a trace hold.

    Parameters
    ----------
    every : bool
        Whether rows of steps are kept: of a long trace that is a lot.
    """

    def __init__(self, every: bool) -> None:
        self.every = every
        self.masks = self.bytes = self.whole = self.noted = 0
        self.totals: Totals = {}
        self.damaged: list[str] = []
        self.steps: list[Row] = []
        self.drifts: list[tuple[int, str, Drift]] = []
        self.not_modelled: dict[str, set[str]] = {}
        self.not_recorded: dict[str, str] = {}
        self.covered = Covered()
        self.types: dict[str, Counter[str]] = {}
        self.others: dict[Phase, Counter[str]] = {}

    def add(self, step: Step | TraceError) -> None:
        """Add a step, or that it is damaged."""
        if isinstance(step, TraceError):
            self.damaged.append(str(step))
            return
        self.whole += 1
        self.masks += len(step.records)
        self.bytes += step.path.stat().st_size
        _add(self.totals, step)
        self.covered.add(step.coverage)
        self._add_types(step)
        self.noted += step.others is not None
        for work in step.others or ():
            _add_work(self.others.setdefault(work.phase, Counter()), work)
        if self.every:
            self.steps.append(_row_of(step))
        found = drifts(step.notes).items()
        self.drifts += [(step.number, operand, drift) for operand, drift in found]
        for module, kinds in not_modelled(step.notes).items():
            self.not_modelled.setdefault(module, set()).update(kinds)
        self.not_recorded |= not_recorded(step.notes)

    def _add_types(self, step: Step) -> None:
        for record in step.records:
            if not record.is_output:
                kind = of_recorded(record.dtype) or record.dtype or NOT_KNOWN
                self.types.setdefault(record.operand, Counter())[kind] += 1

    @property
    def elements(self) -> int:
        """How many values all masks have."""
        return sum(pair[1] for (layer, _, _), pair in self.totals.items() if not layer)


def of_trace(source: Trace, every: bool) -> Contents:
    """Return what all steps of a trace hold."""
    contents, number = Contents(every), len(source.steps)
    with reading(number) as show:
        for done, step in enumerate(source.opened(), start=1):
            contents.add(step)
            show(done, number)
    return contents


def densities(totals: Totals, layer: str = "") -> dict[str, float | None]:
    """Return the non-zero share of what each op reads, by "op operand"; None where it reads none.

    `layer`: of one layer; of all without it.
    """
    found: dict[str, float | None] = {}
    for op, operand in READS:
        pair = totals.get((layer, op, operand))
        found[f"{op} {operand}"] = None if pair is None else quotient(*pair)
    return found


def layer_rows(layers: Sequence[Layer], totals: Totals) -> Iterator[Row]:
    """Yield a row a layer: its shape, its weights (None: it has none), its densities."""
    for layer in layers:
        yield {
            "layer": layer.name,
            "kind": layer.kind,
            "C": layer.C,
            "K": layer.K,
            "input": f"{layer.H}x{layer.W}",
            "kernel": f"{layer.R}x{layer.S}",
            "stride": "x".join(map(str, dict.fromkeys(layer.stride))),
            "groups": layer.groups,
            "weights": None if layer.multiplies_activations else layer.weights,
            **densities(totals, layer.name),
        }


def _row_of(step: Step) -> Row:
    totals: Totals = {}
    _add(totals, step)
    return {
        "step": step.number,
        "batch_size": step.batch_size,
        "masks": len(step.records),
        "file_bytes": step.path.stat().st_size,
        "share": None if step.coverage is None else step.coverage.share,
        **densities(totals),
    }


def _add(totals: Totals, step: Step) -> None:
    """Add up ones and elements by (layer, op, operand), and over all layers (layer "")."""
    for record in step.records:
        for layer in (record.layer, ""):
            key = layer, record.op, record.operand
            ones, elements = totals.get(key, (0, 0))
            totals[key] = ones + record.ones, elements + record.elements


def _add_work(known: Counter[str], work: OtherWork) -> None:
    known["operations"] += work.times * len(work.operations)
    known["elements"] += work.times * sum(each.elements for each in work.operations)
    known["bytes"] += work.times * (work.read + work.written)
