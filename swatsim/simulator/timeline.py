"""The timeline of a step, or of one tile, for Perfetto (ui.perfetto.dev) or chrome://tracing.

A cycle is a microsecond there: the format knows no other unit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from swatsim import provenance
from swatsim.arguments import arguments, maybe, string, whole_number
from swatsim.errors import ConfigError, TraceError, shown, unknown
from swatsim.simulator.interface import Event, Machine, Timeline
from swatsim.simulator.run import TRACE, WHERE, as_machine
from swatsim.simulator.runnable import Runnable
from swatsim.simulator.step_timeline import BLOCKS, MAX_EVENTS, TILES, step_timeline
from swatsim.simulator.trace_events import UNIT, names, span
from swatsim.store import Where, open_store
from swatsim.tracefile import Step, Trace, open_trace
from swatsim.workload.layer import OPS, OpName
from swatsim.workload.lowering import lower
from swatsim.workload.training_ops import Op

log = logging.getLogger(__name__)

DEFAULT_CYCLES = 1000
MAX_CYCLES = 100_000
#: A timeline is one process of the trace of events.
PROCESS = 1


@arguments(
    ConfigError,
    trace=TRACE,
    layer=maybe(string),
    op=maybe(string),
    step=maybe(whole_number),
    tile=whole_number,
    start=whole_number,
    cycles=whole_number,
    blocks=whole_number,
    tiles=whole_number,
    store=WHERE,
)
def timeline(
    trace: str | os.PathLike[str] | Trace,
    machine: str | Machine,
    *,
    layer: str | None = None,
    op: OpName | None = None,
    step: int | None = None,
    tile: int = 0,
    start: int = 0,
    cycles: int = DEFAULT_CYCLES,
    blocks: int = BLOCKS,
    tiles: int = TILES,
    store: Where = True,
) -> dict[str, Any]:
    """Return what a machine does in a step, block by block; or one tile in one op, cycle by cycle.

    Of a step: its ops one after another and what the vector unit does, what is loaded, computed and
    stored of its blocks, when PEs wait, what some tiles do; as counters DRAM's bytes a second,
    PEs that wait for it, lanes with effectual work. All adds up to what `swatsim.simulate` says.

    Parameters
    ----------
    trace : path or Trace
    machine : str or Machine
        A preset's name, or `swatsim.machine(..)`.
    layer, op : str, optional
        Of one tile, which op: fprop, dgrad or wgrad. By default the whole step.
    step, tile : int
        The first recorded step by default; which tile, from 0: what these are, the mechanism's
        `tile` says.
    start, cycles : int
        The window of the tile's cycles that is written.
    blocks, tiles : int
        Of a step: so many blocks of an op are drawn apart at most, more of them several as one (in
        a step of many ops fewer), and so many of the machine's tiles, evenly spread.
    store
        Of a step: as in `swatsim.simulate`.

    Returns
    -------
    dict
        Ready for JSON: ``traceEvents``, and on all of them ``otherData``, how they are drawn.

    Raises
    ------
    TraceError
        If the trace has no such step, layer or op, or is damaged.
    ConfigError
        If the machine is unknown or has no timeline, there is no such tile, or the window is past
        the end or too large.
    """
    chosen, window, apart = as_machine(machine), _window(start, cycles), (blocks, tiles)
    _check_whole(layer, op, (tile, start, cycles), apart)
    source = trace if isinstance(trace, Trace) else open_trace(trace)
    opened = source.step(source.steps[0] if step is None else step)
    if layer is None or op is None:
        return step_timeline(source, chosen, opened.number, apart, open_store(store))
    drawn = chosen.timeline(lower(_op(opened, source, layer, op)), tile)
    what = {"layer": layer, "op": op, "step": opened.number, "tile": tile}
    return _document(drawn, window, {"machine": chosen.name, **what}, _where(source, chosen))


def _where(trace: Trace, machine: Runnable) -> dict[str, Any]:
    written = provenance.collect({"machine": machine.describe()})
    return {"trace": trace.name, "trace_id": trace.id, "provenance": written}


def _document(
    drawn: Timeline, window: range, what: Mapping[str, Any], where: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a tile's window, ready for JSON: `what` is drawn, of `where`."""
    _check_start(window, drawn)
    about = {
        "unit": UNIT,
        **what,
        "cycles": drawn.cycles,
        "window": [window.start, min(window.stop, drawn.cycles)],
        **drawn.about,
        **where,
    }
    title = "{machine}: {layer} {op}, step {step}, tile {tile}".format(**what)
    events = [*names(PROCESS, title, drawn.threads), *_events(drawn, window)]
    return {"otherData": about, "displayTimeUnit": "ns", "traceEvents": events}


