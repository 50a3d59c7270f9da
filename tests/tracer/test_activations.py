"""Products of two activations are layers: their masks against what autograd has, written out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracefile.reader import Step  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer, attention  # noqa: E402
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


@pytest.mark.parametrize("way", ["fused", "plainly", "merged"])
def test_the_first_samples_are_recorded(way: str, tmp_path: Path) -> None:
    case = CASES["a mask for each sample"]
    model = Attention(case, way)
    step = observed(model, tmp_path, lambda: run(model, case.inputs()), images=2)
    check(step, {key: mask[:2] for key, mask in expected(case).items()})


@pytest.mark.parametrize("most", [1, 2 * L * S, 3 * H * L * S])
def test_scores_that_are_computed_in_parts(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_AT_ONCE", most)
    case = CASES["a mask for each head"]
    model = Attention(case, "fused")
    check(observed(model, tmp_path, lambda: run(model, case.inputs())), expected(case))


class Model(nn.Module):
    """Computes what it is given with a linear layer `w`, of inputs (4, 6, 8)."""

    def __init__(self, compute: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.w, self.compute = nn.Linear(8, 8), compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self.w, x)


class OwnFunction(torch.autograd.Function):
    """Attention with a backward pass of its own, of square scores: shapes do not tell k from v."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = (q @ k.mT).softmax(-1)
        ctx.save_for_backward(q, k, v, seen)
        return seen @ v

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, seen = ctx.saved_tensors
        dseen = dy @ v.mT
        ds = seen * (dseen - (dseen * seen).sum(-1, keepdim=True))
        return ds @ k, ds.mT @ q, seen.mT @ dy


def attend(w: nn.Linear, x: Tensor) -> Tensor:
    return (w(x) @ w(x).mT).softmax(-1) @ w(x)


def in_windows(w: nn.Linear, x: Tensor) -> Tensor:
    x = w(x).unflatten(1, (2, 3)).flatten(0, 1)
    return ((x @ x.mT).softmax(-1) @ x).unflatten(0, (4, 2))


def with_a_sink(w: nn.Linear, x: Tensor) -> Tensor:
    x = w(x)
    scores = torch.cat([x @ x.mT, torch.zeros(4, 6, 1)], -1)
    return scores.masked_fill(ahead(6, 7), -math.inf).softmax(-1)[..., :-1] @ x


def nested(w: nn.Linear, x: Tensor) -> Tensor:
    rows = w(x).flatten(0, 1)[:, None].repeat(1, 2, 1)
    made = torch.nested.nested_tensor_from_jagged(rows, torch.tensor([0, 6, 10, 24]))
    made = made.transpose(1, 2)
    return functional.scaled_dot_product_attention(made, made, made).values()


