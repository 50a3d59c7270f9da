"""The JSON of a trace of events, as Perfetto (ui.perfetto.dev) and chrome://tracing read it.

The Trace Event Format (Google, "Trace Event Format", docs.google.com/document/d/
1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU): ``ts`` and ``dur`` are in microseconds, and a cycle
is written as one, for whole numbers add up. Slices of one thread don't overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = dict[str, Any]

UNIT = "1 us is 1 cycle"


def span(
    place: tuple[int, int],
    name: str,
    category: str,
    begin: int,
    cycles: int,
    details: Mapping[str, Any],
) -> Json:
    """Return a slice; an instant where it takes no cycle.

    Parameters
    ----------
    place : (int, int)
        Process and thread.
    name, category : str
    begin, cycles : int
    details : mapping
        JSON types.
    """
    shape = {"ph": "X", "dur": cycles} if cycles else {"ph": "i", "s": "t"}
    where = {"ts": begin, "pid": place[0], "tid": place[1]}
    return {"name": name, "cat": category, **shape, **where, "args": dict(details)}


def counter(process: int, name: str, begin: int, value: float) -> Json:
    """Return a counter's value from a cycle on, until its next event."""
    where = {"ts": begin, "pid": process, "tid": 0}
    return {"name": name, "cat": "counter", "ph": "C", **where, "args": {"value": value}}


def names(process: int, title: str, threads: Sequence[str]) -> Iterator[Json]:
    """Yield the names of a process and of its threads, in the order in which they are shown."""
    yield _about(process, 0, "process_name", {"name": title})
    yield _about(process, 0, "process_sort_index", {"sort_index": process})
    for thread, name in enumerate(threads):
        yield _about(process, thread, "thread_name", {"name": name})
        yield _about(process, thread, "thread_sort_index", {"sort_index": thread})


def _about(process: int, thread: int, name: str, args: Json) -> Json:
    return {"name": name, "ph": "M", "ts": 0, "pid": process, "tid": thread, "args": args}
