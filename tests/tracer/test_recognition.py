"""Whatever multiplies by a parameter is a layer, in whichever way it is written.

Each model notes itself what it multiplies; the masks of a trace are compared with that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils import parametrizations  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracefile.reader import Step  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402
from swatsim.workload.flops import macs_dense  # noqa: E402


class Noted(nn.Module):
    """A model that notes its own products: name -> (act rows, weight (K, C), gradient rows)."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: dict[str, list[np.ndarray]] = {}

    def note(self, name: str, x: Tensor, weight: Tensor, y: Tensor) -> Tensor:
        kept = self.noted[name] = [_rows(x), weight.detach().numpy() != 0]
        if y.requires_grad:
            y.register_hook(lambda dy: kept.append(_rows(dy)))
        return y


def _rows(values: Tensor) -> np.ndarray:
    return values.detach().reshape(-1, values.shape[-1]).numpy() != 0


def sparse(*shape: int) -> nn.Parameter:
    """A parameter with zeros."""
    return nn.Parameter(torch.randn(shape).relu())


class Matmul(Noted):
    def __init__(self) -> None:
        super().__init__()
        self.w = sparse(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.note("Matmul.w", x, self.w.T, x @ self.w).relu()


class Addmm(Noted):
    """As the Conv1D of GPT-2 does it."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = sparse(6, 5), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.addmm(self.b, x.view(-1, 6), self.w).view(*x.shape[:-1], 5)
        return self.note("Addmm.w", x, self.w.T, y).relu()


class FromTheLeft(Noted):
    """As a mixer over tokens does it: weights (K, C) times (N, C, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = sparse(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.w @ x
        kept = self.noted["FromTheLeft.w"] = [_rows(x.mT), self.w.detach().numpy() != 0]
        y.register_hook(lambda dy: kept.append(_rows(dy.mT)))
        return y.relu()


class Einsum(Noted):
    def __init__(self) -> None:
        super().__init__()
        self.w = sparse(6, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("btc,chd->bthd", x, self.w)
        kept = self.noted["Einsum.w"] = [_rows(x), self.w.detach().flatten(1).T.numpy() != 0]
        y.register_hook(lambda dy: kept.append(_rows(dy.flatten(2))))
        return y.relu()


class TiedHead(Noted):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.body = nn.Embedding(11, 6), nn.Linear(6, 6)
        self.embedding.weight.data.relu_()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.embedding.weight
        x = self.body(x).relu()
        return self.note("embedding", x, weight, functional.linear(x, weight)).relu()


class Standardised(Noted):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.gain = sparse(5, 6), nn.Parameter(torch.ones(5, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.w - self.w.mean(1, keepdim=True)).relu() * self.gain
        return self.note("Standardised.w", x, weight, functional.linear(x, weight)).relu()


class LowRank(Noted):
    """A frozen weight with a mask, and a low-rank update."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 5).requires_grad_(False)
        self.a, self.b = sparse(2, 6), nn.Parameter(torch.randn(5, 2))
        self.register_buffer("mask", (torch.rand(5, 6) < 0.5).float())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight * self.mask
        y = self.note("base", x, weight, functional.linear(x, weight))
        z = self.note("LowRank.a", x, self.a, x @ self.a.T)
        return (y + functional.linear(z, self.b)).relu()


class Experts(Noted):
    """Routed tokens, one expert after another: some get none."""

    def __init__(self) -> None:
        super().__init__()
        self.w = sparse(4, 5, 6)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, 6)
        chosen = torch.arange(len(tokens)) % 3
        out = torch.zeros(len(tokens), 5)
        for e in range(4):
            (rows,) = torch.where(chosen == e)
            y = functional.linear(tokens[rows], self.w[e])
            if len(rows):
                self.note(f"Experts.w[{e}]", tokens[rows], self.w[e], y)
            out = out.index_add(0, rows, y.relu())
        return out


class Grouped(Noted):
    def __init__(self) -> None:
        super().__init__()
        self.w = sparse(3, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, 8).bfloat16()
        ends = torch.tensor([2, 2, len(tokens)], dtype=torch.int32)
        y = functional.grouped_mm(tokens, self.w.bfloat16(), offs=ends)
        for e, rows in ((0, slice(0, 2)), (2, slice(2, None))):
            kept = self.noted[f"Grouped.w[{e}]"] = [
                tokens[rows].detach().float().numpy() != 0,
                self.w[e].detach().T.numpy() != 0,
            ]
            y.register_hook(lambda dy, k=kept, r=rows: k.append(dy[r].float().numpy() != 0))
        return y.float().relu()


class _SparseSaved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(torch.where(x > 0.3, x, 0), w)
        return x @ w.T

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return dy @ w, dy.T @ x


class OwnFunction(Noted):
    def __init__(self) -> None:
        super().__init__()
        self.w = sparse(5, 6)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, 6)
        return self.note("OwnFunction.w", rows, self.w, _SparseSaved.apply(rows, self.w)).relu()


class Cell(Noted):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 6)
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        state = state.relu()
        return self.note("head", state, self.head.weight, self.head(state)).relu()


class Scripted(Noted):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = torch.jit.script(nn.Linear(6, 6)), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.note("body", x, self.body.weight, self.body(x)).relu()
        return self.note("head", y, self.head.weight, self.head(y)).relu()


MODELS: list[tuple[Callable[[], Noted], tuple[int, ...]]] = [
    (Matmul, (3, 4, 6)),
    (Matmul, (3, 6)),
    (Addmm, (3, 4, 6)),
    (FromTheLeft, (3, 4, 6)),
    (Einsum, (3, 4, 6)),
    (TiedHead, (3, 4, 6)),
    (Standardised, (3, 4, 6)),
    (LowRank, (3, 6)),
    (Experts, (3, 4, 6)),
    (Grouped, (3, 2, 8)),
    (OwnFunction, (3, 4, 6)),
    (Cell, (3, 4, 6)),
    pytest.param(Scripted, (3, 4, 6), marks=pytest.mark.filterwarnings("ignore:.*jit")),
]


def train(model: nn.Module, x: Tensor) -> None:
    model(x).square().sum().backward()


def observed(model: nn.Module, path: Path, run: Callable[[], Any], **options: Any) -> Step:
    with Observer(model, path, steps=(0,), **options) as observer:
        run()
        observer.step()
        assert observer.error is None
    return open_trace(path).step(0)


def rows_of(mask: np.ndarray) -> np.ndarray:
    """A mask (N, C) or (N, C, T, 1) as (N * T, C)."""
    return mask if mask.ndim == 2 else np.moveaxis(mask[..., 0], 1, 2).reshape(-1, mask.shape[1])


@pytest.mark.parametrize(("kind", "shape"), MODELS)
def test_masks_are_those_of_what_is_multiplied(
    kind: Callable[[], Noted], shape: tuple[int, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    plain = kind()
    torch.manual_seed(0)
    model, x = kind(), torch.randn(shape).relu()
    step = observed(model, tmp_path / "trace", lambda: train(model, x))
    train(plain, x)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert one.grad is None or torch.equal(one.grad, other.grad)
    assert model.noted
    for name, (act, weight, *gradient) in model.noted.items():
        np.testing.assert_array_equal(rows_of(step.mask(name, "fprop", "act")), act)
        seen = step.mask(name, "fprop", "weight").reshape(weight.shape)
        np.testing.assert_array_equal(seen, weight)
        if (name, "wgrad", "grad_out") in {record.key for record in step.records}:
            np.testing.assert_array_equal(rows_of(step.mask(name, "wgrad", "grad_out")), *gradient)
    assert step.coverage is not None
    assert step.coverage.share == 1.0, step.coverage
    total = sum(macs_dense(layer, _samples(step, layer), op) for layer, op in step.ops())
    assert step.coverage.held.total == total


def _samples(step: Step, layer: Any) -> int:
    return step.record(layer.name, "fprop", "act").shape[0]


def test_a_function_of_ones_own_reads_what_it_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = OwnFunction(), torch.randn(3, 4, 6).relu()
    step = observed(model, tmp_path, lambda: train(model, x))
    saved = torch.where(x > 0.3, x, 0).reshape(-1, 6).numpy() != 0
    np.testing.assert_array_equal(rows_of(step.mask("OwnFunction.w", "wgrad", "act")), saved)


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_computes_is_counted_as_it_is_computed(
    tmp_path: Path, reentrant: bool
) -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU())
    model = nn.Module()
    model.block, model.head = block, nn.Linear(6, 5)
    model.forward = lambda x: model.head(checkpoint(block, x, use_reentrant=reentrant))  # type: ignore[method-assign]
    x = torch.randn(4, 6, requires_grad=True)
    step = observed(model, tmp_path, lambda: train(model, x))
    ops = [(layer.name.partition("@")[0], op) for layer, op in step.ops()]
    assert step.coverage is not None
    assert step.coverage.share == 1.0
    assert {op: ops.count(("block.0", op)) for op in ("fprop", "dgrad", "wgrad")} == {
        "fprop": 2,
        "dgrad": 1,
        "wgrad": 1,
    }


def test_gradients_are_those_after_the_users_hooks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 10), torch.randn(4, 6)
    keep = torch.arange(10) < 1

    def run() -> None:
        y = model(x)
        y.register_hook(lambda dy: dy * keep)
        y.square().sum().backward()

    step = observed(model, tmp_path, run)
    assert step.record("Linear", "wgrad", "grad_out").density == 0.1


def test_only_what_autograd_runs_is_recorded(tmp_path: Path) -> None:
    """A28: an adversarial example computes no weight gradient."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(4, 8)

    def run() -> None:
        for _ in range(3):
            near = x.clone().requires_grad_()
            torch.autograd.grad(model(near).sum(), near)
        model(x).sum().backward()

    step = observed(model, tmp_path, run)
    macs = dict.fromkeys(("fprop", "dgrad", "wgrad"), 0)
    for layer, op in step.ops():
        macs[op] += macs_dense(layer, 4, op)
    assert macs == {"fprop": 4 * 320, "dgrad": 3 * 320 + 64, "wgrad": 320}


def test_saved_tensors_that_the_user_packs_are_read_as_they_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 5)), torch.randn(4, 6)

    def run() -> None:
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: torch.where(tensor > 0.2, tensor, 0), lambda tensor: tensor
        ):
            y = model(x).square().sum()
        y.backward()

    step = observed(model, tmp_path, run)
    np.testing.assert_array_equal(step.mask("0", "fprop", "act"), x.numpy() != 0)
    np.testing.assert_array_equal(step.mask("0", "wgrad", "act"), x.numpy() > 0.2)
    weight = model[1].weight.detach().numpy()
    np.testing.assert_array_equal(step.mask("1", "dgrad", "weight"), weight > 0.2)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_of_every_dimension(tmp_path: Path, dims: int, transposed: bool) -> None:
    torch.manual_seed(0)
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")
    model = kind(4, 6, 3, stride=2, padding=1, groups=2)
    x = torch.randn(2, 4, *(5, 4, 3)[:dims]).relu()
    step = observed(model, tmp_path, lambda: train(model, x.requires_grad_()))
    coverage = step.coverage
    assert coverage is not None
    assert coverage.share == 1.0
    total = sum(macs_dense(layer, _samples(step, layer), op) for layer, op in step.ops())
    assert coverage.held.total == total
    if dims < 3:
        act = step.mask(kind.__name__, "fprop", "act")
        np.testing.assert_array_equal(act.reshape(x.shape), x.detach().numpy() != 0)


def test_a_convolution_of_three_dimensions_multiplies_as_its_planes_do(tmp_path: Path) -> None:
    """The number of effectual products is the convolution of the masks themselves."""
    torch.manual_seed(0)
    model = nn.Conv3d(2, 3, 3, stride=2, padding=1, dilation=(2, 1, 1), bias=False)
    model.weight.data.relu_()
    x = torch.randn(2, 2, 7, 5, 4).relu()
    step = observed(model, tmp_path, lambda: train(model, x))
    layer = step.layers[0]
    act, weight = (step.mask("Conv3d", "fprop", each) for each in ("act", "weight"))
    flat = functional.conv2d(
        torch.from_numpy(act.astype("f4")),
        torch.from_numpy(weight.astype("f4")),
        None,
        layer.stride,
        layer.padding[0][0],
        layer.dilation,
        layer.groups,
    )
    whole = functional.conv3d((x != 0).float(), (model.weight != 0).float(), None, 2, 1, (2, 1, 1))
    torch.testing.assert_close(flat.reshape(2, -1, *flat.shape[1:]).movedim(1, 2), whole)


def test_names_come_from_parameters(tmp_path: Path) -> None:
    """A7: a call that is left out at times gives no other weight its name."""
    torch.manual_seed(0)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Parameter(torch.randn(6, 6)) for _ in range(2))
            self.register_buffer("mask", torch.ones(6, 6))

        def forward(self, x: Tensor, both: bool) -> Tensor:
            x = functional.linear(x, self.first * self.mask) if both else x
            return functional.linear(x, self.second * self.mask)

    model, x = Two(), torch.randn(4, 6)
    with Observer(model, tmp_path, steps=(0, 1)) as observer:
        for both in (True, False):
            model(x, both).sum().backward()
            observer.step()
    names = [[layer.name for layer in open_trace(tmp_path).step(n).layers] for n in (0, 1)]
    assert names == [["Two.first", "Two.second"], ["Two.second"]]


def test_what_is_in_no_layer_is_named_with_its_multiplications(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sparse.mm(torch.eye(5).to_sparse(), self.body(x))

    model = Graph()
    with caplog.at_level(logging.WARNING, "swatsim"):
        step = observed(model, tmp_path, lambda: train(model, torch.randn(5, 8)))
    coverage = step.coverage
    assert coverage is not None
    (missed,) = coverage.not_held
    assert (missed.module, missed.forward, missed.backward) == ("Graph", 200, 200)
    assert coverage.seen.forward == 5 * 8 * 8 + 200
    assert not caplog.records  # it has no parameter: nothing to warn of


def test_value_types_are_those_that_are_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 5))

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            y = model(torch.randn(4, 6)).square().sum()
        y.backward()

    step = observed(model, tmp_path, run)
    assert {record.dtype for record in step.records} == {"bfloat16"}


