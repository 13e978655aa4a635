"""Students with real weights, and the files they are read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.students import data, minilm, resnet_cifar
from edgekit.students.fit import accuracy, predict
from edgekit.students.sampling import run
from edgekit_runtime.errors import Refused, UsageError


@pytest.mark.parametrize(("file", "blocks"), [("resnet20-12fca82f.th", 3), ("resnet44-014dd654.th", 7)])
def test_trained_resnets_reach_their_published_accuracy(public_data: None, file: str, blocks: int) -> None:
    student = resnet_cifar.load(data.folder() / "models" / "resnet_cifar10" / file)
    assert len(student.layer1) == blocks
    held = data.cifar10("eval")
    (top1,) = accuracy(predict(student, {"image": resnet_cifar.normalize(held.pixels)}), held.labels)
    # Published 91.7 and 93.1 % on 10,000 images; 500 of them leave a standard error of 1.2 points.
    assert top1 > 0.88


def test_a_checkpoint_that_is_no_state_dict_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.th").write_text("no checkpoint")
    with pytest.raises(Refused, match="weights_only"):
        resnet_cifar.load(tmp_path / "text.th")
    torch.save(resnet_cifar.resnet20("tiny"), tmp_path / "pickled.th")
    with pytest.raises(Refused, match="weights_only"):
        resnet_cifar.load(tmp_path / "pickled.th")
    state = {f"module.{name}": value for name, value in resnet_cifar.resnet20("tiny").state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "narrow.th")
    with pytest.raises(Refused, match="does not fit"):
        resnet_cifar.load(tmp_path / "narrow.th")


def test_a_full_resnet_is_read_from_under_a_dataparallel_prefix(tmp_path: Path) -> None:
    built = resnet_cifar.resnet20(seed=4)
    state = {f"module.{name}": value for name, value in built.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "student.th")
    example = resnet_cifar.example(2)
    read = run(resnet_cifar.load(tmp_path / "student.th"), example)["output"]
    np.testing.assert_array_equal(read, run(built, example)["output"])


def test_minilm_finds_sentences_of_like_meaning() -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="needs a tokenizer to read sentences")
    try:
        folder = minilm.package_folder()
    except UsageError as error:
        pytest.skip(str(error))
    reader = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    reader.no_padding()
    encoded = [reader.encode(t).ids for t in ("A dog runs in the park.", "A puppy plays outside.", "Rates rose again.")]
    ids = np.zeros((3, 16), dtype=np.int64)
    for row, found in zip(ids, encoded, strict=True):
        row[: len(found)] = found
    embedding = run(minilm.build("full"), {"ids": ids, "mask": (ids != 0).astype(np.int64)})["embedding"]
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, atol=1e-5)
    alike = embedding @ embedding.T
    assert alike[0, 1] > 0.4 > 0.2 > alike[0, 2]


def test_a_folder_that_is_not_minilms_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not a Hugging Face folder"):
        minilm.load(tmp_path)
