"""What recording costs a training run: a recorded step against the same step unrecorded.

    python benchmarks/speed/recording.py

ResNet-8 of traces/record_resnet8.py on made images, batch 128, and a small transformer, of which
each step is short; two threads. One line a way of recording, also into the README: the median of
the recorded steps over that of the steps well behind them, in one process, and what one recorded
step in a hundred adds to the training, the writing in the background included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[2] / "traces"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from readme import ROOT, machine, replace
from record_resnet8 import BATCH, new_model

from swatsim.policies import SwatU
from swatsim.tracer.pytorch import Observer, Tracer

#: One step of so many is recorded.
EVERY = 6


def images() -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    """ResNet-8 on a made batch, and its loss."""
    model, generator = new_model(0), torch.Generator().manual_seed(0)
    batch = torch.randn(BATCH, 1, 28, 28, generator=generator)
    labels = torch.randint(0, 10, (BATCH,), generator=generator)
    return model, lambda: functional.cross_entropy(model(batch), labels)


def tokens() -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
    """Two encoder layers of width 128 on 16 made sequences of 32 tokens, and a loss."""
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(128, 4, 256, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    batch = torch.randn(16, 32, 128)
    return model, lambda: model(batch).square().mean()


def steps(tracer: Any, model: torch.nn.Module, loss: Callable[[], Any], count: int) -> list[float]:
    """Train for some steps; the seconds of each, the tracer's own included."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        tracer.step()
        taken.append(time.perf_counter() - start)
    return taken


def measure(
    make: Callable[[], Any], open_tracer: Callable[[torch.nn.Module, str], Any], count: int
) -> tuple[float, float, float]:
    """Seconds of a recorded step, of one well behind it, and what a recorded one adds in all.

    Medians, the first round of steps left out; what is added counts the steps behind too, in which
    the masks are still being compressed and written.
    """
    model, loss = make()
    with tempfile.TemporaryDirectory() as folder, open_tracer(model, f"{folder}/t") as tracer:
        taken = steps(tracer, model, loss, count)
    rounds = [taken[i : i + EVERY] for i in range(EVERY, count - EVERY + 1, EVERY)]
    recorded = statistics.median(each[0] for each in rounds)
    quiet = statistics.median(t for each in rounds for t in each[EVERY // 2 :])
    return recorded, quiet, statistics.median(sum(each) - EVERY * quiet for each in rounds)


WAYS: dict[str, tuple[Callable[[], Any], Callable[[torch.nn.Module, str], Any]]] = {
    "SWAT-U, 8 images": (images, lambda m, p: Tracer(m, SwatU(0.8), p, steps=wanted, images=8)),
    "SWAT-U, all 128 images": (images, lambda m, p: Tracer(m, SwatU(0.8), p, steps=wanted)),
    "SWAT-U, 8 images, memory": (
        images,
        lambda m, p: Tracer(m, SwatU(0.8), p, steps=wanted, images=8, measure_memory=True),
    ),
    "observed dense, 8 images": (images, lambda m, p: Observer(m, p, steps=wanted, images=8)),
    "observed dense, all 128 images": (images, lambda m, p: Observer(m, p, steps=wanted)),
    "a small transformer, SWAT-U, all": (
        tokens,
        lambda m, p: Tracer(m, SwatU(0.8), p, steps=wanted),
    ),
    "a small transformer, observed, all": (tokens, lambda m, p: Observer(m, p, steps=wanted)),
}


def wanted(number: int) -> bool:
    """Record one step of each round."""
    return number % EVERY == 0


def lines(count: int) -> Iterator[str]:
    yield f"On {machine()}, torch {torch.__version__}:\n"
    for name, (make, way) in WAYS.items():
        recorded, others, added = measure(make, way, count)
        share = added / (100 * others)
        yield (
            f"- {name}: a recorded step takes {recorded / others:.2f}x an unrecorded one "
            f"({1000 * recorded:.0f} ms, {1000 * others:.0f} ms); one in a hundred adds "
            f"{100 * share:.2f} % to the training"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = list(lines(arguments.steps))
    path = ROOT / "README.md"
    path.write_text(replace(path.read_text(), "recording", iter(found)))
    print("\n".join(found))


if __name__ == "__main__":
    main()
