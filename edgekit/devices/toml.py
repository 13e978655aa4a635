"""Writes a profile as TOML: figures on one line each, lists of tables below."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def dumps(document: Mapping[str, Any], comment: str) -> str:
    """The document as TOML text; entries that are None or empty lists of tables are left out."""
    plain, tables, lists = [], [], []
    for key, value in document.items():
        if isinstance(value, (list, tuple)):
            lists += [(key, entry) for entry in value]
        elif isinstance(value, Mapping) and "value" not in value:
            tables.append((key, value))
        elif value is not None:
            plain.append(f"{key} = {_inline(value)}")
    text = [f"# {comment}", *plain]
    for key, table in tables:
        text += ["", f"[{key}]", *_lines(table)]
    for key, entry in lists:
        text += ["", f"[[{key}]]", *_lines(entry)]
    return "\n".join(text) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_inline(value)}" for key, value in table.items() if value is not None]


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(item)}" for key, item in value.items() if item is not None) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_inline, value)) + "]"
    # JSON's strings, numbers, true and false are TOML's, too.
    return json.dumps(value, ensure_ascii=False)
