"""Whatever multiplies by a parameter is a layer: torch's functions beside SWAT's formulas."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from swatsim.policies import Dense, RigL, SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Tracer  # noqa: E402
from tests.tracer.test_pytorch import ALL, keep, numpy  # noqa: E402


class Calls(nn.Module):
    """Calls a function of an input and its own parameter."""

    def __init__(self, call: Callable[..., Tensor], *shape: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(*shape, dtype=torch.double))
        self.b = nn.Parameter(torch.randn(5, dtype=torch.double))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.w, self.b)


#: The calls, each with the weight that is (5, 6), or turned.
CALLS: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], bool]] = {
    "linear": (lambda x, w, b: functional.linear(x, w) + b, False),
    "linear of a part": (lambda x, w, b: functional.linear(x, w.T.T[:]) + b, False),
    "matmul": (lambda x, w, b: torch.matmul(x, w) + b, True),
    "@": (lambda x, w, b: x @ w.t() + b, False),
    "left": (lambda x, w, b: (w @ x.mT).mT + b, False),
    "mm": (lambda x, w, b: torch.mm(x.flatten(0, 1), w).unflatten(0, (4, 3)) + b, True),
    "addmm": (lambda x, w, b: torch.addmm(b, x.flatten(0, 1), w).unflatten(0, (4, 3)), True),
    "addmm left": (
        lambda x, w, b: torch.addmm(b[:, None] / 2, w, x.flatten(0, 1).T, beta=2).T.unflatten(
            0, (4, 3)
        ),
        False,
    ),
    "bmm": (lambda x, w, b: torch.bmm(x, w.expand(4, -1, -1)) + b, True),
    "baddbmm": (lambda x, w, b: torch.baddbmm(b, x, w.expand(4, -1, -1)), True),
    "einsum": (lambda x, w, b: torch.einsum("btc,kc->btk", x, w) + b, False),
    "einsum with dots": (lambda x, w, b: torch.einsum("ck,...c->...k", w, x) + b, True),
    "tensordot": (lambda x, w, b: torch.tensordot(x, w, dims=1) + b, True),
    "inner": (lambda x, w, b: torch.inner(x, w) + b, False),
    "mv": (
        lambda x, w, b: (
            torch.stack([torch.mv(w, each) for each in x.flatten(0, 1)]).unflatten(0, (4, 3)) + b
        ),
        False,
    ),
    "computed": (lambda x, w, b: x @ (w * 2 / 2).mT + b, False),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    call, turned = CALLS[name]
    model = Calls(call, *((6, 5) if turned else (5, 6)))
    x = torch.randn(4, 3, 6, dtype=torch.double, requires_grad=True)
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        y = model(x)
        dy = torch.randn_like(y)
        y.backward(dy)
        tracer.step()
        assert not tracer._left_alone()
    W = numpy(model.w).T if turned else numpy(model.w)
    X, DY = numpy(x).reshape(-1, 6), numpy(dy).reshape(-1, 5)
    K = keep(W.T).T if turned and "einsum" not in name and "left" not in name else keep(W)
    np.testing.assert_allclose(numpy(y).reshape(-1, 5), X @ K.T + numpy(model.b), rtol=1e-12)
    np.testing.assert_allclose(numpy(x.grad).reshape(-1, 6), DY @ K, rtol=1e-12, atol=1e-12)
    dw = numpy(model.w.grad)
    # with mv a layer a row, each of which keeps its own
    X = np.stack([keep(row) for row in X]) if name == "mv" else keep(X)
    np.testing.assert_allclose(dw.T if turned else dw, DY.T @ X, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(numpy(model.b.grad), DY.sum(0), rtol=1e-12)
    names = {record.layer.partition("@")[0] for record in open_trace(tmp_path).step(0).records}
    assert names == {"Calls.w"}


def grouped(x: Tensor, w: Tensor) -> Tensor:
    ends = torch.tensor([3, 3, 8], dtype=torch.int32)
    return functional.grouped_mm(x, w, offs=ends)


def looped(x: Tensor, w: Tensor) -> Tensor:
    ends = [0, 3, 3, 8]
    return torch.cat([x[a:b] @ w[i] for i, (a, b) in enumerate(pairwise(ends))])


@pytest.mark.parametrize("way", ["grouped_mm", "loop"])
def test_experts(way: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    call = {"grouped_mm": grouped, "loop": looped}[way]
    model, x = nn.Module(), torch.randn(8, 16)
    model.w = nn.Parameter(torch.randn(3, 16, 8))
    model.forward = lambda x: call(x, model.w)  # type: ignore[method-assign]
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        y = model(x)
        y.sum().backward()
        tracer.step()
        assert not tracer._left_alone()
    for i, rows in ((0, slice(0, 3)), (2, slice(3, 8))):
        kept = keep(numpy(model.w[i].T)).T
        np.testing.assert_allclose(numpy(y)[rows], numpy(x)[rows] @ kept, rtol=1e-4, atol=1e-5)
        dw = keep(numpy(x)[rows]).sum(0)[:, None].repeat(8, 1)
        np.testing.assert_allclose(numpy(model.w.grad[i]), dw, rtol=1e-4, atol=1e-5)
    assert not model.w.grad[1].any()
    assert {"Module.w[0]", "Module.w[2]"} == {layer.name for layer in open_trace(tmp_path).layers}


@pytest.mark.parametrize("equation", ["bmm", "ecd,edf->ecf", "becd,edf->becf"])
def test_a_matrix_for_each(equation: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    x = torch.randn(*((2, 3, 4, 6) if equation[0] == "b" and equation != "bmm" else (3, 4, 6)))

    def call(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch.bmm(x, w) if equation == "bmm" else torch.einsum(equation, x, w)

    model, x = Calls(call, 3, 6, 5), x.double()
    expected = model(x)
    with Tracer(model, Dense(), tmp_path / "a", steps=(0,)) as tracer:
        torch.testing.assert_close(model(x), expected)
        tracer.step()
    assert {layer.name for layer in open_trace(tmp_path / "a").layers} == {
        f"Calls.w[{i}]" for i in range(3)
    }
    with Tracer(model, ALL, tmp_path / "b", steps=()):
        y = model(x)
    kept = np.stack([keep(numpy(w.T)).T for w in model.w])
    np.testing.assert_allclose(numpy(y), np.einsum("...ecd,edf->...ecf", numpy(x), kept))


class Odd(nn.Module):
    """A tied head, one's own weight standardisation, a Conv3d, a learned position."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.position = nn.Parameter(torch.randn(1, 5, 6))
        self.scale = nn.Parameter(torch.randn(6, 1))
        self.mix = nn.Linear(6, 6)
        self.space = nn.Conv3d(1, 2, 2)

    def forward(self, words: Tensor) -> Tensor:
        x = (self.embedding(words) + self.position) * self.scale.mT
        standard = self.mix.weight - self.mix.weight.mean(1, keepdim=True)
        x = functional.linear(x, standard / standard.std(), self.mix.bias)
        y = self.space(x.reshape(-1, 1, 5, 3, 2)).mean()
        return functional.linear(x, self.embedding.weight) + y


