"""Every kind of layer that a tracer runs, against loops; and what is recorded of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from swatsim.errors import RecordingError  # noqa: E402
from swatsim.policies import Dense, RigL, SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402
from tests.tracer.test_pytorch import ALL, keep, loops, numpy  # noqa: E402


def spread(
    x: np.ndarray, w: np.ndarray, dy: np.ndarray, stride: Any, pad: Any, dil: Any, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A transposed convolution's y (of x, w), dx (of w, dy) and dw (of x, dy), by products."""
    y, dx, dw = np.zeros_like(dy), np.zeros_like(x), np.zeros_like(w)
    C, K, R, S = w.shape
    _, _, H, W = x.shape
    for c, k, r, s, h, v in np.ndindex(C, K, R, S, H, W):
        p, q = h * stride[0] + r * dil[0] - pad[0], v * stride[1] + s * dil[1] - pad[1]
        if 0 <= p < dy.shape[2] and 0 <= q < dy.shape[3]:
            channel = c // (C // groups) * K + k
            y[:, channel, p, q] += w[c, k, r, s] * x[:, c, h, v]
            dx[:, c, h, v] += w[c, k, r, s] * dy[:, channel, p, q]
            dw[c, k, r, s] += x[:, c, h, v] @ dy[:, channel, p, q]
    return y, dx, dw


