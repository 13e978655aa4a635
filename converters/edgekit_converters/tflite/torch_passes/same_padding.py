"""Pass: `padding="same"` written out, which litert-torch would take for a list of characters.

    before: aten.conv1d.padding(x, w, b, stride, "same", dilation, groups)
    after:  aten.constant_pad_nd(x, [left, right]) -> aten.conv1d.default(..., padding 0, ...)

torch pads dilation * (kernel - 1) zeros in all, the odd one at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def write_out_same_padding(module: torch.fx.GraphModule) -> int:
    """Replaces convolutions with a padding given as a word, in place; returns how many."""
    import torch

    numbered = {
        torch.ops.aten.conv1d.padding: torch.ops.aten.conv1d.default,
        torch.ops.aten.conv2d.padding: torch.ops.aten.conv2d.default,
        torch.ops.aten.conv3d.padding: torch.ops.aten.conv3d.default,
    }
    count = 0
    for node in module.graph.nodes:
        if node.target in numbered:
            _rewrite(module.graph, node, numbered[node.target])
            count += 1
    if count:
        module.graph.lint()
        module.recompile()
    return count


def _rewrite(graph: torch.fx.Graph, node: torch.fx.Node, target: Any) -> None:
    import torch

    named = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    defaults = {"bias": None, "stride": [1], "padding": "valid", "dilation": [1], "groups": 1}
    given = {**defaults, **dict(zip(named, node.args, strict=False)), **node.kwargs}
    kernel = list(given["weight"].meta["val"].shape[2:])
    dilation = _each(given["dilation"], len(kernel))
    data = given["input"]
    if given["padding"] == "same":
        amounts: list[int] = []
        for size, step in zip(reversed(kernel), reversed(dilation), strict=True):  # the last axis comes first
            total = step * (size - 1)
            amounts += [total // 2, total - total // 2]
        with graph.inserting_before(node):
            data = graph.call_function(torch.ops.aten.constant_pad_nd.default, (data, amounts, 0.0))
            data.meta = {key: value for key, value in node.meta.items() if key != "val"}
    node.target = target
    node.args = (data, given["weight"], given["bias"], given["stride"], [0] * len(kernel), dilation, given["groups"])
    node.kwargs = {}


def _each(values: int | Sequence[int], axes: int) -> list[int]:
    listed = [values] if isinstance(values, int) else list(values)
    return listed * axes if len(listed) == 1 else listed
