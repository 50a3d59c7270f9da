"""A small transformer, recorded from end to end: all that it multiplies is in the trace."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracefile.reader import Step  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402
from swatsim.workload.flops import macs_dense  # noqa: E402
from swatsim.workload.layer import FLOPS_PER_MAC  # noqa: E402

WIDTH, HEADS, LENGTH, BATCH, WORDS, BLOCKS = 12, 3, 7, 4, 19, 2


class Attention(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.mT / math.sqrt(q.shape[-1])
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            y = scores.masked_fill(ahead, -math.inf).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attention(fused)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Gpt(nn.Module):
    """After GPT-2: the head's weight is the embedding's."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.h = nn.ModuleList(Block(fused) for _ in range(BLOCKS))
        self.ln_f = nn.LayerNorm(WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.h:
            x = block(x)
        return functional.linear(self.ln_f(x), self.wte.weight)


def train(model: nn.Module) -> None:
    torch.manual_seed(2)
    tokens = torch.randint(WORDS, (BATCH, LENGTH + 1))
    logits = model(tokens[:, :-1])
    functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()


def made(fused: bool) -> Gpt:
    torch.manual_seed(1)
    return Gpt(fused)


@pytest.fixture(scope="module")
def torch_counts() -> int:
    """Of attention written out: torch does not count the kernel of CPUs."""
    with FlopCounterMode(display=False) as counter:
        train(made(fused=False))
    return counter.get_total_flops() // FLOPS_PER_MAC


def recorded(fused: bool, kind: str, path: Path, images: int | None) -> Step:
    model = made(fused)
    if kind == "observer":
        recorder: Observer | Tracer = Observer(model, path, steps=(0,), images=images)
    else:
        recorder = Tracer(model, SwatU(0.5), path, steps=(0,), images=images)
    with recorder:
        train(model)
        recorder.step()
        assert recorder.error is None
    return open_trace(path).step(0)


@pytest.mark.parametrize("kind", ["observer", "tracer"])
@pytest.mark.parametrize("fused", [True, False])
def test_all_that_it_multiplies_is_held(
    fused: bool, kind: str, tmp_path: Path, torch_counts: int
) -> None:
    step = recorded(fused, kind, tmp_path, images=2)
    assert step.coverage is not None
    assert step.coverage.share == 1.0
    assert step.coverage.unseen == ()  # positions are looked up, and multiply nothing
    total = sum(macs_dense(layer, step.batch_of(layer.name), op) for layer, op in step.ops())
    assert total == step.coverage.held.total == torch_counts
    ran = {(layer.name, op) for layer, op in step.ops()}
    products = ("attn.qkv", "attn.scores", "attn.values", "attn.proj", "mlp.0", "mlp.2")
    names = {"wte", *(f"h.{i}.{name}" for i in range(BLOCKS) for name in products)}
    assert ran == {(name, op) for name in names for op in ("fprop", "dgrad", "wgrad")}
    assert {step.samples_of(name) for name in names} == {2}
    assert {step.batch_of(name) for name in names} == {BATCH}
    scores = next(layer for layer in step.layers if layer.name == "h.0.attn.scores")
    assert (scores.kind, scores.C, scores.K, scores.H, scores.groups) == (
        *("matmul", WIDTH, HEADS * LENGTH),
        *(LENGTH, HEADS),
    )
    for layer, op in (("scores", "fprop"), ("values", "dgrad")):
        wanted = step.output(f"h.1.attn.{layer}", op)
        assert wanted is not None
        assert wanted.sum() == 2 * HEADS * LENGTH * (LENGTH + 1) / 2


class Tables(nn.Module):
    """Parameters that meet data, and multiply no matrices."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"added": (3, 4), "bias": (3, 2, 2), "beside": (1, 4), "scales": (3, 4)}
        for name, size in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(size)))
        self.looked_up, self.tied = nn.Embedding(3, 4), nn.Embedding(4, 4)
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.tied.weight

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.added + self.looked_up(torch.tensor([2, 0, 1])) + self.tied(torch.tensor(1))
        q = x.unflatten(-1, (2, 2))
        y = functional.scaled_dot_product_attention(q, q, q, attn_mask=self.bias[None])
        y = torch.cat([y.flatten(-2), self.beside.expand(len(x), 1, -1)], 1)
        return self.head(y)[:, :3] * self.scales


@pytest.mark.parametrize("kind", ["observer", "tracer"])
def test_tables_are_no_products_that_are_missing(kind: str, tmp_path: Path) -> None:
    """A tied one is in a product, under another name; what multiplies value by value is named."""
    model = Tables()
    optimizer = torch.optim.SGD(model.parameters())
    more: Any = () if kind == "observer" else (SwatU(0),)
    recorder: Any = (Observer if kind == "observer" else Tracer)(model, *more, tmp_path, steps=(0,))
    with recorder:
        model(torch.randn(5, 3, 4)).sum().backward()
        optimizer.step()
        recorder.step()
    coverage = open_trace(tmp_path).step(0).coverage
    assert coverage is not None
    assert coverage.unseen == ("Tables.scales",)


@pytest.mark.parametrize("fused", [True, False])
def test_training_is_the_same_to_the_bit(fused: bool, tmp_path: Path) -> None:
    plain, model = made(fused), made(fused)
    train(plain)
    with Observer(model, tmp_path, steps=(0,)) as observer:
        train(model)
        observer.step()
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, other.grad)
