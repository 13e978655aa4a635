"""Row 24: torch twins of the four MLPerf Tiny reference models (Banbury et al. 2021, 2106.07597).

resnet8       image [B, 3, 32, 32] (0 to 255)  -> Conv 16, residual blocks of 16, 32, 64 -> logits [B, 10]
ds_cnn        mfcc [B, 1, 49, 10]              -> Conv 10x4 of 64, four depthwise-separable blocks -> logits [B, 12]
mobilenet_v1  image [B, 3, 96, 96] (0 to 1)    -> MobileNetV1, width 0.25 (Howard et al. 2017, 1704.04861) -> [B, 2]
autoencoder   spectrum [B, 640] (5 frames)     -> Linear 128 x 4, 8, 128 x 4 with BatchNorm -> spectrum [B, 640]

Convolutions are padded as TensorFlow's `same`: with stride 2 one more at the end than at the start. That is what lets
`load` fill a twin with the weights of the reference `.tflite` file. Simplified: no softmax at the end, no dropout.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from edgekit.students.sampling import Arrays, check_size, images, seeded, settle_batch_norm, spread_answers
from edgekit_runtime.errors import Refused, UsageError

# MobileNetV1 at width 0.25: channels and stride of each depthwise-separable block.
MOBILENET = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))
MOBILENET_TINY = ((8, 2), (16, 2), (16, 1))
SPECTRUM = 640
Twin = TypeVar("Twin", bound=nn.Module)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's `same`: ceil(size / stride) outputs, the odd zero at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] to [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        padding: list[int] = []
        for axis in (1, 0):  # nn.functional.pad counts from the last axis
            size, kernel, stride = x.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            padding += [missing // 2, missing - missing // 2]
        return super().forward(nn.functional.pad(x, padding))


def _conv(inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def _separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, inputs, 3, stride, groups=inputs), _conv(inputs, outputs, 1))


class Residual(nn.Module):
    """Two convolutions and an addition; where the size changes the shortcut is a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(inputs, outputs, 3, stride)
        self.second = _conv(outputs, outputs, 3)[:2]
        self.shortcut = nn.Identity() if stride == 1 else SameConv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


class Pooled(nn.Module):
    """Blocks, the mean over all places, one linear layer."""

    def __init__(self, blocks: list[nn.Module], width: int, classes: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)


class Classifier(Pooled):
    """ResNet8 and MobileNetV1 0.25; see the module's docstring."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image [B, 3, H, W] float32 to logits [B, classes]."""
        return self.head(self.blocks(image).mean((2, 3)))


class DsCnn(Pooled):
    """The keyword spotter; see the module's docstring."""

    def forward(self, mfcc: torch.Tensor) -> torch.Tensor:
        """MFCC [B, 1, 49, 10] float32 to logits [B, 12]."""
        return self.head(self.blocks(mfcc).mean((2, 3)))


