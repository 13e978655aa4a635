"""Heads taught by a frozen body's own answers, and the changes to images they are taught on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.students import gated_cnn, resnet_cifar
from edgekit.training import views
from edgekit.training.exits import WithExits, attach_exits
from edgekit.training.heads import Teaching, copied, pool_of, teach_heads
from edgekit_runtime.errors import UsageError


def images(count: int = 64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 32, 32)).astype(np.float32)


def student(frozen: bool = True) -> WithExits:
    body = resnet_cifar.resnet20("tiny")
    head = copied(body, ["layer3.0"], "linear")
    example = {"image": torch.from_numpy(images(2))}
    return attach_exits(body, {"exit_0": "layer2.0"}, example, classes=10, head=head, frozen=frozen)


def test_heads_come_nearer_to_the_full_answer_and_the_body_stays() -> None:
    made = student()
    before = {name: value.clone() for name, value in made.body.state_dict().items()}
    pool = pool_of(made, "image", images(), [views.moved, views.zoomed], hint="layer3")
    assert len(pool.answers) == 128 == len(pool.features["exit_0"])
    first = teach_heads(made, pool, Teaching(epochs=1, peak_rate=1e-5))["exit_0"]
    with torch.no_grad():
        made.heads["exit_0"].linear.weight.mul_(-1)  # type: ignore[operator, union-attr]
    spoilt = teach_heads(made, pool, Teaching(epochs=1, peak_rate=1e-5))["exit_0"]
    healed = teach_heads(made, pool, Teaching(epochs=30, peak_rate=1e-2))["exit_0"]
    assert spoilt > first and healed < spoilt / 2
    assert all(torch.equal(value, before[name]) for name, value in made.body.state_dict().items())


@pytest.mark.parametrize("view", [views.moved, views.zoomed, views.mixed, views.patched])
def test_a_view_changes_images_keeps_their_shape_and_draws_from_its_generator_alone(view: object) -> None:
    given = torch.from_numpy(images(8))
    one, same, other = (view(given, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))  # type: ignore[operator]
    assert one.shape == given.shape and torch.isfinite(one).all()
    assert torch.equal(one, same) and not torch.equal(one, other) and not torch.equal(one, given)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="no submodule 'layer9'"):
        copied(resnet_cifar.resnet20("tiny"), ["layer9"], "linear")
    with pytest.raises(UsageError, match="must not learn"):
        pool_of(student(frozen=False), "image", images(), [views.moved])
    body = resnet_cifar.resnet20("tiny")
    with pytest.raises(UsageError, match="heads for b, exits a"):
        attach_exits(
            body,
            {"a": "layer2"},
            {"image": torch.from_numpy(images(2))},
            classes=10,
            head={"b": copied(body, ["layer3"], "linear")},
        )


def test_words_of_a_closed_cluster_share_its_probability_and_the_full_answer_is_the_models() -> None:
    model = gated_cnn.next_word("tiny")
    ids = torch.from_numpy(gated_cnn.example(4, 12, "tiny")["ids"])
    with torch.no_grad():
        said = model(ids)
        full = model.model(ids)[:, -1]
    torch.testing.assert_close(said["output"], full, rtol=0, atol=1e-6)
    first, last = gated_cnn.CUTOFFS["tiny"]
    for answer in said.values():
        torch.testing.assert_close(answer.exp().sum(1), torch.ones(4), rtol=0, atol=1e-5)
        torch.testing.assert_close(answer[:, :first], full[:, :first], rtol=0, atol=1e-6)
    for name, begin in (("exit_0", first), ("exit_1", last)):
        mass = full[:, last:].exp().sum(1)
        torch.testing.assert_close(said[name][:, last:].exp().sum(1), mass, rtol=0, atol=1e-5)
        assert (said[name][:, max(begin, last) :].std(1) < 1e-5).all(), "not run: all words alike"
