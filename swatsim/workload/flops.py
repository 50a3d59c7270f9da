"""MACs and FLOPs: of an op by counting, of a network under a policy by its densities.

No machine is involved. Dense MACs follow one of two conventions; in both, products with padding
count, as published layer tables count them, and Top-K itself is free.

- `exact`: dgrad is counted over the gradients that exist, samples * K*C/groups*R*S * P*Q like the
  other ops, and the network's first layer has none.
  Of a weight gradient of which a method wants a share, that share is counted.
- `swat`: dgrad is counted as a convolution at input resolution over zero-stuffed gradients,
  samples * K*C/groups*R*S * H*W, that of the first layer included. It is what gives the FLOP
  reductions that SWAT published (arXiv:2001.01969). Weight gradients are counted whole.

A product of two activations counts alike under both conventions: for each sample and head, rows
of left times columns of right times what is summed over.

A transposed convolution applies its kernel at H*W places, in all three ops: the same count under
both conventions, for it is its fprop, and not its dgrad, that could stuff zeros. Products whose
sums are cut off as padding count in the same way.

Effectual MACs have two non-zero operands; products with padding are not effectual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Literal, get_args

from swatsim.errors import WorkloadError, unknown
from swatsim.workload import effectual
from swatsim.workload.layer import OPERANDS_OF, OPS, OUTPUT_OF, Layer, Operand, OpName
from swatsim.workload.lowering import LoweredOp, lower
from swatsim.workload.tables import Network
from swatsim.workload.training_ops import Op

Convention = Literal["exact", "swat"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

#: (layer name, op, operand) -> the share of the operand's values that survives, in (0, 1]; of what
#: the op makes the share that is wanted. None and what is missing count as dense: natural zeros are
#: nobody's merit.
DensityTable = Mapping[tuple[str, OpName, Operand], Fraction | float | None]


def macs_dense(
    layer: Layer, samples: int, op: OpName = "fprop", convention: Convention = "exact"
) -> int:
    """Return the MACs of one of the layer's ops with dense operands.

    Under `exact` all three ops have the same count. Whether the layer has a dgrad at all is the
    network's affair: see `training_macs`.

    Raises
    ------
    WorkloadError
        If there is no such op or convention.
    """
    if op not in OPS:
        raise WorkloadError(unknown("op", op, OPS))
    if convention not in CONVENTIONS:
        raise WorkloadError(unknown("convention", convention, CONVENTIONS))
    zero_stuffed = op == "dgrad" and convention == "swat"
    positions = layer.H * layer.W if zero_stuffed else layer.positions
    return samples * layer.weights * positions


def macs_unpadded(layer: Layer, samples: int) -> int:
    """Return the MACs of any op of the layer with dense operands, without products with padding.

    So many are effectual where no value is zero. Of a transposed convolution the products whose
    sums are cut off are left out.
    """
    return effectual.inside(layer.adjoint if layer.transposed else layer, samples)


def macs_expected(
    layer: Layer,
    samples: int,
    op: OpName,
    densities: DensityTable,
    convention: Convention = "exact",
) -> float:
    """Return the MACs that operands of given densities leave of an op, their zeros independent.

    Under `exact` of what is wanted of its output, under `swat` of all of it.
    """
    share = 1.0
    made = (OUTPUT_OF[op],) if convention == "exact" else ()
    for operand in (*OPERANDS_OF[op], *made):
        density = densities.get((layer.name, op, operand))
        share *= 1.0 if density is None else float(density)
    return macs_dense(layer, samples, op, convention) * share


def training_macs(
    layers: Network | Sequence[Layer],
    samples: int,
    densities: DensityTable | None = None,
    convention: Convention = "exact",
) -> float:
    """Return the MACs of a training step of a network, dense if no densities are given.

    Parameters
    ----------
    layers : Network, or sequence of Layer in the order in which they run
        Under `exact` the first one has no dgrad, unless it reads an embedding.
    samples : int
    densities : mapping, optional
        As `swatsim.policies.site_densities` gives them for a policy.
    convention : {"exact", "swat"}
    """
    given = densities or {}
    return sum(
        macs_expected(layer, samples, op, given, convention)
        for layer, op in _training_ops(layers, convention)
    )


def training_reduction(
    layers: Sequence[Layer], densities: DensityTable, convention: Convention = "exact"
) -> float:
    """Return by how many percent densities reduce the MACs (and FLOPs) of a training step.

    Raises
    ------
    WorkloadError
        If there are no layers.
    """
    dense = training_macs(_some(layers), 1, None, convention)
    return 100 * (1 - training_macs(layers, 1, densities, convention) / dense)


def inference_reduction(layers: Sequence[Layer], densities: DensityTable) -> float:
    """Return by how many percent densities reduce the MACs of fprop, in either convention.

    Raises
    ------
    WorkloadError
        If there are no layers.
    """
    dense = sum(macs_dense(layer, 1) for layer in _some(layers))
    return 100 * (1 - sum(macs_expected(layer, 1, "fprop", densities) for layer in layers) / dense)


def _training_ops(
    layers: Network | Sequence[Layer], convention: Convention
) -> Iterator[tuple[Layer, OpName]]:
    whole = convention == "swat" or (isinstance(layers, Network) and layers.embedded)
    listed = layers.layers if isinstance(layers, Network) else layers
    for index, layer in enumerate(listed):
        for op in OPS:
            if whole or (index, op) != (0, "dgrad"):
                yield layer, op


def _some(layers: Sequence[Layer]) -> Sequence[Layer]:
    if not layers:
        raise WorkloadError("there are no layers to count: pass those of a network")
    return layers


def macs_effectual(op: Op | LoweredOp) -> int:
    """Return the MACs of an op whose two operands are both non-zero."""
    return lower(op).macs_effectual
