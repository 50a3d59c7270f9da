"""The forward passes of convolutional networks, on a builder."""

from __future__ import annotations

from dataclasses import dataclass

from swatsim.workload.builder import Builder
from swatsim.workload.tape import Tensor, image

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

    def __call__(self, b: Builder, name: str, x: Tensor, filters: int, stride: int) -> Tensor:
        """Run one block: convolutions, an addition, a ReLU."""
        inner = self._bottleneck if self.expansion > 1 else self._basic
        y = inner(b, name, x, filters, stride)
        if (x.C, x.H) != (y.C, y.H):
            side = f"{name}.{self.shortcut}"
            x = b.normed(f"{side}.0 {side}.1", x, y.C, 1, stride, self.bias)
        return b.relu(f"{name}.relu_{self.convolutions - 1}", b.add(f"{name}.add", y, x))

    @property
    def convolutions(self) -> int:
        return 3 if self.expansion > 1 else 2

    def _basic(self, b: Builder, name: str, x: Tensor, filters: int, stride: int) -> Tensor:
        y = b.normed(f"{name}.conv1 {name}.bn1", x, filters, 3, stride, self.bias)
        y = b.relu(f"{name}.relu", y)
        return b.normed(f"{name}.conv2 {name}.bn2", y, filters, 3, 1, self.bias)

    def _bottleneck(self, b: Builder, name: str, x: Tensor, filters: int, stride: int) -> Tensor:
        inside, outside = filters * self.width, filters * self.expansion
        y = b.relu(f"{name}.relu", b.normed(f"{name}.conv1 {name}.bn1", x, inside, 1, 1))
        y = b.normed(f"{name}.conv2 {name}.bn2", y, inside, 3, stride)
        return b.normed(f"{name}.conv3 {name}.bn3", b.relu(f"{name}.relu_1", y), outside, 1, 1)

    def stages(self, b: Builder, x: Tensor, depths: tuple[int, ...]) -> Tensor:
        """Run the four stages; each but the first halves the size."""
        for stage, (depth, filters) in enumerate(zip(depths, FILTERS, strict=True), 1):
            for i in range(depth):
                stride = 2 if stage > 1 and i == 0 else 1
                x = self(b, f"layer{stage}.{i}", x, filters, stride)
        return x


def _imagenet_resnet(b: Builder, depths: tuple[int, ...], blocks: _Blocks) -> None:
    x = b.normed("conv1 bn1", image(3, 224), 64, 7, 2)
    x = b.max_pool("maxpool", b.relu("relu", x), 3, 2, 1)
    x = blocks.stages(b, x, depths)
    b.loss(b.linear("fc", b.mean("avgpool", x), 1000))


def resnet18(b: Builder) -> None:
    """Run ResNet-18."""
    _imagenet_resnet(b, RESNET18, _Blocks(shortcut="downsample"))


def resnet50(b: Builder) -> None:
    """Run ResNet-50."""
    _imagenet_resnet(b, RESNET50, _Blocks(expansion=4, shortcut="downsample"))


def wrn50_2(b: Builder) -> None:
    """Run a ResNet-50 whose 3x3 convolutions are twice as wide."""
    _imagenet_resnet(b, RESNET50, _Blocks(expansion=4, width=2, shortcut="downsample"))


def resnet18_cifar(b: Builder) -> None:
    """Run ResNet-18 on small images."""
    blocks = _Blocks(bias=True)
    x = b.relu("relu", b.normed("conv1 bn1", image(3, 32), 64, 3, 1, bias=True))
    x = b.avg_pool("avg_pool2d", blocks.stages(b, x, RESNET18), 4)
    b.loss(b.linear("linear", x, 10))


def resnet8(b: Builder) -> None:
    """Run three residual blocks."""
    x = b.relu("relu", b.normed("conv1 bn1", image(1, 28), 16, 3, 1))
    for i, (filters, stride) in enumerate(((16, 1), (32, 2), (64, 2))):
        x = _Blocks()(b, f"stages.{i}", x, filters, stride)
    b.loss(b.linear("fc", b.mean("mean", x), 10))


# ---- the other ones of SWAT's CIFAR code -------------------------------------------------------


def wrn16_8_cifar(b: Builder) -> None:
    """Run a wide residual network, with batch norm and ReLU before each convolution."""
    x = b.conv("conv1", image(3, 32), 16)
    for stage, filters in enumerate((128, 256, 512), 1):
        for i in range(2):
            stride = 2 if stage > 1 and i == 0 else 1
            x = _wide_block(b, f"block{stage}.layer.{i}", x, filters, stride)
    x = b.avg_pool("avg_pool2d", b.relu("relu", b.batch_norm("bn1", x)), 8)
    b.loss(b.linear("fc", x, 10))


def _wide_block(b: Builder, name: str, x: Tensor, filters: int, stride: int) -> Tensor:
    """Run batch norm and ReLU before each convolution; dropout between the two."""
    y = b.relu(f"{name}.relu1", b.batch_norm(f"{name}.bn1", x))
    z = b.normed(f"{name}.conv1 {name}.bn2", y, filters, 3, stride)
    z = b.dropout(f"{name}.dropout", b.relu(f"{name}.relu2", z))
    z = b.conv(f"{name}.conv2", z, filters)
    if x.C != z.C:
        x = b.conv(f"{name}.convShortcut", y, filters, 1, stride)
    return b.add(f"{name}.add", z, x)


