"""`edgekit.convert` with the names of device profiles: the converters themselves know no profiles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgekit_converters.target import Target

if TYPE_CHECKING:
    from edgekit_converters.draft import Progress
    from edgekit_runtime.bundle import Bundle


def convert(
    source: Any,
    *,
    out: str | os.PathLike[str],
    target: Sequence[str] = (),
    progress: Progress | None = None,
    **options: Any,
) -> Bundle:
    """Converts a student to a bundle: see `edgekit_converters.convert.convert` for options and errors.

    Args:
        source: An nn.Module, or what `edgekit convert SOURCE` takes.
        out: Where the bundle goes; ends with `.edge`.
        target: Names of device profiles to decide for; empty: one graph a precision, for all.
        progress: Called with a short line for each step.
        **options: The other fields of `edgekit_converters.options.Options` by name.
    """
    from edgekit_converters.convert import convert as made

    return made(source, out=out, progress=progress, targets=resolve(target), **options)


def resolve(names: Sequence[str]) -> tuple[Target, ...]:
    """Targets by the names of their profiles.

    Raises:
        UsageError: There is no such device.
    """
    from edgekit.devices import store

    profiles = [store.load(name) for name in dict.fromkeys(names)]
    return tuple(
        Target(profile.name, profile.architecture, profile.isa.value, profile.engines.value) for profile in profiles
    )
