"""Which weight gradients a method wants: the output masks of wgrad, recorded and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swatsim.policies import (
    SET,
    SNFS,
    ByScore,
    Periodic,
    Policy,
    RigL,
    Slope,
    SRigL,
    SrSte,
    StaticRandom,
    SwatM,
    SwatU,
    TopKast,
    View,
    allocate_once,
    site_densities,
)
from swatsim.tracefile import open_trace
from swatsim.tracefile.recorded import Step
from swatsim.tracer.synthetic import synthesize
from swatsim.workload.flops import macs_dense, macs_effectual, macs_expected, training_macs
from swatsim.workload.layer import Layer

STEPS = 4
LAYERS = (
    Layer(name="0", C=3, K=4, R=3, S=3, H=4, W=4),
    Layer(name="2", kind="linear", C=16, K=6),
)


def size(it: View) -> Any:
    return abs(it.values)


#: n of each m weights, chosen once and kept.
KEPT = ByScore(size, 0.5, granularity="2:4", every=1000, trains="kept", name="kept")
#: Policy -> the steps in which it wants some weight gradients only.
SOME = {
    RigL(0.5, every=2): (0, 1, 3),
    SET(0.5, every=2): (0, 1, 2, 3),
    StaticRandom(0.5): (0, 1, 2, 3),
    TopKast(0.75, backward_sparsity=0.25, every=2): (0, 1, 2, 3),
    Periodic(TopKast(0.75, backward_sparsity=0.25), 2): (0, 1, 2, 3),
    KEPT: (0, 1, 2, 3),
    Slope(2, 4, first_conv_dense=False): (0, 1, 2, 3),
    SRigL(0.5, every=2): (0, 1, 3),
}
NONE = (
    SNFS(0.5, every=2),
    SwatU(0.5),
    SwatM(0.5),
    SrSte(2, 4),
    ByScore(size, 0.5),
    ByScore(lambda it: abs(it.gradient), 0.5, uses_gradient=True, trains="kept", name="own"),
)


def outputs(step: Step) -> dict[str, np.ndarray | None]:
    return {layer.name: step.output(layer.name, "wgrad") for layer in LAYERS}


def recorded(policy: Policy, path: Path) -> list[tuple[Step, dict[str, np.ndarray]]]:
    """Train for some steps; give each, and the weight gradients that the optimizer got."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    from swatsim.tracer.pytorch import Tracer

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 6))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    got = []
    with Tracer(model, policy, path, steps=range(STEPS)) as tracer:
        for _ in range(STEPS):
            optimizer.zero_grad()
            model(torch.randn(5, 3, 4, 4)).square().mean().backward()
            found = {it.name: model.get_submodule(it.name).weight.grad.numpy() for it in LAYERS}
            got.append({name: each.copy() for name, each in found.items()})
            optimizer.step()
            tracer.step()
    trace = open_trace(path)
    return [(trace.step(number), got[number]) for number in range(STEPS)]


@pytest.mark.parametrize("policy", SOME, ids=lambda it: it.describe()["name"])
def test_recorded_where_some_are_wanted(policy: Policy, tmp_path: Path) -> None:
    for number, (step, gradients) in enumerate(recorded(policy, tmp_path / "run")):
        for name, mask in outputs(step).items():
            if number not in SOME[policy]:
                assert mask is None
                continue
            assert mask is not None
            assert 0 < mask.mean() < 1
            assert not gradients[name][~mask].any()  # nobody got one that is not wanted
            assert gradients[name][mask].any()
            read = step.mask(name, "fprop", "weight")
            assert not (read & ~mask).any()  # a weight that was grown is still zero


@pytest.mark.parametrize("policy", NONE, ids=lambda it: it.describe()["name"])
def test_recorded_where_all_are_wanted(policy: Policy, tmp_path: Path) -> None:
    for step, _ in recorded(policy, tmp_path / "run"):
        assert set(map(type, outputs(step).values())) == {type(None)}


def test_shares_of_the_sets(tmp_path: Path) -> None:
    (step, _), *_ = recorded(TopKast(0.75, backward_sparsity=0.25), tmp_path / "run")
    assert step.output("2", "wgrad").sum() == 72  # of 96, in the larger set
    assert step.mask("2", "fprop", "weight").sum() == 24
    (step, _), *_ = recorded(StaticRandom(0.5), tmp_path / "static")
    kept = {layer.name: step.mask(layer.name, "fprop", "weight") for layer in LAYERS}
    assert all((kept[name] == mask).all() for name, mask in outputs(step).items())


