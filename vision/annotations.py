"""Boxes that people drew: COCO JSON, VOC XML and YOLO text, as they stand in the files.

The readers here say what a file says, and name the file and the place where it makes no sense.
`detection_sets` finds the files and checks what they say together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import DataError
from .transforms import Size

MAX_JSON = 1 << 30
MAX_TEXT = 10_000_000


@dataclass(frozen=True)
class Drawn:
    """One box: its class by name, edges in pixels (left, upper, right, lower), where it stands.

    `crowd`: a box of many objects, or one marked as difficult: not trained on, not counted.
    `outline`: the polygons around its parts, as pairs of x and y, where they were drawn.
    """

    label: str
    box: tuple[float, float, float, float]
    place: str
    crowd: bool = False
    area: float | None = None
    outline: tuple[tuple[tuple[float, float], ...], ...] = ()


@dataclass(frozen=True)
class Annotated:
    """One picture, its height and width, and its boxes."""

    path: Path
    size: Size
    boxes: list[Drawn]


def picture_size(path: Path) -> Size:
    """Height and width of a picture as it is seen, turned as EXIF says; pixels are not decoded.

    Raises:
        DataError: there is no such file, or it is no picture.
    """
    from PIL import Image

    from ..core.data.images import FORMATS, read_image

    try:
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with Image.open(path, formats=formats) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # whatever is wrong with it, reading it in earnest says it best
        whole = read_image(path)
        return whole.height, whole.width
    return (width, height) if turned else (height, width)


def _text(path: Path, limit: int = MAX_TEXT) -> str:
    try:
        size = path.stat().st_size
        if size > limit:
            raise DataError(f"{path} has {size:,} bytes; the limit is {limit:,}", file=str(path))
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", file=str(path)) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text: {error}", file=str(path)) from None


def _number(value: Any, place: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise DataError(f"{place}: {value!r} is no number", place=place, got=value)
    return number


# -- COCO --------------------------------------------------------------------------------------


def read_coco(path: Path, folders: list[Path]) -> tuple[list[Annotated], list[str]]:
    """Pictures and class names of a COCO JSON file.

    Category numbers may be any: classes are numbered anew, in the order of the old numbers.

    Args:
        folders: where pictures are looked for, beside the file's own folder.
    Raises:
        DataError: the JSON is no COCO, refers to what is not there, or a picture is missing.
    """
    try:
        content = json.loads(_text(path, MAX_JSON))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}", file=str(path)) from None
    parts: dict[str, list[dict[str, Any]]] = {}
    for key in ("images", "categories", "annotations"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(
                f'{path} is no COCO JSON: "{key}" is no list of objects.\n'
                'Wanted: {"images": [...], "categories": [...], "annotations": [...]}',
                file=str(path),
            )
        parts[key] = rows
    names = _categories(parts["categories"], path)
    boxes: dict[Any, list[Drawn]] = {}
    known = {_id(row, path, f"images[{i}]") for i, row in enumerate(parts["images"])}
    for i, row in enumerate(parts["annotations"]):
        place = f"{path}: annotations[{i}]"
        if row.get("image_id") not in known:
            raise DataError(f"{place}: there is no image {row.get('image_id')!r}", place=place)
        if row.get("category_id") not in names:
            raise DataError(
                f"{place}: there is no category {row.get('category_id')!r}.\n"
                f"Categories: {', '.join(map(str, list(names)[:12]))}",
                place=place,
                label=row.get("category_id"),
            )
        boxes.setdefault(row["image_id"], []).append(_coco_box(row, names, place))
    annotated = []
    for row in parts["images"]:
        file = _find(path, folders, row.get("file_name"))
        size = picture_size(file)
        said = row.get("height"), row.get("width")
        if all(isinstance(n, int) for n in said) and said != size:
            raise DataError(
                f"{path} says that {file.name} has {said[1]} x {said[0]} pixels, and it has "
                f"{size[1]} x {size[0]}: the boxes are those of another version of it.\n"
                "Was it resized, or did the tool not turn it as its EXIF data says?",
                file=str(file),
                expected=said,
                got=size,
            )
        annotated.append(Annotated(file, size, boxes.get(row["id"], [])))
    return annotated, [names[key] for key in sorted(names, key=_order)]


def _order(key: Any) -> tuple[bool, Any]:
    return isinstance(key, str), key


def _id(row: dict[str, Any], path: Path, place: str) -> Any:
    value = row.get("id")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{path}: {place} has the id {value!r}; a number is wanted", got=value)
    return value


def _categories(rows: list[dict[str, Any]], path: Path) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for i, row in enumerate(rows):
        name, number = row.get("name"), _id(row, path, f"categories[{i}]")
        if not isinstance(name, str) or not name or number in names or name in names.values():
            raise DataError(
                f"{path}: categories[{i}] is {row!r}: a name and an id of its own are wanted",
                file=str(path),
            )
        names[number] = name
    return names


def _coco_box(row: dict[str, Any], names: dict[Any, str], place: str) -> Drawn:
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(f"{place}: the bbox is {box!r}; [x, y, width, height] is wanted")
    x, y, width, height = (_number(value, place) for value in box)
    area = row.get("area")
    return Drawn(
        names[row["category_id"]],
        (x, y, x + width, y + height),
        place,
        bool(row.get("iscrowd", 0)),
        None if area is None else _number(area, place),
        _outline(row.get("segmentation"), place),
    )


def _outline(drawn: Any, place: str) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Polygons of COCO JSON; run lengths, which crowds have, are passed over."""
    if not isinstance(drawn, list):
        return ()
    found = []
    for polygon in drawn:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise DataError(
                f"{place}: a polygon of the segmentation is {str(polygon)[:80]}.\n"
                "Wanted: x, y, x, y, ... of three points or more",
                place=place,
            )
        numbers = [_number(value, place) for value in polygon]
        found.append(tuple(zip(numbers[::2], numbers[1::2], strict=True)))
    return tuple(found)


