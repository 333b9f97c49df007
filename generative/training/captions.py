"""Pictures with captions, in a folder.

Any of these says what a picture shows:

    metadata.jsonl      {"file_name": "a.png", "text": "a red boat"}     one line a picture
    metadata.csv        file_name,text                                    with these headings
    a.txt               beside a.png
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...core.data.images import EXTENSIONS
from ...core.errors import DataError

_LINES, _TABLE = "metadata.jsonl", "metadata.csv"
_NAME, _TEXTS = "file_name", ("text", "caption", "prompt")
_LONGEST = 10_000  # characters of a caption
_LARGEST = 64 << 20  # bytes of a list of captions


@dataclass(frozen=True)
class Captioned:
    """Files of pictures, and the caption of each.

    Attributes:
        source: where they are from, for messages and cards.
    """

    files: tuple[Path, ...]
    captions: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.files)

    def first(self, count: int | None) -> Captioned:
        """Only so many of them; all for None or 0."""
        if not count:
            return self
        return Captioned(self.files[:count], self.captions[:count], self.source)


def read_captions(folder: str | Path, default: str | None = None) -> Captioned:
    """The pictures of a folder and their captions, in the order of their names.

    Args:
        default: the caption of pictures that have none.

    Raises:
        DataError: no pictures, a picture without caption, or a list that cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(
            f"{folder} is no folder; one of pictures and their captions is wanted.",
            file=str(folder),
        )
    listed = _listed(root)
    if listed is not None:
        files = [root / name for name in listed]
        missing = [f for f in files if not f.is_file()]
        if missing:
            raise DataError(
                f"{root}: the list of captions names {missing[0].name}, and {len(missing) - 1} "
                "more, that are not there.",
                file=str(missing[0]),
            )
        captions: list[str | None] = list(listed.values())
    else:
        files = sorted(p for p in root.rglob("*") if p.suffix.lower() in EXTENSIONS)
        captions = [_beside(file) for file in files]
    if not files:
        raise DataError(f"{root}: there are no pictures", file=str(root))
    texts = [text if text else default for text in captions]
    silent = [f for f, text in zip(files, texts, strict=True) if not text]
    if silent:
        raise DataError(
            f"{root}: {len(silent)} of {len(files)} pictures have no caption, {silent[0].name} "
            f"the first.\nWrite it into {silent[0].with_suffix('.txt').name}, or into "
            f'{_LINES} ({{"{_NAME}": ..., "text": ...}}), or give one to all that have none: '
            '--caption "..."',
            file=str(silent[0]),
        )
    return Captioned(tuple(files), tuple(t for t in texts if t), root.resolve().name)


def _beside(picture: Path) -> str | None:
    path = picture.with_suffix(".txt")
    return _cleaned(_text(path), path) if path.is_file() else None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is too large for captions", file=str(path))
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as text: {error}", file=str(path)) from None


def _cleaned(text: str, path: Path) -> str:
    words = " ".join(text.split())
    if len(words) > _LONGEST:
        raise DataError(f"{path}: a caption of {len(words)} characters", file=str(path))
    return words


def _listed(root: Path) -> dict[str, str | None] | None:
    """File -> caption, as one of the lists says; None without a list."""
    lines, table = root / _LINES, root / _TABLE
    if lines.is_file():
        path, rows = lines, _rows(lines)
    elif table.is_file():
        path, rows = table, iter(enumerate(csv.DictReader(_text(table).splitlines()), 2))
    else:
        return None
    found: dict[str, str | None] = {}
    for number, row in rows:
        name = row.get(_NAME) if isinstance(row, Mapping) else None
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}, line {number}: no {_NAME!r}", file=str(path))
        way = PurePosixPath(name)
        if way.is_absolute() or ".." in way.parts or "\\" in name or "\0" in name:
            raise DataError(
                f"{path}, line {number}: {name!r} is outside of the folder", file=str(path)
            )
        text = next((row[key] for key in _TEXTS if row.get(key)), None)
        if text is not None and not isinstance(text, str):
            raise DataError(f"{path}, line {number}: the caption is no text", file=str(path))
        found[name] = None if text is None else _cleaned(text, path)
    return found


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{path}, line {number}: no JSON: {error}", file=str(path)
                ) from None
