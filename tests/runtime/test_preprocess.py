from __future__ import annotations

import io
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import edgekit_runtime as er
from edgekit_runtime import audio
from edgekit_runtime.errors import BundleInvalid, EngineMissing, Refused, UsageError
from edgekit_runtime.manifest import Manifest, Tensor
from edgekit_runtime.preprocess import Preprocessor, Settings, parse_settings

IDS = Tensor(name="ids", dtype="int32", shape=("batch", "time"))
MASK = Tensor(name="attention_mask", dtype="int64", shape=("batch", "time"))
IMAGE = Tensor(name="image", dtype="float32", shape=("batch", 3, 4, 4))
WAVE = Tensor(name="wave", dtype="float32", shape=("frames", 4))
VOCABULARY = b"[PAD]\n[UNK]\nthe\ncat\nsat\n"


def prepared(tmp_path: Path, inputs: tuple[Tensor, ...], files: Mapping[str, bytes]) -> Preprocessor:
    def change(found: Manifest) -> Manifest:
        return replace(found, inputs=inputs)

    root = make_bundle_folder(tmp_path, files, change)
    return Preprocessor.of(er.open_bundle(root), inputs)


def make_bundle_folder(tmp_path: Path, files: Mapping[str, bytes], change: object = None) -> Path:
    from edgekit_runtime.testing import make_bundle

    extra = {"change": change} if change else {}
    return make_bundle(tmp_path / "tiny.edge", files=files, **extra)  # type: ignore[arg-type]


def test_words_become_ids_padded_at_the_end(tmp_path: Path) -> None:
    ready = prepared(tmp_path, (IDS, MASK), {"assets/tokenizer/vocab.txt": VOCABULARY})
    made = ready.encode({"text": ["The cat sat", "the dog"]})
    assert made["ids"].tolist() == [[2, 3, 4], [2, 1, 0]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert made["ids"].dtype == np.int32
    assert ready.encode({"text": "cat"})["ids"].tolist() == [[3]]
    with pytest.raises(UsageError, match="a text was expected"):
        ready.encode({"text": 3})


def test_lengths_follow_the_settings(tmp_path: Path) -> None:
    toml = b'[inputs.ids]\nkind = "text"\nmax_length = 4\npadding = "max_length"\n'
    ready = prepared(tmp_path, (IDS,), {"assets/tokenizer/vocab.json": b'{"a": 2}', "assets/preprocess.toml": toml})
    assert ready.encode({"text": "a"})["ids"].tolist() == [[2, 0, 0, 0]]
    assert ready.encode({"ids": "a b a b a b"})["ids"].tolist() == [[2, 1, 2, 1]]


def test_a_tokenizer_json_is_used_with_its_own_padding(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "cat": 1, "sat": 2, "[PAD]": 7}, "[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ready = prepared(tmp_path, (IDS, MASK), {"assets/tokenizer/tokenizer.json": made.to_str().encode()})
    assert ready.encode({"text": ["cat sat", "cat"]})["ids"].tolist() == [[1, 2], [1, 7]]


# Logical order: the word that is read first comes first in memory, though a screen shows it at the right.
HEBREW = "שלום עולם טוב"
ARABIC = "مرحبا بالعالم الجميل"


@pytest.mark.parametrize("text", [HEBREW, ARABIC, f"{HEBREW} bert 42 {ARABIC}"])
@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
def test_text_read_from_right_to_left_keeps_its_order_and_decodes(tmp_path: Path, text: str, kind: str) -> None:
    words = ["[PAD]", "[UNK]", *sorted({*HEBREW.split(), *ARABIC.split(), "bert", "42"})]
    content = "\n".join(words)
    if kind == "tokenizer.json":
        tokenizers = pytest.importorskip("tokenizers")
        ids = {word: number for number, word in enumerate(words)}
        fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, "[UNK]"))
        fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        content = fast.to_str()
    ready = prepared(tmp_path, (IDS, MASK), {f"assets/tokenizer/{kind}": content.encode()})
    made = ready.encode({"text": [text, text.split()[0]]})
    assert [words[number] for number in made["ids"][0]] == text.split()
    # The shorter text is padded behind its last word as any other: at the end of the row, not at the left of a screen.
    assert made["attention_mask"][1].tolist() == [1] + [0] * (len(text.split()) - 1)


def test_a_missing_tokenizers_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    ready = prepared(tmp_path, (IDS,), {"assets/tokenizer/tokenizer.json": b"{}"})
    with pytest.raises(EngineMissing) as caught:
        ready.encode({"text": "x"})
    assert caught.value.remedy == "pip install 'edgekit[tokenizers]'"


def image_rule(more: str = "") -> bytes:
    return f'[inputs.image]\nkind = "image"\nsize = [4, 4]\n{more}'.encode()


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_picture_of_the_size_is_scaled_and_normalised(tmp_path: Path) -> None:
    more = "mean = [0.5, 0.4, 0.3]\nstd = [0.1, 0.2, 0.4]\n"
    ready = prepared(tmp_path, (IMAGE,), {"assets/preprocess.toml": image_rule(more)})
    pixels = picture(4, 4)
    expected = ((pixels / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.4]).transpose(2, 0, 1)[None]
    made = ready.encode({"image": pixels})["image"]
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
    assert ready.encode({"image": [pixels, pixels]})["image"].shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("more", "height", "width", "shape"),
    [
        ('layout = "nhwc"\ndtype = "uint8"', 9, 7, (1, 4, 4, 3)),
        ('color = "gray"', 9, 7, (1, 1, 4, 4)),
        ('resize = "shorter_side"\nresize_to = 6', 9, 7, (1, 3, 4, 4)),
        ('resize = "pad"\ninterpolation = "nearest"', 9, 7, (1, 3, 4, 4)),
        ('resize = "none"', 9, 7, (1, 3, 4, 4)),
    ],
)
def test_pictures_of_other_sizes_are_fitted(tmp_path: Path, more: str, height: int, width: int, shape: object) -> None:
    pytest.importorskip("PIL")
    ready = prepared(tmp_path, (replace(IMAGE, dtype="float32"),), {"assets/preprocess.toml": image_rule(more)})
    assert ready.encode({"image": picture(height, width)})["image"].shape == shape


