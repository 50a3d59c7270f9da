"""Train ResNet-8 on Fashion-MNIST, dense and with SWAT-U, and record some steps of the latter.

    python traces/record_resnet8.py --out traces/resnet8-fashion-mnist-swat-u-80

The two runs share seed, order of the data and schedule. Beside the trace, OUT.json gets the test
accuracy after each epoch. Without Fashion-MNIST (Debian: dataset-fashion-mnist), scikit-learn's
digits are used; without those, images that are made; and OUT.json says so. In seconds, to try it:

    python traces/record_resnet8.py --out runs/try --data made --limit 1024 --epochs 3
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from swatsim.policies import SwatU
from swatsim.tracer.pytorch import Tracer

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
BATCH = 128
RATE = 0.1

Data = tuple[Tensor, Tensor]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016, section 4.2)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != filters:
            self.shortcut.append(nn.Conv2d(channels, filters, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, filters, H / stride, W / stride)."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """A stem of 16 filters, so many blocks of 16, 32 and 64 each, and a linear layer.

    With one block of each it has 8 layers, with three 20.
    """

    def __init__(self, blocks: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.stages = nn.Sequential()
        for channels, filters, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
            self.stages.append(Block(channels, filters, stride))
            self.stages.extend(Block(filters, filters, 1) for _ in range(blocks - 1))
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, H, W) to (N, classes)."""
        y = self.stages(functional.relu(self.bn1(self.conv1(x))))
        return self.fc(y.mean((2, 3)))


def load(name: str | None = None, limit: int | None = None) -> tuple[str, Data, Data]:
    """Read a data set, the first one that is there: its name, (images, labels) to train and test.

    `limit` is the most images of each of the two.
    """
    if name is None:
        name = next(known for known, (is_there, _) in SETS.items() if is_there())
        if name != "Fashion-MNIST":
            print(f"no Fashion-MNIST in {FASHION_MNIST}: using {name}", file=sys.stderr)
    train, test = ((images[:limit], labels[:limit]) for images, labels in SETS[name][1]())
    return name, train, test


def _digits() -> tuple[Data, Data]:
    """Read scikit-learn's digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = torch.tensor(digits.images).float()[:, None], torch.tensor(digits.target)
    images = (images - images.mean()) / images.std()
    return (images[:1500], labels[:1500]), (images[1500:], labels[1500:])


def _made() -> tuple[Data, Data]:
    """Make images of 9x9: one of ten coarse patterns, and as much noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(10, 1, 3, 3, generator=generator).repeat_interleave(3, 2)
    labels = torch.randint(10, (3000,), generator=generator)
    images = patterns.repeat_interleave(3, 3)[labels]
    images = (images + torch.randn(images.shape, generator=generator)) / 2**0.5
    return (images[:2000], labels[:2000]), (images[2000:], labels[2000:])


