"""What autograd keeps, against hooks of the test's own; and nobody's hooks are hidden."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from swatsim.errors import RecordingError  # noqa: E402
from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Kept, Observer, Tracer, private  # noqa: E402
from tests.tracer.test_observer import (  # noqa: E402
    Checkpointed,
    Tied,
    convolutional,
    inputs,
    nested,
    state_of,
    transformer,
)


def saved(model: nn.Module, x: Tensor) -> int:
    """Bytes of all storages that autograd saves, but for those of parameters and buffers."""
    known = [*model.parameters(), *model.buffers()]
    places = {tensor.untyped_storage().data_ptr() for tensor in known}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in places:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    torch.manual_seed(20)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("make", [convolutional, transformer, nested, Tied])
def test_the_total_is_what_is_saved(make: Callable[[], nn.Module]) -> None:
    model, x = make(), inputs(4, 3, 6, 6)
    before, expected = state_of(model), saved(model, x)
    torch.manual_seed(20)
    with Kept(model) as kept:
        for _ in range(2):
            model(x).sum().backward()
            assert kept.total == expected
    assert sum(kept.modules.values()) >= kept.total
    assert kept.describe() == {"modules": kept.modules, "total": kept.total}
    assert state_of(model) == before
    model(x)
    assert kept.total == expected


# ---- the most that is alive at once ------------------------------------------------------------


def lenet() -> nn.Sequential:
    convs = (nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU())
    return nn.Sequential(*convs, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))


class Token:
    """What autograd holds in a tensor's place, until it lets go."""

    def __init__(self, held: dict[int, Tensor], tensor: Tensor) -> None:
        self.held, self.tensor = held, tensor.detach()
        held[id(self)] = self.tensor

    def __del__(self) -> None:
        del self.held[id(self)]


