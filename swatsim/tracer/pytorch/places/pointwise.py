"""Rules for what computes each value from those at the same place, or along some axes."""

from __future__ import annotations

from collections.abc import Iterable

from swatsim.tracer.pytorch.places.call import Call, Rule, alike
from swatsim.tracer.pytorch.places.moves import spans
from swatsim.tracer.pytorch.places.place import (
    MIXED,
    Known,
    State,
    along,
    join,
    moved,
)


def pointwise(call: Call) -> State:
    """Of values at the same place of all arguments, broadcast.

    What is mixed but the same for all samples, such as a statistic, moves none of them.
    """
    dims, states, mixed = call.first.dim(), [], []
    for tensor, state in call.states():
        if state is MIXED:
            mixed.append(tensor)
        else:
            axis = along(state)
            states.append(state if axis is None else moved(state, axis + dims - tensor.dim()))
    found = join(states)
    return MIXED if mixed and any(spans(one, found, dims) for one in mixed) else found


def _dims(call: Call, dims: int) -> set[int]:
    """Return the axes that an operation works along: all, if it names none."""
    given = call.arg("dim")
    if given is None or given == []:
        return set(range(dims))
    return {dim % dims for dim in ([given] if isinstance(given, int) else given)}


def _within(call: Call) -> State:
    """Of what works along some axes and leaves all of them there."""
    state = pointwise(call)
    axis = along(state)
    return state if axis is None or axis not in _dims(call, call.first.dim()) else MIXED


def _flip(call: Call) -> State:
    x = call.arg("self")
    return MIXED if along(call.at(x)) in {dim % x.dim() for dim in call.arg("dims")} else call.at(x)


def _reduced(call: Call) -> State:
    """Of what reduces some axes."""
    x = call.arg("self")
    state = call.at(x)
    axis = along(state)
    if axis is None or not call.only(x):
        return state if call.only(x) else MIXED
    dims = _dims(call, x.dim())
    if axis in dims:
        return MIXED
    return state if call.arg("keepdim") else moved(state, axis - sum(dim < axis for dim in dims))


def _before(count: int) -> Rule:
    """Return a rule for what works along the last `count` axes, such as pooling."""

    def rule(call: Call) -> State:
        tensors = [tensor for tensor, _ in call.states()]
        if len(tensors) != 1:
            state = join(state for _, state in call.states())
        else:
            ((_, state),) = call.states()
        axis = along(state)
        dims = min(tensor.dim() for tensor in tensors)
        return state if axis is None or axis < dims - count else MIXED

    return alike(rule)


def _rows(call: Call) -> State:
    """Of what works on rows, each a sample's: the first axis."""
    state = join(state for _, state in call.states())
    return state if along(state) == 0 else MIXED


def _layer_norm(call: Call) -> State:
    x = call.arg("input")
    state = call.at(x)
    axis = along(state)
    last = x.dim() - len(call.arg("normalized_shape"))
    return state if call.only(x) and (axis is None or axis < last) else MIXED


def _group_norm(call: Call) -> State:
    x = call.arg("input")
    return call.at(x) if call.only(x) and along(call.at(x)) == 0 else MIXED


def _batch_norm(call: Call) -> list[Known]:
    """Of a normalization by statistics of the batch, that leaves its rows where they are."""
    x = call.arg("input") if call.arg("input") is not None else call.arg("self")
    state, others = call.at(x), [pair for pair in call.states() if pair[0] is not x]
    channels = all(state is MIXED or along(state) == 0 for _, state in others)
    return [state if channels else MIXED]


def _searched(call: Call) -> State:
    x = call.arg("self")
    return call.at(x) if call.only(x) else MIXED