def _fashion(part: str) -> Data:
    """Read one part: images (N, 1, 28, 28) of mean 0 and deviation 1, labels (N,)."""
    with gzip.open(FASHION_MNIST / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(FASHION_MNIST / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    images = torch.from_numpy(pixels.astype(np.float32) / 255)
    return (images - 0.2860) / 0.3530, torch.from_numpy(labels.astype(np.int64))


#: Name -> whether it is there, and what reads it: to train with, and to test with.
SETS: dict[str, tuple[Callable[[], bool], Callable[[], tuple[Data, Data]]]] = {
    "Fashion-MNIST": (FASHION_MNIST.is_dir, lambda: (_fashion("train"), _fashion("t10k"))),
    "digits": (lambda: find_spec("sklearn") is not None, _digits),
    "made": (lambda: True, _made),
}


def batches(data: Data, generator: torch.Generator) -> Iterator[Data]:
    """Shuffle, mirror half of the images, and drop the last, smaller batch."""
    images, labels = data
    order = torch.randperm(len(images), generator=generator)
    for part in order[: len(order) // BATCH * BATCH].split(BATCH):
        mirrored = torch.rand(BATCH, 1, 1, 1, generator=generator) < 0.5
        yield torch.where(mirrored, images[part].flip(3), images[part]), labels[part]


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """Share of the test images that are classified rightly, in percent."""
    model.eval()
    rights = [
        (model(images).argmax(1) == labels).sum().item()
        for images, labels in zip(data[0].split(500), data[1].split(500), strict=True)
    ]
    model.train()
    return 100 * sum(rights) / len(data[1])


def train(
    model: nn.Module,
    data: tuple[Data, Data],
    arguments: argparse.Namespace,
    done: Callable[[], None] = lambda: None,
) -> list[float]:
    """Train with momentum and a one-cycle learning rate; test accuracy after each epoch.

    `done` is called after each step. A run that is stopped after some epochs is the beginning of
    the whole one: its learning rate is that of all epochs.
    """
    generator = torch.Generator().manual_seed(arguments.seed)
    optimizer = torch.optim.SGD(
        model.parameters(), RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(data[0][0]) // BATCH * arguments.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    accuracies = []
    for epoch in range(arguments.epochs if arguments.stop_after is None else arguments.stop_after):
        start = time.perf_counter()
        for images, labels in batches(data[0], generator):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
            done()
        accuracies.append(round(accuracy(model, data[1]), 2))
        seconds = time.perf_counter() - start
        print(f"epoch {epoch}: {accuracies[-1]:.2f} % in {seconds:.0f} s", flush=True)
    return accuracies


def recorded_steps(total: int) -> tuple[int, ...]:
    """Two steps at the beginning, two in the middle, two at the end; fewer of a shorter run."""
    middle = total // 2
    wanted = {0, 1, middle, middle + 1, total - 2, total - 1}
    return tuple(sorted(wanted & set(range(total))))


def new_model(seed: int, blocks: int = 1) -> ResNet:
    """Make a model whose weights depend on the seed alone."""
    torch.manual_seed(seed)
    return ResNet(blocks)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).parent / "resnet8-fashion-mnist-swat-u-80"
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--out", type=Path, default=default, help="the trace's directory")
    return parsed(parser, argv, epochs=5, images=8, threads=2)


def parsed(
    parser: argparse.ArgumentParser, argv: list[str] | None, **default: int
) -> argparse.Namespace:
    """Read the command line: a script's own options, and those of a run on these data."""
    parser.add_argument("--epochs", type=int, default=default["epochs"])
    parser.add_argument("--stop-after", type=int, help="train so many of the epochs alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--images", type=int, default=default["images"], help=f"images recorded, of {BATCH}"
    )
    parser.add_argument("--data", choices=SETS, help="the first of these that is there by default")
    parser.add_argument("--limit", type=int, help="train and test on so many images")
    parser.add_argument("--threads", type=int, default=default["threads"])
    arguments = parser.parse_args(argv)
    if arguments.limit is not None and arguments.limit < BATCH:
        parser.error(f"--limit {arguments.limit}: must be at least {BATCH}, one batch")
    return arguments


def write_summary(out: Path, **said: object) -> None:
    """Write what a run says of itself, and its command, into a .json beside its trace."""
    summary = {"command": " ".join(["python", *sys.argv]), **said}
    out.with_name(out.name + ".json").write_text(json.dumps(summary, indent=1) + "\n")
    print(f"trace: {out}\nnext:  swatsim simulate {out} -m tensordash", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Train twice, and write the trace and the accuracies."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(arguments.threads)
    name, *data = load(arguments.data, arguments.limit)
    steps = recorded_steps(len(data[0][0]) // BATCH * arguments.epochs)
    model, policy = new_model(arguments.seed), SwatU(arguments.sparsity)
    print(f"SWAT-U at {arguments.sparsity:.0%}", flush=True)
    with Tracer(model, policy, arguments.out, steps=steps, images=arguments.images) as tracer:
        sparse = train(model, data, arguments, tracer.step)
    print("dense", flush=True)
    dense = train(new_model(arguments.seed), data, arguments)
    write_summary(
        arguments.out,
        data=name,
        limit=arguments.limit,
        seed=arguments.seed,
        epochs=arguments.epochs,
        sparsity=arguments.sparsity,
        recorded_steps=steps,
        test_accuracy_percent={"dense": dense, "swat-u": sparse},
    )


if __name__ == "__main__":
    main()
