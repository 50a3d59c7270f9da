"""Layer tables of torch modules: against the ones that ship, and against what autograd keeps."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from swatsim.errors import RecordingError  # noqa: E402
from swatsim.policies import SwatU  # noqa: E402
from swatsim.tracefile import open_trace  # noqa: E402
from swatsim.tracer.pytorch import Kept, Tracer, layer_table  # noqa: E402
from swatsim.workload import footprint  # noqa: E402
from swatsim.workload.measured import compare  # noqa: E402
from swatsim.workload.networks import NETWORKS, network  # noqa: E402
from swatsim.workload.tables import Network  # noqa: E402
from tests.tracer.models import MODELS, recorded_resnet8  # noqa: E402
from tests.tracer.today import TODAY, Gpt2, Vit, images  # noqa: E402


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
    transformers = {name for name, it in NETWORKS.items() if it.sizes is not None}
    assert {*MODELS} == {*NETWORKS} - transformers  # of which test_transformers.py has modules


@pytest.mark.parametrize("name", MODELS)
def test_the_tables_that_ship_are_those_of_modules(name: str) -> None:
    build, shape = MODELS[name]
    with torch.device("meta"):  # shapes are enough
        model, x = build(), torch.zeros(1, *shape)
    found = layer_table(model, x)
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


def test_todays_network_under_a_policy_keeps_what_table_and_masks_say(tmp_path) -> None:
    torch.manual_seed(4)
    model, x = Vit(), images(3)
    table = layer_table(model, x)
    options = {"steps": (0,), "measure_memory": True}
    with Tracer(model, SwatU(0.8), tmp_path / "t", **options) as tracer:
        model(x).sum().backward()
        tracer.step()
    step = open_trace(tmp_path / "t").step(0)
    found = footprint.of_masks(step.kept(), network=table, format="dense")
    measured = step.notes["kept"]
    assert [it for it in compare(measured["modules"], found) if it.measured != it.modelled] == []
    assert found.everything == measured["total"]


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
        ("norm", "statistics"),
        ("relu_2", "relu"),
        ("relu_3", "relu"),
        ("pool", "avg_pool"),
        ("adaptive_avg_pool2d", "avg_pool"),
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


def test_what_can_not_be_listed_is_refused() -> None:
    conv = nn.Conv2d(1, 1, 1)
    with pytest.raises(RecordingError, match="only .N, C, H, W."):
        layer_table(nn.Sequential(conv), torch.zeros(1, 2, 2))
    with pytest.raises(RecordingError, match="must be a torch.nn.Module"):
        layer_table(lambda x: x, torch.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match="must be a tensor"):
        layer_table(conv, (1, 1, 2, 2))  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match="at least one sample"):
        layer_table(conv, torch.zeros(0, 1, 2, 2))
    with pytest.raises(RecordingError, match="runs no layer"):
        layer_table(nn.ReLU(), torch.zeros(1))
    assert layer_table(conv, torch.zeros(1, 1, 2, 2)).layers[0].name == "Conv2d"


# ---- equal to what is measured, module by module -------------------------------------------------


def assert_as_measured(model: nn.Module, x: Tensor, table: Network) -> None:
    """Run a batch forward and compare what `Kept` measures with the table's footprint."""
    found = footprint.of_network(table, batch=len(x))
    with Kept(model) as kept:
        y = model(x)
    different = [it for it in compare(kept.modules, found) if it.measured != it.modelled]
    assert not different
    assert found.everything == kept.total
    assert y is not None


@pytest.mark.parametrize("name", TODAY)
def test_todays_networks_keep_what_the_table_says(name: str) -> None:
    build, inputs = TODAY[name]
    torch.manual_seed(0)
    model = build()
    table = layer_table(model, inputs(1))
    for batch in (1, 2, 5) if "mobile" not in name else (2, 5):
        assert_as_measured(model, inputs(batch), table)
    assert table.parameters == sum(it.numel() for it in model.parameters())
    assert model.training


