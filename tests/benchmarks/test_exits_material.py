"""How the students of the page of exits are taught."""

from __future__ import annotations

import copy

import numpy as np
import torch

from benchmarks.exits_material import teach_branches
from edgekit.students.multi_exit import MultiExitCNN
from edgekit.students.sampling import settle_batch_norm
from edgekit.training.heads import Teaching


def test_branches_learn_to_say_what_the_last_exit_says_and_the_body_stays() -> None:
    torch.manual_seed(0)
    image = np.random.default_rng(0).random((64, 1, 16, 16), dtype=np.float32)
    image[::2] *= 0.2  # dark and bright pictures: something to tell apart
    student = MultiExitCNN(1, (4, 8, 8), classes=2, branches=((4, 8), (8,)))
    settle_batch_norm(student, {"image": image})
    student.eval()
    with torch.no_grad():
        student.heads[2].weight *= 3
        student.heads[2].bias -= student(torch.from_numpy(image))["exit_2"].mean(0)
        full = student(torch.from_numpy(image))["exit_2"].argmax(1)
    assert 16 <= int(full.sum()) <= 48  # both answers are given: it takes more than a constant to agree
    before = copy.deepcopy(student.state_dict())
    again = copy.deepcopy(student)

    def agreement() -> list[float]:
        with torch.no_grad():
            said = [one.argmax(1) for one in student(torch.from_numpy(image)).values()]
        return [float((one == said[-1]).float().mean()) for one in said[:-1]]

    plan = Teaching(epochs=30, batch=16, peak_rate=1e-2)
    teach_branches(student, {"image": image}, plan)
    after = student.state_dict()
    body = [name for name in before if name.startswith(("stem", "stages", "heads.2"))]
    assert body and all(torch.equal(before[name], after[name]) for name in body)
    assert min(agreement()) >= 0.9
    assert not student.training
    teach_branches(again, {"image": image}, plan)
    assert all(torch.equal(after[name], value) for name, value in again.state_dict().items())
