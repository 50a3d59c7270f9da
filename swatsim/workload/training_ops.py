"""A layer's training step as three ops: fprop, dgrad, wgrad, each with its own masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from swatsim.errors import WorkloadError, unknown
from swatsim.workload.layer import (
    OPERANDS,
    OPERANDS_OF,
    OPS,
    Channels,
    Layer,
    Operand,
    OpName,
    channels_of,
)

Mask = npt.NDArray[np.bool_]

#: Of a transposed convolution: its ops and operands as those of its adjoint, and the other way.
ADJOINT_OP: Mapping[OpName, OpName] = {"fprop": "dgrad", "dgrad": "fprop", "wgrad": "wgrad"}
ADJOINT_OPERAND: Mapping[Operand, Operand] = {
    "weight": "weight",
    "act": "grad_out",
    "grad_out": "act",
}


@dataclass(frozen=True, eq=False)
class Op:
    """One op of one layer's training step, with the masks of the two operands that it reads.

    With n the sample, k the filter, c the input channel (of k's group)::

        fprop  y[n,k,p,q]  = sum over c,r,s of w[k,c,r,s] * x[n,c,h,v]
        dgrad  dx[n,c,h,v] = sum over k,r,s of w[k,c,r,s] * dy[n,k,p,q]
        wgrad  dw[k,c,r,s] = sum over n,p,q of x[n,c,h,v] * dy[n,k,p,q]

        where h = p*stride + r*dilation - padding, v = q*stride + s*dilation - padding

    A transposed convolution's ops are those of its adjoint convolution (`as_convolution`), act and
    grad_out exchanged, and fprop and dgrad::

        fprop  y[n,k,p,q]  = sum over c,r,s of w[c,k,r,s] * x[n,c,h,v]
        dgrad  dx[n,c,h,v] = sum over k,r,s of w[c,k,r,s] * dy[n,k,p,q]
        wgrad  dw[c,k,r,s] = sum over n,h,v of x[n,c,h,v] * dy[n,k,p,q]

        where p = h*stride + r*dilation - padding, q = v*stride + s*dilation - padding

    Parameters
    ----------
    layer : Layer
    name : {"fprop", "dgrad", "wgrad"}
    weight, act, grad_out : numpy.ndarray of bool, or None
        True where the value is not zero. Exactly the two that the op reads are given (fprop:
        weight and act; dgrad: weight and grad_out; wgrad: act and grad_out), in the shapes of
        `Layer.shape_of`. They are kept as read-only views.

    Raises
    ------
    WorkloadError
        If a mask is missing, superfluous, not boolean, or not of its layer's shape.
    """

    layer: Layer
    name: OpName
    weight: Mask | None = None
    act: Mask | None = None
    grad_out: Mask | None = None
    #: Whether the layer is the adjoint of a transposed convolution: set by `as_convolution` alone.
    of_transposed: bool = field(default=False, init=False)
    #: What was counted of the op already.
    _counted: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    #: Made once: it remembers counts too.
    _adjoint: Op | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.layer, Layer):
            raise WorkloadError(
                f"{type(self.layer).__name__} is no layer: make one with swatsim.Layer(name=.., ..)"
            )
        if not isinstance(self.name, str) or self.name not in OPS:
            raise WorkloadError(unknown("op", str(self.name), OPS))
        for operand in OPERANDS:
            self._check_presence(operand)
        for operand in OPERANDS_OF[self.name]:
            self._check_type(operand)
        for operand in OPERANDS_OF[self.name]:
            object.__setattr__(self, operand, self._checked(operand))

    def _check_presence(self, operand: Operand) -> None:
        reads = operand in OPERANDS_OF[self.name]
        if reads != (getattr(self, operand) is not None):
            verb = "needs the mask of" if reads else "does not read"
            raise WorkloadError(
                f"layer {self.layer.name!r}: {self.name} {verb} {operand}; it reads "
                f"{' and '.join(OPERANDS_OF[self.name])}"
            )

    def _check_type(self, operand: Operand) -> None:
        mask = getattr(self, operand)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            got = getattr(mask, "dtype", type(mask).__name__)
            raise WorkloadError(
                f"layer {self.layer.name!r}: {operand} mask is {got}, expected a numpy array of "
                "bool: pass `values != 0`"
            )

    def _checked(self, operand: Operand) -> Mask:
        mask: Mask = getattr(self, operand)
        self.layer.check_shape(operand, mask.shape, self.samples)
        view = mask.view()
        view.flags.writeable = False
        return view

    @property
    def samples(self) -> int:
        """Samples in the masks, N."""
        batched = self.act if self.act is not None else self.grad_out
        if batched is None or not batched.ndim or not len(batched):
            raise WorkloadError(f"layer {self.layer.name!r}: {self.name} has no samples")
        return len(batched)

    @property
    def operands(self) -> dict[Operand, Mask]:
        """The two masks, in the order weight, act, grad_out."""
        masks: dict[Operand, Mask] = {}
        for operand in OPERANDS_OF[self.name]:
            mask = getattr(self, operand)
            assert mask is not None, "checked when built"
            masks[operand] = mask
        return masks

    def nonzero(self, operand: Operand) -> int:
        """Count the values of an operand that are not zero."""
        if operand not in self._counted:
            self._counted[operand] = int(np.count_nonzero(self.operands[operand]))
        return self._counted[operand]

    def with_nonzero(self, counts: Mapping[Operand, int]) -> Op:
        """Remember what `nonzero` need not count again: a trace has verified it."""
        self._counted.update({str(operand): count for operand, count in counts.items()})
        return self

    def with_masks(self, masks: dict[Operand, Mask]) -> Op:
        """Give the same op of other masks."""
        found = Op(self.layer, self.name, **masks)
        object.__setattr__(found, "of_transposed", self.of_transposed)
        return found

    def without_zeros(self) -> Op:
        """Give the same op of operands none of whose values is zero."""
        found = dense_op(self.layer, self.name, self.samples)
        object.__setattr__(found, "of_transposed", self.of_transposed)
        return found

    def as_convolution(self) -> Op:
        """Give the op as a machine runs it: a transposed convolution's as its adjoint's.

        The adjoint's op has the same masks under the adjoint's names; `called` and `own_name` tell
        the layer's. Every other op is what it is.
        """
        if not self.layer.transposed:
            return self
        if self._adjoint is None:
            masks = {ADJOINT_OPERAND[operand]: mask for operand, mask in self.operands.items()}
            known = {
                ADJOINT_OPERAND[operand]: self._counted[operand]
                for operand in self.operands
                if operand in self._counted
            }
            found = Op(self.layer.adjoint, ADJOINT_OP[self.name], **masks)
            object.__setattr__(found, "of_transposed", True)
            object.__setattr__(self, "_adjoint", found.with_nonzero(known))
        assert self._adjoint is not None, "just made"
        return self._adjoint

    def called(self, operand: Operand) -> Operand:
        """Name an operand as the layer calls it: a transposed one's adjoint exchanges two names.

        The same exchange leads back.
        """
        return ADJOINT_OPERAND[operand] if self.of_transposed else operand

    def channels_of(self, operand: Operand) -> Channels:
        """Tell where an operand has its channels, of a weight the input channels of its layer."""
        kind = "conv_transpose" if self.of_transposed else self.layer.kind
        return channels_of(kind, self.layer.groups, operand)

    @property
    def own_name(self) -> OpName:
        """Which op of its layer it is."""
        return ADJOINT_OP[self.name] if self.of_transposed else self.name

    @property
    def title(self) -> str:
        """Layer and op, for an error."""
        return f"layer {self.layer.name!r}, {self.own_name}"


def dense_op(layer: Layer, name: OpName, samples: int) -> Op:
    """Make an op of operands none of whose values is zero; the masks take no memory."""
    shapes = {operand: layer.shape_of(operand, samples) for operand in OPERANDS_OF[name]}
    masks = {operand: np.broadcast_to(np.True_, shape) for operand, shape in shapes.items()}
    return Op(layer, name, **masks).with_nonzero({it: mask.size for it, mask in masks.items()})
