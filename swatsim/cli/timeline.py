"""``swatsim timeline``: what one tile does, cycle by cycle."""

from __future__ import annotations

import json
from pathlib import Path

import click

from swatsim.cli.lazy import Registered
from swatsim.cli.options import MACHINE, OP, SETTINGS, parse
from swatsim.cli.show import console
from swatsim.errors import ResultsError
from swatsim.outputs import check_folder, write_files
from swatsim.simulator.machines import MACHINES, machine
from swatsim.simulator.timeline import timeline as draw
from swatsim.workload.layer import OpName

#: Files of swatsim's own.
RESERVED = ("manifest.json", "provenance.json", "schema.json", "sweep.json")


def _tiles() -> list[str]:
    return [f"{it.tile} ({it.name})" for it in MACHINES if it.timeline]


@click.command()
@click.argument("trace", type=click.Path())
@click.option("--layer", required=True, help="A layer's name: see swatsim info.")
@click.option("--op", type=OP, required=True, help="One of its ops.")
@MACHINE
@SETTINGS
@click.option("--step", type=int, help="A recorded step; by default the first one.")
@click.option(
    "--tile",
    type=int,
    default=0,
    show_default=True,
    cls=Registered,
    known=_tiles,
    help="Which one: {known}.",
)
@click.option("--from", "start", type=int, default=0, show_default=True, help="First cycle.")
@click.option(
    "--cycles", type=int, default=1000, show_default=True, help="How many cycles are written."
)
@click.option("-o", "--output", type=click.Path(), required=True, help="The JSON file to write.")
def timeline(
    trace: str,
    layer: str,
    op: OpName,
    name: str,
    settings: tuple[str, ...],
    step: int | None,
    tile: int,
    start: int,
    cycles: int,
    output: str,
) -> None:
    """Write what one tile does in each cycle.

    Which lane took which value from where, and who waited for whom, as a trace of events: open it
    at https://ui.perfetto.dev or in chrome://tracing. A cycle is a microsecond there.
    """
    path = Path(output)
    if path.suffix != ".json" or path.name in RESERVED:
        raise ResultsError(
            f"can't write to {output}: a timeline is a .json file, and none of "
            f"{', '.join(RESERVED)}; choose another name"
        )
    check_folder(path.parent)
    chosen = machine(name, **parse(settings))
    which = {"layer": layer, "op": op, "step": step, "tile": tile}
    document = draw(trace, chosen, **which, start=start, cycles=cycles)  # type: ignore[arg-type]
    content = json.dumps(document, separators=(",", ":")).encode()
    write_files(path.parent, {path.name: content})
    last, about = len(document["traceEvents"]), document["otherData"]
    shown = "{} to {} of {}".format(*about["window"], about["cycles"])
    console().print(f"wrote {path}: {last} events, cycles {shown}, tile {tile} of {about['tiles']}")
