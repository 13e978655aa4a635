"""Row 9 word by word: the gated CNN's step form as a stream answers as the whole sentence does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import edgekit
import edgekit_runtime as er
from edgekit.students import gated_cnn, registry
from edgekit.students.sampling import run

WORDS = 12


def test_a_stream_of_words_is_the_whole_sentence_in_both_formats(tmp_path: Path) -> None:
    student = registry.get("gated_cnn_step")
    samples = [student.example(1, size="tiny", seed=seed) for seed in range(24)]
    bundle = edgekit.convert(
        gated_cnn.step("tiny"),
        out=tmp_path / "words.edge",
        calibration=samples,
        eval=samples,
        metric="cosine",
        precision="int8",
        states=[f"{before}={after}" for before, after in student.states],
    )
    ids = gated_cnn.example(1, WORDS, size="tiny", seed=5)["ids"]
    want = run(gated_cnn.build("tiny"), {"ids": ids})["output"]
    formats = set()
    for graph in (graph for graph in bundle.manifest.graphs if graph.role == "full"):
        formats.add(graph.format)
        with er.open(bundle.root, graph=graph.id, threads=1) as session:
            stream = session.stream()
            got = np.concatenate([stream.step({"ids": ids[:, n : n + 1]})["output"] for n in range(WORDS)], axis=1)
        loud = np.linalg.norm(want - want.mean(-1, keepdims=True))
        assert np.linalg.norm(got - want) / loud <= 0.1, graph.id  # int8 of a student 16 channels wide
    assert formats == {"onnx", "tflite"}
