"""SWAT's formulas and masks, against loops and sorting in NumPy."""

from __future__ import annotations

import copy
import errno
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from swatsim.errors import RecordingError, TraceError  # noqa: E402
from swatsim.policies import RigL, Site, SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Tracer  # noqa: E402
from tests.traces import wait_until  # noqa: E402

ALL = SwatU(0.6, first_conv_dense=False)


def keep(values: np.ndarray, percent: int = 40) -> np.ndarray:
    """Zero all but the largest by a stable sort; what is zero anyway does not count as kept."""
    k = -(-percent * values.size // 100)
    order = np.argsort(-np.abs(values).reshape(-1), kind="stable")
    kept = np.zeros(values.size)
    kept[order[:k]] = values.reshape(-1)[order[:k]]
    return kept.reshape(values.shape)


def loops(
    x: np.ndarray, w: np.ndarray, dy: np.ndarray, stride: Any, pad: Any, dil: Any, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A convolution's y (of x, w), dx (of w, dy) and dw (of x, dy), one product at a time."""
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)
    K, C, R, S = w.shape
    _, _, P, Q = dy.shape
    for k, c, r, s, p, q in np.ndindex(K, C, R, S, P, Q):
        h, v = p * stride[0] + r * dil[0] - pad[0], q * stride[1] + s * dil[1] - pad[1]
        if 0 <= h < x.shape[2] and 0 <= v < x.shape[3]:
            channel = k // (K // groups) * C + c
            y[:, k, p, q] += w[k, c, r, s] * x[:, channel, h, v]
            dx[:, channel, h, v] += w[k, c, r, s] * dy[:, k, p, q]
            dw[k, c, r, s] += x[:, channel, h, v] @ dy[:, k, p, q]
    return y, dx, dw


def numpy(tensor: Tensor | None) -> np.ndarray:
    assert tensor is not None
    return tensor.numpy(force=True)


def run(module: nn.Module, x: Tensor, path: Path, policy: Any = ALL) -> tuple[Tensor, Tensor]:
    """Forward and backward in an open tracer that records; the output and its gradient."""
    with Tracer(module, policy, path, steps=(0,)) as tracer:
        y = module(x)
        dy = torch.randn_like(y)
        y.backward(dy)
        tracer.step()
    return y, dy


CONVOLUTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 3), "padding": (0, 2), "bias": False},
    {"kernel_size": 3, "padding": 2, "dilation": (2, 1)},
    {"kernel_size": 3, "padding": 1, "groups": 2},
    {"kernel_size": 3, "padding": 1, "groups": 4},
    {"kernel_size": 1, "stride": 2, "bias": False},
    {"kernel_size": (3, 5), "padding": "same"},
    {"kernel_size": (4, 3), "padding": "same", "dilation": (1, 2)},
    {"kernel_size": 2, "padding": "valid"},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("arguments", CONVOLUTIONS, ids=str)
