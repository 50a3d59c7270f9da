"""A layer's training step as three ops: fprop, dgrad, wgrad, each with its own masks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Literal, Self

import numpy as np

from swatsim.errors import WorkloadError, unknown
from swatsim.workload.layer import OPERANDS, OPERANDS_OF, OPS, OUTPUT_OF, Layer, Operand, OpName
from swatsim.workload.windows import Mask

#: Of an operand, or of what the op makes.
MaskName = Operand | Literal["output"]
#: Values of a mask that are packed at a time for its digest: whole bytes of them.
MOST_BITS = 2**24


@dataclass(frozen=True, eq=False)
class MaskedOp:
    """What `Op` and `LoweredOp` share: a layer, which of its ops it is, and two masks."""

    layer: Layer
    name: OpName
    weight: Mask | None = None
    act: Mask | None = None
    grad_out: Mask | None = None
    #: Which elements of what the op makes are wanted; None: all.
    output: Mask | None = field(default=None, kw_only=True)
    #: Values that are not zero, of operands of which that is known: a trace has verified it.
    known: Mapping[Operand, int] = field(default_factory=dict, repr=False, kw_only=True)

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
        if self.output is not None:
            self._check_type("output")
            object.__setattr__(self, "output", self._checked_output())

    def _check_presence(self, operand: Operand) -> None:
        reads = operand in OPERANDS_OF[self.name]
        if reads != (getattr(self, operand) is not None):
            verb = "needs the mask of" if reads else "does not read"
            raise WorkloadError(
                f"layer {self.layer.name!r}: {self.name} {verb} {operand}; it reads "
                f"{' and '.join(OPERANDS_OF[self.name])}"
            )

    def _check_type(self, operand: MaskName) -> None:
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

    def _checked_output(self) -> Mask | None:
        """Return the mask of what is wanted; None where that is all of it."""
        assert self.output is not None
        self.layer.check_shape(OUTPUT_OF[self.name], self.output.shape, self.samples)
        if self.output.all():
            return None
        view = self.output.view()
        view.flags.writeable = False
        return view

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of what the op makes."""
        return self.layer.shape_of(OUTPUT_OF[self.name], self.samples)

    @cached_property
    def outputs_wanted(self) -> int:
        """Elements of what the op makes that are wanted."""
        return prod(self.output_shape) if self.output is None else int(self.output.sum())

    @property
    def samples(self) -> int:
        """Samples in the masks, N."""
        batched = self.act if self.act is not None else self.grad_out
        if batched is None or not batched.ndim or not len(batched):
            raise WorkloadError(f"layer {self.layer.name!r}: {self.name} has no samples")
        return len(batched)

    def has_samples(self, operand: Operand) -> bool:
        """Whether a tensor's first axis is that of the samples; a layer's weights have none."""
        return operand != "weight" or self.layer.multiplies_activations

    @property
    def operands(self) -> dict[Operand, Mask]:
        """The two masks, in the order weight, act, grad_out."""
        masks: dict[Operand, Mask] = {}
        for operand in OPERANDS_OF[self.name]:
            mask = getattr(self, operand)
            assert mask is not None, "checked when built"
            masks[operand] = mask
        return masks

    @cached_property
    def counts(self) -> Mapping[Operand, int]:
        """Values of each operand that are not zero."""
        return {
            it: self.known[it] if it in self.known else int(np.count_nonzero(mask))
            for it, mask in self.operands.items()
        }

    @cached_property
    def digests(self) -> Mapping[MaskName, str]:
        """Digest of the bits of each mask, 32 hex digits; "1" of an operand without a zero.

        The output's is among them if not all of it is wanted. Shapes are not in them: the layer and
        the number of samples say these.
        """
        found: dict[MaskName, str] = {
            it: "1" if self.counts[it] == mask.size else _digest(mask)
            for it, mask in self.operands.items()
        }
        return found if self.output is None else {**found, "output": _digest(self.output)}

    def of_all_outputs(self) -> Self:
        """Return the same op where every element of what it makes is wanted."""
        return self if self.output is None else replace(self, output=None)

    @property
    def title(self) -> str:
        """Layer and op, for an error."""
        return f"layer {self.layer.name!r}, {self.name}"

    @classmethod
    def dense(cls, layer: Layer, name: OpName, samples: int) -> Self:
        """Return an op of operands none of whose values is zero; the masks take no memory."""
        shapes = {operand: layer.shape_of(operand, samples) for operand in OPERANDS_OF[name]}
        masks = {operand: np.broadcast_to(np.True_, shape) for operand, shape in shapes.items()}
        return cls(layer, name, **masks, known={it: mask.size for it, mask in masks.items()})


def _digest(mask: Mask) -> str:
    seen, flat = hashlib.blake2b(digest_size=16), mask.reshape(-1)
    for first in range(0, flat.size, MOST_BITS):
        seen.update(np.packbits(flat[first : first + MOST_BITS]).data)
    return seen.hexdigest()


@dataclass(frozen=True, eq=False)
class Op(MaskedOp):
    """One op of one layer's training step, with the masks of the two operands that it reads.

    With n the sample, k the filter, c the input channel (of k's group)::

        fprop  y[n,k,p,q]  = sum over c,r,s of w[k,c,r,s] * x[n,c,h,v]
        dgrad  dx[n,c,h,v] = sum over k,r,s of w[k,c,r,s] * dy[n,k,p,q]
        wgrad  dw[k,c,r,s] = sum over n,p,q of x[n,c,h,v] * dy[n,k,p,q]

        where h = p*stride + r*dilation - padding, v = q*stride + s*dilation - padding

    A transposed convolution's ops are those of its adjoint convolution, act and grad_out
    exchanged, and fprop and dgrad::

        fprop  y[n,k,p,q]  = sum over c,r,s of w[c,k,r,s] * x[n,c,h,v]
        dgrad  dx[n,c,h,v] = sum over k,r,s of w[c,k,r,s] * dy[n,k,p,q]
        wgrad  dw[c,k,r,s] = sum over n,h,v of x[n,c,h,v] * dy[n,k,p,q]

        where p = h*stride + r*dilation - padding, q = v*stride + s*dilation - padding

    A product of activations has a weight for each sample n; with h the row and C and K of a head::

        fprop  y[n,k,h]  = sum over c of w[n,k,c] * x[n,c,h]
        dgrad  dx[n,c,h] = sum over k of w[n,k,c] * dy[n,k,h]
        wgrad  dw[n,k,c] = sum over h of x[n,c,h] * dy[n,k,h]

    Parameters
    ----------
    layer : Layer
    name : {"fprop", "dgrad", "wgrad"}
    weight, act, grad_out : numpy.ndarray of bool, or None
        True where the value is not zero. Exactly the two that the op reads are given (fprop:
        weight and act; dgrad: weight and grad_out; wgrad: act and grad_out), in the shapes of
        `Layer.shape_of`. They are kept as read-only views.
    output : numpy.ndarray of bool, optional
        Which elements of y, dx or dw somebody wants, in its shape: weight gradients of weights that
        are kept, scores that a causal mask leaves. By default all.
    known : mapping of operand to int, optional
        How many values are not zero, where that need not be counted.

    Raises
    ------
    WorkloadError
        If a mask is missing, superfluous, not boolean, or not of its layer's shape.
    """
