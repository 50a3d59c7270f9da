"""The border between a training step and machines: an op as they take it.

Layers are of many kinds, machines and the memory system know two: a plain convolution, and a
product of matrices, whose samples are its rows. `lower` is the one place that makes one of the
other; the type checker refuses an `Op` behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, assert_never

from swatsim.errors import WorkloadError
from swatsim.workload import effectual
from swatsim.workload.layer import (
    OPERANDS,
    OPERANDS_OF,
    OUTPUT_OF,
    SECOND_AXIS,
    Channels,
    Layer,
    Operand,
    OpName,
    channels_of,
)
from swatsim.workload.training_ops import MaskedOp, Op
from swatsim.workload.windows import Mask

#: Of a transposed convolution: its ops and operands as those of its adjoint, and the other way.
ADJOINT_OP: Mapping[OpName, OpName] = {"fprop": "dgrad", "dgrad": "fprop", "wgrad": "wgrad"}
ADJOINT_OPERAND: Mapping[Operand, Operand] = {
    "weight": "weight",
    "act": "grad_out",
    "grad_out": "act",
}


@dataclass(frozen=True, eq=False)
class LoweredOp(MaskedOp):
    """An op of a plain convolution or of a product of matrices; formulas as in `Op`.

    Parameters
    ----------
    layer, name, weight, act, grad_out, known
        As of `Op`, of a layer of kind conv or linear. Names and masks are those of what is run: of
        a transposed convolution its adjoint's.
    output
        As of `Op`.
    of_transposed : bool
        Whether the layer is the adjoint of the one that was recorded.
    of_samples : int
        Of a product of activations, whose samples and heads are the groups of one sample here: how
        many samples there are. 0 of any other layer.

    Raises
    ------
    WorkloadError
        As `Op` does; if the layer is none that machines know.
    """

    of_transposed: bool = field(default=False, kw_only=True)
    of_samples: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer.transposed or self.layer.multiplies_activations:
            raise WorkloadError(
                f"{self.title}: machines take no {self.layer.kind}: lower its op first, with "
                "swatsim.lower(op)"
            )

    @property
    def is_matrix_product(self) -> bool:
        """Whether the samples are rows of one matrix: a linear layer's are, images are not."""
        return self.layer.kind == "linear"

    @cached_property
    def macs_effectual(self) -> int:
        """Multiply-accumulates whose two factors are both non-zero, for outputs that are wanted."""
        full = {it for it, mask in self.operands.items() if self.counts[it] == mask.size}
        if self.output is not None:
            return self._effectual_of(self.output, full)
        if len(full) == len(self.operands):
            return effectual.inside(self.layer, self.samples)
        if self.weight is not None and full - {"weight"}:  # images are alike
            alike = {it: mask if it == "weight" else mask[:1] for it, mask in self.operands.items()}
            return self.samples * effectual.effectual(self.layer, self.name, alike)
        return effectual.effectual(self.layer, self.name, self.operands)

    def know_effectual(self, macs: int) -> None:
        """Take `macs_effectual` from somebody who has counted it for an op of these masks."""
        vars(self)["macs_effectual"] = macs  # as the property itself keeps it

    def _effectual_of(self, output: Mask, full: Collection[Operand]) -> int:
        """Return the MACs of outputs that are wanted; of a factor without a zero, as another op's.

        All three ops sum the same products, of which each tensor has a factor.
        """
        three = {**self.operands, OUTPUT_OF[self.name]: output}
        for name, pair in OPERANDS_OF.items():
            if OUTPUT_OF[name] in full:
                masks: dict[str, Any] = {operand: three[operand] for operand in pair}
                return LoweredOp(self.layer, name, **masks).macs_effectual
        return effectual.wanted(self.layer, self.name, self.operands, output)

    @property
    def images(self) -> int:
        """Samples of the recorded layer in the masks."""
        return self.of_samples or self.samples

    @property
    def operands_of_images(self) -> set[Operand]:
        """Operands that each sample has for itself."""
        return {it for it in self.operands if it != "weight" or self.of_samples}

    def with_masks(self, masks: Mapping[Operand, Mask]) -> LoweredOp:
        """Return the same op of other masks."""
        named: dict[str, Any] = {str(operand): mask for operand, mask in masks.items()}
        return replace(self, **named, known={})

    def with_zeros_of(self, operands: Collection[Operand]) -> LoweredOp:
        """Return the same op, no value of any other operand zero; it makes what it makes."""
        if all(operand in operands for operand in self.operands):
            return self
        dense = self.without_zeros()
        kept: dict[str, Any] = {name: getattr(self, name) for name in operands}
        known = {it: (self if it in operands else dense).counts[it] for it in self.operands}
        return replace(dense, **kept, known=known, output=self.output)

    def without_zeros(self) -> LoweredOp:
        """Return the same op of operands without a zero, all of whose outputs are wanted."""
        dense = LoweredOp.dense(self.layer, self.name, self.samples)
        return replace(dense, of_transposed=self.of_transposed, of_samples=self.of_samples)

    def called(self, operand: Operand) -> Operand:
        """Return an operand's name as the recorded layer has it; the same exchange leads back."""
        return ADJOINT_OPERAND[operand] if self.of_transposed else operand

    def channels_of(self, operand: Operand) -> Channels:
        """Return where an operand has its channels, of a weight its layer's input channels."""
        if self.of_samples and operand == "weight":
            return SECOND_AXIS
        kind = "conv_transpose" if self.of_transposed else self.layer.kind
        return channels_of("matmul" if self.of_samples else kind, self.layer.groups, operand)

    @property
    def own_name(self) -> OpName:
        """Which op of the recorded layer it is."""
        return ADJOINT_OP[self.name] if self.of_transposed else self.name

    @property
    def title(self) -> str:
        """Layer and op as recorded, for an error."""
        return f"layer {self.layer.name!r}, {self.own_name}"


