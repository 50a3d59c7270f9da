"""Recurrent layers, fused or not, in the trace: what each step multiplies, by which weights.

The fused kernel is compared with a network that is unrolled here, whose gates have hooks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils import prune, rnn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracefile.reader import Step  # noqa: E402
from swatsim.tracer.pytorch import Observer  # noqa: E402
from swatsim.workload.flops import macs_dense  # noqa: E402

T, N, C, H = 6, 3, 4, 5


class Unrolled:
    """What an nn.LSTM computes, step by step; notes (T, N, ..) of what each weight meets."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self.lstm, self.acts, self.grads = lstm, {}, {}

    def __call__(self, x: Tensor, states: tuple[Tensor, Tensor] | None = None) -> Tensor:
        lstm = self.lstm
        x = x.transpose(0, 1) if lstm.batch_first else x
        ways = ("", "_reverse") if lstm.bidirectional else ("",)
        first = torch.zeros(lstm.num_layers * len(ways), x.shape[1], lstm.hidden_size)
        h, c = (each.unbind() for each in states or (first, first))
        for layer in range(lstm.num_layers):
            at = [(f"l{layer}{way}", layer * len(ways) + i) for i, way in enumerate(ways)]
            x = torch.cat([self._layer(which, x, h[i], c[i]) for which, i in at], 2)
            last = layer == lstm.num_layers - 1
            x = x if last else functional.dropout(x, lstm.dropout, lstm.training)
        return x.transpose(0, 1) if lstm.batch_first else x

    def _layer(self, which: str, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        w_ih, w_hh = (getattr(self.lstm, f"weight_{each}_{which}") for each in ("ih", "hh"))
        b_ih, b_hh = (getattr(self.lstm, f"bias_{each}_{which}", None) for each in ("ih", "hh"))
        outputs, befores = [h] * len(x), [h] * len(x)
        grads = [torch.zeros(len(h), len(w_ih))] * len(x)
        order = range(len(x))
        for t in order[::-1] if "reverse" in which else order:
            befores[t] = h
            gates = functional.linear(x[t], w_ih, b_ih) + functional.linear(h, w_hh, b_hh)
            gates.register_hook(partial(grads.__setitem__, t))
            i, f, g, o = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = outputs[t] = o.sigmoid() * c.tanh()
        for name, act in (("ih", x), ("hh", torch.stack(befores))):
            self.acts[f"LSTM.weight_{name}_{which}"] = act.detach()
            self.grads[f"LSTM.weight_{name}_{which}"] = grads
        return torch.stack(outputs)


def lstm(**options: Any) -> nn.LSTM:
    torch.manual_seed(0)
    model = nn.LSTM(C, H, **options)
    for weight in model.parameters():
        weight.data *= torch.rand(weight.shape) < 0.5
    return model


def data(batch_first: bool = False) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(T, N, C).relu()
    x[:2, 0] = x[5, 1] = 0  # without biases these give states of zeros, from either end
    return x.transpose(0, 1).contiguous() if batch_first else x


def loss(y: Tensor) -> Tensor:
    """Not of every step of every sample, nor of every output."""
    weights = torch.zeros(y.shape)
    weights[0, 0], weights[1, 1:] = 1, 1
    weights[..., 1] = 0
    return (y * weights).square().sum()


def observed(model: nn.Module, path: Path, run: Callable[[], Any], **options: Any) -> Step:
    with Observer(model, path, steps=(0,), **options) as observer:
        run()
        observer.step()
        assert observer.error is None
    return open_trace(path).step(0)


def steps_of(mask: np.ndarray) -> np.ndarray:
    """A mask (N, C, T, 1) or (N, C) as (T, N, C)."""
    return mask[None] if mask.ndim == 2 else mask[..., 0].transpose(2, 0, 1)


def check(step: Step, unrolled: Unrolled, samples: int = N) -> None:
    names = {layer.name for layer in step.layers}
    assert names == set(unrolled.acts)
    for layer, op in step.ops():
        name = layer.name
        if op != "dgrad":
            act = unrolled.acts[name][:, :samples].numpy() != 0
            np.testing.assert_array_equal(steps_of(step.mask(name, op, "act")), act, name)
        if op != "wgrad":
            weight = getattr(unrolled.lstm, name.removeprefix("LSTM.")).detach().numpy() != 0
            seen = step.mask(name, op, "weight").reshape(weight.shape)
            np.testing.assert_array_equal(seen, weight)
        if op != "fprop":
            grads = torch.stack(unrolled.grads[name])[:, :samples].numpy() != 0
            np.testing.assert_array_equal(steps_of(step.mask(name, op, "grad_out")), grads, name)


def whole(step: Step) -> bool:
    """Whether everything is held, and the recorded ops multiply as much as was seen."""
    assert step.coverage is not None
    ran = [
        (layer, op, step.record(layer.name, "fprop", "act").shape[0]) for layer, op in step.ops()
    ]
    assert step.coverage.held.total == sum(macs_dense(layer, n, op) for layer, op, n in ran)
    return step.coverage.share == 1.0


OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False},
    {"bias": False, "batch_first": True},
    {"bias": False, "bidirectional": True},
    {"bidirectional": True, "num_layers": 2, "dropout": 0.5},
    {"num_layers": 3, "dropout": 0.2, "batch_first": True},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_masks_are_those_of_the_unrolled_network(options: dict[str, Any], tmp_path: Path) -> None:
    model, x = lstm(**options), data(options.get("batch_first", False))
    unrolled = Unrolled(lstm(**options))
    torch.manual_seed(2)
    expected = unrolled(x)
    loss(expected).backward()

    def run() -> None:
        torch.manual_seed(2)
        y, _ = model(x)
        torch.testing.assert_close(y, expected)
        loss(y).backward()

    step = observed(model, tmp_path, run)
    check(step, unrolled)
    assert whole(step)
    assert not step.mask("LSTM.weight_hh_l0", "wgrad", "grad_out").all()
    if options.get("bias") is False:
        assert 0 < (unrolled.acts["LSTM.weight_hh_l0"] != 0).sum() < T * (N - 1) * H


