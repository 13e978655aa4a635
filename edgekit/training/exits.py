"""Early exits for a student that has none.

    image ──► conv1 ──► layer1 ──► layer2 ──► layer3 ──► linear ──► output
                           └─► head ─► exit_0   └─► head ─► exit_1

    student = attach_exits(resnet, {"exit_0": "layer1", "exit_1": "layer2"}, example, classes=10, frozen=True)
    answers = student(image=x)          # {"exit_0": ..., "exit_1": ..., "output": ...}, in order of depth

Train it as any module (its loss is the mean over the exits, `edgekit.students.fit` does that), then
`edgekit convert … --exits exit_0,exit_1,output`. A frozen body keeps its answers bit by bit: only heads learn.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from edgekit_runtime.errors import UsageError

Head = Callable[[tuple[int, ...], int], nn.Module]


class PooledHead(nn.Module):
    """Means over space or time, then a hidden layer and logits.

    Args:
        shape: Of one example batch of what it reads: [B, C, H, W] or [B, T, C].
        classes: Logits.
        hidden: Width of the hidden layer; 0: none.
    """

    def __init__(self, shape: tuple[int, ...], classes: int, hidden: int = 0) -> None:
        super().__init__()
        self.axes = tuple(range(2, len(shape))) if len(shape) == 4 else tuple(range(1, len(shape) - 1))
        width = shape[1] if len(shape) == 4 else shape[-1]
        layers = [nn.Linear(width, hidden), nn.ReLU()] if hidden else []
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or width, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the body gives here, to logits [B, classes]."""
        return self.layers(x.mean(self.axes) if self.axes else x)


class FirstWordHead(nn.Module):
    """The first word's vector ([CLS]), a hidden layer with tanh, logits: BERT's own pooler."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(shape[-1], shape[-1])
        self.head = nn.Linear(shape[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, C] to logits [B, classes]."""
        return self.head(torch.tanh(self.pooler(x[:, 0])))


class WithExits(nn.Module):
    """A student with exits. Made by `attach_exits`.

    Args:
        body: The student; answers one tensor.
        taps: Exit -> submodule of the body whose output its head reads.
        heads: Exit -> head.
        answer: Name of the full answer.
        frozen: The body stays as it is: no gradients, and its normalization in evaluation mode.
    """

    def __init__(
        self, body: nn.Module, taps: Mapping[str, str], heads: Mapping[str, nn.Module], answer: str, frozen: bool
    ) -> None:
        super().__init__()
        self.body = body
        self.heads = nn.ModuleDict(dict(heads))
        self.taps = dict(taps)
        self.answer = answer
        self.frozen = frozen
        if frozen:
            body.requires_grad_(False)
            body.eval()

    def forward(self, *args: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The body's inputs, to the logits of every exit in order of depth, the full answer last."""
        seen: dict[str, torch.Tensor] = {}
        with watched(self.body, self.taps, seen):
            answer = self.body(*args, **inputs)
        found = {name: self.heads[name](seen[name]) for name in self.taps}
        return {**found, self.answer: answer}

    def train(self, mode: bool = True) -> WithExits:
        """As any module's; a frozen body stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self


class watched:
    """Keeps what submodules give while the body runs."""

    def __init__(self, body: nn.Module, taps: Mapping[str, str], seen: dict[str, torch.Tensor]) -> None:
        self._body, self._taps, self._seen = body, taps, seen
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        for name, path in self._taps.items():
            self._handles.append(self._body.get_submodule(path).register_forward_hook(self._keep(name)))

    def _keep(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, made: Any) -> None:
            self._seen[name] = made[0] if isinstance(made, tuple) else made

        return hook

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def attach_exits(
    student: nn.Module,
    taps: Mapping[str, str],
    example: Mapping[str, torch.Tensor],
    *,
    classes: int,
    head: Head | Mapping[str, Head] = PooledHead,
    answer: str = "output",
    frozen: bool = False,
) -> WithExits:
    """Puts exit heads on a student that answers one tensor.

    Args:
        student: The torch module.
        taps: Exit -> path of the submodule it stands behind (`layer2`, `bert.encoder.layer.1`), in order of depth.
        example: One batch of inputs.
        classes: Logits of each exit.
        head: Makes a head from the shape of one batch of what it reads, and the number of classes; or one such maker an
            exit.
        answer: Name of the full answer.
        frozen: Train the heads alone.

    Raises:
        UsageError: A submodule that does not exist or is not run on the example, or an exit without a head.
    """
    known = dict(student.named_modules())
    missing = [path for path in taps.values() if path not in known]
    if missing:
        raise UsageError(f"the student has no submodule {missing[0]!r}", remedy=f"it has: {', '.join(_top(known))}")
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad(), watched(student, taps, seen):
        student(**example)
    silent = [path for name, path in taps.items() if name not in seen]
    if silent:
        raise UsageError(f"{silent[0]!r} is not called when the student runs", remedy="tap a module that is")
    makers = dict(head) if isinstance(head, Mapping) else dict.fromkeys(taps, head)
    if set(makers) != set(taps):
        raise UsageError(f"heads for {', '.join(makers)}, exits {', '.join(taps)}", remedy="give each exit its head")
    heads = {name: makers[name](tuple(seen[name].shape), classes) for name in taps}
    return _named_like(student)(student, taps, heads, answer, frozen)


def _named_like(student: nn.Module) -> type[WithExits]:
    """`WithExits` whose `forward` has the student's own arguments: exporters name inputs by them."""

    def forward(self: WithExits, *args: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return WithExits.forward(self, *args, **inputs)

    own = list(inspect.signature(student.forward).parameters.values())
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = inspect.Signature([first, *own])  # type: ignore[attr-defined]
    return type("WithExits", (WithExits,), {"forward": forward})


def _top(known: Mapping[str, nn.Module]) -> Iterator[str]:
    return (name for name in known if name and name.count(".") < 2)
