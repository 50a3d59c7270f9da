"""Record a training loop of one's own, with masks of one's own, as it is.

    python examples/own_loop.py --out runs/own-loop

A small network learns which way stripes run in noisy images. Its loop prunes by magnitude
(`torch.nn.utils.prune`), a bit more every few steps, and adds up the gradients of two half
batches. `Observer` changes nothing of that: it only sees what each layer computes. The lines
that it takes are marked.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from swatsim.tracefile import open_trace
from swatsim.tracer.pytorch import Observer

SIZE, CLASSES, HALF = 16, 4, 32


def stripes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Make noisy images (N, 1, 16, 16) of stripes, and in which of four ways they run (N,)."""
    labels = torch.randint(CLASSES, (count,), generator=generator)
    angle = (labels * math.pi / CLASSES).view(-1, 1, 1)
    phase = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
    y, x = torch.arange(SIZE).view(-1, 1), torch.arange(SIZE).view(1, -1)
    images = torch.sin(1.5 * (x * angle.cos() + y * angle.sin()) + phase)
    return (images + torch.randn(images.shape, generator=generator))[:, None], labels


def new_model() -> nn.Sequential:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )


def prune_to(model: nn.Sequential, sparsity: float) -> None:
    """Prune all layers but the first to a sparsity; what was pruned before stays so."""
    for layer in (model[3], model[7]):
        so_far = (layer.weight == 0).float().mean().item()
        if sparsity > so_far:
            prune.l1_unstructured(layer, "weight", (sparsity - so_far) / (1 - so_far))


@torch.no_grad()
def evaluate(model: nn.Module, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Loss, and share of right answers."""
    scores = model(data[0])
    right = (scores.argmax(1) == data[1]).float().mean().item()
    return functional.cross_entropy(scores, data[1]).item(), right


def main() -> None:
    """Train, prune, and record three steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the trace's directory")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)  # swatsim says there what it does not record
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)

    model = new_model()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    test = stripes(1000, generator)
    before, steps = evaluate(model, test), arguments.steps
    recorded = (0, steps // 2, steps - 1)

    with Observer(model, arguments.out, steps=recorded, images=8) as observer:  # 1
        for step in range(steps):
            if step % 20 == 0:  # up to the whole sparsity in the first half of the run
                prune_to(model, arguments.sparsity * min(1, 2 * step / steps))
            optimizer.zero_grad()
            for _ in range(2):  # half batches; the second one's layers are recorded as NAME@2
                images, labels = stripes(HALF, generator)
                (functional.cross_entropy(model(images), labels) / 2).backward()
            optimizer.step()
            observer.step()  # 2: after the optimizer's, once for both halves

    loss, right = evaluate(model, test)
    print(f"loss {before[0]:.3f} -> {loss:.3f}, right {before[1]:.0%} -> {right:.0%}")
    trace = open_trace(arguments.out)
    for number in trace.steps:
        density = trace.step(number).mask("3", "fprop", "weight").mean()
        print(f"step {number}: {density:.0%} of layer 3's weights are left")
    print(f"trace: {arguments.out}")
    print(f"next:  swatsim simulate {arguments.out} -m tensordash")


if __name__ == "__main__":
    main()
