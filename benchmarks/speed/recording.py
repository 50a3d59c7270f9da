"""What a tracer costs a training run, recorded or not, beside training without one.

    python benchmarks/speed/recording.py

ResNet-18 and a small vision transformer on made images, each step short. All ways of training a
model take turns in one process, some steps each, so that a busy machine slows all of them down; a
way's time is its shortest step's, the optimizer's and the tracer's included. A recorded step's is
that of two steps, recorded and not, less the shortest unrecorded one: masks are still on their way
to disk when the next step runs. "By hand" is SWAT as one would write it: an autograd function for
each kind of layer, and nothing else; thresholds by `kthvalue`, or by this package's Top-K. A column
a model, also into its page.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import machine, put

from swatsim.policies import SwatU, keep_count, topk_mask
from swatsim.policies.arrays import only
from swatsim.tracer.pytorch import Observer, Tracer
from tests.tracer.models import ResNet

SPARSITY = 0.8

#: Makes the small values of a tensor zero.
Keep: TypeAlias = Callable[[Tensor], Tensor]


def by_kthvalue(values: Tensor) -> Tensor:
    """Keep the values of largest magnitude, those at the threshold too."""
    magnitudes = values.abs()
    count = values.numel() - int((1 - SPARSITY) * values.numel()) + 1
    threshold = magnitudes.flatten().kthvalue(count).values
    return torch.where(magnitudes >= threshold, values, 0)


def by_topk(values: Tensor) -> Tensor:
    """Keep the values that `SwatU` keeps."""
    values = values.detach()
    return only(values, topk_mask(values, keep_count(values.numel(), SPARSITY)))


class Swat(torch.autograd.Function):
    """SWAT's three ops of a linear layer, or of a convolution if it is told how to stride."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: Any, kept: Keep
    ) -> Tensor:
        sparse = kept(weight)
        ctx.save_for_backward(kept(x), sparse)
        ctx.how = how
        if how is None:
            return functional.linear(x, sparse, bias).clone()
        return torch.convolution(x, sparse, bias, *how)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        dx, _, db = ctx.needs_input_grad[:3]
        if ctx.how is None:
            rows = dy.flatten(0, -2)
            dw = rows.T @ x.flatten(0, -2)
            return dy @ weight if dx else None, dw, rows.sum(0) if db else None, None, None
        sizes, which = [dy.shape[1]] if db else None, (dx, True, db)
        grads = torch.ops.aten.convolution_backward(dy, x, weight, sizes, *ctx.how, which)
        return (*grads, None, None)


class HandLinear(nn.Linear):
    kept: Keep

    def forward(self, x: Tensor) -> Tensor:
        return Swat.apply(x, self.weight, self.bias, None, self.kept)


class HandConv2d(nn.Conv2d):
    kept: Keep

    def forward(self, x: Tensor) -> Tensor:
        how = (self.stride, self.padding, self.dilation, False, (0, 0), self.groups)
        return Swat.apply(x, self.weight, self.bias, how, self.kept)


def by_hand(model: nn.Module, kept: Keep) -> nn.Module:
    """Make all layers but the first convolution SWAT's."""
    model = copy.deepcopy(model)
    convolutions = [module for module in model.modules() if type(module) is nn.Conv2d]
    for module in [*convolutions[1:], *model.modules()]:
        if type(module) is nn.Conv2d and module is not convolutions[0]:
            module.__class__, module.kept = HandConv2d, kept
        elif type(module) is nn.Linear:
            module.__class__, module.kept = HandLinear, kept
    return model


class Block(nn.Module):
    """A pre-norm block of a vision transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """Six blocks of width 192 on 196 patches of 8 x 8, and a token that is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.position = nn.Conv2d(3, 192, 8, 8), nn.Parameter(torch.zeros(1, 197, 192))
        self.token = nn.Parameter(torch.zeros(1, 1, 192))
        self.blocks = nn.Sequential(*[Block(192, 3) for _ in range(6)])
        self.norm, self.head = nn.LayerNorm(192), nn.Linear(192, 100)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.stem(x).flatten(2).mT
        tokens = torch.cat((self.token.expand(len(x), -1, -1), patches), 1) + self.position
        return self.head(self.norm(self.blocks(tokens))[:, 0])


#: Name -> builder, and an input's shape.
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18, 8 x 3 x 64 x 64": (lambda: ResNet((2, 2, 2, 2)), (8, 3, 64, 64)),
    "ResNet-18, 8 x 3 x 32 x 32": (lambda: ResNet((2, 2, 2, 2)), (8, 3, 32, 32)),
    "ViT, 6 x 197 tokens x 192, 8 images": (ViT, (8, 3, 112, 112)),
}


