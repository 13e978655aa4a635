"""The inputs to the server, which runs the whole student: as they are, with a lossless codec, or as pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import msgspec

from edgekit_runtime import codecs
from edgekit_runtime.adaptive import ActionCost, risk
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.manifest import Action
from edgekit_runtime.remote import ways
from edgekit_runtime.remote.offer import Given, Local, Offer, sent
from edgekit_runtime.remote.weigh import worth


def offloads(given: Given, local: Local) -> Iterator[Offer]:
    """One offer for each lossless codec that is worth it, and for each lossy one that was measured at conversion."""
    rows = input_codecs(given)
    for row in rows:
        yield whole(given, _cost(row, local), dict.fromkeys(given.golden, row.codec))
    for way in given.ways:
        if way.kind == "offload" and way.action is not None:
            offer = _picture(given, local, way.action, min(row.bytes for row in rows))
            if offer is not None:
                yield offer


def input_codecs(given: Given) -> list[codecs.Measured]:
    """The lossless codecs that are worth offering for the inputs."""
    return worth(codecs.measure(name, given.golden.values()) for name in given.lossless)


def whole(given: Given, cost: ActionCost, chosen: Mapping[str, str]) -> Offer:
    """The whole student on the server.

    Args:
        given: What offers are made from.
        cost: Of the action.
        chosen: Codec of each input that does not travel as it is.
    """
    return Offer(cost, sending(given), given.bundle.manifest.name, chosen, whole_sha256(given))


def sending(given: Given) -> ways.Send:
    """The way that checks the inputs and sends them."""
    manifest = given.bundle.manifest
    own = {tensor.name: tensor for tensor in given.bundle.graph(given.graph).inputs}
    # The student's shapes with the graph's dtypes: TFLite takes int32 where the student takes int64.
    inputs = [
        msgspec.structs.replace(t, dtype=own[t.name].dtype if t.name in own else t.dtype) for t in manifest.inputs
    ]
    return ways.Send(inputs, {axis.symbol: axis for axis in manifest.axes})


def whole_sha256(given: Given) -> str:
    """What the server is asked to run, by its hash; empty: it does not understand that."""
    return given.bundle.graph(given.graph).sha256 if given.ours else ""


def _picture(given: Given, local: Local, action: Action, least_bytes: int) -> Offer | None:
    """A lossy codec on the pictures, the other inputs as they are."""
    name = f"offload:{action.codec}"
    why, row = "", None
    pictures = [key for key, array in given.golden.items() if codecs.takes(action.codec, array)]
    try:
        row = codecs.measure(action.codec, [given.golden[key] for key in pictures])
    except EdgekitError as error:  # its package is missing, or the example is no picture
        why = error.told
    if row is None or not pictures:
        given.left_out[name] = why or f"no input is a picture that {action.codec} takes"
        return None
    others = sum(array.nbytes for key, array in given.golden.items() if key not in pictures)
    row = dataclasses.replace(row, bytes=row.bytes + others)
    if row.bytes >= least_bytes:
        given.left_out[name] = f"{row.bytes} bytes here, a lossless codec sends {least_bytes}"
        return None
    return whole(given, risk.losing(_cost(row, local), action), dict.fromkeys(pictures, action.codec))


def _cost(row: codecs.Measured, local: Local) -> ActionCost:
    return sent(row, "offload", "offload", head_ms=0.0, tail_ms=local.served_ms, down=local.down_bytes)
