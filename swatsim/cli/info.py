"""``swatsim info``: what a trace holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import click
from rich.console import Console

from swatsim.cli.show import console, count, share, size, table
from swatsim.errors import TraceError, listed
from swatsim.reports.span import percent
from swatsim.tracefile import Manifest, Step, Trace, open_trace
from swatsim.tracefile.covered import Covered, why_unknown
from swatsim.tracefile.notes import drifts, not_modelled, not_recorded
from swatsim.tracefile.others import OtherWork
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, OUTPUT_OF, Layer
from swatsim.workload.phases import PHASES, Phase
from swatsim.workload.value_types import of_recorded

#: Layers, steps and notes that are shown; of more, how many there are.
SHOWN = 20
#: Of what is not in the trace, those that multiply most.
LARGEST = 10
NOT_KNOWN = "not known"

Totals = dict[tuple[str, str, str], tuple[int, int]]


@click.command()
@click.argument("trace", type=click.Path())
@click.option("--all", "everything", is_flag=True, help=f"Show all layers and steps, not {SHOWN}.")
def info(trace: str, everything: bool) -> None:
    """Show what a trace holds.

    Layers, steps, densities per operand, and sizes.

    Densities are the non-zero share of each operand as the op reads it; in the table of layers
    they are averaged over all steps. No mask is read.

    Of all that the steps multiplied, forward and backward: how much is in the trace, and what is
    not. Of all else that they did: operations, values and bytes by phase.
    """
    source = open_trace(trace)
    contents = _Contents(None if everything else SHOWN)
    for step in source.opened():
        contents.add(step)
    _show(source, contents)
    if contents.damaged:
        raise TraceError(
            f"{len(contents.damaged)} of {len(source.steps)} steps are damaged: "
            f"{listed(contents.damaged, 3)}"
        )


class _Contents:
    """What the steps hold, added up as they are opened one after another."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.masks = self.bytes = self.whole = 0
        self.totals: Totals = {}
        self.damaged: list[str] = []
        self.steps: list[list[str]] = []
        self.drifts: list[list[str]] = []
        self.drifted = 0
        self.not_modelled: dict[str, set[str]] = {}
        self.not_recorded: dict[str, str] = {}
        self.covered = Covered()
        self.types: dict[str, Counter[str]] = {}
        self.others: dict[Phase, Counter[str]] = {}
        self.noted = 0

    def add(self, step: Step | TraceError) -> None:
        if isinstance(step, TraceError):
            self.damaged.append(str(step))
            return
        self.whole += 1
        self.masks += len(step.records)
        self.bytes += step.path.stat().st_size
        _add(self.totals, step)
        self.covered.add(step.coverage)
        self.noted += step.others is not None
        for work in step.others or ():
            _add_work(self.others.setdefault(work.phase, Counter()), work)
        for record in step.records:
            if record.is_output:
                continue
            kind = of_recorded(record.dtype) or record.dtype or NOT_KNOWN
            self.types.setdefault(record.operand, Counter())[kind] += 1
        if self.most is None or len(self.steps) < self.most:
            self.steps.append(_step_row(step))
        rows = _drift_rows(step)
        self.drifted += len(rows)
        room = len(rows) if self.most is None else self.most - len(self.drifts)
        self.drifts += rows[:room]
        for module, kinds in not_modelled(step.notes).items():
            self.not_modelled.setdefault(module, set()).update(kinds)
        self.not_recorded |= not_recorded(step.notes)