def test_first_samples_alone(tmp_path: Path) -> None:
    model, x, unrolled = lstm(bidirectional=True), data(), Unrolled(lstm(bidirectional=True))
    loss(unrolled(x)).backward()
    step = observed(model, tmp_path, lambda: loss(model(x)[0]).backward(), images=2)
    check(step, unrolled, samples=2)


@pytest.mark.parametrize("last", [0, 1])
def test_states_that_are_given_and_those_that_are_returned(tmp_path: Path, last: int) -> None:
    """A gradient may come by h or by c of the last step alone, and go on to the first ones."""
    model, x, unrolled = lstm(), data()[:2], Unrolled(lstm())
    h, c = torch.randn(2, 1, N, H).relu().requires_grad_()
    y = unrolled(x, (h, c))
    kept = torch.arange(N)[:, None] < 2  # another sample gets no gradient
    (y[-1] * kept).sum().backward()

    def run() -> None:
        given = tuple(each.detach().requires_grad_() for each in (h, c))
        _, states = model(x, given)
        (states[last] * kept).sum().backward()

    step = observed(model, tmp_path, run)
    assert whole(step)
    gates = steps_of(step.mask("LSTM.weight_hh_l0", "dgrad", "grad_out"))
    expected = torch.stack(unrolled.grads["LSTM.weight_hh_l0"]).numpy() != 0
    expected[-1, :, 3 * H :] &= last == 0  # c of the last step has passed no output gate
    np.testing.assert_array_equal(gates, expected)


def ops_of(step: Step) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for layer, op in step.ops():
        found.setdefault(layer.name.rpartition("weight_")[2], set()).add(op)
    return found


def test_only_what_autograd_runs_is_recorded(tmp_path: Path) -> None:
    """Between the steps gradients pass by w_hh, whatever they are computed for."""
    x = data().requires_grad_()
    cases: list[tuple[Callable[[nn.LSTM], Any], str, str]] = [
        (lambda model: torch.autograd.grad(model(x)[0].sum(), x), "dgrad", "dgrad"),
        (
            lambda model: torch.autograd.grad(model(x)[0].sum(), model.weight_ih_l0),
            "wgrad",
            "dgrad",
        ),
        (lambda model: model(x[:1].detach())[0].sum().backward(), "wgrad", "wgrad"),
    ]
    for i, (run, of_inputs, of_states) in enumerate(cases):
        model = lstm()
        step = observed(model, tmp_path / str(i), partial(run, model))
        expected = {"ih_l0": {"fprop", of_inputs}, "hh_l0": {"fprop", of_states}}
        assert ops_of(step) == expected
        assert whole(step)


def test_weights_that_are_pruned_while_they_are_trained(tmp_path: Path) -> None:
    model, x = nn.LSTM(C, H), data()
    prune.random_unstructured(model, "weight_hh_l0", 0.5)
    step = observed(model, tmp_path, lambda: loss(model(x)[0]).backward())
    (name,) = (layer.name for layer in step.layers if "weight_hh_l0" in layer.name)
    kept = model.weight_hh_l0_mask.numpy() != 0
    np.testing.assert_array_equal(step.mask(name, "fprop", "weight").reshape(kept.shape), kept)
    assert whole(step)


