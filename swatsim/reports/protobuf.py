"""Messages as protobuf has them on the wire: no more of it than Chakra's nodes need.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from swatsim.errors import ResultsError

VARINT, LENGTH = 0, 2


def varint(value: int) -> bytes:
    """Return a whole number from 0 to 2**64 - 1, seven bits a byte, the lowest first.

    Raises
    ------
    ResultsError
        If it has more bits: who reads it would take the lowest 64 for all.
    """
    if value >= 2**64:
        raise ResultsError(
            f"{value} does not fit into the 64 bits of a number there: export latencies, "
            "which have any"
        )
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def number(field: int, value: int) -> bytes:
    """Return a field that holds an unsigned number, an enum's or a bool: zero is written too."""
    return varint(field << 3 | VARINT) + varint(value)


def message(field: int, content: bytes) -> bytes:
    """Return a field that holds bytes: those of another message, for example."""
    return varint(field << 3 | LENGTH) + varint(len(content)) + content


def text(field: int, value: str) -> bytes:
    """Return a field that holds text."""
    return message(field, value.encode(errors="replace"))


def packed(field: int, values: list[int]) -> bytes:
    """Return a repeated field of unsigned numbers; of none, nothing."""
    return message(field, b"".join(map(varint, values))) if values else b""


def delimited(content: bytes) -> bytes:
    """Return a message in a file of several: its length comes first."""
    return varint(len(content)) + content
