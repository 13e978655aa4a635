from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit_converters.capture import capture
from edgekit_converters.stock import attempts


class TokenMeans(torch.nn.Module):
    """Shapes that onnxruntime's symbolic inference does not follow: its failure drops a file where it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(30, 8)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        keep = (ids != 0).unsqueeze(-1)
        return self.head((self.embedding(ids) * keep).sum(1) / keep.sum(1).clamp(min=1))


@pytest.mark.slow
def test_stock_tools_tell_what_they_made_or_why_not_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    samples = [{"ids": np.random.default_rng(seed).integers(1, 30, (1, 6))} for seed in range(8)]
    student = capture(TokenMeans(), name="means", example=samples[0])
    made = list(attempts(student, samples, tmp_path / "work"))
    assert [attempt.tool for attempt in made] == ["ORT quantize_dynamic", "ORT quantize_static", "litert-torch + AEQ"]
    assert all((attempt.path is not None and attempt.path.is_file()) or attempt.error for attempt in made)
    assert made[2].path is not None
    assert list(here.iterdir()) == []
    assert Path.cwd() == here