#: What each multiplies, and its products: name, samples, heads, rows, depth, columns.
COMPUTED: dict[str, tuple[Callable[[nn.Linear, Tensor], Tensor], list[tuple[Any, ...]]]] = {
    "attention": (attend, [("scores", 4, 1, 6, 8, 6), ("values", 4, 1, 6, 6, 8)]),
    "a function of one's own": (
        lambda w, x: OwnFunction.apply(w(x)[..., :6], w(x)[..., 2:], w(x)[..., 1:7]),
        [("scores", 4, 1, 6, 6, 6), ("values", 4, 1, 6, 6, 6)],
    ),
    "linear attention": (
        lambda w, x: w(x).softmax(-1) @ (w(x).softmax(1).mT @ w(x)),
        [("matmul", 4, 1, 8, 6, 8), ("matmul_2", 4, 1, 6, 8, 8)],
    ),
    "windows": (in_windows, [("scores", 4, 2, 3, 8, 3), ("values", 4, 2, 3, 3, 8)]),
    "a sink": (with_a_sink, [("scores", 4, 1, 6, 8, 6), ("values", 4, 1, 6, 6, 8)]),
    "state space": (
        lambda w, x: torch.einsum("nlde,nle->nld", w(x)[..., None] * x[:, :, None], w(x)),
        [("matmul", 4, 6, 8, 8, 1)],
    ),
    "samples with each other": (
        lambda w, x: w(x)[:, 0] @ w(x)[:, 0].T,
        [("matmul", 1, 1, 4, 8, 4)],
    ),
    "a matrix for all": (lambda w, x: w(x) @ w(x)[0].T, [("matmul", 1, 1, 24, 8, 6)]),
    "a vector": (lambda w, x: torch.mv(w(x)[0], w(x)[0, 0]), [("matmul", 1, 1, 6, 8, 1)]),
    "two vectors": (lambda w, x: torch.dot(w(x)[0, 0], w(x)[0, 1]), [("matmul", 1, 1, 1, 8, 1)]),
    "a sum of products": (
        lambda w, x: torch.addbmm(x[0, :, :6], w(x), w(x).mT),
        [("matmul", 1, 1, 6, 32, 6)],
    ),
    "a product that is added": (
        lambda w, x: torch.baddbmm(x[..., :6], w(x), w(x).mT, beta=2, alpha=3),
        [("matmul", 4, 1, 6, 8, 6)],
    ),
    "vmap": (
        lambda w, x: torch.func.vmap(lambda y: (y @ y.mT).softmax(-1) @ y)(w(x)),
        [("scores", 4, 1, 6, 8, 6), ("values", 4, 1, 6, 6, 8)],
    ),
    "nested": (
        nested,
        [
            *(("scores", 1, 2, rows, 8, rows) for rows in (6, 4, 14)),
            *(("values", 1, 2, rows, rows, 8) for rows in (6, 4, 14)),
        ],
    ),
}


@pytest.mark.filterwarnings("ignore:.*prototype")
@pytest.mark.parametrize("kind", ["observer", "tracer"])
@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_multiplied_is_held(name: str, kind: str, tmp_path: Path) -> None:
    compute, products = COMPUTED[name]
    model, x = Model(compute), torch.randn(4, 6, 8)
    if kind == "observer":
        recorder: Any = Observer(model, tmp_path, steps=(0,))
    else:
        recorder = Tracer(model, SwatU(0), tmp_path, steps=(0,))
    with recorder:
        model(x).square().sum().backward()
        recorder.step()
        assert recorder.error is None
    step = open_trace(tmp_path).step(0)
    assert step.coverage is not None
    assert step.coverage.share == 1.0, step.coverage
    total = sum(macs_dense(layer, step.batch_of(layer.name), op) for layer, op in step.ops())
    assert step.coverage.held.total == total
    got = [layer for layer in step.layers if layer.multiplies_activations]
    runs: dict[str, int] = {}
    for layer, (called, batch, heads, R, C, K) in zip(got, products, strict=True):
        runs[called] = runs.get(called, 0) + 1
        again = "" if runs[called] == 1 else f"@{runs[called]}"
        assert layer.name == f"Model.{called}{again}"
        sizes = (layer.groups, layer.H, layer.C, layer.K)
        assert (step.batch_of(layer.name), *sizes) == (batch, heads, R, heads * C, heads * K)


def test_masks_of_a_function_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(4)
    q, k, v = (torch.randn(2, 5, 5).relu().requires_grad_() for _ in range(3))
    model = Model(lambda w, x: OwnFunction.apply(q * w.bias[0], k, v))
    step = observed(model, tmp_path, lambda: model(torch.randn(2, 8)).sum().backward())
    factor = model.w.bias[0].detach()
    scores = ((q * factor) @ k.mT).detach().requires_grad_()
    (scores.softmax(-1) @ v).sum().backward()
    got = recorded(step)
    for key, values in (
        (("scores", "dgrad", "weight"), k[:, None]),
        (("values", "dgrad", "weight"), v.mT[:, None]),
    ):
        np.testing.assert_array_equal(got[key].reshape(values.shape), values.detach().numpy() != 0)
    np.testing.assert_array_equal(got["scores", "wgrad", "act"].reshape(2, 5, 5), numpy(q.mT) != 0)
    np.testing.assert_array_equal(
        got["scores", "wgrad", "grad_out"].reshape(2, 5, 5), numpy(scores.grad.mT) != 0
    )