class Gate(nn.Module):
    """Squeeze and excitation: two activations are multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * functional.hardsigmoid(self.fc2(y))


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight / weight.std(), None, 2, 1)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(6, 3), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fc(torch.cat([self.act(self.fc(x)), x[:, 3:]], 1)))


class Attention(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x)[0]


def image() -> Tensor:
    return torch.rand(2, 3, 12, 12)


def sequence() -> Tensor:
    return torch.rand(2, 5, 8)


ELEMENTWISE = (nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Softmax(-1))
MORE = (nn.Hardswish(), nn.Hardsigmoid(), nn.ReLU6(), nn.LeakyReLU(), nn.ELU(), nn.PReLU())
PARTS = {
    "functions": (nn.Sequential(nn.Linear(8, 8), *ELEMENTWISE, *MORE, nn.Dropout()), sequence),
    "norms": (
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.BatchNorm2d(8)
        ),
        image,
    ),
    "norms of tokens": (
        nn.Sequential(
            nn.Linear(8, 8), nn.LayerNorm(8), nn.RMSNorm(8), nn.BatchNorm1d(5), nn.Linear(8, 2)
        ),
        sequence,
    ),
    "frozen norm": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8).eval()), image),
    "pooling": (
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(2)),
            *(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 2)),
        ),
        image,
    ),
    "transposed": (
        nn.Sequential(nn.ConvTranspose2d(3, 4, 3, 2, 1, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)),
        image,
    ),
    "one dimension": (
        nn.Sequential(nn.Conv1d(5, 6, 3), nn.ReLU(), nn.ConvTranspose1d(6, 2, 3)),
        sequence,
    ),
    "gate": (nn.Sequential(nn.Conv2d(3, 8, 3), Gate(), nn.Conv2d(8, 2, 1)), image),
    "standardised": (nn.Sequential(nn.Conv2d(3, 4, 1), Standardised(4, 6, 3)), image),
    "weight norm": (
        nn.Sequential(nn.Linear(8, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))),
        sequence,
    ),
    "attention": (Attention(dropout=0.1), sequence),
    "attention of projections": (Attention(kdim=8, vdim=8, bias=False), sequence),
    "encoder": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), sequence),
    "part of a tensor": (
        nn.Sequential(nn.Linear(8, 8), nn.Unflatten(2, (2, 4)), nn.Linear(4, 2)),
        sequence,
    ),
    "frozen": (nn.Sequential(nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 2)), sequence),
    "recurrence": (nn.Sequential(nn.Linear(8, 8), nn.GRU(8, 4, batch_first=True)), sequence),
}


@pytest.mark.parametrize("name", PARTS)
def test_all_kinds_of_modules_keep_what_the_table_says(name: str) -> None:
    torch.manual_seed(1)
    model, inputs = PARTS[name]
    x = inputs()
    table = layer_table(model, x)
    for batch in (2, 3, 7):
        assert_as_measured(model, x[torch.arange(batch) % 2].clone(), table)


def test_a_second_run_is_one_more_row() -> None:
    model, x = Twice(), torch.rand(4, 6)
    table = layer_table(model, x)
    assert [layer.name for layer in table.layers] == ["fc", "fc@2"]
    assert [saved.name for saved in table.saved] == ["act", "act_1"]
    assert table.macs == 2 * 18
    assert table.parameters == 21
    assert_as_measured(model, x, table)


def test_whatever_multiplies_by_a_parameter_is_a_layer() -> None:
    found = layer_table(Gpt2(), torch.zeros(1, 12, dtype=torch.int64))
    layers = {layer.name: (layer.C, layer.K, layer.H) for layer in found.layers}
    assert layers["h.0.c_attn"] == (24, 72, 12)
    assert layers["lm_head"] == (24, 50, 12)
    assert len(layers) == 2 * 4 + 1
    attention = layer_table(Attention(), sequence())
    names = [layer.name for layer in attention.layers]
    assert names == [*(f"attn.in_proj_{letter}" for letter in "qkv"), "attn.out_proj"]
    assert {(layer.C, layer.K, layer.H) for layer in attention.layers} == {(8, 8, 5)}
    assert len({attention.inputs[name] for name in names[:3]}) == 1


def test_rows_tell_what_a_mask_could_compress() -> None:
    """A policy's copies lie beside what other modules keep; norms and functions stay dense."""
    table = layer_table(Vit(), images(1))
    dense = footprint.of_network(table, batch=2)
    sparse = footprint.of_network(table, lambda layer, operand: 0.25, batch=2)
    for one, other in zip(dense.rows, sparse.rows, strict=True):
        share = 0.25 if one.kind in ("act", "weight") else 1
        assert other.elements <= one.elements
        assert other.density == share
    kinds = {row.kind for row in dense.rows}
    assert {"act", "layer_norm", "statistics", "gelu", "dropout"} <= kinds
    assert {row.module for row in dense.rows if row.kind == "gelu"} == {
        "blocks.0.mlp.act",
        "blocks.1.mlp.act",
    }