def _show(source: Trace, contents: _Contents) -> None:
    out = console()
    for line in _summary(source, contents):
        out.print(line)
    if contents.covered.known:
        _show_covered(out, contents.covered, contents.most)
    keys = [f"{op} {operand}" for op, operand in _reads()]
    out.print(
        table("Density over all layers and steps", keys, [_densities(contents.totals)], left=0)
    )
    layers = ("layer", "kind", "C", "K", "input", "kernel", "stride", "groups", "weights", *keys)
    shown = source.layers[: contents.most]
    out.print(table("Layers", layers, _layer_rows(shown, contents.totals), left=2))
    _print_rest(out, len(source.layers) - len(shown), "layers")
    of_step = ("step", "batch", "masks", "file", "held", *keys)
    out.print(table("Steps", of_step, contents.steps, left=0))
    _print_rest(out, contents.whole - len(contents.steps), "steps")
    if contents.drifts:
        of_drift = ("step", "operand", "asked", "realised", "least so far", "most so far")
        out.print(table("Drift of reused thresholds", of_drift, contents.drifts, left=2))
        _print_rest(out, contents.drifted - len(contents.drifts), "drifts")
    not_modelled, not_recorded = contents.not_modelled.items(), contents.not_recorded.items()
    lines = [f"not modelled: {', '.join(sorted(kinds))} in {name}" for name, kinds in not_modelled]
    _print_first(out, lines, contents.most, "modules")
    lines = [f"left out of the trace: {name} ({why})" for name, why in not_recorded]
    _print_first(out, lines, contents.most, "layers left out")


def _show_covered(out: Console, covered: Covered, most: int | None) -> None:
    """Show the multiply-accumulates, and what is in no layer of the trace."""
    seen = covered.seen.total or 1
    not_held = sorted(covered.not_held.items(), key=lambda part: -part[1].total)
    shown = not_held if most is None else not_held[:LARGEST]
    named = [(f"not: {what}", module or "-", passes) for (module, what), passes in shown]
    every = [("all", "", covered.seen), ("in the trace", "", covered.held), *named]
    rows = (
        [what, module, count(it.forward), count(it.backward), percent(it.total / seen)]
        for what, module, it in every
    )
    headings = ("multiply-accumulates", "module", "forward", "backward", "share")
    out.print(table("What the steps multiplied, whole batches", headings, rows, left=2))
    _print_rest(out, len(not_held) - len(shown), "parts that are not in the trace")
    for what, names in (
        ("left alone in the run", covered.left_alone),
        ("parameters that got a gradient and are in no op", covered.unseen),
    ):
        if names:
            out.print(f"{what}: {listed(list(names), most or len(names))}")


def _covers(source: Trace, covered: Covered) -> str:
    """Return in words which share of the multiplications is in the trace."""
    if not covered.known:
        return f"of the steps' multiplications: {NOT_KNOWN} ({why_unknown(source)})"
    words = f"{percent(covered.share)} of the steps' multiplications are in the trace"
    parts = covered.parts()
    seen = covered.seen.total
    named = [f"{name} {percent(passes.total / seen)}" for name, passes in parts]
    return words + (f"; not: {listed(named, 3)}" if named else "")


def _types(types: Mapping[str, Counter[str]]) -> str:
    """Return in words which value types each operand has; of several, in how many masks."""
    if set().union(*types.values()) == {NOT_KNOWN}:
        return NOT_KNOWN
    words = []
    for operand in (name for name in OPERANDS if name in types):
        found = types[operand]
        kinds = (f"{kind} ({n} masks)" if len(found) > 1 else kind for kind, n in found.items())
        words.append(f"{operand} {', '.join(kinds)}")
    return "; ".join(words)


def _add_work(known: Counter[str], work: OtherWork) -> None:
    known["operations"] += work.times * len(work.operations)
    known["elements"] += work.times * sum(each.elements for each in work.operations)
    known["bytes"] += work.times * (work.read + work.written)


def _others(contents: _Contents) -> str:
    """Return in words what the steps did beside multiplying, by phase."""
    if not contents.noted:
        return f"{NOT_KNOWN}: figures of this trace are of layers alone"
    known = ((phase, contents.others[phase]) for phase in PHASES if phase in contents.others)
    words = (
        f"{phase} {count(it['operations'])} operations of {count(it['elements'])} elements and "
        f"{size(it['bytes'])}"
        for phase, it in known
    )
    return f"in {contents.noted} of {contents.whole} steps: {'; '.join(words) or 'nothing'}"


