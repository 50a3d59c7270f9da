"""Odd models, an observer's trace beside a dense tracer's; policies; runs that are restarted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from swatsim.errors import RecordingError  # noqa: E402
from swatsim.policies import POLICIES, SET, SNFS, Dense, Periodic, Phased, RigL, SwatM, SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402
from tests.tracer.test_observer import inputs, state_of  # noqa: E402


class ViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0, batch_first=True)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.token.expand(len(x), -1, -1), self.patch(x).flatten(2).mT], 1)
        return self.head(self.norm(self.block(y))[:, 0])


class Windows(nn.Module):
    """As Swin does: each window is a sample of its attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.project = nn.Linear(3, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.other = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x.permute(0, 2, 3, 1)).view(-1, 2, 3, 2, 3, 8)
        y = y.transpose(2, 3).reshape(-1, 9, 8)
        q, k, v = self.qkv(y).chunk(3, -1)
        y = y + self.project(functional.scaled_dot_product_attention(q, k, v))
        return (y + self.other(y, y, y)[0]).view(len(x), -1)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, 1)
        self.up, self.leave = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.enter(x))
        return self.leave(torch.cat([y, self.up(functional.relu(self.down(y)))], 1))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.tokens, self.channels = (
            nn.Conv2d(3, 8, 2, 2),
            nn.Linear(9, 9),
            nn.Linear(8, 8),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).mT
        y = y + functional.gelu(self.tokens(y.mT)).mT
        return (y + self.channels(y).relu()).mean(1)


