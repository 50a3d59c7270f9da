"""Layer tables of published networks: what runs, in order, and what each module keeps.

Each network is written down as its forward pass: a `_Builder` method takes a tensor and gives the
next one, so that every size follows from the input's. Speaks convolution letters; C, H and W are
of one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from swatsim.arguments import arguments, string
from swatsim.errors import WorkloadError, unknown
from swatsim.workload.layer import Layer
from swatsim.workload.tables import Network, Saved


@dataclass(frozen=True)
class _Tensor:
    """One sample of a module's output, named after that module."""

    name: str
    C: int
    H: int
    W: int


class _Builder:
    """Writes down a network while its forward pass is told."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.saved: list[Saved] = []
        self.inputs: dict[str, str] = {}
        self.biased: set[str] = set()

    def build(self, name: str, citation: str) -> Network:
        inputs = MappingProxyType(self.inputs)
        layers, saved = tuple(self.layers), tuple(self.saved)
        return Network(name, citation, layers, saved, frozenset(self.biased), inputs)

    def conv(
        self, name: str, x: _Tensor, K: int, kernel: int = 3, stride: int = 1, bias: bool = False
    ) -> _Tensor:
        """Add a convolution, padded by half of the kernel."""
        sizes: dict[str, int] = {"C": x.C, "K": K, "H": x.H, "W": x.W, "R": kernel, "S": kernel}
        layer = Layer(name=name, stride=stride, padding=kernel // 2, **sizes)
        return self._run(layer, x, bias)

    def linear(self, name: str, x: _Tensor, K: int) -> _Tensor:
        """Add a linear layer that reads a tensor flat; all here have a bias."""
        return self._run(Layer(name=name, kind="linear", C=x.C * x.H * x.W, K=K), x, bias=True)

    def _run(self, layer: Layer, x: _Tensor, bias: bool) -> _Tensor:
        self.layers.append(layer)
        self.inputs[layer.name] = x.name
        if bias:
            self.biased.add(layer.name)
        return _Tensor(layer.name, layer.K, layer.P, layer.Q)

    def batch_norm(self, name: str, x: _Tensor) -> _Tensor:
        self._keep("batch_norm", name, x)
        statistics = {"tensor": f"{name}.statistics", "fixed": 2 * x.C}
        self.saved.append(Saved(name, "statistics", 0, 1, 1, **statistics))  # type: ignore[arg-type]
        return replace(x, name=name)

    def relu(self, name: str, x: _Tensor) -> _Tensor:
        y = replace(x, name=name)
        self._keep("relu", name, y)
        return y

    def max_pool(self, name: str, x: _Tensor, kernel: int, stride: int, padding: int) -> _Tensor:
        H, W = ((size + 2 * padding - kernel) // stride + 1 for size in (x.H, x.W))
        y = _Tensor(name, x.C, H, W)
        self._keep("max_pool", name, x)
        self._keep("max_pool_indices", name, replace(y, name=f"{name}.indices"))
        return y

    def avg_pool(self, name: str, x: _Tensor, kernel: int) -> _Tensor:
        self._keep("avg_pool", name, x)
        return _Tensor(name, x.C, x.H // kernel, x.W // kernel)

    def mean(self, name: str, x: _Tensor) -> _Tensor:
        """Return the average over H and W: nothing is saved."""
        return _Tensor(name, x.C, 1, 1)

    def dropout(self, name: str, x: _Tensor) -> _Tensor:
        self._keep("dropout", name, replace(x, name=f"{name}.mask"))
        return replace(x, name=name)

    def join(self, name: str, *tensors: _Tensor) -> _Tensor:
        """Return tensors with their channels concatenated: nothing is saved."""
        return replace(tensors[0], name=name, C=sum(x.C for x in tensors))

    def _keep(self, kind: str, name: str, x: _Tensor) -> None:
        self.saved.append(Saved(name, kind, x.C, x.H, x.W, x.name))

    def normed(
        self, names: str, x: _Tensor, K: int, kernel: int = 3, stride: int = 1, bias: bool = False
    ) -> _Tensor:
        """Add a convolution and its batch norm, whose names are one string."""
        conv, norm = names.split()
        return self.batch_norm(norm, self.conv(conv, x, K, kernel, stride, bias))


# ---- residual networks -------------------------------------------------------------------------

#: Blocks of the four stages of a residual network, and the filters of their 3x3 convolutions.
FILTERS = (64, 128, 256, 512)
RESNET18, RESNET50 = (2, 2, 2, 2), (3, 4, 6, 3)


@dataclass(frozen=True)
class _Blocks:
    """How the residual blocks of a network are made."""

    expansion: int = 1  # filters of a block's output, as a multiple; above 1 it has a bottleneck
    width: int = 1  # of the 3x3 convolutions inside a bottleneck, as a multiple
    shortcut: str = "shortcut"
    bias: bool = False

    def __call__(self, b: _Builder, name: str, x: _Tensor, filters: int, stride: int) -> _Tensor:
        """Run one block: convolutions, an addition, a ReLU."""
        inner = self._bottleneck if self.expansion > 1 else self._basic
        y = inner(b, name, x, filters, stride)
        if (x.C, x.H) != (y.C, y.H):
            side = f"{name}.{self.shortcut}"
            b.normed(f"{side}.0 {side}.1", x, y.C, 1, stride, self.bias)
        return b.relu(f"{name}.relu_{self.convolutions - 1}", y)

    @property
    def convolutions(self) -> int:
        return 3 if self.expansion > 1 else 2

    def _basic(self, b: _Builder, name: str, x: _Tensor, filters: int, stride: int) -> _Tensor:
        y = b.normed(f"{name}.conv1 {name}.bn1", x, filters, 3, stride, self.bias)
        y = b.relu(f"{name}.relu", y)
        return b.normed(f"{name}.conv2 {name}.bn2", y, filters, 3, 1, self.bias)

    def _bottleneck(self, b: _Builder, name: str, x: _Tensor, filters: int, stride: int) -> _Tensor:
        inside, outside = filters * self.width, filters * self.expansion
        y = b.relu(f"{name}.relu", b.normed(f"{name}.conv1 {name}.bn1", x, inside, 1, 1))
        y = b.normed(f"{name}.conv2 {name}.bn2", y, inside, 3, stride)
        return b.normed(f"{name}.conv3 {name}.bn3", b.relu(f"{name}.relu_1", y), outside, 1, 1)

    def stages(self, b: _Builder, x: _Tensor, depths: tuple[int, ...]) -> _Tensor:
        """Run the four stages; each but the first halves the size."""
        for stage, (depth, filters) in enumerate(zip(depths, FILTERS, strict=True), 1):
            for i in range(depth):
                stride = 2 if stage > 1 and i == 0 else 1
                x = self(b, f"layer{stage}.{i}", x, filters, stride)
        return x


def _imagenet_resnet(b: _Builder, depths: tuple[int, ...], blocks: _Blocks) -> None:
    x = b.normed("conv1 bn1", _Tensor("input", 3, 224, 224), 64, 7, 2)
    x = b.max_pool("maxpool", b.relu("relu", x), 3, 2, 1)
    x = blocks.stages(b, x, depths)
    b.linear("fc", b.mean("avgpool", x), 1000)


def _resnet18(b: _Builder) -> None:
    _imagenet_resnet(b, RESNET18, _Blocks(shortcut="downsample"))


def _resnet50(b: _Builder) -> None:
    _imagenet_resnet(b, RESNET50, _Blocks(expansion=4, shortcut="downsample"))


def _wrn50_2(b: _Builder) -> None:
    _imagenet_resnet(b, RESNET50, _Blocks(expansion=4, width=2, shortcut="downsample"))


def _resnet18_cifar(b: _Builder) -> None:
    blocks = _Blocks(bias=True)
    x = b.relu("relu", b.normed("conv1 bn1", _Tensor("input", 3, 32, 32), 64, 3, 1, bias=True))
    x = b.avg_pool("avg_pool2d", blocks.stages(b, x, RESNET18), 4)
    b.linear("linear", x, 10)


def _resnet8(b: _Builder) -> None:
    x = b.relu("relu", b.normed("conv1 bn1", _Tensor("input", 1, 28, 28), 16, 3, 1))
    for i, (filters, stride) in enumerate(((16, 1), (32, 2), (64, 2))):
        x = _Blocks()(b, f"stages.{i}", x, filters, stride)
    b.linear("fc", b.mean("mean", x), 10)


# ---- the other ones of SWAT's CIFAR code -------------------------------------------------------


def _wrn16_8_cifar(b: _Builder) -> None:
    x = b.conv("conv1", _Tensor("input", 3, 32, 32), 16)
    for stage, filters in enumerate((128, 256, 512), 1):
        for i in range(2):
            stride = 2 if stage > 1 and i == 0 else 1
            x = _wide_block(b, f"block{stage}.layer.{i}", x, filters, stride)
    x = b.avg_pool("avg_pool2d", b.relu("relu", b.batch_norm("bn1", x)), 8)
    b.linear("fc", x, 10)


def _wide_block(b: _Builder, name: str, x: _Tensor, filters: int, stride: int) -> _Tensor:
    """Run batch norm and ReLU before each convolution; dropout between the two."""
    y = b.relu(f"{name}.relu1", b.batch_norm(f"{name}.bn1", x))
    z = b.normed(f"{name}.conv1 {name}.bn2", y, filters, 3, stride)
    z = b.dropout(f"{name}.dropout", b.relu(f"{name}.relu2", z))
    z = b.conv(f"{name}.conv2", z, filters)
    if x.C != z.C:
        b.conv(f"{name}.convShortcut", y, filters, 1, stride)
    return replace(z, name=f"{name}.add")


def _vgg16_cifar(b: _Builder) -> None:
    x, i = _Tensor("input", 3, 32, 32), 0
    for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = b.normed(f"features.{i} features.{i + 1}", x, filters, 3, 1, bias=True)
            x, i = b.relu(f"features.{i + 2}", x), i + 3
        x, i = b.max_pool(f"features.{i}", x, 2, 2, 0), i + 1
    for i in (0, 3):
        x = b.relu(f"classifier.{i + 1}", b.linear(f"classifier.{i}", x, 4096))
        x = b.dropout(f"classifier.{i + 2}", x)
    b.linear("classifier.6", x, 10)


def _densenet121_cifar(b: _Builder) -> None:
    x = b.conv("conv1", _Tensor("input", 3, 32, 32), 64)
    for stage, depth in enumerate((6, 12, 24, 16), 1):
        for i in range(depth):
            x = _dense_block(b, f"dense{stage}.{i}", x)
        if stage < 4:
            x = _transition(b, f"trans{stage}", x)
    x = b.avg_pool("avg_pool2d", b.relu("relu", b.batch_norm("bn", x)), 4)
    b.linear("linear", x, 10)


def _dense_block(b: _Builder, name: str, x: _Tensor, growth: int = 32) -> _Tensor:
    y = b.relu(f"{name}.relu", b.batch_norm(f"{name}.bn1", x))
    y = b.normed(f"{name}.conv1 {name}.bn2", y, 4 * growth, 1, 1)
    y = b.conv(f"{name}.conv2", b.relu(f"{name}.relu_1", y), growth)
    return b.join(f"{name}.cat", y, x)


def _transition(b: _Builder, name: str, x: _Tensor) -> _Tensor:
    y = b.relu(f"{name}.relu", b.batch_norm(f"{name}.bn", x))
    return b.avg_pool(f"{name}.avg_pool2d", b.conv(f"{name}.conv", y, x.C // 2, 1), 2)


# ---- the list ----------------------------------------------------------------------------------

_RESNET = "He et al., CVPR 2016, table 1"
_WRN = "Zagoruyko and Komodakis, BMVC 2016"
_SWAT = "as in SWAT's CIFAR code (github.com/AamirRaihan/SWAT)"


@dataclass(frozen=True)
class Blueprint:
    """A network that is not built yet: call it.

    Parameters
    ----------
    name : str
    forward : callable
        Runs the network's layers, on a builder.
    citation : str
    """

    name: str
    forward: Callable[[_Builder], Any]
    citation: str

    def __call__(self) -> Network:
        """Return the layer table, built."""
        builder = _Builder()
        self.forward(builder)
        return builder.build(self.name, self.citation)


#: Name -> what builds the network: the one list.
NETWORKS: Mapping[str, Blueprint] = {
    entry.name: entry
    for entry in (
        Blueprint("resnet18", _resnet18, f"{_RESNET}, as torchvision's, 224x224"),
        Blueprint(
            "resnet50", _resnet50, f"{_RESNET}, as torchvision's (stride on the 3x3), 224x224"
        ),
        Blueprint("wrn50-2", _wrn50_2, f"{_WRN}, as torchvision's wide_resnet50_2, 224x224"),
        Blueprint(
            "vgg16-cifar", _vgg16_cifar, f"Simonyan and Zisserman, ICLR 2015, {_SWAT}, 32x32"
        ),
        Blueprint("resnet18-cifar", _resnet18_cifar, f"{_RESNET}, {_SWAT}, 32x32"),
        Blueprint("wrn16-8-cifar", _wrn16_8_cifar, f"{_WRN}, {_SWAT}, 32x32"),
        Blueprint(
            "densenet121-cifar", _densenet121_cifar, f"Huang et al., CVPR 2017, {_SWAT}, 32x32"
        ),
        Blueprint("resnet8", _resnet8, "He et al., CVPR 2016, section 4.2, three blocks, 28x28"),
    )
}


@arguments(WorkloadError, name=string)
def network(name: str) -> Network:
    """Return a network's layer table.

    Raises
    ------
    WorkloadError
        If there is none of that name.
    """
    if name not in NETWORKS:
        raise WorkloadError(unknown("network", name, NETWORKS))
    return NETWORKS[name]()
