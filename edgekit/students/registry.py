"""The reference students that exist, in one explicit table. Importing it does not import torch.

student = registry.get("bilstm_tagger")
module = student.build("tiny")
answers = module(**{name: torch.from_numpy(array) for name, array in student.example(4, 12, size="tiny").items()})
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit_runtime.errors import UsageError
from edgekit_runtime.manifest import Axis, Tensor

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class Student:
    """What is known of a reference student without building it.

    Attributes:
        name: Unique name.
        row: Row of the table of reference students.
        source: `module:function` as `edgekit convert` takes it; `function(size="full", seed=0)` gives the module.
        inputs: Named as the arguments of `forward`; symbols in shapes are those of `axes`. Bounds are the full size's.
        outputs: Named as the contract names them.
        axes: Dynamic axes and what they mean.
        exits: Names of outputs in order of depth, the full answer last; empty where there is one answer.
        split_points: Submodules after which the student is naturally cut, in order of depth.
        states: (input, output) pairs that carry a streaming student's state from one step to the next.
        inputs_source: Function of the same module that makes example inputs.
    """

    name: str
    row: int
    source: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ("output",)
    axes: tuple[Axis, ...] = ()
    exits: tuple[str, ...] = ()
    split_points: tuple[str, ...] = ()
    states: tuple[tuple[str, str], ...] = ()
    inputs_source: str = "example"

    def build(self, size: str = "full", seed: int = 0) -> nn.Module:
        """The torch module, in evaluation mode.

        Args:
            size: `tiny` or `full`.
            seed: Of the weights.

        Raises:
            UsageError: An unknown size, or real weights that are not installed.
        """
        module: nn.Module = self._function(self.source.split(":")[1])(size=size, seed=seed)
        return module

    def example(self, batch: int = 2, length: int = 16, *, size: str = "full", seed: int = 0) -> dict[str, np.ndarray]:
        """Seeded inputs, arrays named as `inputs`.

        Args:
            batch: Samples; edges a node for graphs.
            length: Words, or nodes of a graph; changes nothing for students without that axis.
            size: Size of the student that will read them (vocabularies differ).
            seed: Of the values.
        """
        arrays: dict[str, np.ndarray] = self._function(self.inputs_source)(batch, length, size=size, seed=seed)
        return arrays

    def dynamic(self, most: Mapping[str, int] | None = None) -> tuple[str, ...]:
        """The axes as `--dynamic` takes them.

        Args:
            most: Largest size by symbol, where it is to be below the student's own.
        """
        axes = {axis.symbol: axis for axis in self.axes}
        limits = {symbol: min(axis.max, (most or {}).get(symbol, axis.max)) for symbol, axis in axes.items()}
        return tuple(
            f"{tensor.name}:{place}={symbol}:{axes[symbol].min}-{limits[symbol]}"
            for tensor in self.inputs
            for place, symbol in enumerate(tensor.shape)
            if isinstance(symbol, str)
        )

    def _function(self, name: str) -> Any:
        return getattr(importlib.import_module(self.source.split(":")[0]), name)


def _batch(largest: int = 64) -> Axis:
    return Axis(symbol="B", min=1, max=largest, role="batch")


def _length(largest: int) -> Axis:
    return Axis(symbol="T", min=1, max=largest, role="length")


def _ids(vocabulary: int) -> Tensor:
    return Tensor(name="ids", dtype="int64", shape=("B", "T"), min=0, max=vocabulary - 1)


_MASK = Tensor(name="mask", dtype="int64", shape=("B", "T"), min=0, max=1)
_CIFAR = Tensor(name="image", dtype="float32", shape=("B", 3, 32, 32))


def _bert(name: str, layers: int) -> Student:
    return Student(
        name=name,
        row=4,
        source=f"edgekit.students.bert:{name}",
        inputs=(_ids(30_522), _MASK),
        axes=(_batch(), _length(128)),
        split_points=tuple(f"bert.encoder.layer.{layer}" for layer in range(layers)),
    )


def _resnet(name: str) -> Student:
    return Student(
        name=name,
        row=22,
        source=f"edgekit.students.resnet_cifar:{name}",
        inputs=(_CIFAR,),
        axes=(_batch(),),
        split_points=("layer1", "layer2", "layer3"),
    )


def _mlperf_tiny(name: str, inputs: Tensor, split_points: tuple[str, ...]) -> Student:
    return Student(
        name=name,
        row=24,
        source=f"edgekit.students.mlperf_tiny:{name}",
        inputs=(inputs,),
        axes=(_batch(),),
        split_points=split_points,
        inputs_source=f"{name}_example",
    )


def _plain(layers: int) -> Student:
    stages = {4: 2, 6: 3, 8: 4, 10: 4}[layers]
    return Student(
        name=f"plain{layers}",
        row=25,
        source=f"edgekit.students.plain_cnn:plain{layers}",
        inputs=(_CIFAR,),
        axes=(_batch(),),
        split_points=tuple(f"stages.{stage}" for stage in range(stages)),
    )


TABLE: tuple[Student, ...] = (
    Student(
        name="text_cnn",
        row=1,
        source="edgekit.students.text_cnn:build",
        inputs=(_ids(12_000),),
        axes=(_batch(), _length(128)),
        split_points=("embedding",),
    ),
    Student(
        name="bilstm_classifier",
        row=2,
        source="edgekit.students.bilstm_classifier:build",
        inputs=(_ids(12_000),),
        axes=(_batch(), _length(64)),
        split_points=("embedding", "layers.0", "layers.1"),
    ),
    Student(
        name="bilstm_tagger",
        row=3,
        source="edgekit.students.bilstm_tagger:build",
        inputs=(_ids(12_000),),
        axes=(_batch(), _length(64)),
        split_points=("embedding", "layer"),
    ),
    _bert("bert_tiny", layers=2),
    _bert("bert_mini", layers=4),
    _bert("bert_small", layers=4),
    Student(
        name="minilm",
        row=5,
        source="edgekit.students.minilm:build",
        inputs=(_ids(30_522), _MASK),
        outputs=("embedding",),
        axes=(_batch(), _length(256)),
        split_points=tuple(f"bert.encoder.layer.{layer}" for layer in range(6)),
    ),
    Student(
        name="ngram",
        row=7,
        source="edgekit.students.ngram:build",
        inputs=(_ids(200_000),),
        axes=(_batch(), _length(512)),
        split_points=("embedding", "hidden"),
    ),
    Student(
        name="cmow",
        row=8,
        source="edgekit.students.cmow:build",
        inputs=(_ids(12_000),),
        axes=(_batch(), _length(128)),
        split_points=("hidden",),
    ),
    Student(
        name="large_vocabulary",
        row=6,
        source="edgekit.students.large_vocabulary:build",
        inputs=(_ids(128_000), _MASK),
        axes=(_batch(), _length(128)),
        split_points=tuple(f"bert.encoder.layer.{layer}" for layer in range(4)),
    ),
    Student(
        name="gated_cnn",
        row=9,
        source="edgekit.students.gated_cnn:build",
        inputs=(_ids(5_000),),
        axes=(_batch(), _length(64)),
        split_points=tuple(f"blocks.{block}" for block in range(8)),
    ),
    Student(
        name="gated_cnn_step",
        row=9,
        source="edgekit.students.gated_cnn:step",
        inputs=(
            Tensor(name="ids", dtype="int64", shape=("B", 1), min=0, max=4_999),
            Tensor(name="columns", dtype="float32", shape=("B", 8, 128, 3)),
        ),
        outputs=("output", "next_columns"),
        axes=(_batch(),),
        inputs_source="step_example",
        states=(("columns", "next_columns"),),
    ),
    Student(
        name="cdil",
        row=10,
        source="edgekit.students.cdil:build",
        inputs=(Tensor(name="chars", dtype="int64", shape=("B", 1024), min=0, max=255),),
        axes=(_batch(),),
        split_points=tuple(f"blocks.{block}" for block in range(9)),
    ),
    Student(
        name="pair_classifier",
        row=16,
        source="edgekit.students.pair_classifier:build",
        inputs=tuple(Tensor(name=n, dtype="int64", shape=("B", "T"), min=0, max=9_999) for n in ("first", "second")),
        axes=(_batch(), _length(64)),
        split_points=("hidden",),
    ),
    Student(
        name="char_cnn",
        row=21,
        source="edgekit.students.char_cnn:build",
        inputs=(
            Tensor(name="grams", dtype="int64", shape=("B", "T"), min=0, max=49_999),
            Tensor(name="chars", dtype="int64", shape=("B", 512), min=0, max=255),
        ),
        outputs=("ngrams", "output"),
        axes=(_batch(), _length(512)),
        exits=("ngrams", "output"),
        split_points=("gram_head", "excite", "hidden"),
    ),
    Student(
        name="few_shot",
        row=17,
        source="edgekit.students.few_shot:build",
        inputs=(_ids(30_522), _MASK),
        outputs=("embedding",),
        axes=(_batch(), _length(256)),
        split_points=tuple(f"bert.encoder.layer.{layer}" for layer in range(6)),
    ),
    _resnet("resnet20"),
    _resnet("resnet32"),
    _resnet("resnet44"),
    Student(
        name="multi_exit",
        row=23,
        source="edgekit.students.multi_exit:build",
        inputs=(_CIFAR,),
        outputs=("exit_0", "exit_1", "exit_2"),
        axes=(_batch(),),
        exits=("exit_0", "exit_1", "exit_2"),
        split_points=("stages.0", "stages.1", "stages.2"),
    ),
    _mlperf_tiny("resnet8", _CIFAR, ("blocks.1", "blocks.2", "blocks.3")),
    _mlperf_tiny("ds_cnn", Tensor(name="mfcc", dtype="float32", shape=("B", 1, 49, 10)), ("blocks.0", "blocks.2")),
    _mlperf_tiny(
        "mobilenet_v1", Tensor(name="image", dtype="float32", shape=("B", 3, 96, 96)), ("blocks.1", "blocks.3")
    ),
    _mlperf_tiny("autoencoder", Tensor(name="spectrum", dtype="float32", shape=("B", 640)), ("blocks.5",)),
    *(_plain(layers) for layers in (4, 6, 8, 10)),
    Student(
        name="lrcn",
        row=11,
        source="edgekit.students.lrcn:build",
        inputs=(Tensor(name="frames", dtype="float32", shape=("B", 16, 3, 64, 64)),),
        axes=(_batch(16),),
        split_points=("features", "lstm"),
    ),
    Student(
        name="lrcn_step",
        row=11,
        source="edgekit.students.lrcn:step",
        inputs=(
            Tensor(name="frame", dtype="float32", shape=("B", 3, 64, 64)),
            Tensor(name="h", dtype="float32", shape=("B", 64)),
            Tensor(name="c", dtype="float32", shape=("B", 64)),
        ),
        outputs=("output", "h_next", "c_next"),
        axes=(_batch(16),),
        inputs_source="step_example",
        states=(("h", "h_next"), ("c", "c_next")),
    ),
    Student(
        name="essay_scorer",
        row=12,
        source="edgekit.students.essay_scorer:build",
        inputs=(_ids(12_000),),
        axes=(_batch(), _length(500)),
        split_points=("embedding", "layer"),
    ),
    Student(
        name="integer_rnn",
        row=14,
        source="edgekit.students.integer_rnn:build",
        inputs=(_ids(12_000),),
        axes=(_batch(), _length(64)),
    ),
    Student(
        name="truecaser",
        row=13,
        source="edgekit.students.truecaser:build",
        inputs=(
            Tensor(name="words", dtype="int64", shape=("B", "T"), min=0, max=7_999),
            Tensor(name="chars", dtype="int64", shape=("B", "T", "C"), min=0, max=127),
        ),
        axes=(_batch(16), _length(32), Axis(symbol="C", min=1, max=16, role="length")),
        split_points=("embedding", "word_layer", "character_layer"),
    ),
    Student(
        name="vit",
        row=19,
        source="edgekit.students.vit:build",
        inputs=(Tensor(name="image", dtype="float32", shape=("B", 3, 96, 96)),),
        axes=(_batch(),),
        split_points=tuple(f"layers.{layer}" for layer in range(6)),
    ),
    Student(
        name="two_branch",
        row=18,
        source="edgekit.students.two_branch:build",
        inputs=(
            Tensor(name="image", dtype="float32", shape=("B", 1, 28, 28), min=0, max=1),
            Tensor(name="spectrum", dtype="float32", shape=("B", 1, 40, 32)),
        ),
        axes=(_batch(),),
        split_points=("seeing", "hearing"),
    ),
    Student(
        name="transliterator",
        row=15,
        source="edgekit.students.transliterator:build",
        inputs=(Tensor(name="chars", dtype="int64", shape=("B", "T"), min=0, max=28),),
        outputs=("tokens",),
        axes=(_batch(), _length(24)),
        split_points=("read_norm",),
    ),
    Student(
        name="gcn",
        row=20,
        source="edgekit.students.gcn:build",
        inputs=(
            Tensor(name="x", dtype="float32", shape=("N", 64)),
            Tensor(name="edges", dtype="int64", shape=(2, "E")),
        ),
        axes=(Axis(symbol="N", min=1, max=1024, role="length"), Axis(symbol="E", min=1, max=4096, role="length")),
        split_points=("first",),
    ),
)

STUDENTS: dict[str, Student] = {student.name: student for student in TABLE}
if len(STUDENTS) != len(TABLE):
    raise AssertionError("two reference students share a name")


def get(name: str) -> Student:
    """The student of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in STUDENTS:
        raise UsageError(f"there is no reference student {name!r}", remedy=f"one of: {', '.join(STUDENTS)}")
    return STUDENTS[name]
