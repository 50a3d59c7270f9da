"""A training run without a network: random operands, a plain optimizer, all that was answered.

Values have a few levels only, so that ties and zeros abound and float32 arithmetic is exact. The
optimizer works in place and moves weights without a gradient as well, as weight decay would.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from swatsim.policies import Policy, Site, Sparsifier, allocate_once, begin_run
from swatsim.workload.layer import OPERANDS_OF, Layer, Operand

#: Ragged for N:M, grouped, depthwise, linear, and of a single weight.
LAYERS = (
    Layer(name="first", C=3, K=4, R=3, S=3, H=4, W=4, padding=1),
    Layer(name="grouped", C=6, K=10, R=3, S=1, H=4, W=4, groups=2),
    Layer(name="deep", C=4, K=8, R=2, S=2, H=3, W=3, groups=4),
    Layer(name="wide", C=9, K=6, R=1, S=2, H=2, W=3),
    Layer(name="one", C=1, K=1, H=2, W=2),
    Layer(name="fc", kind="linear", C=7, K=5),
)
BATCH = 3
OPERANDS: tuple[Operand, ...] = ("weight", "act", "grad_out")

Array = Any
#: (layer, run) or (layer, run, operand) or (layer, run, op, operand).
Key = tuple[Any, ...]


def levels(rng: np.random.Generator, shape: tuple[int, ...], most: int = 3) -> np.ndarray:
    """Draw halves from -most/2 to most/2."""
    return (rng.integers(-most, most + 1, shape) / 2).astype(np.float32)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw what has no ties."""
    return rng.standard_normal(shape).astype(np.float32)


@lru_cache(maxsize=1000)
def drawn_of(
    draw: Callable[..., np.ndarray], seed: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]
) -> tuple[np.ndarray, ...]:
    """Draw values one after another; once for all runs, of which most draw the same."""
    rng = np.random.default_rng(seed)
    drawn = tuple(draw(rng, shape) for shape in shapes)
    for values in drawn:
        values.flags.writeable = False
    return drawn


@dataclass
class Seen:
    """A step: what was read and what was answered, as copies in NumPy."""

    step: int
    read: dict[Key, np.ndarray] = field(default_factory=dict)
    masks: dict[Key, np.ndarray | None] = field(default_factory=dict)
    dense: dict[Key, np.ndarray] = field(default_factory=dict)
    handed: dict[Key, np.ndarray] = field(default_factory=dict)
    moved: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def mask(self, layer: str, run: int = 1) -> np.ndarray:
        """Give the mask of a weight, the same in both passes."""
        forward, backward = (self.masks[layer, run, op, "weight"] for op in ("fprop", "dgrad"))
        assert forward is not None
        assert backward is not None
        assert np.array_equal(forward, backward)
        return forward


def always(layer: str, step: int) -> int:
    """Run each layer once in each step."""
    return 1


def whole_batch(layer: str, step: int) -> int:
    """Give each layer the same samples in each step."""
    return BATCH


