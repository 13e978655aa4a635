from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import UsageError
from edgekit_runtime.exits import NEVER, SCORES, Cascade, DriftAlarm, answer_early, mixed, score, softmax, spoken


def steps_over(logits: list[np.ndarray], asked: list[int]):
    """Steps that give rows of known logits, and note how many rows each was asked for."""
    rows = [np.arange(len(logits[0]))]

    def step(number: int):
        def run(keep: np.ndarray | None) -> np.ndarray:
            if keep is not None:
                rows[0] = rows[0][keep]
            asked.append(len(rows[0]))
            return logits[number][rows[0]]

        return run

    return [step(number) for number in range(len(logits))]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.floats(0, 1), st.integers(0, 1000))
def test_each_row_is_answered_by_the_first_exit_that_is_sure(n: int, exits: int, threshold: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = [rng.normal(0, 3, (n, 5)).astype(np.float32) for _ in range(exits)]
    asked: list[int] = []
    early = answer_early(steps_over(logits, asked), [threshold] * exits)
    sure = np.stack([score("max_softmax", one) >= threshold for one in logits])
    sure[-1] = True
    assert (early.exits == sure.argmax(0)).all()
    assert all((early.answers[i] == logits[k][i]).all() for i, k in enumerate(early.exits))
    assert asked == [int((early.exits >= k).sum()) for k in range(len(asked))], "finished rows are not run again"


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_scores_lie_between_0_and_1_and_the_best_possible_is_1(seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 4, (6, 7)).astype(np.float32)
    for rule in SCORES:
        found = score(rule, logits)
        assert found.shape == (6,) and (found >= -1e-12).all() and (found <= 1 + 1e-12).all()
        assert score(rule, np.array([[100.0, 0, 0]], np.float32))[0] == pytest.approx(1.0)


def test_an_answer_of_many_words_is_as_sure_as_its_least_sure_word() -> None:
    logits = np.array([[[9.0, 0], [0.1, 0]]], np.float32)
    assert score("max_softmax", logits)[0] == pytest.approx(softmax(logits)[0, 1].max())


def test_a_threshold_of_never_sends_everything_to_the_end() -> None:
    logits = [np.array([[99.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)]
    assert answer_early(steps_over(logits, []), [NEVER, 0.0]).exits.tolist() == [1]


def test_mixed_exits_speak_together_and_the_full_answer_stays_as_it_is() -> None:
    logits = [
        np.array([[3.0, 0.0]], np.float32),
        np.array([[0.0, 1.0]], np.float32),
        np.array([[0.0, 2.0]], np.float32),
    ]
    mixes = ((1.0,), (0.5, 0.5), (0.0, 0.0, 1.0))
    said = spoken(logits, mixes)
    assert softmax(said[1]) == pytest.approx((softmax(logits[0]) + softmax(logits[1])) / 2, rel=1e-5)
    assert said[2] is logits[2]
    early = answer_early(steps_over(logits, []), [NEVER, 0.5, 0.0], mixes=mixes)
    assert early.answers == pytest.approx(mixed(logits[:2], (0.5, 0.5)))


def test_thresholds_of_another_number_are_refused() -> None:
    with pytest.raises(UsageError, match="2 thresholds for 1 exits"):
        answer_early(steps_over([np.zeros((1, 2), np.float32)], []), [0.5, 0.0])


def test_an_unknown_score_rule_names_those_there_are() -> None:
    with pytest.raises(UsageError) as error:
        score("hope", np.zeros((1, 2), np.float32))
    assert "max_softmax" in str(error.value)


class Fixed:
    """A student that answers rows of a table by their number and remembers how many it was asked."""

    def __init__(self, table: np.ndarray) -> None:
        self.table, self.asked = table, 0

    def run(self, inputs):
        self.asked += len(inputs["row"])
        return {"scores": self.table[inputs["row"]]}


def test_a_cascade_asks_the_next_student_only_for_what_the_first_is_unsure_of() -> None:
    first = Fixed(np.array([[9.0, 0], [0.1, 0], [0, 9.0], [0, 0.2]], np.float32))
    second = Fixed(np.array([[0, 1.0], [0, 5.0], [1.0, 0], [5.0, 0]], np.float32))
    rows = {"row": np.arange(4)}
    early = Cascade([first, second], ["scores", "scores"], [0.9, 0.0]).run([rows, rows])
    assert early.exits.tolist() == [0, 1, 0, 1]
    assert early.answers.argmax(-1).tolist() == [0, 1, 1, 0]
    assert (first.asked, second.asked) == (4, 2)


def test_the_drift_alarm_is_quiet_while_the_certificate_holds() -> None:
    closed = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        alarm = DriftAlarm(0.02, 0.5, alpha=0.05, seed=seed)
        for wrong in rng.random(1500) < 0.04:  # 0.02 of all requests is 0.04 of those that leave early
            if alarm.tell(not wrong):
                break
        closed += alarm.closed
    assert closed / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


def test_the_drift_alarm_closes_the_exits_when_the_risk_is_five_times_as_high() -> None:
    rng = np.random.default_rng(0)
    alarm = DriftAlarm(0.01, 1.0, alpha=0.01)
    for wrong in rng.random(1000) < 0.05:
        if alarm.tell(not wrong):
            break
    assert alarm.closed and alarm.checked < 500 and not alarm.wants()


def test_the_drift_alarm_samples_the_share_it_was_told() -> None:
    alarm = DriftAlarm(0.01, sampled=0.1, seed=3)
    share = np.mean([alarm.wants() for _ in range(5000)])
    assert share == pytest.approx(0.1, abs=0.02)