def numpy(values: Tensor) -> np.ndarray:
    return values.detach().numpy()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_computes_products_twice(reentrant: bool, fused: bool, tmp_path: Path) -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if fused:
                return functional.scaled_dot_product_attention(*[x[:, None]] * 3)[:, 0]
            return (x @ x.mT).softmax(-1) @ x

    model = Model(lambda w, x: checkpoint(model.inner, w(x), use_reentrant=reentrant))
    model.inner = Inner()
    step = observed(model, tmp_path, lambda: model(torch.randn(4, 6, 8)).square().sum().backward())
    assert step.coverage is not None
    assert step.coverage.share == 1.0, step.coverage
    total = sum(macs_dense(layer, step.batch_of(layer.name), op) for layer, op in step.ops())
    assert step.coverage.held.total == total
    ops = [(layer.name.partition("@")[0], op) for layer, op in step.ops()]
    assert ops.count(("inner.scores", "fprop")) == 2
    assert ops.count(("inner.values", "dgrad")) == ops.count(("inner.scores", "wgrad")) == 1


def test_dropout_of_probabilities_is_the_real_one(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def compute(w: nn.Linear, x: Tensor) -> Tensor:
        x = w(x)
        seen.append(functional.dropout((x @ x.mT).softmax(-1), 0.5))
        return seen[0] @ x + functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)

    model = Model(compute)
    step = observed(model, tmp_path, lambda: model(torch.randn(4, 6, 8)).square().sum().backward())
    np.testing.assert_array_equal(recorded(step)["values", "wgrad", "act"], rows(seen[0][:, None]))
    assert 0.3 < recorded(step)["values_2", "wgrad", "act"].mean() < 0.7
    assert step.coverage is not None
    assert step.coverage.share == 1.0


def test_a_factor_that_changes_afterwards_is_recorded_as_it_was_read(tmp_path: Path) -> None:
    """Autograd allows it where the other factor needs no gradient: a residual of a graph's."""
    near = (torch.rand(4, 6, 6) < 0.5).float()
    read: list[Tensor] = []

    def compute(w: nn.Linear, x: Tensor) -> Tensor:
        x = w(x).relu() * 1
        read.append(x.detach().clone())
        y = near @ x
        return x.add_(y)

    model = Model(compute)
    step = observed(model, tmp_path, lambda: model(torch.randn(4, 6, 8)).sum().backward())
    weight = recorded(step)["matmul", "fprop", "weight"]
    np.testing.assert_array_equal(weight, numpy(read[0].mT) != 0)
    assert ("matmul", "wgrad", "act") in recorded(step)


def test_a_checkpoint_of_a_function_knows_what_it_computes_again(tmp_path: Path) -> None:
    def inner(x: Tensor) -> Tensor:
        return (x @ x.mT).masked_fill(ahead(6, 6), -math.inf).softmax(-1) @ x

    model = Model(lambda w, x: checkpoint(inner, w(x), use_reentrant=True))
    step = observed(model, tmp_path, lambda: model(torch.randn(4, 6, 8)).square().sum().backward())
    names = [layer.name for layer in step.layers if layer.multiplies_activations]
    assert names == ["Model.scores", "Model.values", "scores", "values"]
    left = rows(~ahead(6, 6).expand(4, 1, 6, 6))
    np.testing.assert_array_equal(recorded(step)["values", "dgrad", "act"], left)


