"""One file that shows the board without a server: page, style, scripts and figures together."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from ...paths import atomic
from .content import Board, _spread
from .page import PAGE, SCRIPTS, STYLE, asset

_WIDTH = 1000  # pixels for which series are thinned
_PICTURES = 8  # of one tag
_PICTURE_BYTES = 40 << 20  # of all pictures
_BLOCK = "application/json"


def export(board: Board, target: str | Path) -> Path:
    """Write the report: nothing in it is fetched from anywhere, and no text in it can run."""
    board.update(force=True)
    content = json.dumps(_content(board), separators=(",", ":"), allow_nan=False)
    # In a block of data only its closing tag, and comments, mean anything to a browser.
    content = content.replace("<", "\\u003c")
    style = asset(STYLE)
    script = "\n".join(asset(name) for name in SCRIPTS)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'
    # Scripts at the end: those within the page cannot be told to wait for it.
    body = f'<script type="{_BLOCK}" id="content">{content}</script>\n<script>{script}</script>\n'
    text = asset(PAGE).replace("<!-- head -->", head).replace("</body>", f"{body}</body>")
    path = Path(target)
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _content(board: Board) -> dict[str, Any]:
    """Answers by question, as the page asks them of a server."""
    overview = board.overview()
    answers: dict[str, Any] = {"runs": overview}
    for tag in range(len(overview["tags"]["scalars"])):
        answers[f"scalars?tag={tag}"] = board.scalars(tag, width=_WIDTH)
    left = _PICTURE_BYTES
    for row in overview["runs"]:
        run = row["run"]
        answers[f"details?run={run}"] = board.details(run)
        for tag in row["has"]["histograms"]:
            answers[f"histograms?run={run}&tag={tag}"] = board.histograms(run, tag)
        for tag in row["has"]["texts"]:
            answers[f"texts?run={run}&tag={tag}"] = board.texts(run, tag)
        for tag in row["has"]["confusions"]:
            answers[f"confusions?run={run}&tag={tag}"] = board.confusions(run, tag)
        for tag in row["has"]["images"]:
            listed = board.images(run, tag)
            places = [i for i, shown in enumerate(listed["shown"]) if shown]
            places = [places[i] for i in _spread(len(places), _PICTURES)]
            kept: list[int] = []
            for place in places:
                kind, data = board.image(run, tag, place)
                if len(data) <= left:
                    left -= len(data)
                    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
                    answers[f"image?run={run}&tag={tag}&place={len(kept)}"] = url
                    kept.append(place)
            answers[f"images?run={run}&tag={tag}"] = {
                name: [listed[name][place] for place in kept] for name in listed
            }
    return answers
