"""Layer tables of published networks: what runs, in order, what each module keeps and does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from swatsim.arguments import arguments, maybe, string
from swatsim.errors import WorkloadError, unknown
from swatsim.workload import convolutional, transformers
from swatsim.workload.builder import Builder
from swatsim.workload.tables import Network
from swatsim.workload.transformers import ACTIVATIONS, Sizes

_RESNET = "He et al., CVPR 2016, table 1"
_WRN = "Zagoruyko and Komodakis, BMVC 2016"
_SWAT = "as in SWAT's CIFAR code (github.com/AamirRaihan/SWAT)"
_BERT = "Devlin et al., NAACL 2019, section 3, as transformers' BertModel, without a loss"
_LLAMA = "Touvron et al., arXiv:2302.13971, table 2, as transformers' LlamaForCausalLM, 2048 tokens"


@dataclass(frozen=True)
class Blueprint:
    """A network that is not built yet: call it.

    Parameters
    ----------
    name : str
    forward : callable
        Runs the network's layers, on a builder; of a transformer, of sizes that it is given.
    citation : str
    sizes : Sizes, optional
        Of a transformer.
    optimizer : {"sgd", "adamw"}
        What trains it, as published.
    """

    name: str
    forward: Callable[..., Any]
    citation: str
    sizes: Sizes | None = None
    optimizer: Literal["sgd", "adamw"] = "sgd"

    def __call__(self) -> Network:
        """Return the layer table, built."""
        builder = Builder()
        self.forward(builder, *([self.sizes] if self.sizes else []))
        return builder.build(self.name, self.citation, self.optimizer)

    def activated(self, activation: str) -> Blueprint:
        """Return the same transformer with another activation in its MLPs.

        Raises
        ------
        WorkloadError
            If it is no transformer, or there is no such activation.
        """
        if activation not in ACTIVATIONS:
            raise WorkloadError(unknown("activation", activation, ACTIVATIONS))
        if self.sizes is None:
            raise WorkloadError(
                f"activation={activation!r} is not allowed: {self.name} is no transformer, its "
                "activations are its own; leave it out"
            )
        sizes: Any = replace(self.sizes, activation=activation)
        return replace(self, name=f"{self.name}-{activation}", sizes=sizes)


def _transformer(
    name: str, forward: Callable[[Builder, Sizes], None], sizes: Sizes, citation: str
) -> Blueprint:
    return Blueprint(name, forward, citation, sizes, "adamw")


#: Name -> what builds the network: the one list.
NETWORKS: Mapping[str, Blueprint] = {
    entry.name: entry
    for entry in (
        Blueprint("resnet18", convolutional.resnet18, f"{_RESNET}, as torchvision's, 224x224"),
        Blueprint(
            "resnet50",
            convolutional.resnet50,
            f"{_RESNET}, as torchvision's (stride on the 3x3), 224x224",
        ),
        Blueprint(
            "wrn50-2", convolutional.wrn50_2, f"{_WRN}, as torchvision's wide_resnet50_2, 224x224"
        ),
        Blueprint(
            "vgg16",
            convolutional.vgg16,
            "Simonyan and Zisserman, ICLR 2015, table 1, D, as torchvision's, 224x224",
        ),
        Blueprint(
            "densenet121",
            convolutional.densenet121,
            "Huang et al., CVPR 2017, table 1, as torchvision's, 224x224",
        ),
        Blueprint(
            "mobilenet-v2",
            convolutional.mobilenet_v2,
            "Sandler et al., CVPR 2018, table 2, as torchvision's, 224x224",
        ),
        Blueprint(
            "vgg16-cifar",
            convolutional.vgg16_cifar,
            f"Simonyan and Zisserman, ICLR 2015, {_SWAT}, 32x32",
        ),
        Blueprint("resnet18-cifar", convolutional.resnet18_cifar, f"{_RESNET}, {_SWAT}, 32x32"),
        Blueprint("wrn16-8-cifar", convolutional.wrn16_8_cifar, f"{_WRN}, {_SWAT}, 32x32"),
        Blueprint(
            "densenet121-cifar",
            convolutional.densenet121_cifar,
            f"Huang et al., CVPR 2017, {_SWAT}, 32x32",
        ),
        Blueprint(
            "resnet8",
            convolutional.resnet8,
            "He et al., CVPR 2016, section 4.2, three blocks, 28x28",
        ),
        _transformer(
            "vit-b-16",
            transformers.vit,
            transformers.VIT_B_16,
            "Dosovitskiy et al., ICLR 2021, table 1, as torchvision's vit_b_16, 224x224",
        ),
        _transformer(
            "bert-base-128", transformers.bert, transformers.BERT_BASE, f"{_BERT}, 128 tokens"
        ),
        _transformer(
            "bert-base-512",
            transformers.bert,
            replace(transformers.BERT_BASE, tokens=512),
            f"{_BERT}, 512 tokens",
        ),
        _transformer(
            "gpt2-small",
            transformers.gpt2,
            transformers.GPT2_SMALL,
            "Radford et al., 2019, table 2, as transformers' GPT2LMHeadModel, 1024 tokens",
        ),
        _transformer("llama-7b", transformers.llama, transformers.LLAMA_7B, _LLAMA),
        _transformer(
            "llama-7b-block",
            transformers.llama_block,
            transformers.LLAMA_7B,
            f"{_LLAMA}, one of 32 blocks",
        ),
    )
}


@arguments(WorkloadError, name=string, activation=maybe(string))
def network(name: str, activation: str | None = None) -> Network:
    """Return a network's layer table.

    Parameters
    ----------
    name : str
    activation : {"relu", "gelu", "gated"}, optional
        Of a transformer's MLPs, in place of its own: "relu" makes zeros, "gelu" none; "gated" is
        the SiLU of a linear layer, times another one. In LLaMA, whose own is "gated", the other two
        stand in the SiLU's place.

    Raises
    ------
    WorkloadError
        If there is none of that name, or no such activation, or it is no transformer.
    """
    if name not in NETWORKS:
        raise WorkloadError(unknown("network", name, NETWORKS))
    chosen = NETWORKS[name]
    return (chosen if activation is None else chosen.activated(activation))()