def never(number: int) -> bool:
    return False


def every_other(number: int) -> bool:
    return number % 2 == 0


#: Ways of training, each with what opens it; where steps are recorded, every other one is.
TRACERS: dict[str, Callable[[nn.Module, str], Any]] = {
    "Tracer": lambda m, p: Tracer(m, SwatU(SPARSITY), p, steps=never),
    "Tracer, all images": lambda m, p: Tracer(m, SwatU(SPARSITY), p, steps=every_other),
    "Tracer, 2 images": lambda m, p: Tracer(m, SwatU(SPARSITY), p, steps=every_other, images=2),
    "Observer": lambda m, p: Observer(m, p, steps=never),
    "Observer, all images": lambda m, p: Observer(m, p, steps=every_other),
    "Observer, 2 images": lambda m, p: Observer(m, p, steps=every_other, images=2),
}


#: Steps of a turn, of which the first two warm up.
TURN = 6


def train(model: nn.Module, x: Tensor, after: Callable[[], Any]) -> list[float]:
    """Return the seconds of some steps, the tracer's own included."""
    optimizer = torch.optim.SGD(model.parameters(), 0.001)
    labels, taken = torch.arange(len(x)), []
    for _ in range(TURN):
        start = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
        after()
        taken.append(time.perf_counter() - start)
    return taken


def turn(
    model: nn.Module, x: Tensor, open_tracer: Callable[[nn.Module, str], Any] | None, recorded: bool
) -> float:
    """Return the shortest step of a turn; where steps are recorded the shortest two."""
    if open_tracer is None:
        return min(train(model, x, lambda: None)[2:])
    with tempfile.TemporaryDirectory() as folder, open_tracer(model, f"{folder}/t") as tracer:
        taken = train(model, x, tracer.step)[2:]
    pairs = zip(taken[::2], taken[1::2], strict=True)
    return min(map(sum, pairs)) if recorded else min(taken)


def measure(make: Callable[[], nn.Module], shape: tuple[int, ...], turns: int) -> dict[str, float]:
    """Return the shortest step of each way in seconds."""
    torch.manual_seed(0)
    model, x = make(), torch.randn(shape)
    ways: dict[str, tuple[nn.Module, Any]] = {
        "dense": (model, None),
        "by hand, kthvalue": (by_hand(model, by_kthvalue), None),
        "by hand, our Top-K": (by_hand(model, by_topk), None),
        **{name: (model, open_tracer) for name, open_tracer in TRACERS.items()},
    }
    taken: dict[str, float] = {}
    for _ in range(turns):
        for name, way in ways.items():
            taken[name] = min(turn(way[0], x, way[1], "images" in name), taken.get(name, math.inf))
    for name in taken.keys() & TRACERS.keys():
        if (unrecorded := name.partition(",")[0]) != name:
            taken[name] -= taken[unrecorded]
    return taken


#: What is compared with what.
RATIOS = (
    ("Tracer", "by hand, kthvalue"),
    ("Tracer", "by hand, our Top-K"),
    ("Tracer", "dense"),
    ("by hand, our Top-K", "dense"),
    ("Tracer, all images", "Tracer"),
    ("Tracer, 2 images", "Tracer"),
    ("Observer", "dense"),
    ("Observer, all images", "dense"),
    ("Observer, 2 images", "dense"),
)


def lines(count: int) -> Iterator[str]:
    where = f"{machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
    yield f"On {where}, {SPARSITY:.0%} sparse:\n"
    taken = {name: measure(make, shape, count) for name, (make, shape) in MODELS.items()}
    yield f"| a step of | {' | '.join(taken)} |"
    yield "|---|" + "---:|" * len(taken)
    dense = (f"{1000 * of['dense']:.0f} ms" for of in taken.values())
    yield f"| dense training | {' | '.join(dense)} |"
    for a, b in RATIOS:
        cells = (f"{of[a] / of[b]:.2f}x" for of in taken.values())
        yield f"| {a} / {b} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=6, help="of each way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--print-only", action="store_true", help="leave the page as it is")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.getLogger("swatsim").setLevel(logging.ERROR)  # a turn without a recorded step says so
    found = list(lines(arguments.turns))
    if not arguments.print_only:
        put("recording", found)
    print("\n".join(found))


if __name__ == "__main__":
    main()
