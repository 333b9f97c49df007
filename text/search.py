"""A small semantic search: texts, their vectors, and the nearest ones to a vector."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..core.errors import ConfigError, DataError, ShapeError
from ..core.insight.answers import Answers
from ..core.paths import atomic
from ..core.weights import load_file, save_file

Array = np.ndarray[Any, Any]
VECTORS, TEXTS = "vectors.safetensors", "texts.json"
_WORDS = 120  # of a passage of a long text


class Index:
    """Texts with their vectors at length 1.

    Args:
        texts: what is searched.
        vectors: (N, D), each at length 1.
        model: the name of the model that made them.
        places: where each text is from, for people.
    """

    def __init__(
        self,
        texts: Sequence[str],
        vectors: Array,
        model: str,
        places: Sequence[str] | None = None,
    ) -> None:
        if len(texts) != len(vectors):
            raise ShapeError(f"{len(texts)} texts and {len(vectors)} vectors: one for each wanted")
        self.texts, self.vectors, self.model = list(texts), vectors, model
        self.places = None if places is None else list(places)

    def __len__(self) -> int:
        return len(self.texts)

    def nearest(self, vector: Array, top: int = 5) -> list[dict[str, Any]]:
        """The texts whose vectors point most nearly the same way, best first.

        Raises:
            ConfigError: `top` is below 1.
            ShapeError: a vector of another length, as of another model.
        """
        if top < 1:
            raise ConfigError(f"top={top}: at least one text is wanted", got=top)
        if not self.texts:
            return []
        if vector.shape != self.vectors.shape[1:]:
            raise ShapeError(
                f"the index holds vectors of {self.vectors.shape[1]} numbers, made by "
                f"{self.model}; got {vector.shape}. Was it made by another model?",
                expected=self.vectors.shape[1:],
                got=vector.shape,
            )
        scores = self.vectors @ (vector / max(float(np.linalg.norm(vector)), 1e-12))
        top = min(top, len(scores))
        some = np.argpartition(-scores, top - 1)[:top]
        found = []
        for i in some[np.argsort(-scores[some], kind="stable")].tolist():
            one = {"index": i, "score": float(scores[i]), "text": self.texts[i]}
            if self.places is not None:
                one["place"] = self.places[i]
            found.append(one)
        return Answers(found)

    def save(self, folder: str | Path) -> Path:
        """Write texts and vectors to a folder."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": self.vectors}, target / VECTORS)
        said = {"model": self.model, "texts": self.texts, "places": self.places}
        with atomic(target / TEXTS) as part:
            part.write_text(json.dumps(said, ensure_ascii=False) + "\n", encoding="utf-8")
        return target

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: it holds no index, or a damaged one.
        """
        path = Path(folder)
        try:
            said = json.loads((path / TEXTS).read_text(encoding="utf-8"))
            vectors = load_file(path / VECTORS)["vectors"]
            return cls(said["texts"], vectors, str(said["model"]), said.get("places"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no index: {error}", path=str(path)) from error


def passages(path: str | Path, field: str | None = None) -> tuple[list[str], list[str]]:
    """The texts of a file or folder, and where each is from.

    Lines of a text file; a column of a CSV file, or a field of a JSONL file; of a folder, the
    paragraphs of its .txt and .md files. Long ones are cut into passages.

    Args:
        field: the column or field; "text", or the only one, unless given.
    Raises:
        DataError: nothing to read, a broken line, no such column.
    """
    root = Path(path)
    if root.is_dir():
        files = sorted(p for p in root.rglob("*") if p.suffix.lower() in (".txt", ".md"))
        found = [
            (part, f"{file.relative_to(root)}:{line}")
            for file in files
            for line, part in _paragraphs(file)
        ]
    else:
        found = [(text, f"{root.name}:{line}") for line, text in _rows(root, field)]
    cut = [(part, place) for text, place in found for part in _cut(text)]
    if not cut:
        raise DataError(f"{root} holds no texts.", path=str(root))
    return [text for text, _ in cut], [place for _, place in cut]


def _cut(text: str) -> list[str]:
    """A text as passages of at most so many words."""
    words = text.split()
    if len(words) <= _WORDS:
        return [text.strip()] if words else []
    return [" ".join(words[i : i + _WORDS]) for i in range(0, len(words), _WORDS)]


def _paragraphs(file: Path) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    lines: list[str] = []
    first = 1
    for number, line in enumerate([*_text(file).splitlines(), ""], 1):
        if line.strip():
            first = number if not lines else first
            lines.append(line.strip())
        elif lines:
            found.append((first, " ".join(lines)))
            lines = []
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} could not be read as UTF-8 text: {error}", path=str(path)
        ) from error


def _rows(path: Path, field: str | None) -> list[tuple[int, str]]:
    suffix = path.suffix.lower()
    text = _text(path)
    if suffix == ".csv":
        return _column(path, text, field)
    if suffix in (".jsonl", ".ndjson"):
        return _fields(path, text, field)
    return [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]


def _chosen(path: Path, names: Sequence[str], field: str | None) -> str:
    name = field or ("text" if "text" in names or len(names) != 1 else names[0])
    if name not in names:
        raise DataError(
            f"{path} has no {name!r}; it has {', '.join(map(str, names)) or 'nothing'}.\n"
            "Name the one to search: --field NAME",
            path=str(path),
        )
    return name


def _column(path: Path, text: str, field: str | None) -> list[tuple[int, str]]:
    reader = csv.DictReader(text.splitlines())
    name = _chosen(path, reader.fieldnames or [], field)
    return [(reader.line_num, row[name]) for row in reader if row.get(name)]


def _fields(path: Path, text: str, field: str | None) -> list[tuple[int, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number} is no JSON: {error}", path=str(path)) from error
        if isinstance(row, dict):
            row = row[_chosen(path, list(row), field)]
        if not isinstance(row, str):
            raise DataError(f"{path}:{number} is no text: {line:.60}", path=str(path))
        found.append((number, row))
    return found