def test_rows_that_are_no_samples_are_positions_of_one(tmp_path: Path) -> None:
    """B6: four routed tokens of a batch of four are not its samples."""
    torch.manual_seed(0)

    class Router(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.expert, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.reshape(-1, 6)
            picked = tokens[torch.argsort(tokens.sum(1))[:4]]
            return self.expert(picked).sum() + self.head(x).sum()

    model = Router()
    step = observed(model, tmp_path, lambda: train(model, torch.randn(4, 5, 6)), images=2)
    assert step.batch_size == 4
    assert step.mask("expert", "fprop", "act").shape == (1, 6, 4, 1)
    assert step.mask("head", "fprop", "act").shape == (2, 6, 5, 1)


def test_what_the_user_says_of_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 5), torch.randn(12, 6)
    shapes = {
        name: observed(model, tmp_path / name, lambda: train(model, x), **said)
        .mask("Linear", "fprop", "act")
        .shape
        for name, said in {"none": {}, "tokens": {"rows": "tokens"}, "batch": {"batch": 4}}.items()
    }
    assert shapes == {"none": (12, 6), "tokens": (1, 6, 12, 1), "batch": (1, 6, 12, 1)}


def test_weights_of_parametrizations_have_the_layers_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 5))
    step = observed(model, tmp_path, lambda: train(model, torch.randn(4, 6)))
    assert [layer.name for layer in step.layers] == ["0", "1"]


@pytest.mark.parametrize("kind", ["observer", "tracer"])
def test_a_second_backward_pass_is_named_and_not_held(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 5)), torch.randn(4, 6)

    def run() -> None:
        loss = model(x).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()

    if kind == "observer":
        step = observed(model, tmp_path, run)
    else:
        with Tracer(model, SwatU(0.5), tmp_path, steps=(0,)) as tracer:
            run()
            tracer.step()
        step = open_trace(tmp_path).step(0)
    coverage = step.coverage
    assert coverage is not None
    assert coverage.held.total == sum(macs_dense(it, 4, op) for it, op in step.ops())
    named = {"observer": "another backward pass", "tracer": "gradient in _SparseBackward"}
    assert {each.what for each in coverage.not_held} == {named[kind]}
    assert coverage.seen.backward == 2 * coverage.held.backward