def test_effectual_macs_of_a_run(tmp_path: Path) -> None:
    for step, _ in recorded(RigL(0.5, every=2), tmp_path / "run"):
        act, grad = step.mask("2", "wgrad", "act"), step.mask("2", "wgrad", "grad_out")
        wanted = step.output("2", "wgrad")
        wanted = np.ones((6, 16), bool) if wanted is None else wanted
        by_hand = np.einsum("nk,nc,kc->", grad.astype(int), act.astype(int), wanted.astype(int))
        assert macs_effectual(step.op(LAYERS[1], "wgrad")) == by_hand


def test_a_layer_that_is_left_alone_has_none(tmp_path: Path) -> None:
    policy = StaticRandom(0.5, first_conv_dense=True, allocation="uniform")
    for step, _ in recorded(policy, tmp_path / "run"):
        assert outputs(step)["0"] is None
        assert outputs(step)["2"] is not None


@pytest.mark.parametrize("policy", [*SOME, *NONE], ids=lambda it: it.describe()["name"])
def test_drawn_ones_are_of_the_same_steps(policy: Policy, tmp_path: Path) -> None:
    trace = synthesize(LAYERS, tmp_path / "drawn", policy=policy, batch=5, seed=0, steps=STEPS)
    for number in range(STEPS):
        for name, mask in outputs(trace.step(number)).items():
            some = number in SOME.get(policy, ())
            assert (mask is not None) == some
            if mask is not None:
                assert not (trace.step(number).mask(name, "fprop", "weight") & ~mask).any()


def test_a_product_of_activations_has_none_drawn(tmp_path: Path) -> None:
    scores = Layer(name="scores", kind="matmul", C=8, K=10, H=5, groups=2)
    layers = (*LAYERS, scores)
    trace = synthesize(layers, tmp_path / "drawn", policy=RigL(0.5), batch=2, seed=0)
    assert trace.step(0).output("scores", "wgrad") is None
    assert trace.step(0).mask("scores", "fprop", "weight").all()


class Own:
    """A user's policy: keeps half, and looks at no other gradient in even steps."""

    def density(self, site: Any) -> float | None:
        return 0.5 if site.operand == "weight" else None

    def wanted(self, site: Any) -> float | None:
        assert (site.op, site.operand) == ("wgrad", "weight")
        return None if site.step % 2 else 0.5

    def describe(self) -> dict[str, Any]:
        return {"name": "own"}


def test_a_policy_of_a_users_own(tmp_path: Path) -> None:
    trace = synthesize(LAYERS, tmp_path / "drawn", policy=Own(), batch=2, seed=0, steps=2)
    wanted = outputs(trace.step(0))
    for name, mask in wanted.items():
        assert (mask == trace.step(0).mask(name, "fprop", "weight")).all()
    assert set(outputs(trace.step(1)).values()) == {None}


def test_flops_under_both_conventions() -> None:
    policy = allocate_once(RigL(0.75, every=10, allocation="uniform"), LAYERS)
    plain, update = (site_densities(policy, LAYERS, step) for step in (9, 10))
    layer = LAYERS[1]
    assert plain["2", "wgrad", "weight"] == plain["2", "fprop", "weight"] == 0.25
    assert ("2", "wgrad", "weight") not in update
    dense = macs_dense(layer, 1)
    assert macs_expected(layer, 1, "wgrad", plain, "exact") == dense / 4
    assert macs_expected(layer, 1, "wgrad", plain, "swat") == dense
    assert macs_expected(layer, 1, "wgrad", update, "exact") == dense
    # RigL's own count (arXiv:1911.11134, appendix H): 3 f_S between updates, 2 f_S + f_D in them
    each = [macs_dense(one, 1) for one in LAYERS]
    first = each[0] / 4  # no dgrad
    assert training_macs(LAYERS, 1, plain) == 3 * sum(each) / 4 - first
    assert training_macs(LAYERS, 1, update) == 2 * sum(each) / 4 + sum(each) - first
    kast = site_densities(TopKast(0.75, backward_sparsity=0.25), LAYERS)
    assert macs_expected(layer, 1, "wgrad", kast) == dense * 0.75
    assert ("2", "wgrad", "weight") not in site_densities(SwatU(0.75), LAYERS)
