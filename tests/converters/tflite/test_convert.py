"""Each tiny student through export and quantize, against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit_converters.captured import Arrays, Captured
from edgekit_converters.draft import Draft
from edgekit_converters.tflite import flatbuffer
from edgekit_converters.tflite.converter import TfliteConverter
from edgekit_converters.tflite.coverage import coverage
from edgekit_runtime.errors import Refused, UsageError
from tests.converters.tflite.students import BATCH, BiLstm, capture, length, nothing, run_file, sqnr_db, token_samples

FP32_TOLERANCE = 1e-4  # of the output's range: students.md, what "works" means
LENGTHS = (16, 3, 9, 32, 20, 12, 7, 30)


def kinds(path: Path) -> list[str]:
    model = flatbuffer.read(path)
    return [kind for kind, _ in flatbuffer.operators(model, flatbuffer.main_subgraphs(model)[-1])]


def worst(reference: np.ndarray, value: np.ndarray) -> float:
    return float(np.abs(reference - value).max() / np.ptp(reference))


def masked(samples: list[Arrays]) -> list[Arrays]:
    return [{**sample, "mask": np.ones_like(sample["ids"])} for sample in samples]


def test_a_convolutional_net_is_the_same_in_fp32_and_close_in_int8(
    residual: Captured, converted: dict[str, Draft], images: list[Arrays], tmp_path: Path
) -> None:
    draft = converted["residual"]
    quantized = TfliteConverter().quantize(residual, draft, images, tmp_path, nothing)
    want = np.concatenate([residual.reference(image)["output"] for image in images])
    got32 = np.concatenate([run_file(draft.path, image)["output"] for image in images])
    got8 = np.concatenate([run_file(quantized.path, image)["output"] for image in images])
    assert worst(want, got32) < FP32_TOLERANCE
    assert sqnr_db(want, got8) > 25
    weights, macs, total = coverage(quantized.path)
    assert (weights, macs) == (1.0, 1.0)
    assert total == 16 * 16 * (16 * 27 + 16 * 144) + 64
    assert quantized.recipe is not None
    assert {decision.scheme for decision in quantized.recipe.ops} == {"static", "follow"}
    assert kinds(quantized.path).count("QUANTIZE") == 1
    assert kinds(quantized.path).count("DEQUANTIZE") == 1
    assert [tensor.dtype for tensor in (*quantized.inputs, *quantized.outputs)] == ["float32", "float32"]


def test_a_text_cnn_keeps_its_rows_and_does_not_feel_padding(
    text_cnn: Captured, converted: dict[str, Draft], tmp_path: Path
) -> None:
    samples = token_samples(400, LENGTHS)
    quantized = TfliteConverter().quantize(text_cnn, converted["text_cnn"], samples, tmp_path, nothing)
    ids = samples[1]["ids"]
    answers = [
        run_file(quantized.path, {"ids": np.pad(ids, ((0, 0), (0, size - ids.shape[1])))}, f"t{size}")["output"]
        for size in (16, 32)
    ]
    np.testing.assert_allclose(answers[0], answers[1], rtol=0, atol=1e-6)
    assert sqnr_db(text_cnn.reference({"ids": ids})["output"], answers[0]) > 25
    assert coverage(quantized.path)[:2] == (1.0, 1.0)
    assert quantized.path.stat().st_size < converted["text_cnn"].path.stat().st_size / 2


def test_an_encoder_has_a_ladder_of_signatures_with_the_names_of_the_student(
    encoder: Captured, converted: dict[str, Draft]
) -> None:
    draft = converted["encoder"]
    assert [(s.name, s.sizes) for s in draft.signatures] == [("t16", {"B": 1, "T": 16}), ("t32", {"B": 1, "T": 32})]
    assert [(tensor.name, tensor.dtype) for tensor in draft.inputs] == [("ids", "int32"), ("mask", "int32")]
    for size in (16, 32):
        ids = token_samples(300, (size,))[0]["ids"]
        mask = (np.arange(size)[None] < size - 3).astype(np.int64)
        got = run_file(draft.path, {"ids": ids, "mask": mask}, f"t{size}")
        want = encoder.reference({"ids": ids, "mask": mask})
        assert list(got) == ["embedding"]
        assert worst(want["embedding"], got["embedding"]) < FP32_TOLERANCE


def test_outlier_columns_are_evened_out_in_front_of_int8_products(
    encoder: Captured, converted: dict[str, Draft], tmp_path: Path
) -> None:
    samples = masked(token_samples(300, LENGTHS))
    (tmp_path / "blind").mkdir()
    draft = converted["encoder"]
    seeing = TfliteConverter().quantize(encoder, draft, samples, tmp_path, nothing)
    blind = TfliteConverter().quantize(encoder, draft, [], tmp_path / "blind", nothing)
    fresh = masked([{"ids": np.random.default_rng(9).integers(1, 300, (1, 16))}])[0]
    want = encoder.reference(fresh)["embedding"]
    noise = [sqnr_db(want, run_file(made.path, fresh, "t16")["embedding"]) for made in (seeing, blind)]
    assert seeing.recipe is not None
    assert any("evened out" in note for note in seeing.recipe.notes)
    assert noise[0] > noise[1] + 1
    assert noise[0] > 30


def test_a_bilstm_calls_one_step_a_layer_which_all_signatures_share(
    bilstm: Captured, converted: dict[str, Draft], tmp_path: Path
) -> None:
    draft = converted["bilstm"]
    assert kinds(draft.path).count("IF") == 2 * 32
    assert len(kinds(draft.path)) < 2 * 32 + 30
    assert len(flatbuffer.read(draft.path).subgraphs) == len(draft.signatures) + 2
    samples = token_samples(100, (16, 32))
    quantized = TfliteConverter().quantize(bilstm, draft, samples, tmp_path, nothing)
    assert coverage(quantized.path)[:2] == (1.0, 1.0)
    for sample, name in zip(samples, ("t16", "t32"), strict=True):
        want = bilstm.reference(sample)["output"]
        assert worst(want, run_file(draft.path, sample, name)["output"]) < FP32_TOLERANCE
        assert sqnr_db(want, run_file(quantized.path, sample, name)["output"]) > 35


class FinalState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.lstm(frames)[1][0].transpose(0, 1)


class FinalCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.lstm(frames)[1][1][0]


@pytest.mark.parametrize(("module", "calls"), [(FinalState, 2 * 5), (FinalCell, 1)])
def test_an_lstm_whose_final_state_is_used_still_converts(module: type[nn.Module], calls: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    example = {"frames": np.random.default_rng(0).standard_normal((1, 5, 4)).astype(np.float32)}
    student = capture(module(), example)
    draft = TfliteConverter().export(student, tmp_path, nothing)
    assert kinds(draft.path).count("IF") == calls
    got = run_file(draft.path, example)["output"]
    assert worst(student.reference(example)["output"], got) < FP32_TOLERANCE


class FrameTagger(nn.Module):
    """A feed-forward layer, an LSTM, a linear layer a frame: calibrated and row-wise int8 in one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 24)
        self.lstm = nn.LSTM(24, 32, batch_first=True)
        self.leave = nn.Linear(32, 4)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.leave(self.lstm(torch.relu(self.enter(frames)))[0])


