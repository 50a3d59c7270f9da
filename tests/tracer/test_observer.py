"""An observer changes nothing, to the bit, and leaves nothing behind."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from swatsim.errors import RecordingError  # noqa: E402
from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402
from tests.tracer.test_pytorch import numpy  # noqa: E402

LINEAR = functional.linear
HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_always_called",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def state_of(model: nn.Module) -> list[Any]:
    """What an observer or a tracer may not leave changed: of the model, and of torch."""
    modules = [
        (name, sorted(vars(module)), [list(getattr(module, hook)) for hook in HOOKS])
        for name, module in model.named_modules()
    ]
    saving = torch._C._autograd._top_saved_tensors_default_hooks(False)
    mode = torch._C._len_torch_function_stack()
    fast = torch.backends.mha.get_fastpath_enabled()
    return [modules, saving, mode, fast, functional.linear is LINEAR]


class Masked(nn.Linear):
    def __init__(self, C: int, K: int) -> None:
        super().__init__(C, K)
        self.register_buffer("mask", (torch.rand(K, C) < 0.3).float())

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self.mask, self.bias)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3, 3, 3) / 9)
        self.v = nn.Parameter(torch.randn(4, 2, 2, 2) / 4)
        self.u = nn.Parameter(torch.randn(5, 2 * 12 * 12) / 9)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu_(torch.conv2d(x, self.w, None, 1, 1))
        y = functional.conv_transpose2d(y, weight=self.v, stride=2, groups=2)[:, :2]
        return functional.linear(y.flatten(1), weight=self.u * 1.0)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.body = nn.Embedding(11, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x.flatten(1)[:, :5].abs() * 3).long().clamp(max=10)
        return self.head(torch.tanh(self.body(self.embedding(tokens))))


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Conv2d(3, 4, 3),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.Dropout()),
        )
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        y = checkpoint(self.second, self.first(x).relu(), use_reentrant=self.reentrant)
        return self.second(y) if y.shape[-1] > 5 else y


class Methods(nn.Module):
    """Its parts are called by its methods, itself never."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x).relu()

    def decode(self, x: Tensor) -> Tensor:
        return self.decoder(x)


def convolutional(*more: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same", bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout2d(0.3),
        nn.Conv2d(4, 4, 3, groups=4, padding=1),
        nn.ReLU(inplace=True),
        *more,
        nn.Flatten(),
        nn.Linear(4 * 36, 5),
    )


def pruned() -> nn.Module:
    model = convolutional()
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.random_unstructured(model[-1], "weight", 0.7)
    return model


def pruned_plainly() -> nn.Module:
    model = pruned()
    for module in (model[0], model[-1]):
        prune.remove(module, "weight")
    return model


