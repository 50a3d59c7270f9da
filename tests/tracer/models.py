"""Torch modules of the networks whose layer tables ship: the second opinion of the tests.

Written for the tests, after torchvision's structure and names and after those of SWAT's CIFAR code.
"""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.tracer.today import MobileNetV2

ROOT = Path(__file__).parents[2]


class Block(nn.Module):
    """A residual block of torchvision's: two 3x3 convolutions, or a bottleneck of three."""

    def __init__(self, channels: int, filters: int, stride: int, width: int = 0) -> None:
        super().__init__()
        wide = bool(width)
        sizes = ((width, 1, 1), (width, 3, stride), (filters * 4, 1, 1)) if wide else None
        sizes = sizes or ((filters, 3, stride), (filters, 3, 1))
        self.steps, before = len(sizes), channels
        for i, (K, kernel, step) in enumerate(sizes, 1):
            conv = nn.Conv2d(before, K, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(K))
            before = K
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != before:
            conv = nn.Conv2d(channels, before, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(before))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.steps + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = self.relu(y) if i < self.steps else y
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet(nn.Module):
    """torchvision's ResNet; `width` is that of the first bottlenecks, 0 for basic blocks."""

    def __init__(self, depths: tuple[int, ...], width: int = 0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for i, depth in enumerate(depths):
            filters, blocks = 64 * 2**i, []
            for j in range(depth):
                stride = 2 if i and not j else 1
                blocks.append(Block(channels, filters, stride, width * 2**i))
                channels = filters * (4 if width else 1)
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class BiasedBlock(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut = nn.Sequential()
        if stride != 1:
            conv = nn.Conv2d(channels, filters, 1, stride)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return functional.relu(y)


class CifarResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 1, 1), nn.BatchNorm2d(64)
        channels = 64
        for i, filters in enumerate((64, 128, 256, 512), 1):
            first = BiasedBlock(channels, filters, 1 if i == 1 else 2)
            self.add_module(f"layer{i}", nn.Sequential(first, BiasedBlock(filters, filters, 1)))
            channels = filters
        self.linear = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(functional.avg_pool2d(x, 4).flatten(1))


class WideBlock(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(filters), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.same = channels == filters
        if not self.same:
            self.convShortcut = nn.Conv2d(channels, filters, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(x))
        z = functional.dropout(self.relu2(self.bn2(self.conv1(y))), 0.3, self.training)
        return self.conv2(z) + (x if self.same else self.convShortcut(y))


class Stage(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet16(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(WideBlock(16, 128, 1), WideBlock(128, 128, 1))
        self.block2 = Stage(WideBlock(128, 256, 2), WideBlock(256, 256, 1))
        self.block3 = Stage(WideBlock(256, 512, 2), WideBlock(512, 512, 1))
        self.bn1, self.relu = nn.BatchNorm2d(512), nn.ReLU(inplace=True)
        self.fc = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(functional.avg_pool2d(self.relu(self.bn1(x)), 8).view(-1, 512))


class Vgg16(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        modules, channels = [], 3
        for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(depth):
                modules += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters)]
                modules.append(nn.ReLU(inplace=True))
                channels = filters
            modules.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*modules)
        hidden = [nn.Linear(512, 4096), nn.ReLU(inplace=True), nn.Dropout()]
        more = [nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()]
        self.classifier = nn.Sequential(*hidden, *more, nn.Linear(4096, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class PlainVgg16(nn.Module):
    """torchvision's vgg16: no batch norm, and an average that leaves 7 x 7 as they are."""

    def __init__(self) -> None:
        super().__init__()
        modules, channels = [], 3
        for filters, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(depth):
                modules += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
                channels = filters
            modules.append(nn.MaxPool2d(2, 2))
        self.features, self.avgpool = nn.Sequential(*modules), nn.AdaptiveAvgPool2d(7)
        hidden = [nn.Linear(25088, 4096), nn.ReLU(inplace=True), nn.Dropout()]
        more = [nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()]
        self.classifier = nn.Sequential(*hidden, *more, nn.Linear(4096, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class DenseLayer(nn.Module):
    """A layer of torchvision's densenet121, which reads all that was made before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels, 128, 1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(128), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, *made: Tensor) -> Tensor:
        y = self.conv1(self.relu1(self.norm1(torch.cat(made, 1))))
        return self.conv2(self.relu2(self.norm2(y)))


class Concatenating(nn.ModuleDict):
    def forward(self, x: Tensor) -> Tensor:
        made = [x]
        for layer in self.values():
            made.append(layer(*made))
        return torch.cat(made, 1)


class ImagenetDenseNet121(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        conv, channels = nn.Conv2d(3, 64, 7, 2, 3, bias=False), 64
        parts: dict[str, nn.Module] = {"conv0": conv, "norm0": nn.BatchNorm2d(64)}
        parts |= {"relu0": nn.ReLU(inplace=True), "pool0": nn.MaxPool2d(3, 2, 1)}
        for i, depth in enumerate((6, 12, 24, 16), 1):
            layers = {f"denselayer{j + 1}": DenseLayer(channels + 32 * j) for j in range(depth)}
            parts[f"denseblock{i}"] = Concatenating(layers)
            channels += 32 * depth
            if i < 4:
                norm, relu = nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
                conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
                own = OrderedDict(norm=norm, relu=relu, conv=conv, pool=nn.AvgPool2d(2, 2))
                parts[f"transition{i}"], channels = nn.Sequential(own), channels // 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features, self.classifier = (
            nn.Sequential(OrderedDict(parts)),
            nn.Linear(channels, 1000),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), 1))


class DenseBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 128, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(128), nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.bn1(x)))
        return torch.cat([self.conv2(functional.relu(self.bn2(y))), x], 1)


class Transition(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(functional.relu(self.bn(x))), 2)


class DenseNet121(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, channels = nn.Conv2d(3, 64, 3, padding=1, bias=False), 64
        for i, depth in enumerate((6, 12, 24, 16), 1):
            blocks = [DenseBlock(channels + 32 * j) for j in range(depth)]
            self.add_module(f"dense{i}", nn.Sequential(*blocks))
            channels += 32 * depth
            if i < 4:
                self.add_module(f"trans{i}", Transition(channels))
                channels //= 2
        self.bn, self.linear = nn.BatchNorm2d(channels), nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.trans3(self.dense3(self.trans2(self.dense2(x))))
        x = functional.relu(self.bn(self.dense4(x)))
        return self.linear(functional.avg_pool2d(x, 4).flatten(1))


def mobilenet_v2() -> nn.Module:
    """Build torchvision's MobileNetV2."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2))
    return MobileNetV2((*stages, (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)), (32, 1280, 1000))


def recorded_resnet8() -> nn.Module:
    """Build the ResNet-8 of the shipped trace."""
    path = ROOT / "traces" / "record_resnet8.py"
    spec = importlib.util.spec_from_file_location("record_resnet8", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ResNet()


#: Name in `swatsim.workload.networks` -> builder and an input's shape, without the batch.
MODELS = {
    "resnet18": (lambda: ResNet((2, 2, 2, 2)), (3, 224, 224)),
    "resnet50": (lambda: ResNet((3, 4, 6, 3), 64), (3, 224, 224)),
    "wrn50-2": (lambda: ResNet((3, 4, 6, 3), 128), (3, 224, 224)),
    "vgg16": (PlainVgg16, (3, 224, 224)),
    "densenet121": (ImagenetDenseNet121, (3, 224, 224)),
    "mobilenet-v2": (mobilenet_v2, (3, 224, 224)),
    "vgg16-cifar": (Vgg16, (3, 32, 32)),
    "resnet18-cifar": (CifarResNet18, (3, 32, 32)),
    "wrn16-8-cifar": (WideResNet16, (3, 32, 32)),
    "densenet121-cifar": (DenseNet121, (3, 32, 32)),
    "resnet8": (recorded_resnet8, (1, 28, 28)),
}
