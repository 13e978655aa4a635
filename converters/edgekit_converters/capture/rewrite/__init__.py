"""Operators that no exporter takes well, written out with others while a student is captured.

    module   torch.export runs `forward` inside `rewriting()`: calls in `FUNCTIONS` go to what stands there instead
    .pt2     the saved program holds the operators already: `rewrite_saved` decomposes those in `_saved()`

Each form is a file of its own with the graph before and after in its docstring. Capture compares the program with the
student at every size afterwards, so that a form that is wrong never reaches a format.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from edgekit_converters.capture.rewrite import circular, embedding_bag
from edgekit_converters.quiet import quiet

if TYPE_CHECKING:
    import torch


def _functions() -> dict[Any, Callable[..., Any]]:
    """What `forward` calls -> what runs in its place; it may give NotImplemented where the call is fine as it is."""
    from torch.nn import functional

    return {functional.embedding_bag: embedding_bag.embedding_bag, functional.pad: circular.pad}


def _saved() -> dict[Any, Callable[..., Any]]:
    """Operators of a saved program -> decomposition."""
    import torch

    aten: Any = torch.ops.aten
    return {
        aten.pad.default: circular.pad,
        aten.embedding_bag.padding_idx: embedding_bag.decomposed,
        aten._embedding_bag.default: embedding_bag.decomposed,
        aten._embedding_bag_forward_only.default: embedding_bag.decomposed,
    }


@contextlib.contextmanager
def rewriting() -> Iterator[None]:
    """Within the block, calls that the table knows run as written out there."""
    from torch.overrides import TorchFunctionMode

    table = _functions()

    class Rewriting(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = kwargs or {}
            if func in table and (answer := table[func](*args, **given)) is not NotImplemented:
                return answer
            return func(*args, **given)

    with Rewriting():
        yield


def rewrite_saved(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without the operators that are written out; the same object where it has none."""
    table = {target: form for target, form in _saved().items() if _calls(program, target)}
    if not table:
        return program
    with quiet():
        return program.run_decompositions(table)


def _calls(program: torch.export.ExportedProgram, target: Any) -> bool:
    return any(node.target is target for node in program.graph.nodes)