def parametrized() -> nn.Module:
    model = convolutional()
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[-1])
    return model


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(9, 3, 12, batch_first=True)
    flat = (nn.Flatten(2), nn.Linear(36, 9))
    return nn.Sequential(*flat, nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


def hooked() -> nn.Module:
    model = convolutional()
    model[0].register_forward_hook(lambda m, x, y: y * 2)
    model[4].register_forward_pre_hook(lambda m, x: (x[0] + 1,))
    model[-1].register_full_backward_hook(lambda m, dx, dy: (dx[0] / 2,))
    model.register_forward_hook(lambda m, x, y: y.sin(), always_call=True)
    return model


def nested() -> nn.Module:
    inner = nn.Conv2d(3, 3, 3, padding=1)
    return nn.Sequential(inner, nn.Sequential(inner, nn.ReLU(), inner), nn.Linear(6, 4))


def plain(model: Any, x: Tensor) -> Tensor:
    loss = model(x).square().mean()
    loss.backward()
    return loss


def cast(model: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return plain(model, x)


def accumulated(model: Any, x: Tensor) -> Tensor:
    plain(model, x)
    return plain(model, x + 1)


def twice(model: Any, x: Tensor) -> Tensor:
    loss = model(x).square().mean()
    loss.backward(retain_graph=True)
    (2 * loss).backward()
    return loss


def penalised(model: Any, x: Tensor) -> Tensor:
    """A gradient penalty: double backward."""
    x.requires_grad_()
    y = model(x).square().mean()
    (dx,) = torch.autograd.grad(y, x, create_graph=True)
    loss = y + dx.square().sum()
    loss.backward()
    return loss


def adversarial(model: Any, x: Tensor) -> Tensor:
    """A gradient of the input only, then one of the weights at another input."""
    x.requires_grad_()
    (dx,) = torch.autograd.grad(model(x).square().mean(), x)
    return plain(model, (x + dx.sign()).detach())


def evaluating(model: Any, x: Tensor) -> Tensor:
    model.eval()
    return plain(model, x)


def between(model: Any, x: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        model(x)
    model.train()
    return plain(model, x)


def by_methods(model: Any, x: Tensor) -> Tensor:
    loss = model.decode(model.encode(x)).square().mean()
    loss.backward()
    return loss


def copied(model: Any, x: Tensor) -> Tensor:
    """Copies are trained, too, and are not seen."""
    return plain(pickle.loads(pickle.dumps(copy.deepcopy(model))), x) + plain(model, x)


RUNS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "conv": (convolutional, plain),
    "transformer": (transformer, plain),
    "prune": (pruned, plain),
    "parametrized": (parametrized, plain),
    "masked": (lambda: nn.Sequential(nn.Flatten(), Masked(108, 8), nn.ReLU(), Masked(8, 4)), plain),
    "tied": (Tied, plain),
    "functional": (Functional, plain),
    "methods": (Methods, by_methods),
    "hooked": (hooked, plain),
    "nested": (nested, plain),
    "autocast": (convolutional, cast),
    "autocast-transformer": (transformer, cast),
    "checkpoint": (lambda: Checkpointed(False), plain),
    "checkpoint-reentrant": (lambda: Checkpointed(True), plain),
    "accumulated": (convolutional, accumulated),
    "twice": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh()), twice),
    "penalised": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3)),
        penalised,
    ),
    "penalised-transformer": (transformer, penalised),
    "adversarial": (convolutional, adversarial),
    "eval": (transformer, evaluating),
    "between": (convolutional, between),
    "copied": (pruned_plainly, copied),
}


def trained(make: Callable[[], nn.Module], loop: Any, watch: Callable[[nn.Module], Any]) -> Any:
    """Everything that a run of five steps leaves."""
    torch.manual_seed(11)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 0.01, foreach=False)
    losses, before = [], state_of(model)
    with watch(model) as observer:
        for number in range(5):
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(number)
            x = torch.randn(4, 3, 6, 6, generator=generator)
            losses.append(loop(model, x).detach())
            optimizer.step()
            observer.step()
            if number in (1, 3):
                assert state_of(model) == before
    assert state_of(model) == before
    moments = [t for s in optimizer.state.values() for t in s.values()]
    return [*losses, *model.state_dict().values(), *moments, torch.get_rng_state()]


class Nobody:
    """Watches nothing."""

    def __init__(self, model: nn.Module) -> None: ...

    def __enter__(self) -> Nobody:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def step(self) -> None: ...


@pytest.mark.parametrize("name", RUNS)
def test_an_observed_run_is_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    make, loop = RUNS[name]
    expected = trained(make, loop, Nobody)
    options: dict[str, Any] = {"steps": (0, 1, 3), "images": 2, "measure_memory": True}
    got = trained(make, loop, lambda model: Observer(model, tmp_path, **options))
    assert all(map(torch.equal, got, expected))
    assert len(got) == len(expected)
    if name != "eval":
        trace = open_trace(tmp_path)
        assert trace.steps == (0, 1, 3)
        assert all(list(trace.step(number).check()) for number in trace.steps)


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    torch.manual_seed(14)
    model(x).square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(15))


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["tracer", "observer"])
@pytest.mark.parametrize("ended", [True, False])
def test_an_exception_inside_leaves_nothing(
    kind: str, error: type[BaseException], ended: bool, tmp_path: Path
) -> None:
    def fail(module: nn.Module, given: Any) -> None:
        raise error

    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 3)))
    before, x = state_of(model), inputs(2, 4)
    options: dict[str, Any] = {"steps": (0, 1), "measure_memory": True}
    it: Any
    if kind == "tracer":
        it = Tracer(model, SwatU(0.5), tmp_path, **options)
    else:
        it = Observer(model, tmp_path, **options)
    with it:
        hook = model[1].register_forward_pre_hook(fail)
        with pytest.raises(error):
            model(x)
        hook.remove()
        if ended:
            it.step()
            gradients(model, x)
            it.step()
    assert state_of(model) == before
    if ended:
        assert len(list(open_trace(tmp_path).step(1).check())) == 10


