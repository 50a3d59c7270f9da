"""The shape of a layer.

Speaks convolution letters: N samples, K filters, C channels, H W input, R S kernel, P Q output.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, assert_never, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from swatsim.arguments import whole
from swatsim.errors import SwatsimError, WorkloadError
from swatsim.validation import FrozenRecord, Whole

Kind = Literal["conv", "conv_transpose", "linear", "matmul"]
OpName = Literal["fprop", "dgrad", "wgrad"]
Operand = Literal["weight", "act", "grad_out"]

#: A multiply-accumulate is one multiplication and one addition.
FLOPS_PER_MAC = 2

KINDS: tuple[Kind, ...] = get_args(Kind)
OPS: tuple[OpName, ...] = get_args(OpName)
OPERANDS: tuple[Operand, ...] = get_args(Operand)

#: What each op reads; what it makes is the third tensor.
OPERANDS_OF: Mapping[OpName, tuple[Operand, Operand]] = {
    "fprop": ("weight", "act"),
    "dgrad": ("weight", "grad_out"),
    "wgrad": ("act", "grad_out"),
}

#: The tensor that each op makes: it has that operand's shape.
OUTPUT_OF: Mapping[OpName, Operand] = {"fprop": "grad_out", "dgrad": "act", "wgrad": "weight"}

#: The axis of a weight that holds the input channels of a group, over which an output is summed;
#: the other of the first two holds the filters. The first axis holds the groups one after another.
CHANNEL_AXIS: Mapping[Kind, int] = {
    "conv": 1,
    "linear": 1,
    "conv_transpose": 0,
    "matmul": 2,
}


class Channels(NamedTuple):
    """Where a tensor has its channels: what the N:M of a policy and of a storage format is along.

    Parameters
    ----------
    axis : int
    groups : int
        Of the layer, one after another on that axis: no M channels lie across two.
    """

    axis: int = 1
    groups: int = 1


SECOND_AXIS = Channels()


def channels_of(kind: Kind, groups: int, operand: Operand) -> Channels:
    """Return where an operand has its channels; a weight its input channels.

    Those of an image are one row of channels; of a product of activations each head's are its own.
    """
    if operand != "weight":
        return Channels(groups=groups) if kind == "matmul" else SECOND_AXIS
    axis = CHANNEL_AXIS[kind]
    return Channels(axis, 1 if axis else groups)


#: No dimension of a layer may be larger: what a header promises is checked before it is believed.
MAX_DIMENSION = 2**24
#: No tensor of one sample, padding included, may be larger (2 GiB as booleans).
MAX_ELEMENTS = 2**31

Extent = Annotated[Whole, Field(ge=1, le=MAX_DIMENSION)]
Gap = Annotated[Whole, Field(ge=0, le=MAX_DIMENSION)]


def _pair(value: Any) -> Any:
    """Return one number as a pair for both axes."""
    value = whole(value)
    return (value, value) if isinstance(value, int) else value


def _padding(value: Any) -> Any:
    """Return ``p``, ``(ph, pw)`` or ``((top, bottom), (left, right))`` as the last."""
    value = _pair(value)
    if isinstance(value, tuple | list):
        return tuple(_pair(side) for side in value)
    return value


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must have no line breaks or other control characters")
    return name


Pair = Annotated[tuple[Extent, Extent], BeforeValidator(_pair)]
Padding = Annotated[tuple[tuple[Gap, Gap], tuple[Gap, Gap]], BeforeValidator(_padding)]


class Layer(FrozenRecord):
    """A convolution, linear layer, or product of two activations; the batch is not a part of it.

    The first number of each pair belongs to the axis of R, H and P, the second to that of S, W
    and Q. A linear layer is a convolution with H = W = R = S = 1. A transposed convolution (torch's
    ConvTranspose2d) computes what dgrad of another convolution does, its `adjoint`.

    A product of two activations (matmul), out = left @ right for each sample and head, has one
    group a head. `act` is left, its rows lying along H; `weight` is right, another one for each
    sample: an activation all the same. So attention's scores have C = heads * depth of a head and
    K = heads * keys, and H queries.

    Parameters
    ----------
    name : str
        Unique in its network, for example ``layer1.0.conv1``.
    kind : {"conv", "conv_transpose", "linear", "matmul"}
    C, K : int
        Input and output channels (features), over all groups.
    H, W, R, S : int
        Input and kernel size.
    stride, dilation : int or pair
    padding : int, pair, or ((top, bottom), (left, right))
        Zeros around the input. Of a transposed convolution, what is cut off its output: torch's
        output_padding makes the bottom and the right one smaller by so much.
    groups : int
        Divides C and K. Of a product of activations the heads of a sample.

    Raises
    ------
    WorkloadError
        If such a layer can't exist.
    """

    error_type: ClassVar[type[SwatsimError]] = WorkloadError

    name: Annotated[
        str, Field(strict=True, min_length=1, max_length=1000), AfterValidator(_printable)
    ]
    kind: Kind = "conv"
    C: Extent
    K: Extent
    H: Extent = 1
    W: Extent = 1
    R: Extent = 1
    S: Extent = 1
    stride: Pair = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: Extent = 1

    @classmethod
    def subject(cls, data: Mapping[str, Any]) -> str:
        """Return what errors call the layer."""
        return f"layer {data.get('name', '?')!r}"

    @model_validator(mode="after")
    def _relations(self) -> Layer:
        if self.C % self.groups or self.K % self.groups:
            raise ValueError(
                f"groups={self.groups} must divide C={self.C} and K={self.K}: "
                "each group is a convolution of its own"
            )
        if self.P < 1 or self.Q < 1:
            raise ValueError(f"its output would be {self.P} x {self.Q}: {self._no_output()}")
        if self.kind == "linear":
            self._check_linear()
        if self.multiplies_activations:
            self._check_matmul()
        self._check_sizes()
        return self

    def _no_output(self) -> str:
        if self.transposed:
            return (
                f"the padding {self.padding} must leave some of the {self.padded} that input, "
                "stride and kernel give"
            )
        return (
            f"the kernel {self.R} x {self.S} with dilation {self.dilation} must fit the padded "
            f"input {self.padded}"
        )

    def _check_sizes(self) -> None:
        if self.transposed and max(self.P, self.Q) > MAX_DIMENSION:
            raise ValueError(
                f"its output would be {self.P} x {self.Q}: no side may be above {MAX_DIMENSION}"
            )
        what, near, far = "padded input, output", self.C, self.K
        if self.transposed:
            what, near, far = "input, output before its padding is cut", self.K, self.C
        largest = max(near * prod(self.padded), far * self.positions, self.weights)
        if largest > MAX_ELEMENTS:
            raise ValueError(
                f"its {what} or weights would have {largest} elements; at most {MAX_ELEMENTS} can "
                "be simulated"
            )

    def _check_linear(self) -> None:
        if self.H * self.W * self.R * self.S != 1 or self.padding != ((0, 0), (0, 0)):
            raise ValueError("a linear layer has H = W = R = S = 1 and no padding")
        if (self.stride, self.dilation, self.groups) != ((1, 1), (1, 1), 1):
            raise ValueError("a linear layer has stride, dilation and groups of 1")

    def _check_matmul(self) -> None:
        if self.W * self.R * self.S != 1 or self.padding != ((0, 0), (0, 0)):
            raise ValueError("a product of activations has W = R = S = 1 and no padding")
        if (self.stride, self.dilation) != ((1, 1), (1, 1)):
            raise ValueError("a product of activations has stride and dilation of 1")

    @property
    def multiplies_activations(self) -> bool:
        """Whether both factors are activations: its `weight` is no parameter."""
        return self.kind == "matmul"

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.kind == "conv_transpose"

    @property
    def adjoint(self) -> Layer:
        """The convolution of which this transposed one is the dgrad: same weights, no flip.

        Input and output exchange their roles; it has a layer's fprop as its dgrad, dgrad as its
        fprop, and wgrad as its wgrad.

        Raises
        ------
        WorkloadError
            If it is no transposed convolution.
        """
        if not self.transposed:
            raise WorkloadError(
                f"layer {self.name!r}: kind={self.kind!r} has no adjoint: only conv_transpose has; "
                "use the layer itself"
            )
        sizes = {"C": self.K, "K": self.C, "H": self.P, "W": self.Q}
        return self.model_copy(update={"kind": "conv", **sizes})

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the input with its padding.

        Of a transposed convolution, of the output before its padding is cut off.
        """
        if self.transposed:
            return self._spread(0, self.H, self.R), self._spread(1, self.W, self.S)
        return self.H + sum(self.padding[0]), self.W + sum(self.padding[1])

    def _spread(self, axis: int, size: int, taps: int) -> int:
        return (size - 1) * self.stride[axis] + (taps - 1) * self.dilation[axis] + 1

    @property
    def P(self) -> int:
        """Output height."""
        return self._output(0, self.R)

    @property
    def Q(self) -> int:
        """Output width."""
        return self._output(1, self.S)

    def _output(self, axis: int, taps: int) -> int:
        if self.transposed:
            return self.padded[axis] - sum(self.padding[axis])
        span = (taps - 1) * self.dilation[axis] + 1
        return (self.padded[axis] - span) // self.stride[axis] + 1

    @property
    def positions(self) -> int:
        """Places at which the kernel is applied: of the output, if transposed of the input."""
        return self.H * self.W if self.transposed else self.P * self.Q

    @property
    def weights(self) -> int:
        """Elements of the weight tensor; of a product of activations, of one sample's."""
        return self.K * (self.C // self.groups) * self.R * self.S

    def shape_of(self, operand: Operand, samples: int) -> tuple[int, ...]:
        """Return the shape of an operand's tensor (and mask) for that many samples.

        weight (K, C/groups, R, S), act (N, C, H, W), grad_out (N, K, P, Q); for a linear layer
        (K, C), (N, C), (N, K). The weight of a transposed convolution is (C, K/groups, R, S), that
        of a product of activations (N, K, C/groups).
        """
        flat = self.kind == "linear"
        match operand:
            case "weight" if self.multiplies_activations:
                return samples, self.K, self.C // self.groups
            case "weight":
                far, near = (self.C, self.K) if self.transposed else (self.K, self.C)
                return (far, near) if flat else (far, near // self.groups, self.R, self.S)
            case "act":
                return (samples, self.C) if flat else (samples, self.C, self.H, self.W)
            case "grad_out":
                return (samples, self.K) if flat else (samples, self.K, self.P, self.Q)
            case _:
                assert_never(operand)

    def channels_of(self, operand: Operand) -> Channels:
        """Return where an operand has its channels; a weight its input channels."""
        return channels_of(self.kind, self.groups, operand)

    def check_shape(self, operand: Operand, got: tuple[int, ...], samples: int) -> None:
        """Refuse a tensor that is not this layer's.

        Raises
        ------
        WorkloadError
            Naming the layer, both shapes, and where the expected one comes from.
        """
        expected = self.shape_of(operand, samples)
        if tuple(got) != expected:
            raise WorkloadError(
                f"layer {self.name!r}: {operand} mask is {tuple(got)}, expected {expected} "
                f"from {self._origin(operand)}"
            )

    def _origin(self, operand: Operand) -> str:
        if self.kind == "linear":
            return f"C={self.C}, K={self.K}"
        if self.multiplies_activations:
            return f"C={self.C}, K={self.K}, H={self.H}, groups={self.groups}"
        if operand == "weight":
            channels = [f"K={self.K}", f"C={self.C}"]
            first, second = reversed(channels) if self.transposed else channels
            return f"{first}, {second}, groups={self.groups}, kernel {self.R} x {self.S}"
        if operand == "act":
            return f"C={self.C} and input {self.H} x {self.W}"
        stride = self.stride[0] if self.stride[0] == self.stride[1] else self.stride
        return f"stride {stride}, padding {self.padding} and input {self.H} x {self.W}"