def test_values_of_another_type(tmp_path: Path) -> None:
    model, x = lstm().bfloat16(), data().bfloat16()
    step = observed(model, tmp_path, lambda: loss(model(x)[0]).backward())
    assert {record.dtype for record in step.records} == {"bfloat16"}
    assert whole(step)


def test_training_stays_equal_to_the_bit(tmp_path: Path) -> None:
    def train(model: nn.LSTM, step: Callable[[], Any]) -> list[Any]:
        calls: list[Tensor] = []
        model.weight_hh_l0.register_hook(lambda d: calls.append(d.clone()))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(3)
        for _ in range(3):
            y, _ = model(data())
            y.register_hook(lambda d: calls.append(d.clone()))
            y.square().sum().backward()
            optimizer.step()
            step()
        return [*calls, *model.parameters(), torch.get_rng_state(), model.weight_hh_l0.grad]

    options = {"bidirectional": True, "num_layers": 2, "dropout": 0.5}
    plain, model = lstm(**options), lstm(**options)
    with Observer(model, tmp_path, steps=(0, 2)) as observer:
        seen = train(model, observer.step)
    pairs = zip(seen, train(plain, lambda: None), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_no_mode_of_the_users_sees_what_is_computed_aside(tmp_path: Path) -> None:
    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            names.append(func._overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    def run() -> None:
        with Seen():
            loss(model(data())[0]).backward()

    names: list[str] = []
    model = lstm()
    observed(model, tmp_path, run)
    assert not {"sigmoid", "tanh", "mm", "matmul"} & set(names)
    assert "mkldnn_rnn_layer_backward" in names


def test_saved_tensors_that_the_user_packs_are_read_as_they_come_back(tmp_path: Path) -> None:
    model, x = lstm(), data()

    def run() -> None:
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: torch.where(tensor > 0.1, tensor, 0), lambda tensor: tensor
        ):
            y = model(x)[0].square().sum()
        y.backward()

    step = observed(model, tmp_path, run)
    read = steps_of(step.mask("LSTM.weight_ih_l0", "wgrad", "act"))
    np.testing.assert_array_equal(read, x.numpy() > 0.1)
    weight = model.weight_hh_l0.detach().numpy()
    seen = step.mask("LSTM.weight_hh_l0", "dgrad", "weight").reshape(weight.shape)
    np.testing.assert_array_equal(seen, weight > 0.1)


def test_gradients_that_are_differentiated_again_are_named(tmp_path: Path) -> None:
    """Torch takes the kernel's backward pass apart for that."""
    model, x = lstm(), data().requires_grad_()

    def run() -> None:
        (dx,) = torch.autograd.grad(model(x)[0].sum(), x, create_graph=True)
        dx.square().sum().backward()

    step = observed(model, tmp_path, run)
    assert step.coverage is not None
    named = {each.what: each.backward for each in step.coverage.not_held}
    assert named["a recurrence in one kernel"] > 0
    assert ops_of(step)["ih_l0"] >= {"fprop"}


class Model(nn.Module):
    """A recurrence as people write it: a module, and a head on what it gives."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(H, 2)

    def forward(self, x: Any) -> Tensor:
        y, _ = self.inner(x)
        return self.head(y.data if isinstance(y, rnn.PackedSequence) else y)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("packed", [False, True])
def test_every_recurrent_layer_is_held(kind: Any, packed: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Model(kind(C, H, num_layers=2, batch_first=True)), data(batch_first=True)
    given = rnn.pack_padded_sequence(x, [6, 3, 2], batch_first=True) if packed else x
    step = observed(model, tmp_path, lambda: model(given).square().sum().backward())
    assert whole(step)
    assert {name.partition("@")[0] for name in ops_of(step)} >= {"ih_l0", "hh_l0", "hh_l1", "head"}


def test_a_recurrence_of_300_steps_whose_cell_is_called_from_outside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Three hundred forward passes of a part of the model are one of a step."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"cell": nn.LSTMCell(C, H), "head": nn.Linear(H, 2)})
    x = torch.randn(2, 300, C)

    def run() -> None:
        h = c = torch.zeros(2, H)
        for t in range(300):
            h, c = model["cell"](x[:, t], (h, c))
        model["head"](h).sum().backward()

    with caplog.at_level(logging.WARNING):
        step = observed(model, tmp_path, run)
    assert not caplog.records
    assert {"cell.weight_ih@300", "cell.weight_hh@300"} <= {layer.name for layer in step.layers}
    assert whole(step)
