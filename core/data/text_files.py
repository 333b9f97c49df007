"""Rows of CSV and JSONL files. Whatever is wrong with a line is said with its number.

Lines are read with a limit, so that a file without line ends cannot fill the memory.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError
from ..insight.progress import progress
from .dataset import Dataset, check_index

MAX_LINE = 16 << 20  # bytes
PathLike = str | os.PathLike[str]


def _lines(path: Path, limit: int) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and content of each line, with its end."""
    with _open(path) as file:
        try:
            number, offset = 0, 0
            while line := file.readline(limit + 1):
                number += 1
                if len(line) > limit:
                    raise DataError(
                        f"{path}, line {number} is longer than {limit:,} bytes.\n"
                        "Is this a text file with one record a line? A higher limit: max_line=",
                        file=str(path),
                        line=number,
                        limit=limit,
                    )
                yield number, offset, line
                offset += len(line)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path} is a damaged gzip file, after line {number}: {error}",
                file=str(path),
                line=number,
            ) from error


def _plain_file(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", file=str(path)) from None


def _open(path: Path) -> BinaryIO:
    file = _plain_file(path)
    if not _is_gzip(file):
        return file
    return _GzipReader(file)  # type: ignore[return-value]


def _is_gzip(file: BinaryIO) -> bool:
    magic = file.read(2)
    file.seek(0)
    return magic == b"\x1f\x8b"


class _GzipReader(gzip.GzipFile):
    """A gzip file that closes the file below it too."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(fileobj=file)
        self._below = file

    def close(self) -> None:
        super().close()
        self._below.close()


def _text(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number} is not UTF-8: byte {error.object[error.start]:#04x} at column "
            f"{error.start + 1}.\nConvert the file to UTF-8 first.",
            file=str(path),
            line=number,
        ) from None


# -- CSV --------------------------------------------------------------------------------------


def read_csv(
    path: PathLike,
    columns: Sequence[str] | Mapping[str, Callable[[str], Any]] | None = None,
    *,
    delimiter: str | None = None,
    max_line: int = MAX_LINE,
) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file as dicts, one after the other; the first line names the columns.

    Args:
        columns: which to keep: names, or names with what makes a value of the text, such as
            `{"age": int, "height": float, "name": str}`. All of them, as text, unless given.
        delimiter: found out from the first line unless given: comma, semicolon or tab.
        max_line: the longest line, in bytes.
    Raises:
        DataError: a line that is broken, too long, no UTF-8, or has another number of fields
            than the header; names file and line.
    """
    for _, row in _csv_rows(Path(path), columns, delimiter, max_line):
        yield row


def _csv_rows(
    path: Path,
    columns: Sequence[str] | Mapping[str, Callable[[str], Any]] | None,
    delimiter: str | None,
    max_line: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number of the line on which each row begins, and the row."""
    at = [0, 1]  # the last line read, and the line on which the current row began

    def texts() -> Iterator[str]:
        for number, _, line in _lines(path, max_line):
            at[0] = number
            yield _text(path, number, line)

    lines = texts()
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path} is empty; the first line names the columns", file=str(path))
    names = next(csv.reader([first], delimiter=delimiter or _delimiter(first), strict=False), [])
    names = [name.strip() for name in names]
    if len(set(names)) < len(names) or not all(names):
        raise DataError(
            f"{path}, line 1: the names of the columns are not all there and different: {names}",
            file=str(path),
            line=1,
        )
    wanted = _wanted(path, names, columns)
    rows = csv.reader(lines, delimiter=delimiter or _delimiter(first), strict=True)
    while True:
        start = at[0] + 1
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}, line {start} is broken: {error}.\nIs a quotation mark open?",
                file=str(path),
                line=start,
            ) from None
        if not fields:  # an empty line
            continue
        if len(fields) != len(names):
            raise DataError(
                f"{path}, line {start} has {len(fields)} fields, the header names {len(names)} "
                f"({', '.join(names)}).\n"
                "A field that contains the delimiter needs quotation marks.",
                file=str(path),
                line=start,
                expected=len(names),
                got=len(fields),
            )
        yield (
            start,
            {name: _convert(path, start, name, make, fields[i]) for name, i, make in wanted},
        )


def _delimiter(header: str) -> str:
    counts = {mark: header.count(mark) for mark in (",", ";", "\t")}
    return max(counts, key=lambda mark: counts[mark]) if any(counts.values()) else ","


def _wanted(
    path: Path,
    names: list[str],
    columns: Sequence[str] | Mapping[str, Callable[[str], Any]] | None,
) -> list[tuple[str, int, Callable[[str], Any]]]:
    if columns is None:
        columns = names
    if isinstance(columns, str):
        columns = [columns]
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, missing))}.\n"
            f"Its columns are: {', '.join(names)}",
            file=str(path),
            missing=missing,
            columns=names,
        )
    kinds = columns if isinstance(columns, Mapping) else dict.fromkeys(columns, str)
    return [(name, names.index(name), kind) for name, kind in kinds.items()]


def _convert(path: Path, line: int, name: str, make: Callable[[str], Any], text: str) -> Any:
    if make is str:
        return text
    try:
        return make(text)
    except (ValueError, TypeError, ArithmeticError):
        kind = getattr(make, "__name__", str(make))
        raise DataError(
            f"{path}, line {line}: {text[:60]!r} in the column {name!r} is no {kind}",
            file=str(path),
            line=line,
            column=name,
        ) from None


class CsvDataset(Dataset[Any]):
    """The rows of a CSV file as dicts, read into memory. Arguments as for `read_csv`.

    Args:
        transform: makes a sample of a row.
    """

    def __init__(
        self,
        path: PathLike,
        columns: Sequence[str] | Mapping[str, Callable[[str], Any]] | None = None,
        *,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        delimiter: str | None = None,
        max_line: int = MAX_LINE,
    ) -> None:
        self.path = Path(path)
        self.transform = transform
        self._numbers: list[int] = []
        self.rows: list[dict[str, Any]] = []
        found = _csv_rows(self.path, columns, delimiter, max_line)
        for number, row in progress(found, what=f"reading {self.path.name}", unit="rows"):
            self._numbers.append(number)
            self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = self.rows[check_index(index, len(self), self.path.name)]
        return dict(row) if self.transform is None else self.transform(dict(row))

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """A column as an array."""
        if self.rows and name not in self.rows[0]:
            _wanted(self.path, list(self.rows[0]), [name])
        return np.asarray([row[name] for row in self.rows])

    def file_of(self, index: int) -> str | None:
        """The file and the number of the line."""
        return f"{self.path}:{self._numbers[index]}"


# -- JSONL ------------------------------------------------------------------------------------


def read_jsonl(path: PathLike, *, max_line: int = MAX_LINE) -> Iterator[Any]:
    """The values of a JSONL file (one JSON value a line; gzipped or not), one after the other.

    Raises:
        DataError: a line that is no JSON, too long or no UTF-8; names file and line.
    """
    path = Path(path)
    for number, _, line in _lines(path, max_line):
        if line.strip():
            yield _parse_json(path, number, line)


def _parse_json(path: Path, number: int, line: bytes) -> Any:
    text = _text(path, number, line)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {number} is no JSON: {error.msg} at column {error.colno}.\n"
            f"It begins with: {text[:80].strip()!r}",
            file=str(path),
            line=number,
            column=error.colno,
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of 5,000 digits
        raise DataError(
            f"{path}, line {number} cannot be read: {type(error).__name__}: {error}",
            file=str(path),
            line=number,
        ) from None


class JsonlDataset(Dataset[Any]):
    """The values of a JSONL file by number. Lines are found at once and parsed when asked for.

    Args:
        transform: makes a sample of a value.
        max_line: the longest line, in bytes.
        check: parse every line at once, so that a broken one is found now and not later.
    Raises:
        DataError: a line that is too long; broken ones when they are read, or with `check`.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        transform: Callable[[Any], Any] | None = None,
        max_line: int = MAX_LINE,
        check: bool = False,
    ) -> None:
        self.path = Path(path)
        self.transform = transform
        with _plain_file(self.path) as file:
            if _is_gzip(file):
                raise DataError(
                    f"{self.path} is gzipped, so its lines cannot be found by number.\n"
                    "Unpack it (gunzip), or read it in order: bt.data.read_jsonl(path)",
                    file=str(self.path),
                )
        places = []
        found = progress(
            _lines(self.path, max_line), what=f"reading {self.path.name}", unit="lines"
        )
        for number, offset, line in found:
            if line.strip():
                places.append((number, offset, len(line)))
                if check:
                    _parse_json(self.path, number, line)
        self._places = np.asarray(places, dtype=np.int64).reshape(-1, 3)
        self._size = self.path.stat().st_size

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Any:
        place = self._places[check_index(index, len(self), self.path.name)]
        number, offset, length = place.tolist()
        # Opened each time: threads and processes share the data set.
        with open(self.path, "rb") as file:
            if os.fstat(file.fileno()).st_size != self._size:
                raise DataError(f"{self.path} has changed since it was opened", file=str(self.path))
            file.seek(offset)
            line = file.read(length)
        value = _parse_json(self.path, number, line)
        return value if self.transform is None else self.transform(value)

    def file_of(self, index: int) -> str | None:
        """The file and the number of the line."""
        return f"{self.path}:{self._places[index][0]}"