def test_convolution(arguments: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(4, 8, **arguments).double()
    x = torch.randn(3, 4, 7, 6, dtype=torch.double).relu().requires_grad_()
    y, dy = run(conv, x, tmp_path)

    (layer,) = open_trace(tmp_path).layers
    pad = (layer.padding[0][0], layer.padding[1][0])
    how = (layer.stride, pad, layer.dilation, layer.groups)
    X, W, DY = numpy(x), numpy(conv.weight), numpy(dy)
    output, input_gradient, _ = loops(X, keep(W), DY, *how)
    _, _, weight_gradient = loops(keep(X), W, DY, *how)
    bias = np.zeros(8) if conv.bias is None else numpy(conv.bias)
    np.testing.assert_allclose(numpy(y), output + bias[:, None, None], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(numpy(x.grad), input_gradient, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(numpy(conv.weight.grad), weight_gradient, rtol=1e-12, atol=1e-12)
    if conv.bias is not None:
        np.testing.assert_allclose(numpy(conv.bias.grad), DY.sum((0, 2, 3)), rtol=1e-12)
    conv.weight.data = torch.tensor(keep(W))
    torch.testing.assert_close(y, conv(x))


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool, tmp_path: Path) -> None:
    torch.manual_seed(2)
    linear = nn.Linear(6, 5, bias=bias).double()
    x = torch.randn(4, 6, dtype=torch.double, requires_grad=True)
    y, dy = run(linear, x, tmp_path)
    X, W, DY = numpy(x), numpy(linear.weight), numpy(dy)
    add = numpy(linear.bias) if bias else 0
    np.testing.assert_allclose(numpy(y), X @ keep(W).T + add, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(numpy(x.grad), DY @ keep(W), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(numpy(linear.weight.grad), DY.T @ keep(X), rtol=1e-12, atol=1e-12)
    if bias:
        np.testing.assert_allclose(numpy(linear.bias.grad), DY.sum(0), rtol=1e-12)


class Net(nn.Module):
    """Declares its layers in another order than that in which it runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6 * 3 * 3, 5)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.first = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        y = torch.relu(self.second(y))
        return self.fc(y.flatten(1))


def images(number: int = 5, seed: int = 3) -> Tensor:
    return torch.randn(number, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def train(model: nn.Module, steps: int, tracer: Tracer | None = None, batch: int = 5) -> None:
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for number in range(steps):
        optimizer.zero_grad()
        model(images(batch, number)).square().mean().backward()
        optimizer.step()
        if tracer is not None:
            tracer.step()


def watch(model: nn.Module) -> dict[tuple[str, str], np.ndarray]:
    """What the layers of a model are given in the next step, by layer and operand."""
    seen: dict[tuple[str, str], np.ndarray] = {}

    def look(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            seen[name, "act"] = numpy(inputs[0].float()).copy()
            seen[name, "weight"] = numpy(module.weight.float()).copy()
            output.register_hook(
                lambda dy: seen.__setitem__((name, "grad_out"), numpy(dy.float()).copy())
            )

        return hook

    for name, module in model.named_children():
        module.register_forward_hook(look(name))
    return seen


def round_weights(model: nn.Module) -> None:
    """Leave few different weights, some of them zero: many ties, and natural zeros."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 8).round() / 8)


@pytest.mark.parametrize("kind", ["float32", "ties", "channels_last", "bfloat16", "autocast"])
def test_recorded_masks(kind: str, tmp_path: Path) -> None:
    model, x = net(), images()
    if kind in ("ties", "channels_last"):
        round_weights(model)
        x = (x * 2).round()
    if kind == "channels_last":
        model, x = (
            model.to(memory_format=torch.channels_last),
            x.to(memory_format=torch.channels_last),
        )
    if kind == "bfloat16":
        model, x = model.bfloat16(), x.bfloat16()
    seen = watch(model)
    with (
        Tracer(model, SwatU(0.6), tmp_path, steps=(0,), images=3) as tracer,
        torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"),
    ):
        model(x).square().mean().backward()
        tracer.step()

    if kind == "autocast":  # the layers read bfloat16
        seen = {key: numpy(torch.tensor(v).bfloat16().float()) for key, v in seen.items()}
    dense = {key: values != 0 for key, values in seen.items()}
    sparse = {key: keep(values) != 0 for key, values in seen.items()}
    expected = {}
    for name, weight in {"first": dense, "second": sparse, "fc": sparse}.items():
        expected[name, "fprop", "weight"] = weight[name, "weight"]
        expected[name, "fprop", "act"] = dense[name, "act"][:3]
        expected[name, "wgrad", "act"] = weight[name, "act"][:3]
        expected[name, "wgrad", "grad_out"] = dense[name, "grad_out"][:3]
        if name != "first":
            expected[name, "dgrad", "weight"] = weight[name, "weight"]
            expected[name, "dgrad", "grad_out"] = dense[name, "grad_out"][:3]
    step = open_trace(tmp_path).step(0)
    assert {record.key for record in step.records} == set(expected)
    for key, mask in expected.items():
        assert np.array_equal(step.mask(*key), mask), key


def test_layers_are_declared_in_the_order_in_which_they_run(tmp_path: Path) -> None:
    model = net()
    with Tracer(model, SwatU(0.6), tmp_path, steps=(1,), images=3) as tracer:
        train(model, 2, tracer)
    trace = open_trace(tmp_path)
    assert [layer.name for layer in trace.layers] == ["first", "second", "fc"]
    assert trace.layers[1].model_dump(include={"C", "K", "H", "R", "stride", "padding"}) == {
        "C": 4,
        "K": 6,
        "H": 6,
        "R": 3,
        "stride": (2, 2),
        "padding": ((1, 1), (1, 1)),
    }
    assert trace.steps == (1,)
    assert trace.manifest.samples == (0, 1, 2)
    assert trace.step(1).batch_size == 5


def test_all_weights_are_trained_and_stay_dense(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    weights = [model[index].weight for index in (0, 1, 3)]
    before = [weight.detach().clone() for weight in weights]
    with Tracer(model, ALL, tmp_path, steps=()) as tracer:
        train(model, 1, tracer, batch=40)
    for weight, old in zip(weights, before, strict=True):
        assert weight.grad.count_nonzero() == weight.numel()
        assert weight.count_nonzero() == weight.numel()
        assert bool((weight != old).all())


def test_what_is_kept_for_the_backward_pass_is_sparse(tmp_path: Path) -> None:
    model, saved = nn.Linear(10, 10), []
    with (
        Tracer(model, SwatU(0.8), tmp_path, steps=()),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t),
    ):
        model(torch.randn(5, 10, requires_grad=True))
    assert [int(tensor.count_nonzero()) for tensor in saved] == [20, 10]


@pytest.mark.parametrize("way", ["no_grad", "eval"])
def test_inference_is_sparse_and_not_recorded(way: str, tmp_path: Path) -> None:
    model, x = net(), images()
    sparse = copy.deepcopy(model)
    for module in (sparse.second, sparse.fc):
        module.weight.data = torch.tensor(keep(numpy(module.weight))).float()
    with Tracer(model, SwatU(0.6), tmp_path, steps=(0,)) as tracer:
        model.train(way == "no_grad")
        with torch.set_grad_enabled(way == "eval"):
            y = model(x)
        tracer.step()
        torch.testing.assert_close(y, sparse(x))
        assert not torch.allclose(y, net()(x))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_ordinary(clone: Any, tmp_path: Path) -> None:
    model = net()
    with Tracer(model, ALL, tmp_path, steps=()):
        inside = clone(model)
    outside = clone(model)
    x, expected = images(), net()(images())
    assert torch.equal(inside(x), expected)
    assert torch.equal(outside(x), expected)
    with Tracer(inside, ALL, tmp_path, steps=()):
        assert not torch.allclose(inside(x), expected)


def test_a_closed_tracer_leaves_nothing(tmp_path: Path) -> None:
    untouched, model = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = [dict(vars(module)) for module in model.modules()]
    keys = list(model.state_dict())
    tracer = Tracer(model, ALL, tmp_path, steps=())
    assert list(model.state_dict()) == keys
    tracer.close()
    tracer.close()
    tracer.step()
    assert [dict(vars(module)) for module in model.modules()] == before
    assert optimizer.param_groups[0]["params"] == list(model.parameters())
    train(model, 3)
    train(untouched, 3)
    for key, value in untouched.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_it_closes_after_an_exception(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(KeyError), Tracer(model, ALL, tmp_path, steps=()):
        raise KeyError
    assert torch.equal(model(images()), net()(images()))


def test_no_sparsity_trains_as_without(tmp_path: Path) -> None:
    model, untouched = net(), net()
    with Tracer(model, SwatU(0), tmp_path, steps=()) as tracer:
        train(model, 3, tracer)
    train(untouched, 3)
    for key, value in untouched.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value)


def test_a_gradient_for_the_input_gives_the_first_layer_a_dgrad(tmp_path: Path) -> None:
    for needs in (False, True):
        path = tmp_path / str(needs)
        run(nn.Conv2d(2, 4, 3), images().requires_grad_(needs), path)
        ops = [op for _, op in open_trace(path).step(0).ops()]
        assert ("dgrad" in ops) == needs


def test_frozen_weights_have_no_wgrad(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    model.second.weight.requires_grad_(False)
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        model(images()).sum().backward()
        tracer.step()
    assert model.second.weight.grad is None
    ops = [(layer.name, op) for layer, op in open_trace(tmp_path).step(0).ops()]
    assert ("second", "dgrad") in ops
    assert ("second", "wgrad") not in ops
    assert "no weight gradient of second" in caplog.text


def test_forward_without_backward(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        model(images())
        tracer.step()
    assert {op for _, op in open_trace(tmp_path).step(0).ops()} == {"fprop"}
    assert "step 0 has no weight gradient of first, second, fc" in caplog.text


def test_a_backward_after_the_step_is_not_of_the_next(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    with Tracer(model, ALL, tmp_path, steps=(0, 1)) as tracer:
        early = model(torch.ones(5, 4)).sum()
        tracer.step()
        late = model(torch.ones(5, 4)).sum()
        early.backward()
        late.backward()
        tracer.step()
    assert [op for _, op in open_trace(tmp_path).step(1).ops()] == ["fprop", "wgrad"]


def test_a_convolution_without_a_batch_is_one_of_one(tmp_path: Path) -> None:
    conv, x = nn.Conv2d(2, 4, 3), images(1)
    with Tracer(conv, ALL, tmp_path, steps=()):
        assert torch.equal(conv(x[0]), conv(x)[0])


def test_padding_by_reflection_is_of_the_input(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 2, 3))
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        model(images()).sum().backward()
        tracer.step()
    layers = open_trace(tmp_path).layers
    assert [(layer.name, layer.H, layer.padding) for layer in layers] == [
        ("0", 8, ((0, 0), (0, 0))),
        ("1", 6, ((0, 0), (0, 0))),
    ]


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.weight.std()


class Scaled(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight * 2, bias)


class Named(nn.Linear):
    """Overrides nothing that is computed."""

    def extra_repr(self) -> str:
        return "named"


def test_subclasses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(
        Standardised(2, 4, 3),
        nn.Unflatten(1, (1, 4)),
        nn.Conv3d(1, 1, 1),
        nn.Flatten(1, 2),
        Scaled(4, 2, 1),
        nn.Flatten(),
        Named(32, 3),
    )
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        model(images()).sum().backward()
        tracer.step()
    assert [layer.name for layer in open_trace(tmp_path).layers] == ["0", "2", "4", "6"]
    assert not caplog.messages


def test_what_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="ReLU has no Conv1d, Conv2d"):
        Tracer(nn.ReLU(), ALL, tmp_path, steps=())
    with pytest.raises(RecordingError, match="must be a torch.nn.Module"):
        Tracer("resnet", ALL, tmp_path, steps=())  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match="module to skip 'fcc': did you mean 'fc'"):
        Tracer(net(), ALL, tmp_path, steps=(), skip=["fcc"])
    model = net()
    with Tracer(model, ALL, tmp_path, steps=()):
        with pytest.raises(RecordingError, match="close the other Tracer first"):
            Tracer(model, ALL, tmp_path, steps=())
        assert not torch.equal(model(images()), net()(images()))
    (tmp_path / "mine").touch()
    with pytest.raises(TraceError, match="not written over"):
        Tracer(model, ALL, tmp_path, steps=())
    assert "forward" not in vars(model.fc)


def test_a_policy_of_ones_own(tmp_path: Path) -> None:
    class SparseGradients:
        """meProp: Top-K of the gradient, for both of its uses."""

        def density(self, site: Site) -> float | None:
            return 0.25 if site.operand == "grad_out" else None

        def describe(self) -> dict[str, Any]:
            return {"name": "meprop"}

    torch.manual_seed(4)
    linear = nn.Linear(6, 8).double()
    x = torch.randn(5, 6, dtype=torch.double, requires_grad=True)
    _, dy = run(linear, x, tmp_path, SparseGradients())
    kept = keep(numpy(dy), 25)
    np.testing.assert_allclose(numpy(x.grad), kept @ numpy(linear.weight))
    np.testing.assert_allclose(numpy(linear.weight.grad), kept.T @ numpy(x))
    np.testing.assert_allclose(numpy(linear.bias.grad), numpy(dy).sum(0))
    step = open_trace(tmp_path).step(0)
    assert np.array_equal(step.mask("Linear", "wgrad", "grad_out"), kept != 0)
    assert step.manifest.policy == {"name": "meprop"}


def test_a_policy_is_told_the_step(tmp_path: Path) -> None:
    class Gradual:
        def density(self, site: Site) -> float | None:
            return 1 / 2**site.step if site.operand == "weight" else None

        def describe(self) -> dict[str, Any]:
            return {"name": "gradual"}

    model = nn.Linear(8, 8)
    with Tracer(model, Gradual(), tmp_path, steps=range(3)) as tracer:
        for _ in range(3):
            model(torch.ones(2, 8)).sum().backward()
            tracer.step()
    trace = open_trace(tmp_path)
    assert [trace.step(n).record("Linear", "fprop", "weight").ones for n in trace.steps] == [
        64,
        32,
        16,
    ]


def test_a_full_disk_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, chunks: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model, untroubled = net(), net()
    with Tracer(model, ALL, tmp_path / "a", steps=range(9)) as tracer:
        train(model, 1, tracer)
        wait_until(lambda: (tmp_path / "a" / "steps" / "0.safetensors").exists())
        monkeypatch.setattr("swatsim.tracefile.step.publish_chunks", full)
        train(model, 3, tracer)
        assert "No space left" in str(tracer.error)
        assert tracer.number == 4
    with Tracer(untroubled, ALL, tmp_path / "b", steps=()) as tracer:
        train(untroubled, 1, tracer)
        train(untroubled, 3, tracer)
    assert torch.equal(model.fc.weight, untroubled.fc.weight)
    trace = open_trace(tmp_path / "a")
    assert trace.steps == (0,)
    assert len(list(trace.step(0).check())) == 16


def test_a_smaller_batch_is_recorded_whole(tmp_path: Path) -> None:
    model = net()
    with Tracer(model, ALL, tmp_path, steps=(0, 1), images=4) as tracer:
        train(model, 1, tracer, batch=3)
        train(model, 1, tracer, batch=4)
    trace = open_trace(tmp_path)
    assert [trace.step(number).samples_of("fc") for number in trace.steps] == [3, 4]
    assert not torch.equal(model.fc.weight, net().fc.weight)


KILLED = """
import sys, time, torch
from torch import nn
from swatsim.policies import SwatU
from swatsim.tracer.pytorch import Tracer

torch.set_num_threads(1)
model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 3))
tracer = Tracer(model, SwatU(0.8), sys.argv[1], steps=range(9))
for number in range(3):
    model(torch.randn(5, 2, 6, 6)).sum().backward()
    if number == 2:
        print("in the middle", flush=True)
        time.sleep(60)
    tracer.step()
"""


def test_kill_9_in_the_middle_of_a_step(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in the middle\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    trace = open_trace(tmp_path)
    assert trace.steps == (0, 1)
    assert [len(list(trace.step(number).check())) for number in trace.steps] == [10, 10]


def test_a_run_that_is_restarted_goes_on_with_its_trace_whatever_its_loader_forks(
    tmp_path: Path,
) -> None:
    data = TensorDataset(torch.randn(12, 8))
    for start in (0, 2):
        model = nn.Linear(8, 3)
        loader = DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context="fork")
        options: dict[str, Any] = {"steps": range(9), "append": True, "start": start}
        with Tracer(model, ALL, tmp_path, **options) as tracer:
            for (x,) in loader:
                model(x).sum().backward()
                tracer.step()
        assert tracer.error is None
        assert tracer.number == start + 3
    trace = open_trace(tmp_path)
    assert trace.steps == (0, 1, 2, 3, 4)
    assert len(trace.manifest.provenance["appended"]) == 1
    assert all(list(trace.step(number).check()) for number in trace.steps)


@pytest.mark.parametrize("start", [0, 2])
def test_a_loaded_state_says_which_steps_come(tmp_path: Path, start: int) -> None:
    """Neither step 0, which is recorded, nor what began before counts."""
    steps, x = (0, 2, 4), torch.randn(4, 8)
    model = nn.Sequential(nn.Linear(8, 3))
    with Tracer(model, RigL(0.5), tmp_path, steps=steps) as tracer:
        for _ in range(2):
            model(x).sum().backward()
            tracer.step()
        state = tracer.state_dict()
    tracer.load_state_dict(state)  # closed: it stays so
    again = nn.Sequential(nn.Linear(8, 3))
    with Tracer(again, RigL(0.5), tmp_path, steps=steps, append=True, start=start) as tracer:
        again(x)
        tracer.load_state_dict(state)
        assert tracer.number == 2
        for _ in range(3):
            again(x).sum().backward()
            tracer.step()
    assert open_trace(tmp_path).steps == (0, 2, 4)
    masks = [open_trace(tmp_path).step(n).mask("0", "fprop", "weight") for n in (2, 4)]
    assert np.array_equal(masks[1], numpy(state["kept"]["kept"]["0"]))
    assert not list((tmp_path / "steps").glob(".*"))


@pytest.mark.parametrize(
    "state",
    [None, {}, {"step": 3}, {"policy": {"name": "swat-u"}}, {"policy": SwatU(0.5).describe()}],
)
def test_a_state_of_another_policy_is_refused(state: Any, tmp_path: Path) -> None:
    with Tracer(net(), ALL, tmp_path, steps=()) as tracer:
        with pytest.raises(RecordingError, match="the state is of the policy .*expected one of"):
            tracer.load_state_dict(state)
        assert tracer.number == 0
