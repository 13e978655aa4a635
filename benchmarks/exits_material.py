"""Students with exits for `exits.py`, trained once: what is learnt from, what is judged on, and nothing in common.

Weights are kept as `NAME.safetensors` in the folder given: a later run only loads them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.students import bert as students
from edgekit.students import data, resnet_cifar, word_pieces
from edgekit.students.fit import Plan, fit
from edgekit.students.multi_exit import MultiExitCNN
from edgekit.students.sampling import seeded, settle_batch_norm
from edgekit.students.train import mnist_task
from edgekit.training import views
from edgekit.training.exits import FirstWordHead, attach_exits
from edgekit.training.heads import Teaching, copied, pool_of, teach_heads
from edgekit_runtime.errors import Refused

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Material:
    """A student with exits, samples to calibrate its int8 graphs and fit the path on, and samples to certify on."""

    module: nn.Module
    exits: tuple[str, ...]
    fit: Arrays
    held: Arrays
    held_labels: np.ndarray
    dynamic: tuple[str, ...]


def kept(module: nn.Module, path: Path, teach: Callable[[], None]) -> nn.Module:
    """The module with the weights of a file; without the file it is taught, and the file is written."""
    from safetensors.torch import load_file, save_file

    if path.is_file():
        module.load_state_dict(load_file(path))
    else:
        teach()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")  # an interrupted run leaves no half a file
        save_file({name: value.contiguous() for name, value in module.state_dict().items()}, part)
        part.rename(path)
    return module.eval()


# Three narrow convolutions of stride 2 see squares of 21 pixels, one wide one squares of 9, at more MACs.
MNIST_BRANCHES = ((32, 32, 64), (64,))
MNIST_PLAN = Plan(epochs=6, batch=64, peak_rate=4e-3)
MNIST_TEACHING = Teaching(epochs=6, peak_rate=2e-3)


def mnist(folder: Path) -> Material:
    """A CNN with three exits, the first after one of nine blocks: 10,000 pictures to learn from, 2,000 held back.

    All exits learn from the labels; then, on the frozen body, the early ones learn what the last one says.
    """
    task = mnist_task(0)
    with seeded(0):
        module = MultiExitCNN(1, (16, 32, 64), (1, 4, 4), branches=MNIST_BRANCHES)
    settle_batch_norm(module, {"image": task.train["image"][:64]})

    def teach() -> None:
        fit(module, task.train, task.labels, MNIST_PLAN, augment=_shift, progress=say)
        teach_branches(module, task.train, MNIST_TEACHING)

    kept(module, folder / "mnist.safetensors", teach)
    chosen = {"image": task.train["image"][:1000]}
    return Material(module, ("exit_0", "exit_1", "exit_2"), chosen, task.held, task.held_labels, ("image:0=B:1-64",))


def teach_branches(module: MultiExitCNN, inputs: Arrays, plan: Teaching) -> None:
    """The early exits learn, on a frozen body, what the last one says of moved pictures; labels are not needed.

    Kullback-Leibler divergence at a temperature (Hinton et al. 2015, 1503.02531), as in `teach_heads`, but the body
    runs anew in each epoch: no two see the same pictures. There is no hint.
    """
    early = len(module.branches) - 1
    learning = nn.ModuleList([*module.branches[:early], *module.heads[:early]])
    steps = plan.epochs * -(-len(inputs["image"]) // plan.batch)
    optimizer = torch.optim.AdamW(learning.parameters(), lr=plan.peak_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.peak_rate, total_steps=steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(plan.seed)
    module.eval()
    learning.train()
    for epoch in range(plan.epochs):
        total = torch.zeros(early)
        for rows in torch.randperm(len(inputs["image"]), generator=generator).split(plan.batch):
            image = _shift({"image": torch.from_numpy(inputs["image"][rows.numpy()])}, generator)["image"]
            maps, full = _body(module, image)
            wanted = torch.softmax(full / plan.temperature, 1)
            losses = []
            for seen, branch, head in zip(maps, module.branches, module.heads, strict=False):
                said = torch.log_softmax(head(branch(seen).mean((2, 3))) / plan.temperature, 1)
                losses.append(nn.functional.kl_div(said, wanted, reduction="batchmean") * plan.temperature**2)
            each = torch.stack(losses)
            optimizer.zero_grad()
            each.sum().backward()
            nn.utils.clip_grad_norm_(learning.parameters(), 2.0)
            optimizer.step()
            schedule.step()
            total += each.detach() * len(rows)
        means = ", ".join(f"{mean:.3f}" for mean in (total / len(inputs["image"])).tolist())
        say(f"branches: epoch {epoch + 1} of {plan.epochs}: {means} nats from the full answer")
    module.eval()


@torch.no_grad()
def _body(module: MultiExitCNN, image: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """What the branches of the early exits read, and the last exit's logits."""
    maps, x = [], module.stem(image)
    for stage in module.stages:
        x = stage(x)
        maps.append(x)
    return maps[:-1], module.heads[-1](module.branches[-1](x).mean((2, 3)))


