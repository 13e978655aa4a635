"""Branches of the student with exits."""

from __future__ import annotations

import pytest
import torch

from edgekit.students.multi_exit import MultiExitCNN
from edgekit_runtime.errors import UsageError

WIDTHS = (4, 8, 16)


def test_a_branch_of_several_convolutions_answers_and_sees_more_of_the_picture() -> None:
    torch.manual_seed(0)
    seen = []
    for branches in ((), ((6, 6, 12), (16,))):
        student = MultiExitCNN(1, WIDTHS, branches=branches).eval()
        image = torch.rand(1, 1, 28, 28, requires_grad=True)
        answers = student(image)
        assert list(answers) == ["exit_0", "exit_1", "exit_2"]
        assert all(one.shape == (1, 10) for one in answers.values())
        # One place of the branch's last map, the middle one, and the pixels that it hangs on.
        last = student.branches[0](student.stages[0](student.stem(image)))
        last[..., last.shape[2] // 2, last.shape[3] // 2].sum().backward()
        assert image.grad is not None
        seen.append(int((image.grad != 0).sum()))
    assert 0 < seen[0] <= 9 * 9 < seen[1] <= 21 * 21


def test_without_branches_each_is_one_convolution_as_wide_as_the_last_stage() -> None:
    plain = MultiExitCNN(1, WIDTHS).state_dict()
    told = MultiExitCNN(1, WIDTHS, branches=((16,), (16,))).state_dict()
    assert {name: value.shape for name, value in plain.items()} == {name: value.shape for name, value in told.items()}


@pytest.mark.parametrize("branches", [((16,),), ((16,), (16,), (16,)), ((16,), ())])
def test_branches_that_do_not_fit_the_stages_are_refused(branches: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(UsageError, match="for 3 stages"):
        MultiExitCNN(1, WIDTHS, branches=branches)
