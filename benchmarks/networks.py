"""Well-known networks as lists of operators, without weights: what published figures of boards were measured on.

Layers are those of the papers: AlexNet (one column, as ncnn has it), VGG-16, SqueezeNet 1.1, ResNet-18,
-50 and -101, Wide ResNet-50-2, MobileNet v1 and v2. The MLPerf Tiny references are read from their own files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from edgekit.devices import work_of
from edgekit_runtime.macs import macs
from edgekit_runtime.measurement import OpCost

Shape = tuple[int, ...]
MLPERF_TINY = {
    "mlperf_tiny_ad": "ad01_int8.tflite",
    "mlperf_tiny_resnet8": "pretrainedResnet_quant.tflite",
    "mlperf_tiny_ds_cnn": "kws_ref_model.tflite",
    "mlperf_tiny_mobilenet_v1": "vww_96_int8.tflite",
}


class Net:
    """Builds a list of operators, one picture [side, side, channels] after the other."""

    def __init__(self, side: int, *, int8: bool) -> None:
        self.side, self.channels, self.int8 = side, 3, int8
        self.ops: list[OpCost] = []

    def conv(self, channels: int, kernel: int = 3, stride: int = 1, *, valid: bool = False, groups: int = 1) -> Net:
        before, depthwise = (1, self.side, self.side, self.channels), groups > 1
        reach = kernel - 1 if valid else 0
        self.side = math.ceil((self.side - reach) / stride)
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        weights = (1, kernel, kernel, channels) if depthwise else (channels, kernel, kernel, self.channels)
        self.channels = channels
        return self.add(kind, before, weights, (1, self.side, self.side, channels))

    def pool(self, kernel: int, stride: int) -> Net:
        before = (1, self.side, self.side, self.channels)
        self.side = math.ceil((self.side - kernel + 1) / stride) if kernel < self.side else 1
        return self.add("MAX_POOL_2D", before, (), (1, self.side, self.side, self.channels))

    def dense(self, channels: int) -> Net:
        size = self.side * self.side * self.channels
        self.side, self.channels = 1, channels
        return self.add("FULLY_CONNECTED", (1, size), (channels, size), (1, channels))

    def sum(self) -> Net:
        shape = (1, self.side, self.side, self.channels)
        return self.add("ADD", shape, shape, shape)

    def add(self, kind: str, first: Shape, second: Shape, answer: Shape) -> Net:
        shapes = (first, second) if second else (first,)
        item = 1 if self.int8 else 4
        moved = item * sum(math.prod(shape) for shape in (*shapes, answer))
        work = macs(kind, shapes, (answer,))
        name = f"{kind}_{len(self.ops)}"
        op = OpCost(name=name, kind=kind, macs=work, bytes=moved, int8=self.int8, inputs=shapes, outputs=(answer,))
        self.ops.append(op)
        return self


def alexnet(net: Net) -> None:
    net.side = 227
    net.conv(96, 11, 4, valid=True).pool(3, 2).conv(256, 5).pool(3, 2).conv(384).conv(384).conv(256).pool(3, 2)
    # Two groups in the second, fourth and fifth convolution: half of their products.
    for at in (2, 5, 6):
        op = net.ops[at]
        halved = (*tuple(op.inputs[1][:3]), op.inputs[1][3] // 2)
        net.ops[at] = OpCost(
            name=op.name, kind=op.kind, macs=(op.macs or 0) // 2, bytes=op.bytes, int8=op.int8,
            inputs=(op.inputs[0], halved), outputs=op.outputs,
        )  # fmt: skip
    net.dense(4096).dense(4096).dense(1000)


def vgg16(net: Net) -> None:
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            net.conv(channels)
        net.pool(2, 2)
    net.dense(4096).dense(4096).dense(1000)


def squeezenet(net: Net) -> None:
    net.side = 227
    net.conv(64, 3, 2, valid=True).pool(3, 2)
    for number, squeeze in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        if number in (2, 4):
            net.pool(3, 2)
        net.conv(squeeze, 1)
        net.conv(4 * squeeze, 1)
        net.channels = squeeze
        net.conv(4 * squeeze, 3)
        net.channels = 8 * squeeze
    net.conv(1000, 1).pool(net.side, 1)


def resnet18(net: Net) -> None:
    net.conv(64, 7, 2).pool(2, 2)
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for block in range(2):
            _shortcut(net, channels, stride if block == 0 else 1, block == 0 and stride > 1)
            net.conv(channels, 3, stride if block == 0 else 1).conv(channels).sum()
    net.pool(net.side, 1).dense(1000)


def _bottlenecks(net: Net, blocks: tuple[int, ...], width: int) -> None:
    net.conv(64, 7, 2).pool(2, 2)
    for channels, count, stride in zip((64, 128, 256, 512), blocks, (1, 2, 2, 2), strict=True):
        for block in range(count):
            first = block == 0
            _shortcut(net, 4 * channels, stride if first else 1, first)
            inner = width * channels
            net.conv(inner, 1).conv(inner, 3, stride if first else 1).conv(4 * channels, 1).sum()
    net.pool(net.side, 1).dense(1000)


def resnet50(net: Net) -> None:
    _bottlenecks(net, (3, 4, 6, 3), 1)


def resnet101(net: Net) -> None:
    _bottlenecks(net, (3, 4, 23, 3), 1)


def wide_resnet50(net: Net) -> None:
    _bottlenecks(net, (3, 4, 6, 3), 2)


def mobilenet_v1(net: Net) -> None:
    net.conv(32, 3, 2)
    for channels, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2)):
        net.conv(net.channels, 3, stride, groups=net.channels).conv(channels, 1)
    net.conv(1024, 3, 1, groups=1024).conv(1024, 1).pool(net.side, 1).dense(1000)


def mobilenet_v2(net: Net) -> None:
    net.conv(32, 3, 2)
    for factor, channels, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for block in range(count):
            wide = factor * net.channels
            if factor > 1:
                net.conv(wide, 1)
            net.conv(wide, 3, stride if block == 0 else 1, groups=wide).conv(channels, 1)
            if block:
                net.sum()
    net.conv(1280, 1).pool(net.side, 1).dense(1000)


def _shortcut(net: Net, channels: int, stride: int, projected: bool) -> None:
    if projected:
        side, before = net.side, net.channels
        net.conv(channels, 1, stride)
        net.side, net.channels = side, before


BUILDERS: dict[str, Callable[[Net], None]] = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "squeezenet": squeezenet,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "wide_resnet50": wide_resnet50,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
}


def ops(model: str, *, int8: bool, data: Path | None = None) -> tuple[OpCost, ...] | None:
    """The operators of a network; None for an MLPerf Tiny reference whose file is not here."""
    if model in BUILDERS:
        net = Net(224, int8=int8)
        BUILDERS[model](net)
        return tuple(net.ops)
    path = data / "models" / "mlperf_tiny" / MLPERF_TINY[model] if data else None
    return work_of(path)[0].ops if path is not None and path.is_file() else None