def _shift(batch: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Moves the pictures of a batch by up to 2 pixels."""
    height, width = batch["image"].shape[2:]
    padded = nn.functional.pad(batch["image"], (2, 2, 2, 2))
    x, y = torch.randint(0, 5, (2,), generator=generator).tolist()
    return {"image": padded[:, :, y : y + height, x : x + width]}


RESNET44_TAPS = {"exit_0": "layer2.0"}
RESNET44_HEAD = ("layer3.0", "layer3.6")
RESNET44_TEACHING = Teaching(epochs=6, hint_weight=3.0)  # by held-back training pictures, never by the evaluation set
RESNET44_VIEWS = (views.moved, views.zoomed, views.mixed, views.patched, views.zoomed, views.moved)


def resnet44(folder: Path) -> Material:
    """The trained ResNet44 with exits on its frozen body: heads learn on changed training pictures alone."""
    train, held = data.cifar10("train"), data.cifar10("eval")
    body = resnet_cifar.load(data.folder() / "models" / "resnet_cifar10" / "resnet44-014dd654.th")
    inputs = resnet_cifar.normalize(train.pixels)
    example = {"image": torch.from_numpy(inputs[:2])}
    head = copied(body, RESNET44_HEAD, "linear")
    module = attach_exits(body, RESNET44_TAPS, example, classes=10, head=head, frozen=True)

    def teach() -> None:
        teach_heads(
            module,
            pool_of(module, "image", inputs, RESNET44_VIEWS, hint="layer3", progress=say),
            RESNET44_TEACHING,
            say,
        )

    kept(module, folder / "resnet44.safetensors", teach)
    chosen = {"image": inputs[:1000]}
    evaluation = {"image": resnet_cifar.normalize(held.pixels)}
    return Material(module, (*RESNET44_TAPS, "output"), chosen, evaluation, held.labels, ("image:0=B:1-64",))


WORDS_PLAN = Plan(epochs=1, batch=64, peak_rate=3e-4)


def bert(name: str, folder: Path, body_weights: Path, size: str = "full") -> Material:
    """A BERT with an exit after each layer, on SST-2: heads and the trained body learn together for an epoch.

    Heads on a frozen body are taught in seconds, but its first words say little before the last layer: with BERT-tiny
    77 % of the development sentences get the full answer, 81 % where all learn together, at no loss of the last exit.

    Args:
        name: Of the student: `bert_tiny`, `bert_mini`, `bert_small`.
        folder: For the weights with exits.
        body_weights: Of the body trained by its recipe.
        size: `full`, or `tiny` for tests.

    Raises:
        Refused: The body was not trained.
    """
    from safetensors.torch import load_file

    if not body_weights.is_file():
        raise Refused(f"{name} is not trained", remedy=f"python -m benchmarks matrix {name} trains it")
    body = getattr(students, name)(size)
    body.load_state_dict(load_file(body_weights))
    task = word_pieces.sentences_task(0)
    train = task.train
    layers = len(body.bert.encoder["layer"])
    taps = {f"exit_{layer}": f"bert.encoder.layer.{layer}" for layer in range(layers - 1)}
    example = {name: torch.from_numpy(array[:2]) for name, array in train.items()}
    with seeded(0):
        module = attach_exits(body, taps, example, classes=2, head=FirstWordHead)
    kept(module, folder / f"{name}.safetensors", lambda: _teach_words(module, train, task.labels, WORDS_PLAN))
    chosen = {key: array[:1000] for key, array in train.items()}
    dynamic = tuple(f"{key}:{at}" for key in train for at in ("0=B:1-64", f"1=T:1-{word_pieces.LONGEST}"))
    return Material(module, (*taps, "output"), chosen, task.held, task.held_labels, dynamic)


def _teach_words(module: nn.Module, inputs: Arrays, labels: np.ndarray, plan: Plan) -> None:
    """Labels for every exit, and for the early ones what the last one says as well: they are to agree with it.

    Sentences of like length make a batch, cut to its longest one: half of the work would else be padding.
    """
    lengths = inputs["mask"].sum(1)
    rng = np.random.default_rng(plan.seed)
    steps = plan.epochs * -(-len(labels) // plan.batch)
    optimizer = torch.optim.AdamW(module.parameters(), lr=plan.peak_rate, weight_decay=plan.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, plan.peak_rate, total_steps=steps, pct_start=0.2)
    module.train()
    for epoch in range(plan.epochs):
        order = np.argsort(lengths + rng.random(len(lengths)) * 4, kind="stable")
        batches = [order[at : at + plan.batch] for at in range(0, len(order), plan.batch)]
        losses = []
        for number in rng.permutation(len(batches)):
            rows = batches[number]
            longest = int(lengths[rows].max())
            *early, full = module(
                **{name: torch.from_numpy(array[rows, :longest]) for name, array in inputs.items()}
            ).values()
            wanted, said = torch.from_numpy(labels[rows]), torch.softmax(full.detach(), 1)
            each = [nn.functional.cross_entropy(one, wanted) for one in (*early, full)]
            each += [nn.functional.cross_entropy(one, said) for one in early]
            loss = torch.stack(each).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if len(losses) % 20 == 0:
                say(f"epoch {epoch + 1} of {plan.epochs}, step {len(losses)} of {len(batches)}: {losses[-1]:.3f}")
    module.eval()


def say(line: str) -> None:
    print(line, flush=True)
