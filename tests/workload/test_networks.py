"""Layer tables against published counts, and against the tensors that the layers hand on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from swatsim.errors import WorkloadError
from swatsim.workload import flops
from swatsim.workload.layer import Layer
from swatsim.workload.networks import NETWORKS, network
from swatsim.workload.tables import Network

#: Network -> parameters. The ImageNet ones: torchvision's documentation (num_params). ResNet-18 for
#: CIFAR: 11,173,962 (torchsummary of github.com/kuangliu/pytorch-cifar's), and in SWAT's code a
#: bias more for each of the 4800 filters. DenseNet-121: 6,956,298 (torchsummary of the same
#: repository's). WRN-16-8: 11.0 M in Zagoruyko and Komodakis, arXiv:1605.07146v4, table 5, and
#: 10,961,370 where others count it. VGG-16 with batch norm and three linear layers: 33,646,666, as
#: others count it; 34.0 M with 100 classes (github.com/weiaicunzai/pytorch-cifar100). BERT-base:
#: transformers' BertModel (110 M in the paper); GPT-2 small: 124 M, transformers'
#: GPT2LMHeadModel, head and embedding being one; LLaMA-7B: 6.7 B in the paper, 6,738,415,616 of
#: huggingface.co's llama-7b. A block of it: four matrices of attention, three of an MLP, two norms.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "wrn50-2": 68_883_240,
    "vgg16-cifar": 33_646_666,
    "resnet18-cifar": 11_173_962 + 4800,
    "wrn16-8-cifar": 10_961_370,
    "densenet121-cifar": 6_956_298,
    "resnet8": 77_754,
    "vgg16": 138_357_544,
    "densenet121": 7_978_856,
    "mobilenet-v2": 3_504_872,
    "vit-b-16": 86_567_656,
    "bert-base-128": 109_482_240,
    "bert-base-512": 109_482_240,
    "gpt2-small": 124_439_808,
    "llama-7b": 6_738_415_616,
    "llama-7b-block": 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096,
}

#: Network -> GMAC, as torchvision's documentation has them (there called GFLOPS; ViT's counts the
#: products of attention); ResNet-18 for CIFAR is commonly given as 0.56.
GMACS = {
    **{"resnet18": 1.814, "resnet50": 4.089, "wrn50-2": 11.398, "resnet18-cifar": 0.555},
    **{"vgg16": 15.470, "densenet121": 2.834, "mobilenet-v2": 0.301, "vit-b-16": 17.564},
}

#: Transformer -> tokens, and millions of MACs a token of layers, head, and products of attention.
#: Layers are 12 x 12 x 768^2 in BERT-base (its pooler reads one token) and GPT-2 small, and
#: 32 x (4 x 4096^2 + 3 x 4096 x 11008) in LLaMA-7B; products 2 x blocks x width x tokens (Kaplan et
#: al., arXiv:2001.08361, table 1).
MACS_OF_A_TOKEN = {
    "bert-base-128": (128, 84.935, 0.590 / 128, 2.359),
    "bert-base-512": (512, 84.935, 0.590 / 512, 9.437),
    "gpt2-small": (1024, 84.935, 38.597, 18.874),
    "llama-7b": (2048, 6476.005, 131.072, 536.871),
    "llama-7b-block": (2048, 6476.005 / 32, 0, 536.871 / 32),
}

#: Network -> convolutions, linear layers, batch norms.
COUNTS = {
    "resnet18": (20, 1, 20),
    "resnet50": (53, 1, 53),
    "wrn50-2": (53, 1, 53),
    "vgg16-cifar": (13, 3, 13),
    "resnet18-cifar": (20, 1, 20),
    "wrn16-8-cifar": (16, 1, 13),
    "densenet121-cifar": (120, 1, 120),
    "resnet8": (9, 1, 9),
    "vgg16": (13, 3, 0),
    "densenet121": (120, 1, 121),
    "mobilenet-v2": (52, 1, 52),
    "vit-b-16": (1 + 12 * 6, 1, 0),
    "bert-base-128": (12 * 6, 1, 0),
    "bert-base-512": (12 * 6, 1, 0),
    "gpt2-small": (12 * 4 + 1, 0, 0),
    "llama-7b": (32 * 7 + 1, 0, 0),
    "llama-7b-block": (7, 0, 0),
}
#: Transformer -> blocks, each of which has two products of activations.
BLOCKS = dict.fromkeys(("vit-b-16", "bert-base-128", "bert-base-512", "gpt2-small"), 12)
BLOCKS |= {"llama-7b": 32, "llama-7b-block": 1}
CONVOLUTIONAL = [name for name in NETWORKS if name not in BLOCKS]

BUILT = {name: network(name) for name in NETWORKS}

every = pytest.mark.parametrize("name", NETWORKS)
convolutional = pytest.mark.parametrize("name", CONVOLUTIONAL)
transformers = pytest.mark.parametrize("name", BLOCKS)


@every
def test_parameters(name: str) -> None:
    assert BUILT[name].parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", GMACS)
def test_macs(name: str) -> None:
    found = BUILT[name]
    assert round(found.macs / 1e9, 3) == GMACS[name]
    assert found.macs == sum(flops.macs_dense(layer, 1) for layer in found.layers)


def millions(layers: Iterable[Layer], tokens: int) -> float:
    return sum(flops.macs_dense(layer, 1) for layer in layers) / tokens / 1e6


@pytest.mark.parametrize("name", MACS_OF_A_TOKEN)
def test_macs_of_a_token(name: str) -> None:
    layers = BUILT[name].layers
    products = [layer for layer in layers if layer.multiplies_activations]
    head = [layer for layer in layers if layer.name in ("lm_head", "pooler.dense")]
    blocks = [layer for layer in layers if layer not in products and layer not in head]
    tokens, *wanted = MACS_OF_A_TOKEN[name]
    got = [millions(some, tokens) for some in (blocks, head, products)]
    assert got == pytest.approx(wanted, abs=0.001)
    assert BUILT[name].macs == pytest.approx(tokens * sum(got) * 1e6)


def test_attention_is_a_twentieth_of_a_vision_transformer() -> None:
    layers = [layer for layer in BUILT["vit-b-16"].layers if not layer.multiplies_activations]
    assert round(sum(flops.macs_dense(layer, 1) for layer in layers) / 1e9, 4) == 16.8485
    assert round(BUILT["vit-b-16"].macs / 1e9, 4) == 17.5638


@transformers
def test_attention_multiplies_queries_by_keys_and_what_comes_of_it_by_values(name: str) -> None:
    found = BUILT[name]
    products = [layer for layer in found.layers if layer.multiplies_activations]
    assert len(products) == 2 * BLOCKS[name]
    for scores, values in zip(products[::2], products[1::2], strict=True):
        assert scores.K == values.C == scores.groups * scores.H
        assert (scores.C, scores.H, scores.groups) == (values.K, values.H, values.groups)
        assert scores.name.removesuffix("scores") == values.name.removesuffix("values")
        assert found.dense >= {scores.name, values.name}
    causal = {} if name[0] in "vb" else {it.name: "grad_out" for it in products[::2]}
    causal |= {it.name: "act" for it in products[1::2]} if causal else {}
    assert found.causal == causal
    assert found.rights.keys() == {it.name for it in products}


def test_inputs_behind_a_relu_are_told_from_dense_ones() -> None:
    for name in CONVOLUTIONAL:
        dense = BUILT[name].dense
        if name != "mobilenet-v2":
            assert not dense
            continue
        # what a block ends with has no activation; the next one expands it, or is the last layer
        assert dense == {f"features.{i}.conv.0.0" for i in range(2, 18)} | {"features.18.0"}
    own = BUILT["gpt2-small"]
    assert own.dense == {layer.name for layer in own.layers}
    relu = network("gpt2-small", activation="relu")
    assert relu.name == "gpt2-small-relu"
    assert own.dense - relu.dense == {f"transformer.h.{i}.mlp.c_proj" for i in range(12)}
    assert (relu.macs, relu.parameters) == (own.macs, own.parameters)


def test_an_mlp_may_be_gated_and_a_gate_a_relu() -> None:
    gated, own = network("vit-b-16", activation="gated"), BUILT["vit-b-16"]
    assert gated.parameters - own.parameters == 12 * (768 * 3072 + 3072)
    assert gated.dense >= own.dense
    llama = network("llama-7b-block", activation="relu")
    assert BUILT["llama-7b-block"].dense - llama.dense == {"model.layers.0.mlp.down_proj"}
    assert llama.layers == BUILT["llama-7b-block"].layers


@pytest.mark.parametrize(
    ("name", "activation", "message"),
    [
        ("resnet50", "relu", "resnet50 is no transformer, its activations are its own"),
        ("gpt2-small", "glu", "unknown activation 'glu'.*did you mean 'gelu'"),
    ],
)
def test_other_activations_are_refused(name: str, activation: str, message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        network(name, activation=activation)


@every
def test_counts(name: str) -> None:
    found = BUILT[name]
    kinds = Counter(layer.kind for layer in found.layers)
    norms = sum(saved.kind == "batch_norm" for saved in found.saved)
    assert (kinds["conv"], kinds["linear"], norms) == COUNTS[name]
    assert kinds["matmul"] == 2 * BLOCKS.get(name, 0)
    assert found.name == name
    assert found.citation


def sizes_of_tensors(found: Network) -> dict[str, set[tuple[int, int, int]]]:
    """Tell the sizes (C, H, W) that makers and readers of each tensor take it to have."""
    sizes: dict[str, set[tuple[int, int, int]]] = {}
    for layer in found.layers:
        sizes.setdefault(layer.name, set()).add((layer.K, layer.P, layer.Q))
        if layer.kind == "conv":
            sizes.setdefault(found.inputs[layer.name], set()).add((layer.C, layer.H, layer.W))
        if layer.name in found.rights:
            depth, keys = layer.C // layer.groups, layer.K // layer.groups
            right = (layer.C, keys, 1) if layer.name in found.inputs else (layer.K, depth, 1)
            sizes.setdefault(found.rights[layer.name], set()).add(right)
    parts = {it.tensor for it in found.saved if not it.C or it.part == "projections"}
    parts |= {*found.extents}
    for saved in found.saved:
        sizes.setdefault(saved.tensor, set()).add((saved.C, saved.H, saved.W))
    return {name: those for name, those in sizes.items() if name not in parts}


@every
def test_layers_and_modules_agree_on_the_tensors_between_them(name: str) -> None:
    found = BUILT[name]
    assert all(len(sizes) == 1 for sizes in sizes_of_tensors(found).values())
    names = [layer.name for layer in found.layers]
    assert len(set(names)) == len(names)
    kept = {name for name in names if not name.endswith(".values")}
    assert set(found.inputs) == kept >= found.biased
    assert (found.inputs[names[0]] == "input") != found.embedded


@convolutional
def test_batch_norms_follow_convolutions(name: str) -> None:
    """In pre-activation networks (WRN, DenseNet) some follow an addition or a concatenation."""
    found = BUILT[name]
    convs = {layer.name for layer in found.layers}
    read = [saved.tensor for saved in found.saved if saved.kind == "batch_norm"]
    others = [tensor for tensor in read if tensor not in convs]
    assert len(set(read)) == len(read)
    assert all(tensor.endswith((".add", ".cat", ".avg_pool2d")) for tensor in others)
    assert bool(others) == (name in ("wrn16-8-cifar", "densenet121-cifar", "densenet121"))


@convolutional
def test_sizes_end_where_they_should(name: str) -> None:
    found = BUILT[name]
    first, last = found.layers[0], found.layers[-1]
    small = name.endswith("cifar") or name == "resnet8"
    image = (1, 28) if name == "resnet8" else (3, 32 if small else 224)
    assert image == (first.C, first.H)
    assert (last.kind, last.K) == ("linear", 10 if small else 1000)


def test_strides_lie_on_the_3x3_of_a_bottleneck() -> None:
    strided = [layer for layer in network("resnet50").layers if layer.stride == (2, 2)]
    assert [layer.name for layer in strided] == [
        "conv1",
        *(f"layer{stage}.0.{name}" for stage in (2, 3, 4) for name in ("conv2", "downsample.0")),
    ]
    assert {layer.R for layer in strided if layer.name.endswith("conv2")} == {3}


def test_swats_own_networks_have_the_biases_that_they_have_there() -> None:
    for name in ("vgg16-cifar", "resnet18-cifar"):
        assert len(network(name).biased) == len(network(name).layers)
    for name, linear in (("wrn16-8-cifar", "fc"), ("densenet121-cifar", "linear")):
        assert network(name).biased == {linear}


def test_an_unknown_network_is_refused_with_the_nearest() -> None:
    with pytest.raises(WorkloadError, match="did you mean 'resnet50'"):
        network("resnet-50")