class Autoencoder(nn.Module):
    """The anomaly detector: how badly it repeats a spectrum tells how unusual a machine sounds.

    Args:
        width: Of the layers on both sides.
        bottleneck: Of the one in the middle.
    """

    def __init__(self, width: int = 128, bottleneck: int = 8) -> None:
        super().__init__()
        widths = (SPECTRUM, width, width, width, width, bottleneck, width, width, width, width)
        layers = [nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(width, SPECTRUM)

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Spectrum [B, 640] float32 to its repetition [B, 640]."""
        return self.head(self.blocks(spectrum))


def resnet8(size: str = "full", seed: int = 0) -> Classifier:
    """Channels 16, 32, 64 (`tiny`: 8, 16, 32), seeded weights."""

    def make() -> Classifier:
        width = 16 if size == "full" else 8
        widths = ((width, width, 1), (width, 2 * width, 2), (2 * width, 4 * width, 2))
        return Classifier([_conv(3, width, 3), *(Residual(*shape) for shape in widths)], 4 * width, 10)

    return _settled(make, resnet8_example(32, seed=seed), size, seed)


def ds_cnn(size: str = "full", seed: int = 0) -> DsCnn:
    """64 filters, four blocks (`tiny`: 16 filters, two blocks), seeded weights."""

    def make() -> DsCnn:
        width, blocks = (64, 4) if size == "full" else (16, 2)
        return DsCnn([_conv(1, width, (10, 4), 2), *(_separable(width, width) for _ in range(blocks))], width, 12)

    return _settled(make, ds_cnn_example(32, seed=seed), size, seed)


def mobilenet_v1(size: str = "full", seed: int = 0) -> Classifier:
    """Width 0.25, 13 separable blocks (`tiny`: 3 blocks of 8 to 16 channels), seeded weights."""

    def make() -> Classifier:
        return mobilenet() if size == "full" else _mobilenet(4, MOBILENET_TINY, 2)

    return _settled(make, mobilenet_v1_example(32, seed=seed), size, seed)


def mobilenet(width: float = 0.25, classes: int = 2) -> Classifier:
    """MobileNetV1 with torch's first weights; its batch norm has seen nothing yet.

    Args:
        width: Of 1 has 32 to 1024 channels; a multiple of 1/32, so that all are whole.
        classes: Of the last layer.
    """
    if width <= 0 or width * 32 != round(width * 32):
        raise UsageError(f"a MobileNet of width {width:g} has channels that are not whole", remedy="0.25, 0.5, 1 ...")
    table = [(round(4 * width * outputs), stride) for outputs, stride in MOBILENET]
    return _mobilenet(round(32 * width), table, classes)


def _mobilenet(width: int, table: Sequence[tuple[int, int]], classes: int) -> Classifier:
    blocks: list[nn.Module] = [_conv(3, width, 3, 2)]
    for outputs, stride in table:
        blocks.append(_separable(width, outputs, stride))
        width = outputs
    return Classifier(blocks, width, classes)


def autoencoder(size: str = "full", seed: int = 0) -> Autoencoder:
    """Width 128, bottleneck 8 (`tiny`: width 32), seeded weights."""
    return _settled(lambda: Autoencoder(128 if size == "full" else 32), autoencoder_example(64, seed=seed), size, seed)


def resnet8_example(batch: int = 2, length: int = 0, size: str = "full", seed: int = 0) -> Arrays:
    """Random pictures: `image` [batch, 3, 32, 32] float32 in 0 to 255. `length` and `size` change nothing."""
    return {"image": np.clip(128 + 50 * images(batch, 3, 32, seed), 0, 255)}


def mobilenet_v1_example(batch: int = 2, length: int = 0, size: str = "full", seed: int = 0) -> Arrays:
    """Random pictures: `image` [batch, 3, 96, 96] float32 in 0 to 1. `length` and `size` change nothing."""
    return {"image": np.clip(0.5 + 0.2 * images(batch, 3, 96, seed), 0, 1)}


def ds_cnn_example(batch: int = 2, length: int = 0, size: str = "full", seed: int = 0) -> Arrays:
    """Random spectra: `mfcc` [batch, 1, 49, 10] float32 of deviation 20. `length` and `size` change nothing."""
    return {"mfcc": np.ascontiguousarray(20 * images(batch, 1, 52, seed)[:, :, :49, :40:4])}


def autoencoder_example(batch: int = 2, length: int = 0, size: str = "full", seed: int = 0) -> Arrays:
    """Random spectra: `spectrum` [batch, 640] float32, decibels about -30. `length` and `size` change nothing."""
    smooth = images(batch, 1, 28, seed).reshape(batch, -1)[:, :SPECTRUM]
    return {"spectrum": np.ascontiguousarray(8 * smooth - 30)}


def keyword_features(codes: np.ndarray, scale: float = 0.58470290899, zero_point: int = 83) -> np.ndarray:
    """The published int8 inputs of the keyword spotter [N, 49, 10, 1] as the float twin reads them [N, 1, 49, 10].

    Args:
        codes: int8.
        scale: Of the input of the reference's int8 file.
        zero_point: The same.
    """
    return ((codes.astype(np.float32) - zero_point) * np.float32(scale)).transpose(0, 3, 1, 2)


@torch.no_grad()
def load(twin: nn.Module, path: Path | str) -> nn.Module:
    """Fills a twin with the weights of the reference's fp32 `.tflite` file, whose BatchNorm is folded.

    Args:
        twin: Of this module, at full size; changed in place.
        path: The reference file.

    Returns:
        The twin.

    Raises:
        Refused: The file's layers are not the twin's.
    """
    layers = [layer for layer in twin.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    norms = {id(layers[i]): norm for i, norm in _norms(twin)}
    found = list(_reference_layers(Path(path)))
    if [tuple(layer.weight.shape) for layer in layers] != [weight.shape for weight, _ in found]:
        raise Refused(
            f"{path} has layers {[w.shape for w, _ in found]}; the twin has {[tuple(x.weight.shape) for x in layers]}",
            remedy="give the fp32 reference file of this very model",
        )
    for layer, (weight, bias) in zip(layers, found, strict=True):
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        norm = norms.get(id(layer))
        if norm is not None:
            norm.running_mean.zero_()
            norm.running_var.fill_(1.0 - norm.eps)
            norm.weight.fill_(1.0)
            norm.bias.zero_()
        target = layer.bias if layer.bias is not None else norm.bias if norm is not None else None
        assert target is not None
        target.copy_(torch.from_numpy(bias.copy()))
    return twin


def _norms(twin: nn.Module) -> Iterator[tuple[int, nn.BatchNorm1d | nn.BatchNorm2d]]:
    """Each BatchNorm with the number of the layer in front of it."""
    count = -1
    for layer in twin.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            count += 1
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            yield count, layer


def _reference_layers(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights in torch's order of axes, and biases, in the order the file runs its layers."""
    from edgekit_converters.tflite import flatbuffer

    model = flatbuffer.read(path)
    subgraph = model.subgraphs[0]
    for kind, operator in flatbuffer.operators(model, subgraph):
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        tensors = [subgraph.tensors[int(index)] for index in operator.inputs[1:3]]
        weight, bias = (flatbuffer.data_of(model, tensor) for tensor in tensors)
        if weight is None or bias is None or bias.dtype != np.float32:
            raise Refused(f"{path} is quantized", remedy="give the fp32 reference file")
        if weight.dtype == np.int8:  # the keyword spotter's file stores some weights so, with one scale a tensor
            weight = weight.astype(np.float32) * np.asarray(tensors[0].quantization.scale, np.float32)
        axes = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2), "FULLY_CONNECTED": (0, 1)}[kind]
        yield weight.transpose(axes), bias


def _settled(make: Callable[[], Twin], batch: Arrays, size: str, seed: int) -> Twin:
    check_size(size)
    with seeded(seed):
        twin = make()
    settle_batch_norm(twin, batch)
    spread_answers(twin, {"output": twin.head}, batch)
    return twin.eval()