def test_picture_files_are_read_and_channels_ordered(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 0] = 255
    image.fromarray(red).save(tmp_path / "red.png")
    ready = prepared(tmp_path, (IMAGE,), {"assets/preprocess.toml": image_rule('color = "bgr"')})
    for item in (tmp_path / "red.png", (tmp_path / "red.png").read_bytes(), red):
        assert ready.encode({"image": item})["image"][0, :, 0, 0].tolist() == [0, 0, 1]
    with pytest.raises(Refused, match="cannot be read"):
        ready.encode({"image": b"no picture"})


def test_a_picture_too_small_to_crop_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    ready = prepared(tmp_path, (IMAGE,), {"assets/preprocess.toml": image_rule('resize = "none"')})
    with pytest.raises(Refused, match="3 x 9 pixels"):
        ready.encode({"image": picture(3, 9)})


def wav(samples: np.ndarray, width: int, rate: int = 8000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def test_a_wav_becomes_frames(tmp_path: Path) -> None:
    toml = b'[inputs.wave]\nkind = "audio"\nrate = 8000\nwindow = 4\n'
    ready = prepared(tmp_path, (WAVE,), {"assets/preprocess.toml": toml})
    made = ready.encode({"audio": wav(np.array([0, 16384, -32768, 8192, 1], "<i2"), 2)})["wave"]
    np.testing.assert_allclose(made, [[0, 0.5, -1, 0.25], [1 / 32768, 0, 0, 0]])
    with pytest.raises(Refused, match="16000 samples a second"):
        ready.encode({"audio": wav(np.zeros(4, "<i2"), 2, rate=16000)})
    with pytest.raises(Refused, match="no PCM wav"):
        ready.encode({"audio": b"RIFFxxxx"})


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_pcm_width_reads_the_same_sound(width: int) -> None:
    sound = np.array([0.0, 0.5, -0.5, -1.0])
    full = 2 ** (8 * width - 1)
    if width == 1:
        samples = (sound * full + full).astype(np.uint8)
    else:
        wide = np.round(sound * full).astype("<i8").view(np.uint8).reshape(-1, 8)
        samples = np.ascontiguousarray(wide[:, :width])
    made, rate = audio.read_wav(wav(samples, width))
    np.testing.assert_allclose(made, sound)
    assert rate == 8000


@given(length=st.integers(0, 40), window=st.integers(1, 9), hop=st.integers(0, 9))
def test_frames_cover_the_sound_in_order(length: int, window: int, hop: int) -> None:
    samples = np.arange(1, length + 1, dtype=np.float32)
    frames = audio.frame(samples, window, hop)
    step = hop or window
    for number, row in enumerate(frames):
        piece = samples[number * step : number * step + window]
        np.testing.assert_array_equal(row[: len(piece)], piece)
        assert not row[len(piece) :].any()
    assert (len(frames) - 1) * step + window >= length


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[inputs.x]\nkind = "image"\n', "size"),
        ('[inputs.x]\nkind = "picture"\nsize = [1, 1]', "picture"),
        ('[inputs.x]\nkind = "image"\nsize = [1, 1]\nresise = "pad"', "resise"),
        ('[inputs.x]\nkind = "audio"\nrate = "8 kHz"', "rate"),
        ("[inputs.x", "preprocess.toml"),
    ],
)
def test_wrong_settings_are_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        parse_settings(text)


def test_settings_for_an_input_the_graph_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match="image"):
        prepared(tmp_path, (IDS,), {"assets/preprocess.toml": image_rule()})


def test_a_kind_the_bundle_says_nothing_of_is_refused_with_what_it_knows(tmp_path: Path) -> None:
    ready = prepared(tmp_path, (IMAGE,), {"assets/preprocess.toml": image_rule()})
    with pytest.raises(Refused, match=r"image \(image\)"):
        ready.encode({"text": "x"})


def test_labels_name_the_deepest_output_that_has_them() -> None:
    ready = Preprocessor(Settings(inputs={}), ["cat", "dog", "bird"], None, ())
    early, late = np.array([[9.0, 0, 0]]), np.array([[0.0, 2.0, 0.0], [1.0, 0, 0]])
    answers = ready.decode({"exit_0": early, "exit_1": late, "hidden": np.zeros((2, 8))})
    assert [answer.label for answer in answers] == ["dog", "cat"]
    assert answers[0].score == pytest.approx(np.exp(2) / (np.exp(2) + 2))
    assert ready.decode({"y": np.array([[0.1, 0.2, 0.7]])})[0].scores == pytest.approx((0.1, 0.2, 0.7))
    with pytest.raises(Refused, match="no output has 3 scores"):
        ready.decode({"y": np.zeros((1, 2))})


def test_a_session_encodes_runs_and_decodes(tmp_path: Path) -> None:
    files = {"assets/labels.txt": b"a\nb\nc\n", "assets/preprocess.toml": b'[inputs.x]\nkind = "tensor"\n'}
    with er.open(make_bundle_folder(tmp_path, files)) as session:
        outputs = session.run(session.encode(x=np.ones((2, 4), np.float32)))
        assert [answer.label for answer in session.decode(outputs)] == ["c", "c"]
