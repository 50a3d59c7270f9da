"""Nothing of a tracer's stops a training or outlives it, whatever else is done with the model."""

from __future__ import annotations

import copy
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

from swatsim.errors import PolicyError, RecordingError  # noqa: E402
from swatsim.policies import Dense, Phased, RigL, Site, SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Observer, Tracer  # noqa: E402
from tests.tracer.test_pytorch import ALL  # noqa: E402


def layers(path: Path) -> list[str]:
    return [layer.name for layer in open_trace(path).layers]


@pytest.mark.parametrize("after", [nn.ReLU(inplace=True), lambda y: y.add_(1), lambda y: y.mul_(2)])
@pytest.mark.parametrize("x", [torch.ones(4, 5, 8), torch.ones(4, 8, 5).mT, torch.ones(8)])
def test_an_output_may_be_changed_in_place(after: Any, x: Tensor, tmp_path: Path) -> None:
    model = nn.Linear(8, 16)
    with Tracer(model, ALL, tmp_path, steps=()):
        after(model(x)).sum().backward()
    assert model.weight.grad is not None


def test_whoever_wraps_a_forward_meanwhile_gets_a_dense_model_back(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8)), torch.randn(4, 8)
    tracer = Tracer(model, ALL, tmp_path, steps=())
    inner = model[0].forward
    model[0].forward = lambda *given: inner(*given)  # as accelerate does
    dense = functional.linear(x, model[0].weight, model[0].bias)
    assert not torch.equal(model(x), dense)
    tracer.close()
    assert torch.equal(model(x), dense)
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        model(x).sum().backward()
        tracer.step()
    assert layers(tmp_path) == ["0"]


def test_no_storage_is_held(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), torch.randn(4, 8)
    with Tracer(model, RigL(0.5, every=1), tmp_path, steps=(0, 2)) as tracer:
        for _ in range(3):
            model(x).sum().backward()
            tracer.step()
    assert x.untyped_storage().resizable()
    assert all(parameter.untyped_storage().resizable() for parameter in model.parameters())


@pytest.mark.parametrize(
    "policy", [ALL, Phased([(0, Dense()), (1, ALL)]), RigL(0.5, allocation="uniform")]
)
def test_weights_that_are_replaced_by_smaller_ones(policy: Any, tmp_path: Path) -> None:
    """As pruning of whole channels does, and who puts another head on."""
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    with Tracer(model, policy, tmp_path, steps=()) as tracer:
        for step in range(3):
            if step == 1:
                model[0].weight = nn.Parameter(model[0].weight[:4].detach())
                model[0].bias = nn.Parameter(model[0].bias[:4].detach())
                model[2] = nn.Linear(4, 3)
            x = torch.randn(5, 8)
            y = model(x)
            dense = model[2].forward(model[1](model[0].forward(x)))
            masks_nothing = isinstance(policy, RigL) or (isinstance(policy, Phased) and not step)
            assert masks_nothing or not torch.equal(y, dense)
            y.sum().backward()
            tracer.step()
        assert not tracer._left_alone()
        if isinstance(policy, RigL):
            assert 0 < int(model[2].weight.count_nonzero()) < 12


def test_two_threads(tmp_path: Path) -> None:
    x = torch.randn(6, 8)
    models = [nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)) for _ in range(2)]
    alone, together = [], []
    for found, parallel in ((alone, False), (together, True)):
        twins = copy.deepcopy(models)
        tracers = [
            Tracer(twin, ALL, tmp_path / f"{parallel}{i}", steps=range(5))
            for i, twin in enumerate(twins)
        ]

        def train(twin: nn.Module, tracer: Tracer) -> None:
            for _ in range(5):
                twin(x).square().sum().backward()
                tracer.step()

        threads = [
            threading.Thread(target=train, args=pair) for pair in zip(twins, tracers, strict=True)
        ]
        for thread in threads:
            thread.start()
            if not parallel:
                thread.join()
        for thread in threads:
            thread.join()
        for tracer in tracers:
            tracer.close()
        found += [parameter.grad for twin in twins for parameter in twin.parameters()]
    assert torch._C._len_torch_dispatch_stack() == 0  # steps begin in one thread, end in another
    assert all(map(torch.equal, alone, together))
    first, second = (open_trace(tmp_path / f"{name}0") for name in (False, True))
    assert first.id == second.id


