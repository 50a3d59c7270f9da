"""``swatsim info``: what a trace holds."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from rich.console import Console

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.contents import NOT_KNOWN, READS, Contents, Totals, densities, layer_rows, of_trace
from swatsim.cli.show import console, count, share, size, table
from swatsim.described import in_words
from swatsim.errors import TraceError, listed
from swatsim.reports.span import percent
from swatsim.tracefile import Manifest, Trace, open_trace
from swatsim.tracefile.covered import Covered, why_unknown
from swatsim.workload.layer import OPERANDS, OPS, OUTPUT_OF
from swatsim.workload.phases import PHASES

#: Notes of a kind that are shown; of more, how many there are.
SHOWN = 3


@click.command()
@click.argument("trace", type=click.Path())
@click.option("--all", "everything", is_flag=True, help="Show all layers, steps and notes.")
@JSON
def info(trace: str, everything: bool, as_json: bool) -> None:
    """Show what a trace holds.

    Of which steps, which share of what they multiplied, and how dense: the non-zero share of each
    operand as the op reads it. No mask is read.

    --all: each layer, its densities averaged over all steps, and each step; of all that the steps
    multiplied, forward and backward, what is in the trace and what is not; drifts and notes.
    """
    source = open_trace(trace)
    contents = of_trace(source, everything or as_json)
    if as_json:
        _print_json(source, contents)
    else:
        _show(source, contents, everything)
    if contents.damaged:
        raise TraceError(
            f"{len(contents.damaged)} of {len(source.steps)} steps are damaged: "
            f"{listed(contents.damaged, 3)}"
        )


def _show(source: Trace, contents: Contents, everything: bool) -> None:
    out = console()
    for line in _summary(source, contents):
        out.print(line)
    out.print("")
    if everything and contents.covered.known:
        _show_covered(out, contents.covered)
    out.print(table("Density over all layers and steps", ("op", *OPERANDS), _by_op(contents), 1))
    if everything:
        _show_layers_and_steps(out, source, contents)
    _show_notes(out, contents, None if everything else SHOWN)
    path = shlex.quote(str(source.path))
    if not everything:
        out.print(f"Each layer and step: swatsim info {path} --all")
    out.print(f"Next: swatsim simulate {path} -m MACHINE (swatsim machines lists them)")


def _show_layers_and_steps(out: Console, source: Trace, contents: Contents) -> None:
    shape = ("layer", "kind", "C", "K", "input", "kernel", "stride", "groups", "weights")
    rows = (
        [_cell(value) for value in row.values()]
        for row in layer_rows(source.layers, contents.totals)
    )
    out.print(table("Layers", (*shape, *_keys()), rows, left=2))
    of_step = ("step", "batch", "masks", "file", "held", *_keys())
    rows = (
        [
            *(str(row[name]) for name in ("step", "batch_size", "masks")),
            *(size(row["file_bytes"]), "-" if row["share"] is None else percent(row["share"])),
            *(_cell(row[key]) for key in _keys()),
        ]
        for row in contents.steps
    )
    out.print(table("Steps", of_step, rows, left=1))
    if contents.drifts:
        of_drift = ("step", "operand", "asked", "realised", "least so far", "most so far")
        rows = (
            [str(step), operand, *map(share, (it.asked, it.last, it.least, it.most))]
            for step, operand, it in contents.drifts
        )
        out.print(table("Drift of reused thresholds", of_drift, rows, left=2))


def _show_notes(out: Console, contents: Contents, most: int | None) -> None:
    """Print what a run noted of what is not in the trace, or not as asked."""
    if contents.drifts and most is not None:
        out.print(f"{len(contents.drifts)} drifts of reused thresholds: --all shows them")
    not_modelled, not_recorded = contents.not_modelled.items(), contents.not_recorded.items()
    lines = [f"not modelled: {', '.join(sorted(kinds))} in {name}" for name, kinds in not_modelled]
    _print_first(out, lines, most, "modules")
    lines = [f"left out of the trace: {name} ({why})" for name, why in not_recorded]
    _print_first(out, lines, most, "layers left out")


def _show_covered(out: Console, covered: Covered) -> None:
    """Print the multiply-accumulates, and what is in no layer of the trace."""
    seen = covered.seen.total or 1
    not_held = sorted(covered.not_held.items(), key=lambda part: -part[1].total)
    named = [(f"not: {what}", module or "-", passes) for (module, what), passes in not_held]
    every = [("all", "", covered.seen), ("in the trace", "", covered.held), *named]
    rows = (
        [what, module, count(it.forward), count(it.backward), percent(it.total / seen)]
        for what, module, it in every
    )
    headings = ("multiply-accumulates", "module", "forward", "backward", "share")
    out.print(table("What the steps multiplied, whole batches", headings, rows, left=2))
    for what, names in (
        ("left alone in the run", covered.left_alone),
        ("parameters that got a gradient and are in no op", covered.unseen),
    ):
        if names:
            out.print(f"{what}: {', '.join(names)}")


def _print_json(source: Trace, contents: Contents) -> None:
    manifest, covered = source.manifest, contents.covered
    as_json.write(
        "info",
        {
            "trace": str(source.path),
            "id": source.id,
            "policy": manifest.policy,
            "made": manifest.provenance.get("time"),
            "made_by": manifest.provenance.get("swatsim"),
            "batch_size": manifest.batch_size,
            "samples": _number_of_samples(manifest),
            "share": covered.share if covered.known else None,
            "share_unknown": "" if covered.known else why_unknown(source),
            "density": densities(contents.totals),
            "dtypes": {operand: dict(found) for operand, found in contents.types.items()},
            "masks": contents.masks,
            "elements": contents.elements,
            "file_bytes": contents.bytes,
            "layers": list(layer_rows(source.layers, contents.totals)),
            "steps": contents.steps,
            "everything_else": {phase: dict(work) for phase, work in contents.others.items()},
            "not_modelled": {name: sorted(kinds) for name, kinds in contents.not_modelled.items()},
            "not_recorded": contents.not_recorded,
            "damaged": contents.damaged,
        },
    )


def _covers(source: Trace, covered: Covered) -> str:
    """Return in words which share of the multiplications is in the trace."""
    if not covered.known:
        return f"of the steps' multiplications: {NOT_KNOWN} ({why_unknown(source)})"
    words = f"{percent(covered.share)} of the steps' multiplications are in the trace"
    seen = covered.seen.total
    named = [f"{name} {percent(passes.total / seen)}" for name, passes in covered.parts()]
    return words + (f"; not: {listed(named, 3)}" if named else "")


def _types(types: Mapping[str, Mapping[str, int]]) -> str:
    """Return in words which value types each operand has; of several, in how many masks."""
    if {kind for found in types.values() for kind in found} == {NOT_KNOWN}:
        return NOT_KNOWN
    words = []
    for operand in (name for name in OPERANDS if name in types):
        found = types[operand]
        kinds = (f"{kind} ({n} masks)" if len(found) > 1 else kind for kind, n in found.items())
        words.append(f"{operand} {', '.join(kinds)}")
    return "; ".join(words)


def _others(contents: Contents) -> str:
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


def _print_first(out: Console, lines: Sequence[str], most: int | None, what: str) -> None:
    for line in lines[:most]:
        out.print(line)
    if len(lines) > len(lines[:most]):
        out.print(f".. and {len(lines) - len(lines[:most])} more {what} (--all shows them)")


def _span_of_steps(steps: Sequence[int]) -> str:
    """Return how many steps there are, and where they lie in the run."""
    if len(steps) == 1:
        return f"1, number {steps[0]}"
    return f"{len(steps)}, from {steps[0]} to {steps[-1]}"


def _summary(source: Trace, contents: Contents) -> list[str]:
    manifest = source.manifest
    provenance = manifest.provenance
    samples = "all" if manifest.samples is None else str(_number_of_samples(manifest))
    masks = f"{contents.masks} of {count(contents.elements)} elements in {size(contents.bytes)}"
    return [
        f"trace    {source.path} (id {source.id})",
        f"policy   {in_words(manifest.policy)}",
        f"samples  {samples} of a batch of {manifest.batch_size}",
        f"made     {provenance.get('time', '?')} by swatsim {provenance.get('swatsim', '?')}",
        f"steps    {_span_of_steps(source.steps)}",
        f"layers   {len(source.layers)}",
        f"covers   {_covers(source, contents.covered)}",
        f"others   {_others(contents)}",
        f"values   {_types(contents.types)}",
        f"masks    {masks}",
        *_wanted(contents.totals),
    ]


def _number_of_samples(manifest: Manifest) -> int:
    return manifest.batch_size if manifest.samples is None else len(manifest.samples)


def _keys() -> list[str]:
    return [f"{op} {operand}" for op, operand in READS]


def _by_op(contents: Contents) -> Iterator[list[str]]:
    """Yield a row an op: the density of each operand that it reads."""
    found = densities(contents.totals)
    for op in OPS:
        yield [op, *(_cell(found.get(f"{op} {operand}")) for operand in OPERANDS)]


def _cell(value: Any) -> str:
    """Return a density, a count or a word of a table."""
    if isinstance(value, int):
        return count(value)
    return "-" if value is None else share(value) if isinstance(value, float) else value