@pytest.mark.parametrize("way", ["fused", "plainly"])
def test_tensors_that_the_user_packs_are_read_as_they_come_back(way: str, tmp_path: Path) -> None:
    case = CASES["plain"]
    model = Attention(case, way)
    q, k, v = case.inputs()

    def packed() -> None:
        def pack(tensor: Tensor) -> Tensor:
            return torch.where(tensor > 0.5, tensor, 0) if tensor.numel() == q.numel() else tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = model(q, k, v)
        y.backward(gradient(y))

    got = recorded(observed(model, tmp_path, packed))
    np.testing.assert_array_equal(got["scores", "fprop", "act"], rows(q))
    np.testing.assert_array_equal(got["scores", "wgrad", "act"], rows(q > 0.5))


def test_values_keep_the_type_that_they_have(tmp_path: Path) -> None:
    def run(way: str) -> set[str | None]:
        case = CASES["causal"]
        model = Attention(case, way)
        given = [x.detach().bfloat16().requires_grad_() for x in case.inputs()]

        def train() -> None:
            y = model(*given)
            y.backward(gradient(y).bfloat16())

        step = observed(model, tmp_path / way, train)
        return {record.dtype for record in step.records if not record.is_output}

    assert run("fused") == run("plainly") == {"bfloat16"}


def test_names_are_nobody_elses(tmp_path: Path) -> None:
    class Taken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.values, self.scores = nn.Linear(8, 8), nn.Parameter(torch.randn(8, 8))

        def forward(self, x: Tensor) -> Tensor:
            q, k = x @ self.scores, x
            return (q @ k.mT).softmax(-1) @ self.values(x) + (q @ k.mT).softmax(-1) @ x

    model = nn.Sequential(Taken())
    step = observed(model, tmp_path, lambda: model(torch.randn(4, 6, 8)).sum().backward())
    assert {layer.name for layer in step.layers} == {
        *("0.values", "0.scores", "0.scores_product", "0.values_product"),
        *("0.scores_2", "0.values_2"),
    }


@pytest.mark.parametrize("way", ["fused", "plainly"])
def test_what_a_trace_cannot_hold_is_named(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swatsim.tracer.arguments.MAX_ELEMENTS", N * H * L * E)
    inner = Attention(Case(), way)
    model = Model(lambda w, x: w(x).sum() + model.inner(*Case().inputs()).sum())
    model.inner = inner
    step = observed(model, tmp_path, lambda: model(torch.randn(3, 8)).backward())
    assert step.coverage is not None
    (part,) = step.coverage.not_held
    assert (part.module, part.what) == ("inner", "products of activations that a trace can't hold")
    assert (part.forward, part.backward) == (2 * N * H * L * S * E, 4 * N * H * L * S * E)
    assert [layer.name for layer in step.layers] == ["w"]


def test_a_weight_that_is_handed_over_as_one_is_one_under_a_tracer(tmp_path: Path) -> None:
    """Whatever made it: an observer takes a product of activations for what it is."""
    model = Model(lambda w, x: functional.linear(w(x), w(x)[0]))
    step = observed(model, tmp_path, lambda: model(torch.randn(4, 6, 8)).sum().backward())
    assert [layer.name for layer in step.layers] == ["w", "w@2", "Model.matmul"]


@pytest.mark.parametrize("func", sorted(attention.FORWARD | attention.BACKWARD, key=str), ids=str)
def test_kernels_call_their_arguments_as_they_are_read(func: Any) -> None:
    """Most of them run on no CPU."""
    names = {argument.name for argument in func.default._schema.arguments}
    assert {"query", "key", "value", "dropout_p", "is_causal", "scale"} <= names
    assert names <= {*names, "attn_mask", "attn_bias"}
    if func in attention.BACKWARD:
        assert names & {"grad_out", "grad_out_"}


def test_a_kernel_that_hides_its_dropout_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(2, 2)
    with caplog.at_level(logging.WARNING, "swatsim"):
        for name in ("h.0.attn.values", "h.1.attn.values"):
            attention.say_dropout(model, name)
    (record,) = caplog.records
    assert record.getMessage().startswith("h.0.attn.values: its kernel shows nobody")
