"""What travels with the graphs: tokenizer, labels and preprocessing, from options or from a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgekit_converters.capture.axes import DynamicAxis
from edgekit_converters.capture.source import SourceSpec
from edgekit_converters.data import Encode, read_text
from edgekit_converters.options import Options
from edgekit_converters.staging import Staging
from edgekit_runtime import hashed, text
from edgekit_runtime.errors import Refused
from edgekit_runtime.preprocess import ByteInput, NgramInput, TextInput, parse_settings

Assets = dict[str, Path]


def collect(options: Options, source: Any) -> Assets:
    """Finds the files, by their path inside the bundle.

    Raises:
        Refused: A file or folder that was named does not exist or is not what it should be.
    """
    found: Assets = {}
    folder = options.tokenizer
    if folder is None and isinstance(source, SourceSpec) and source.kind == "huggingface":
        folder = source.path
    if folder is not None:
        found |= _tokenizer(folder, required=options.tokenizer is not None)
    for option, given, name in (
        ("--labels", options.labels, "labels.txt"),
        ("--preprocess", options.preprocess, "preprocess.toml"),
    ):
        if given is None:
            continue
        if not given.is_file():
            raise Refused(f"{option} {given}: no such file", remedy="check the path")
        read_text(given)
        found[f"assets/{name}"] = given
    if options.preprocess is not None:
        parse_settings(read_text(options.preprocess))
    return found


def _tokenizer(folder: Path, *, required: bool) -> Assets:
    from edgekit_converters.capture.huggingface import TOKENIZER_FILES

    names = (*TOKENIZER_FILES, "vocab.json")
    found = {f"assets/tokenizer/{name}": folder / name for name in names if (folder / name).is_file()}
    usable = any(path.name in ("tokenizer.json", "vocab.txt", "vocab.json") for path in found.values())
    if required and not usable:
        raise Refused(
            f"--tokenizer {folder} holds no tokenizer.json, vocab.txt or vocab.json",
            remedy="give the tokenizer's folder",
        )
    return found if usable else {}


def text_encoder(assets: Assets, dynamic: Sequence[DynamicAxis], source: Any) -> Encode | None:
    """What turns a line of text into inputs: the tokenizer with the rule of preprocess.toml.

    A Hugging Face folder needs no preprocess.toml: its inputs have known names. Texts are cut to the largest size that
    a dynamic axis of the ids allows. None: the student has no tokenizer, or nothing says which input takes the ids.
    """
    hashing = _hashed(assets)
    if hashing is not None:
        return hashing
    tokenizer = next((path.parent for name, path in assets.items() if name.startswith("assets/tokenizer/")), None)
    if tokenizer is None:
        return None
    rules: dict[str, Any] = {}
    if "assets/preprocess.toml" in assets:
        rules = parse_settings(assets["assets/preprocess.toml"].read_text(encoding="utf-8")).inputs
    elif isinstance(source, SourceSpec) and source.kind == "huggingface":
        rules = {"input_ids": TextInput(mask="attention_mask")}
    texts = {name: rule for name, rule in rules.items() if isinstance(rule, TextInput)}
    if len(texts) != 1:
        return None
    ((name, rule),) = texts.items()
    limit = next((item.max for item in dynamic if item.input == name and item.axis == 1 and item.max), 0)
    if limit and not 0 < rule.max_length < limit:
        rule = msgspec.structs.replace(rule, max_length=limit)
    encoder = text.load(tokenizer, lowercase=rule.lowercase)
    return lambda line: text.encode(name, rule, encoder, [line])


def _hashed(assets: Assets) -> Encode | None:
    """What turns a line into n-grams or bytes, where preprocess.toml says so of every input."""
    if "assets/preprocess.toml" not in assets:
        return None
    rules = parse_settings(assets["assets/preprocess.toml"].read_text(encoding="utf-8")).inputs
    texts = {name: rule for name, rule in rules.items() if isinstance(rule, NgramInput | ByteInput)}
    if not texts or len(texts) < len(rules):
        return None
    return lambda line: {name: hashed.encode(rule, [line]) for name, rule in texts.items()}


def write(assets: Assets, stage: Staging) -> None:
    """Copies the files into the staged bundle."""
    for name, path in assets.items():
        stage.write(name, path.read_bytes())
