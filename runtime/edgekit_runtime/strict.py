"""What every struct of edgekit's files has in common."""

from __future__ import annotations

import msgspec


class Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common settings, inherited: immutable, unknown keys refused. `kw_only` holds per class and is said again."""