def test_an_lstm_behind_calibrated_layers_keeps_its_state_in_floating_point(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    samples = [{"frames": rng.standard_normal((1, 24, 8)).astype(np.float32)} for _ in range(8)]
    example = {"frames": np.repeat(samples[0]["frames"], 2, axis=0)}
    student = capture(FrameTagger(), example, (BATCH, length()), {"frames": ("B", "T", 8)})
    converter = TfliteConverter()
    drafts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        draft = converter.export(student, tmp_path / name, nothing)
        drafts.append(converter.quantize(student, draft, samples, tmp_path / name, nothing))
    assert drafts[0].path.read_bytes() == drafts[1].path.read_bytes()
    assert drafts[0].recipe is not None
    schemes = {decision.op: decision.scheme for decision in drafts[0].recipe.ops if "LSTM" in decision.op}
    assert schemes == {"lstm/LSTM.input": "dynamic_row", "lstm/LSTM.state": "dynamic_row"}
    frames = samples[1]["frames"][:, :16]
    padded = np.pad(frames, ((0, 0), (0, 16), (0, 0)))
    short = run_file(drafts[0].path, {"frames": frames}, "t16")["output"]
    long = run_file(drafts[0].path, {"frames": padded}, "t32")["output"][:, :16]
    np.testing.assert_allclose(short, long, rtol=0, atol=1e-6)
    assert sqnr_db(student.reference({"frames": frames})["output"], short) > 25


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 16), nn.Linear(6, 16)

    def forward(self, sound: torch.Tensor, image: torch.Tensor) -> dict[str, torch.Tensor]:
        both = torch.relu(self.left(sound)) * torch.relu(self.right(image))
        return {"zeta": both.sum(-1), "alpha": both}


def test_two_inputs_and_two_outputs_keep_their_names_and_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    example = {
        "sound": rng.standard_normal((1, 8)).astype(np.float32),
        "image": rng.standard_normal((1, 6)).astype(np.float32),
    }
    student = capture(TwoInputs(), example)
    draft = TfliteConverter().export(student, tmp_path, nothing)
    assert [tensor.name for tensor in draft.inputs] == ["sound", "image"]
    assert [tensor.name for tensor in draft.outputs] == ["zeta", "alpha"]
    assert draft.signatures == ()
    got, want = run_file(draft.path, example), student.reference(example)
    for name in ("zeta", "alpha"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-5)


