"""An axis of a plane: which outputs its pixels reach, and which pixels are alike."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from swatsim.simulator.machines.cartesian.kernel_banks import Axis

Reached = npt.NDArray[np.int32]


class Side(NamedTuple):
    """One axis of a convolution: so many pixels, taps and outputs."""

    size: int
    taps: int
    stride: int
    dilation: int
    outputs: int

    def reached(self, pixels: npt.NDArray[np.int64] | None = None) -> Reached:
        """Return the outputs that pixels, by default all, reach through each tap; -1: none.

        Shape (X, R).
        """
        some = np.arange(self.size) if pixels is None else pixels
        found = np.empty((len(some), self.taps), np.int32)
        for tap in range(self.taps):
            output, rest = np.divmod(some - tap * self.dilation, self.stride)
            valid = (rest == 0) & (output >= 0) & (output < self.outputs)
            found[:, tap] = np.where(valid, output, -1)
        return found

    @lru_cache(maxsize=1024)  # noqa: B019  (a tuple of numbers: a step's layers share few)
    def axis(self, pes: int, apart: bool) -> Axis:
        """Return the pixels in classes that meet the same taps in the same way.

        `apart`: each is a class of its own, as where not all outputs are wanted.
        """
        classes = np.arange(self.size)
        if apart:
            bits = self._bits(classes)
        else:
            alike = self._alike()
            some, at = np.unique(alike, return_inverse=True)
            bits, of_some = np.unique(self._bits(some), axis=0, return_inverse=True)
            classes = of_some.reshape(-1)[at.reshape(-1)]
        return Axis(
            stride=self.stride,
            tile=-(-self.size // pes),
            pixel_class=classes.astype(np.int64),
            output_bits=np.ascontiguousarray(bits, np.int64),
            tap_phase=np.arange(self.taps) * self.dilation % self.stride,
        )

    def _alike(self) -> npt.NDArray[np.int64]:
        """Return, of each pixel, the first one that reaches as many outputs in the same way.

        All taps of those far from both ends lead to outputs, or to none: the last two bits of these
        recur.
        """
        first, end = (self.taps - 1) * self.dilation, (self.outputs - 1) * self.stride + 1
        pixels, recur = np.arange(self.size), 4 * self.stride
        inside = (pixels >= first) & (pixels < end)
        return np.where(inside, first + (pixels - first) % recur, pixels)

    def _bits(self, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        output = self.reached(pixels)
        return np.where(output >= 0, output & 3, -1).astype(np.int8)
