"""One shell for all pages: head, policy, style, and how text and figures get into it safely."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..record.figures.names import readable

FIGURES = ("plotly.min.js", "page.js")  # what a page with figures loads
_HERE = Path(__file__).parent

# Scripts come from the page's own folder only, and nothing goes over a network. `file:` because browsers disagree on
# what 'self' means for a page that was opened from disk.
_POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)
_NO_SCRIPT = (
    '<noscript><p class="note">The figures need JavaScript, which is switched off in this browser.</p></noscript>\n'
)
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E"
    "%3Crect width='32' height='32' rx='7' fill='%232e7cc4'/%3E"
    "%3Cpath d='M6 23c5 0 5-14 10-14s5 9 10 9' fill='none' stroke='white' stroke-width='3' stroke-linecap='round'/%3E"
    "%3C/svg%3E"
)


@dataclasses.dataclass(frozen=True)
class Live:
    """What a page that is served while things change must know of itself.

    Attributes:
        page: its name, as `live.json` calls it.
        version: of what it shows.
    """

    page: str
    version: str


def page(
    title: str,
    body: str,
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = FIGURES,
    live: Live | None = None,
) -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML, already escaped where it must be.
        styles: sheets of this package besides the common one.
        scripts: files beside the page.
        live: for a page that follows what changes; it asks its own server, and nobody else.
    """
    policy, bar = _POLICY, ""
    if live:
        policy = live_policy()
        scripts = [*scripts, "live.js"]
        bar = (
            f"<aside id='live' data-page='{text(live.page)}' data-version='{text(live.version)}' "
            "aria-label='What is running' hidden></aside>\n"
        )
    sheets = "".join(_packaged(name) for name in ("page.css", "figure.css", *styles))
    without = _NO_SCRIPT if "page.js" in scripts else ""
    loaded = "".join(f'<script src="{name}"></script>\n' for name in scripts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)}</title>
<link rel="icon" href="{_ICON}">
<style>
{sheets}</style>
</head>
<body>
{bar}{body}
{without}{loaded}</body>
</html>
"""


def text(value: object) -> str:
    """Any value as text in HTML, also inside quotes."""
    return html.escape(readable(value), quote=True)


def data_script(identifier: str, content: str) -> str:
    """JSON in a script tag that nothing inside it can close.

    Args:
        identifier: of the tag; letters, digits and hyphens.
        content: the JSON.
    """
    for character in "<>&\u2028\u2029":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{identifier}">{content}</script>'


def scripts(names: Sequence[str] = FIGURES) -> dict[str, str]:
    """The files that all pages of a folder share, by name."""
    return {name: _plotly() if name == "plotly.min.js" else _packaged(name) for name in names}


def live_policy() -> str:
    """What a page may load that is served while things change: also answers of its own server."""
    return f"{_POLICY}; connect-src 'self'"


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@cache
def _packaged(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
