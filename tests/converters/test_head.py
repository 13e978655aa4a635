from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgekit_runtime as er
from edgekit_converters.head import replace_head
from edgekit_runtime.errors import UsageError
from edgekit_runtime.head import Head
from edgekit_runtime.testing import make_bundle


def body(tmp_path: Path) -> tuple[Path, str, int]:
    """A bundle, the name of its output and how wide that is."""
    root = make_bundle(tmp_path / "body.edge")
    output = er.open_bundle(root).manifest.outputs[0]
    return root, output.name, int(output.shape[-1])


def test_a_new_head_needs_no_conversion_and_gives_a_new_id(tmp_path: Path) -> None:
    root, output, width = body(tmp_path)
    rng = np.random.default_rng(0)
    made = []
    for number in range(2):
        head = Head(rng.normal(size=(3, width)).astype(np.float32), np.zeros(3, np.float32), output)
        head.save(tmp_path / "head.npz")
        made.append(replace_head(root, tmp_path / "head.npz", ["a", "b", "c"], tmp_path / f"new{number}.edge"))
    again = replace_head(made[0].root, tmp_path / "head.npz", ["a", "b", "c"], tmp_path / "again.edge")
    old = er.open_bundle(root)
    assert len({old.bundle_id, *(bundle.bundle_id for bundle in made)}) == 3
    assert again.bundle_id == made[1].bundle_id
    assert [graph.sha256 for graph in made[0].manifest.graphs] == [graph.sha256 for graph in old.manifest.graphs]
    made[0].check_files()
    with er.open(made[1].root) as session:
        outputs = session.run({"x": rng.normal(size=(5, 4)).astype(np.float32)})
        want = ["abc"[row] for row in head.scores(outputs).argmax(1)]
        assert [answer.label for answer in session.decode(outputs)] == want


def test_a_head_for_another_body_is_refused(tmp_path: Path) -> None:
    root, output, width = body(tmp_path)
    fits = Head(np.zeros((2, width), np.float32), np.zeros(2, np.float32), output)
    wide = Head(np.zeros((2, width + 1), np.float32), np.zeros(2, np.float32), output)
    with pytest.raises(UsageError, match="3 labels for a head of 2"):
        replace_head(root, fits, ["a", "b", "c"], tmp_path / "new.edge")
    with pytest.raises(UsageError, match="the student answers"):
        replace_head(root, wide, ["a", "b"], tmp_path / "new.edge")
    assert not (tmp_path / "new.edge").exists()