def _find(path: Path, folders: list[Path], name: Any) -> Path:
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: the file name of a picture is {name!r}", file=str(path))
    tried = [folder / name for folder in (path.parent, *folders)]
    for file in tried:
        if file.is_file():
            return file
    raise DataError(
        f"{path} names the picture {name}, which is not there.\nLooked for:\n"
        + "\n".join(f"  {file}" for file in tried[:6]),
        file=name,
    )


# -- VOC ---------------------------------------------------------------------------------------


def read_voc(path: Path, picture: Path) -> Annotated:
    """The boxes of a VOC XML file; pixels are counted from 1 there.

    Documents that declare a type or entities are refused unread: they can be made to fill the
    memory or to read other files, and annotations need neither.

    Raises:
        DataError: it is no such file; names the object.
    """
    from xml.etree import ElementTree

    text = _text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(
            f"{path} declares a document type or entities, which annotations do not need.\n"
            "It was not read. Remove the declaration if you trust the file.",
            file=str(path),
        )
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path} is no XML: {error}", file=str(path)) from None
    boxes = []
    for i, node in enumerate(root.iter("object")):
        place = f"{path}: object {i + 1}"
        label = (node.findtext("name") or "").strip()
        frame = node.find("bndbox")
        if not label or frame is None:
            raise DataError(f"{place} has no name or no bndbox", place=place)
        names = ("xmin", "ymin", "xmax", "ymax")
        x0, y0, x1, y1 = (_number(frame.findtext(name), f"{place}, {name}") for name in names)
        difficult = (node.findtext("difficult") or "0").strip() == "1"
        boxes.append(Drawn(label, (x0 - 1, y0 - 1, x1, y1), place, difficult))
    return Annotated(picture, picture_size(picture), boxes)


# -- YOLO --------------------------------------------------------------------------------------


def read_yolo(path: Path, picture: Path, labels: list[str]) -> Annotated:
    """The boxes of a YOLO text file: lines of class, centre, width and height, from 0 to 1.

    A picture without a file has no boxes.

    Raises:
        DataError: a line that makes no sense, or a class number without a name.
    """
    height, width = picture_size(picture)
    boxes = []
    lines = _text(path).splitlines() if path.is_file() else []
    for i, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place, words = f"{path}, line {i}", line.split()
        if len(words) != 5:
            more = "\nOutlines of objects are not boxes." if len(words) > 6 else ""
            raise DataError(f"{place}: five numbers are wanted, got {line[:80]!r}{more}")
        number, cx, cy, w, h = (_number(word, place) for word in words)
        if number != int(number) or not 0 <= number < len(labels):
            raise DataError(
                f"{place}: there is no class {words[0]}; there are {len(labels)}: 0 to "
                f"{len(labels) - 1}.",
                place=place,
                label=words[0],
            )
        if not all(0 <= value <= 1 for value in (cx, cy, w, h)):
            raise DataError(
                f"{place}: {line.strip()!r} goes beyond 0 to 1. Are its numbers pixels?",
                place=place,
            )
        x0, x1 = (cx - w / 2) * width, (cx + w / 2) * width
        y0, y1 = (cy - h / 2) * height, (cy + h / 2) * height
        boxes.append(Drawn(labels[int(number)], (x0, y0, x1, y1), place))
    return Annotated(picture, (height, width), boxes)


def read_yolo_settings(path: Path) -> dict[str, Any]:
    """What a data.yaml says: `names` (a list), and `path`, `train`, `val` where they are there.

    Only what such files hold is understood: `key: value`, and names as `[a, b]`, as lines
    `- a`, or as lines `0: a`.

    Raises:
        DataError: no names, or something else.
    """
    found: dict[str, Any] = {}
    names: dict[int, str] = {}
    inside = ""
    for line in _lines(_text(path)):
        indented = line[0] in " \t-"
        key, colon, value = line.strip().partition(":")
        key, value = key.strip(), _plain(value.strip())
        if indented and inside == "names":
            if line.strip().startswith("- "):
                names[len(names)] = _plain(line.strip()[2:].strip())
            elif colon and key.isdigit():
                names[int(key)] = value
            else:
                raise DataError(f"{path}: {line.strip()!r} is no name of a class", file=str(path))
        elif not indented and colon:
            inside = key if not value else ""
            if key == "names" and value:
                listed = value.strip("[]").split(",")
                names = {i: _plain(name.strip()) for i, name in enumerate(listed)}
            elif value:
                found[key] = value
    if not names or sorted(names) != list(range(len(names))):
        raise DataError(
            f"{path} has no names of classes, numbered from 0.\nWanted: names: [cat, dog]",
            file=str(path),
        )
    return {**found, "names": [names[i] for i in range(len(names))]}


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        bare = line.split(" #")[0].rstrip()
        if bare and not bare.lstrip().startswith("#"):
            yield bare


def _plain(word: str) -> str:
    quoted = len(word) > 1 and word[0] == word[-1] and word[0] in "'\""
    return word[1:-1] if quoted else word
