"""Layer tables of transformers: against torch modules of the same sizes, layers, bytes, work."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from swatsim.tracer.pytorch import layer_table  # noqa: E402
from swatsim.workload import footprint, transformers  # noqa: E402
from swatsim.workload.builder import Builder  # noqa: E402
from swatsim.workload.tables import Network  # noqa: E402
from swatsim.workload.transformers import Sizes  # noqa: E402
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
