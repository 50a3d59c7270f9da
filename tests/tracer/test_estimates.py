"""What a policy estimates is what an op multiplies, and what a trace has the mask of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from swatsim.policies import Mvue, Policy, Site, begin_run  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Tracer  # noqa: E402
from swatsim.workload.layer import Layer  # noqa: E402

CONV = Layer(name="0", C=3, K=4, R=3, S=3, H=4, W=4)
FC = Layer(name="2", kind="linear", C=16, K=6)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 6))


def outputs(net: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Give each layer's output, with its dense gradient."""
    first = net[0](x)
    last = net[2](first.flatten(1))
    for each in (first, last):
        each.retain_grad()
    (last**2).sum().backward()
    return first, last


def estimated(policy: Policy, layer: Layer, gradient: Tensor | None) -> Tensor:
    run, site = begin_run(policy), Site(layer, "wgrad", "grad_out", layer.name == "0")
    assert gradient is not None
    (mask,) = run.masks([site], gradient)
    read = run.estimate(site, gradient, mask)
    assert isinstance(read, Tensor)
    return read


@pytest.mark.parametrize("policy", [Mvue(1, 2), Mvue(2, 4, seed=5)], ids=str)
def test_wgrad_reads_the_estimate_and_dgrad_does_not(policy: Any, tmp_path: Path) -> None:
    x, dense, traced = torch.randn(5, 3, 4, 4), model(), model()
    first, last = outputs(dense, x)
    given = x.clone().requires_grad_()
    with Tracer(traced, policy, tmp_path, steps=range(1)) as tracer:
        (traced(given) ** 2).sum().backward()
        tracer.step()
    step = open_trace(tmp_path).step(0)
    for layer, gradient in ((CONV, first.grad), (FC, last.grad)):
        read = estimated(policy, layer, gradient)
        assert torch.is_tensor(gradient)
        masks = [step.mask(layer.name, op, "grad_out") for op in ("wgrad", "dgrad")]
        assert np.array_equal(masks[0], (read != 0).numpy())
        assert np.array_equal(masks[1], (gradient != 0).numpy())
    weights = (traced[0].weight.grad, traced[2].weight.grad)
    conv = nn.grad.conv2d_weight(x, traced[0].weight.shape, estimated(policy, CONV, first.grad))
    assert torch.allclose(weights[0], conv, atol=1e-5)
    assert torch.allclose(
        weights[1], estimated(policy, FC, last.grad).T @ first.flatten(1), atol=1e-5
    )
    assert not torch.allclose(weights[1], dense[2].weight.grad)
    for layer in (0, 2):
        assert torch.allclose(traced[layer].bias.grad, dense[layer].bias.grad, atol=1e-5)


def test_gradients_of_gradients_go_through_an_estimate(tmp_path: Path) -> None:
    net, x = model(), torch.randn(4, 3, 4, 4)
    with Tracer(net, Mvue(1, 2), tmp_path, steps=()) as tracer:
        loss = (net(x) ** 2).sum()
        grads = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
        first = [grad.detach().clone() for grad in grads]
        sum((grad**2).sum() for grad in grads).backward()
        tracer.step()
    assert all(torch.isfinite(it.grad).all() for it in net.parameters())
    again = model()
    with Tracer(again, Mvue(1, 2), tmp_path / "b", steps=()) as tracer:
        (again(x) ** 2).sum().backward()
        tracer.step()
    assert all(
        torch.allclose(a, b.grad, atol=1e-4) for a, b in zip(first, again.parameters(), strict=True)
    )


class Halved:
    """A policy of one's own: nothing is left out, and everything read at a half."""

    def density(self, site: Site) -> float | None:
        return 1.0 if site.operand == "weight" and site.op == "fprop" else None

    def describe(self) -> dict[str, Any]:
        return {"name": "halved"}

    def estimate(self, site: Site, values: Any, mask: Any) -> Any:
        return values * 0.5


def test_a_policy_of_one_s_own_may_estimate(tmp_path: Path) -> None:
    net = model()[2:]
    x = torch.randn(4, 16)
    expected = x @ (net[0].weight * 0.5).T + net[0].bias
    with Tracer(net, Halved(), tmp_path, steps=(0,)) as tracer:
        y = net(x)
        y.sum().backward()
        tracer.step()
    assert torch.allclose(y, expected, atol=1e-6)


class Wrong(Halved):
    def estimate(self, site: Site, values: Any, mask: Any) -> Any:
        raise ZeroDivisionError("mine")


def test_what_an_estimate_raises_is_the_users_to_see(tmp_path: Path) -> None:
    net = model()[2:]
    with (
        Tracer(net, Wrong(), tmp_path, steps=(0,)),
        pytest.raises(ZeroDivisionError, match="mine"),
    ):
        net(torch.randn(4, 16))
