from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.students.fit import Plan, fit
from edgekit.training.bottleneck import ConvBottleneck, Distillation, LinearBottleneck, distil, insert_bottleneck
from edgekit.training.exits import attach_exits
from edgekit_runtime.errors import UsageError


class Net(nn.Module):
    """image [B, 1, 8, 8] -> 3 scores."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(image)).mean((2, 3)))


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def pictures(n: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Three kinds of pictures that their mean tells apart."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    return {"image": (rng.normal(size=(n, 1, 8, 8)) + 2 * labels[:, None, None, None]).astype(np.float32)}, labels


def test_heads_on_a_frozen_body_learn_and_leave_its_answer_bit_by_bit(net: nn.Module) -> None:
    inputs, labels = pictures(300)
    image = torch.from_numpy(inputs["image"])
    before = net(image).detach()
    student = attach_exits(net, {"early": "first", "late": "second"}, {"image": image[:2]}, classes=3, frozen=True)
    assert list(student(image=image)) == ["early", "late", "output"]
    fit(student, inputs, labels, Plan(epochs=20, batch=32, peak_rate=0.05, patience=20))
    found = student(image=image)
    assert torch.equal(found["output"], before)
    # A third by chance; one of the three kinds needs more than a line on the features of an untrained body.
    assert (found["late"].argmax(1).numpy() == labels).mean() > 0.5


def test_exits_of_a_body_that_learns_with_them_change_it(net: nn.Module) -> None:
    inputs, labels = pictures(120)
    image = torch.from_numpy(inputs["image"])
    before = net(image).detach()
    student = attach_exits(net, {"early": "first"}, {"image": image[:2]}, classes=3)
    fit(student, inputs, labels, Plan(epochs=1, batch=32))
    assert not torch.equal(student(image=image)["output"], before)


def test_a_student_with_exits_takes_the_arguments_of_its_body(net: nn.Module) -> None:
    import inspect

    student = attach_exits(net, {"early": "first"}, {"image": torch.zeros(2, 1, 8, 8)}, classes=3)
    assert list(inspect.signature(student.forward).parameters) == ["image"]


def test_a_tap_that_does_not_exist_names_those_there_are(net: nn.Module) -> None:
    with pytest.raises(UsageError) as error:
        attach_exits(net, {"early": "frist"}, {"image": torch.zeros(2, 1, 8, 8)}, classes=3)
    assert "first" in str(error.value)


def test_a_bottleneck_learns_what_it_replaces_and_tells_its_bytes(net: nn.Module) -> None:
    inputs, _ = pictures(300)
    torch.manual_seed(1)
    narrow = insert_bottleneck(net, "second", ConvBottleneck(8, 2, stride=2))
    image = torch.from_numpy(inputs["image"])
    with torch.no_grad():
        untrained = float((narrow(image) - net(image)).abs().mean())
    told = distil(narrow, "second", inputs, Distillation(epochs=12, batch=32))
    with torch.no_grad():
        trained = float((narrow(image) - net(image)).abs().mean())
    assert (told.bytes_before, told.bytes_after) == (8 * 64, 2 * 16)
    assert told.encoder_bytes > 0 and told.error < 1
    assert trained < untrained


def test_the_student_itself_is_not_touched_by_its_narrow_copy(net: nn.Module) -> None:
    image = torch.zeros(2, 1, 8, 8)
    before = net(image).detach()
    insert_bottleneck(net, "second", ConvBottleneck(8, 2))
    assert torch.equal(net(image), before)
    with pytest.raises(UsageError, match="no submodule"):
        insert_bottleneck(net, "third", LinearBottleneck(8, 2))
    with pytest.raises(UsageError, match="no bottleneck"):
        distil(net, "second", pictures(8)[0], Distillation(epochs=1))