def test_what_skip_takes(tmp_path: Path) -> None:
    block = nn.ModuleDict({"attn": nn.Sequential(nn.Linear(4, 4)), "mlp": nn.Linear(4, 4)})
    model = nn.ModuleDict(
        {"blocks": nn.ModuleList([block, copy.deepcopy(block)]), "fc": nn.Linear(4, 2)}
    )

    def forward(x: Tensor) -> Tensor:
        for each in model.blocks:
            x = each["mlp"](each["attn"](x))
        return model["fc"](x)

    model.forward = forward  # type: ignore[method-assign]
    for i, (skip, left) in enumerate(
        (
            (("blocks",), ["fc"]),
            (("blocks.*.attn", "fc"), ["blocks.0.mlp", "blocks.1.mlp"]),
            (("blocks.1.*",), ["blocks.0.attn.0", "blocks.0.mlp", "fc"]),
            (("fc.weight", "blocks.0"), ["blocks.1.attn.0", "blocks.1.mlp"]),
        )
    ):
        for kind in (Tracer, Observer):
            path = tmp_path / f"{kind.__name__}{i}"
            given: Any = (model, ALL, path) if kind is Tracer else (model, path)
            with kind(*given, steps=(0,), skip=skip) as it:
                model(torch.randn(3, 4)).sum().backward()
                it.step()
            assert layers(path) == left
    own = nn.Linear(4, 2)  # named as in named_parameters(), or as in a trace
    for name in ("weight", "Linear.weight"):
        with Observer(own, tmp_path / name, steps=(0,), skip=(name,)) as it:
            own(torch.randn(3, 4)).sum().backward()
            it.step()
        assert not list((tmp_path / name).glob("steps/*"))
    with pytest.raises(RecordingError, match=r"unknown module to skip 'blocks.\*.atn'"):
        Tracer(model, ALL, tmp_path, steps=(), skip=("blocks.*.atn",))


def test_an_error_in_recording_ends_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*given: Any) -> None:
        raise ZeroDivisionError("in the middle")

    model = nn.Linear(8, 4)
    monkeypatch.setattr("swatsim.tracer.pytorch.layout.Layout.nonzero", fails)
    with Tracer(model, ALL, tmp_path, steps=range(3)) as tracer:
        for _ in range(3):
            model(torch.randn(2, 8)).sum().backward()
            tracer.step()
    assert "ZeroDivisionError: in the middle" in str(tracer.error)
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1


def test_what_a_policy_raises_is_the_users(tmp_path: Path) -> None:
    class Wrong:
        def density(self, site: Site) -> float:
            return {}["missing"] if site.operand == self.where else 0.5

        def describe(self) -> dict[str, Any]:
            return {"name": "wrong"}

    model = nn.Linear(8, 4)
    for where in ("weight", "grad_out"):
        Wrong.where = where  # type: ignore[attr-defined]
        with (
            Tracer(model, Wrong(), tmp_path / where, steps=()),
            pytest.raises(KeyError, match="missing"),
        ):
            model(torch.randn(2, 8)).sum().backward()


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "prune"])
def test_a_mask_that_is_kept_needs_a_weight_that_is(kind: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
    if kind == "prune":
        prune.identity(model[0], "weight")
    else:
        getattr(parametrizations, kind)(model[0])
    with pytest.raises(PolicyError, match=r"layer '0': the weight is computed anew.*skip=\('0',\)"):
        Tracer(model, RigL(0.5), tmp_path, steps=())
    with Tracer(model, SwatU(0.5), tmp_path, steps=(0,)) as tracer:
        model(torch.randn(2, 8)).sum().backward()
        tracer.step()
        assert not tracer._left_alone()
    assert [name for name in layers(tmp_path) if " x " not in name] == ["0", "1"]


def test_only_the_gradients_that_are_asked_for(tmp_path: Path) -> None:
    model, x = (
        nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)),
        torch.randn(2, 8, requires_grad=True),
    )
    with Tracer(model, ALL, tmp_path, steps=(0,)) as tracer:
        torch.autograd.grad(model(x).sum(), x)
        tracer.step()
    ops = {op for _, op in open_trace(tmp_path).step(0).ops()}
    assert ops == {"fprop", "dgrad"}


def test_an_interrupt_leaves_no_mode(tmp_path: Path) -> None:
    class Stops(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyboardInterrupt

    model, x = nn.Sequential(nn.Linear(4, 4), Stops()), torch.randn(2, 4)
    with Tracer(model, ALL, tmp_path, steps=()) as tracer:
        with pytest.raises(KeyboardInterrupt):
            model(x)
        tracer.step()
        assert not torch.overrides._get_current_function_mode_stack()
        with torch.device("cpu"):
            model[0](x)
        assert not torch.overrides._get_current_function_mode_stack()


def test_a_model_that_is_compiled_while_it_is_open(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 4)
    for name in "ab":
        with Tracer(model, ALL, tmp_path / name, steps=(1,)) as tracer:
            compiled = torch.compile(model, backend="eager")
            for _ in range(2):
                assert torch.equal(compiled(x), model(x))
                compiled(x).sum().backward()
                tracer.step()
        assert layers(tmp_path / name)[:2] == ["0", "2"]
    torch.testing.assert_close(compiled(x), model(x))
