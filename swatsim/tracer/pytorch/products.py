"""Multiply-accumulates of torch's operations, as its dispatcher sees them.

Counted is what the mathematics needs, of the shapes that an operation was given, whatever the
kernel does: a multiply-accumulate (MAC) is one product of two factors that is added to a sum.
Products with padding, with zeros and above a causal diagonal count, as `macs_dense` counts them;
sparse operands count as dense ones. A sum of products of single values that torch writes as
`mul` and `sum` is none, nor are an outer product, interpolation, softmax, or what solvers and
factorisations (`linalg.solve`, `matrix_exp`, ..) multiply inside.

It is half of what `torch.utils.flop_counter.FlopCounterMode` counts, which

- counts a grouped convolution's weight gradient as often as there are groups;
- counts the scores twice in attention's backward pass, where fused kernels compute them anew:
  here it is four products, that the gradients of query, key and value are made of;
- takes tokens for heads in `_flash_attention_forward` and `_efficient_attention_forward` and their
  backward passes where the sequences are of one length (before torch 2.14);
- takes `benchmark` of `cudnn_convolution` for `transposed`;
- has neither attention on CPUs, nor fused recurrent layers, `mv`, `dot`, `addbmm`, `_int_mm`,
  `_grouped_mm`, `_trilinear` (nn.Bilinear), `_euclidean_dist` (torch.cdist), weights of 4 and 8
  bits, semi-structured ones, nested tensors, deformable convolutions, encoder layers in one call.

Formulas that others registered there for operations of their own are used. Not counted are the
`quantized` operators, which can't be trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

from swatsim.workload.layer import FLOPS_PER_MAC

#: An operation's arguments by the names of its schema; those left at their defaults are missing.
_Given: TypeAlias = Mapping[str, Any]
_Formula: TypeAlias = Callable[[_Given, Any], int]


def macs(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, out: Any) -> int:
    """Return the multiply-accumulates of one operation, forward or backward.

    Parameters
    ----------
    func : torch._ops.OpOverload
    args, kwargs : sequence, mapping
        As a TorchDispatchMode got them.
    out
        What the operation returned.

    Returns
    -------
    int
        0 of one that multiplies no matrices, and of one that is not known (see above).
    """
    count = _counter(func)
    return 0 if count is None else count(args, kwargs or {}, out)


@cache
def _counter(func: Any) -> Callable[[Sequence[Any], Mapping[str, Any], Any], int] | None:
    name = func.name().partition(".")[0]
    if name in _FORMULAS:
        names = tuple(argument.name for argument in func._schema.arguments)
        formula = _FORMULAS[name]
        return lambda args, kwargs, out: formula(
            {**dict(zip(names, args, strict=False)), **kwargs}, out
        )
    return _registered(flop_registry.get(getattr(func, "_overloadpacket", func)))


def _registered(
    flops: Callable[..., Any] | None,
) -> Callable[[Sequence[Any], Mapping[str, Any], Any], int] | None:
    if flops is None:
        return None
    return lambda args, kwargs, out: int(flops(*args, **kwargs, out_val=out)) // FLOPS_PER_MAC


# --- products of matrices ---


def _sums_of(argument: str) -> _Formula:
    """Each value of the output is a sum as long as the last axis of this argument."""
    return lambda given, out: _sums(_first(out), given[argument])


def _sums(out: Tensor, factor: Tensor) -> int:
    if factor.is_nested and out.is_nested:  # their last axes may differ in length
        return sum(map(_sums, out.unbind(), factor.unbind()))
    return out.numel() * _last_axis(factor)


def _sums_down(argument: str) -> _Formula:
    """Count down this argument's first axis: what stands on the left is packed."""
    return lambda given, out: int(_first(out).numel() * given[argument].shape[0])


def _first(out: Any) -> Tensor:
    first: Tensor = out[0] if isinstance(out, tuple) else out
    return first


def _last_axis(tensor: Tensor) -> int:
    # a nested tensor has no shape, yet a last axis
    axis = int(tensor.size(-1)) if tensor.dim() else 1
    return 2 * axis if tensor.dtype == torch.float4_e2m1fn_x2 else axis


def _dot(given: _Given, out: Any) -> int:
    return int(given["self"].numel())


