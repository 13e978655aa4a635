"""Data of the students that look at pictures and spectra, as `edgekit.students.train` takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgekit.students import data, mlperf_tiny
from edgekit.students.resnet_cifar import normalize
from edgekit.students.sampling import Arrays
from edgekit.students.task import Task

# Zeros around a picture before a random window of its size is cut.
SHIFT = 4


def cifar_task(rows: int) -> Task:
    """CIFAR-10, normalized: 4,000 training pictures, 500 held back. `rows` means nothing here."""
    train, held = data.cifar10("train"), data.cifar10("eval")
    return Task({"image": normalize(train.pixels)}, train.labels, {"image": normalize(held.pixels)}, held.labels)


def raw_cifar_task(rows: int) -> Task:
    """The same pictures from 0 to 255, as MLPerf Tiny's ResNet8 reads them."""
    train, held = (data.cifar10(part) for part in ("train", "eval"))

    def pixels(pictures: data.Images) -> np.ndarray:
        return np.ascontiguousarray(pictures.pixels.transpose(0, 3, 1, 2).astype(np.float32))

    return Task({"image": pixels(train)}, train.labels, {"image": pixels(held)}, held.labels)


def keyword_task(rows: int) -> Task:
    """MLPerf Tiny's keyword spectra: 100 to calibrate on, 200 held back. Too few to train on."""
    codes, labels = data.keywords()
    features = mlperf_tiny.keyword_features(codes)
    return Task({"mfcc": features[:100]}, labels[:100], {"mfcc": features[100:]}, labels[100:])


# The published fp32 file of each twin of MLPerf Tiny.
REFERENCE_FILES = {
    "resnet8": "pretrainedResnet.tflite",
    "ds_cnn": "kws_ref_model_float32.tflite",
    "mobilenet_v1": "vww_96_float.tflite",
    "autoencoder": "ad01_fp32.tflite",
}


def reference_weights(name: str) -> nn.Module:
    """A twin of MLPerf Tiny with the weights of the published fp32 file.

    Args:
        name: A key of `REFERENCE_FILES`.
    """
    twin: nn.Module = getattr(mlperf_tiny, name)()
    return mlperf_tiny.load(twin, data.folder() / "models" / "mlperf_tiny" / REFERENCE_FILES[name])


def photographs() -> tuple[Arrays, Arrays]:
    """What the person detector looks at where its own set is not at hand: CIFAR-10 enlarged to 96 x 96, in 0 to 1.

    No picture is labelled with or without a person, so int8 can only be held against the student itself.

    Returns:
        `image` [200, 3, 96, 96] float32 to calibrate on, [500, 3, 96, 96] to judge on.
    """
    train, held = data.cifar10("train"), data.cifar10("eval")
    return {"image": enlarged(train.pixels[:200])}, {"image": enlarged(held.pixels)}


def machine_sound() -> tuple[Arrays, Arrays]:
    """What the anomaly detector listens to: the one published recording, a machine that runs well.

    Windows of the first half of the recording calibrate, windows of the second half judge; none of them overlap across
    the halves. Nothing anomalous is in it: no AUC can be told, only how well int8 repeats the student.

    Returns:
        `spectrum` [96, 640] float32, decibels, to calibrate on and as many to judge on.
    """
    frames = data.machine_spectrum()
    half = len(frames) // 2
    return {"spectrum": _windows(frames[:half])}, {"spectrum": _windows(frames[half:])}


def _windows(frames: np.ndarray) -> np.ndarray:
    """All runs of five frames [N, 128], each as one row: [N - 4, 640]."""
    long = mlperf_tiny.SPECTRUM // frames.shape[1]
    return np.stack([frames[at : at + long].ravel() for at in range(len(frames) - long + 1)])


def shift_and_flip(batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Moves each picture by up to 4 pixels and mirrors every second one; `image` [B, C, H, W]."""
    image = batch["image"]
    count, _, height, width = image.shape
    padded = nn.functional.pad(image, (SHIFT,) * 4)
    tops, lefts = torch.randint(0, 2 * SHIFT + 1, (2, count), generator=generator).tolist()
    moved = [p[:, y : y + height, x : x + width] for p, y, x in zip(padded, tops, lefts, strict=True)]
    mirrored = torch.rand(count, generator=generator) < 0.5
    image = torch.stack(moved)
    return {**batch, "image": torch.where(mirrored[:, None, None, None], image.flip(3), image)}


# Mean brightness of a picture below which it is dark, above which bright: thirds of the training pictures.
DARK, BRIGHT = 0.42, 0.54
BANDS = ("dark", "middle", "bright")


def bright_cifar_task(rows: int) -> Task:
    """CIFAR-10 enlarged to 96 x 96, in 0 to 1, for the ViT.

    The calibration samples hold as many pictures of each brightness band; held-back pictures carry theirs as `slice`.
    """
    train, held = data.cifar10("train"), data.cifar10("eval")
    pictures, judged = enlarged(train.pixels), enlarged(held.pixels)
    bands = brightness(train.pixels)
    picked = np.concatenate([np.flatnonzero(bands == band)[:66] for band in BANDS])
    return Task(
        {"image": pictures},
        train.labels,
        {"image": judged},
        held.labels,
        calibration={"image": pictures[picked]},
        slices=brightness(held.pixels),
    )


def enlarged(pixels: np.ndarray, side: int = 96) -> np.ndarray:
    """Pixels [N, H, W, 3] uint8 to [N, 3, side, side] float32 in 0 to 1, bilinear."""
    small = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0
    parts = [nn.functional.interpolate(part, (side, side), mode="bilinear") for part in small.split(500)]
    return torch.cat(parts).numpy()


def brightness(pixels: np.ndarray) -> np.ndarray:
    """The band of each picture [N, H, W, 3] uint8: `dark`, `middle` or `bright`, [N] str."""
    mean = pixels.mean(axis=(1, 2, 3)) / 255.0
    return np.array(BANDS)[(mean >= DARK).astype(int) + (mean >= BRIGHT)]


def flip_and_light(batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Moves and mirrors pictures and makes each darker or lighter by a power of 0.6 to 1.7."""
    image = shift_and_flip(batch, generator)["image"]
    power = torch.exp(torch.empty(len(image), 1, 1, 1).uniform_(-0.5, 0.5, generator=generator))
    return {**batch, "image": image.clamp(0, 1) ** power}
