"""The page's files, and how it may be shown: what a browser is told to refuse."""

from __future__ import annotations

from functools import cache
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
# In this order: later scripts use what earlier ones define.
SCRIPTS = ("values.js", "source.js", "chart.js", "scalars.js", "table.js", "media.js", "model.js",
           "main.js")  # fmt: skip
STYLE = "board.css"
PAGE = "board.html"
KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

# Nothing from elsewhere, nothing inline, no frames, no forms, no plugins.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@cache
def asset(name: str) -> str:
    """One of the page's own files; only names of the lists above are ever asked for."""
    return (ASSETS / name).read_text(encoding="utf-8")


def page() -> str:
    """The page that is served, with its style and scripts as files of their own."""
    scripts = "\n".join(f'<script src="assets/{name}" defer></script>' for name in SCRIPTS)
    style = f'<link rel="stylesheet" href="assets/{STYLE}">'
    return asset(PAGE).replace("<!-- head -->", f"{style}\n{scripts}")
