"""Parameters and buffers whose storages are replaced between steps, as ``weight.data = ...`` does.

An allocator gives the old storage's address to whatever is made next: a computed weight, often.
"""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402

from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Observer  # noqa: E402
from swatsim.tracer.pytorch.naming import Names  # noqa: E402
from swatsim.tracer.pytorch.watch import names  # noqa: E402


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3))
        self.register_buffer("mask", torch.ones(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight * self.mask).T


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x @ self.w[e].T for e in range(3)]).sum(0)


@pytest.mark.parametrize("tensor", ["mask", "weight"])
def test_a_storage_that_was_left_is_nobodys(tensor: str) -> None:
    model = Masked()
    known = Names(names(model))
    left = getattr(model, tensor).detach()
    assert known.owner(left) is not None
    getattr(model, tensor).data = torch.ones(4, 3)
    assert known.owner(left) is None
    assert known.of(left) is None


@pytest.mark.parametrize(
    ("network", "size", "layers"),
    [(Masked, 3, {"a", "b"}), (Experts, 4, {f"{part}.w[{e}]" for part in "ab" for e in range(3)})],
)
def test_layers_keep_their_names(
    tmp_path: Path, network: type[nn.Module], size: int, layers: set[str]
) -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": network(), "b": network()})
    x = torch.randn(2, size)
    with Observer(model, tmp_path / "t", steps=range(4)) as observer:
        for _ in range(4):
            for part in "ab":
                model[part](x).square().sum().backward()
            observer.step()
            for each in (*model.parameters(), *model.buffers()):
                each.data = each.data.clone()
    trace = open_trace(tmp_path / "t")
    for number in range(4):
        assert {layer.name for layer in trace.step(number).layers} == layers
