"""Layer tables of torch modules: against the ones that ship, and against what autograd keeps."""

from __future__ import annotations

import copy
import logging

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from swatsim.errors import RecordingError  # noqa: E402
from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracer.pytorch import Tracer, layer_table  # noqa: E402
from swatsim.workload import footprint  # noqa: E402
from swatsim.workload.networks import NETWORKS, Network, network  # noqa: E402
from tests.tracer.models import MODELS, recorded_resnet8  # noqa: E402


def described(found: Network) -> dict[str, object]:
    """Tell a table without the names of tensors: in their place, what else keeps them."""
    keepers: dict[str, list[str]] = {}
    for name, tensor in found.inputs.items():
        keepers.setdefault(tensor, []).append(name)
    for saved in found.saved:
        keepers.setdefault(saved.tensor, []).append(f"{saved.name} {saved.kind}")
    return {
        "layers": found.layers,
        "biased": found.biased,
        "saved": sorted((it.name, it.kind, it.C, it.H, it.W) for it in found.saved),
        "tensors": sorted(sorted(names) for names in keepers.values()),
    }


def test_every_network_has_its_module() -> None:
    assert {*MODELS} == {*NETWORKS}


@pytest.mark.parametrize("name", MODELS)
def test_the_tables_that_ship_are_those_of_modules(name: str) -> None:
    build, shape = MODELS[name]
    model = build()
    found = layer_table(model, torch.zeros(1, *shape))
    assert described(found) == described(network(name))
    assert found.parameters == sum(p.numel() for p in model.parameters())


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    """Add up what autograd keeps of one forward pass, each storage once, no parameter or buffer."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)
    sizes = {place: tensor.untyped_storage().nbytes() for place, tensor in kept.items()}
    assert y is not None
    return sum(size for place, size in sizes.items() if place not in own)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet8", "resnet18-cifar"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_dense_footprint_is_what_autograd_keeps(name: str, batch: int) -> None:
    build, shape = MODELS[name]
    found = footprint.of_network(network(name), batch=batch)
    measured = kept_bytes(build().train(), torch.rand(batch, *shape))
    assert found.everything == measured


def test_a_concatenation_and_pooling_are_as_autograd_has_them() -> None:
    build, shape = MODELS["densenet121-cifar"]
    found = footprint.of_network(network("densenet121-cifar"), batch=2)
    assert found.everything == kept_bytes(build().train(), torch.rand(2, *shape))


def test_swat_keeps_a_copy_beside_the_relus_output(tmp_path) -> None:
    model, table = recorded_resnet8(), network("resnet8")
    policy = SwatU(0.8)
    dense = footprint.of_network(table, batch=4)
    copies = footprint.of_network(
        table,
        lambda layer, operand: None if layer.name == "conv1" else 0.2,
        batch=4,
        format="dense",  # PyTorch has no sparse tensors here: the zeros are stored
    )
    with Tracer(model, policy, tmp_path / "t", steps=()):
        measured = kept_bytes(model.train(), torch.rand(4, 1, 28, 28))
    assert measured == copies.everything
    assert copies.everything > dense.everything


class Odd(nn.Module):
    """Everything that a table lists, in every way that it can be written."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, (3, 5), (1, 2), "valid", groups=1)
        self.depthwise = nn.Conv2d(4, 8, 3, padding=1, dilation=1, groups=4, bias=False)
        self.norm, self.relu, self.pool = nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)
        self.drop, self.linear = nn.Dropout(0.5), nn.Linear(8 * 2 * 2, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.conv(input=x)), 2).relu_()
        x = self.relu(self.relu(self.norm(self.depthwise(x))))
        x = functional.adaptive_avg_pool2d(self.pool(x), 2)
        return self.linear(self.drop(x.flatten(1)))


def test_ways_to_write_a_function() -> None:
    found = layer_table(Odd(), torch.zeros(2, 3, 18, 20), name="odd")
    assert found.name == "odd"
    assert [(it.name, it.kind) for it in found.saved] == [
        ("relu", "relu"),
        ("max_pool2d", "max_pool"),
        ("max_pool2d", "max_pool_indices"),
        ("relu_1", "relu"),
        ("norm", "batch_norm"),
        ("relu_2", "relu"),
        ("relu_3", "relu"),
        ("pool", "avg_pool"),
        ("avg_pool2d", "avg_pool"),
        ("drop", "dropout"),
    ]
    assert [layer.name for layer in found.layers] == ["conv", "depthwise", "linear"]
    assert found.inputs == {"conv": "input", "depthwise": "relu_1", "linear": "drop"}
    assert found.biased == {"conv"}
    assert found.layers[1].groups == 4
    assert (found.saved[0].C, found.saved[0].H, found.saved[0].W) == (4, 16, 8)
    assert found.saved[-1].elements == 32


def test_a_model_is_as_before() -> None:
    model = Odd().train()
    model.norm.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    layer_table(model, torch.rand(1, 3, 18, 20))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(RuntimeError):
        layer_table(model, torch.rand(1, 2, 18, 20))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_is_not_known_is_named(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU(), nn.GroupNorm(1, 2))
    with caplog.at_level(logging.WARNING):
        layer_table(model, torch.zeros(1, 1, 2, 2))
    assert [record.getMessage() for record in caplog.records] == [
        "module '1' (GELU) is not listed: what it keeps is not known",
        "module '2' (GroupNorm) is not listed: what it keeps is not known",
    ]


def test_what_can_not_be_listed_is_refused() -> None:
    conv = nn.Conv2d(1, 1, 1)
    with pytest.raises(RecordingError, match=r"layer '0' runs twice"):
        layer_table(nn.Sequential(conv, conv), torch.zeros(1, 1, 2, 2))
    with pytest.raises(RecordingError, match="only .N, C, H, W."):
        layer_table(nn.Sequential(conv), torch.zeros(1, 2, 2))
    with pytest.raises(RecordingError, match="must be a torch.nn.Module"):
        layer_table(lambda x: x, torch.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match="must be a tensor"):
        layer_table(conv, (1, 1, 2, 2))  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match="nothing to list"):
        layer_table(nn.ReLU(), torch.zeros(1))
    assert layer_table(conv, torch.zeros(1, 1, 2, 2)).layers[0].name == "Conv2d"