def flat(value: Any, default: int) -> tuple[int, int]:
    """An argument of a module of one dimension or two, as a pair."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    return pair if len(pair) == 2 else (default, *pair)


def close(got: Tensor | None, expected: np.ndarray) -> None:
    np.testing.assert_allclose(numpy(got), expected, rtol=1e-12, atol=1e-12)


CONVOLUTIONS: list[tuple[Any, dict[str, Any], Any]] = [
    (nn.Conv1d, {"kernel_size": 3}, None),
    (nn.Conv1d, {"kernel_size": 4, "stride": 3, "padding": 2, "bias": False}, None),
    (nn.Conv1d, {"kernel_size": 3, "padding": 2, "dilation": 2, "groups": 2}, None),
    (nn.Conv1d, {"kernel_size": 3, "padding": "same", "dilation": 2}, None),
    (nn.Conv1d, {"kernel_size": 4, "padding": "same", "groups": 4}, None),
    (nn.Conv2d, {"kernel_size": (3, 2), "groups": 2, "dilation": (1, 2), "padding": (2, 1)}, None),
    (nn.ConvTranspose1d, {"kernel_size": 4, "stride": 2, "padding": 1}, None),
    (nn.ConvTranspose1d, {"kernel_size": 3, "stride": 3, "padding": 1, "output_padding": 1}, None),
    (nn.ConvTranspose1d, {"kernel_size": 3, "stride": 2, "padding": 1, "groups": 2}, [14]),
    (nn.ConvTranspose2d, {"kernel_size": 3}, None),
    (nn.ConvTranspose2d, {"kernel_size": 2, "stride": 2, "bias": False}, None),
    (
        nn.ConvTranspose2d,
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": (1, 0), "groups": 4},
        None,
    ),
    (nn.ConvTranspose2d, {"kernel_size": 3, "dilation": (2, 1), "padding": (2, 1)}, None),
    (nn.ConvTranspose2d, {"kernel_size": 3, "stride": 2, "padding": 1}, (14, 11)),
    (nn.ConvTranspose2d, {"kernel_size": 3, "stride": (2, 3), "padding": 2}, (3, 3, 12, 15)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("kind", "arguments", "size"), CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_what_is_needed_is_computed_and_kept(
    kind: Any, arguments: dict[str, Any], size: Any, dtype: Any, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    conv = kind(4, 8, **arguments).to(dtype)
    x = torch.randn(3, 4, *(7, 6)[: conv.weight.dim() - 2]).to(dtype).requires_grad_()
    saved: list[Tensor] = []
    with (
        Tracer(conv, SwatU(0.5, first_conv_dense=False), tmp_path, steps=()),
        torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t),
    ):
        conv(x).sum().backward()
        both, expected = len(saved), (x.grad, conv.weight.grad)
        conv.weight.grad = None
        conv(x.detach()).sum().backward()
        x.grad, dw = None, conv.weight.grad
        conv.weight.requires_grad_(False)
        conv(x).sum().backward()
    torch.testing.assert_close((x.grad, dw), expected)
    assert (both, len(saved)) == (2, 4)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("kind", "arguments", "size"), CONVOLUTIONS, ids=str)
def test_convolutions(kind: Any, arguments: dict[str, Any], size: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    conv = kind(4, 8, **arguments).double()
    axes = conv.weight.dim() - 2
    x = torch.randn(3, 4, *(7, 6)[:axes], dtype=torch.double).relu().requires_grad_()
    if size is not None and len(size) == axes + 2:
        size = (3, 8, *size[2:])
    dense = conv(x) if size is None else conv(x, size)
    with Tracer(conv, ALL, tmp_path, steps=(0,), images=2) as tracer:
        y = conv(x) if size is None else conv(x, output_size=size)
        dy = torch.randn_like(y)
        y.backward(dy)
        tracer.step()
    assert y.shape == dense.shape

    def planes(values: np.ndarray) -> np.ndarray:
        return values if values.ndim == 4 else values[:, :, None]

    X, W, DY = planes(numpy(x)), planes(numpy(conv.weight)), planes(numpy(dy))
    span = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    padding = [s // 2 for s in span] if conv.padding == "same" else conv.padding
    how = (flat(conv.stride, 1), flat(padding, 0), flat(conv.dilation, 1), conv.groups)
    three = spread if "Transpose" in kind.__name__ else loops
    output, input_gradient, _ = three(X, keep(W), DY, *how)
    _, _, weight_gradient = three(keep(X), W, DY, *how)
    if conv.bias is not None:
        output += numpy(conv.bias)[:, None, None]
        close(conv.bias.grad, DY.sum((0, 2, 3)))
    close(y, output.reshape(y.shape))
    close(x.grad, input_gradient.reshape(x.shape))
    close(conv.weight.grad, weight_gradient.reshape(conv.weight.shape))

    step = open_trace(tmp_path).step(0)
    expected = {
        ("fprop", "weight"): keep(W) != 0,
        ("dgrad", "weight"): keep(W) != 0,
        ("fprop", "act"): X[:2] != 0,
        ("wgrad", "act"): keep(X)[:2] != 0,
        ("dgrad", "grad_out"): DY[:2] != 0,
        ("wgrad", "grad_out"): DY[:2] != 0,
    }
    (layer,) = open_trace(tmp_path).layers
    assert len(step.records) == len(list(step.check())) == 6
    for (op, operand), mask in expected.items():
        np.testing.assert_array_equal(step.mask(layer.name, op, operand), mask)


#: shape of the input without channels, batch_axis, permutation that puts N first, T
LINEAR = [
    ((4,), 0, (0,)),
    ((4, 3), 0, (0, 1)),
    ((3, 4), 1, (1, 0)),
    ((4, 2, 3), 0, (0, 1, 2)),
    ((2, 4, 3), 1, (1, 0, 2)),
    ((4, 1), 0, (0, 1)),
    ((1, 4), 1, (1, 0)),
]


@pytest.mark.parametrize(("lead", "axis", "order"), LINEAR, ids=str)
@pytest.mark.parametrize("contiguous", [True, False])
def test_linear_on_positions(
    lead: tuple[int, ...], axis: int, order: tuple[int, ...], contiguous: bool, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    linear = nn.Linear(6, 5).double()
    x = torch.randn(*lead, 6, dtype=torch.double).relu()
    if not contiguous:
        x = x.mT.contiguous().mT if x.dim() > 2 else x.T.contiguous().T
    x.requires_grad_()
    with Tracer(linear, ALL, tmp_path, steps=(0,), images=3, batch_axis=axis) as tracer:
        y = linear(x)
        dy = torch.randn_like(y).relu()
        y.backward(dy)
        tracer.step()
    X, W, DY = numpy(x), numpy(linear.weight), numpy(dy)
    close(y, np.einsum("...c,kc->...k", X, keep(W)) + numpy(linear.bias))
    close(x.grad, np.einsum("...k,kc->...c", DY, keep(W)))
    rows = (DY.reshape(-1, 5), keep(X).reshape(-1, 6))
    close(linear.weight.grad, np.einsum("nk,nc->kc", *rows))
    close(linear.bias.grad, DY.reshape(-1, 5).sum(0))

    def laid(values: np.ndarray) -> np.ndarray:
        first = values.transpose(*order, len(order))
        first = first.reshape(4, -1, values.shape[-1])[:3]
        return first[:, 0] if first.shape[1] == 1 else first.transpose(0, 2, 1)[..., None]

    step = open_trace(tmp_path).step(0)
    for op in ("fprop", "dgrad"):
        mask = step.mask("Linear", op, "weight")
        np.testing.assert_array_equal(mask.reshape(5, 6), keep(W) != 0)
    np.testing.assert_array_equal(step.mask("Linear", "fprop", "act"), laid(X) != 0)
    np.testing.assert_array_equal(step.mask("Linear", "wgrad", "act"), laid(keep(X)) != 0)
    for op in ("dgrad", "wgrad"):
        np.testing.assert_array_equal(step.mask("Linear", op, "grad_out"), laid(DY) != 0)


def test_linear_on_a_vector(tmp_path: Path) -> None:
    torch.manual_seed(3)
    linear = nn.Linear(6, 5).double()
    x = torch.randn(6, dtype=torch.double, requires_grad=True)
    with Tracer(linear, ALL, tmp_path, steps=(0,)) as tracer:
        y = linear(x)
        dy = torch.randn_like(y)
        y.backward(dy)
        tracer.step()
    X, W, DY = numpy(x), numpy(linear.weight), numpy(dy)
    close(y, keep(W) @ X + numpy(linear.bias))
    close(x.grad, DY @ keep(W))
    close(linear.weight.grad, np.outer(DY, keep(X)))
    close(linear.bias.grad, DY)
    step = open_trace(tmp_path).step(0)
    assert step.mask("Linear", "wgrad", "act").tolist() == [(keep(X) != 0).tolist()]


class Flattens(nn.Module):
    """A linear layer on tokens in two axes, then on the rows of all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)).reshape(-1, 4))


