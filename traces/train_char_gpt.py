"""Train a small GPT on characters of Python's sources by one method, or by all, and record steps.

    python traces/train_char_gpt.py --method swat-u-80
    python traces/train_char_gpt.py --method all

All methods share seed, order of the text and schedule. Each gets a trace, attention included, and
beside it a .json with its losses in nats a character. The text is this Python's standard library
(PSF licence): another version has another one, so the .json says which. In seconds, to try it:

    python traces/train_char_gpt.py --method relu2 --out runs --steps 40 --width 32
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import platform
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from record_resnet8 import write_summary
from torch import Tensor, nn
from torch.nn import functional

from swatsim.policies import Dense, Policy, SrSte, SwatU
from swatsim.tracer.pytorch import Tracer

LAYERS, HEADS, LENGTH, BATCH = 4, 4, 128, 16
RATE = 2e-3
#: Printable ASCII and the end of a line; any other character is the last one.
ALPHABET = "\n" + "".join(map(chr, range(32, 127))) + "\x00"
#: A tenth of the files is held out to test with, in batches of so many.
HELD_OUT, TESTS = 10, 32
#: Losses are measured, and a step is recorded, after each such share of the run.
PARTS = 5
METHODS = ("dense", "2to4", "swat-u-80", "relu2")


def policy_of(method: str) -> Policy:
    """Return a method's policy; squared ReLU's activations are sparse by themselves."""
    return {"2to4": SrSte(2, 4), "swat-u-80": SwatU(0.8)}.get(method, Dense())


class Block(nn.Module):
    """Attention to characters before, then two linear layers, each behind a layer norm."""

    def __init__(self, width: int, squared: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        self.squared = squared

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, T, width) to the same."""
        heads = self.qkv(self.norm1(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        values = functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(values.transpose(1, 2).flatten(2))
        y = self.up(self.norm2(x))
        y = functional.relu(y).square() if self.squared else functional.gelu(y)
        return x + self.down(y)


class CharacterGpt(nn.Module):
    """A GPT (Radford et al., 2019) on characters.

    Squared ReLU in place of GELU is of So et al., "Primer", NeurIPS 2021, section 4.
    """

    def __init__(self, width: int, squared: bool) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(ALPHABET), width)
        self.places = nn.Embedding(LENGTH, width)
        self.blocks = nn.Sequential(*(Block(width, squared) for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(ALPHABET), bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map characters (N, T) to scores (N, T, characters)."""
        return self.head(self.norm(self.blocks(self.characters(x) + self.places.weight)))


def read_text() -> tuple[Tensor, Tensor]:
    """Read the standard library's modules: characters to train with, and to test with."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(library.glob("*.py"))
    number = {character: i for i, character in enumerate(ALPHABET)}
    parts: tuple[list[int], list[int]] = [], []
    for i, file in enumerate(files):
        text = file.read_text(encoding="utf-8", errors="replace")
        held_out = i % HELD_OUT == HELD_OUT - 1
        parts[held_out].extend(number.get(one, len(ALPHABET) - 1) for one in text)
    train, test = (torch.tensor(part, dtype=torch.uint8) for part in parts)
    return train, test


def batches(text: Tensor, count: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield so many batches of stretches of a text, and of the characters that follow."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        begins = torch.randint(len(text) - LENGTH, (BATCH, 1), generator=generator)
        stretches = text[begins + torch.arange(LENGTH + 1)].long()
        yield stretches[:, :-1], stretches[:, 1:]


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean loss in nats a character."""
    return functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


@torch.no_grad()
def test_loss(model: nn.Module, text: Tensor) -> float:
    """Return the loss on text that was held out."""
    model.eval()
    losses = [loss_of(model, *batch).item() for batch in batches(text, TESTS, seed=1)]
    model.train()
    return sum(losses) / len(losses)


def train(
    model: nn.Module, texts: tuple[Tensor, Tensor], arguments: argparse.Namespace, tracer: Tracer
) -> list[float]:
    """Train with AdamW and a one-cycle learning rate; test loss after each part of the run."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.1)
    steps, losses, start = arguments.steps, [], time.perf_counter()
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    last = arguments.stop_after or steps
    for step, batch in enumerate(batches(texts[0], last, arguments.seed)):
        optimizer.zero_grad()
        loss = loss_of(model, *batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        tracer.step()
        if step + 1 in ends(steps):
            losses.append(round(test_loss(model, texts[1]), 4))
            seconds = time.perf_counter() - start
            print(f"step {step}: test loss {losses[-1]:.4f} after {seconds:.0f} s", flush=True)
    return losses


def ends(steps: int) -> list[int]:
    """Return after how many steps each part of the run ends."""
    return [steps * part // PARTS for part in range(1, PARTS + 1)]


def run(method: str, arguments: argparse.Namespace, texts: tuple[Tensor, Tensor]) -> None:
    """Train by one method; write its trace and its losses."""
    torch.manual_seed(arguments.seed)
    model = CharacterGpt(arguments.width, squared=method == "relu2")
    last = arguments.stop_after or arguments.steps
    steps = sorted(n for n in {0, 1, *(end - 1 for end in ends(arguments.steps))} if n < last)
    out = arguments.out / f"gpt-characters-{method}"
    print(f"{method}: {arguments.steps} steps", flush=True)
    with Tracer(model, policy_of(method), out, steps=steps, images=arguments.images) as tracer:
        losses = train(model, texts, arguments, tracer)
    digest = hashlib.sha256(torch.cat(texts).numpy().tobytes()).hexdigest()
    write_summary(
        out,
        method=method,
        text=f"standard library of Python {platform.python_version()}, PSF licence",
        text_sha256=digest,
        characters={"train": len(texts[0]), "test": len(texts[1])},
        seed=arguments.seed,
        steps=arguments.steps,
        threads=arguments.threads,
        torch=torch.__version__,
        recorded_steps=steps,
        test_loss_nats=losses,
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=(*METHODS, "all"), default="all")
    default = Path(__file__).parent
    parser.add_argument("--out", type=Path, default=default, help="the traces' directory")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--stop-after", type=int, help="train so many of the steps alone")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=1, help=f"texts recorded, of {BATCH}")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train by each method that is asked for."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO)
    torch.set_num_threads(arguments.threads)
    texts = read_text()
    for method in METHODS if arguments.method == "all" else [arguments.method]:
        run(method, arguments, texts)


if __name__ == "__main__":
    main()
