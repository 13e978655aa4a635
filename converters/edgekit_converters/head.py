"""A bundle with another linear head: same graphs, same proofs, new labels; nothing is converted again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgekit_converters.staging import staging
from edgekit_runtime import head as heads
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import UsageError
from edgekit_runtime.head import Head

LABELS = "assets/labels.txt"


def replace_head(
    bundle: str | os.PathLike[str],
    head: Head | str | os.PathLike[str],
    labels: Sequence[str],
    out: str | os.PathLike[str],
    *,
    force: bool = False,
) -> Bundle:
    """Writes a bundle with this head in place of the one it has, or beside none. Its id is new, its graphs are not.

    Args:
        bundle: With the frozen body.
        head: The head, or the file that `Head.save` wrote.
        labels: One for each class, in the order of the head's rows.
        out: Where the new bundle goes; ends with `.edge`.
        force: Replace what is there.

    Raises:
        UsageError: The labels do not fit the head, or the head reads an output that the student does not have.
    """
    found = head if isinstance(head, Head) else heads.load(head)
    if len(labels) != len(found.bias) or any("\n" in label or not label for label in labels):
        raise UsageError(
            f"{len(labels)} labels for a head of {len(found.bias)} classes", remedy="one line of text for each class"
        )
    with open_bundle(bundle) as source:
        source.check_files()
        outputs = {tensor.name: tensor.shape[-1] for tensor in source.manifest.outputs}
        if outputs.get(found.output) != found.weight.shape[1]:
            raise UsageError(
                f"the head reads {found.weight.shape[1]} values of {found.output!r}; the student answers {outputs}",
                remedy="fit the head on the output of this bundle's own graphs",
            )
        with staging(Path(out), force=force) as stage:
            for name in source.manifest.files:
                target = stage.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.root / name, target)
            (stage.root / heads.FILE).parent.mkdir(exist_ok=True)
            found.save(stage.root / heads.FILE)
            stage.write(LABELS, "".join(f"{label}\n" for label in labels).encode())
            stage.write_manifest(msgspec.structs.replace(source.manifest, files=stage.files()))
            return open_bundle(stage.publish())
