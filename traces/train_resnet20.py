"""Train ResNet-20 on Fashion-MNIST by one method, or by all, and record steps over the whole run.

    python traces/train_resnet20.py --method swat-u-80
    python traces/train_resnet20.py --method all

All methods share seed, order of the data and schedule. Each gets a trace, and beside it a .json
with the test accuracy after each epoch. On one core of 2020 a method takes about an hour; its first
epoch alone, to compare:

    python traces/train_resnet20.py --method dense --stop-after 1 --out runs
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from record_resnet8 import BATCH, load, new_model, parsed, train, write_summary

from swatsim.policies import Dense, Policy, RigL, SrSte, SwatU
from swatsim.tracer.pytorch import Tracer

#: Of each width: 20 layers (He et al., CVPR 2016, section 4.2).
BLOCKS = 3
METHODS = ("dense", "swat-u-80", "swat-u-90", "rigl-90", "2to4")


def policy_of(method: str, steps: int) -> Policy:
    """Return the policy of a run of so many steps; RigL's masks change in three quarters."""
    return {
        "dense": Dense(),
        "swat-u-80": SwatU(0.8),
        "swat-u-90": SwatU(0.9),
        "rigl-90": RigL(0.9, every=100, until=3 * steps // 4),
        "2to4": SrSte(2, 4),
    }[method]


def recorded_steps(epochs: int, steps: int) -> tuple[int, ...]:
    """Return the first two steps, and the last one of each epoch."""
    each = steps // epochs
    return tuple(sorted({0, 1} | {each * (epoch + 1) - 1 for epoch in range(epochs)}))


def run(method: str, arguments: argparse.Namespace) -> None:
    """Train by one method; write its trace and its accuracies."""
    name, *data = load(arguments.data, arguments.limit)
    total = len(data[0][0]) // BATCH * arguments.epochs
    steps = recorded_steps(arguments.epochs, total)
    if arguments.stop_after is not None:
        steps = tuple(n for n in steps if n < total // arguments.epochs * arguments.stop_after)
    model = new_model(arguments.seed, BLOCKS).to(memory_format=torch.channels_last)
    policy, out = policy_of(method, total), arguments.out / f"resnet20-fashion-mnist-{method}"
    print(f"{method}: {total} steps", flush=True)
    with Tracer(model, policy, out, steps=steps, images=arguments.images) as tracer:
        accuracies = train(model, data, arguments, tracer.step)
    write_summary(
        out,
        method=method,
        data=name,
        limit=arguments.limit,
        seed=arguments.seed,
        epochs=arguments.epochs,
        threads=arguments.threads,
        torch=torch.__version__,
        recorded_steps=steps,
        test_accuracy_percent=accuracies,
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=(*METHODS, "all"), default="all")
    default = Path(__file__).parent
    parser.add_argument("--out", type=Path, default=default, help="the traces' directory")
    return parsed(parser, argv, epochs=10, images=4, threads=1)


def main(argv: list[str] | None = None) -> None:
    """Train by each method that is asked for."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(arguments.threads)
    for method in METHODS if arguments.method == "all" else [arguments.method]:
        run(method, arguments)


if __name__ == "__main__":
    main()
