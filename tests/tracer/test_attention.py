"""Attention modules in a tracer, against one written by hand."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Tracer  # noqa: E402
from tests.tracer.test_pytorch import keep, numpy  # noqa: E402

HALF = SwatU(0.5)


class Half(torch.autograd.Function):
    """A linear layer by SWAT's formulas, half of its values kept by a stable sort."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        kept, sparse = (torch.tensor(keep(numpy(values), 50)) for values in (x, weight))
        ctx.save_for_backward(kept, sparse)
        return x @ sparse.T

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return dy @ weight, dy.flatten(0, -2).T @ x.flatten(0, -2)


def by_hand(
    own: nn.MultiheadAttention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    hidden: Tensor | None = None,
    padded: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of (T, N, C); `hidden` (T, S) and `padded` (N, S) mark what nobody looks at."""
    if own.in_proj_weight is not None:
        weights = own.in_proj_weight.chunk(3)
    else:
        weights = (own.q_proj_weight, own.k_proj_weight, own.v_proj_weight)
    heads = []
    biases = [0, 0, 0] if own.in_proj_bias is None else own.in_proj_bias.chunk(3)
    for x, weight, bias, more in zip(
        (q, k, v), weights, biases, (None, own.bias_k, own.bias_v), strict=True
    ):
        y = Half.apply(x, weight) + bias
        if more is not None:
            y = torch.cat([y, more.expand(1, y.shape[1], -1)])
        heads.append(y.unflatten(-1, (own.num_heads, -1)).permute(1, 2, 0, 3))  # N, heads, T, D
    scores = heads[0] @ heads[1].mT / math.sqrt(heads[0].shape[-1])
    for mask in (hidden, None if padded is None else padded[:, None, None]):
        if mask is not None:
            wide = functional.pad(mask, (0, scores.shape[-1] - mask.shape[-1]))
            scores = scores.masked_fill(wide, -math.inf)
    seen = scores.softmax(-1)
    y = (seen @ heads[2]).permute(2, 0, 1, 3).flatten(2)
    y = Half.apply(y, own.out_proj.weight)
    return y if own.out_proj.bias is None else y + own.out_proj.bias, seen.mean(1)


KINDS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"batch_first": True},
    {"kdim": 6, "vdim": 4},
    {"vdim": 4, "batch_first": True, "bias": False},
    {"kdim": 8, "vdim": 6, "add_bias_kv": True},
    {"add_bias_kv": True},
]


@pytest.mark.parametrize("needs_weights", [True, False])
@pytest.mark.parametrize("inputs", ["self", "cross", "all", "alias"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_attention(kind: dict[str, Any], inputs: str, needs_weights: bool, tmp_path: Path) -> None:
    torch.manual_seed(6)
    own = nn.MultiheadAttention(8, 2, dtype=torch.double, **kind)
    if own.in_proj_bias is not None:
        nn.init.normal_(own.in_proj_bias)
    T, S, N = 4, 4 if inputs == "self" else 5, 3
    kdim, vdim = kind.get("kdim", 8), kind.get("vdim", 8)
    q = torch.randn(T, N, 8, dtype=torch.double)
    k = torch.randn(S, N, kdim, dtype=torch.double)
    v = torch.randn(S, N, vdim, dtype=torch.double)
    if inputs == "self" and kdim == vdim == 8:
        k = v = q
    elif inputs == "cross" and kdim == vdim:
        v = k
    elif inputs == "alias" and kdim == vdim == 8:
        k, v = q[:], q.clone()
    leaves = {id(x): x.requires_grad_() for x in (q, k, v) if x.is_leaf}
    given = (q, k, v)
    if own.batch_first:
        made = {id(x): x.transpose(0, 1) for x in given}
        given = tuple(made[id(x)] for x in given)
    hidden = torch.ones(T, k.shape[0], dtype=torch.bool).triu(1)
    padded = torch.zeros(N, k.shape[0], dtype=torch.bool)
    padded[1, -1] = True
    options = {"attn_mask": hidden, "key_padding_mask": padded, "need_weights": needs_weights}
    twin = copy.deepcopy(own)
    with Tracer(own, HALF, tmp_path, steps=(0,), images=2) as tracer:
        y, seen = own(*given, **options)
        dy = torch.randn_like(y)
        y.backward(dy)
        tracer.step()
    gradients = [x.grad.clone() for x in leaves.values()]
    for x in leaves.values():
        x.grad = None
    expected, weights = by_hand(twin, q, k, v, hidden, padded)
    y = y.transpose(0, 1) if own.batch_first else y
    expected.backward(dy.transpose(0, 1) if own.batch_first else dy)
    torch.testing.assert_close(y, expected)
    if needs_weights:
        torch.testing.assert_close(seen, weights)
    for x, gradient in zip(leaves.values(), gradients, strict=True):
        torch.testing.assert_close(x.grad, gradient)
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(own.get_parameter(name).grad, parameter.grad, msg=name)

    step = open_trace(tmp_path).step(0)
    kinds = [record.layer.rpartition(".")[2] for record in step.check()]
    assert [kinds.count(kind) for kind in ("scores", "values")] == [7, 7]  # six, and what is masked
    assert len(kinds) == 24 + 14
    parts = (
        twin.in_proj_weight.chunk(3)
        if twin.in_proj_weight is not None
        else (twin.q_proj_weight, twin.k_proj_weight, twin.v_proj_weight)
    )
    for letter, x, weight in zip("qkv", (q, k, v), parts, strict=True):
        name = f"MultiheadAttention.in_proj_{letter}"
        kept = keep(numpy(x), 50).transpose(1, 2, 0)[:2, ..., None] != 0
        np.testing.assert_array_equal(step.mask(name, "wgrad", "act"), kept)
        mask = step.mask(name, "dgrad", "weight").reshape(weight.shape)
        np.testing.assert_array_equal(mask, keep(numpy(weight), 50) != 0)
    last = numpy(dy if own.batch_first else dy.transpose(0, 1)).transpose(0, 2, 1)[:2, ..., None]
    mask = step.mask("MultiheadAttention.out_proj", "dgrad", "grad_out")
    np.testing.assert_array_equal(mask, last != 0)


def test_attention_without_a_batch(tmp_path: Path) -> None:
    torch.manual_seed(7)
    own = nn.MultiheadAttention(8, 2, dtype=torch.double)
    x = torch.randn(5, 8, dtype=torch.double)
    with Tracer(own, HALF, tmp_path, steps=(0,)) as tracer:
        y, _ = own(x, x, x)
        y.sum().backward()
        tracer.step()
    torch.testing.assert_close(y, by_hand(own, *[x[:, None]] * 3)[0][:, 0])
    kept = keep(numpy(x), 50).T[None, ..., None] != 0
    step = open_trace(tmp_path).step(0)
    np.testing.assert_array_equal(step.mask("MultiheadAttention.in_proj_q", "wgrad", "act"), kept)


def encoder(batch_first: bool = True, **more: Any) -> nn.Module:
    torch.manual_seed(8)
    layer = nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0, batch_first=batch_first, dtype=torch.double, **more
    )
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@pytest.mark.parametrize("way", ["eval", "no_grad", "inference_mode"])
def test_inference_is_sparse(way: str, tmp_path: Path) -> None:
    torch.manual_seed(9)
    own = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.double)
    x = torch.randn(3, 4, 8, dtype=torch.double)
    dense = own(x, x, x)[0]
    modes = {"eval": torch.enable_grad, "no_grad": torch.no_grad}
    with Tracer(own, HALF, tmp_path, steps=(0,)):
        own.eval()
        with modes.get(way, torch.inference_mode)():
            y = own(x, x, x, need_weights=False)[0]
    expected = by_hand(own, *[x.transpose(0, 1)] * 3)[0].transpose(0, 1)
    torch.testing.assert_close(y.clone(), expected)
    assert not torch.allclose(y, dense)
    torch.testing.assert_close(own(x, x, x)[0], dense)


def test_an_encoder_in_eval_mode_is_sparse(tmp_path: Path) -> None:
    model = encoder().eval()
    x = torch.randn(3, 4, 8, dtype=torch.double)
    with torch.no_grad():
        dense = model(x)
        with Tracer(model, HALF, tmp_path, steps=()):
            sparse = model(x)
            slow = model.train()(x)
            model.eval()
        assert torch.equal(model(x), dense)
    torch.testing.assert_close(sparse, slow)
    assert not torch.allclose(sparse, dense)


@pytest.mark.parametrize("kind", ["encoder", "post", "decoder", "norm_first"])
def test_without_sparsity_transformers_train_as_ever(kind: str, tmp_path: Path) -> None:
    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(10)
        x = torch.randn(3, 4, 8, dtype=torch.double)
        if kind == "decoder":
            layer = nn.TransformerDecoderLayer(
                8, 2, 12, dropout=0, batch_first=True, dtype=torch.double
            )
            memory = torch.randn(3, 5, 8, dtype=torch.double)
            return nn.TransformerDecoder(layer, 2), (x, memory)
        if kind == "encoder":
            return encoder(), (x,)
        return encoder(norm_first=kind == "norm_first", activation="gelu"), (x,)

    def steps(model: nn.Module, inputs: tuple[Tensor, ...], tracer: Tracer | None = None) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(*inputs).square().mean().backward()
            optimizer.step()
            if tracer:
                tracer.step()

    model, inputs = make()
    untouched, _ = make()
    with Tracer(model, SwatU(0), tmp_path, steps=(0, 2)) as tracer:
        steps(model, inputs, tracer)
    steps(untouched, inputs)
    for name, parameter in untouched.named_parameters():
        torch.testing.assert_close(
            model.get_parameter(name), parameter, rtol=1e-6, atol=1e-8, msg=name
        )


@pytest.mark.parametrize("batch_first", [True, False])
def test_what_an_encoder_records(batch_first: bool, tmp_path: Path) -> None:
    model, seen = encoder(batch_first), {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention | nn.Linear):
            module.register_forward_pre_hook(
                lambda m, given, kwargs=None, name=name: seen.__setitem__(name, numpy(given[0]))
            )
    x = torch.randn(*((5, 4) if batch_first else (4, 5)), 8, dtype=torch.double)
    axis = 0 if batch_first else 1
    with Tracer(model, HALF, tmp_path, steps=(0,), images=3, batch_axis=axis) as tracer:
        model(x).square().mean().backward()
        tracer.step()
    step = open_trace(tmp_path).step(0)
    for name in (
        "layers.0.self_attn.in_proj_q",
        "layers.1.self_attn.in_proj_v",
        "layers.1.linear2",
    ):
        values = seen[name.partition(".in_proj")[0]]
        first = values if batch_first else values.transpose(1, 0, 2)
        kept = keep(first, 50) != 0  # no ties: the order does not matter
        expected = kept[:3].transpose(0, 2, 1)[..., None]
        np.testing.assert_array_equal(step.mask(name, "wgrad", "act"), expected, err_msg=name)


def test_the_fast_path_is_left_as_it_is(tmp_path: Path) -> None:
    enabled, linear = torch.backends.mha.get_fastpath_enabled, functional.linear
    first, second = (Tracer(encoder(), HALF, tmp_path / name, steps=()) for name in "ab")
    assert enabled()
    first.close()
    assert enabled()
    second.close()
    assert functional.linear is linear


def test_an_exception_inside_attention_leaves_nothing(tmp_path: Path) -> None:
    linear = functional.linear
    own = nn.MultiheadAttention(8, 2)
    x = torch.randn(4, 3, 8)
    with Tracer(own, HALF, tmp_path, steps=(0,)):
        with pytest.raises(AssertionError, match="embedding"):
            own(x[..., :7], x, x)
        assert functional.linear is linear
        own(x, x, x)
    assert torch.backends.mha.get_fastpath_enabled()
    assert functional.linear is linear
    assert "forward" not in vars(own)
