"""A step as a Chakra execution trace: a chain of nodes that compute, and gradients all-reduced.

Source: MLCommons Chakra, schema/protobuf/et_def.proto: a file is a GlobalMetadata and its Nodes,
each with its length before it. Times are whole microseconds there; a node's cycles are an attribute
of it, and are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from swatsim.reports.node_times import Node, StepTimes
from swatsim.reports.protobuf import delimited, message, number, packed, text

#: NodeType and CollectiveCommType.
COMP_NODE, COMM_COLL_NODE = 4, 7
ALL_REDUCE = 0
#: Fields of GlobalMetadata and of Node.
_METADATA_ATTR = 2
_ID, _NAME, _TYPE, _DATA_DEPS, _START, _DURATION, _ATTR = 1, 2, 3, 5, 6, 7, 10
#: Fields of AttributeProto: its name, and its value by type.
_ATTR_NAME, _INT64, _UINT64, _BOOL, _STRING = 1, 9, 17, 27, 29


def as_trace(step: StepTimes, npus: int, about: Mapping[str, str]) -> bytes:
    """Return the execution trace of one NPU: all have the same.

    Parameters
    ----------
    step : StepTimes
    npus : int
        Data-parallel replicas: of one, no gradient is all-reduced.
    about : mapping of str to str
        What the trace's metadata say of it.

    Raises
    ------
    ResultsError
        If the machine has no clock, or the bytes of a gradient are not known.
    """
    metadata = b"".join(
        message(_METADATA_ATTR, _attribute(name, text(_STRING, value)))
        for name, value in about.items()
    )
    return b"".join(map(delimited, (metadata, *_nodes(step, npus))))


def _nodes(step: StepTimes, npus: int) -> Iterator[bytes]:
    """Yield all nodes; who updates weights waits for gradients to be reduced."""
    start, last, reduced, id_ = 0, list[int](), list[int](), 0
    for node, duration in zip(step.nodes, step.times(1), strict=True):
        waits = [*last, *(reduced if node.phase == "optimizer" else [])]
        yield _compute(id_, node, waits, start, duration)
        start, last, id_ = start + duration, [id_], id_ + 1
        if npus > 1 and node.gradient:
            yield _all_reduce(id_, node, last)
            reduced, id_ = [*reduced, id_], id_ + 1


def _compute(id_: int, node: Node, waits: list[int], start: int, duration: int) -> bytes:
    attributes = {
        "is_cpu_op": number(_BOOL, 0),
        "cycles": number(_UINT64, node.cycles),
        "dram_bytes": number(_UINT64, node.dram_bytes),
        "op": text(_STRING, node.op),
        "phase": text(_STRING, node.phase),
    }
    timed = number(_START, start) + number(_DURATION, duration)
    return _node(id_, node.name, COMP_NODE, waits, timed, attributes)


def _all_reduce(id_: int, node: Node, waits: list[int]) -> bytes:
    attributes = {
        "is_cpu_op": number(_BOOL, 0),
        "comm_type": number(_INT64, ALL_REDUCE),
        "comm_size": number(_INT64, node.gradient_bytes),
    }
    return _node(id_, f"{node.layer} all-reduce", COMM_COLL_NODE, waits, b"", attributes)


def _node(
    id_: int, name: str, kind: int, waits: list[int], timed: bytes, attributes: Mapping[str, bytes]
) -> bytes:
    head = number(_ID, id_) + text(_NAME, name) + number(_TYPE, kind)
    said = (message(_ATTR, _attribute(key, value)) for key, value in attributes.items())
    return b"".join((head, packed(_DATA_DEPS, waits), timed, *said))


def _attribute(name: str, value: bytes) -> bytes:
    return text(_ATTR_NAME, name) + value