def _addbmm(given: _Given, out: Any) -> int:
    return int(given["batch1"].numel() * given["batch2"].shape[-1])


def _foreach_mm(given: _Given, out: Any) -> int:
    pairs = zip(given["self"], given["mat2"], strict=True)
    return sum(left.numel() * right.shape[-1] for left, right in pairs)


def _grouped_mm(given: _Given, out: Any) -> int:
    """One of three axes is cut into groups, unless all are of one size; its rest is not read."""
    left, right, ends = given["self"], given["mat2"], given.get("offs")
    M, K, N = left.shape[-2], _last_axis(left), right.shape[-1]
    if left.dim() == right.dim() == 3:
        return int(left.shape[0] * M * K * N)
    cut, rest = (M, K * N) if right.dim() == 3 else (N, M * K) if left.dim() == 3 else (K, M * N)
    if ends is not None and not ends.is_meta and ends.numel():
        cut = min(cut, int(ends[-1]))
    return int(rest * cut)


def _linear_backward(given: _Given, out: Any) -> int:
    wanted = _wanted(given.get("output_mask", (True,)))
    return int(given["grad_output"].numel() * given["weight"].shape[-1] * wanted)


def _matmul_backward(given: _Given, out: Any) -> int:
    grad, mask = (given[a] if a in given else given[b] for a, b in (("grad", "grad_out"), _MASKS))
    return _sums(grad, given["self"]) * _wanted(mask)


_MASKS = ("mask", "output_mask")


def _wanted(output_mask: Sequence[bool]) -> int:
    return sum(map(bool, output_mask[:2]))


def _trilinear(given: _Given, out: Any) -> int:
    """Two products of two: sums over axes that the third lacks, then over the others."""
    first, second, third = (
        _with_ones(given[f"i{i}"].shape, given[f"expand{i}"]) for i in (1, 2, 3)
    )
    both = list(map(max, first, second))
    lacking = set(given["sumdim"]) & set(given["expand3"])
    summed = [1 if axis in lacking else size for axis, size in enumerate(both)]
    return prod(both) + prod(map(max, summed, third))


def _with_ones(shape: Sequence[int], axes: Iterable[int]) -> list[int]:
    sizes = list(shape)
    for axis in sorted(axes):
        sizes.insert(axis, 1)
    return sizes


# --- convolutions ---


def _convolution(read: str) -> _Formula:
    """Each output takes the weights of one output channel; transposed, each input spreads them."""

    def count(given: _Given, out: Any) -> int:
        small = given[read] if given.get("transposed") else out
        return _first(small).numel() * _a_channel(given["weight"])

    return count


def _transposed(read: str) -> _Formula:
    return lambda given, out: given[read].numel() * _a_channel(given["weight"])


def _convolution_backward(given: _Given, out: Any) -> int:
    small = given["input"] if given.get("transposed") else given["grad_output"]
    return int(small.numel() * _a_channel(given["weight"]) * _wanted(given["output_mask"]))


def _backward_of(small: str, mask: str | None = "output_mask") -> _Formula:
    def count(given: _Given, out: Any) -> int:
        wanted = 2 if mask is None else _wanted(given.get(mask, (True, True)))
        return int(given[small].numel() * _a_channel(given["weight"]) * wanted)

    return count


def _a_channel(weight: Tensor) -> int:
    return prod(weight.shape[1:])


def _conv_tbc(given: _Given, out: Any) -> int:
    return int(out.numel() * prod(given["weight"].shape[:2]))


# --- attention ---


def _attention(products: int, has_heads_first: bool = True) -> _Formula:
    """Query by key, probabilities by value; the backward pass has two for each of them."""

    def count(given: _Given, out: Any) -> int:
        q, k, v = (given[name] if name in given else given[name[0]] for name in _QKV)
        return products // 2 * _pairs(given, q, k, has_heads_first) * _depths(q, v)

    return count


_QKV = ("query", "key", "value")


def _depths(q: Tensor, v: Tensor) -> int:
    return int(q.size(-1) + v.size(-1))


