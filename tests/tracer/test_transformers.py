"""Layer tables of transformers: against torch modules of the same sizes, layers, bytes, work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from swatsim.policies import Dense  # noqa: E402
from swatsim.tracefile import Step, open_trace  # noqa: E402
from swatsim.tracefile.others import OtherWork  # noqa: E402
from swatsim.tracer.pytorch import Observer, layer_table  # noqa: E402
from swatsim.tracer.synthetic import synthesize  # noqa: E402
from swatsim.tracer.synthetic_work import other_works  # noqa: E402
from swatsim.workload import flops, footprint, transformers  # noqa: E402
from swatsim.workload.builder import Builder  # noqa: E402
from swatsim.workload.networks import network  # noqa: E402
from swatsim.workload.tables import Network  # noqa: E402
from swatsim.workload.transformers import Sizes  # noqa: E402
from tests.tracer.models import recorded_resnet8  # noqa: E402
from tests.tracer.test_table import kept_bytes  # noqa: E402
from tests.tracer.transformers import Bert, Gpt2, Llama, Vit  # noqa: E402

SMALL = Sizes(2, 24, 3, 40, 10, 50, dropout=False)
IMAGES = replace(SMALL, tokens=17, patch=4, size=16)
GATED = replace(SMALL, activation="gated")

MODELS = {
    "vit": (transformers.vit, Vit, IMAGES),
    "vit-relu": (transformers.vit, Vit, replace(IMAGES, activation="relu")),
    "bert": (transformers.bert, Bert, SMALL),
    "gpt2": (transformers.gpt2, Gpt2, SMALL),
    "gpt2-relu": (transformers.gpt2, Gpt2, replace(SMALL, activation="relu")),
    "llama": (transformers.llama, Llama, GATED),
    "llama-relu": (transformers.llama, Llama, replace(SMALL, activation="relu")),
}
every = pytest.mark.parametrize("name", MODELS)


def built(name: str) -> Network:
    forward, _, sizes = MODELS[name]
    builder = Builder()
    forward(builder, sizes)
    return builder.build(name, "", "adamw")


def batch(name: str, samples: int) -> Tensor:
    sizes = MODELS[name][2]
    if name.startswith("vit"):
        return torch.rand(samples, 3, sizes.size, sizes.size)
    return torch.randint(0, sizes.vocabulary, (samples, sizes.tokens))


@every
def test_a_table_has_the_layers_of_a_module(name: str) -> None:
    model, table = MODELS[name][1](MODELS[name][2]), built(name)
    found = layer_table(model, batch(name, 2))
    own = [layer for layer in table.layers if not layer.multiplies_activations]
    theirs = [layer for layer in found.layers if not layer.multiplies_activations]
    assert own == theirs
    assert table.parameters == sum(it.numel() for it in model.parameters())


@every
@pytest.mark.parametrize("samples", [1, 3])
def test_a_table_keeps_what_autograd_keeps(name: str, samples: int) -> None:
    torch.manual_seed(3)
    model = MODELS[name][1](MODELS[name][2])
    found = footprint.of_network(built(name), batch=samples)
    assert found.everything == kept_bytes(model, batch(name, samples))


# ---- recorded ------------------------------------------------------------------------------------


def recorded(model: nn.Module, x: Tensor, classes: Tensor, optimizer: Any, path: Path) -> Step:
    with Observer(model, path, steps=(1,)) as observer:
        for _ in range(2):  # the first one makes the optimizer's state
            scores = model(x)
            optimizer.zero_grad()
            functional.cross_entropy(scores.flatten(0, -2), classes.flatten()).backward()
            optimizer.step()
            observer.step()
    return open_trace(path).step(1)


def test_a_synthetic_trace_has_the_layers_and_outputs_of_a_recorded_one(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model, tokens = Gpt2(SMALL), batch("gpt2", 2)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    found = recorded(model, tokens, tokens, sgd, tmp_path / "recorded")
    table = built("gpt2")
    drawn = synthesize(table, tmp_path / "drawn", policy=Dense(), batch=2, seed=1).step(0)
    assert {*found.layers} == {*drawn.layers}
    assert {record.key for record in found.records} == {record.key for record in drawn.records}
    for layer, op in drawn.ops():
        for mask in (found.output(layer.name, op), drawn.output(layer.name, op)):
            assert (mask is None) == ((layer.name.split(".")[-1], op) not in WANTED_IN_PART)
        same = (found.op(layer, op), drawn.op(layer, op))
        if layer.multiplies_activations:
            assert flops.macs_effectual(same[0]) == flops.macs_effectual(same[1])


#: What a causal mask hides.
WANTED_IN_PART = {("scores", "fprop"), ("values", "dgrad")}


# ---- what else a step does -----------------------------------------------------------------------

#: What only a recorder sees: what makes indices and angles, and copies that change a layout.
LAYOUT = {"arange", "ones_like", "cat", "clone", "select_backward"}


def moved(works: Iterable[OtherWork]) -> dict[tuple[str, str], tuple[int, int]]:
    """Add up the bytes that each function reads and writes, by phase."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for work in works:
        for it in work.operations:
            function = it.function.removeprefix("_foreach_").rstrip("_")
            key, times = (work.phase, function), work.times
            read, written = found.get(key, (0, 0))
            if function not in LAYOUT and it.elements > 1:
                found[key] = read + times * it.read, written + times * it.written
    return found


def test_tables_do_what_recorded_steps_do(tmp_path: Path) -> None:
    torch.manual_seed(4)
    gpt2, tokens = Gpt2(SMALL), batch("gpt2", 2)
    resnet8, images = recorded_resnet8(), torch.rand(2, 1, 28, 28)
    sgd = torch.optim.SGD(resnet8.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    runs = (
        (built("gpt2"), gpt2, tokens, tokens, torch.optim.AdamW(gpt2.parameters())),
        (network("resnet8"), resnet8, images, torch.tensor([1, 2]), sgd),
    )
    for table, *run in runs:
        found = recorded(*run, tmp_path / table.name).others
        noted = other_works(table, 2)
        assert noted is not None
        assert found is not None
        assert moved(noted) == moved(found)
