"""torch's functions that multiply matrices, each as linear layers and convolutions.

Each handler takes what its function takes, and gives what it gives, or `NotImplemented` where no
factor is a weight. Speaks convolution letters: a weight is (K, C), its inputs (.., C).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from swatsim.tracer.pytorch.einsum import Plan, planned
from swatsim.tracer.pytorch.modules import Geometry
from swatsim.tracer.pytorch.weights import Weight

Handler: TypeAlias = Callable[..., Any]


class LeftAloneError(Exception):
    """A product that is left to torch, and why."""


class Runner(Protocol):
    """Who runs layers, and knows weights."""

    def weight(self, tensor: Any) -> Weight | None:
        """Return what weight a factor is; None for an activation."""

    def argument(self, tensor: Any) -> Weight | None:
        """Return the weight that stands where a function takes its weight."""

    def linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, found: Weight, axis: int | None = None
    ) -> Tensor:
        """Return the output of a linear layer."""

    def convolution(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, found: Weight, geometry: Geometry
    ) -> Tensor:
        """Return the output of a convolution."""


def _linear(run: Runner, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    found = run.argument(weight)
    if found is None or not input.dim():
        return NotImplemented
    if weight.dim() == 1:
        y = run.linear(input, weight[None], None, found).squeeze(-1)
        return y if bias is None else y + bias
    return run.linear(input, weight, bias, found)


def _bilinear(
    run: Runner, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    found = run.weight(weight)
    if found is None:
        return NotImplemented
    raise LeftAloneError(found.name, "it multiplies two inputs at once")


def _convolution(
    run: Runner,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    geometry = Geometry.called(weight, stride, padding, dilation, groups)
    return _convolved(run, input, weight, bias, geometry)


def _transposed(
    run: Runner,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    geometry = Geometry.called(weight, stride, padding, dilation, groups, output_padding)
    return _convolved(run, input, weight, bias, geometry)


def _convolved(
    run: Runner, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
) -> Any:
    found = run.argument(weight)
    if found is None or x.dim() not in (weight.dim(), weight.dim() - 1):
        return NotImplemented
    if x.dim() == weight.dim():
        return run.convolution(x, weight, bias, found, geometry)
    return run.convolution(x[None], weight, bias, found, geometry)[0]  # without a batch


def _matmul(run: Runner, input: Any, other: Any) -> Any:
    return _multiplied(run, input, other)


def _rmatmul(run: Runner, input: Any, other: Any) -> Any:
    return _multiplied(run, other, input)


def _mm(run: Runner, input: Tensor, mat2: Tensor) -> Any:
    return _multiplied(run, input, mat2)


def _mv(run: Runner, input: Tensor, vec: Tensor) -> Any:
    return _multiplied(run, input, vec)


def _addmm(
    run: Runner, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Any:
    found = run.weight(mat2)
    is_bias = beta == alpha == 1 and input.dim() == 1 and len(input) == mat2.shape[-1]
    if found is not None and mat2.dim() == 2 and is_bias and run.weight(mat1) is None:
        return run.linear(mat1, mat2.mT, input, found)
    return _added(input, _multiplied(run, mat1, mat2), beta, alpha)


def _addmv(
    run: Runner, input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Any:
    return _added(input, _multiplied(run, mat, vec), beta, alpha)


def _baddbmm(
    run: Runner, input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Any:
    return _added(input, _multiplied(run, batch1, batch2), beta, alpha)


def _added(more: Tensor, y: Any, beta: Any, alpha: Any) -> Any:
    if y is NotImplemented:
        return y
    scaled = y if alpha == 1 else alpha * y
    if beta == 0:  # then torch does not look at it, NaN or not
        return scaled
    return scaled + (more if beta == 1 else beta * more)


def _inner(run: Runner, input: Tensor, other: Tensor) -> Any:
    found = run.weight(other)
    if found is None or other.dim() != 2 or run.weight(input) is not None:
        return NotImplemented
    return run.linear(input, other, None, found)


def _grouped_mm(
    run: Runner,
    mat_a: Tensor,
    mat_b: Tensor,
    offs: Any = None,
    bias: Any = None,
    out_dtype: Any = None,
) -> Any:
    found = run.weight(mat_b)
    if found is None or run.weight(mat_a) is not None:
        return NotImplemented
    if mat_b.dim() != 3 or bias is not None or out_dtype is not None:
        raise LeftAloneError(found.name, "of grouped_mm only one matrix an expert is run sparsely")
    if offs is None:
        return _experts(run, mat_a, mat_b, found)
    ends = offs.tolist()
    parts = [mat_a[first:last] for first, last in zip([0, *ends], ends, strict=False)]
    outputs = [
        run.linear(part, each.mT, None, _part(found, str(i)))
        for i, (part, each) in enumerate(zip(parts, mat_b.unbind(), strict=True))
        if len(part)  # nothing came to this expert
    ]
    rest = mat_a.new_zeros(len(mat_a) - ends[-1], mat_b.shape[-1])
    return torch.cat([*outputs, rest])


def _einsum(run: Runner, equation: Any, *operands: Any) -> Any:
    if len(operands) == 1 and not isinstance(operands[0], Tensor):
        operands = tuple(operands[0])
    found = [run.weight(each) for each in operands]
    known = [each for each in found if each is not None]
    if len(known) != 1 or not isinstance(equation, str):
        return _not_one(known)
    if len(operands) != 2:
        raise LeftAloneError(known[0].name, "it is one of more than two factors of einsum")
    place = found.index(known[0])
    plan = planned(equation, [tuple(each.shape) for each in operands], place)
    return _contracted(run, operands[1 - place], operands[place], plan, known[0])


def _tensordot(run: Runner, a: Tensor, b: Tensor, dims: Any = 2) -> Any:
    found = [run.weight(a), run.weight(b)]
    known = [each for each in found if each is not None]
    if len(known) != 1:
        return _not_one(known)
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    axes = [range(a.dim() - dims, a.dim()), range(dims)] if isinstance(dims, int) else dims
    letters = [chr(ord("a") + i) for i in range(a.dim() + b.dim())]
    first, second = letters[: a.dim()], letters[a.dim() :]
    for i, j in zip(*axes, strict=True):
        second[j] = first[i]
    output = [each for each in [*first, *second] if not (each in first and each in second)]
    equation = f"{''.join(first)},{''.join(second)}->{''.join(output)}"
    return _einsum(run, equation, a, b)


def _contracted(run: Runner, x: Tensor, weight: Tensor, plan: Plan | None, found: Weight) -> Any:
    if plan is None:
        raise LeftAloneError(found.name, "its einsum is no product of matrices")
    x, matrices = plan.x(x), plan.weight(weight)
    if not plan.groups:
        return plan.output(run.linear(x[0], matrices[0], None, found)[None])
    outputs = [
        run.linear(each, matrix, None, _part(found, str(i)))
        for i, (each, matrix) in enumerate(zip(x.unbind(), matrices.unbind(), strict=True))
    ]
    return plan.output(torch.stack(outputs))


def _multiplied(run: Runner, left: Any, right: Any) -> Any:
    """Return left @ right, if one of them is a weight."""
    found = [run.weight(left), run.weight(right)]
    known = [each for each in found if each is not None]
    if len(known) != 1 or not (isinstance(left, Tensor) and isinstance(right, Tensor)):
        return _not_one(known)
    if found[1] is not None:
        return _right(run, left, right, found[1])
    if right.dim() == 1:  # (K, C) times C
        return _right(run, right, left.mT, known[0]) if left.dim() > 1 else NotImplemented
    if left.dim() == 1:
        return run.linear(right.mT, left[None], None, known[0]).squeeze(-1)
    y = _right(run, right.mT, left.mT, known[0])
    return y if y is NotImplemented else y.mT


def _right(run: Runner, x: Tensor, weight: Tensor, found: Weight) -> Any:
    """Return x @ weight, which is (.., C, K)."""
    if weight.dim() == 1:
        return run.linear(x, weight[None], None, found).squeeze(-1)
    lead = weight.shape[:-2]
    same = all(size == 1 or not step for size, step in zip(lead, weight.stride(), strict=False))
    if not same:
        return _experts(run, x, weight, found)
    batch = torch.broadcast_shapes(x.shape[:-2], lead) if x.dim() > 1 else lead
    matrix = weight[(0,) * len(lead)]
    wide = x if not lead else x.expand(*batch, *x.shape[-2:])
    return run.linear(wide, matrix.mT, None, found)


def _experts(run: Runner, x: Tensor, weight: Tensor, found: Weight) -> Any:
    """Return x @ weight, a layer for each of a weight's matrices (.., C, K)."""
    lead = weight.shape[:-2]
    if x.dim() < 2:
        raise LeftAloneError(found.name, "each of its matrices multiplies the same vector")
    batch = torch.broadcast_shapes(x.shape[:-2], lead)
    first = len(batch) - len(lead)
    if batch[first:] != lead:
        raise LeftAloneError(found.name, "some of its matrices are used several times")
    wide = x.expand(*batch, *x.shape[-2:]).flatten(first, len(batch) - 1).unbind(first)
    matrices = weight.flatten(0, -3).unbind() if len(lead) > 1 else weight.unbind()
    places = [",".join(map(str, place)) for place in product(*map(range, lead))]
    outputs = [
        run.linear(each, matrix.mT, None, _part(found, place))
        for each, matrix, place in zip(wide, matrices, places, strict=True)
    ]
    return torch.stack(outputs, first).unflatten(first, lead)


