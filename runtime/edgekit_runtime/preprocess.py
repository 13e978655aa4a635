"""From raw items to tensors, and from scores to labels, as the bundle's own assets say.

    assets/preprocess.toml       for each input what a raw item is (below)
    assets/tokenizer/            tokenizer.json (package `tokenizers`), or vocab.txt / vocab.json (no package)
    assets/labels.txt            one label a line, in the order of the scores
    assets/head.npz              a linear head that makes those scores of an embedding (`edgekit_runtime.head`)

    [inputs.image]               [inputs.ids]                  [inputs.wave]
    kind = "image"               kind = "text"                 kind = "audio"
    size = [32, 32]              max_length = 128              rate = 16000
    mean = [0.485, 0.456, 0.406] mask = "attention_mask"       window = 512

    [inputs.grams]               [inputs.chars]                [inputs.spectrum]
    kind = "ngrams"              kind = "bytes"                kind = "tensor"
    rows = 200_000               length = 1024

The packages that some kinds need (tokenizers, Pillow) are imported when the first item of that kind comes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from edgekit_runtime import head as heads
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import BundleInvalid, Refused, UsageError
from edgekit_runtime.hashed import Split
from edgekit_runtime.head import Head
from edgekit_runtime.manifest import Tensor

Arrays = dict[str, np.ndarray]


class _Kind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Common settings of all kinds of input."""


