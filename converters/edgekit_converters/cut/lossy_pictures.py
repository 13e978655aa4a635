"""Pictures sent to a server as JPEG or WebP: what it costs in accuracy, measured on the evaluation data.

    evaluation sample ─ encode ─ decode ─► full graph ─► answer ─ judge ─► accuracy_drop, interval_95

An input is a picture by its shape (`edgekit_runtime.pictures.layout`): four axes, one or three channels, sides of 16
and more. What a codec does to something else of that shape, such as a spectrogram, the measurement tells as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgekit_converters.captured import Arrays
from edgekit_converters.cut.lossy import Evidence, some
from edgekit_converters.staging import Staging
from edgekit_converters.verify.gate import MIN_SLICE, judge
from edgekit_runtime import codecs
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.chain import Chain
from edgekit_runtime.errors import Refused
from edgekit_runtime.manifest import Action, Graph, Manifest

CODECS = (f"jpeg@{codecs.JPEG_QUALITY}", f"webp@{codecs.WEBP_QUALITY}")


def with_picture_actions(manifest: Manifest, stage: Staging, evidence: Evidence) -> Manifest:
    """The manifest with an action for each picture codec and full graph.

    Args:
        manifest: With the full graphs listed.
        stage: The bundle in the making.
        evidence: Data and task. Nothing is measured on fewer samples than a group needs to be judged.
    """
    data, rows = some(evidence.data)
    pictures = [name for name, array in data.inputs[0].items() if codecs.takes(CODECS[0], array)]
    if len(data) < MIN_SLICE or not pictures or manifest.states:
        return manifest
    lacking = codecs.missing(CODECS[0])
    if lacking:
        evidence.progress(f"no action sends {', '.join(pictures)} as JPEG or WebP: Pillow is not installed ({lacking})")
        return manifest
    stage.write_manifest(msgspec.structs.replace(manifest, files=stage.files()))
    reference = [evidence.task.reference[row][evidence.task.output] for row in rows]
    actions: list[Action] = []
    for codec in CODECS:
        evidence.progress(f"measuring {', '.join(pictures)} as {codec}")
        try:
            sent = [through(codec, sample, pictures) for sample in data.inputs]
        except Refused as error:  # NaN or infinity: no picture
            evidence.progress(f"no action sends {codec}: {error.message}")
            continue
        with open_bundle(stage.root) as bundle:
            for graph in (row for row in manifest.graphs if row.role == "full"):
                with Chain(bundle, graph.id, engine=graph.engine) as student:
                    answers = [student.run(sample)[evidence.task.output] for sample in sent]
                quality = judge(graph.id, evidence.task.metric, reference, answers, data, evidence.task.limit)[0]
                actions.append(_action(graph, codec, quality.drop, quality.interval_95, quality.n))
    return msgspec.structs.replace(manifest, actions=(*manifest.actions, *actions))


def through(codec: str, sample: Arrays, pictures: Sequence[str]) -> Arrays:
    """A sample as the other end of the wire has it."""
    back = {
        name: codecs.decode(codec, codecs.encode(codec, array), array.dtype.name, array.shape)
        for name, array in sample.items()
        if name in pictures
    }
    return {**sample, **back}


def _action(graph: Graph, codec: str, drop: float, interval_95: tuple[float, float], n: int) -> Action:
    return Action(
        id=f"offload:{graph.id}:{codec}",
        kind="offload",
        graphs=(graph.id,),
        codec=codec,
        accuracy_drop=drop,
        interval_95=interval_95,
        n=n,
    )
