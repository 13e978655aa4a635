"""Pages without templates and scripts: what `plan` and `simulate` write, on a device too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def document(title: str, body: str) -> str:
    """A whole page as HTML: one file that needs no network.

    Args:
        title: As text.
        body: HTML.
    """
    style = resources.files("edgekit.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_CSP}"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style></head>"
        f'<body><main id="main">{body}</main></body></html>\n'
    )


def table(told: str, columns: Sequence[str], rows: Iterable[Sequence[str]], words: Sequence[str] = ()) -> str:
    """A table that scrolls by itself, by keyboard too.

    Args:
        told: What it shows, for a reader of the screen and as caption.
        columns: Titles.
        rows: One text a column.
        words: Titles of columns that hold words; the others hold figures, which stand to the right.
    """
    kinds = ["" if name in words else ' class="n"' for name in columns]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(columns, kinds, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(told)}">'
        f"<table><caption><span>{escape(told)}</span></caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
        "</table></div>"
    )