def lower(op: Op | LoweredOp) -> LoweredOp:
    """Return an op as machines take it; what is lowered already stays.

    A transposed convolution computes what dgrad of its adjoint convolution does: its op is the
    adjoint's, with the same masks under the adjoint's names. A product of activations is a grouped
    1 x 1 convolution of one sample, whose groups are its samples and heads, and whose positions
    are the rows of its left factor.

    Raises
    ------
    WorkloadError
        If it is no op.
    """
    if isinstance(op, LoweredOp):
        return op
    if not isinstance(op, Op):
        raise WorkloadError(f"{type(op).__name__} is no op: make one with swatsim.Op(layer, ..)")
    match op.layer.kind:
        case "conv" | "linear":
            masks = (op.weight, op.act, op.grad_out)
            return LoweredOp(op.layer, op.name, *masks, output=op.output, known=op.known)
        case "conv_transpose":
            return _of_adjoint(op)
        case "matmul":
            return _of_groups(op)
        case _:
            assert_never(op.layer.kind)


def lowered_shape(layer: Layer, name: OpName) -> tuple[Layer, OpName]:
    """Return layer and name of an op as machines take it, but for the groups of `matmul`."""
    return (layer.adjoint, ADJOINT_OP[name]) if layer.transposed else (layer, name)


def _of_adjoint(op: Op) -> LoweredOp:
    masks: dict[str, Any] = {
        ADJOINT_OPERAND[operand]: mask for operand, mask in op.operands.items()
    }
    known = {ADJOINT_OPERAND[operand]: count for operand, count in op.known.items()}
    name = ADJOINT_OP[op.name]
    own: dict[str, Any] = {"output": op.output, "known": known, "of_transposed": True}
    return LoweredOp(op.layer.adjoint, name, **masks, **own)


def _of_groups(op: Op) -> LoweredOp:
    samples, layer = op.samples, op.layer
    groups = {"C": samples * layer.C, "K": samples * layer.K, "groups": samples * layer.groups}
    one = Layer(name=layer.name, H=layer.H, **groups)
    shapes = {operand: one.shape_of(operand, 1) for operand in OPERANDS}
    masks: dict[str, Any] = {
        operand: mask.reshape(shapes[operand]) for operand, mask in op.operands.items()
    }
    output = None if op.output is None else op.output.reshape(shapes[OUTPUT_OF[op.name]])
    return LoweredOp(one, op.name, **masks, output=output, known=op.known, of_samples=samples)
