"""The reference students that exist, in one explicit table. Importing it does not import torch.

student = registry.get("bilstm_tagger")
module = student.build("tiny")
answers = module(**{name: torch.from_numpy(array) for name, array in student.example(4, 12, size="tiny").items()})
"""

from __future__ import annotations

import dataclasses
import importlib
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
    """

    name: str
    row: int
    source: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ("output",)
    axes: tuple[Axis, ...] = ()
    exits: tuple[str, ...] = ()
    split_points: tuple[str, ...] = ()

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
            batch: Samples.
            length: Words; changes nothing for students without that axis.
            size: Size of the student that will read them (vocabularies differ).
            seed: Of the values.
        """
        arrays: dict[str, np.ndarray] = self._function("example")(batch, length, size=size, seed=seed)
        return arrays

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
