"""Train an MLP with RigL, record steps around changes of its masks, and restart it half way.

    python examples/rigl_mlp.py --out runs/rigl-mlp
    python examples/rigl_mlp.py --out runs/rigl-mlp-restarted --restart

The class is told by the signs of two products, each of two of the 32 inputs: a linear model sees
nothing of it. Both commands make the same masks, to the bit: `--restart` trains half of the steps,
saves all in OUT.pt, and goes on from there in new objects. `Tracer.load_state_dict` brings back the
number of the step, so `start` need not be told, but `append` must.

A weight that is grown starts at zero, and a trace holds what is not zero: in the step after a
change the weights are sparser than RigL was told, one step later they are not.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from swatsim.policies import RigL
from swatsim.tracefile import open_trace
from swatsim.tracer.pytorch import Tracer

INPUTS, BATCH = 32, 256


def examples(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw inputs (N, 32), and the class of each (N,), of four."""
    x = torch.randn(count, INPUTS, generator=generator)
    return x, (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] * x[:, 3] > 0).long()


@torch.no_grad()
def evaluate(model: nn.Module, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Loss, and share of right answers."""
    scores = model(data[0])
    right = (scores.argmax(1) == data[1]).float().mean().item()
    return functional.cross_entropy(scores, data[1]).item(), right


class Training:
    """All that a checkpoint holds: model, optimizer, the state of the data, and the tracer's."""

    def __init__(self, arguments: argparse.Namespace, checkpoint: Path | None = None) -> None:
        torch.manual_seed(arguments.seed)
        self.data = torch.Generator().manual_seed(arguments.seed)
        self.test = examples(4000, self.data)
        self.model = nn.Sequential(
            *(nn.Linear(INPUTS, 128), nn.ReLU()),
            *(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 4)),
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), 3e-3)
        every, steps = arguments.every, arguments.steps
        changes = (every, steps // 2 // every * every)  # the masks change after these steps
        self.tracer = Tracer(
            self.model,
            RigL(arguments.sparsity, every=every, until=steps * 3 // 4, seed=arguments.seed),
            arguments.out,
            steps={0, steps - 1, *(step + later for step in changes for later in (0, 1, 2))},
            images=16,
            append=checkpoint is not None,
        )
        if checkpoint is not None:
            saved = torch.load(checkpoint)
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.data.set_state(saved["data"])
            self.tracer.load_state_dict(saved["tracer"])  # its masks, and the number of the step

    def save(self, path: Path) -> None:
        """Write a checkpoint, between two steps."""
        names = ("model", "optimizer", "tracer")
        states = {name: getattr(self, name).state_dict() for name in names}
        torch.save({**states, "data": self.data.get_state()}, path)

    def run(self, until: int) -> None:
        """Train up to a step, and close the trace."""
        with self.tracer:
            while self.tracer.number < until:
                x, labels = examples(BATCH, self.data)
                self.optimizer.zero_grad()
                functional.cross_entropy(self.model(x), labels).backward()
                self.optimizer.step()
                self.tracer.step()


def main() -> None:
    """Train, restarted or not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the trace's directory")
    parser.add_argument("--restart", action="store_true", help="stop half way, and go on")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=50, help="steps between two changes")
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)

    training = Training(arguments)
    before = evaluate(training.model, training.test)
    if arguments.restart:
        checkpoint = arguments.out.with_name(arguments.out.name + ".pt")
        training.run(arguments.steps // 2)
        training.save(checkpoint)
        training = Training(arguments, checkpoint)
        print(f"restarted from {checkpoint} at step {training.tracer.number}")
    training.run(arguments.steps)

    loss, right = evaluate(training.model, training.test)
    print(f"loss {before[0]:.3f} -> {loss:.3f}, right {before[1]:.0%} -> {right:.0%}")
    trace = open_trace(arguments.out)
    for number in trace.steps:
        density = trace.step(number).mask("0", "fprop", "weight").mean()
        print(f"step {number}: {density:.1%} of layer 0's weights are not zero")
    print(f"trace: {arguments.out}, id {trace.id}")
    print(f"next:  swatsim simulate {arguments.out} -m tensordash")


if __name__ == "__main__":
    main()
