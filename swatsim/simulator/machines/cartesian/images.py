"""Which images of an op follow one another: all, but for where banks tell filters apart."""

from __future__ import annotations

from math import gcd

from swatsim.simulator.machines.cartesian.config import CartesianConfig
from swatsim.workload.lowering import LoweredOp

#: A product's bank depends on its filter's index in the layer modulo this.
FILTERS_ALIKE = 8


def by_image(op: LoweredOp, config: CartesianConfig) -> CartesianConfig | None:
    """Return the config if an op's images follow one another, each with the banks that it has.

    Filters of a product of activations are numbered through all images, which are groups.
    """
    return config if _images_alike(op) == 1 else None


def in_rounds(op: LoweredOp, config: CartesianConfig) -> tuple[CartesianConfig, int]:
    """Return the config, and after how many images filters have the same banks again."""
    return config, _images_alike(op)


def _images_alike(op: LoweredOp) -> int:
    if not op.of_samples or op.name == "wgrad":
        return 1
    filters = op.layer.K if op.name == "fprop" else op.layer.C
    return FILTERS_ALIKE // gcd(FILTERS_ALIKE, filters // op.of_samples)