def _wanted(totals: Totals) -> list[str]:
    """Return in words how much of what ops make is wanted, where it is not all."""
    found = ((op, totals.get(("", op, operand))) for op, operand in OUTPUT_OF.items())
    words = [f"{share(pair[0] / pair[1])} of what {op} makes" for op, pair in found if pair]
    return [f"wanted   {', '.join(words)}, in layers where not all is"] if words else []


def _print_rest(out: Console, number: int, what: str) -> None:
    if number:
        out.print(f".. and {number} more {what} (--all shows them)")


def _print_first(out: Console, lines: Sequence[str], most: int | None, what: str) -> None:
    for line in lines[:most]:
        out.print(line)
    _print_rest(out, len(lines) - len(lines[:most]), what)


def _reads() -> list[tuple[str, str]]:
    return [(op, operand) for op, operands in OPERANDS_OF.items() for operand in operands]


def _summary(source: Trace, contents: _Contents) -> list[str]:
    manifest = source.manifest
    policy = ", ".join(f"{key}={value}" for key, value in manifest.policy.items()) or "not stated"
    provenance = manifest.provenance
    totals = contents.totals.items()
    elements = sum(elements for (layer, _, _), (_, elements) in totals if not layer)
    return [
        f"trace    {source.path} (id {source.id})",
        f"policy   {policy}",
        f"samples  {_samples(manifest)} of a batch of {manifest.batch_size}",
        f"made     {provenance.get('time', '?')} by swatsim {provenance.get('swatsim', '?')}",
        f"steps    {len(source.steps)}, from {source.steps[0]} to {source.steps[-1]}",
        f"layers   {len(source.layers)}",
        f"covers   {_covers(source, contents.covered)}",
        f"others   {_others(contents)}",
        f"values   {_types(contents.types)}",
        f"masks    {contents.masks} of {count(elements)} elements in {size(contents.bytes)}",
        *_wanted(contents.totals),
    ]


def _samples(manifest: Manifest) -> str:
    return "all" if manifest.samples is None else str(len(manifest.samples))


def _add(totals: Totals, step: Step) -> None:
    """Add up ones and elements by (layer, op, operand), and over all layers (layer "")."""
    for record in step.records:
        for layer in (record.layer, ""):
            key = layer, record.op, record.operand
            ones, elements = totals.get(key, (0, 0))
            totals[key] = ones + record.ones, elements + record.elements


def _densities(totals: Totals, layer: str = "") -> list[str]:
    pairs = [totals.get((layer, *reads)) for reads in _reads()]
    return ["-" if pair is None else share(pair[0] / pair[1]) for pair in pairs]


def _layer_rows(layers: Sequence[Layer], totals: Totals) -> Iterator[list[str]]:
    for layer in layers:
        densities = _densities(totals, layer.name)
        weights = "-" if layer.multiplies_activations else count(layer.weights)
        yield [layer.name, layer.kind, *_shape(layer), weights, *densities]


def _shape(layer: Layer) -> list[str]:
    size, kernel = f"{layer.H}x{layer.W}", f"{layer.R}x{layer.S}"
    stride = "x".join(map(str, dict.fromkeys(layer.stride)))
    return [str(layer.C), str(layer.K), size, kernel, stride, str(layer.groups)]


def _step_row(step: Step) -> list[str]:
    totals: Totals = {}
    _add(totals, step)
    file = size(step.path.stat().st_size)
    held = "-" if step.coverage is None else percent(step.coverage.share)
    row = [str(step.number), str(step.batch_size), str(len(step.records)), file, held]
    return [*row, *_densities(totals)]


def _drift_rows(step: Step) -> list[list[str]]:
    """Return how far densities drifted between two exact Top-Ks, as the policy saw it."""
    rows = []
    for operand, drift in drifts(step.notes).items():
        densities = [
            share(density) for density in (drift.asked, drift.last, drift.least, drift.most)
        ]
        rows.append([str(step.number), operand, *densities])
    return rows