class Catches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.first(x)
        except KeyError:
            x = -x
        return self.second(x)


def test_a_models_own_exceptions_are_its_own(tmp_path: Path) -> None:
    def fail(module: nn.Module, given: Any) -> None:
        raise KeyError

    model = Catches()
    model.first.register_forward_pre_hook(fail)
    expected = gradients(model, inputs(2, 4))
    with Observer(model, tmp_path, steps=(0,), measure_memory=True) as observer:
        assert all(map(torch.equal, gradients(model, inputs(2, 4)), expected))
        observer.step()
    assert [layer.name for layer in open_trace(tmp_path).layers] == ["second"]


@pytest.mark.parametrize("make", [convolutional, transformer])
def test_two_observers_see_the_same(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(16)
    model, x = make(), inputs(4, 3, 6, 6)
    before, expected = state_of(model), gradients(model, x)
    first, second = (Observer(model, tmp_path / name, steps=(0,)) for name in "ab")
    assert all(map(torch.equal, gradients(model, x), expected))
    for observer in (first, second):
        observer.step()
        observer.close()
    assert state_of(model) == before
    traces = [open_trace(tmp_path / name) for name in "ab"]
    assert traces[0].layers == traces[1].layers
    for record in traces[0].step(0).records:
        masks = [trace.step(0).mask(*record.key) for trace in traces]
        assert np.array_equal(*masks)


@pytest.mark.parametrize("make", [convolutional, transformer])
def test_an_observer_leaves_a_tracers_model_sparse(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(17)
    model, x = make(), inputs(4, 3, 6, 6)
    with Observer(model, tmp_path / "b", steps=(0,)):
        with Tracer(model, SwatU(0.5), tmp_path / "a", steps=()):
            with pytest.raises(RecordingError, match="is run by a Tracer, which records it"):
                Observer(model, tmp_path / "c", steps=(0,))
            expected = gradients(model, x)
    with Tracer(model, SwatU(0.5), tmp_path / "d", steps=()):
        assert all(map(torch.equal, gradients(model, x), expected))


@pytest.mark.parametrize("frozen", [True, False])
def test_evaluation_takes_the_fast_path_as_ever(frozen: bool, tmp_path: Path) -> None:
    torch.manual_seed(18)
    model, x = transformer().eval(), inputs(4, 3, 6, 6)
    model.requires_grad_(not frozen)
    with torch.set_grad_enabled(frozen):
        expected = model(x)
        with Observer(model, tmp_path, steps=(0,)):
            assert torch.equal(model(x), expected)


VIEWS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(6, 5), (3, 6)),
    (nn.Linear(6, 5), (3, 4, 6)),
    (nn.Linear(6, 5), (3, 2, 4, 6)),
    (nn.Linear(6, 5, bias=False), (3, 4, 6)),
    (nn.Conv1d(6, 5, 3), (3, 6, 7)),
    (nn.ConvTranspose1d(6, 5, 3), (3, 6, 7)),
]


@pytest.mark.parametrize(("layer", "shape"), VIEWS, ids=str)
def test_gradients_before_what_changes_an_output_in_place(
    layer: nn.Module, shape: tuple[int, ...], tmp_path: Path
) -> None:
    model, x = nn.Sequential(layer, nn.ReLU(inplace=True)), inputs(*shape).requires_grad_()
    with Observer(model, tmp_path, steps=(0,)) as observer:
        y = model(x)
        y.sum().backward()
        observer.step()
    step, expected = open_trace(tmp_path).step(0), numpy(y) > 0
    if isinstance(layer, nn.Linear) and expected.ndim > 2:
        expected = expected.reshape(3, -1, 5).transpose(0, 2, 1)[..., None]
    for op in ("dgrad", "wgrad"):
        mask = step.mask("0", op, "grad_out")
        np.testing.assert_array_equal(mask.reshape(expected.shape), expected)


