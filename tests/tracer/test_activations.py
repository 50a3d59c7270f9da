"""Products of two activations are layers: their masks against what autograd has, written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from swatsim.tracefile.reader import Step  # noqa: E402
from swatsim.workload.flops import macs_dense  # noqa: E402
from tests.tracer.test_recognition import observed  # noqa: E402

#: An operand of an op of a layer, by its last name.
Key = tuple[str, str, str]
N, H, L, S, E = 3, 4, 5, 6, 4


@dataclass(frozen=True)
class Case:
    """A call of attention; `mask` gives what is added to the scores (N, H, L, S), or read of them.

    `most` is the largest factor of the scores, `frozen` which of q, k and v need no gradient.
    """

    sizes: tuple[int, int, int] = (S, E, H)  # keys, depth of v, heads of keys
    causal: bool = False
    mask: Callable[[], Tensor] | None = None
    scale: float | None = None
    most: float = 1
    frozen: str = ""
    flat: bool = False

    def inputs(self) -> list[Tensor]:
        torch.manual_seed(5)
        keys, depth, heads = self.sizes
        shapes = {"q": (N, H, L, E), "k": (N, heads, keys, E), "v": (N, heads, keys, depth)}
        made = {name: (torch.randn(shape) * self.most).relu() for name, shape in shapes.items()}
        made = {name: x[:, 0] if self.flat else x for name, x in made.items()}
        return [x.requires_grad_(name not in self.frozen) for name, x in made.items()]

    def masked(self, scores: Tensor) -> Tensor:
        torch.manual_seed(6)
        if self.causal:
            scores = scores.masked_fill(ahead(*scores.shape[-2:]), -math.inf)
        mask = None if self.mask is None else self.mask()
        if mask is None:
            return scores
        hides = mask.dtype == torch.bool
        return scores.masked_fill(~mask, -math.inf) if hides else scores + mask


def ahead(rows: int, columns: int) -> Tensor:
    return torch.ones(rows, columns, dtype=torch.bool).triu(1)


def drawn(*shape: int) -> Callable[[], Tensor]:
    """A boolean mask that leaves each row a key."""
    return lambda: (torch.rand(shape) < 0.6).index_fill(-1, torch.tensor([0]), value=True)


def added(least: float, *shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape).masked_fill(~drawn(*shape)(), least)


CASES = {
    "plain": Case(),
    "causal": Case(causal=True),
    "more queries than keys, causal": Case((3, E, H), causal=True),
    "one mask for all": Case(mask=drawn(L, S)),
    "a mask for each sample": Case(mask=drawn(N, 1, 1, S)),
    "a mask for each head": Case(mask=drawn(N, H, L, S)),
    "rows without a key": Case(
        mask=lambda: torch.ones(L, S).bool().index_fill(0, ONE, value=False)
    ),
    "minus infinity is added": Case(mask=added(-math.inf, L, S)),
    "a large number is added": Case(mask=added(-1e9, N, 1, L, S)),
    "a position bias": Case(mask=lambda: torch.randn(1, H, L, S)),
    "scale": Case(scale=0.01),
    "underflow": Case(most=15),
    "a key's head for two queries'": Case((S, E, 2), causal=True),
    "one head of keys": Case((S, E, 1)),
    "another depth of values": Case((S, 7, H)),
    "without heads": Case(flat=True, causal=True),
    "queries without gradient": Case(frozen="q"),
    "keys without gradient": Case(frozen="k", causal=True),
    "values without gradient": Case(frozen="v"),
    "only values": Case(frozen="qk", causal=True),
}
ONE = torch.tensor([1])


class Attention(nn.Module):
    """Attention of a case in one of several ways."""

    def __init__(self, case: Case, way: str) -> None:
        super().__init__()
        self.case, self.way = case, way

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        case = self.case
        if self.way == "fused":
            torch.manual_seed(6)
            mask = None if case.mask is None else case.mask()
            more = {"attn_mask": mask, "is_causal": case.causal, "scale": case.scale}
            grouped = case.sizes[2] < H
            return functional.scaled_dot_product_attention(q, k, v, enable_gqa=grouped, **more)
        if case.sizes[2] < H:
            k, v = (x.repeat_interleave(H // case.sizes[2], 1) for x in (k, v))
        scale = 1 / math.sqrt(E) if case.scale is None else case.scale
        return WAYS[self.way](case, q, k, v, scale)


def plainly(case: Case, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return case.masked(q @ k.mT * scale).softmax(-1) @ v


def by_einsum(case: Case, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    scores = torch.einsum("...id,...jd->...ij", q * scale, k)
    return torch.einsum("...ij,...jd->...id", case.masked(scores).softmax(-1), v)


def merged(case: Case, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Heads before samples, as old code has them; scores scaled in place, turned, turned back."""
    one, other, last = (x.movedim(1, 0).flatten(0, 1) if x.dim() == 4 else x for x in (q, k, v))
    scores = torch.bmm(one, other.mT).mul_(scale).mT.contiguous().mT
    shape = (-1, N, *scores.shape[1:])
    scores = case.masked(scores.reshape(shape).movedim(0, 1) if q.dim() == 4 else scores)
    seen = functional.dropout(functional.softmax(scores, -1, dtype=torch.float32), 0)
    seen = seen.movedim(1, 0).flatten(0, 1) if q.dim() == 4 else seen
    y = torch.bmm(seen.type_as(last), last)
    return y.reshape(-1, N, *y.shape[1:]).movedim(0, 1) if q.dim() == 4 else y