class Scales(nn.Module):
    """One head for several sizes, and two passes of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 2, 3, padding=1)

    def one(self, x: Tensor) -> Tensor:
        return self.head(x).mean((2, 3)) + self.head(self.body(x).relu()).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) - self.one(x.flip(0) / 2)


class LoRA(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(108, 8).requires_grad_(False)
        self.A, self.B = nn.Linear(108, 2, bias=False), nn.Linear(2, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x.flatten(1)) + self.B(self.A(x.flatten(1)))


def mobile() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(inplace=True),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(inplace=True),
        nn.Conv2d(8, 4, 1),
    )


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(36, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.flatten(2))[0])


def trained(make: Any, x: Tensor, opened: Any = None) -> list[Tensor]:
    torch.manual_seed(24)
    model = make().to(x.dtype)
    before, losses = state_of(model), []
    it = opened(model) if opened else None
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        losses.append(model(x).square().mean())
        losses[-1].backward()
        optimizer.step()
        if it:
            it.step()
    if it:
        it.close()
    assert state_of(model) == before
    return [*losses, *model.state_dict().values()]


FORMS = ("as it is", "one sample", "channels_last", "needs a gradient")
MODELS = [ViT, Windows, UNet, Mixer, Scales, LoRA, mobile, Recurrent]


@pytest.mark.parametrize(
    ("make", "form"),
    [
        *((make, FORMS[0]) for make in MODELS),
        *((UNet, form) for form in FORMS[1:]),
        (ViT, FORMS[1]),
    ],
)
def test_observed_and_traced_alike(make: Any, form: str, tmp_path: Path) -> None:
    x = inputs(4, 3, 6, 6).double()
    x = x[:1] if form == "one sample" else x
    if form == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    x.requires_grad_(form == "needs a gradient")
    expected = trained(make, x)
    options: dict[str, Any] = {"steps": (0, 1), "images": 2 if len(x) > 1 else None}
    seen = trained(make, x, lambda model: Observer(model, tmp_path / "a", **options))
    assert all(map(torch.equal, seen, expected))
    run = trained(make, x, lambda model: Tracer(model, Dense(), tmp_path / "b", **options))
    torch.testing.assert_close(run, expected)
    traces = [open_trace(tmp_path / name) for name in "ab"]
    assert traces[0].layers == traces[1].layers
    for number in (0, 1):
        steps = [trace.step(number) for trace in traces]
        assert {r.key for r in steps[0].records} == {r.key for r in steps[1].records}
        for record in steps[0].records:
            masks = [step.mask(*record.key) for step in steps]
            np.testing.assert_array_equal(*masks, err_msg=str(record.key))


def test_what_has_no_layers_in_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Tracer(Recurrent(), SwatU(0.5), tmp_path, steps=()) as tracer:
        tracer._model(inputs(2, 3, 6, 6))
    assert "left: 'rnn' dense (its kernel multiplies all at once)" in caplog.messages


@pytest.mark.parametrize("kind", ["tracer", "observer"])
def test_small_and_empty_batches_are_trained_on(kind: str, tmp_path: Path) -> None:
    model = UNet()
    options: dict[str, Any] = {"steps": range(9), "images": 2}
    it: Any = Observer(model, tmp_path, **options)
    if kind == "tracer":
        it.close()
        it = Tracer(model, SwatU(0.5), tmp_path, **options)
    with it:
        for batch in (0, 4, 1, 3):
            model(inputs(batch, 3, 6, 6)).sum().backward()
            it.step()
    trace = open_trace(tmp_path)
    steps = [trace.step(number) for number in trace.steps]
    assert [(step.number, step.batch_size) for step in steps] == [(1, 4), (2, 1), (3, 3)]
    assert [step.samples_of(step.layers[0].name) for step in steps] == [2, 1, 2]


def test_two_models_that_play_against_each_other(tmp_path: Path) -> None:
    torch.manual_seed(25)
    maker = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6))
    judge = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    both = nn.ModuleDict({"maker": maker, "judge": judge})
    with Tracer(both, SwatU(0.5), tmp_path, steps=(1,)) as tracer:
        for _ in range(2):
            made = maker(inputs(5, 4))
            (judge(inputs(5, 6)).mean() - judge(made.detach()).mean()).backward()
            judge(made).mean().backward()
            tracer.step()
    ops: dict[str, list[str]] = {}
    for layer, op in open_trace(tmp_path).step(1).ops():
        ops.setdefault(layer.name, []).append(op)
    three = ["fprop", "dgrad", "wgrad"]
    assert ops == {
        "maker.0": ["fprop", "wgrad"],
        "maker.2": three,
        "judge.0": ["fprop", "wgrad"],
        "judge.2": three,
        "judge.0@2": ["fprop", "wgrad"],
        "judge.2@2": three,
        "judge.0@3": three,
        "judge.2@3": three,
    }


def small() -> nn.Module:
    flat = (nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(2))
    block = nn.TransformerEncoderLayer(16, 2, 8, dropout=0, batch_first=True)
    return nn.Sequential(*flat, block, nn.Linear(16, 4))


def steps(
    path: Path, policy: Any, numbers: range, state: dict[str, Any] | None = None
) -> tuple[list[Tensor], dict[str, Any]]:
    torch.manual_seed(26)
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    options: dict[str, Any] = {"steps": range(9), "append": True, "start": numbers.start}
    with Tracer(model, policy, path, **options) as tracer:
        if state is not None:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            tracer.load_state_dict(state["tracer"])
        for number in numbers:
            x = torch.randn(4, 4, 6, 6, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            tracer.step()
        states = {"model": model, "optimizer": optimizer, "tracer": tracer}
        return list(model.parameters()), {key: it.state_dict() for key, it in states.items()}


@pytest.mark.parametrize(
    "make",
    [
        lambda: RigL(0.5, every=2),
        lambda: SET(0.5, every=2),
        lambda: SNFS(0.5, every=2),
        lambda: Periodic(SwatU(0.5), every=4),
        lambda: POLICIES["transposable"].of_sparsity(0.5),
        lambda: Phased([(0, Dense()), (2, RigL(0.5, every=2)), (4, SwatU(0.5))]),
    ],
)
def test_a_run_that_is_restarted_is_the_same_to_the_bit(make: Any, tmp_path: Path) -> None:
    whole, _ = steps(tmp_path / "a", make(), range(6))
    _, state = steps(tmp_path / "b", make(), range(3))
    torch.save(state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    parts, _ = steps(tmp_path / "b", make(), range(3, 6), state)
    assert all(map(torch.equal, whole, parts))
    traces = [open_trace(tmp_path / name) for name in "ab"]
    assert traces[0].steps == traces[1].steps == tuple(range(6))
    for number in range(6):
        first, second = (trace.step(number) for trace in traces)
        for record in first.records:
            np.testing.assert_array_equal(first.mask(*record.key), second.mask(*record.key))


def weights_obey(name: str, mask: np.ndarray, layer: Any) -> bool:
    """Whether a mask of weights, (K, C/groups, R, S) or (K, C), is one of a policy of 0.5."""
    if name in ("sr-ste", "transposable", "bdwp", "slope", "vnm"):  # vnm: 64:2:4
        groups = mask.swapaxes(1, -1).reshape(-1, 4)
        return bool((groups.sum(1) == 2).all())
    if name == "swat-structured":
        rows = mask.reshape(len(mask), -1)
        channels = mask.swapaxes(0, 1).reshape(mask.shape[1], -1)
        kernels = mask.reshape(*mask.shape[:2], -1)
        return any(bool((it.all(-1) | ~it.any(-1)).all()) for it in (rows, channels, kernels))
    if name in ("swat-u", "swat-m", "top-kast"):
        return int(mask.sum()) == -(-mask.size // 2)
    return True


@pytest.mark.parametrize("name", POLICIES)
def test_policies(name: str, tmp_path: Path) -> None:
    steps(tmp_path, POLICIES[name].of_sparsity(0.5), range(3))
    trace = open_trace(tmp_path)
    layers = [layer for layer in trace.layers if not layer.multiplies_activations]
    assert (len(layers), len(trace.layers)) == (9, 11)
    for number in trace.steps:
        step = trace.step(number)
        assert sum(not record.is_output for record in step.check()) == 52 + 12
        for layer in layers[1:]:
            mask = step.mask(layer.name, "fprop", "weight")
            assert weights_obey(name, mask, layer), layer.name
            if name in ("rigl", "set", "snfs", "static-random"):
                np.testing.assert_array_equal(mask, step.mask(layer.name, "dgrad", "weight"))
            if name == "transposable":
                assert weights_obey(name, mask.swapaxes(0, 1), layer)
            if name == "bdwp":
                second = step.mask(layer.name, "dgrad", "weight")
                assert weights_obey(name, second.swapaxes(0, 1), layer)
            if name == "slope":
                second = step.mask(layer.name, "dgrad", "weight")
                assert not (second & ~mask).any()
                assert 0.3 < second.mean() < 0.45
    if name in ("rigl", "set", "snfs", "static-random"):
        total = sum(trace.step(2).record(it.name, "fprop", "weight").ones for it in layers)
        assert total / sum(layer.weights for layer in layers) == pytest.approx(0.5, abs=0.02)


def test_a_shared_weight_that_becomes_sparse_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    model[1].weight = model[0].weight
    with Tracer(model, RigL(0.5), tmp_path / "a", steps=()):
        assert "layer '1' shares its weight with 0.weight, which becomes sparse" in caplog.text
    caplog.clear()
    for policy in (SwatU(0.5), SwatM(0.5, every=1)):
        with Tracer(model, policy, tmp_path / "b", steps=()) as tracer:
            model(torch.arange(7)).sum().backward()
            tracer.step()
    assert "shares" not in caplog.text


def test_layers_that_share_a_weight_may_under_a_policy_that_keeps_no_masks(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    with pytest.raises(RecordingError, match="share a weight, and RigL keeps a mask"):
        Tracer(model, RigL(0.5), tmp_path, steps=())
    with Tracer(model, SwatM(0.5, every=1), tmp_path, steps=(0, 2)) as tracer:
        for _ in range(3):
            model(torch.randn(5, 4)).sum().backward()
            tracer.step()
    assert open_trace(tmp_path).steps == (0, 2)