class Run:
    """A run of a policy; `draw` makes values, `runs` tells how often a layer runs in a step.

    `batch` tells of how many samples, and the policy is allocated to the layers without the `late`
    ones.
    """

    def __init__(
        self,
        policy: Policy,
        layers: Sequence[Layer] = LAYERS,
        *,
        seed: int = 0,
        torch: Any = None,
        draw: Callable[..., np.ndarray] = levels,
        runs: Callable[[str, int], int] = always,
        batch: Callable[[str, int], int] = whole_batch,
        frozen: Sequence[str] = (),
        late: Sequence[str] = (),
        weights: dict[str, np.ndarray] | None = None,
    ) -> None:
        known = [layer for layer in layers if layer.name not in late]
        self.policy, self.layers, self.seed = allocate_once(policy, known), layers, seed
        self.batch = batch
        self.draw, self.runs, self.frozen, self.torch = draw, runs, frozen, torch
        self.first = next((layer.name for layer in layers if layer.kind == "conv"), None)
        self.sparsifier: Sparsifier = begin_run(self.policy)
        rng = np.random.default_rng(seed)
        start = {layer.name: draw(rng, layer.shape_of("weight", 1)) for layer in layers}
        start |= weights or {}
        self.weights = {name: self.given(value) for name, value in start.items()}
        self.step = 0

    def given(self, array: np.ndarray) -> Array:
        return self.torch.from_numpy(array.copy()) if self.torch else array.copy()

    def interrupted(self) -> Run:
        """Go on from a copy of the state, as another process would."""
        after = copy.copy(self)
        after.weights = {name: copy.deepcopy(value) for name, value in self.weights.items()}
        after.sparsifier = begin_run(self.policy)
        after.sparsifier.load(copy.deepcopy(self.sparsifier.state()))
        return after

    def go(self, steps: int) -> list[Seen]:
        return [self._step() for _ in range(steps)]

    def _step(self) -> Seen:
        seen = Seen(self.step)
        gradients: dict[str, Array] = {}
        for layer in self.layers:
            runs = self.runs(layer.name, self.step)
            shapes = (*self._shapes(layer), layer.shape_of("weight", 1))
            drawn = iter(drawn_of(self.draw, self._seed_of(layer), shapes * runs))
            for run in range(1, 1 + runs):
                self._run(seen, layer, run, drawn, gradients)
        for layer in self.layers:
            weight = self.weights[layer.name]
            if layer.name in gradients:
                weight -= gradients[layer.name] * 0.5
                (drawn,) = drawn_of(self.draw, self._seed_of(layer, 1), (tuple(weight.shape),))
                weight += self.given(drawn)
            seen.moved[layer.name] = kept_copy(weight)
        for name, weight in self.sparsifier.end_step(self.step, self.weights).items():
            self.weights[name][...] = weight
        for gradient in gradients.values():
            gradient[...] = 99  # as zero_grad does, which clears in place
        seen.weights = {name: kept_copy(weight) for name, weight in self.weights.items()}
        self.step += 1
        return seen

    def _seed_of(self, layer: Layer, *more: int) -> tuple[int, ...]:
        return (self.seed, self.step, *more, *layer.name.encode())

    def _shapes(self, layer: Layer) -> list[tuple[int, ...]]:
        samples = self.batch(layer.name, self.step)
        return [layer.shape_of(operand, samples) for operand in OPERANDS]

    def _run(
        self,
        seen: Seen,
        layer: Layer,
        run: int,
        drawn: Iterator[np.ndarray],
        gradients: dict[str, Any],
    ) -> None:
        for operand in OPERANDS:
            ops = [op for op, operands in OPERANDS_OF.items() if operand in operands]
            own = next(drawn)
            values = self.weights[layer.name] if operand == "weight" else self.given(own)
            sites = [
                Site(layer, op, operand, layer.name == self.first, self.step, run) for op in ops
            ]
            seen.read[layer.name, run, operand] = kept_copy(values)
            for op, mask in zip(ops, self.sparsifier.masks(sites, values), strict=True):
                seen.masks[layer.name, run, op, operand] = None if mask is None else kept_copy(mask)
        gradient = next(drawn)
        if layer.name not in self.frozen:
            dense, weight = self.given(gradient), self.weights[layer.name]
            handed = self.sparsifier.weight_gradient(layer, weight, dense)
            seen.dense[layer.name, run], seen.handed[layer.name, run] = gradient, kept_copy(handed)
            held = gradients.get(layer.name)
            gradients[layer.name] = handed if held is None else held + handed


def kept_copy(array: Array) -> np.ndarray:
    return np.array(array if isinstance(array, np.ndarray) else array.numpy())


def same(left: Sequence[Seen], right: Sequence[Seen]) -> None:
    """Compare two runs to the bit."""
    for one, other in zip(left, right, strict=True):
        for part in ("read", "masks", "dense", "handed", "moved", "weights"):
            mine, its = getattr(one, part), getattr(other, part)
            assert mine.keys() == its.keys()
            for key in mine:
                a, b = mine[key], its[key]
                assert (a is None) == (b is None), (one.step, part, key)
                if a is not None:
                    assert a.dtype == b.dtype, (one.step, part, key)
                    assert a.shape == b.shape, (one.step, part, key)
                    assert a.tobytes() == b.tobytes(), (one.step, part, key)


# ---- references, by loops ----------------------------------------------------------------------


def count_of(density: Fraction, numel: int) -> int:
    """ceil(density * numel), by counting up."""
    count = 0
    while count < density * numel:
        count += 1
    return count


def top(scores: Sequence[float], count: int) -> list[bool]:
    """The largest, of equal ones the first, never a zero."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept = {i for i in order[:count] if scores[i] > 0}
    return [i in kept for i in range(len(scores))]


def top_of(values: np.ndarray, density: Fraction) -> np.ndarray:
    """Top-K of a whole tensor by magnitude."""
    flat = [abs(float(value)) for value in values.reshape(-1)]
    return np.array(top(flat, count_of(density, len(flat))), bool).reshape(values.shape)


def exactly(scores: np.ndarray, count: int, among: np.ndarray) -> np.ndarray:
    """So many of some places, those of largest score, of equal ones the first; zeros too."""
    flat, places = scores.reshape(-1), [i for i, it in enumerate(among.reshape(-1)) if it]
    kept = sorted(places, key=lambda i: (-float(flat[i]), i))[:count]
    mask = np.zeros(flat.size, bool)
    mask[kept] = True
    return mask.reshape(scores.shape)
