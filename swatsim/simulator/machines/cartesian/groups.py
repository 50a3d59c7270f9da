"""One group's convolution of fprop or dgrad, laid out whole or some of it at a time.

Speaks convolution letters, and the machine's: X, Y the padded planar operand, x along H. Samples
and chunks of filters follow one another, and so do the channels of both: what pieces take adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from swatsim.simulator.machines.cartesian.channels import cut
from swatsim.simulator.machines.cartesian.kernel_banks import Array, Axis
from swatsim.simulator.machines.cartesian.kernel_wanted import Wanted
from swatsim.simulator.machines.cartesian.sides import Reached
from swatsim.simulator.machines.cartesian.wanted import on_plane, wanted_outputs
from swatsim.workload.convolutions import Convolution
from swatsim.workload.windows import Axes, Mask, channels_first

#: A linear layer's channels are seen as images of this side: one application of a kernel as large.
LINEAR_SIDE = 16

#: Pixels of a channel that are queued at a time, or those of one PE: the kernel's queues take 26
#: bytes of each (104 MiB). So many are in the samples of a block, too, or it is one sample.
MOST_PIXELS = 2**22
#: Values of an operand that are laid out at a time (16 MiB), or of one channel and chunk.
MOST_VALUES = 2**24


@dataclass(frozen=True, eq=False)
class Planar:
    """One group's convolution, or a piece of it, its planar operand padded.

    Parameters
    ----------
    data : numpy.ndarray of bool, shape (C, N, X, Y)
    weight : numpy.ndarray of bool, shape (C, K, R, S)
    first_k : int
        Index of the first filter in the layer.
    rows, columns : Axis
    array : Array
    halo : int
        Cycles for each filter of a chunk, after its last channel.
    wanted : Wanted, optional
        Which outputs somebody wants; by default all.
    """

    data: Mask
    weight: Mask
    first_k: int
    rows: Axis
    columns: Axis
    array: Array
    halo: int
    wanted: Wanted | None = None


@dataclass(frozen=True, eq=False)
class Layout:
    """How an op's planar operand and its weights come to lie.

    Parameters
    ----------
    of_data, of_weight : callable of numpy.ndarray of bool to the same
        Of some samples or filters, and some channels: (N, C, X, Y), a new one, and (K, C, R, S).
    joined : int
        The layer's channels that are one here.
    taps : pair of int
        R and S.
    exists : numpy.ndarray of bool, shape (X, Y)
        Which pixels there are: all, but where positions fill no plane.
    """

    of_data: Callable[[Mask], Mask]
    of_weight: Callable[[Mask], Mask]
    joined: int
    taps: Axes
    exists: Mask


def padded(conv: Convolution, size: Axes) -> Layout:
    """Return the layout of images on a plane of some size, zeros around them."""

    def of_data(data: Mask) -> Mask:
        samples, channels, *sides = data.shape
        laid = np.zeros((channels, samples, *size), np.bool_)  # as kernels read it
        inside, read = zip(*map(_overlap, conv.origin, sides, size), strict=True)
        laid[:, :, *inside] = data.swapaxes(0, 1)[:, :, *read]
        return laid.swapaxes(0, 1)

    taps = conv.weight.shape[2], conv.weight.shape[3]
    return Layout(of_data, lambda weight: weight, 1, taps, np.broadcast_to(np.True_, size))


def _overlap(start: int, size: int, length: int) -> tuple[slice, slice]:
    """Return where an axis lies in `length` positions from `start` on, and which part of it."""
    first = max(0, -start)
    inside = max(0, min(length, size - start) - first)
    return slice(first, first + inside), slice(first + start, first + start + inside)


def of_channels() -> Layout:
    """Return the layout of a linear layer: channel 256 * block + 16 * x + y is pixel (x, y)."""
    plane = LINEAR_SIDE, LINEAR_SIDE
    exists = np.ones(plane, np.bool_)
    return Layout(_fold_channels, _fold_channels, LINEAR_SIDE**2, plane, exists)


def _fold_channels(mask: Mask) -> Mask:
    n, channels = mask.shape[:2]
    area = LINEAR_SIDE**2
    blocks = -(-channels // area)
    filled = np.zeros((n, blocks * area), np.bool_)
    filled[:, :channels] = mask.reshape(n, channels)
    return filled.reshape(n, blocks, LINEAR_SIDE, LINEAR_SIDE)


def on_a_plane(positions: int, plane: Axes) -> Layout:
    """Return the layout of positions without neighbours on a plane, which they need not fill."""
    exists = (np.arange(plane[0] * plane[1]) < positions).reshape(plane)
    lay = partial(on_plane, plane=plane)
    return Layout(lay, lambda weight: weight, 1, (1, 1), exists)


@dataclass(frozen=True, eq=False)
class Group:
    """One group's convolution.

    Parameters
    ----------
    conv : Convolution
        Of all groups.
    number : int
    layout : Layout
    rows, columns, array, halo
        As of `Planar`.
    output : pair of int
        The plane of outputs; more than there are, where positions fill no plane.
    reached : pair of numpy.ndarray of int32, optional
        Where not all outputs are wanted, those that pixels reach through taps, of each axis.
    """

    conv: Convolution
    number: int
    layout: Layout
    rows: Axis
    columns: Axis
    array: Array
    halo: int
    output: Axes
    reached: tuple[Reached, Reached] | None

    @property
    def samples(self) -> int:
        """Samples, N."""
        return self.conv.samples

    @property
    def filters(self) -> int:
        """Filters of the group."""
        return len(self.conv.weight) // self.conv.groups

    @property
    def channels(self) -> int:
        """Channels of the group, as they are laid out."""
        channels: int = self.conv.weight.shape[1]
        return -(-channels // self.layout.joined)

    @property
    def first_k(self) -> int:
        """Index of its first filter in the layer."""
        return self.number * self.filters

    @property
    def outputs(self) -> int:
        """Elements of one filter's output plane."""
        exists = self.layout.exists
        missing = exists.size - int(np.count_nonzero(exists))
        return self.output[0] * self.output[1] - missing

    @property
    def halo_cycles(self) -> int:
        """Halo of all samples, and of the chunks of filters that have a wanted output of them."""
        if self.conv.wanted is None:
            return self.halo * self.filters * self.samples
        own = slice(self.first_k, self.first_k + self.filters)
        first = np.arange(0, self.filters, self.array.chunk)
        sizes = np.minimum(self.filters - first, self.array.chunk)
        run = 0
        for outputs in self.conv.wanted[:, own]:
            chunks = np.logical_or.reduceat(outputs.any(axis=(1, 2)), first)
            run += int(sizes[chunks].sum())
        return self.halo * run

    @property
    def products_valid(self) -> int:
        """Products that fall into the output plane, if no value is zero."""
        taps = self.layout.taps[0] * self.layout.taps[1]
        return self.outputs * self.samples * self.filters * self.channels * taps

    def whole(self) -> Planar:
        """Return all of it."""
        return self.part(*map(range, (self.samples, self.filters, self.channels)))

    def blocks(self, filters: range | None = None) -> Iterator[Iterator[Planar]]:
        """Yield blocks of samples and chunks of filters, each as pieces of channels in order."""
        filters = range(self.filters) if filters is None else filters
        pixels, taps = self.layout.exists.size, self.layout.taps[0] * self.layout.taps[1]
        together = min(self.samples, max(1, MOST_PIXELS // pixels))
        outputs = 0 if self.conv.wanted is None else together * self.output[0] * self.output[1]
        chunks = max(1, MOST_VALUES // max(taps, outputs) // self.array.chunk)
        at_once = min(len(filters), chunks * self.array.chunk)
        depth = max(1, MOST_VALUES // max(together * pixels, at_once * taps))
        for n in cut(range(self.samples), together):
            for k in cut(filters, at_once):
                yield (self.part(n, k, c) for c in cut(range(self.channels), depth))

    def part(self, samples: range, filters: range, channels: range) -> Planar:
        """Return some samples, some whole chunks of filters, and some channels."""
        conv, depth = self.conv, self.conv.weight.shape[1]
        first, end = channels.start * self.layout.joined, channels.stop * self.layout.joined
        before, end = self.number * depth, min(end, depth)
        data = conv.data(slice(samples.start, samples.stop), slice(before + first, before + end))
        weight = conv.weight[self.first_k + filters.start : self.first_k + filters.stop, first:end]
        return Planar(
            data=np.ascontiguousarray(self.layout.of_data(data).swapaxes(0, 1)),
            weight=channels_first(self.layout.of_weight(weight)),
            first_k=self.first_k + filters.start,
            rows=self.rows,
            columns=self.columns,
            array=self.array,
            halo=self.halo,
            wanted=self._wanted(samples, filters),
        )

    def _wanted(self, samples: range, filters: range) -> Wanted | None:
        if self.conv.wanted is None or self.reached is None:
            return None
        own = self.conv.wanted[samples.start : samples.stop]
        own = own[:, self.first_k + filters.start : self.first_k + filters.stop]
        return wanted_outputs(own, self.output, self.reached, self.array.chunk)


def pes_at_once(pixels: int) -> int:
    """Return of how many PEs, of so many pixels, the pixels are queued at a time."""
    return max(1, MOST_PIXELS // pixels)