def most_alive(model: nn.Module, *batches: Tensor) -> int:
    """Train on batches, one after another; return the most bytes that are held at once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    held: dict[int, Tensor] = {}
    sums = []

    def pack(tensor: Tensor) -> Token:
        token = Token(held, tensor)
        storages = [it.untyped_storage() for it in held.values()]
        sizes = {it.data_ptr(): it.nbytes() for it in storages if it.data_ptr() not in own}
        sums.append(sum(sizes.values()))
        return token

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda token: token.tensor):
        for x in batches:
            model(x).sum().backward()
    return max(sums)


def test_accumulation_keeps_what_one_of_its_passes_keeps() -> None:
    model = lenet()
    parts = [part.clone() for part in inputs(8, 1, 28, 28).split(2)]
    with Kept(model) as kept:
        for part in parts:
            model(part).sum().backward()
    assert kept.total == most_alive(model, *parts) == most_alive(model, parts[0])


def test_passes_before_one_backward_add_up() -> None:
    model, x = lenet(), inputs(2, 1, 28, 28)
    with Kept(model) as kept:
        model(x).sum().backward()
        one, modules = kept.total, kept.modules
        (model(x).sum() + model(x.clone()).sum()).backward()
        assert kept.total == 2 * one
        assert kept.modules == {name: 2 * size for name, size in modules.items()}
        model(x).sum() + model(x).sum()  # the images are there once
        assert kept.total == 2 * one


def test_what_is_retained_stays_and_what_is_dropped_goes() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    one = 5 * 4 * 4 + 5 * 3 * 4
    with Kept(model) as kept:
        for _ in range(3):
            model(inputs(5, 4))
        assert kept.total == one
        loss = model(inputs(5, 4)).sum()
        loss.backward(retain_graph=True)
        model(inputs(5, 4).clone())
        assert kept.total == 2 * one
        loss.backward()
        model(inputs(5, 4).clone())
        assert kept.total == 2 * one


def test_an_error_of_the_users_stays_one() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid())
    with Kept(model):
        y = model(inputs(5, 4))
        y.add_(1)
        with pytest.raises(RuntimeError, match="has been modified by an inplace operation"):
            y.sum().backward()


def test_by_module() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 2)))
    with Kept(model) as kept:
        model(inputs(5, 4).expand(5, 4))
    assert kept.modules == {"0": 5 * 4 * 4, "1": 5 * 3 * 4, "2.0": 5 * 3 * 4}
    assert kept.total == 5 * 4 * 4 + 5 * 3 * 4  # what a ReLU gives is kept once


def test_a_view_counts_as_what_it_is_a_view_of() -> None:
    model = nn.Linear(4, 3)
    with Kept(model) as kept:
        model(inputs(10, 8)[::2, :4])
        assert kept.total == 10 * 8 * 4
        model(inputs(1, 4).expand(1000, 4))
        assert kept.total == 10 * 8 * 4  # the other one is gone
    assert kept.modules == {"": 10 * 8 * 4}


def test_nothing_is_held_after_the_forward_pass() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    seen: list[Any] = []
    model[1].register_forward_hook(lambda m, x, y: seen.append(weakref.ref(y)))
    with Kept(model):
        model(inputs(3, 4)).sum().backward()
        gc.collect()
        assert seen[0]() is None


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("where", ["inside", "around"])
def test_checkpoints_work_as_ever(reentrant: bool, where: str) -> None:
    torch.manual_seed(21)
    model, x = Checkpointed(reentrant), inputs(4, 3, 6, 6).requires_grad_()

    def gradients() -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(22)
        y = model(x) if where == "inside" else checkpoint(model, x, use_reentrant=reentrant)
        y.sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected = gradients()
    with Kept(model) as kept:
        assert all(map(torch.equal, gradients(), expected))
    first, inner, mask = 4 * 3 * 36 * 4, 4 * 4 * 16 * 4, 4 * 4 * 4 * 4
    assert kept.modules == {"first": first, "": inner, "second.0": inner, "second.1": mask}
    assert kept.total == first + inner + mask


def test_other_hooks_stay_in_effect() -> None:
    model, seen = nn.Linear(4, 3), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
        with Kept(model) as kept:
            model(inputs(5, 4))
    assert len(seen) == 1
    assert not kept.total
    with torch.autograd.graph.disable_saved_tensors_hooks("not here"):
        with Kept(model) as kept:
            model(inputs(5, 4))
    assert not kept.total


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(x, self.weight)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_tensors_are_counted_by_their_parts(layout: Any) -> None:
    x = torch.eye(3).to_sparse(layout=layout)
    with Kept(Sparse()) as kept:
        kept._root(x).sum().backward()
    assert kept.total >= (2 * 3 * 8 if layout == torch.sparse_coo else 4 * 8 + 3 * 8) + 3 * 4


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(RecordingError, match="model is a int"):
        Kept(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["tracer", "observer"])
def test_it_is_noted_in_a_recorded_step(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(23)
    model = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))
    options: dict[str, Any] = {"steps": (1, 2), "measure_memory": True}
    it: Any
    if kind == "tracer":
        it = Tracer(model, SwatU(0.5), tmp_path, **options)
    else:
        it = Observer(model, tmp_path, **options)
    with it:
        for _ in range(3):
            model(inputs(5, 8)).sum().backward()
            it.step()
    known = {"0": 5 * 8 * 4, "1": 5 * 4 * 4, "2": 5 * 4 * 4}
    if kind == "tracer":  # the sparse activations, and the weights of dgrad
        known["2"] += 2 * 4 * 4
    for number in (1, 2):
        kept: Any = open_trace(tmp_path).step(number).notes["kept"]
        assert kept["modules"] == known


@pytest.mark.parametrize("name", private._NEEDED)
def test_a_torch_that_lets_nothing_be_watched_unseen_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(f"torch._C.{name}")
    model = nn.Linear(4, 3)
    for record in (
        lambda: Kept(model),
        lambda: Observer(model, tmp_path / "trace", steps=(0,)),
        lambda: Tracer(model, SwatU(0.5), tmp_path / "trace", steps=(0,)),
    ):
        with pytest.raises(RecordingError, match=f"lacks torch._C.{name}, without which"):
            record()
    assert not (tmp_path / "trace").exists()
    assert "forward" not in vars(model)
