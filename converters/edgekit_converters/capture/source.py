"""What the person pointed at: one word on the command line becomes a kind of source and a path."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgekit_converters.captured import SourceKind
from edgekit_runtime.errors import Refused, UsageError

ALLOWED = (
    "path/file.py:name, package.module:name, FILE.pt2, FILE.onnx, FILE.tflite, "
    "or a Hugging Face model folder with config.json and safetensors"
)
_FILES: dict[str, SourceKind] = {".pt2": "pt2", ".onnx": "onnx", ".tflite": "tflite"}


@dataclasses.dataclass(frozen=True)
class SourceSpec:
    """A parsed SOURCE.

    Attributes:
        kind: What it is.
        text: As the person wrote it.
        path: The file or folder; for `package.module:name` the module's dotted name as a path.
        attribute: The name after the colon, for Python sources.
    """

    kind: SourceKind
    text: str
    path: Path
    attribute: str = ""

    @property
    def stem(self) -> str:
        """A name for the bundle when the person gives none."""
        if self.kind == "huggingface":
            return self.path.resolve().name
        dotted = self.kind == "module" and self.path.suffix != ".py"
        return str(self.path).rpartition(".")[2] if dotted else self.path.stem


def parse_source(text: str) -> SourceSpec:
    """Tells what kind of source `text` names.

    Raises:
        UsageError: The text fits none of the allowed forms.
        Refused: The file or folder does not exist, or is a format that is never loaded (a pickled module).
    """
    path = Path(text)
    if path.is_dir():
        return _folder(path, text)
    if path.suffix in _FILES:
        if not path.is_file():
            raise Refused(f"{text}: no such file", remedy="check the path")
        return SourceSpec(_FILES[path.suffix], text, path)
    if path.suffix in {".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl", ".pickle"}:
        raise Refused(
            f"{text} is a pickle: it can run code when it is opened and does not hold the model's Python source",
            remedy=f"name the module and give the weights apart: edgekit convert model.py:build --weights {text}",
        )
    left, colon, name = text.rpartition(":")
    if not colon or not left or not name.isidentifier():
        raise UsageError(f"SOURCE {text!r} is none of the forms that can be converted", remedy=f"give {ALLOWED}")
    if left.endswith(".py"):
        if not Path(left).is_file():
            raise Refused(f"{left}: no such file", remedy="check the path before the colon")
        return SourceSpec("module", text, Path(left), name)
    if not all(part.isidentifier() for part in left.split(".")):
        raise UsageError(f"SOURCE {text!r}: {left!r} is neither a .py file nor a dotted module name", remedy=ALLOWED)
    return SourceSpec("module", text, Path(left), name)


def _folder(path: Path, text: str) -> SourceSpec:
    if not (path / "config.json").is_file():
        remedy = f"give {ALLOWED}"
        if (path / "manifest.json").is_file():
            remedy = "this is a bundle already: edgekit inspect shows what is in it"
        raise Refused(f"{text} is a folder without config.json", remedy=remedy)
    if not list(path.glob("*.safetensors")):
        raise Refused(
            f"{text} has a config.json but no .safetensors file",
            remedy="save the model with save_pretrained(..., safe_serialization=True); pickled weights are not loaded",
        )
    return SourceSpec("huggingface", text, path)
