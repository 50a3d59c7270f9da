"""Loops and models as others write them: a step is recorded whole, and runs as it would have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn.utils.parametrizations import spectral_norm  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from swatsim.errors import RecordingError  # noqa: E402
from swatsim.policies import Dense, SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402

Open = Callable[[nn.Module, Path], Any]
OPEN: dict[str, Open] = {
    "observer": lambda model, path: Observer(model, path, steps=(0,)),
    "tracer": lambda model, path: Tracer(model, SwatU(0.5), path, steps=(0,)),
}
each_kind = pytest.mark.parametrize("kind", list(OPEN))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def layers_of_one_step(
    kind: str, model: nn.Module, path: Path, change: Callable[[], object] = lambda: None
) -> set[str]:
    """Train and record one step; return its layers, once all of it is known to be in the trace."""
    with OPEN[kind](model, path) as run:
        change()
        model(torch.randn(4, 8)).square().mean().backward()
        run.step()
    step = open_trace(path).step(0)
    assert step.coverage is not None
    assert (step.coverage.share, step.coverage.unseen) == (1.0, ())
    return {record.layer for record in step.records}


class Region(nn.Module):
    """A checkpoint that ends in a layer: its recomputation ends within that layer's."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.region, self.reentrant = nn.Linear(8, 8), net(), reentrant

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.region, self.first(x), use_reentrant=self.reentrant)
        return y.relu()


@each_kind
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_that_ends_in_a_layer(kind: str, reentrant: bool, tmp_path: Path) -> None:
    layers = layers_of_one_step(kind, Region(reentrant), tmp_path / "run")
    assert {"first", "region.0", "region.2", "region.0@2"} <= layers


def test_a_weight_with_a_state_is_computed_as_often_as_ever(tmp_path: Path) -> None:
    def train(path: Path | None) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(spectral_norm(nn.Linear(8, 8)), nn.MultiheadAttention(8, 2))
        spectral_norm(model[1], "in_proj_weight")
        run = None if path is None else Tracer(model, Dense(), path, steps=())
        y = model[0](torch.randn(4, 8))
        model[1](y, y, y)[0].sum().backward()
        if run is not None:
            run.close()
        return list(model.state_dict().values())

    plain, traced = train(None), train(tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(plain, traced, strict=True))


@each_kind
def test_modules_that_are_put_in_during_a_step(kind: str, tmp_path: Path) -> None:
    model = net()

    def grow() -> None:
        model[2] = nn.Linear(8, 6)
        model.append(nn.Linear(6, 3))

    assert layers_of_one_step(kind, model, tmp_path / "run", grow) == {"0", "2", "3"}


def test_parameters_that_get_their_shapes_in_a_step(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(4))
    assert layers_of_one_step("observer", model, tmp_path / "run") == {"0", "2"}


@each_kind
def test_a_part_in_eval_mode_is_trained_and_a_model_in_eval_mode_is_not(
    kind: str, tmp_path: Path
) -> None:
    model = net()
    model[0].eval()

    def evaluate() -> None:
        model.eval()
        model(torch.randn(7, 8))
        model.train()
        model[0].eval()

    assert layers_of_one_step(kind, model, tmp_path / "run", evaluate) == {"0", "2"}


class _Quantised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return x @ weight.to(x.dtype).t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] @ ctx.saved_tensors[0].to(gradients[0].dtype), None


class Quantised(nn.Module):
    """A frozen base of integers, in a function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.register_buffer("base", torch.randint(-3, 4, (8, 8), dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Quantised.apply(self.first(x), self.base)
        return y


@each_kind
def test_the_input_gradient_through_quantised_weights(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Quantised()
    layers = layers_of_one_step(kind, model, tmp_path / "run")
    (name,) = layers - {"first"}
    step = open_trace(tmp_path / "run").step(0)
    assert step.record(name, "dgrad", "weight").ones == int(model.base.count_nonzero())


def test_a_mode_of_the_users_own_sees_nothing_of_ours(tmp_path: Path) -> None:
    class Seen(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen[func] += 1
            return func(*args, **(kwargs or {}))

    seen: Counter[Any] = Counter()
    counts = []
    for observed in (False, True):
        model, x = net(), torch.randn(4, 8)
        run = OPEN["observer"](model, tmp_path / "run") if observed else None
        seen.clear()
        with Seen():
            model(x).sum().backward()
        counts.append(sum(seen.values()))
        if run is not None:
            run.close()
    assert counts[0] == counts[1]


@each_kind
def test_what_is_sharded_the_old_way_is_refused(kind: str, tmp_path: Path) -> None:
    class FullyShardedDataParallel(nn.Module):
        """Has the name of torch's, which makes one parameter of several."""

    model = FullyShardedDataParallel()
    model._flat_param = nn.Parameter(torch.zeros(12))
    with pytest.raises(RecordingError, match="the model is a FullyShardedDataParallel, spread"):
        OPEN[kind](model, tmp_path / "run")


class Composed(torch.Tensor):
    """An integer tensor and a scale, as libraries of quantisation have them."""

    @staticmethod
    def __new__(cls, values: Tensor, scale: Tensor) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=scale.dtype)

    def __init__(self, values: Tensor, scale: Tensor) -> None:
        self.values_, self.scale = values, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["values_", "scale"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = [
            each.values_.to(each.scale.dtype) * each.scale if isinstance(each, Composed) else each
            for each in args
        ]
        out = func(*plain, **(kwargs or {}))
        whole = func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
        return args[0] if whole else out


@each_kind
def test_a_weight_that_is_composed_of_others(kind: str, tmp_path: Path) -> None:
    model = net()
    values = torch.randint(-1, 2, (8, 8), dtype=torch.int8)
    composed = Composed(values, torch.ones(8, 1) / 8)
    model[0].weight = nn.Parameter(composed, requires_grad=False)
    layers_of_one_step(kind, model, tmp_path / "run")
    record = open_trace(tmp_path / "run").step(0).record("0", "fprop", "weight")
    assert record.ones == int(values.count_nonzero())


@torch.library.custom_op("swatsim_tests::product", mutates_args=())  # type: ignore[untyped-decorator]
def product(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply where no dispatch can be seen."""
    return x @ weight.t()


def test_a_weight_in_an_operation_of_the_users_own_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.first(x) + product(x, self.last.weight.repeat(2, 1)).detach()
            return y

    layers_of_one_step("observer", Model(), tmp_path / "run")
    assert "last (in swatsim_tests::product, which can't be seen into)" in caplog.text
