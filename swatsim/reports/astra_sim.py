"""A step as a workload of ASTRA-sim 1: its text, data-parallel.

Source: "The format of workload input" in ASTRA-sim 1's README and its Workload.cc (Rashidi et al.,
ISPASS 2020); a cycle is a nanosecond there (CLOCK_PERIOD 1). The input gradient of the first row is
never run. So that row is everything else: what it does backward, the optimizer and the method's own
work stand as its weight gradient, which is the last thing of a step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from swatsim.reports.node_times import Node, StepTimes
from swatsim.workload.layer import OPS
from swatsim.workload.phases import OTHER

#: Of everything else.
FIRST = "everything_else"
#: Columns are parted by white space, so no name has any.
_FOREIGN = re.compile(r"[^A-Za-z0-9_.@:/+-]+")


def as_text(step: StepTimes) -> str:
    """Return a workload: times in ns, sizes of weight gradients in bytes.

    Raises
    ------
    ResultsError
        If the machine has no clock, or the bytes of a gradient are not known.
    """
    timed = list(zip(step.nodes, step.times(1000), strict=True))
    layers: dict[str, dict[str, tuple[Node, int]]] = {}
    forward = backward = 0
    for node, time in timed:
        if node.op != OTHER:
            layers.setdefault(node.layer, {})[node.op] = node, time
        elif node.phase == "forward":
            forward += time
        else:
            backward += time
    names = _names(layers)
    rows = [_row(FIRST, forward, 0, backward, 0), *_rows(names, layers.values())]
    return "\n".join(["DATA", str(len(rows)), *rows]) + "\n"


def _rows(names: Iterable[str], layers: Iterable[dict[str, tuple[Node, int]]]) -> Iterator[str]:
    for name, ops in zip(names, layers, strict=True):
        fprop, dgrad, wgrad = (ops[op][1] if op in ops else 0 for op in OPS)
        size = ops["wgrad"][0].gradient_bytes if "wgrad" in ops else 0
        yield _row(name, fprop, dgrad, wgrad, size)


def _row(name: str, fprop: int, dgrad: int, wgrad: int, size: int) -> str:
    """Return a layer's line: the last column delays an update, of which everything else has all."""
    reduced = ("ALLREDUCE", size) if size else ("NONE", 0)
    columns = (name, -1, fprop, "NONE", 0, dgrad, "NONE", 0, wgrad, *reduced, 0)
    return "\t".join(map(str, columns))


def _names(layers: Iterable[str]) -> list[str]:
    """Return layers' names without what would part columns; no two are alike."""
    names = [FIRST]
    for layer in layers:
        name = plain = _FOREIGN.sub("_", layer)
        number = 1
        while name in names:
            number += 1
            name = f"{plain}_{number}"
        names.append(name)
    return names[1:]
