"""What the naive twins share. Convolution letters throughout.

The shape of a layer, the lowering of its dgrad, and `reference`: what an op computes, straight
from its formula. It imports nothing of the package on purpose.
"""

from dataclasses import dataclass, field, replace

import numpy as np

OPERANDS = {
    "fprop": ("weight", "act"),
    "dgrad": ("weight", "grad_out"),
    "wgrad": ("act", "grad_out"),
}
"""The two operands of each op."""

EVENTS = (
    "words_a",
    "words_b",
    "multiplexed",
    "schedules",
    "accumulations",
    "pattern_groups_a",
    "pattern_groups_b",
    "pattern_obeying_a",
    "pattern_obeying_b",
    "sums_written",
    "sums_read",
)
"""What is counted: words are values taken of an op's first operand (a) and of its second (b)."""


@dataclass(frozen=True)
class NaiveResult:
    """What the machine computed, how long it took, where every lane-cycle went, what happened."""

    output: np.ndarray
    cycles: int
    lane_cycles: dict[str, int]
    events: dict[str, int]
    compressed: str = ""
    """The operand that ran packed, n of each m values; "" if none did."""
    own: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    """Of each tile (cluster, core, PE) the cycles of its own, and of waiting for slower ones."""


def chunks(items, size: int) -> list[list]:
    """Cut `items`, in order, in pieces of `size`; the last may be shorter."""
    items = list(items)
    return [items[start : start + size] for start in range(0, len(items), size)]