def vgg16_cifar(b: Builder) -> None:
    """Run VGG-16 with batch norm, on small images."""
    x, i = image(3, 32), 0
    for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = b.normed(f"features.{i} features.{i + 1}", x, filters, 3, 1, bias=True)
            x, i = b.relu(f"features.{i + 2}", x), i + 3
        x, i = b.max_pool(f"features.{i}", x, 2, 2, 0), i + 1
    for i in (0, 3):
        x = b.relu(f"classifier.{i + 1}", b.linear(f"classifier.{i}", x, 4096))
        x = b.dropout(f"classifier.{i + 2}", x)
    b.loss(b.linear("classifier.6", x, 10))


def densenet121_cifar(b: Builder) -> None:
    """Run DenseNet-121 on small images."""
    x = b.conv("conv1", image(3, 32), 64)
    for stage, depth in enumerate((6, 12, 24, 16), 1):
        for i in range(depth):
            x = _dense_block(b, f"dense{stage}.{i}", x)
        if stage < 4:
            x = _transition(b, f"trans{stage}", x)
    x = b.avg_pool("avg_pool2d", b.relu("relu", b.batch_norm("bn", x)), 4)
    b.loss(b.linear("linear", x, 10))


def _dense_block(b: Builder, name: str, x: Tensor, growth: int = 32) -> Tensor:
    y = b.relu(f"{name}.relu", b.batch_norm(f"{name}.bn1", x))
    y = b.normed(f"{name}.conv1 {name}.bn2", y, 4 * growth, 1, 1)
    y = b.conv(f"{name}.conv2", b.relu(f"{name}.relu_1", y), growth)
    return b.join(f"{name}.cat", y, x)


def _transition(b: Builder, name: str, x: Tensor) -> Tensor:
    y = b.relu(f"{name}.relu", b.batch_norm(f"{name}.bn", x))
    return b.avg_pool(f"{name}.avg_pool2d", b.conv(f"{name}.conv", y, x.C // 2, 1), 2)


# ---- the same two at 224 x 224 -------------------------------------------------------------------


def vgg16(b: Builder) -> None:
    """Run VGG-16, without batch norm."""
    x, i = image(3, 224), 0
    for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            x = b.relu(f"features.{i + 1}", b.conv(f"features.{i}", x, filters, bias=True))
            i += 2
        x, i = b.max_pool(f"features.{i}", x, 2, 2, 0), i + 1
    x = b.avg_pool("avgpool", x, 1)
    for i in (0, 3):
        x = b.relu(f"classifier.{i + 1}", b.linear(f"classifier.{i}", x, 4096))
        x = b.dropout(f"classifier.{i + 2}", x)
    b.loss(b.linear("classifier.6", x, 1000))


def densenet121(b: Builder) -> None:
    """Run DenseNet-121."""
    x = b.normed("features.conv0 features.norm0", image(3, 224), 64, 7, 2)
    x = b.max_pool("features.pool0", b.relu("features.relu0", x), 3, 2, 1)
    for stage, depth in enumerate((6, 12, 24, 16), 1):
        x = _concatenating(b, f"features.denseblock{stage}", x, depth)
        if stage < 4:
            name = f"features.transition{stage}"
            y = b.relu(f"{name}.relu", b.batch_norm(f"{name}.norm", x))
            x = b.avg_pool(f"{name}.pool", b.conv(f"{name}.conv", y, x.C // 2, 1), 2)
    x = b.relu("relu", b.batch_norm("features.norm5", x))
    b.loss(b.linear("classifier", b.mean("adaptive_avg_pool2d", x), 1000))


def _concatenating(b: Builder, name: str, x: Tensor, depth: int, growth: int = 32) -> Tensor:
    """Run a block each of whose layers reads what all before it made, concatenated anew."""
    made = [x]
    for i in range(1, depth + 1):
        own = f"{name}.denselayer{i}"
        y = b.relu(f"{own}.relu1", b.batch_norm(f"{own}.norm1", b.join(f"{own}.cat", *made)))
        y = b.normed(f"{own}.conv1 {own}.norm2", y, 4 * growth, 1)
        made.append(b.conv(f"{own}.conv2", b.relu(f"{own}.relu2", y), growth))
    return b.join(f"{name}.cat", *made)


# ---- depthwise convolutions ----------------------------------------------------------------------


def mobilenet_v2(b: Builder) -> None:
    """Run MobileNetV2: no activation ends a block, so that the next layer's input is dense."""
    x = _normed6(b, "features.0", image(3, 224), 32, 3, 2)
    i = 1
    for expand, filters, depth, first in _INVERTED:
        for j in range(depth):
            x = _inverted(b, f"features.{i}", x, filters, 1 if j else first, expand)
            i += 1
    x = b.mean("adaptive_avg_pool2d", _normed6(b, "features.18", x, 1280, 1))
    b.loss(b.linear("classifier.1", b.dropout("classifier.0", x), 1000))


#: Of MobileNetV2, by stage: expansion, filters, blocks, stride of the first.
_INVERTED = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


def _normed6(
    b: Builder, name: str, x: Tensor, K: int, kernel: int, stride: int = 1, groups: int = 1
) -> Tensor:
    y = b.conv(f"{name}.0", x, K, kernel, stride, groups=groups)
    return b.relu6(f"{name}.2", b.batch_norm(f"{name}.1", y))


def _inverted(b: Builder, name: str, x: Tensor, filters: int, stride: int, expand: int) -> Tensor:
    y, wide, i = x, x.C * expand, 0
    if expand > 1:
        y, i = _normed6(b, f"{name}.conv.0", y, wide, 1), 1
    y = _normed6(b, f"{name}.conv.{i}", y, wide, 3, stride, wide)
    y = b.normed(f"{name}.conv.{i + 1} {name}.conv.{i + 2}", y, filters, 1)
    return b.add(f"{name}.add", x, y) if (x.C, x.H) == (y.C, y.H) else y