def _check_whole(
    layer: str | None, op: str | None, window: tuple[int, int, int], apart: tuple[int, int]
) -> None:
    """Refuse what is said of a tile, where none is chosen, and of a step, where one is."""
    if (layer is None) != (op is None):
        raise ConfigError(
            f"layer={shown(layer)} with op={shown(op)} is not allowed: name both for one tile of "
            "an op, or neither for the whole step"
        )
    if layer is None and window != (0, 0, DEFAULT_CYCLES):
        raise ConfigError(
            "tile={}, from={}, cycles={} are not allowed of a whole step: name a layer and an op "
            "for one of its tiles".format(*window)
        )
    if layer is not None and apart != (BLOCKS, TILES):
        raise ConfigError(
            "blocks={}, tiles={} are not allowed of one tile of an op: leave them out, or layer "
            "and op, for the whole step".format(*apart)
        )


def _window(start: int, cycles: int) -> range:
    if not isinstance(start, int) or start < 0:
        raise ConfigError(f"from={start!r} is not allowed: a timeline begins at cycle 0")
    if not isinstance(cycles, int) or cycles not in range(1, MAX_CYCLES + 1):
        raise ConfigError(
            f"cycles={cycles!r} is not allowed: must be 1 to {MAX_CYCLES}; choose where they "
            "begin (--from)"
        )
    return range(start, start + cycles)


def _check_start(window: range, drawn: Timeline) -> None:
    last = max(0, drawn.cycles - 1)
    if window.start > last:
        raise ConfigError(
            f"from={window.start} is past the end: the last cycle of this tile is {last}; begin "
            "there at most"
        )


def _op(step: Step, trace: Trace, layer: str, name: OpName) -> Op:
    """Return the op, its masks read."""
    known, layers = trace.manifest.by_name, {one.name: one for one in step.layers}
    if layer not in known:
        message = f"{trace.path}: {unknown('layer', str(layer), known)}"
        raise TraceError(message, of_argument=True)
    if name not in OPS:
        raise ConfigError(unknown("op", str(name), OPS))
    recorded = [op for recorded_layer, op in step.ops() if recorded_layer.name == layer]
    if name not in recorded:
        there = ", ".join(recorded) or "none"
        raise TraceError(
            f"{trace.path}: step {step.number} has no {name} of layer {layer!r}: with both masks "
            f"recorded are {there}; choose another op or step",
            of_argument=True,
        )
    return step.op(layers[layer], name)


# ---- events ----------------------------------------------------------------------------------


def _events(drawn: Timeline, window: range) -> Iterator[dict[str, Any]]:
    """Yield the events of a window, ready for JSON."""
    events = _within(_joined(drawn.events(window)), window, drawn)
    log.info("%d events in cycles %d to %d", len(events), window.start, window.stop)
    return map(_as_json, events)


def _joined(events: Iterable[Event]) -> Iterator[Event]:
    """Yield the events, neighbours of one thread and name joined that have no details: waits."""
    last: dict[int, Event] = {}
    for event in events:
        before = last.pop(event.thread, None)
        if before is not None:
            joins = before.name == event.name and before.begin + before.cycles == event.begin
            if joins and event.cycles and not event.details:
                event = before._replace(cycles=before.cycles + event.cycles)
            else:
                yield before
        if event.cycles and not event.details:
            last[event.thread] = event
        else:
            yield event
    yield from last.values()


def _within(events: Iterable[Event], window: range, drawn: Timeline) -> list[Event]:
    """Return the events cut to the window, in the order of their begin."""
    kept: list[Event] = []
    for event in events:
        if (cut := _cut(event, window, drawn.cycles)) is not None:
            kept.append(cut)
        if len(kept) + 2 * len(drawn.threads) >= MAX_EVENTS:
            raise ConfigError(
                f"{len(window)} cycles of {len(drawn.threads)} threads are more than {MAX_EVENTS} "
                "events, the most that is written: choose fewer cycles (--cycles), or fewer lanes"
            )
    return sorted(kept, key=attrgetter("begin", "thread"))


def _cut(event: Event, window: range, cycles: int) -> Event | None:
    """Return an event cut to the window; what was whole is in its details. None: it is outside."""
    if not event.cycles:
        at_end = event.begin == cycles <= window.stop
        return event if event.begin in window or at_end else None
    begin, end = max(event.begin, window.start), min(event.begin + event.cycles, window.stop)
    if begin >= end:
        return None
    if end - begin == event.cycles:
        return event
    whole = {"begin": event.begin, "cycles": event.cycles}
    details = {**event.details, "whole": whole}
    return event._replace(begin=begin, cycles=end - begin, details=details)


def _as_json(event: Event) -> dict[str, Any]:
    return span((PROCESS, event.thread), *event[1:])
