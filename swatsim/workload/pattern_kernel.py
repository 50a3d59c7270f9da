"""Kernels that count crowded groups: m values in a row of which more than n are not zero.

Masks come as bytes of 0 or 1. A line is looked at in words of 2, 4 or 8 of them, as wide as m
allows: multiplied by 1, 1, .. a word has the sum of its bytes in the highest one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.jit import inner, jit

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
#: Of uint8, uint16, uint32 or uint64.
Words = npt.NDArray[Any]


class Axis(NamedTuple):
    """Where windows lie on an axis of data: tap t of output i at i*stride + t*dilation + origin."""

    taps: int
    stride: int
    dilation: int
    origin: int
    outputs: int


def line_of(length: int, m: int) -> Bytes:
    """Return room for a line of zeros: whole groups of m."""
    return np.zeros(-(-length // m) * m, np.uint8)


@inner
def crowded(line: Bytes, n: int, m: int) -> int:
    """Count the crowded groups of a line, in words as wide as m allows.

    The width is chosen here, and not by the type of the line: what calls this is compiled once.
    """
    if m % 8 == 0:
        return _crowded_words(line.view(np.uint64), n, m // 8)
    if m % 4 == 0:
        return _crowded_words(line.view(np.uint32), n, m // 4)
    if m % 2 == 0:
        return _crowded_words(line.view(np.uint16), n, m // 2)
    return _crowded_words(line, n, m)


@inner
def _crowded_words(line: Words, n: int, words: int) -> int:
    """Count the crowded groups of so many words each."""
    shift = np.uint64(8 * (line.itemsize - 1))
    ones, found = np.uint64(0x0101010101010101) >> (np.uint64(56) - shift), 0
    if words == 1:
        for word in line:
            found += int((((word * ones) >> shift) & np.uint64(255)) > np.uint64(n))
        return found
    for first in range(0, line.size, words):
        held = np.uint64(0)
        for i in range(first, first + words):
            held += ((line[i] * ones) >> shift) & np.uint64(255)
        found += int(held > np.uint64(n))
    return found


@jit
def crowded_lines(lines: Bytes, line: Bytes, n: int, m: int) -> int:
    """Count the crowded groups of lines, (lines, length); `line` is what `line_of` gives."""
    found = 0
    for i in range(len(lines)):
        line[: lines.shape[1]] = lines[i]
        found += crowded(line, n, m)
    return found


@jit
def crowded_places(data: Bytes, held: Words, n: int, m: int) -> Counts:
    """Count, at each place, the crowded groups of m of the channels, of all samples.

    Parameters
    ----------
    data : (samples, channels, places)
        m divides the channels.
    held : (places,)
        Room, of a type that counts to m.
    """
    found = np.zeros(data.shape[2], np.int64)
    for sample in range(data.shape[0]):
        for first in range(0, data.shape[1], m):
            held[:] = 0
            for channel in range(first, first + m):
                held += data[sample, channel]
            for place in range(data.shape[2]):
                found[place] += held[place] > n
    return found


@jit
def crowded_windows(
    data: Bytes, rows: Axis, columns: Axis, groups: int, line: Bytes, n: int, m: int
) -> int:
    """Count the crowded groups of windows: lines of taps, and of a group's channels within.

    Parameters
    ----------
    data : (samples, H, W, channels)
    rows, columns : Axis
    groups : int
        Into which the channels fall; a window has a line for each.
    line : numpy.ndarray of uint8
        What `line_of` gives for a window's line.
    """
    samples, height, width, channels = data.shape
    each, found = channels // groups, 0
    for sample, p, q, group in np.ndindex((samples, rows.outputs, columns.outputs, groups)):
        at, first = 0, group * each
        for r in range(rows.taps):
            h = p * rows.stride + r * rows.dilation + rows.origin
            for s in range(columns.taps):
                v = q * columns.stride + s * columns.dilation + columns.origin
                inside = 0 <= h < height and 0 <= v < width
                for c in range(first, first + each):
                    line[at] = inside and data[sample, h, v, c]
                    at += 1
        found += crowded(line, n, m)
    return found


@jit
def crowded_positions(
    data: Bytes, rows: Counts, columns: Counts, output: tuple[int, int], line: Bytes, n: int, m: int
) -> int:
    """Count the crowded groups of lines of positions, one for each channel and tap.

    Parameters
    ----------
    data : (samples, channels, H, W)
        Of stride 1, contiguous.
    rows, columns : (taps,)
        What a tap meets of output (p, q) lies at (p + rows[r], q + columns[s]).
    output : (P, Q)
    line : numpy.ndarray of uint8
        What `line_of` gives for samples, P, Q in a line.
    """
    samples, channels, height, width = data.shape
    planes = data.reshape(samples, channels, height * width)
    size, found = output[0] * output[1], 0
    for r, s in np.ndindex((len(rows), len(columns))):
        line[:] = 0
        down, right = int(rows[r]), int(columns[s])
        first_p, end_p = max(0, -down), min(output[0], height - down)
        first_q, end_q = max(0, -right), min(output[1], width - right)
        if first_p >= end_p or first_q >= end_q:
            continue
        inside = np.zeros(size, np.uint8)
        for p in range(first_p, end_p):
            inside[p * output[1] + first_q : p * output[1] + end_q] = 1
        for channel in range(channels):
            for sample in range(samples):
                at, plane = line[sample * size : (sample + 1) * size], planes[sample, channel]
                if width == output[1]:
                    first, end = first_p * width + first_q, (end_p - 1) * width + end_q
                    _copy_run(plane, down * width + right, at, first, end, inside)
                    continue
                for p in range(first_p, end_p):
                    first, end = p * output[1] + first_q, p * output[1] + end_q
                    shift = (p + down) * width + right - p * output[1]
                    _copy_run(plane, shift, at, first, end, inside)
            found += crowded(line, n, m)
    return found


@inner
def _copy_run(plane: Bytes, shift: int, at: Bytes, first: int, end: int, inside: Bytes) -> None:
    read, written, kept = plane[first + shift : end + shift], at[first:end], inside[first:end]
    for i in range(written.size):
        written[i] = read[i] & kept[i]