def test_a_frozen_layer_on_the_input_is_seen(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    with Observer(model, tmp_path, steps=(0,)) as observer:
        gradients(model, inputs(2, 4))
        observer.step()
    ops = [(layer.name, op) for layer, op in open_trace(tmp_path).step(0).ops()]
    assert ops == [("0", "fprop"), ("1", "fprop"), ("1", "wgrad")]


def test_transforms_of_torch_func_run_as_ever_and_their_gradients_are_named(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1)), inputs(3, 4)

    def loss(parameters: Any) -> Tensor:
        return torch.func.functional_call(model, parameters, (x,)).sum()

    parameters = dict(model.named_parameters())
    expected = torch.func.grad(loss)(parameters)
    with Observer(model, tmp_path, steps=(0,), measure_memory=True) as observer:
        got = torch.func.grad(loss)(parameters)
        observer.step()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    step = open_trace(tmp_path).step(0)
    assert {(layer.name, op) for layer, op in step.ops()} == {("0", "fprop"), ("2", "fprop")}
    assert step.coverage is not None
    assert step.coverage.held.forward == step.coverage.seen.forward == 60
    assert sum(each.backward for each in step.coverage.not_held) == step.coverage.seen.backward


@pytest.mark.parametrize("kind", ["in_proj_weight", "out_proj"])
def test_attention_with_parametrized_weights(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(19)
    own = nn.MultiheadAttention(8, 2, batch_first=True)
    if kind == "out_proj":
        parametrizations.weight_norm(own.out_proj)
    else:
        parametrizations.weight_norm(own, kind)
    x = inputs(3, 4, 8)
    for name in "ab":
        if name == "b":
            it: Any = Observer(own, tmp_path / name, steps=(0,))
        else:
            it = Tracer(own, SwatU(0), tmp_path / name, steps=(0,))
        with it:
            y = own(x, x, x)[0]
            y.sum().backward()
            it.step()
        torch.testing.assert_close(y, own(x, x, x)[0])
    traces = [open_trace(tmp_path / name) for name in "ab"]
    assert len(traces[0].layers) == len(traces[1].layers) == 4 + 2  # and attention's two products


class Experts(nn.Module):
    """Each sample goes to one of two layers, so that neither has the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 6)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        parts = [self.experts[0](x[:3]), self.experts[1](x[3:])]
        return self.head(torch.cat(parts))


def test_experts_of_any_number_of_tokens_are_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(21)
    model = Experts()
    with Observer(model, tmp_path, steps=range(3)) as observer:
        for _ in range(3):
            model(inputs(7, 6)).sum().backward()
            observer.step()
    trace = open_trace(tmp_path)
    assert trace.steps == (0, 1, 2)
    assert [layer.name for layer in trace.layers] == ["stem", "experts.0", "experts.1", "head"]
    assert not caplog.records


def test_a_rollback_records_no_step_twice(tmp_path: Path) -> None:
    model, x = nn.Linear(6, 3), inputs(4, 6)
    with Tracer(model, SwatU(0.5), tmp_path, steps=range(4)) as tracer:
        state = tracer.state_dict()
        for _ in range(2):
            model(x).sum().backward()
            tracer.step()
        tracer.load_state_dict(state)
        for _ in range(3):
            model(x).sum().backward()
            tracer.step()
        assert tracer.error is None
    assert open_trace(tmp_path).steps == (0, 1, 2)


def test_another_thread_meanwhile_is_seen_apart(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    inside, done = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            inside.set()
            assert done.wait(20)

    def other() -> None:
        assert inside.wait(20)
        model(inputs(9, 6)).sum()
        done.set()

    model[1].register_forward_hook(wait)
    thread = threading.Thread(target=other)
    thread.start()
    with Observer(model, tmp_path, steps=(0,)) as observer:
        model(inputs(4, 6)).sum().backward()
        thread.join()
        observer.step()
    step = open_trace(tmp_path).step(0)
    assert {layer.name for layer in step.layers} == {"0", "0@2", "2", "2@2"}
    assert sorted(step.batch_of(name) for name in ("0", "0@2")) == [4, 9]
    assert [op for _, op in step.ops()].count("wgrad") == 2
    assert torch._C._len_torch_function_stack() == 0
    assert torch._C._len_torch_dispatch_stack() == 0
