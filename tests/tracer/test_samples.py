"""Where samples are, held against values: what changes when one sample of the input does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from swatsim.tracer.pytorch.places.place import Place as _Place
from swatsim.tracer.pytorch.samples import MIXED, Mixed, Place, Samples

N = 3


class Following(TorchDispatchMode):
    """Follows each operation, and keeps what it returned."""

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self.samples = samples
        self.seen: list[tuple[Any, Tensor, Tensor, Place | Mixed | None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.samples.follow(func, args, kwargs, out)
        for one in out if isinstance(out, tuple | list) else [out]:
            if isinstance(one, Tensor):  # a copy: it may be changed in place later
                self.seen.append((func, one, one.detach().clone(), self.samples.of(one)))
        return out


def followed(model: Callable[..., Any], *inputs: Tensor, axis: int = 0) -> tuple[Any, Following]:
    """Run a model on inputs that have their samples on an axis."""
    samples = Samples(inputs[0].shape[axis])
    for one in inputs:
        samples.seed(one, axis)
    torch.manual_seed(1)
    with Following(samples) as following:
        out = model(*inputs)
    return out, following


def place_of(model: Callable[..., Any], *inputs: Tensor, axis: int = 0) -> Place | Mixed | None:
    out, following = followed(model, *inputs, axis=axis)
    return following.samples.of(out)


def changed(before: Tensor, after: Tensor, place: Place, batch: int) -> list[bool]:
    """Return which samples differ, of a tensor that has them at a place."""
    differs = ~torch.isclose(before, after, rtol=1e-4, atol=1e-6, equal_nan=True)
    cut = (*before.shape[: place.axis], place.outer, batch, place.inner)
    differs = differs.reshape(*cut, *before.shape[place.axis + 1 :])
    return [bool(differs.select(place.axis + 1, n).any()) for n in range(batch)]


def check(model: Callable[..., Any], *inputs: Tensor, axis: int = 0) -> Place | Mixed | None:
    """Return where the output's samples are, each tensor's place held against its values.

    One sample of the first input is changed at a time: no entry of another may change.
    """
    x, batch = inputs[0], inputs[0].shape[axis]
    out, first = followed(model, *inputs, axis=axis)
    known = 0
    for m in {0, batch - 1}:
        other = x.clone()
        part = other.select(axis, m)
        part.copy_(part + 1 if not x.is_floating_point() else part + 0.1 * torch.randn(part.shape))
        _, second = followed(model, other, *inputs[1:], axis=axis)
        assert [func for func, *_ in first.seen] == [func for func, *_ in second.seen]
        for (func, _, a, place), (_, _, b, again) in zip(first.seen, second.seen, strict=True):
            assert place == again
            if isinstance(place, _Place):
                which = changed(a, b, place, batch)
                assert not any(which[:m] + which[m + 1 :]), (func, a.shape, place)
                known += which[m]
    assert known, "nothing was followed"
    return first.samples.of(out)


def weights(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / shape[-1] ** 0.5


def windows(x: Tensor) -> Tensor:
    """Swin: pad, shift, fold 2 x 2 windows into the batch, a layer, and back."""
    B, H, W, C = x.shape
    x = functional.pad(x, (0, 0, 0, W % 2, 0, H % 2))
    x = torch.roll(x, shifts=(-1, -1), dims=(1, 2))
    h, w = x.shape[1] // 2, x.shape[2] // 2
    x = x.view(B, h, 2, w, 2, C).permute(0, 1, 3, 2, 4, 5).reshape(B * h * w, 4, C)
    mask = torch.zeros(h * w, 4, 4)
    scores = (x @ x.transpose(1, 2)).view(B, h * w, 4, 4) + mask.unsqueeze(0)
    x = scores.view(-1, 4, 4).softmax(-1) @ x
    x = functional.linear(x, weights(C, C))
    x = x.view(B, h, w, 2, 2, C).permute(0, 1, 3, 2, 4, 5).reshape(B, 2 * h, 2 * w, C)
    return torch.roll(x, shifts=(1, 1), dims=(1, 2))[:, :H, :W, :].contiguous()


def heads_folded(x: Tensor) -> Tensor:
    """Attention on (N x heads, T, D), as fairseq and BLOOM have it."""
    B, T, C = x.shape
    q, k, v = functional.linear(x, weights(3 * C, C)).chunk(3, dim=-1)
    q, k, v = (y.reshape(B, T, 2, C // 2).transpose(1, 2).reshape(2 * B, T, -1) for y in (q, k, v))
    bias = weights(2, T, T).unsqueeze(0).expand(B, 2, T, T).reshape(2 * B, T, T)
    out = torch.baddbmm(bias, q, k.transpose(1, 2)).softmax(-1) @ v
    return out.view(B, 2, T, C // 2).transpose(1, 2).reshape(B, T, C)


def einsums(x: Tensor) -> Tensor:
    q = torch.einsum("ntc,chd->nhtd", x, weights(4, 2, 3))
    scores = torch.einsum("nhtd,nhsd->nhts", q, q).log_softmax(-1)
    return torch.einsum("nhts,nhsd->tnhd", scores, q)


def unet(x: Tensor) -> Tensor:
    down = functional.conv2d(x, weights(4, 2, 3, 3), padding=1)
    low = functional.max_pool2d(functional.group_norm(down.relu_(), 2), 2)
    up = functional.interpolate(low, scale_factor=2.0, mode="bilinear")
    up = functional.conv_transpose2d(torch.cat((up, down), 1), weights(8, 3, 2, 2), stride=2)
    return functional.adaptive_avg_pool2d(up, 1).flatten(1)


def frames(x: Tensor) -> Tensor:
    """A video: frames folded into the batch, averaged over them in the end."""
    B, T = x.shape[:2]
    y = functional.conv2d(x.flatten(0, 1), weights(4, 2, 3, 3), stride=2)
    return y.unflatten(0, (B, T)).mean((1, 3, 4))


def cell(x: Tensor) -> Tensor:
    """A recurrent cell by hand over (T, N, C)."""
    h, out = torch.zeros(x.shape[1], 4), []
    for step in x.unbind(0):
        z, candidate = functional.linear(torch.cat((step, h), 1), weights(8, 8)).split(4, 1)
        h = torch.lerp(h, candidate.tanh(), z.sigmoid())
        out.append(h)
    return torch.stack(out)


def dynamic_convolution(x: Tensor) -> Tensor:
    """A kernel for each sample: samples folded into the channels of a grouped convolution."""
    B, C, H, W = x.shape
    kernels = functional.linear(x.mean((2, 3)), weights(5 * C * 9, C)).view(B * 5, C, 3, 3)
    y = functional.conv2d(x.reshape(1, B * C, H, W), kernels, padding=1, groups=B)
    return y.view(B, 5, H, W)


def mixture(x: Tensor, route: Tensor, how: str) -> Tensor:
    """Experts whose tokens are picked and put back, in the ways that people write it."""
    tokens, experts = x.flatten(0, 1), route.flatten()
    out = torch.zeros_like(tokens)
    if how == "sorted":
        order = torch.argsort(torch.stack((experts, 1 - experts), 1).view(-1))
        y = functional.linear(tokens[order // 2], weights(4, 4))
        y = torch.cat([y[:5] * 2, y[5:]])
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order))
        return y[inverse].view(-1, 2, 4).sum(1).view_as(x)
    for expert in range(2):
        rows = (experts == expert).nonzero()[:, 0]
        if how == "mask":
            rows = experts == expert
        y = functional.linear(tokens[rows], weights(4, 4, seed=expert)).relu()
        if how == "add":
            out.index_add_(0, rows, y * 2)
        else:
            out[rows] = y
    return out.view_as(x)


def test_models() -> None:
    torch.manual_seed(0)
    x = torch.randn(N, 5, 4)
    image = torch.randn(N, 2, 6, 6)
    assert check(windows, torch.randn(N, 3, 5, 4)) == Place(0)
    assert check(heads_folded, x) == Place(0)
    assert check(einsums, x) == Place(1)
    assert check(unet, image) == Place(0)
    assert check(frames, torch.randn(N, 4, 2, 5, 5)) == Place(0)
    assert check(cell, torch.randn(5, N, 4), axis=1) == Place(1)
    assert check(dynamic_convolution, image) == Place(0)
    assert check(lambda x: functional.linear(x.flatten(0, 1), weights(2, 4)), x) == Place(0, 1, 5)
    assert check(lambda x: x.permute(1, 0, 2).flatten(0, 1) * 2, x) == Place(0, 5)
    assert check(lambda x: functional.unfold(x, 3).sum(-1), image) == Place(0)
    assert check(lambda x: torch.cdist(weights(6, 4), x[:, 0]), x) == Place(1)
    assert check(lambda x: torch.mv(x[:, 0], weights(4)), x) == Place(0)
    assert check(lambda x: torch.fft.rfft(x, dim=1).abs(), x) == Place(0)
    assert check(lambda x: functional.layer_norm(x, (4,)).mT @ x, x) == Place(0)


@pytest.mark.parametrize("first", [True, False])
def test_modules_of_torch(first: bool) -> None:
    torch.manual_seed(0)
    axis = 0 if first else 1
    x = torch.randn(N, 5, 4) if first else torch.randn(5, N, 4)
    attention = nn.MultiheadAttention(4, 2, batch_first=first)
    assert check(lambda x: attention(x, x, x, need_weights=False)[0], x, axis=axis) == Place(axis)
    assert check(lambda x: attention(x, x, x)[1], x, axis=axis) == Place(0)
    block = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=first)
    assert check(block, x, axis=axis) == Place(axis)
    for kind in (nn.LSTM, nn.GRU):
        network = kind(4, 3, 2, bidirectional=True, batch_first=first)
        assert check(lambda x, run=network: run(x)[0], x, axis=axis) == Place(axis)
        states = check(lambda x, run=network: run(x)[1][0], x, axis=axis)
        assert states in (Place(1), Place(0))


def test_attention_with_fewer_keys_and_a_mask_for_each_sample() -> None:
    torch.manual_seed(0)

    def model(x: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(5) < lengths[:, None, None, None]
        k = x[:, :1].expand(-1, 2, -1, -1)
        return functional.scaled_dot_product_attention(x, k, k, attn_mask=mask)

    x, lengths = torch.randn(N, 2, 5, 4), torch.tensor([5, 3, 4])
    assert check(model, x, lengths) == Place(0)
    swapped = lambda x, lengths: model(x, lengths.flip(0))  # noqa: E731
    assert place_of(swapped, x, lengths) is MIXED


@pytest.mark.parametrize("how", ["add", "put", "mask", "sorted"])
def test_tokens_that_come_back_from_their_experts(how: str) -> None:
    torch.manual_seed(0)
    x, route = torch.randn(N, 4, 4), torch.tensor([[0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
    assert check(lambda x, route: mixture(x, route, how), x, route) == Place(0)
    _, following = followed(lambda x, route: mixture(x, route, how), x, route)
    inside = [place for func, _, _, place in following.seen if func.__name__.startswith("mm")]
    assert inside
    assert all(place is MIXED for place in inside)


def test_tokens_under_a_mask() -> None:
    """Picked from (T, N, C) by a mask of positions and samples: the second axis has the samples."""
    mask = torch.randn(5, N, generator=torch.Generator().manual_seed(0)) > 0

    def model(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[mask] = x[mask].exp()
        return out

    assert check(model, torch.randn(5, N, 4), axis=1) == Place(1)


def test_rows_put_back_elsewhere_are_mixed() -> None:
    x, a, b = torch.randn(6, 4), torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5])
    for into in (
        lambda x: torch.zeros(6, 4).index_add_(0, b, x[a]),
        lambda x: torch.zeros(6, 4).index_add_(0, a, x[a][[2, 1, 0]]),
        lambda x: torch.zeros(6, 4).index_add_(0, a, x[a].flip(0)),
        lambda x: torch.zeros(6, 4).index_put((a,), x[a][:1]),
        lambda x: torch.zeros(6, 4).index_copy(0, a, x[b]),
        lambda x: x[torch.argsort(x[:, 0])][torch.argsort(x[:, 1])],
        lambda x: torch.zeros(6).index_copy(0, a.clone().add_(1), x[:, 0][a]),
    ):
        assert place_of(into, x) is MIXED


def test_an_index_changed_in_place_is_another() -> None:
    def model(x: Tensor) -> Tensor:
        index = torch.tensor([0, 2, 4])
        rows = x[index]
        return torch.zeros(6, 4).index_copy(0, index.add_(1), rows)

    def counted(x: Tensor) -> Tensor:
        index = torch.arange(5, -1, -1) if x.dim() == 1 else torch.arange(6).neg_().add_(5)
        return x[index]

    assert place_of(model, torch.randn(6, 4)) is MIXED
    assert place_of(counted, torch.randn(6, 4)) is MIXED


@pytest.mark.parametrize(
    "mixing",
    [
        lambda x: x @ x.T,
        lambda x: x.sum(),
        lambda x: x.mean(0),
        lambda x: x.softmax(0),
        lambda x: x.cumsum(0),
        lambda x: x.flip(0),
        lambda x: x.roll(1, 0),
        lambda x: x.roll(1),
        lambda x: x[[2, 0, 1]],
        lambda x: x[1:],
        lambda x: x[0],
        lambda x: x.unbind()[0],
        lambda x: x.topk(2, 0)[0],
        lambda x: x.sort(0)[0],
        lambda x: x[x[:, 0] > 0],
        lambda x: x + x.flip(0),
        lambda x: torch.cat((x, torch.zeros(1, 4))),
        lambda x: functional.pad(x, (0, 0, 1, 0)),
        lambda x: x.T @ x,
        lambda x: torch.einsum("nc,nd->cd", x, x),
        lambda x: torch.gather(x, 0, torch.zeros(3, 4, dtype=torch.long)),
        lambda x: torch.zeros(3, 4).scatter_(0, torch.zeros(3, 4, dtype=torch.long), x),
        lambda x: torch.zeros(3, 4).index_add_(0, torch.tensor([2, 1, 0]), x),
        lambda x: x.repeat_interleave(torch.tensor([1, 2, 3]), 0),
        lambda x: x.unfold(0, 2, 1),
        lambda x: x.view(2, 6),
        lambda x: x[:, :3].diagonal(),
        lambda x: functional.conv1d(x.T[None], torch.ones(1, 4, 2)),
        lambda x: torch.cdist(x, x),
        lambda x: x.as_strided((4, 3), (3, 1)),
        lambda x: torch.linalg.solve(torch.eye(3), x),
        lambda x: functional.layer_norm(x, (3, 4)),
    ],
)
def test_what_mixes_samples(mixing: Callable[[Tensor], Tensor]) -> None:
    assert place_of(mixing, torch.randn(3, 4)) is MIXED


def test_parameters_and_constants_are_never_seen() -> None:
    position = nn.Parameter(torch.randn(1, 5, 4))

    def model(x: Tensor) -> Tensor:
        token = position[:, :1].expand(len(x), -1, -1)
        return torch.cat((token, x + position), 1)

    x = torch.randn(N, 5, 4)
    out, following = followed(model, x)
    assert following.samples.of(position) is None
    assert following.samples.of(torch.zeros(N)) is None
    assert following.samples.of(out) == Place(0)
    assert place_of(lambda x: x.new_zeros(5, 5), x) is None


def test_positions_as_many_as_samples_are_none() -> None:
    """Equal sizes say nothing: N tokens of N samples, N channels."""
    x = torch.randn(4, 4, 4)
    assert check(lambda x: x.transpose(0, 1).contiguous(), x) == Place(1)
    assert check(lambda x: (x @ x.mT).permute(2, 1, 0), x) == Place(2)
    assert check(lambda x: functional.linear(x, weights(4, 4)).flatten(0, 1), x) == Place(0, 1, 4)
    assert place_of(lambda x: x + x.transpose(0, 1), x) is MIXED
    assert place_of(lambda x: weights(4, 4)[torch.arange(4)], x) is None


def test_batches_that_follow_each_other() -> None:
    x = torch.randn(N, 4)
    assert check(lambda x: torch.cat((x, x * 2)), x) == Place(0, 2)
    assert check(lambda x: torch.cat((x, x * 2)).chunk(2)[1], x) == Place(0)
    assert check(lambda x: torch.stack((x, x)).flatten(0, 1).exp(), x) == Place(0, 2)
    assert check(lambda x: x.repeat(2, 1) + 1, x) == Place(0, 2)
    assert check(lambda x: x.repeat_interleave(2, 0)[1::2], x) == Place(0)
    assert place_of(lambda x: torch.cat((x, x.repeat_interleave(2, 0))), x) is MIXED
    assert place_of(lambda x: x.repeat(2, 1)[1 : N + 1], x) is MIXED


def test_what_is_the_same_for_all_samples_moves_none() -> None:
    x = torch.randn(N, 5, 4)
    assert place_of(lambda x: x * (x.abs() > x.abs().mean()), x) == Place(0)
    assert place_of(lambda x: x * (x > x.flatten().kthvalue(9)[0]), x) == Place(0)
    assert place_of(lambda x: (x - x.mean(0)) / x.std((0, 1)), x) == Place(0)
    assert place_of(nn.BatchNorm1d(5), x) == Place(0)
    legit = torch.ops.aten._native_batch_norm_legit.default
    mean, var = torch.zeros(5), torch.ones(5)
    found = place_of(lambda x: legit(x, None, None, mean, var, True, 0.1, 1e-5)[0], x)
    assert found == Place(0)
    assert place_of(lambda x: x[:, x.mean((0, 2)).topk(2)[1]], x) == Place(0)

    def largest(x: Tensor) -> Tensor:
        flat = x.flatten()
        mask = torch.zeros_like(flat).scatter_(0, flat.topk(9)[1], 1.0)
        return x * mask.view_as(x)

    assert place_of(largest, x) == Place(0)


def test_pooled_by_an_index_of_its_own() -> None:
    """The last token of each sample, of its own length: CLIP, GPT-2 for classification."""
    x, ids = torch.randn(N, 5, 4), torch.randint(0, 9, (N, 5))

    def last(x: Tensor, ids: Tensor) -> Tensor:
        return x[torch.arange(len(x)), ids.argmax(-1)]

    def masks(x: Tensor, ids: Tensor) -> Tensor:
        rows = torch.arange(len(x))[:, None, None]
        return x.sum(-1)[rows, torch.arange(5)[None, None]].expand(-1, 5, -1)

    assert check(last, x, ids) == Place(0)
    assert check(masks, x, ids) == Place(0)
    assert check(lambda x, ids: x.gather(1, ids[..., None] // 3) + 1, x, ids) == Place(0)
    assert check(lambda x, i: x.index_put((torch.arange(N), i[:, 0] // 3), x[:, 0]), x, ids) == (
        Place(0)
    )
    reversed_rows = torch.arange(N - 1, -1, -1)
    assert place_of(lambda x, ids: x[reversed_rows, ids.argmax(-1)], x, ids) is MIXED


def test_ids_are_samples() -> None:
    ids = torch.randint(0, 8, (N, 5))
    table, bias = weights(9, 4), weights(9, 2)
    assert check(lambda ids: functional.embedding(ids, table), ids) == Place(0)
    assert check(lambda ids: bias[ids].permute(2, 0, 1) * 2, ids) == Place(1)
    assert check(lambda ids: functional.embedding_bag(ids, table), ids) == Place(0)
    assert place_of(lambda ids: functional.embedding_bag(ids.T, table), ids) is MIXED
    assert check(lambda ids: functional.one_hot(ids, 9).float() @ table, ids) == Place(0)


def test_boxes_and_nodes_are_mixed() -> None:
    def boxes(x: Tensor) -> Tensor:
        found = (x.mean(1) > 0).nonzero()
        return functional.linear(x[found[:, 0], :, found[:, 1], found[:, 2]], weights(3, 2))

    def nodes(x: Tensor) -> Tensor:
        source, target = torch.tensor([0, 1, 2, 5]), torch.tensor([1, 2, 3, 0])
        return torch.zeros(6, 4).index_add_(0, target, x[source])

    assert place_of(boxes, torch.randn(N, 2, 4, 4)) is MIXED
    assert place_of(nodes, torch.randn(6, 4)) is MIXED


def test_writing_in_place() -> None:
    def into(x: Tensor) -> Tensor:
        out = torch.zeros(5, len(x), 4)
        for t in range(5):
            out[t] = x[:, t] * 2
        return out * 1

    def halves(x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 5, 8)
        out[..., :4] = x
        torch.mul(x, 2, out=out[..., 4:])
        return out.flatten(0, 1).relu_()

    def view(x: Tensor) -> Tensor:
        y = x * 1
        y.view(-1, 4).mul_(2).relu_()
        return y + 1

    x = torch.randn(N, 5, 4)
    assert check(into, x) == Place(1)
    assert check(halves, x) == Place(0, 1, 5)
    assert check(view, x) == Place(0)
    assert check(lambda x: (x * 1).unsqueeze_(0).transpose_(1, 2), x) == Place(2)
    assert place_of(lambda x: torch.zeros(5, N, 4).copy_(x.flip(0).transpose(0, 1)), x) is MIXED

    def reordered(x: Tensor) -> Tensor:
        out = torch.zeros(N, 5, 4)
        out[:, 0] = x[:, 0].flip(0)
        return out + x

    assert place_of(reordered, x) is MIXED


def test_one_sample_at_a_time() -> None:
    def loop(x: Tensor) -> Tensor:
        return torch.stack([functional.linear(one, weights(2, 4)).sort(0)[0] for one in x], 1)

    def slices(x: Tensor) -> Tensor:
        parts = [x[n : n + 1].flatten(0, 1) for n in range(len(x))]
        return torch.cat([part.cumsum(0) * 2 for part in parts])

    def batched(x: Tensor) -> Tensor:
        """Detectors put images of their own sizes into a batch."""
        out = x[0].new_zeros(len(x), 6, 6)
        for row, image in zip(out, x.unbind(), strict=True):
            row[: image.shape[0], : image.shape[1]].copy_(image)
        return functional.linear(out, weights(2, 6))

    x = torch.randn(N, 5, 4)
    assert check(loop, x) == Place(1)
    assert check(slices, x) == Place(0, 1, 5)
    assert check(batched, x) == Place(0)
    assert check(lambda x: torch.cat(x.split(1)) + 1, x) == Place(0)
    for mixed in (
        lambda x: torch.stack(x.unbind()[::-1]),
        lambda x: torch.stack((x[0], x[1])),
        lambda x: x[0] + x[1],
        lambda x: batched(x.flip(0)),
        lambda x: torch.stack([x[0], x[1], x[0] + x[2]]),
        lambda x: torch.cat([one[: n + 1] for n, one in enumerate(x)]),
        lambda x: (x * 1).index_put_((torch.tensor(0),), x[1]),
    ):
        assert place_of(mixed, x) is MIXED

    def wrong_row(x: Tensor) -> Tensor:
        out = torch.zeros(N, 5, 4)
        out[0], out[1] = x[0], x[2]
        return out * 1

    assert place_of(wrong_row, x) is MIXED


def test_images_of_a_list() -> None:
    samples, images = Samples(2), [torch.randn(3, 4, 4), torch.randn(3, 4, 4)]
    for n, image in enumerate(images):
        samples.seed_sample(image, n)
    with Following(samples):
        batch = torch.stack([(image - 0.5) / 2 for image in images])
    assert samples.of(batch) == Place(0)
    assert samples.of(images[0]) is MIXED


def test_strides_of_any_kind() -> None:
    x = torch.randn(N, 8, 4)
    chunks = (N, 3, 4, 4), (32, 8, 4, 1)  # Longformer's, that overlap
    assert check(lambda x: (x * 1).as_strided(*chunks) + 1, x) == Place(0)

    def folded(x: Tensor) -> Tensor:
        y = (x * 1).permute(1, 0, 2).contiguous().view(8, N * 2, 2).transpose(0, 1)
        return y.as_strided((N * 2, 3, 4, 2), (2, 2 * 4 * N, 4 * N, 1)) + 1

    assert check(folded, x) == Place(0, 1, 2)
    assert place_of(lambda x: (x * 1).as_strided((2, 8, 4), (32, 4, 1), 32), x) is MIXED
    assert place_of(lambda x: x.repeat(2, 1, 1).as_strided((N, 32), (32, 1), 32), x) is MIXED
    assert place_of(lambda x: x.repeat(2, 1, 1).as_strided((N, 2, 32), (32, 1, 1)), x) is MIXED


def test_a_batch_of_one() -> None:
    x = torch.randn(1, 5, 4)
    assert check(lambda x: functional.linear(x, weights(2, 4)), x) == Place(0)
    assert check(lambda x: x.flatten(0, 1) + 1, x) == Place(0, 1, 5)
    assert check(lambda x: x.expand(3, 5, 4) + 1, x) == Place(0, 1, 3)


def test_seeds_that_have_no_samples_say_nothing() -> None:
    samples = Samples(4)
    x = torch.zeros(8, 4)
    for axis in (0, 2, -3):
        samples.seed(x, axis)
        assert samples.of(x) is None
    samples.seed(torch.tensor(1.0))
    samples.seed(x, -1)
    assert samples.of(x) == Place(1)


@contextmanager
def following(batch: int) -> Iterator[Samples]:
    samples = Samples(batch)
    with Following(samples) as mode:
        yield samples
        mode.seen.clear()


def test_tensors_are_the_same_objects_under_autograd_and_after() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(N, 5, 4, requires_grad=True)
    with following(N) as samples:
        samples.seed(x)
        y = layer(x)
        parts = y.relu().split(2, 2)
        z = torch.cat(parts, 1).t() if y.dim() == 2 else torch.cat(parts, 1)
        assert samples.of(y) == samples.of(parts[1]) == samples.of(z) == Place(0)
        assert samples.of(z.detach()) == samples.of(z.data) == Place(0)
    z.sum().backward()
    assert samples.of(y) == Place(0)


def test_no_tensor_is_kept_and_no_place_inherited() -> None:
    samples = Samples(N)
    tensors = [torch.zeros(N, 2) for _ in range(50)]
    for one in tensors:
        samples.seed(one)
    watched = [weakref.ref(one) for one in tensors]
    del tensors, one
    gc.collect()
    assert all(ref() is None for ref in watched)
    assert all(samples.of(torch.zeros(N, 2)) is None for _ in range(200))


def test_what_is_unknown_is_mixed_and_nothing_is_raised() -> None:
    samples, x, y = Samples(N), torch.zeros(N, 4), torch.zeros(N, 4)
    samples.seed(x)
    samples.follow("no operation", (x,), None, y)
    assert samples.of(y) is MIXED
    for func in (
        torch.ops.aten.view.default,
        torch.ops.aten.mm.default,
        torch.ops.aten.cat.default,
    ):
        for args in ((), (x,), (x, None), ([x, None],), ([[x]],), (x, "a"), (None, x)):
            for out in (None, y, (y, None), [], object()):
                samples.follow(func, args, {}, out)
    samples.follow(torch.ops.aten.add.Tensor, None, None, None)
    z = torch.zeros(N, 4)
    samples.follow(torch.ops.aten._pdist_forward.default, (x, 2.0), {}, z)
    assert samples.of(z) is MIXED


SIZES = st.integers(1, 4)


@st.composite
def _factors(draw: st.DrawFn, total: int) -> list[int]:
    """Return any shape of so many entries."""
    shape, left = [], total
    while left > 1:
        size = draw(st.sampled_from([n for n in range(1, left + 1) if left % n == 0]))
        shape.append(size)
        left //= size
        if len(shape) > 5:
            break
    return [*shape, left] if left > 1 or not shape else shape


def _moved(draw: st.DrawFn, x: Tensor) -> Tensor:
    """Return a tensor after one operation that moves entries, or takes some; NaN for others."""
    axis = draw(st.integers(0, x.dim() - 1))
    size = x.shape[axis]
    a, b = draw(st.integers(0, size)), draw(st.integers(0, size))
    kind = draw(st.sampled_from(sorted(_KINDS)))
    if kind == "view":
        return x.reshape(draw(_factors(x.numel())))
    if kind == "permute":
        return x.permute(draw(st.permutations(range(x.dim()))))
    if kind == "expand":
        return x.expand(draw(SIZES), *x.shape)
    if kind == "strided":
        return x.as_strided(*draw(_strides(x)))
    if kind == "flatten":
        return x.flatten(min(axis, a % x.dim()), max(axis, a % x.dim()))
    return _KINDS[kind](x, axis, a, b)


@st.composite
def _strides(draw: st.DrawFn, x: Tensor) -> tuple[list[int], list[int], int]:
    """Return sizes, strides and offset of a view inside a tensor's memory."""
    room = x.untyped_storage().size() // x.element_size() - 1
    offset = draw(st.integers(0, min(room, 8)))
    sizes, strides, left = [], [], room - offset
    for _ in range(draw(st.integers(1, 3))):
        stride = draw(st.sampled_from([0, 1, 2, 4, *x.stride()]))
        size = draw(st.integers(1, min(6, left // stride + 1) if stride else 3))
        left -= (size - 1) * stride
        sizes.append(size)
        strides.append(stride)
    return sizes, strides, offset


_PAD = float("nan")
_KINDS: dict[str, Callable[[Tensor, int, int, int], Tensor]] = {
    "slice": lambda x, axis, a, b: x.narrow(axis, min(a, b), abs(a - b)),
    "steps": lambda x, axis, a, b: x[(slice(None),) * axis + (slice(a % 3, None, b % 3 + 1),)],
    "select": lambda x, axis, a, b: x.select(axis, a % max(1, x.shape[axis])),
    "roll": lambda x, axis, a, b: x.roll(a, axis),
    "flip": lambda x, axis, a, b: x.flip(axis),
    "repeat": lambda x, axis, a, b: x.repeat(*(1 + (i == axis) for i in range(x.dim()))),
    "interleave": lambda x, axis, a, b: x.repeat_interleave(2, axis),
    "pad": lambda x, axis, a, b: functional.pad(
        x, (0, 0) * (x.dim() - 1 - axis) + (a % 2, b % 2), value=_PAD
    ),
    "cat": lambda x, axis, a, b: torch.cat((x, x), axis),
    "stack": lambda x, axis, a, b: torch.stack((x, x), axis),
    "cat more": lambda x, axis, a, b: torch.cat((x, torch.full_like(x, _PAD)), axis),
    "constants": lambda x, axis, a, b: torch.cat((x, x.new_full(x.shape, _PAD)), axis),
    "split": lambda x, axis, a, b: x.split(max(1, a), axis)[-1],
    "chunk": lambda x, axis, a, b: x.chunk(2, axis)[0],
    "again": lambda x, axis, a, b: torch.stack(x.unbind(axis)[:: 1 if a % 2 else -1], axis),
    "unsqueeze": lambda x, axis, a, b: x.unsqueeze(axis),
    "squeeze": lambda x, axis, a, b: x.squeeze(axis),
    "unfold": lambda x, axis, a, b: x.unfold(axis, min(2, x.shape[axis]), 1),
    "pick": lambda x, axis, a, b: x.index_select(axis, torch.arange(x.shape[axis]).roll(a)),
    "count": lambda x, axis, a, b: x.index_select(axis, torch.arange(x.shape[axis])),
    "sort": lambda x, axis, a, b: x.sort(axis)[0],
    "diagonal": lambda x, axis, a, b: x.diagonal(0, axis, axis - 1) if x.dim() > 1 else x,
    "into": lambda x, axis, a, b: torch.full_like(x, _PAD).copy_(x),
    "add": lambda x, axis, a, b: x + torch.zeros(x.shape[-1]),
    "other": lambda x, axis, a, b: torch.maximum(x, x.flip(axis)),
    "view": lambda x, axis, a, b: x,
    "permute": lambda x, axis, a, b: x,
    "expand": lambda x, axis, a, b: x,
    "flatten": lambda x, axis, a, b: x,
    "strided": lambda x, axis, a, b: x,
}


@settings(max_examples=200, derandomize=True)
@given(st.data())
def test_chains_of_moves(data: st.DataObject) -> None:
    """A tensor whose values are the numbers of their samples, after any chain of operations."""
    batch = data.draw(st.integers(1, 4))
    shape = data.draw(st.lists(SIZES, max_size=3))
    axis = data.draw(st.integers(0, len(shape)))
    shape.insert(axis, batch)
    numbers = torch.arange(float(batch)).view([-1 if i == axis else 1 for i in range(len(shape))])
    x = numbers.expand(shape).clone()
    with following(batch) as samples:
        samples.seed(x, axis)
        for _ in range(data.draw(st.integers(1, 8))):
            if not x.dim() or not x.numel() or x.numel() > 2000:
                return
            x = _moved(data.draw, x)
            place = samples.of(x)
            if isinstance(place, _Place):
                check_numbers(x, place, batch)
            else:
                assert place is MIXED


def check_numbers(x: Tensor, place: Place, batch: int) -> None:
    own = torch.arange(float(batch)).repeat_interleave(place.inner).repeat(place.outer)
    shape = [-1 if i == place.axis else 1 for i in range(x.dim())]
    assert x.shape[place.axis] == len(own)
    assert bool((x.isnan() | (x == own.view(shape))).all()), (x, place)
