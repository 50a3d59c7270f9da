"""Which share of a training step a trace holds, for models of many families.

    pip install '.[torch,models]' && python benchmarks/share_held.py

By hand, before a release: writes docs/models.md. Each model trains one step three times from the
same state: plainly, under an `Observer`, under a `Tracer` with SWAT-U; what multiplies by a weight
is found without either (families/products.py). A model that can't be built or trained has a row
that says so. The exit code is 1 if products with a weight are neither in a trace nor named, if a
trace takes an activation for a weight, or if a parameter differs after a step that was observed.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from families import models
from families.model import BATCH, Model
from families.products import by_weights, content
from pages import ROOT, machine

from swatsim.policies import SwatU
from swatsim.tracefile import Step, open_trace
from swatsim.tracer.pytorch import Observer, Tracer
from swatsim.workload.flops import macs_dense

SPARSITY = 0.8
PATH = ROOT / "docs" / "models.md"
LIBRARIES = ("torch", "timm", "transformers", "diffusers")
#: Names of a list that are written out.
SHOWN = 2

Open: TypeAlias = Callable[[nn.Module, str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Held:
    """What a trace holds of a step.

    Parameters
    ----------
    layers, macs : int
        Layers of the step, each once, and what it multiplies.
    share : float
        Held, of all that multiplies.
    of_weights : float
        Held, of what multiplies by a weight; above 1 if an activation was taken for one.
    others : dict of str to float
        What is not held, and its share of all.
    left_alone : tuple of str
        Modules that the trace names as left dense.
    """

    layers: int
    macs: int
    share: float
    of_weights: float
    others: dict[str, float]
    left_alone: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        """Whether all products with weights are held, or what is not is named."""
        return self.of_weights == 1 or (self.of_weights < 1 and bool(self.left_alone))


@dataclass(frozen=True)
class Row:
    """A model in the table.

    Parameters
    ----------
    family, name : str
    observed, traced : Held, optional
        Missing where something failed.
    is_equal : bool
        Whether the observed step left all as the plain one does, to the bit.
    failure : str
        What went wrong, in one line.
    """

    family: str
    name: str
    observed: Held | None = None
    traced: Held | None = None
    is_equal: bool = False
    failure: str = ""

    @property
    def is_right(self) -> bool:
        """Whether all is as it should be."""
        if self.observed is None or self.traced is None:
            return False
        return self.is_equal and self.observed.is_right and self.traced.is_right


# ---- a step --------------------------------------------------------------------------------------


def forward(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Return a loss of all that a model gives for a batch."""
    torch.manual_seed(0)
    given = pytree.tree_leaves(model(**batch))
    learnt = [it for it in given if isinstance(it, Tensor) and it.requires_grad]
    return torch.stack([values.square().mean() for values in learnt]).sum()


def train(model: nn.Module, batch: dict[str, Any], after: Callable[[], Any]) -> list[bytes]:
    """Train a step, and return the bytes of the loss, of gradients, parameters and buffers."""
    optimizer = torch.optim.SGD(model.parameters(), 0.001)
    loss = forward(model, batch)
    loss.backward()
    optimizer.step()
    after()
    gradients = [it.grad for it in model.parameters() if it.grad is not None]
    state = [loss, *gradients, *model.parameters(), *model.buffers()]
    return [content(each) for each in state]


def recorded(model: nn.Module, batch: dict[str, Any], opens: Open) -> tuple[list[bytes], Step]:
    """Train a step that is recorded; return what comes out of it, and the step."""
    with tempfile.TemporaryDirectory() as folder:
        with opens(model, f"{folder}/t") as tracer:
            after = train(model, batch, tracer.step)
        if tracer.error is not None:
            raise tracer.error
        return after, open_trace(f"{folder}/t").step(0)


def differing(model: nn.Module) -> None:
    """Make parameters differ that are all alike, such as scales that begin with zero."""
    with torch.no_grad():
        for each in model.parameters():
            if each.numel() > 1 and bool(each.min() == each.max()):
                each.add_(torch.randn_like(each), alpha=0.05)


def measured(model: Model) -> Row:
    """Return the row of a model, whatever happens."""
    try:
        return measure(model)
    except Exception as error:  # noqa: BLE001  (a row that says so)
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return Row(model.family, model.name, failure=words[:120])


def measure(model: Model) -> Row:
    """Return the row of a model that can be built and trained."""
    torch.manual_seed(0)
    built, draw = model.build()
    differing(built.train())

    def run(given: dict[str, Any], listed: AbstractContextManager[Any]) -> None:
        with listed:
            forward(read, given)

    batch, read = draw(), copy.deepcopy(built)
    weights = by_weights(run, read, (batch, draw()))
    plain = train(copy.deepcopy(built), batch, lambda: None)
    after, step = recorded(copy.deepcopy(built), batch, lambda m, p: Observer(m, p, steps=(0,)))
    policy = SwatU(SPARSITY)
    _, traced = recorded(built, batch, lambda m, p: Tracer(m, policy, p, steps=(0,)))
    shares = held(step, weights), held(traced, weights)
    return Row(model.family, model.name, *shares, is_equal=plain == after)


