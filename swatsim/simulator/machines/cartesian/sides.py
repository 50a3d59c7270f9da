"""An axis of a plane: which outputs its pixels reach, and which pixels are alike."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.simulator.machines.cartesian.kernel_banks import Axis
from swatsim.simulator.machines.cartesian.kernel_patterns import Counts

Reached = npt.NDArray[np.int32]

#: Taps of pixels that are laid out at once, to see which of these are alike (some MiB).
MOST_MET = 2**20


class Side(NamedTuple):
    """One axis of a convolution: so many pixels, taps and outputs."""

    size: int
    taps: int
    stride: int
    dilation: int
    outputs: int

    @property
    def reach(self) -> int:
        """From the first tap to the last."""
        return (self.taps - 1) * self.dilation

    def reached(self) -> Reached:
        """Return the outputs that pixels reach through taps; -1: none.

        It depends on how far a pixel is behind a tap: element i is of i - `reach`. Shape
        (size + reach,): a table of pixels and taps is too large for long kernels.
        """
        found = np.full(self.size + self.reach, -1, np.int32)
        some = found[self.reach :: self.stride][: self.outputs]
        some[:] = np.arange(len(some))
        return found

    @lru_cache(maxsize=1024)  # noqa: B019  (a tuple of numbers: a step's layers share few)
    def axis(self, pes: int, apart: bool) -> Axis:
        """Return the pixels in classes that meet the same taps in the same way.

        `apart`: each is a class of its own, as where not all outputs are wanted.
        """
        bits = self.reached().astype(np.int64)
        np.bitwise_and(bits, 3, out=bits, where=bits >= 0)
        first = classes = np.arange(self.size)
        if not apart:
            alike = self._alike()
            some = np.flatnonzero(alike == first)
            of_some = self._classes(some, bits)
            classes = of_some[np.searchsorted(some, alike)]
            first = some[np.unique(of_some, return_index=True)[1]]
        return Axis(
            stride=self.stride,
            tile=-(-self.size // pes),
            dilation=self.dilation,
            pixel_class=classes,
            place=first + self.reach,
            output_bits=bits,
            tap_phase=np.arange(self.taps) * self.dilation % self.stride,
        )

    def _alike(self) -> Counts:
        """Return, of each pixel, the first one that reaches as many outputs in the same way.

        All taps of those far from both ends lead to outputs, or to none: the last two bits of these
        recur.
        """
        alike = np.arange(self.size)
        inside = alike[self.reach : max(self.reach, (self.outputs - 1) * self.stride + 1)]
        inside -= self.reach  # in place: of a long line each copy counts
        inside %= 4 * self.stride
        inside += self.reach
        return alike

    def _classes(self, pixels: Counts, bits: Counts) -> Counts:
        """Return the class of some pixels, numbered as they first come up."""
        taps, at_once = np.arange(self.taps) * self.dilation, max(1, MOST_MET // self.taps)
        known: dict[bytes, int] = {}
        classes, small = np.empty(len(pixels), np.int64), bits.astype(np.int8)
        for begin in range(0, len(pixels), at_once):
            some = pixels[begin : begin + at_once, None] + self.reach - taps
            for i, met in enumerate(small[some], begin):
                digest = blake2b(met.tobytes(), digest_size=16).digest()
                classes[i] = known.setdefault(digest, len(known))
        return classes


def bits_by_tap(axis: Axis) -> Counts:
    """Return the last two bits of the outputs that each class reaches; shape (taps, classes)."""
    taps = np.arange(axis.tap_phase.size)[:, None]
    bits: Counts = axis.output_bits[axis.place - taps * axis.dilation]
    return bits
