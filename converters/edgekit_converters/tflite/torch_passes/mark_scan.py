"""Pass: keeps a `torch.scan` in one piece through litert-torch, which has no lowering for it.

    before: scan(body, (c0, ...), (xs, ...), (weights, ...))
    after:  composite "edgekit.scan.N"(c0, ..., xs, ..., what else the body reads) with the outputs that are used

The body is lowered beside the student as a signature of its own, once for each set of shapes that it meets, and its
constant operands become its own. `passes.step_scan` then calls it once a step, as `passes.step_recurrent` does with a
layer's step. The composite's body is a cheap stand-in of the right shapes.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PREFIX = "edgekit.scan."


@dataclasses.dataclass
class MarkedScan:
    """One scan of the student.

    Attributes:
        name: `edgekit.scan.N`.
        body: (carry ..., row of each sequence ..., others ...) -> (next carry ..., row of each answer ...).
        carries: State tensors.
        sequences: Tensors that are read a row a step, along axis 0.
        used: Positions of the outputs that are read: final carries first, then answers.
        met: Arguments of the body, in the order seen.
    """

    name: str
    body: torch.nn.Module
    carries: int
    sequences: int
    used: tuple[int, ...]
    met: list[tuple[torch.Tensor, ...]] = dataclasses.field(default_factory=list)

    def __call__(self, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The stand-in: outputs of the right shapes and dtypes that depend on every operand, values meaningless."""
        import torch
        from litert_torch.backend.composite import StableHLOCompositeBuilder

        last = self.carries + self.sequences
        steps = operands[self.carries].shape[0]
        rows = [sequence[0] for sequence in operands[self.carries : last]]
        arguments = (*operands[: self.carries], *rows, *operands[last:])
        if not torch.compiler.is_compiling() and not any(_is_fake(one) for one in operands):
            self.met.append(tuple(one.clone() for one in arguments))
        answers = self.body(*arguments)
        builder: Any = StableHLOCompositeBuilder(self.name)
        marked = builder.mark_inputs(*operands)
        marked = marked if isinstance(marked, Sequence) else [marked]
        total = sum((one.sum().to(torch.int32) for one in marked), torch.zeros((), dtype=torch.int32))
        outputs = []
        for place in self.used:
            shape = answers[place].shape if place < self.carries else (steps, *answers[place].shape)
            outputs.append((torch.zeros(shape, dtype=torch.int32) + (total + place)).to(answers[place].dtype))
        found = builder.mark_outputs(*outputs)
        return tuple(found) if isinstance(found, Sequence) else (found,)


def mark_scan(module: torch.fx.GraphModule) -> list[MarkedScan]:
    """Replaces the scans in place and returns them."""
    import torch

    found: list[MarkedScan] = []
    for node in list(module.graph.nodes):
        if node.target is torch.ops.higher_order.scan:
            found.append(_replace(module, node, f"{PREFIX}{len(found)}"))
    if found:
        module.graph.lint()
        module.recompile()
    return found


def bodies(scans: Sequence[MarkedScan]) -> dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]]:
    """Signature name -> body and example arguments, one for each set of shapes that a scan met."""
    found: dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...]]] = {}
    for scan in scans:
        seen: list[list[tuple[int, ...]]] = []
        for arguments in scan.met:
            shapes = [tuple(one.shape) for one in arguments]
            if shapes not in seen:
                found[f"{scan.name}.{len(seen)}"] = (scan.body, arguments)
                seen.append(shapes)
    return found


def _is_fake(tensor: torch.Tensor) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor) or type(tensor).__name__ == "FunctionalTensor"


def _replace(module: torch.fx.GraphModule, node: torch.fx.Node, name: str) -> MarkedScan:
    graph = module.graph
    body, carries, sequences, others = node.args
    held = {place: _tensor(module, one.target) for place, one in enumerate(others) if one.op == "get_attr"}
    given = [one for place, one in enumerate(others) if place not in held]
    users = [user for user in list(node.users) if user.target is operator.getitem and user.users]
    used = tuple(sorted({int(user.args[1]) for user in users}))
    inner = getattr(module, body.target)
    scan = MarkedScan(name, _body(inner, len(carries) + len(sequences), held), len(carries), len(sequences), used)
    called = name.replace(".", "_")
    module.add_submodule(called, _call(scan))
    with graph.inserting_before(node):
        new = graph.call_module(called, (*carries, *sequences, *given))
        for place, position in enumerate(used):
            part = graph.call_function(operator.getitem, (new, place))
            for user in users:
                if user.args[1] == position:
                    part.meta = dict(user.meta)
                    user.replace_all_uses_with(part)
    for user in list(node.users):
        graph.erase_node(user)
    graph.erase_node(node)
    return scan


def _call(scan: MarkedScan) -> torch.nn.Module:
    import torch

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = scan.body

        def forward(self, *operands: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return scan(*operands)

    return Call()


def _tensor(module: Any, path: str) -> torch.Tensor:
    for part in path.split("."):
        module = getattr(module, part)
    found: torch.Tensor = module
    return found.detach()


def _body(inner: torch.nn.Module, leading: int, held: Mapping[int, torch.Tensor]) -> torch.nn.Module:
    """The body with its constant operands inside."""
    import torch

    class Body(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner
            for place, value in held.items():
                self.register_buffer(f"held{place}", value)

        def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
            rest, others = list(arguments[leading:]), []
            for place in range(len(held) + len(rest)):
                others.append(getattr(self, f"held{place}") if place in held else rest.pop(0))
            return tuple(self.inner(*arguments[:leading], *others))

    return Body().eval()
