"""Layer tables against published counts, and against the tensors that the layers hand on."""

from __future__ import annotations

from collections import Counter

import pytest

from swatsim.errors import WorkloadError
from swatsim.workload import flops
from swatsim.workload.networks import NETWORKS, network
from swatsim.workload.tables import Network

#: Network -> parameters. The ImageNet ones: torchvision's documentation (num_params). ResNet-18 for
#: CIFAR: 11,173,962 (torchsummary of github.com/kuangliu/pytorch-cifar's), and in SWAT's code a
#: bias more for each of the 4800 filters. DenseNet-121: 6,956,298 (torchsummary of the same
#: repository's). WRN-16-8: 11.0 M in Zagoruyko and Komodakis, arXiv:1605.07146v4, table 5, and
#: 10,961,370 where others count it. VGG-16 with batch norm and three linear layers: 33,646,666, as
#: others count it; 34.0 M with 100 classes (github.com/weiaicunzai/pytorch-cifar100).
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "wrn50-2": 68_883_240,
    "vgg16-cifar": 33_646_666,
    "resnet18-cifar": 11_173_962 + 4800,
    "wrn16-8-cifar": 10_961_370,
    "densenet121-cifar": 6_956_298,
    "resnet8": 77_754,
}

#: Network -> GMAC of convolutions and linear layers, as torchvision's documentation has them
#: (there called GFLOPS); ResNet-18 for CIFAR is commonly given as 0.56.
GMACS = {"resnet18": 1.814, "resnet50": 4.089, "wrn50-2": 11.398, "resnet18-cifar": 0.555}

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
}

every = pytest.mark.parametrize("name", NETWORKS)


@every
def test_parameters(name: str) -> None:
    assert network(name).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", GMACS)
def test_macs(name: str) -> None:
    found = network(name)
    assert round(found.macs / 1e9, 3) == GMACS[name]
    assert found.macs == sum(flops.macs_dense(layer, 1) for layer in found.layers)


@every
def test_counts(name: str) -> None:
    found = network(name)
    kinds = Counter(layer.kind for layer in found.layers)
    norms = sum(saved.kind == "batch_norm" for saved in found.saved)
    assert (kinds["conv"], kinds["linear"], norms) == COUNTS[name]
    assert found.name == name
    assert found.citation


def sizes_of_tensors(found: Network) -> dict[str, set[tuple[int, int, int]]]:
    """Tell the sizes (C, H, W) that makers and readers of each tensor take it to have."""
    sizes: dict[str, set[tuple[int, int, int]]] = {}
    for layer in found.layers:
        sizes.setdefault(layer.name, set()).add((layer.K, layer.P, layer.Q))
        if layer.kind == "conv":
            sizes.setdefault(found.inputs[layer.name], set()).add((layer.C, layer.H, layer.W))
    for saved in found.saved:
        sizes.setdefault(saved.tensor, set()).add((saved.C, saved.H, saved.W))
    return sizes


@every
def test_layers_and_modules_agree_on_the_tensors_between_them(name: str) -> None:
    found = network(name)
    assert all(len(sizes) == 1 for sizes in sizes_of_tensors(found).values())
    names = [layer.name for layer in found.layers]
    assert len(set(names)) == len(names)
    assert set(found.inputs) == set(names) >= found.biased
    assert found.inputs[names[0]] == "input"


@every
def test_batch_norms_follow_convolutions(name: str) -> None:
    """In pre-activation networks (WRN, DenseNet) some follow an addition or a concatenation."""
    found = network(name)
    convs = {layer.name for layer in found.layers}
    read = [saved.tensor for saved in found.saved if saved.kind == "batch_norm"]
    others = [tensor for tensor in read if tensor not in convs]
    assert len(set(read)) == len(read)
    assert all(tensor.endswith((".add", ".cat", ".avg_pool2d")) for tensor in others)
    assert bool(others) == (name in ("wrn16-8-cifar", "densenet121-cifar"))


@every
def test_sizes_end_where_they_should(name: str) -> None:
    found = network(name)
    first, last = found.layers[0], found.layers[-1]
    imagenet = name in ("resnet18", "resnet50", "wrn50-2")
    image = (1, 28) if name == "resnet8" else (3, 224 if imagenet else 32)
    assert image == (first.C, first.H)
    assert (last.kind, last.K) == ("linear", 1000 if imagenet else 10)


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
