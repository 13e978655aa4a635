from __future__ import annotations

import numpy as np
import pytest
import torch

import edgekit_runtime as er
from edgekit.students import data, mlperf_tiny, picture_tasks, sampling
from edgekit.students.fit import accuracy, predict
from edgekit_runtime.errors import Refused

FILES = {
    "resnet8": "pretrainedResnet.tflite",
    "ds_cnn": "kws_ref_model_float32.tflite",
    "mobilenet_v1": "vww_96_float.tflite",
    "autoencoder": "ad01_fp32.tflite",
}


@pytest.mark.parametrize("name", FILES)
def test_a_twin_with_the_reference_weights_answers_as_the_reference_file(public_data: None, name: str) -> None:
    path = data.folder() / "models" / "mlperf_tiny" / FILES[name]
    twin = mlperf_tiny.load(getattr(mlperf_tiny, name)(), path)
    (inputs,) = getattr(mlperf_tiny, f"{name}_example")(1, seed=3).values()
    answer = twin(torch.from_numpy(inputs)).detach().numpy()
    if name != "autoencoder":  # the files of the classifiers end in a softmax
        answer = np.exp(answer - answer.max()) / np.exp(answer - answer.max()).sum()
    with er.open(path) as session:
        (given,) = session.inputs
        (expected,) = session.run({given.name: inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs}).values()
    np.testing.assert_allclose(answer, expected, atol=1e-4 * max(1.0, float(np.ptp(expected))))


def test_the_reference_weights_reach_their_published_accuracy(public_data: None) -> None:
    # Published: 91.6 % on 1,000 clips for the keyword spotter, 86 % on CIFAR-10 for ResNet8; fewer samples here.
    for name, task, least in (
        ("ds_cnn", picture_tasks.keyword_task, 0.87),
        ("resnet8", picture_tasks.raw_cifar_task, 0.82),
    ):
        held = task(0)
        (top1,) = accuracy(predict(picture_tasks.reference_weights(name), held.held), held.held_labels)
        assert top1 >= least


def test_the_anomaly_detector_repeats_the_sound_of_a_machine_that_runs_well(public_data: None) -> None:
    _, held = picture_tasks.machine_sound()
    answer = sampling.run(picture_tasks.reference_weights("autoencoder"), held)["output"]
    # Seen: 9.7 dB^2 over the recording. Frames and bands the other way round leave 158, more than the sound varies.
    assert np.mean((answer - held["spectrum"]) ** 2) < 0.2 * held["spectrum"].var()


def test_a_file_of_another_model_is_refused(public_data: None) -> None:
    folder = data.folder() / "models" / "mlperf_tiny"
    with pytest.raises(Refused, match="the twin has"):
        mlperf_tiny.load(mlperf_tiny.ds_cnn(), folder / FILES["resnet8"])
    with pytest.raises(Refused, match="quantized"):
        mlperf_tiny.load(mlperf_tiny.ds_cnn(), folder / "kws_ref_model.tflite")


@pytest.mark.parametrize(("size", "stride"), [(96, 2), (97, 2), (10, 1), (7, 3)])
def test_same_padding_gives_the_sizes_of_tensorflow(size: int, stride: int) -> None:
    layer = mlperf_tiny.SameConv2d(1, 1, (10, 3), stride)
    assert layer(torch.zeros(1, 1, size, size)).shape[2:] == (-(-size // stride),) * 2


def test_moving_and_mirroring_keeps_shape_and_repeats_from_its_seed() -> None:
    picture = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    first, second = (
        picture_tasks.shift_and_flip({"image": picture}, torch.Generator().manual_seed(1))["image"] for _ in range(2)
    )
    assert torch.equal(first, second)
    assert first.shape == picture.shape
    assert not torch.equal(first, picture)
