"""Train a small transformer with 2:4 sparse weights, and record some steps.

    python examples/transformer_2to4.py --out runs/transformer-2to4
    python examples/transformer_2to4.py --out runs/transposable --transposable

It learns to reverse sequences of digits. SR-STE's weights are 2:4 along their input channels, those
of `--transposable` along their output channels too, as the backward pass of a 2:4 machine needs.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from swatsim.policies import SrSte, Transposable
from swatsim.tracefile import Trace, open_trace
from swatsim.tracer.pytorch import Tracer

DIGITS, LENGTH, WIDTH, BATCH = 12, 12, 32, 64


class Reverser(nn.Module):
    """Digits and their places, two of torch's own encoder layers, and a score for each digit."""

    def __init__(self) -> None:
        super().__init__()
        self.digits = nn.Embedding(DIGITS, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        shape = {"d_model": WIDTH, "nhead": 4, "dim_feedforward": 2 * WIDTH}
        self.layers = nn.Sequential(
            *(nn.TransformerEncoderLayer(**shape, dropout=0, batch_first=True) for _ in range(2))
        )
        self.head = nn.Linear(WIDTH, DIGITS)

    def forward(self, x: Tensor) -> Tensor:
        """Map digits (N, T) to scores (N, T, digits)."""
        return self.head(self.layers(self.digits(x) + self.places.weight))


@torch.no_grad()
def evaluate(model: nn.Module, x: Tensor) -> tuple[float, float]:
    """Loss, and share of digits that are right."""
    model.eval()
    scores, wanted = model(x), x.flip(1)
    model.train()
    right = (scores.argmax(2) == wanted).float().mean().item()
    return functional.cross_entropy(scores.flatten(0, 1), wanted.flatten()).item(), right


def most_of_four(trace: Trace, op: str, axis: int) -> int:
    """Tell the most weights that any four neighbours along an axis have left in the trace."""
    most = 0
    for number in trace.steps:
        step = trace.step(number)
        for layer in trace.layers:
            if layer.multiplies_activations:  # attention's: no weight is in them
                continue
            mask = np.moveaxis(step.mask(layer.name, op, "weight"), axis, -1)
            groups = mask.reshape(*mask.shape[:-1], -1, 4)  # here all sizes are multiples of 4
            most = max(most, int(groups.sum(-1).max()))
    return most


def main() -> None:
    """Train, record, and look at the masks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the trace's directory")
    parser.add_argument("--transposable", action="store_true", help="along both axes")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)

    model, steps = Reverser(), arguments.steps
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    test = torch.randint(DIGITS, (500, LENGTH), generator=generator)
    policy = Transposable(2, 4) if arguments.transposable else SrSte(2, 4)
    recorded = (0, steps // 2, steps - 1)
    with Tracer(model, policy, arguments.out, steps=recorded, images=4) as tracer:
        before = evaluate(model, test)
        for _ in range(steps):
            x = torch.randint(DIGITS, (BATCH, LENGTH), generator=generator)
            optimizer.zero_grad()
            functional.cross_entropy(model(x).flatten(0, 1), x.flip(1).flatten()).backward()
            optimizer.step()
            tracer.step()
        loss, right = evaluate(model, test)  # in the block: after it the model is dense again

    print(f"loss {before[0]:.3f} -> {loss:.3f}, right {before[1]:.0%} -> {right:.0%}")
    trace = open_trace(arguments.out)
    along = [most_of_four(trace, op, axis) for op, axis in (("fprop", 1), ("dgrad", 0))]
    print(f"of four weights are left at most: {along[0]} along C, {along[1]} along K")
    print(f"trace: {arguments.out}")
    print(f"next:  swatsim simulate {arguments.out} -m tensordash --set format_weight=2:4")


if __name__ == "__main__":
    main()
