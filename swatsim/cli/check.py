"""``swatsim check``: read every mask of a trace."""

from __future__ import annotations

import shlex

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.progress import reading
from swatsim.cli.show import console, count
from swatsim.errors import TraceError, listed
from swatsim.tracefile import Trace, open_trace


@click.command()
@click.argument("trace", type=click.Path())
@JSON
def check(trace: str, as_json: bool) -> None:
    """Verify every mask of a trace.

    Its bytes, its shape, its count of ones and its digest; of each step that its layers, and the
    share of the step that they are, are what was recorded.

    Every damaged step is named; the exit code is 2 if there is one.
    """
    source = open_trace(trace)
    masks = elements = bare = 0
    damaged: dict[int, str] = {}
    with reading(len(source.steps)) as show:
        for done, number in enumerate(source.steps, start=1):
            try:
                step = source.step(number)
                bare += source.manifest.schema_version == 1 and step.layers_digest is None
                for record in step.check():
                    masks += 1
                    elements += record.elements
            except TraceError as error:
                damaged[number] = str(error)
            show(done, len(source.steps))
    if as_json:
        _print_json(source, masks, elements, bare, damaged)
    _refuse_if(damaged, source)
    if as_json:
        return
    console().print(
        f"{source.path}: format {source.manifest.schema_version}, {len(source.steps)} steps, "
        f"{masks} masks of {count(elements)} elements are whole"
    )
    if bare or source.manifest.digest is None:
        without = [f"{bare} of {len(source.steps)} steps"] if bare else []
        without += ["manifest.json"] if source.manifest.digest is None else []
        console().print(
            f"without a digest of the layers: {' and '.join(without)}, as earlier swatsims wrote "
            "them; that their layers are those of the recording can't be checked"
        )
    console().print(f"Next: swatsim info {shlex.quote(trace)}")


def _print_json(
    source: Trace, masks: int, elements: int, bare: int, damaged: dict[int, str]
) -> None:
    found = {
        "trace": str(source.path),
        "format": source.manifest.schema_version,
        "steps": len(source.steps),
        "masks": masks,
        "elements": elements,
        "steps_without_digest": bare,
        "manifest_without_digest": source.manifest.digest is None,
        "damaged": damaged,
    }
    as_json.write("check", found)


def _refuse_if(damaged: dict[int, str], source: Trace) -> None:
    """Refuse damaged steps: name them all, and what is wrong with the first."""
    if damaged:
        numbers = listed(map(str, damaged), 10)
        raise TraceError(
            f"{source.path}: {len(damaged)} of {len(source.steps)} steps are damaged ({numbers}): "
            f"{next(iter(damaged.values()))}"
        )
