"""Streaming students: converted with their states told, a stream of steps is the whole sequence."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
import edgekit_runtime as er
from edgekit_runtime.errors import InputMismatch, Refused, UsageError
from edgekit_runtime.testing import make_bundle

DATA = Path(__file__).parents[3] / "shared" / "data" / "models" / "silero_vad"
STEPS = 12


class Step(nn.Module):
    """One step of an LSTM with a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(32, 48, batch_first=True)
        self.head = nn.Linear(48, 4)

    def forward(self, frame: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> dict[str, torch.Tensor]:
        answer, (h, c) = self.lstm(frame[:, None], (h[None], c[None]))
        return {"scores": self.head(answer[:, 0]), "h_next": h[0], "c_next": c[0]}

    def whole(self, frames: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return self.head(self.lstm(frames)[0]).numpy()


STATES = ("h=h_next", "c=c_next")


def samples(count: int = 16) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    sizes = {"frame": 32, "h": 48, "c": 48}
    return [{n: 0.5 * rng.standard_normal((1, k)).astype(np.float32) for n, k in sizes.items()} for _ in range(count)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> er.Bundle:
    out = tmp_path_factory.mktemp("streaming") / "steps.edge"
    return edgekit.convert(
        Step().eval(),
        out=out,
        calibration=samples(),
        states=STATES,
        metric="cosine",
        dynamic=("frame:0=B", "h:0=B", "c:0=B"),
    )


@pytest.mark.parametrize(
    ("graph", "tolerance"), [("onnx.fp32", 1e-5), ("tflite.fp32", 1e-5), ("onnx.int8", 0.05), ("tflite.int8", 0.05)]
)
def test_a_stream_of_steps_is_the_whole_sequence(bundle: er.Bundle, graph: str, tolerance: float) -> None:
    frames = 0.5 * torch.randn(3, STEPS, 32, generator=torch.Generator().manual_seed(1))
    want = Step().eval().whole(frames)  # of values about 1
    with er.open(bundle.root, graph=graph) as session:
        stream = session.stream()
        for _ in range(2):  # after a reset a new sequence begins
            answers = [stream.step({"frame": frames[:, step].numpy()}) for step in range(STEPS)]
            assert [set(answer) for answer in answers] == [{"scores"}] * STEPS
            got = np.stack([answer["scores"] for answer in answers], axis=1)
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)
            assert stream.steps == STEPS
            stream.reset()


def test_two_streams_of_one_session_do_not_meet_and_a_stream_may_begin_elsewhere(bundle: er.Bundle) -> None:
    frames = samples(6)
    with er.open(bundle.root, graph="onnx.fp32") as session:
        alone = session.stream()
        want = [alone.step({"frame": f["frame"]})["scores"] for f in frames]
        one, other = session.stream(), session.stream()
        for expected, f in zip(want, frames, strict=True):
            np.testing.assert_array_equal(one.step({"frame": f["frame"]})["scores"], expected)
            other.step({"frame": -f["frame"]})
        begun = session.stream(initial={k: v for k, v in frames[0].items() if k != "frame"})
        assert np.abs(begun.step({"frame": frames[0]["frame"]})["scores"] - want[0]).max() > 1e-3


def test_what_does_not_fit_a_stream_is_told(bundle: er.Bundle, tmp_path: Path) -> None:
    with er.open(bundle.root, graph="onnx.fp32") as session:
        with pytest.raises(InputMismatch, match="the stream itself carries h, c"):
            session.stream().step(samples(1)[0])
        with pytest.raises(UsageError, match="'frame' is no state"):
            session.stream(initial={"frame": np.zeros(1)})
        with pytest.raises(UsageError, match="'h' is no input to fix"):
            session.stream(fixed={"h": np.zeros(1)})
        stream = session.stream()
        stream.step({"frame": samples(1)[0]["frame"]})
        before = stream.states
        with pytest.raises(InputMismatch):
            stream.step({"frame": np.zeros((1, 31), np.float32)})
        assert stream.states is before
    with er.open(make_bundle(tmp_path / "tiny.edge")) as session, pytest.raises(UsageError, match="no state to carry"):
        session.stream()


@pytest.mark.parametrize(
    ("states", "error", "match"),
    [
        (("h",), UsageError, "INPUT=OUTPUT"),
        (("x=h_next",), UsageError, "no input 'x'"),
        (("h=y",), UsageError, "no output 'y'"),
        (("h=h_next", "h=c_next"), UsageError, "two pairs"),
        (("h=scores",), Refused, r"input h is float32 \[batch, 48\], output scores is float32 \[batch, 4\]"),
    ],
)
def test_pairs_that_cannot_be_meant_are_refused(
    states: tuple[str, ...], error: type[Exception], match: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=match):
        edgekit.convert(
            Step().eval(), out=tmp_path / "s.edge", calibration=samples(8), states=states, formats=("onnx",)
        )


def test_a_real_voice_detector_is_kept_and_streams(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("../shared/data/models/silero_vad is not here")
    import onnxruntime

    with wave.open(str(DATA / "test.wav")) as file:
        assert file.getframerate() == 16_000
        sound = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    rate = np.array(16_000, np.int64)
    source = DATA / "silero_vad_16k_op15.onnx"
    example = {"input": np.zeros((1, 576), np.float32), "state": np.zeros((2, 1, 128), np.float32), "sr": rate}
    bundle = edgekit.convert(
        str(source), out=tmp_path / "vad.edge", example=example, states=("state=stateN",), formats=("onnx",),
        precision="fp32", dynamic=("input:1=sequence:560-600",),
    )  # fmt: skip
    session = onnxruntime.InferenceSession(source)
    state, before = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
    with er.open(bundle.root) as opened:
        stream = opened.stream(fixed={"sr": rate})
        heard = []
        for start in range(
            0, 400 * 512, 512
        ):  # 12.8 s; each piece is preceded by the last 64 samples of the one before
            piece = np.concatenate([before, sound[start : start + 512]])[None]
            before = piece[0, -64:]
            want, state = session.run(None, {"input": piece, "state": state, "sr": rate})
            got = stream.step({"input": piece})
            np.testing.assert_allclose(got["output"], want, rtol=0, atol=1e-5)
            heard.append(float(want[0, 0]))
    assert min(heard) < 0.1
    assert max(heard) > 0.9


def test_a_real_voice_detector_takes_several_sounds_at_once(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("../shared/data/models/silero_vad is not here")
    rate = np.array(16_000, np.int64)
    example = {"input": np.zeros((1, 576), np.float32), "state": np.zeros((2, 1, 128), np.float32), "sr": rate}
    bundle = edgekit.convert(
        str(DATA / "silero_vad_16k_op15.onnx"), out=tmp_path / "vad.edge", example=example, states=("state=stateN",),
        formats=("onnx",), precision="fp32", split_points=("none",),
        dynamic=("input:0=batch:1-4", "state:1=batch:1-4", "input:1=sequence:560-600"),
    )  # fmt: skip
    # The samples of the state stand in its second axis.
    assert {axis.symbol: axis.role for axis in bundle.manifest.axes}["batch"] == "batch"
    rng = np.random.default_rng(0)
    sound = rng.standard_normal((6, 576)).astype(np.float32) / 10
    state = rng.standard_normal((2, 6, 128)).astype(np.float32) / 10
    with er.open(bundle.root) as session:
        together = session.run({"input": sound, "state": state, "sr": rate})  # more than 4: in slices
        for row in range(6):
            alone = session.run({"input": sound[row : row + 1], "state": state[:, row : row + 1], "sr": rate})
            np.testing.assert_allclose(together["output"][row : row + 1], alone["output"], rtol=0, atol=1e-6)
            np.testing.assert_allclose(together["stateN"][:, row : row + 1], alone["stateN"], rtol=0, atol=1e-5)