def ceil_div(a: int, b: int) -> int:
    """The integer ceiling of a / b."""
    return -(-a // b)


# ---------------------------------------------------------------------------------------------
# The layer
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A layer as a convolution. Padding is all four sides; of each pair, r/h/p comes first."""

    C: int
    K: int
    H: int
    W: int
    R: int
    S: int
    P: int
    Q: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def input_row(self, p: int, r: int) -> int:
        """Row h of the unpadded image that tap r meets in window row p; may lie outside."""
        return p * self.stride[0] + r * self.dilation[0] - self.padding[0][0]

    def input_column(self, q: int, s: int) -> int:
        """Column v of the unpadded image that tap s meets in window column q."""
        return q * self.stride[1] + s * self.dilation[1] - self.padding[1][0]


def convolution_shape(layer) -> Shape:
    """The layer's own shape. A linear layer is a convolution with H=W=R=S=P=Q=1."""
    if layer.kind == "linear":
        return Shape(C=layer.C, K=layer.K, H=1, W=1, R=1, S=1, P=1, Q=1)
    (top, bottom), (left, right) = layer.padding
    return Shape(
        **{letter: int(getattr(layer, letter)) for letter in "CKHWRSPQ"},
        stride=tuple(layer.stride),
        padding=((top, bottom), (left, right)),
        dilation=tuple(layer.dilation),
        groups=layer.groups,
    )


def value_inside(array: np.ndarray, n: int, c: int, i: int, j: int) -> int:
    """A value of an image, 0 in its padding."""
    if 0 <= i < array.shape[2] and 0 <= j < array.shape[3]:
        return int(array[n, c, i, j])
    return 0


# ---------------------------------------------------------------------------------------------
# The two lowerings of dgrad
# ---------------------------------------------------------------------------------------------


def stuffed(grad_out: np.ndarray, stride: tuple[int, int]) -> np.ndarray:
    """The output gradient with stride - 1 zeros between its neighbours, none around them."""
    samples, channels, P, Q = grad_out.shape
    size = (samples, channels, (P - 1) * stride[0] + 1, (Q - 1) * stride[1] + 1)
    wide = np.zeros(size, dtype=grad_out.dtype)
    wide[:, :, :: stride[0], :: stride[1]] = grad_out
    return wide


def lower_dgrad(lowering: str, shape: Shape, grad_out: np.ndarray) -> tuple[Shape, np.ndarray]:
    """The layer and the output gradient whose stride phases the machine runs.

    "split" takes them as they are: each phase is a convolution of the dense gradient. "dilated"
    stuffs the gradient with zeros, as if the layer had a stride of 1: then there is one phase, the
    whole rotated kernel over the stuffed gradient, at the resolution of the input.
    """
    if lowering not in ("split", "dilated"):
        raise ValueError(f"dgrad_lowering={lowering!r} is neither 'split' nor 'dilated'")
    if lowering == "split":
        return shape, grad_out
    wide = stuffed(grad_out, shape.stride)
    return replace(shape, P=wide.shape[2], Q=wide.shape[3], stride=(1, 1)), wide


def phase_of_axis(shape: Shape, axis: int, phase: int) -> tuple[list[int], list[int]]:
    """Along one axis: a phase's taps, descending, and the input positions that they make.

    Tap r reaches input h from some output exactly where h + padding and r * dilation leave the
    same remainder by the stride; that remainder is the phase.
    """
    taps, size = ((shape.R, shape.H), (shape.S, shape.W))[axis]
    stride, dilation = shape.stride[axis], shape.dilation[axis]
    before = shape.padding[axis][0]
    return (
        [tap for tap in reversed(range(taps)) if tap * dilation % stride == phase],
        [at for at in range(size) if (at + before) % stride == phase],
    )


# ---------------------------------------------------------------------------------------------
# Operands, output and reference
# ---------------------------------------------------------------------------------------------


def operands_of(op: str, given: dict) -> dict[str, np.ndarray]:
    """The two operands of the op, as int64; the third, if given, is not looked at."""
    return {name: np.asarray(given[name], dtype=np.int64) for name in OPERANDS[op]}


def samples_in(images: dict) -> int:
    """The batch size, from whichever operand has one."""
    return next(array.shape[0] for name, array in images.items() if name != "weight")


def empty_output(op: str, shape: Shape, samples: int) -> np.ndarray:
    """Zeros in the shape of the op's output."""
    sizes = {
        "fprop": (samples, shape.K, shape.P, shape.Q),
        "dgrad": (samples, shape.C, shape.H, shape.W),
        "wgrad": (shape.K, shape.C // shape.groups, shape.R, shape.S),
    }
    return np.zeros(sizes[op], dtype=np.int64)


def wanted_outputs(output: np.ndarray, wanted) -> np.ndarray:
    """Which elements of an output, in a convolution's shape, somebody wants; None: all of them."""
    if wanted is None:
        return np.ones(output.shape, dtype=bool)
    return np.asarray(wanted, dtype=bool).reshape(output.shape)


def reference(op, layer, *, weight=None, act=None, grad_out=None) -> np.ndarray:
    """What the op computes, straight from its formula: no machine, no lowering."""
    operands = operands_of(op, {"weight": weight, "act": act, "grad_out": grad_out})
    shape = convolution_shape(layer)
    linear = layer.kind == "linear"
    images = {name: a[:, :, None, None] if linear else a for name, a in operands.items()}
    output = empty_output(op, shape, samples_in(images))
    formula = {"fprop": reference_fprop, "dgrad": reference_dgrad, "wgrad": reference_wgrad}[op]
    for group in range(shape.groups):
        size_c, size_k = shape.C // shape.groups, shape.K // shape.groups
        c = slice(group * size_c, (group + 1) * size_c)
        k = slice(group * size_k, (group + 1) * size_k)
        formula(shape, c, k, output, **images)
    return output[:, :, 0, 0] if linear else output


def reference_fprop(shape: Shape, c: slice, k: slice, y, *, weight, act) -> None:
    """y[n,k,p,q] = sum over c,r,s of w[k,c,r,s] * x[n, c, p*stride+r*dil-pad, ...]."""
    for p, q, r, s in np.ndindex(shape.P, shape.Q, shape.R, shape.S):
        h, v = shape.input_row(p, r), shape.input_column(q, s)
        if 0 <= h < shape.H and 0 <= v < shape.W:
            y[:, k, p, q] += act[:, c, h, v] @ weight[k, :, r, s].T


def reference_dgrad(shape: Shape, c: slice, k: slice, dx, *, weight, grad_out) -> None:
    """dx[n,c,h,v] = sum over k,r,s of w[k,c,r,s] * dy[n, k, (h+pad-r*dil)/stride, ...]."""
    (top, _), (left, _) = shape.padding
    for h, v, r, s in np.ndindex(shape.H, shape.W, shape.R, shape.S):
        p, p_rest = divmod(h + top - r * shape.dilation[0], shape.stride[0])
        q, q_rest = divmod(v + left - s * shape.dilation[1], shape.stride[1])
        if p_rest == q_rest == 0 and 0 <= p < shape.P and 0 <= q < shape.Q:
            dx[:, c, h, v] += grad_out[:, k, p, q] @ weight[k, :, r, s]


def reference_wgrad(shape: Shape, c: slice, k: slice, dw, *, act, grad_out) -> None:
    """dw[k,c,r,s] = sum over n,p,q of x[n, c, p*stride+r*dil-pad, ...] * dy[n,k,p,q]."""
    for p, q, r, s in np.ndindex(shape.P, shape.Q, shape.R, shape.S):
        h, v = shape.input_row(p, r), shape.input_column(q, s)
        if 0 <= h < shape.H and 0 <= v < shape.W:
            dw[k, :, r, s] += grad_out[:, k, p, q].T @ act[:, c, h, v]
