"""The timeline of one tile as a trace of events, for Perfetto (ui.perfetto.dev) or chrome://tracing.

A cycle is a microsecond there: the format knows no other unit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

from swatsim import provenance
from swatsim.arguments import arguments, either, instance_of, maybe, path_like, string, whole_number
from swatsim.errors import ConfigError, TraceError, unknown
from swatsim.simulator.interface import Event, Machine, Timeline
from swatsim.simulator.run import as_machine
from swatsim.tracefile import Step, Trace, open_trace
from swatsim.workload.layer import OPS, OpName
from swatsim.workload.lowering import lower
from swatsim.workload.training_ops import Op

log = logging.getLogger(__name__)

DEFAULT_CYCLES = 1000
MAX_CYCLES = 100_000
#: A viewer is slow beyond: about 100 MB of JSON.
MAX_EVENTS = 500_000

#: A timeline is one process of the trace of events.
PROCESS = 1


@arguments(
    ConfigError,
    trace=either(path_like, instance_of(Trace)),
    layer=string,
    op=string,
    step=maybe(whole_number),
    tile=whole_number,
    start=whole_number,
    cycles=whole_number,
)
def timeline(
    trace: str | os.PathLike[str] | Trace,
    machine: str | Machine,
    *,
    layer: str,
    op: OpName,
    step: int | None = None,
    tile: int = 0,
    start: int = 0,
    cycles: int = DEFAULT_CYCLES,
) -> dict[str, Any]:
    """Return what one tile does, cycle by cycle.

    Parameters
    ----------
    trace : path or Trace
    machine : str or Machine
        A preset's name, or `swatsim.machine(..)`.
    layer : str
    op : {"fprop", "dgrad", "wgrad"}
    step : int, optional
        The first recorded one by default.
    tile : int
        Which one, from 0: what a machine's tiles are, its mechanism's `tile` says.
    start, cycles : int
        The window that is written.

    Returns
    -------
    dict
        A trace of events, ready for JSON: ``traceEvents`` and, on all of it, ``otherData``.

    Raises
    ------
    TraceError
        If the trace has no such step, layer or op, or is damaged.
    ConfigError
        If the machine is unknown or has no timeline, there is no such tile, or the window is past
        the end or too large.
    """
    chosen = as_machine(machine)
    window = _window(start, cycles)
    source = trace if isinstance(trace, Trace) else open_trace(trace)
    opened = source.step(source.steps[0] if step is None else step)
    drawn = chosen.timeline(lower(_op(opened, source, layer, op)), tile)
    _check_start(window, drawn)
    what = {"machine": chosen.name, "layer": layer, "op": op, "step": opened.number, "tile": tile}
    about = {
        "unit": "1 us is 1 cycle",
        **what,
        "trace": source.name,
        "trace_id": source.id,
        "cycles": drawn.cycles,
        "window": [window.start, min(window.stop, drawn.cycles)],
        **drawn.about,
        "provenance": provenance.collect({"machine": chosen.describe()}),
    }
    events = [*_metadata(drawn, what), *_events(drawn, window)]
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": about}


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
        raise TraceError(f"{trace.path}: {unknown('layer', str(layer), known)}")
    if name not in OPS:
        raise ConfigError(unknown("op", str(name), OPS))
    recorded = [op for recorded_layer, op in step.ops() if recorded_layer.name == layer]
    if name not in recorded:
        shown = ", ".join(recorded) or "none"
        raise TraceError(
            f"{trace.path}: step {step.number} has no {name} of layer {layer!r}: with both masks "
            f"recorded are {shown}; choose another op or step"
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
    shown: list[Event] = []
    for event in events:
        if (cut := _cut(event, window, drawn.cycles)) is not None:
            shown.append(cut)
        if len(shown) + 2 * len(drawn.threads) >= MAX_EVENTS:
            raise ConfigError(
                f"{len(window)} cycles of {len(drawn.threads)} threads are more than {MAX_EVENTS} "
                "events, the most that is written: choose fewer cycles (--cycles), or fewer lanes"
            )
    return sorted(shown, key=attrgetter("begin", "thread"))


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
    shape = {"ph": "X", "dur": event.cycles} if event.cycles else {"ph": "i", "s": "t"}
    return {
        "name": event.name,
        "cat": event.category,
        **shape,
        "ts": event.begin,
        "pid": PROCESS,
        "tid": event.thread,
        "args": dict(event.details),
    }


def _metadata(drawn: Timeline, what: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the names of the process and its threads."""
    title = "{machine}: {layer} {op}, step {step}, tile {tile}".format(**what)
    yield _about(0, "process_name", {"name": title})
    for thread, name in enumerate(drawn.threads):
        yield _about(thread, "thread_name", {"name": name})
        yield _about(thread, "thread_sort_index", {"sort_index": thread})


def _about(thread: int, name: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "ph": "M", "ts": 0, "pid": PROCESS, "tid": thread, "args": args}