class ImageInput(_Kind, frozen=True, kw_only=True, tag="image"):
    """A picture becomes `(pixel * scale - mean) / std`.

    Attributes:
        size: Height and width of the tensor.
        resize: `stretch` to the size; `shorter_side`: to `resize_to` (default: the larger of size), keeping the ratio,
            then the crop; `pad`: the whole picture inside the size, the rest black; `none`: it must have the size.
        resize_to: Length of the shorter side in pixels before the crop.
        crop: `center`; with `none` a picture that is larger after `shorter_side` is refused.
        color: Order of the channels; `gray` has one.
        layout: Order of the axes of the tensor.
        scale: Factor on the pixel (0 to 255) before mean and std, which have one entry a channel.
        dtype: `uint8` gives the pixels as they are.
    """

    size: tuple[int, int]
    resize: Literal["stretch", "shorter_side", "pad", "none"] = "stretch"
    resize_to: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "area"] = "bilinear"
    crop: Literal["center", "none"] = "center"
    color: Literal["rgb", "bgr", "gray"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    dtype: Literal["float32", "uint8"] = "float32"


class AudioInput(_Kind, frozen=True, kw_only=True, tag="audio"):
    """Mono sound becomes float32 in -1 to 1, cut into frames.

    Attributes:
        rate: Samples a second the student was trained on; another rate is refused, not resampled.
        window: Samples of one frame; 0: the whole sound as one.
        hop: Samples from one frame's start to the next; 0: the window.
    """

    rate: int
    window: int = 0
    hop: int = 0


class TextInput(_Kind, frozen=True, kw_only=True, tag="text"):
    """A text becomes ids.

    Attributes:
        max_length: Longest row; what is longer is cut at the end. 0: no limit.
        padding: `longest`: rows are padded to the longest of the batch; `max_length`: always to that.
        mask: Name of the input that is 1 where a row has ids and 0 where it is padded; empty: none.
        segments: Name of the input of segment ids (0 first text, 1 second); empty: none.
        min_length: Shortest row, padded up to it (a convolution of width 5 needs 5).
        lowercase: For the word list only; a tokenizer.json says it itself.
    """

    max_length: int = 0
    min_length: int = 1
    padding: Literal["longest", "max_length"] = "longest"
    mask: str = ""
    segments: str = ""
    lowercase: bool = True


class NgramInput(_Kind, frozen=True, kw_only=True, tag="ngrams"):
    """A text becomes the hashed ids of its word n-grams (`edgekit_runtime.hashed`); 0 pads.

    Attributes:
        rows: Rows of the student's table, the padding row included.
        longest: Words of the longest n-gram.
        max_length: Longest row of ids; what is longer is cut at the end. 0: no limit.
        split: `space`: words are what stands between white space; `words`: punctuation is split off as well.
        lowercase: Whether case counts for nothing.
    """

    rows: int
    longest: int = 4
    max_length: int = 0
    split: Split = "space"
    lowercase: bool = True


class ByteInput(_Kind, frozen=True, kw_only=True, tag="bytes"):
    """A text becomes its UTF-8 bytes; 0 pads.

    Attributes:
        length: Bytes of every row: what is longer is cut, what is shorter padded. 0: the longest of the batch.
        max_length: Most bytes where the length is not fixed; 0: no limit.
        lowercase: Whether case counts for nothing.
    """

    length: int = 0
    max_length: int = 0
    lowercase: bool = False


class TensorInput(_Kind, frozen=True, kw_only=True, tag="tensor"):
    """Given as an array already; nothing is done to it."""


Input = ImageInput | AudioInput | TextInput | NgramInput | ByteInput | TensorInput
# Kinds of input that take a text: `session.encode(text=...)` finds them all.
TEXTS = (TextInput, NgramInput, ByteInput)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `preprocess.toml`: settings by input name."""

    inputs: dict[str, Input]


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best label of one sample, and all scores (softmax of the logits, or the probabilities as they came)."""

    label: str
    index: int
    score: float
    scores: tuple[float, ...]


def parse_settings(text: str) -> Settings:
    """Reads `preprocess.toml`.

    Raises:
        Refused: Not TOML, or something in it that is not allowed (names where).
    """
    try:
        return msgspec.toml.decode(text, type=Settings)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refused(
            f"preprocess.toml: {error}", remedy="help(edgekit_runtime.preprocess) lists every key of every kind"
        ) from error


class Preprocessor:
    """The assets of one bundle, ready to use."""

    def __init__(
        self,
        settings: Settings,
        labels: Sequence[str],
        tokenizer: Path | None,
        inputs: Sequence[Tensor],
        head: Head | None = None,
    ) -> None:
        self.settings = settings
        self.labels = tuple(labels)
        self.head = head
        self._tokenizer_folder = tokenizer
        self._dtypes = {tensor.name: tensor.dtype for tensor in inputs}

    @classmethod
    def of(cls, bundle: Bundle, inputs: Sequence[Tensor]) -> Preprocessor:
        """Reads a bundle's assets; a text input without settings is recognised by the tokenizer's presence."""
        labels = bundle.file("assets/labels.txt")
        rules = bundle.file("assets/preprocess.toml")
        has_tokenizer = any(name.startswith("assets/tokenizer/") for name in bundle.manifest.files)
        if rules is not None:
            settings = parse_settings(rules.read_text(encoding="utf-8"))
        else:
            settings = Settings(inputs=text_by_tokenizer(inputs) if has_tokenizer else {})
        known = {tensor.name for tensor in inputs}
        unknown = sorted(set(settings.inputs) - known)
        if unknown:
            raise BundleInvalid(
                f"preprocess.toml names the inputs {unknown}, the graph has {sorted(known)}", remedy="convert again"
            )
        lines = labels.read_text(encoding="utf-8").splitlines() if labels is not None else []
        tokenizer = bundle.root / "assets" / "tokenizer" if has_tokenizer else None
        file = bundle.file(heads.FILE)
        return cls(settings, lines, tokenizer, inputs, heads.load(file) if file is not None else None)

    def encode(self, items: Mapping[str, object]) -> Arrays:
        """Turns raw items into inputs. See `Session.encode`."""
        arrays: Arrays = {}
        for key, item in items.items():
            name, rule = self._rule(key)
            arrays.update(self._encode(name, rule, item))
        return {name: array.astype(self._dtypes.get(name, array.dtype), copy=False) for name, array in arrays.items()}

    def _rule(self, key: str) -> tuple[str, Input]:
        rules = self.settings.inputs
        if key in rules:
            return key, rules[key]
        found = [(name, rule) for name, rule in rules.items() if rule.__struct_config__.tag == key]
        if key == "text" and not found:
            found = [(name, rule) for name, rule in rules.items() if isinstance(rule, TEXTS)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(
                f"{len(found)} inputs are of the kind {key}", remedy=f"name one: {', '.join(name for name, _ in found)}"
            )
        has = ", ".join(f"{name} ({rule.__struct_config__.tag})" for name, rule in rules.items()) or "none"
        raise Refused(
            f"the bundle does not say how {key!r} becomes a tensor; it says so for: {has}",
            remedy="convert with --preprocess FILE.toml (or --tokenizer DIR), or give session.run the tensor itself",
        )

    def _encode(self, name: str, rule: Input, item: object) -> Arrays:
        if isinstance(rule, NgramInput | ByteInput):
            from edgekit_runtime import hashed

            return {name: hashed.encode(rule, as_list(item))}
        if isinstance(rule, TextInput):
            from edgekit_runtime import text

            encoder = text.load(self._tokenizer_folder, lowercase=rule.lowercase)
            return text.encode(name, rule, encoder, as_list(item))
        if isinstance(rule, ImageInput):
            from edgekit_runtime import image

            return {name: np.stack([image.encode(rule, picture) for picture in as_list(item)])}
        if isinstance(rule, AudioInput):
            from edgekit_runtime import audio

            rows = [audio.encode(rule, sound) for sound in as_list(item)]
            if len({row.shape for row in rows}) > 1:
                raise UsageError("the sounds have several lengths", remedy="encode them one by one")
            return {name: np.concatenate(rows)}
        return {name: np.asarray(item)}

    def decode(self, outputs: Mapping[str, np.ndarray]) -> list[Answer]:
        """Names the answer of each sample, from the bundle's head, or the deepest output that has one score a label."""
        if not self.labels:
            raise Refused("the bundle has no labels", remedy="convert with --labels FILE, one label a line")
        if self.head is not None:
            outputs = {"head": self.head.scores(outputs)}
        fitting = [array for array in outputs.values() if array.ndim and array.shape[-1] == len(self.labels)]
        if not fitting:
            shapes = {name: list(array.shape) for name, array in outputs.items()}
            raise Refused(f"no output has {len(self.labels)} scores, one a label: {shapes}")
        rows = np.asarray(fitting[-1], np.float64).reshape(-1, len(self.labels))
        return [self._answer(row) for row in rows]

    def _answer(self, row: np.ndarray) -> Answer:
        scores = row if is_distribution(row) else softmax(row)
        index = int(np.argmax(scores))
        return Answer(self.labels[index], index, float(scores[index]), tuple(float(score) for score in scores))


def as_list(item: object) -> list[object]:
    """One item as a list of one; a list as it is."""
    return list(item) if isinstance(item, (list, tuple)) else [item]


def is_distribution(row: np.ndarray) -> bool:
    """Probabilities already: none negative, sum 1 (within what float16 and int8 outputs lose)."""
    return bool(row.min() >= 0 and abs(row.sum() - 1) < 0.02)


def softmax(row: np.ndarray) -> np.ndarray:
    """exp(x) over its sum, without overflow."""
    raised = np.exp(row - row.max())
    return np.asarray(raised / raised.sum())


def text_by_tokenizer(inputs: Sequence[Tensor]) -> dict[str, Input]:
    """Settings for a tokenizer without preprocess.toml: ids, mask and segments found by their usual names."""
    integers = [tensor.name for tensor in inputs if tensor.dtype.startswith("int") and len(tensor.shape) == 2]
    mask = next((name for name in integers if "mask" in name), "")
    segments = next((name for name in integers if "type" in name or "segment" in name), "")
    ids = next((name for name in integers if name not in (mask, segments)), "")
    return {ids: TextInput(mask=mask, segments=segments)} if ids else {}
