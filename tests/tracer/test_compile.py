"""Compiled models in a tracer or an observer, beside the same models as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402
from tests.tracer.test_pytorch import ALL  # noqa: E402


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.block = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu().flatten(2).mT
        y = y + self.block(y, y, y)[0]
        return self.head(y).mean(1) + self.head(y[:, 0])


def opened(kind: str, model: Any, path: Path) -> Any:
    if kind == "tracer":
        return Tracer(model, ALL, path, steps=(0, 2), images=2)
    return Observer(model, path, steps=(0, 2), images=2)


@pytest.mark.parametrize(
    ("kind", "order"),
    [
        ("tracer", "after"),
        ("tracer", "before"),
        ("tracer", "in place"),
        ("observer", "before"),
        ("observer", "after"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's own, of its compiler
def test_a_compiled_model_is_recorded_like_itself(kind: str, order: str, tmp_path: Path) -> None:
    x = torch.randn(3, 3, 7, 7, generator=torch.Generator().manual_seed(12))

    def run(order: str, path: Path) -> nn.Module:
        torch._dynamo.reset()
        torch.manual_seed(13)
        model = called = Mixed()
        if order == "in place":
            model.compile(backend="eager")
        elif order != "none":
            called = torch.compile(model, backend="eager")
        if order in ("before", "inner", "in place"):
            called(x)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        with opened(kind, called if order == "before" else model, path) as it:
            for _ in range(3):
                optimizer.zero_grad()
                called(x).square().mean().backward()
                optimizer.step()
                it.step()
        with torch.no_grad():
            torch.testing.assert_close(called(x), Mixed.forward(model, x))
        return model

    plain, compiled = run("none", tmp_path / "a"), run(order, tmp_path / "b")
    torch.testing.assert_close(list(plain.parameters()), list(compiled.parameters()))
    traces = [open_trace(tmp_path / name) for name in "ab"]
    assert traces[0].layers == traces[1].layers
    for number in (0, 2):
        first, second = (trace.step(number) for trace in traces)
        for record, other in zip(first.records, second.records, strict=True):
            same = first.mask(*record.key) == second.mask(*other.key)
            assert np.mean(same) > 0.98, record.key  # the compiler rounds otherwise


def test_the_stance_of_the_compiler_is_given_back(tmp_path: Path) -> None:
    eval_frame = pytest.importorskip("torch._dynamo.eval_frame")
    before = torch.compiler.set_stance("eager_on_recompile")
    try:
        model = nn.Linear(4, 3)
        first, second = (
            opened("observer", model, tmp_path / "a"),
            opened("observer", model, tmp_path / "b"),
        )
        assert eval_frame._stance.stance == "force_eager"
        first.close()
        assert eval_frame._stance.stance == "force_eager"
        second.close()
        assert eval_frame._stance.stance == "eager_on_recompile"
    finally:
        before.__exit__(None, None, None)