def test_rows_of_all_samples_are_parted_by_the_batch(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model, seen = Flattens().double(), {}
    model.second.register_forward_hook(lambda m, i, o: seen.update(x=numpy(i[0]), y=o))
    with Tracer(model, ALL, tmp_path, steps=(0,), images=2) as tracer:
        model(torch.randn(4, 5, 3, dtype=torch.double)).square().sum().backward()
        tracer.step()
    trace = open_trace(tmp_path)
    assert [(layer.name, layer.H) for layer in trace.layers] == [("first", 5), ("second", 5)]
    expected = (seen["x"].reshape(4, 5, 4)[:2] != 0).transpose(0, 2, 1)[..., None]
    np.testing.assert_array_equal(trace.step(0).mask("second", "fprop", "act"), expected)


def test_more_output_padding_than_padding_is_sparse_and_not_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(
        nn.ConvTranspose2d(2, 2, 3, stride=2, output_padding=1), nn.Conv2d(2, 2, 1)
    )
    x = torch.randn(2, 2, 4, 4)
    dense = model[0](x)
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        assert not torch.equal(model[0](x), dense)
        with pytest.raises(ValueError, match="requested an output size"):
            model[0](x, output_size=(99, 99))
        model(x).sum().backward()
        tracer.step()
    assert [layer.name for layer in open_trace(tmp_path).layers] == ["1"]
    (line,) = (each for each in caplog.messages if each.startswith("left: "))
    assert line.startswith("left: '0' out of the trace (layer '0': its output_padding (1, 1)")


def critic() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))