def _part(found: Weight, place: str) -> Weight:
    return Weight(f"{found.name}[{place}]", found.rank, found.is_stored)


def _not_one(known: Sequence[Weight]) -> Any:
    """Leave alone what has no weight, or makes one weight of two."""
    if len(known) > 1:
        raise LeftAloneError(known[0].name, "it is multiplied by another parameter")
    return NotImplemented


HANDLERS: dict[Any, Handler] = {
    functional.linear: _linear,
    functional.bilinear: _bilinear,
    **dict.fromkeys((functional.conv1d, functional.conv2d, functional.conv3d), _convolution),
    **dict.fromkeys(
        (
            functional.conv_transpose1d,
            functional.conv_transpose2d,
            functional.conv_transpose3d,
        ),
        _transposed,
    ),
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__), _matmul),
    Tensor.__rmatmul__: _rmatmul,
    **dict.fromkeys((torch.mm, Tensor.mm, torch.bmm, Tensor.bmm), _mm),
    **dict.fromkeys((torch.mv, Tensor.mv), _mv),
    **dict.fromkeys((torch.addmm, Tensor.addmm), _addmm),
    **dict.fromkeys((torch.addmv, Tensor.addmv), _addmv),
    **dict.fromkeys((torch.baddbmm, Tensor.baddbmm), _baddbmm),
    **dict.fromkeys((torch.inner, Tensor.inner), _inner),
    torch.einsum: _einsum,
    torch.tensordot: _tensordot,
    **{
        getattr(place, name): _grouped_mm
        for place, name in ((functional, "grouped_mm"), (torch, "_grouped_mm"))
        if hasattr(place, name)
    },
}