def _pairs(given: _Given, q: Tensor, k: Tensor, has_heads_first: bool) -> int:
    """Return how many scores there are, in all heads and samples."""
    ends = next((given[n] for n in _ENDS if given.get(n) is not None), None)
    if q.is_nested:
        one_by_one = zip(q.unbind(), k.unbind(), strict=True)
        return sum(_pairs({}, *both, has_heads_first=True) for both in one_by_one)
    if ends is not None and _is_packed(q, has_heads_first):
        of_keys = next((given[n] for n in _KEY_ENDS if given.get(n) is not None), ends)
        lengths = zip(_lengths(ends), _lengths(of_keys), strict=True)
        return int(q.shape[-2] * sum(a * b for a, b in lengths))
    return int(q.numel() // max(q.shape[-1], 1) * k.shape[-2 if has_heads_first else 1])


def _is_packed(q: Tensor, has_heads_first: bool) -> bool:
    return q.dim() == 3 or not has_heads_first


_ENDS = ("cum_seq_q", "cu_seqlens_q", "cu_seq_q")
_KEY_ENDS = ("cum_seq_k", "cu_seqlens_k", "cu_seq_k")


def _lengths(ends: Tensor) -> list[int]:
    return [last - first for first, last in pairwise(ends.tolist())]


def _multi_head(given: _Given, out: Any) -> int:
    q, k, v = (given[name] for name in _QKV)
    E = given["embed_dim"]
    projected = (q.numel() + k.numel() + v.numel() + q.numel()) * E
    return int(projected + 2 * E * _pairs({}, q, k, has_heads_first=True))


def _encoder_layer(given: _Given, out: Any) -> int:
    x = given["src"]
    attention = _multi_head({**given, **dict.fromkeys(_QKV, x)}, out)
    wide = given["ffn_weight_1"].numel() + given["ffn_weight_2"].numel()
    return int(attention + x.numel() // max(x.size(-1), 1) * wide)


# --- recurrent layers ---


def _recurrent(*weights: str, read: str = "input") -> _Formula:
    """Every row of the input, one a step and sample, meets all matrices of all layers once.

    A backward pass has two products for each: the data's gradients, always, and the weights'.
    """

    def count(given: _Given, out: Any) -> int:
        x = given[read]
        rows = x.numel() // max(x.shape[-1], 1)
        return int(rows * sum(w.numel() for name in weights for w in _matrices(given[name])))

    return count


def _recurrent_backward(*weights: str) -> _Formula:
    forward = _recurrent(*weights)

    def count(given: _Given, out: Any) -> int:
        return forward(given, out) * (1 + bool(given.get("output_mask", (True,))[-1]))

    return count


def _matrices(weights: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [w for w in ([weights] if isinstance(weights, Tensor) else weights) if w.dim() == 2]


def _table() -> dict[str, _Formula]:
    plain = {name: formula for names, formula in _ATEN for name in names.split()}
    return {f"aten::{name}": formula for name, formula in plain.items()} | _OTHERS


_ATEN: tuple[tuple[str, _Formula], ...] = (
    ("mm bmm mv matmul linalg_matmul inner mkldnn_linear smm _int_mm _scaled_mm", _sums_of("self")),
    ("_scaled_mm_v2 _sparse_sparse_matmul _sparse_mm_reduce_impl", _sums_of("self")),
    ("_weight_int4pack_mm _weight_int4pack_mm_for_cpu _weight_int8pack_mm", _sums_of("self")),
    ("_weight_int4pack_mm_with_scales_and_zeros", _sums_of("self")),
    ("addmm addmm_ _addmm_activation _sparse_addmm sspaddmm hspmm", _sums_of("mat1")),
    ("sparse_sampled_addmm", _sums_of("mat1")),
    ("baddbmm baddbmm_", _sums_of("batch1")),
    ("addmv addmv_", _sums_of("mat")),
    ("linear _mixed_dtypes_linear _sparse_semi_structured_linear", _sums_of("input")),
    ("_dyn_quant_matmul_4bit", _sums_of("inp")),
    ("_euclidean_dist", _sums_of("x1")),
    ("_sparse_mm", _sums_down("dense")),
    ("_sparse_semi_structured_mm _sparse_semi_structured_addmm", _sums_down("mat2")),
    ("_cslt_sparse_mm", _sums_down("dense_B")),
    ("dot vdot", _dot),
    ("addbmm addbmm_", _addbmm),
    ("_foreach_mm", _foreach_mm),
    ("_grouped_mm _scaled_grouped_mm _scaled_grouped_mm_v2", _grouped_mm),
    ("linear_backward mkldnn_linear_backward", _linear_backward),
    ("mkldnn_linear_backward_input mkldnn_linear_backward_weights", _linear_backward),
    ("matmul_backward _sparse_mm_reduce_impl_backward", _matmul_backward),
    ("_trilinear", _trilinear),
    ("convolution _convolution convolution_overrideable", _convolution("input")),
    ("conv1d conv2d conv3d _convolution_mode _nnpack_spatial_convolution", _convolution("input")),
    ("cudnn_convolution cudnn_convolution_relu cudnn_convolution_add_relu", _convolution("self")),
    ("miopen_convolution miopen_convolution_relu", _convolution("self")),
    ("miopen_convolution_add_relu miopen_depthwise_convolution", _convolution("self")),
    ("mkldnn_convolution _mps_convolution thnn_conv2d slow_conv3d", _convolution("self")),
    ("_conv_depthwise2d conv_depthwise3d _slow_conv2d_forward", _convolution("self")),
    ("slow_conv3d_forward slow_conv_dilated2d slow_conv_dilated3d", _convolution("self")),
    ("conv_transpose1d conv_transpose2d conv_transpose3d", _transposed("input")),
    ("cudnn_convolution_transpose miopen_convolution_transpose", _transposed("self")),
    ("_mps_convolution_transpose", _transposed("self")),
    ("slow_conv_transpose2d slow_conv_transpose3d", _transposed("self")),
    ("conv_tbc", _conv_tbc),
    ("convolution_backward convolution_backward_overrideable", _convolution_backward),
    ("_slow_conv2d_backward mps_convolution_backward", _backward_of("grad_output")),
    ("mps_convolution_transpose_backward", _backward_of("self")),
    ("scaled_dot_product_attention _scaled_dot_product_attention_math", _attention(2)),
    ("_scaled_dot_product_attention_math_for_mps _triton_scaled_dot_attention", _attention(2)),
    ("_scaled_dot_product_flash_attention _scaled_dot_product_cudnn_attention", _attention(2)),
    ("_scaled_dot_product_efficient_attention", _attention(2)),
    ("_scaled_dot_product_flash_attention_for_cpu _cudnn_attention_forward", _attention(2)),
    ("_scaled_dot_product_fused_attention_overrideable", _attention(2)),
    ("_scaled_dot_product_flash_attention_backward", _attention(4)),
    ("_scaled_dot_product_cudnn_attention_backward", _attention(4)),
    ("_scaled_dot_product_efficient_attention_backward", _attention(4)),
    ("_scaled_dot_product_flash_attention_for_cpu_backward", _attention(4)),
    ("_scaled_dot_product_fused_attention_overrideable_backward", _attention(4)),
    ("_cudnn_attention_backward", _attention(4)),
    ("_flash_attention_forward _flash_attention_forward_no_dropout_inplace", _attention(2, False)),
    ("_efficient_attention_forward", _attention(2, False)),
    ("_flash_attention_backward _efficient_attention_backward", _attention(4, False)),
    ("_native_multi_head_attention _triton_multi_head_attention", _multi_head),
    ("_transformer_encoder_layer_fwd", _encoder_layer),
    ("mkldnn_rnn_layer", _recurrent("weight0", "weight1")),
    ("mkldnn_rnn_layer_backward", _recurrent_backward("weight1", "weight2")),
    ("_cudnn_rnn miopen_rnn", _recurrent("weight")),
    ("_cudnn_rnn_backward miopen_rnn_backward", _recurrent_backward("weight")),
    ("_lstm_mps", _recurrent("params")),
    ("lstm_mps_backward", _recurrent_backward("params")),
    ("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell", _recurrent("w_ih", "w_hh")),
)
_OTHERS: dict[str, _Formula] = {
    "torchvision::deform_conv2d": _convolution("input"),
    "torchvision::_deform_conv2d_backward": _backward_of("grad", mask=None),
    "torch_attn::_varlen_attn": _attention(2, False),
    "torch_attn::_varlen_attn_out": _attention(2, False),
    "torch_attn::_varlen_attn_backward": _attention(4, False),
}
_FORMULAS = _table()
