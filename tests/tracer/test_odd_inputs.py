"""What torch's functions also take, and what torch keeps to itself: no run ends for either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402
from tests.tracer.test_observer import LINEAR, inputs  # noqa: E402
from tests.tracer.test_pytorch import numpy  # noqa: E402


def weighted(weight: Tensor) -> Any:
    """A module that calls F.linear on its own weight."""

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(weight)

        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x, self.w)

    return Weighted()


def test_a_weight_without_filters_is_one_filter(tmp_path: Path) -> None:
    weight, x = torch.tensor([1.0, 0, 2, 0]), inputs(3, 4)
    model = weighted(weight)
    with Observer(model, tmp_path, steps=(0,)) as observer:
        (model(x) * torch.tensor([1.0, 0, 1])).sum().backward()
        observer.step()
    trace = open_trace(tmp_path)
    assert [(it.name, it.C, it.K) for it in trace.layers] == [("Weighted.w", 4, 1)]
    step = trace.step(0)
    assert step.mask("Weighted.w", "fprop", "weight").tolist() == [[True, False, True, False]]
    assert step.mask("Weighted.w", "wgrad", "grad_out").tolist() == [[True], [False], [True]]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_input_is_seen_with_its_zeros(layout: Any, tmp_path: Path) -> None:
    x = torch.eye(4)
    model = weighted(torch.ones(3, 4))
    with Observer(model, tmp_path, steps=(0,)) as observer:
        model(x.to_sparse(layout=layout)).sum().backward()
        observer.step()
    mask = open_trace(tmp_path).step(0).mask("Weighted.w", "fprop", "act")
    np.testing.assert_array_equal(mask, numpy(x) != 0)


def test_nested_tensors_are_seen_and_the_rest_is_named(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    x = torch.nested.nested_tensor([inputs(2, 4), inputs(3, 4)], layout=torch.jagged)
    with Observer(model, tmp_path, steps=(0,), measure_memory=True) as observer:
        model[0](model(x).values() @ torch.ones(3, 4)).sum().backward()
        observer.step()
    step = open_trace(tmp_path).step(0)
    assert step.mask("0", "fprop", "act").shape == (1, 4, 5, 1)
    assert {op for layer, op in step.ops() if layer.name == "0@2"} == {"fprop", "dgrad", "wgrad"}
    coverage = step.coverage
    assert coverage is not None
    named = sum(each.forward + each.backward for each in coverage.not_held)
    assert coverage.seen.total == coverage.held.total + named


def test_a_batch_of_gradients_comes_as_ever(tmp_path: Path) -> None:
    model, x = nn.Linear(4, 3), inputs(2, 4)
    basis = torch.eye(6).reshape(6, 2, 3)

    def jacobian() -> Tensor:
        y = model(x)
        (found,) = torch.autograd.grad(y, [model.weight], basis, is_grads_batched=True)
        return found

    expected = jacobian()
    with Observer(model, tmp_path, steps=(0,)) as observer:
        assert torch.equal(jacobian(), expected)
        observer.step()
    assert {op for _, op in open_trace(tmp_path).step(0).ops()} == {"fprop"}


@pytest.mark.parametrize("kind", ["observer", "tracer"])
def test_sequences_of_other_lengths_are_recorded(kind: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    if kind == "observer":
        run: Any = Observer(model, tmp_path, steps=range(1, 6))
    else:
        run = Tracer(model, SwatU(0.5), tmp_path, steps=range(1, 6))
    with run:
        for length in (7, 5, 6, 5, 1, 5):
            model(inputs(2, length, 4)).sum().backward()
            run.step()
    trace = open_trace(tmp_path)
    assert [trace.step(number).layers[0].H for number in trace.steps] == [5, 6, 5, 1, 5]


def test_what_others_put_in_the_place_of_f_linear_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = nn.MultiheadAttention(8, 2, batch_first=True), inputs(2, 3, 8)

    def theirs(*arguments: Any) -> Tensor:
        return LINEAR(*arguments)

    monkeypatch.setattr(functional, "linear", theirs)
    with Tracer(model, SwatU(0.5), tmp_path, steps=()):
        model(x, x, x)
    assert functional.linear is theirs