_LIKE = ("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like")
_RANDOM = ("bernoulli", "normal", "normal_", "uniform_", "bernoulli_", "exponential_", "random_")
_ELEMENTS = (
    *(
        "fill",
        "fill_",
        "zero",
        "zero_",
        "dropout",
        "native_dropout",
        "log_sigmoid_forward",
        "prelu",
    ),
    *("_prelu_kernel", "rrelu_with_noise", "hardswish", "complex", "polar", "_conj", "_neg_view"),
    *("real", "imag", "resolve_conj", "resolve_neg", "tril", "triu", "isnan", "isinf", "glu_jvp"),
    *("fake_quantize_per_tensor_affine_cachemask", "_fused_dropout", "cauchy_", "geometric_"),
    *("fake_quantize_per_tensor_affine", "log_normal_", "randint_like", "floor_divide", "softplus"),
    *("_fake_quantize_per_tensor_affine_cachemask_tensor_qparams", "masked_fill", "frexp"),
)
_WITHIN = (
    *("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax", "cumsum", "cumprod"),
    *("logcumsumexp", "cummax", "cummin", "topk", "glu", "linalg_cross"),
    *("_fft_r2c", "_fft_c2c", "_fft_c2r"),
)
_REDUCED = (
    *("sum", "mean", "amax", "amin", "prod", "any", "all", "var", "std", "var_mean", "std_mean"),
    *("max", "min", "argmax", "argmin", "norm", "linalg_vector_norm", "logsumexp", "median"),
    *("nanmedian", "mode", "kthvalue", "count_nonzero", "nansum", "aminmax"),
)
_ROWS = (
    *("grid_sampler_2d", "grid_sampler_3d", "channel_shuffle", "affine_grid_generator"),
    *("_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"),
)
_NORMS = (
    *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional"),
    *("_native_batch_norm_legit_no_training", "_batch_norm_with_update", "cudnn_batch_norm"),
    *("miopen_batch_norm", "batch_norm_elemt", "_batch_norm_no_update"),
)
_RESIZED = (
    *("upsample_nearest", "_upsample_nearest_exact", "upsample_linear", "upsample_bilinear"),
    *("upsample_bicubic", "upsample_trilinear", "_upsample_bilinear_aa", "_upsample_bicubic_aa"),
)


def _spatial() -> dict[str, Rule]:
    """Return rules for what resizes and pools the last axes."""
    rules: dict[str, Rule] = {}
    for axes in (1, 2, 3):
        d = f"{axes}d"
        names: Iterable[str] = [
            name.replace("_aa", f"{d}_aa") for name in _RESIZED if "_aa" in name
        ]
        names = [*names, *(f"{name}{d}" for name in _RESIZED if "_aa" not in name)]
        names = [*names, f"avg_pool{d}", f"_adaptive_avg_pool{d}", f"adaptive_avg_pool{d}"]
        names = [*names, f"max_pool{d}_with_indices", f"adaptive_max_pool{d}", f"max_pool{d}"]
        names = [*names, f"reflection_pad{d}", f"replication_pad{d}", f"max_unpool{d}"]
        rules |= dict.fromkeys((*names, f"fractional_max_pool{d}"), _before(axes))
    return rules


_MATRICES = (
    *("linalg_inv_ex", "linalg_cholesky_ex", "_linalg_svd", "linalg_qr", "_linalg_eigh"),
    *("_linalg_det", "_linalg_slogdet", "linalg_lu_factor_ex"),
)

POINTWISE: dict[str, Rule] = {
    **dict.fromkeys((*_LIKE, *_RANDOM, *_ELEMENTS), alike(pointwise)),
    **dict.fromkeys(_WITHIN, alike(_within)),
    **dict.fromkeys(_REDUCED, alike(_reduced)),
    **dict.fromkeys(_ROWS, alike(_rows)),
    **dict.fromkeys(_NORMS, _batch_norm),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm", "rms_norm"), alike(_layer_norm)),
    **dict.fromkeys(("searchsorted", "bucketize"), _searched),
    **_spatial(),
    **dict.fromkeys(_MATRICES, _before(2)),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "im2col"), _before(3)),
    "col2im": _before(2),
    "max.other": pointwise,
    "min.other": pointwise,
    "native_group_norm": alike(_group_norm),
    "flip": _flip,
}
