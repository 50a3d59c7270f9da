"""What steps of a trace hold of all that they multiplied, added up; and what each op has of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from swatsim.errors import listed
from swatsim.tracefile.coverage import Coverage
from swatsim.tracefile.reader import Trace
from swatsim.tracefile.recorded import Step
from swatsim.workload.flops import macs_dense
from swatsim.workload.layer import OpName

#: Parts that are not held, and names, that results keep: of more, how many there are.
KEPT = 10
#: What is neither held nor named.
ELSEWHERE = "elsewhere"


@dataclass
class Passes:
    """Multiply-accumulates of forward and backward passes; of many steps there is no end to them.

    Parameters
    ----------
    forward, backward : int
    """

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        """Of both."""
        return self.forward + self.backward

    def add(self, forward: int, backward: int) -> None:
        """Add some."""
        self.forward += forward
        self.backward += backward


@dataclass
class Covered:
    """Coverages of steps, added up.

    Parameters
    ----------
    steps, counted, noted : int
        How many there are, of how many it is known, and how many say what else they do.
    seen, held : Passes
        As in `Coverage`, of the latter.
    not_held : dict of (module, what) to Passes
    left_alone, unseen : dict of str to None
        Names, in the order in which they were met.
    """

    steps: int = 0
    counted: int = 0
    noted: int = 0
    seen: Passes = field(default_factory=Passes)
    held: Passes = field(default_factory=Passes)
    not_held: dict[tuple[str, str], Passes] = field(default_factory=dict)
    left_alone: dict[str, None] = field(default_factory=dict)
    unseen: dict[str, None] = field(default_factory=dict)

    def add(self, coverage: Coverage | None, noted: bool = False) -> None:
        """Add a step's; `noted` is whether it says what else it does."""
        self.steps += 1
        self.noted += noted
        if coverage is None:
            return
        self.counted += 1
        self.seen.add(coverage.seen.forward, coverage.seen.backward)
        self.held.add(coverage.held.forward, coverage.held.backward)
        for part in coverage.not_held:
            passes = self.not_held.setdefault((part.module, part.what), Passes())
            passes.add(part.forward, part.backward)
        self.left_alone |= dict.fromkeys(coverage.left_alone)
        self.unseen |= dict.fromkeys(coverage.unseen)

    @property
    def known(self) -> bool:
        """Whether it is known of every step."""
        return 0 < self.counted == self.steps

    @property
    def share(self) -> float:
        """Held of seen multiply-accumulates; 1.0 if nothing multiplied."""
        return self.held.total / self.seen.total if self.seen.total else 1.0

    def parts(self) -> list[tuple[str, Passes]]:
        """Return what is not held, in words, most first: of a kind in several modules the sum."""
        modules: dict[str, list[str]] = {}
        sums: dict[str, Passes] = {}
        for (module, what), passes in self.not_held.items():
            modules.setdefault(what, []).append(module)
            sums.setdefault(what, Passes()).add(passes.forward, passes.backward)
        rest = Passes(
            self.seen.forward - self.held.forward - sum(one.forward for one in sums.values()),
            self.seen.backward - self.held.backward - sum(one.backward for one in sums.values()),
        )
        if rest.total:
            modules[ELSEWHERE], sums[ELSEWHERE] = [""], rest
        most_first = sorted(sums, key=lambda what: -sums[what].total)
        return [(_words(what, modules[what]), sums[what]) for what in most_first]

    def as_json(self) -> dict[str, Any]:
        """Return what results keep of it; the parts' MACs are those of both passes."""
        parts = self.parts()
        return {
            "seen": {"forward": self.seen.forward, "backward": self.seen.backward},
            "held": {"forward": self.held.forward, "backward": self.held.backward},
            "not_held": {words: passes.total for words, passes in parts[:KEPT]},
            "more": max(0, len(parts) - KEPT),
            "left_alone": listed(list(self.left_alone), KEPT),
            "unseen": listed(list(self.unseen), KEPT),
        }


def _words(what: str, modules: list[str]) -> str:
    if len(modules) > 1:
        return f"{what} in {len(modules)} modules"
    return f"{what} in {modules[0]}" if modules[0] else what


def why_unknown(trace: Trace) -> str:
    """Return why it is not known what share of a step's multiplications a trace holds."""
    parameters = trace.manifest.provenance.get("parameters")
    if isinstance(parameters, Mapping) and parameters.get("synthetic") is True:
        return "the trace is of a layer table"
    if trace.manifest.schema_version == 1:
        return "an earlier version recorded the trace"
    return "nobody counted them in the run"


def covered(steps: Iterable[Step]) -> Covered:
    """Return what steps hold, added up."""
    found = Covered()
    for step in steps:
        found.add(step.coverage, step.others is not None)
    return found


#: What of a step a trace lacks that notes nothing else than what multiplies; beside each share.
OTHERS_UNKNOWN = "others_unknown"


def describe(trace: Trace, steps: Iterable[int]) -> dict[str, Any]:
    """Return what steps of a trace hold, by their numbers, as JSON, or why that is not known."""
    found = covered(map(trace.step, steps))
    own = found.as_json() if found.known else {"unknown": why_unknown(trace)}
    return {**own, OTHERS_UNKNOWN: _why_no_others(found)}


def _why_no_others(found: Covered) -> str:
    """Return why it is not known what else all of the steps do; empty: it is."""
    if found.noted == found.steps:
        return ""
    if not found.noted:
        return "the trace does not note it"
    return f"{found.steps - found.noted} of {found.steps} steps do not note it"


def held_by_op(step: Step) -> dict[tuple[str, OpName], float]:
    """Return how many of a step's multiply-accumulates are each op's: (layer, op) -> MACs.

    They are the whole batch's. What is held of the forward pass is shared out among the fprops of
    the step by their layers' shapes, what is held of the backward pass among the others. Empty
    where the step does not say.
    """
    coverage = step.coverage
    if coverage is None:
        return {}
    own = {
        (layer.name, op): macs_dense(layer, step.batch_of(layer.name)) for layer, op in step.ops()
    }
    sums = {True: 0, False: 0}
    for (_, op), macs in own.items():
        sums[op == "fprop"] += macs
    held = {True: coverage.held.forward, False: coverage.held.backward}
    return {
        key: held[key[1] == "fprop"] * macs / (sums[key[1] == "fprop"] or 1)
        for key, macs in own.items()
    }
