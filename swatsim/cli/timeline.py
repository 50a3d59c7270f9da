"""``swatsim timeline``: a step, block by block, or what one tile does, cycle by cycle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from swatsim.cli import as_json
from swatsim.cli.as_json import JSON
from swatsim.cli.lazy import Registered
from swatsim.cli.options import MACHINE, OP, SETTINGS, STORE, parse
from swatsim.cli.show import console
from swatsim.errors import ResultsError
from swatsim.outputs import CONTENTS, SWEEP, check_folder, write_files
from swatsim.reports.labels import shown
from swatsim.results import PROVENANCE, SCHEMA
from swatsim.simulator.machines import MACHINES, machine
from swatsim.simulator.step_timeline import TILES
from swatsim.simulator.timeline import timeline as draw
from swatsim.simulator.trace_events import UNIT
from swatsim.tracefile.schema import MANIFEST

#: Files of swatsim's own.
RESERVED = (MANIFEST, PROVENANCE, SCHEMA, SWEEP, CONTENTS)
#: What --json says of what was drawn.
SAID = ("trace", "trace_id", "machine", "step", "layer", "op", "tile", "tiles", "cycles", "window")
#: What a timeline begins with.
BEGINNING = f'{{"otherData":{{"unit":"{UNIT}'.encode()


def _tiles() -> list[str]:
    return [f"{it.tile} ({it.name})" for it in MACHINES if it.timeline]


@click.command()
@click.argument("trace", type=click.Path())
@click.option("--layer", help="Of one tile alone, in an op of this layer: see swatsim info.")
@click.option("--op", type=OP, help="Of one tile alone, in this op of the layer.")
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
@click.option(
    "--from", "start", type=int, default=0, show_default=True, help="First cycle, of one tile."
)
@click.option(
    "--cycles", type=int, default=1000, show_default=True, help="How many cycles, of one tile."
)
@click.option(
    "--blocks",
    type=int,
    default=64,
    show_default=True,
    help="Blocks of an op that are drawn apart at most, of a step.",
)
@click.option(
    "--tiles",
    type=int,
    default=TILES,
    show_default=True,
    help="Tiles of the machine (clusters, cores, PEs) that are drawn, evenly spread, of a step; "
    "0: none.",
)
@STORE
@click.option("-o", "--output", type=click.Path(), required=True, help="The JSON file to write.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is no timeline, too.")
@JSON
def timeline(
    trace: str,
    name: str,
    settings: tuple[str, ...],
    output: str,
    overwrite: bool,
    as_json: bool,
    **which: Any,
) -> None:
    """Write a step as it runs, for Perfetto, or one tile cycle by cycle.

    By default the whole step: its ops one after another and everything else, the blocks that DRAM
    brings, that PEs compute, that wait and leave; how long some tiles compute in each op, and wait
    for the slowest or for memory; as counters DRAM's bytes a second, PEs that wait for it, lanes
    with effectual work.

    With --layer and --op one tile of that op: which lane took which value from where, and who
    waited for whom.

    It is a trace of events: open it at https://ui.perfetto.dev or in chrome://tracing. A cycle is a
    microsecond there.
    """
    path = Path(output)
    _check_file(path, overwrite)
    document = draw(trace, machine(name, **parse(settings)), **which)
    content = json.dumps(document, separators=(",", ":")).encode()
    write_files(path.parent, {path.name: content})
    if as_json:
        _print_json(path, document)
        return
    console().print(f"wrote {path}: {_words(document)}\nNext: open it at https://ui.perfetto.dev")


def _check_file(path: Path, overwrite: bool) -> None:
    """Refuse a file that a timeline can't be, or that is somebody else's."""
    if path.suffix != ".json" or path.name in RESERVED:
        raise ResultsError(
            f"can't write to {path}: a timeline is a .json file, and none of "
            f"{', '.join(RESERVED)}; choose another name",
            of_argument=True,
        )
    check_folder(path.parent)
    if overwrite or not path.is_file():
        return
    with path.open("rb") as file:
        found = file.read(len(BEGINNING))
    if found != BEGINNING:
        raise ResultsError(
            f"can't write to {path}: it is a file that is no timeline of this version; choose "
            "another name, or replace it by --overwrite"
        )


def _print_json(path: Path, document: dict[str, Any]) -> None:
    about = document["otherData"]
    found = {"written": [path], "events": len(document["traceEvents"]), "unit": about["unit"]}
    found |= {name: about[name] for name in SAID if name in about}
    if "tile" not in about:
        found["step_ms"] = about.get("time_ms")
    as_json.write("timeline", found)


def _words(document: dict[str, Any]) -> str:
    """Return in words what was written."""
    about, events = document["otherData"], len(document["traceEvents"])
    if "tile" in about:
        window = "{} to {} of {}".format(*about["window"], about["cycles"])
        return f"{events} events, cycles {window}, tile {about['tile']} of {about['tiles']}"
    time = f" ({shown('time_ms', about['time_ms'])})" if "time_ms" in about else ""
    of = f"{about['cycles']} cycles{time} on {about['machine']}"
    return f"{events} events, step {about['step']} of {of}"