def held(step: Step, weights: tuple[int, int]) -> Held:
    """Return what a step holds, beside what a forward pass multiplies by weights.

    If that is all held, so is what gradients are made of, but for those that are named alone.
    """
    coverage, (least, most) = step.coverage, weights
    assert coverage is not None
    seen, own = coverage.seen, products(step)
    forward, whole = coverage.held.forward - own["fprop"], coverage.held.total - own.total()
    missed = max(0, least - forward) - max(0, forward - most)
    parts = coverage.not_held
    of_weights = [it.backward for it in parts if missed > 0 or not it.forward]
    total = whole + missed + (sum(of_weights) if missed >= 0 else 0)
    others: Counter[str] = Counter()
    for part in parts:
        others[part.what] += part.forward + part.backward
    names = {layer.name.partition("@")[0] for layer in step.layers}
    return Held(
        layers=len(names),
        macs=seen.total,
        share=coverage.share,
        of_weights=whole / total if total else 1.0,
        others={what: size / seen.total for what, size in others.most_common()},
        left_alone=coverage.left_alone,
    )


def products(step: Step) -> Counter[str]:
    """Return what each op of the step's products of two activations multiplies."""
    found: Counter[str] = Counter()
    for layer, op in step.ops():
        if layer.multiplies_activations:
            found[op] += macs_dense(layer, step.batch_of(layer.name), op)
    return found


# ---- the table -----------------------------------------------------------------------------------

ABOUT = f"""\
Small models with random weights train a step on {BATCH} samples each, and the trace holds a share
of all that the step multiplies, forward and backward: if all is as it should be, 100 % of what
multiplies by a weight, which is a parameter or computed from parameters alone, as DeBERTa's
positions and a class token's query are, and of products of two activations, attention's above
all. What is not held the trace names.
`Tracer` is with `SwatU({SPARSITY})`; recurrent layers that run in one kernel are in its trace,
dense and named. Equal to the bit is a step under `Observer` to one without: loss, gradients,
parameters and buffers."""

COLUMNS = (
    *("family", "model", "layers", "MACs of the step", "held by `Observer`", "held by `Tracer`"),
    *("by weights: `Observer`", "by weights: `Tracer`", "not held", "equal to the bit"),
    "dense under `Tracer`",
)


def percent(share: float) -> str:
    """Return a share in words; 0 % and 100 % only of nothing and all."""
    words = f"{100 * share:.1f}".removesuffix(".0")
    near = {"0": "< 0.1", "100": "> 99.9" if share < 1 else "> 100"}
    return f"{near.get(words, words) if share not in (0, 1) else words} %"


def some(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many there are more."""
    more = f", {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def row(it: Row) -> str:
    """Return a line of the table."""
    if it.observed is None or it.traced is None:
        return f"| {it.family} | {it.name} | failed: {it.failure.replace('|', '/')} |" + " |" * 8
    first, second = it.observed, it.traced
    cells = [it.family, it.name, str(first.layers), f"{first.macs / 1e6:.1f} M"]
    cells += [percent(each.share) for each in (first, second)]
    cells += [percent(each.of_weights) for each in (first, second)]
    cells.append(some([f"{what} {percent(share)}" for what, share in first.others.items()]))
    cells.append("yes" if it.is_equal else "no")
    cells.append(some([f"`{name}`" for name in second.left_alone]))
    return f"| {' | '.join(cells)} |"


def summary(rows: Sequence[Row]) -> str:
    """Return what all rows say, in a line."""
    done = [it for it in rows if it.observed is not None]
    right = sum(it.is_right for it in done)
    families = len({it.family for it in rows})
    counts = f"{right} as they should be, {len(done) - right} not, {len(rows) - len(done)} failed"
    return f"{len(rows)} models of {families} families: {counts}."


def page(rows: Sequence[Row], how: str) -> Iterator[str]:
    """Yield the lines of docs/models.md.

    Parameters
    ----------
    rows : sequence of Row
    how : str
        When, where and with what it was made.
    """
    yield "# Models, and what a trace holds of them\n"
    yield f"{ABOUT}\n"
    yield f"Made by `python benchmarks/share_held.py`, by hand before a release. {how}\n"
    yield f"{summary(rows)}\n"
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---|---|" + "---:|" * 6 + "---|" * 3
    yield from map(row, rows)


def versions() -> str:
    """Return the libraries that are there, with their versions."""
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.import_module(name).__version__}")
        except ImportError:
            found.append(f"no {name}")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="names; all by default")
    parser.add_argument("--print-only", action="store_true", help="leave docs/models.md as it is")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start, rows = time.perf_counter(), []
    for model in models():
        if not arguments.models or model.name in arguments.models:
            rows.append(measured(model))
            print(row(rows[-1]), flush=True)
    minutes = (time.perf_counter() - start) / 60
    how = f"{datetime.now(UTC):%Y-%m-%d}, {machine()}, {minutes:.0f} minutes: {versions()}."
    if not (arguments.print_only or arguments.models):
        PATH.write_text("\n".join(page(rows, how)) + "\n")
    print(how, summary(rows), sep="\n")
    sys.exit(int(not all(it.is_right for it in rows if it.observed is not None)))


if __name__ == "__main__":
    main()