def test_what_else_is_a_layer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(4)
    model, words = Odd(), torch.randint(0, 7, (4, 5))
    with Tracer(model, SwatU(0.5, first_conv_dense=False), tmp_path, steps=(0,)) as tracer:
        model(words).square().mean().backward()
        tracer.step()
    step = open_trace(tmp_path).step(0)
    dense = {
        record.layer: record.ones / record.elements
        for record in step.records
        if record.key[1:] == ("fprop", "weight")
    }
    assert dense == {"mix": 0.5, "embedding": 0.5, "space": 0.5}
    assert not caplog.messages


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_of_a_plain_function(reentrant: bool, tmp_path: Path) -> None:
    def plain(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return torch.relu(functional.linear(torch.tanh(x), w, b))

    def stored(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return checkpoint(plain, x, w, b, use_reentrant=reentrant)

    found = []
    for call in (plain, stored):
        torch.manual_seed(5)
        model = Calls(call, 5, 6)
        x = torch.randn(4, 6, dtype=torch.double, requires_grad=True)
        with Tracer(model, ALL, tmp_path / str(len(found)), steps=(0,)) as tracer:
            y = model(x)
            y.square().sum().backward()
            tracer.step()
        found.append((y, x.grad, model.w.grad, model.b.grad))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0][0], plain(x, model.w, model.b))


class Doubled(torch.autograd.Function):
    """A function of a user's own, that multiplies by the weight it is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return functional.linear(x, w)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return dy @ w, dy.flatten(0, -2).mT @ x.flatten(0, -2)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_what_is_left_dense_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Calls(lambda x, w, b: Doubled.apply(x, w) @ scripted(w), 6, 6)
    scripted = torch.jit.script(nn.Linear(6, 6, dtype=torch.double))
    model.inner, x = scripted, torch.randn(2, 3, 6, dtype=torch.double)
    expected = model(x)
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        torch.testing.assert_close(model(x), expected)
        tracer.step()
        assert tracer._left_alone().keys() == {"inner", "Calls.w"}
    (line,) = (message for message in caplog.messages if message.startswith("left: "))
    assert "'Calls.w' dense (a custom autograd function computes it)" in line


def test_masks_are_kept_of_functional_layers(tmp_path: Path) -> None:
    torch.manual_seed(6)
    model = Calls(lambda x, w, b: torch.stack([x @ w[0], x @ w[1]]), 2, 6, 5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
    with Tracer(
        model, RigL(0.5, every=2, allocation="uniform"), tmp_path, steps=range(5)
    ) as tracer:
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(4, 6, dtype=torch.double)).square().mean().backward()
            optimizer.step()
            tracer.step()
    kept = tracer.state_dict()["kept"]["kept"]
    assert kept.keys() == {"Calls.w[0]", "Calls.w[1]"}
    for i in range(2):
        mask = kept[f"Calls.w[{i}]"]
        assert int(mask.sum()) == 15
        assert not model.w[i].T[~mask].any()