@pytest.mark.parametrize("kind", ["input", "weights"])
def test_gradients_of_gradients(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a gradient penalty, and of a step that is differentiated, as in meta-learning."""

    def trained(model: nn.Module) -> list[Tensor]:
        x = torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
        wanted = [x] if kind == "input" else list(model.parameters())
        found = torch.autograd.grad(model(x).square().sum(), wanted, create_graph=True)
        sum(each.square().sum() for each in found).backward()
        return [x.grad, *(parameter.grad for parameter in model.parameters())]

    expected = trained(critic())
    with Tracer(critic(), Dense(), tmp_path / "a", steps=(0,)) as tracer:
        for got, right in zip(trained(tracer._model), expected, strict=True):
            torch.testing.assert_close(got, right)
        tracer.step()
    assert "gradients of gradients take the masks as they are" in caplog.text
    with Tracer(critic(), ALL, tmp_path / "b", steps=()) as tracer:
        first, again = trained(tracer._model), []
        for parameter in tracer._model.parameters():
            parameter.grad = None
        again = trained(tracer._model)
    for got, other, right in zip(first, again, expected, strict=True):
        assert got.shape == right.shape
        assert torch.isfinite(got).all()
        if kind == "input":  # of which nothing has to be kept
            torch.testing.assert_close(got, other)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
def test_a_graph_of_gradients_that_nobody_uses(tmp_path: Path) -> None:
    model = critic()
    with Tracer(model, ALL, tmp_path, steps=()):
        model(torch.ones(3, 4)).sum().backward()
        expected, model[0].weight.grad = model[0].weight.grad, None
        model(torch.ones(3, 4)).sum().backward(create_graph=True)
    assert torch.equal(model[0].weight.grad, expected)
    model.zero_grad(set_to_none=True)


def test_what_has_no_values_to_choose_from_is_left_dense(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Transforms of torch.func, nested tensors, complex numbers; batches of gradients."""
    model, turned = nn.Linear(4, 3), nn.Linear(4, 3, dtype=torch.cfloat)
    nested = torch.nested.nested_tensor([torch.ones(2, 4)], layout=torch.jagged)

    def loss(parameters: Any) -> Tensor:
        return torch.func.functional_call(model, parameters, (torch.ones(3, 4),)).sum()

    weights = dict(model.named_parameters())
    expected = (torch.func.grad(loss)(weights), model(nested).values())
    both = nn.ModuleDict({"real": model, "complex": turned})
    with Tracer(both, ALL, tmp_path, steps=()):
        found = torch.func.grad(loss)(weights)
        torch.testing.assert_close(found, expected[0])
        torch.testing.assert_close(model(nested).values(), expected[1])
        y = turned(torch.ones(2, 4, dtype=torch.cfloat))
        y, basis = model(torch.ones(2, 4)), torch.eye(6).reshape(6, 2, 3)
        (rows,) = torch.autograd.grad(y, [model.weight], basis, is_grads_batched=True)
    assert rows.shape == (6, 3, 4)
    (line,) = (each for each in caplog.messages if each.startswith("left: "))
    assert "'complex' dense (its numbers are complex)" in line
    assert "'real' dense (" in line


def test_a_shared_weight_has_one_mask_or_none(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    with pytest.raises(RecordingError, match=r"'0' and '2' share a weight.*RigL.*skip=\('2',\)"):
        Tracer(model, RigL(0.5), tmp_path, steps=())
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        model(torch.randn(3, 6)).sum().backward()
        tracer.step()
    assert [layer.name for layer in open_trace(tmp_path).layers] == ["0", "2"]


def test_what_else_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(RecordingError, match=r"layer '0' has no shape yet: run the model once"):
        Tracer(model, ALL, tmp_path, steps=())
    model = nn.Sequential(nn.Linear(4, 3))
    for skip in ("0", 3):
        with pytest.raises(RecordingError, match=r"skip=.* must be a collection"):
            Tracer(model, ALL, tmp_path, steps=(), skip=skip)  # type: ignore[arg-type]
    for kind in (Tracer, Observer):
        arguments = (model, ALL, tmp_path) if kind is Tracer else (model, tmp_path)
        with pytest.raises(RecordingError, match="batch_axis=2 is not allowed"):
            kind(*arguments, steps=(), batch_axis=2)  # type: ignore[arg-type]
    with Tracer(model, ALL, tmp_path, steps=()):  # it is not locked
        for wrong in (None, [1, 2]):
            with pytest.raises(TypeError, match="must be Tensor"):
                model(wrong)
        with pytest.raises(RuntimeError, match="at least 1D"):
            model(torch.tensor(1.0))


def test_autocast_leaves_float64_alone(tmp_path: Path) -> None:
    model, x = critic().double(), torch.ones(3, 4, dtype=torch.double)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(x)
        with Tracer(model, SwatU(0), tmp_path, steps=()):
            y = model(x)
    torch.testing.assert_close(y, expected)


# ---- the first convolution ---------------------------------------------------------------------


class Own(nn.Conv2d):
    """A class of a user's own that computes what torch's does."""


class Standardised(nn.Conv2d):
    """A weight-standardised convolution, as timm's StdConv2d: a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std()
        return nn.functional.conv2d(input, weight, self.bias)


@pytest.mark.parametrize(
    ("stem", "skip", "dense"),
    [
        (nn.Conv2d, (), "0"),
        (Own, (), "0"),
        (Standardised, (), "0"),
        (Standardised, ("0",), "1"),  # what is skipped does not count
    ],
)
def test_a_subclass_of_a_convolution_may_be_the_first(
    stem: Any, skip: tuple[str, ...], dense: str | None, tmp_path: Path
) -> None:
    model = nn.Sequential(stem(2, 4, 2), nn.Conv2d(4, 4, 2), nn.Conv2d(4, 4, 2))
    with Tracer(model, SwatU(0.5), tmp_path, steps=(0,), skip=skip) as tracer:
        model(torch.randn(2, 2, 6, 6)).sum().backward()
        tracer.step()
    step = open_trace(tmp_path).step(0)
    layers = {record.layer for record in step.records}
    assert layers == {"0", "1", "2"} - set(skip)
    whole = {name for name in layers if step.mask(name, "fprop", "weight").all()}
    assert whole == {dense}
