"""Students with exits for `exits.py`, trained here: what is learnt from, what is judged on, and nothing in common."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from edgekit.students import bert, data, resnet_cifar
from edgekit.students.fit import Plan, fit
from edgekit.students.multi_exit import MultiExitCNN
from edgekit.students.sampling import seeded, settle_batch_norm
from edgekit.students.train import LONGEST_SENTENCE, mnist_task, sst2_task
from edgekit.training.exits import FirstWordHead, attach_exits

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Material:
    """A student with exits, samples to calibrate its int8 graphs and fit the path on, and samples to certify on."""

    module: nn.Module
    exits: tuple[str, ...]
    fit: Arrays
    held: Arrays
    held_labels: np.ndarray
    dynamic: tuple[str, ...]


def mnist(epochs: int = 4, samples: int = 10_000) -> Material:
    """A CNN with three exits, the first after one of nine blocks: 10,000 pictures to learn from, 2,000 held back."""
    task = mnist_task(0)
    with seeded(0):
        module = MultiExitCNN(1, (16, 32, 64), (1, 4, 4))
    settle_batch_norm(module, {"image": task.train["image"][:64]})
    train = {"image": task.train["image"][:samples]}
    fit(module, train, task.labels[:samples], Plan(epochs=epochs, batch=64, peak_rate=4e-3), progress=_say)
    chosen = {"image": task.train["image"][:1000]}
    return Material(module, ("exit_0", "exit_1", "exit_2"), chosen, task.held, task.held_labels, ("image:0=B:1-64",))


def resnet44(epochs: int = 8) -> Material:
    """The trained ResNet44 with four exits on its frozen body: heads learn from the training pictures alone."""
    train, held = data.cifar10("train"), data.cifar10("eval")
    body = resnet_cifar.load(data.folder() / "models" / "resnet_cifar10" / "resnet44-014dd654.th")
    inputs = {"image": resnet_cifar.normalize(train.pixels)}
    taps = {"exit_0": "layer2.1", "exit_1": "layer2", "exit_2": "layer3.2", "exit_3": "layer3.4"}
    with seeded(0):
        module = attach_exits(
            body, taps, {"image": torch.from_numpy(inputs["image"][:2])}, classes=10, head=_conv_head, frozen=True
        )
    fit(module, inputs, train.labels, Plan(epochs=epochs, batch=64, peak_rate=3e-3), augment=_flip, progress=_say)
    chosen = {"image": inputs["image"][:1000]}
    evaluation = {"image": resnet_cifar.normalize(held.pixels)}
    return Material(module, (*taps, "output"), chosen, evaluation, held.labels, ("image:0=B:1-64",))


class ConvHead(nn.Module):
    """A strided convolution, means over space, logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.linear = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).mean((2, 3)))


def _conv_head(shape: tuple[int, ...], classes: int) -> nn.Module:
    return ConvHead(shape[1], classes)


def _flip(batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Mirrors half of the pictures and moves each by up to 4 pixels."""
    image = batch["image"]
    mirrored = torch.rand(len(image), generator=generator) < 0.5
    image = torch.where(mirrored[:, None, None, None], image.flip(3), image)
    padded = nn.functional.pad(image, (4, 4, 4, 4))
    x, y = torch.randint(0, 9, (2,), generator=generator).tolist()
    return {"image": padded[:, :, y : y + 32, x : x + 32]}


def bert_small(size: str = "full", epochs: int = 3) -> Material:
    """BERT-small with an exit after each layer, trained from nothing on SST-2: whole and exits together."""
    with seeded(0):
        body = bert.bert_small(size)
        body.head.reset_parameters()
    task = sst2_task(body.bert.embeddings.word_embeddings.num_embeddings)
    taps = {f"exit_{layer}": f"bert.encoder.layer.{layer}" for layer in range(3)}
    train = {"ids": task.train["ids"], "mask": (task.train["ids"] != 0).astype(np.int64)}
    held = {"ids": task.held["ids"], "mask": (task.held["ids"] != 0).astype(np.int64)}
    example = {name: torch.from_numpy(array[:2]) for name, array in train.items()}
    with seeded(0):
        module = attach_exits(body, taps, example, classes=2, head=FirstWordHead)
    fit(module, train, task.labels, Plan(epochs=epochs, batch=32, peak_rate=2e-4), augment=_shorten, progress=_say)
    chosen = {name: array[:1000] for name, array in train.items()}
    dynamic = tuple(f"{name}:{at}" for name in train for at in ("0=B:1-64", f"1=T:1-{LONGEST_SENTENCE}"))
    return Material(module, (*taps, "output"), chosen, held, task.held_labels, dynamic)


def _shorten(batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Cuts the columns that are padding in every text of the batch: the same answers for less work."""
    longest = int(batch["mask"].sum(1).max())
    return {name: value[:, :longest] for name, value in batch.items()}


def _say(line: str) -> None:
    print(line, flush=True)
