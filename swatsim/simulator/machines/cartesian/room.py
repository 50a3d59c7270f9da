"""What laying out an op takes at least beside its masks, however finely it is cut."""

from __future__ import annotations

from swatsim.simulator.machines.cartesian.channels import ALIKE, Met
from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.simulator.machines.cartesian.mapping import blocks_of, is_of_tokens
from swatsim.workload.layer import Layer, OpName
from swatsim.workload.windows import Axes

#: Bytes of a queued pixel, of a channel at a position of wgrad, and of a pixel along an axis.
QUEUED, BLOCKED, LINED = 26, 9, 36


def room(layer: Layer, name: OpName, config: CartesianConfig) -> int:
    """Return the bytes that a channel's plane takes, or a band of a wgrad's positions.

    A plane is laid out whole, as it is and padded; of its pixels those of a PE are queued, those
    along an axis sorted by what they reach. Of a wgrad's positions a row is laid out, with all that
    its taps meet, of the channels of a round.
    """
    if name == "wgrad":
        return BLOCKED * _band(layer, config)
    height, width = _plane(layer, name, config)
    tile = -(-height // config.pe_h) * -(-width // config.pe_w)
    reach = (layer.R - 1) * layer.dilation[0] + (layer.S - 1) * layer.dilation[1]
    return 2 * height * width + QUEUED * tile + LINED * (height + width + reach)


def _plane(layer: Layer, name: OpName, config: CartesianConfig) -> Axes:
    if layer.kind == "linear" or is_of_tokens(layer):
        return layer.H, layer.W
    if name == "fprop":
        return layer.padded
    sides = zip((layer.H, layer.W), (layer.R, layer.S), layer.stride, layer.dilation, strict=True)
    apart = config.dgrad_lowering == "split"
    height, width = (
        -(-(size + (taps - 1) * dilation) // (stride if apart else 1))
        for size, taps, stride, dilation in sides
    )
    return height, width


def _band(layer: Layer, config: CartesianConfig) -> int:
    """Return the values of the larger operand that one row of positions meets."""
    met = Met.of_layer(layer)
    rows, columns = met.rows, met.columns
    along, across = (columns, rows) if columns.outputs > rows.outputs else (rows, columns)
    pixels = len(along.pixels_of(range(1))) * across.size
    sizes, pes = (layer.C // layer.groups, layer.K // layer.groups), (config.pe_h, config.pe_w)
    rounds = zip(sizes, pes, blocks_of(layer, config), strict=True)
    channels, filters = (min(size, ALIKE * pes * block) for size, pes, block in rounds)
    return max(channels * pixels, filters * across.outputs)