def test_two_conversions_give_the_same_bytes(
    residual: Captured, converted: dict[str, Draft], images: list[Arrays], tmp_path: Path
) -> None:
    again = TfliteConverter().export(residual, tmp_path, nothing)
    assert again.path.read_bytes() == converted["residual"].path.read_bytes()
    first = TfliteConverter().quantize(residual, again, images, tmp_path, nothing).path.read_bytes()
    assert TfliteConverter().quantize(residual, again, images, tmp_path, nothing).path.read_bytes() == first


def test_signatures_share_their_weights(text_cnn: Captured, converted: dict[str, Draft], tmp_path: Path) -> None:
    quantized = TfliteConverter().quantize(text_cnn, converted["text_cnn"], [], tmp_path, nothing)
    for draft in (converted["text_cnn"], quantized):
        model = flatbuffer.read(draft.path)
        assert len(model.signatureDefs) == 2
        data = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None]
        assert len(data) == len(set(data))
        tables = {tensor.buffer for sub in model.subgraphs for tensor in sub.tensors if list(tensor.shape) == [400, 32]}
        assert len(tables) == 1


def test_nothing_of_this_machine_is_in_the_file(converted: dict[str, Draft]) -> None:
    content = converted["encoder"].path.read_bytes()
    for word in (b"tests", b"students", b"site-packages", b"/work", b"MLIR", b"<locals>"):
        assert word not in content


def test_a_layer_named_with_keep_float_stays_float(
    residual: Captured, converted: dict[str, Draft], images: list[Arrays], tmp_path: Path
) -> None:
    import dataclasses

    keeping = dataclasses.replace(residual, float_patterns=("body*",))
    quantized = TfliteConverter().quantize(keeping, converted["residual"], images, tmp_path, nothing)
    assert quantized.recipe is not None
    kept = [decision for decision in quantized.recipe.ops if decision.reason == "--keep-float body*"]
    assert kept and all(decision.scheme == "float" for decision in kept)
    int8_weights, float_weights = 16 * 27 + 4 * 16, 16 * 16 * 9
    assert coverage(quantized.path)[0] == pytest.approx(int8_weights / (int8_weights + 4 * float_weights))


class SamePadding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.even = nn.Conv1d(4, 6, 4, padding="same", dilation=3)
        self.plane = nn.Conv2d(1, 2, (3, 2), padding="same")

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.plane(self.even(frames).unsqueeze(1))


def test_same_padding_is_written_out(tmp_path: Path) -> None:
    example = {"frames": np.random.default_rng(0).standard_normal((1, 4, 20)).astype(np.float32)}
    student = capture(SamePadding(), example)
    draft = TfliteConverter().export(student, tmp_path, nothing)
    got = run_file(draft.path, example)["output"]
    assert worst(student.reference(example)["output"], got) < FP32_TOLERANCE


class Bag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(10, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.bag(ids)


def test_an_operator_without_lowering_is_refused_with_its_place_and_the_way_out(tmp_path: Path) -> None:
    student = capture(Bag(), {"ids": np.ones((1, 4), np.int64)})
    with pytest.raises(Refused, match=r"aten\._embedding_bag.*test_convert\.py:\d+") as caught:
        TfliteConverter().export(student, tmp_path, nothing)
    assert "nn.Embedding" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


class Scatter(nn.Module):
    def forward(self, values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        # A sum over rows would run: `passes.scatter_rows` writes that as SCATTER_ND.
        return torch.zeros(5, 4).scatter_reduce(0, places[:, None].expand(-1, 4), values, "amax")


def test_a_graph_that_lowers_but_does_not_run_is_refused(tmp_path: Path) -> None:
    example: Arrays = {"values": np.ones((6, 4), np.float32), "places": np.ones(6, np.int64)}
    with pytest.raises(Refused, match="does not run"):
        TfliteConverter().export(capture(Scatter(), example), tmp_path, nothing)


class NoWeights(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(image).sum(-1)


def test_a_graph_without_weights_is_refused_for_int8(tmp_path: Path) -> None:
    student = capture(NoWeights(), {"image": np.ones((1, 4), np.float32)})
    draft = TfliteConverter().export(student, tmp_path, nothing)
    with pytest.raises(Refused, match="nothing in the TFLite graph can become int8"):
        TfliteConverter().quantize(student, draft, [], tmp_path, nothing)


def test_sizes_for_an_unknown_axis_are_refused(residual: Captured, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'T'"):
        TfliteConverter({"T": (16,)}).export(residual, tmp_path, nothing)


def test_the_caller_may_choose_the_rungs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = capture(BiLstm(), {"ids": np.ones((2, 9), np.int64)}, (BATCH, length()), {"ids": ("B", "T")})
    draft = TfliteConverter({"T": (10,)}).export(student, tmp_path, nothing)
    assert [(rung.name, rung.sizes["T"]) for rung in draft.signatures] == [("serving_default", 10)]