def with_a_bias(case: Case, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The mask is what the product is added to, as in torch's own module."""
    mask = case.masked(torch.zeros(*q.shape[:-1], k.shape[-2]))
    lead = mask.shape[:-2]
    mask, one, other, last = (x.reshape(-1, *x.shape[-2:]) for x in (mask, q, k, v))
    seen = torch.baddbmm(mask, one, other.mT, alpha=scale).softmax(-1)
    return torch.bmm(seen, last).unflatten(0, lead)


WAYS = {"plainly": plainly, "einsum": by_einsum, "merged": merged, "bias": with_a_bias}


def expected(case: Case) -> dict[Key, np.ndarray]:
    """What autograd has of both products, as masks of a trace."""
    q, k, v = case.inputs()
    if case.flat:
        q, k, v = (x[:, None] for x in (q, k, v))
    if case.sizes[2] < H:
        k, v = (x.repeat_interleave(H // case.sizes[2], 1) for x in (k, v))
    factor = 1 / math.sqrt(E) if case.scale is None else case.scale
    scores = (q @ k.mT).requires_grad_()
    left = case.masked(torch.zeros_like(scores)) > -1000
    seen = case.masked(scores * factor).softmax(-1)
    seen = torch.where(left.any(-1, keepdim=True), seen, 0)
    y = seen @ v
    y.retain_grad()
    scores.retain_grad()
    y.backward(gradient(y[:, 0] if case.flat else y).reshape(y.shape))
    wants = {name: name not in case.frozen for name in "qkv"}
    ops = {"fprop": True, "wgrad": wants["k"], "dgrad": wants["q"]}
    found = masks("scores", q, k, scores.grad, ops)
    ops = {"fprop": True, "wgrad": wants["v"], "dgrad": wants["q"] or wants["k"]}
    found |= masks("values", seen, v.mT, y.grad, ops)
    if not bool(left.all()):
        found["scores", "fprop", "grad_out"] = rows(left)
        if ops["dgrad"]:
            found["values", "dgrad", "act"] = rows(left)
    return found


def masks(
    name: str, left: Tensor, right: Tensor, dy: Tensor, ops: dict[str, bool]
) -> dict[Key, np.ndarray]:
    """Masks of what the ops that run read; `right` is (N, H, K, C)."""
    weight = right.flatten(1, 2).detach().numpy() != 0
    each = {"act": rows(left), "weight": weight, "grad_out": rows(dy)}
    reads = {"fprop": "act weight", "wgrad": "act grad_out", "dgrad": "weight grad_out"}
    return {
        (name, op, operand): each[operand]
        for op, operands in reads.items()
        for operand in operands.split()
        if ops[op]
    }


def rows(values: Tensor) -> np.ndarray:
    """(N, H, R, X) as (N, H * X, R, 1)."""
    return values.mT.flatten(1, 2)[..., None].detach().numpy() != 0


def gradient(y: Tensor) -> Tensor:
    torch.manual_seed(7)
    return torch.randn(y.shape).relu()


def run(model: nn.Module, given: list[Tensor]) -> None:
    y = model(*given)
    y.backward(gradient(y))


def recorded(step: Step) -> dict[Key, np.ndarray]:
    return {
        (record.layer.rpartition(".")[2], record.op, record.operand): step.mask(*record.key)
        for record in step.records
    }


def check(step: Step, masks: dict[Key, np.ndarray]) -> None:
    got = recorded(step)
    assert sorted(got) == sorted(masks)
    for key, mask in masks.items():
        np.testing.assert_array_equal(got[key], mask, err_msg=str(key))
    assert step.coverage is not None
    assert step.coverage.share == 1.0, step.coverage
    total = sum(macs_dense(layer, step.batch_of(layer.name), op) for layer, op in step.ops())
    assert step.coverage.held.total == total


#: Written out they are no numbers.
FUSED_ONLY = "rows without a key"


@pytest.mark.parametrize("way", ["fused", *WAYS])
@pytest.mark.parametrize("name", CASES)
def test_masks_are_what_autograd_has(name: str, way: str, tmp_path: Path) -> None:
    case = CASES[name]
    if name == FUSED_ONLY and way != "fused":
        return
    model = Attention(case, way)
    step = observed(model, tmp_path, lambda: run(model, case.inputs()))
    check(step, expected(case))
