"""Networks that other libraries made sparse: their masks stand in the trace, bit by bit.

torchao and sparselab run where they are installed (CI tries to); what torch itself ships always.
"""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from swatsim import Observer  # noqa: E402
from swatsim.errors import RecordingError  # noqa: E402
from swatsim.policies import Dense  # noqa: E402
from swatsim.tracefile import Step, open_trace  # noqa: E402
from swatsim.tracer.synthetic import synthesize  # noqa: E402
from swatsim.workload.layer import Layer  # noqa: E402

SIZES = {"0": (16, 32), "2": (32, 8)}


def library(name: str) -> Any:
    """Import a library that need not be there; what it warns of at that is its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            name, reason=f"{name.partition('.')[0]} is not installed, or not for this torch"
        )


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(*SIZES["0"]), nn.ReLU(), nn.Linear(*SIZES["2"]))


def observed(
    network: nn.Module, path: Path, each: Any = lambda: None, steps: int = 2
) -> list[Step]:
    """Train for some steps, `each` called after every one of them."""
    torch.manual_seed(1)
    x = torch.randn(4, 16)
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1)
    with Observer(network, path, steps=range(steps)) as observer:
        for _ in range(steps):
            optimizer.zero_grad()
            network(x).square().mean().backward()
            optimizer.step()
            observer.step()
            each()
    trace = open_trace(path)
    return [trace.step(number) for number in range(steps)]


def assert_masks(step: Step, masks: dict[str, Any]) -> None:
    for layer, mask in masks.items():
        assert 0 < mask.mean() < 1
        for op in ("fprop", "dgrad") if layer != "0" else ("fprop",):
            assert np.array_equal(step.mask(layer, op, "weight"), mask), (layer, op)
    assert step.coverage is not None
    assert step.coverage.share == 1
    assert step.coverage.unseen == ()


def held(network: nn.Module) -> dict[str, Any]:
    """Give the masks that a sparsifier holds."""
    found: Any = {name: network[int(name)].parametrizations.weight[0].mask for name in SIZES}
    return {name: mask.bool().numpy().copy() for name, mask in found.items()}


#: WeightNormSparsifier of torch itself, and the one that torchao goes on with.
SPARSIFIERS = {
    "torch": ("torch.ao.pruning", "WeightNormSparsifier"),
    "torchao": (
        "torchao.prototype.sparsity.sparsifier.weight_norm_sparsifier",
        "WeightNormSparsifier",
    ),
}


@pytest.mark.parametrize("whose", SPARSIFIERS)
def test_a_sparsifiers_masks_are_recorded_as_they_change(tmp_path: Path, whose: str) -> None:
    module, name = SPARSIFIERS[whose]
    kind = getattr(library(module), name)
    network = model()
    sparsifier = kind(sparsity_level=0.5, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(network, [{"tensor_fqn": f"{name}.weight"} for name in SIZES])
    sparsifier.step()
    masks = [held(network)]

    def each() -> None:
        for group in sparsifier.groups:
            group["sparsity_level"] = 0.9
        sparsifier.step()
        masks.append(held(network))

    steps = observed(network, tmp_path / "t", each)
    for step, mask in zip(steps, masks, strict=False):
        assert_masks(step, mask)
    assert not np.array_equal(masks[0]["0"], masks[1]["0"])


@pytest.mark.parametrize("whose", SPARSIFIERS)
def test_a_sparsifiers_checkpoint_has_the_same_masks(tmp_path: Path, whose: str) -> None:
    module, name = SPARSIFIERS[whose]
    kind = getattr(library(module), name)
    network = model()
    sparsifier = kind(sparsity_level=0.8, sparse_block_shape=(1, 4), zeros_per_block=3)
    sparsifier.prepare(network, [{"tensor_fqn": f"{name}.weight"} for name in SIZES])
    sparsifier.step()
    masks = held(network)
    layers = [Layer(name=name, kind="linear", C=c, K=k) for name, (c, k) in SIZES.items()]
    state = network.state_dict()
    torch.save(state, tmp_path / "before.pt")
    sparsifier.squash_mask()
    torch.save(network.state_dict(), tmp_path / "after.pt")
    for when in ("before", "after"):
        given = {"policy": Dense(), "batch": 2, "seed": 1, "masks": tmp_path / f"{when}.pt"}
        if when == "before" and not any(name.endswith("mask") for name in state):
            # torch's own keeps masks out of state dicts: what is there are the values before them
            with pytest.raises(RecordingError, match="no mask lies beside them; save the weight"):
                synthesize(layers, tmp_path / when, **given)
            continue
        step = synthesize(layers, tmp_path / when, **given).step(0)
        for layer, mask in masks.items():
            assert np.array_equal(step.mask(layer, "fprop", "weight"), mask)


def test_torchaos_fake_sparsity(tmp_path: Path) -> None:
    sparsity = library("torchao.sparsity")
    network = model()
    sparsity.apply_fake_sparsity(network)  # 2:4, and the masks are in the weights
    masks = {name: (network[int(name)].weight != 0).numpy() for name in SIZES}
    for mask in masks.values():
        assert (mask.reshape(-1, 4).sum(axis=1) == 2).all()
    first, *_ = observed(network, tmp_path / "t")
    assert_masks(first, masks)


def test_a_kernel_that_torch_does_not_see_is_named(tmp_path: Path) -> None:
    """sparselab multiplies in C++, on NumPy's arrays: no product is seen, and that is said."""
    library("sparselab")
    kind = importlib.import_module("sparselab.nn").SparseLinear
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's own, of its CSR tensors
        network = nn.Sequential(kind(16, 32, sparsity=0.75), nn.ReLU(), nn.Linear(32, 8))
    step, *_ = observed(network, tmp_path / "t")
    assert {record.layer for record in step.records} == {"2"}
    assert step.coverage is not None
    assert step.coverage.unseen == ("0._values",)


class Outside(torch.autograd.Function):
    """A product that NumPy computes, as sparselab's is."""

    @staticmethod
    def forward(ctx: Any, values: Any, x: Any) -> Any:
        ctx.save_for_backward(values, x)
        return torch.from_numpy(x.numpy() * values.numpy())

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        values, x = ctx.saved_tensors
        rows = torch.from_numpy((dy.numpy() * x.numpy()).sum(axis=0))
        return rows, torch.from_numpy(dy.numpy() * values.numpy())


class Diagonal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.ones(16))

    def forward(self, x: Any) -> Any:
        return Outside.apply(self.values, x)


def test_such_a_kernel_of_a_users_own_is_named_too_and_norms_and_biases_are_not(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        Diagonal(), nn.BatchNorm1d(16), nn.Linear(16, 8), nn.PReLU(8), nn.LayerNorm(8)
    )
    step, *_ = observed(network, tmp_path / "t")
    assert step.coverage is not None
    assert step.coverage.unseen == ("0.values",)
