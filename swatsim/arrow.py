"""Cells of Arrow's arrays as NumPy has them, and single values as Arrow has them.

Arrow's own ways to both load pandas where it is installed, which takes longer than a small
simulation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def numbers(cells: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Return numbers in the array's own type, one a cell; none of them is empty."""
    import pyarrow as pa

    if isinstance(cells, pa.ChunkedArray):
        parts = [numbers(chunk) for chunk in cells.chunks]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, _kind(cells)), *parts])
    if not len(cells):
        return np.empty(0, _kind(cells))
    every = np.frombuffer(cells.buffers()[1], _kind(cells))
    return every[cells.offset : cells.offset + len(cells)]


def flags(cells: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Return booleans, one a cell; none of them is empty."""
    return numbers(cells.cast("uint8")).view(np.bool_)


def filled(cells: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, Any]:
    """Return numbers, one a cell, and 0 for those that are empty."""
    return numbers(cells.fill_null(scalar(0).cast(cells.type)) if cells.null_count else cells)


def scalar(value: str | float) -> pa.Scalar[Any]:
    """Return a text, a whole number or a float as Arrow has it."""
    import pyarrow as pa

    if isinstance(value, str):
        text = value.encode()
        parts: list[Any] = [np.array([0, len(text)], np.int32), text]
        return pa.Array.from_buffers(pa.string(), 1, [None, *map(pa.py_buffer, parts)])[0]
    one = np.array([value])
    kind = pa.type_for_alias(str(one.dtype))
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(one)])[0]


def _kind(cells: pa.Array | pa.ChunkedArray) -> np.dtype[Any]:
    return np.dtype(str(cells.type))  # Arrow's "double" is NumPy's too
