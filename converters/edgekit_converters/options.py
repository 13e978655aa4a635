"""Everything `edgekit convert` can be asked, as one value."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from edgekit_converters import target as targets
from edgekit_converters.onnx.versions import IR_VERSION
from edgekit_converters.target import Target
from edgekit_runtime.errors import UsageError

FORMATS = ("onnx", "tflite")
PRECISIONS = ("auto", "int8", "fp16", "fp32", "keep")
MAX_SEED = 2**32 - 1  # numpy's
_SPLIT_WORD = re.compile(r"auto(:[1-9][0-9]*)?|all|none")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class Options:
    """A conversion as the person asked for it. The names are those of the command line.

    Attributes:
        source: As in the contract, or an nn.Module.
        out: `NAME.edge`.
        example: Path of an .npz, or arrays by name.
        calibration: Path, `module:function`, dict of arrays, or dicts. See `data.load_samples`.
        eval: The same, with `labels` where there are any.
        metric: Name or `module:function`; empty: chosen from labels and outputs.
        max_drop: `0.01` or `1%`.
        formats: Which of `onnx`, `tflite`.
        precision: `auto` ships fp32 and, where it is smaller and passes the gate, int8.
        dynamic: `NAME:AXIS[=SYMBOL][:MIN-MAX]`.
        exits: Names of outputs in order of depth; the last is the full answer.
        split_points: `auto`, `auto:5` (five that stand for all), `all`, `none`, or names of places. See `cut.choose`.
        states: `INPUT=OUTPUT`: outputs of a streaming student that are inputs of its next step.
        keep_float: Patterns of operators or modules that stay in floating point.
        min_engine: Oldest versions the graphs must run on, by engine.
        targets: Devices to decide for; empty: one graph a precision, for all.
        costs: Cost table: replayed where the file exists, else written there.
    """

    source: Any
    out: Path
    weights: Path | None = None
    example: Any = None
    calibration: Any = None
    eval: Any = None
    metric: str = ""
    max_drop: str | float = 0.01
    formats: tuple[str, ...] = FORMATS
    precision: Literal["auto", "int8", "fp16", "fp32", "keep"] = "auto"
    dynamic: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()
    split_points: tuple[str, ...] = ("auto",)
    states: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()
    tokenizer: Path | None = None
    labels: Path | None = None
    preprocess: Path | None = None
    opset: int | None = None
    min_engine: Mapping[str, str] = dataclasses.field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    costs: Path | None = None
    seed: int = 0
    name: str = ""
    version: int = 1
    force: bool = False

    def check(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            UsageError: An unknown format or precision, an exit named twice, or a version, seed, opset or name that
                is none.
        """
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise UsageError(
                f"--format {','.join(self.formats) or '(empty)'}", remedy=f"one or more of {','.join(FORMATS)}"
            )
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision {self.precision!r} is not known", remedy=f"one of {', '.join(PRECISIONS)}")
        targets.check(self.targets)
        if self.version < 1:
            raise UsageError(f"--version {self.version}", remedy="a whole number from 1")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"--seed {self.seed}", remedy=f"a whole number from 0 to {MAX_SEED}")
        if len(set(self.exits)) < len(self.exits):
            raise UsageError(f"--exits {','.join(self.exits)} names an output twice", remedy="each output once")
        if len(self.exits) == 1:
            raise UsageError(
                f"--exits {self.exits[0]} names one output",
                remedy="name them all in order of depth, the full answer last; leave it out where there is one answer",
            )
        words = [name for name in self.split_points if _SPLIT_WORD.fullmatch(name)]
        wrong = [name for name in self.split_points if name.startswith("auto:") and name not in words]
        if not self.split_points or wrong or (words and len(self.split_points) > 1):
            raise UsageError(
                f"--split-points {','.join(self.split_points) or '(empty)'}",
                remedy="auto, auto:5 (a few that stand for all, from 1), all, none, or names of places",
            )
        if self.name and not _NAME.fullmatch(self.name):
            raise UsageError(
                f"--name {self.name!r} cannot be asked for at a server",
                remedy="letters, digits, '.', '_' and '-', beginning with a letter or digit",
            )
        if self.opset is not None and self.opset not in IR_VERSION:
            raise UsageError(
                f"--opset {self.opset} is not one that torch's exporter writes and onnxruntime runs",
                remedy=f"{min(IR_VERSION)} to {max(IR_VERSION)}",
            )


def parse_min_engine(text: str) -> dict[str, str]:
    """Reads `onnxruntime=1.18,tflite=2.14`.

    Raises:
        UsageError: Another form, or an engine that is not known.
    """
    found = {}
    for part in filter(None, text.split(",")):
        engine, equals, version = part.partition("=")
        if not equals or not version.replace(".", "").isdigit() or engine not in ("onnxruntime", "tflite"):
            raise UsageError(f"--min-engine {part!r}", remedy="for example onnxruntime=1.18,tflite=2.14")
        found[engine] = version
    return found
