"""CSV and JSONL: a broken line is named with its number, a long one is bounded (TESTPLAN 22)."""

import gzip
import json
import os
import tracemalloc

import numpy as np
import pytest

from bestiary.core.data import CsvDataset, DataLoader, JsonlDataset, read_csv, read_jsonl
from bestiary.core.errors import DataError


def write(tmp_path, content, name="data.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# -- CSV --------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_csv(tmp_path, end, mark, bom):
    lines = ["name,age", "Åsa,31", '"x,;\ty",4', "", '"two\nlines",5']
    text = end.join(lines[:1] + lines[1:2] + lines[3:])
    text = text.replace(",", mark) + end
    path = write(tmp_path, bom + text.encode())
    rows = list(read_csv(path, {"age": int, "name": str}))
    assert [row["age"] for row in rows] == [31, 5]
    assert rows[0]["name"] == "Åsa" and rows[1]["name"] == "two\nlines"
    assert list(rows[0]) == ["age", "name"]


def test_csv_quoted_and_gzipped(tmp_path):
    text = 'a,b\n"x,""y""",1\nz,2'
    for content in (text.encode(), gzip.compress(text.encode())):
        assert list(read_csv(write(tmp_path, content))) == [
            {"a": 'x,"y"', "b": "1"},
            {"a": "z", "b": "2"},
        ]
    assert list(read_csv(write(tmp_path, "a|b\n1|2\n"), delimiter="|")) == [{"a": "1", "b": "2"}]
    assert list(read_csv(write(tmp_path, "only\nx\n"), ["only"])) == [{"only": "x"}]


@pytest.mark.parametrize(
    "text, columns, line, words",
    [
        ("", None, None, "is empty"),
        ("a,b\n1,2\n3\n", None, 3, "line 3 has 1 fields, the header names 2"),
        ("a,b\n1,2\n\n3,4,5\n", None, 4, "line 4 has 3 fields"),
        ('a,b\n1,"2\n3,4\n', None, 2, "line 2 is broken"),
        ('a,b\n1,"2"x\n', None, 2, "line 2 is broken"),
        ("a,a\n1,2\n", None, 1, "different"),
        ("a,\n1,2\n", None, 1, "different"),
        ("a,b\n1,2\n", ["c", "a"], None, "no column 'c'.*\n.*a, b"),
        ("a,b\n1,2\n1,x\n", {"b": int}, 3, "line 3: 'x' in the column 'b' is no int"),
        (b"a,b\n1,2\n1,\xff\n", None, 3, "line 3 is not UTF-8: byte 0xff at column 3"),
        ("a\n" + "x" * 300 + "\n", None, 2, "line 2 is longer than 200 bytes"),
    ],
)
def test_csv_names_the_line(tmp_path, text, columns, line, words):
    path = write(tmp_path, text)
    with pytest.raises(DataError, match=words) as caught:
        list(read_csv(path, columns, max_line=200))
    assert str(path) in str(caught.value) and caught.value.file == str(path)
    if line is not None:
        assert caught.value.line == line


def test_an_open_quotation_mark_does_not_read_the_whole_file(tmp_path):
    path = write(tmp_path, 'a,b\n1,2\n3,"4\n' + "5,6\n" * 200_000)
    with pytest.raises(DataError, match=r"line 3 is broken.*\nIs a quotation mark open"):
        list(read_csv(path))


def test_csv_dataset(tmp_path):
    path = write(tmp_path, "x,y,name\n1,2.5,a\n\n3,4.5,b\n")
    data = CsvDataset(path, {"x": int, "y": float, "name": str})
    assert len(data) == 2 and data[1] == {"x": 3, "y": 4.5, "name": "b"}
    assert data.column("y").tolist() == [2.5, 4.5] and data.column("x").dtype == np.int64
    assert data.file_of(1) == f"{path}:4"
    with pytest.raises(DataError, match="no column 'z'"):
        data.column("z")
    data[0]["x"] = 99  # a sample is a copy
    assert data[0]["x"] == 1
    (batch,) = DataLoader(data, 2)
    assert batch["x"].tolist() == [1, 3] and batch["name"] == ["a", "b"]
    mapped = CsvDataset(path, {"x": int}, transform=lambda row: row["x"] * 10)
    assert list(mapped) == [10, 30]
    with pytest.raises(IndexError):
        data[2]


# -- JSONL ------------------------------------------------------------------------------------

LINES = '{"a": 1}\n\n[2, "ü"]\r\n"x"\n3'


def test_jsonl(tmp_path):
    expected = [{"a": 1}, [2, "ü"], "x", 3]
    path = write(tmp_path, LINES)
    assert list(read_jsonl(path)) == expected
    assert list(read_jsonl(write(tmp_path, gzip.compress(LINES.encode()), "z.gz"))) == expected
    data = JsonlDataset(path, check=True)
    assert len(data) == 4 and list(data) == expected and data[-1] == 3
    assert data.file_of(1) == f"{path}:3"
    assert list(JsonlDataset(path, transform=str))[3] == "3"
    assert len(JsonlDataset(write(tmp_path, ""))) == 0
    assert list(read_jsonl(write(tmp_path, b"\xef\xbb\xbf1\n2"))) == [1, 2]


@pytest.mark.parametrize(
    "text, line, words",
    [
        ('{"a": 1}\n{"a": \n3', 2, "line 2 is no JSON: Expecting value at column"),
        ("1\n\n{'a': 1}", 3, "line 3 is no JSON.*\n.*begins with: .*'a'"),
        (b"1\n\xff\n", 2, "line 2 is not UTF-8"),
        ("1\n" + "[" * 100_000, 2, "line 2 cannot be read: RecursionError"),
        ("1\n" + "9" * 5000, 2, "line 2 cannot be read: ValueError"),
        ("1\n" + '"' + "x" * 200_000 + '"', 2, "line 2 is longer than 150,000 bytes"),
    ],
)
def test_jsonl_names_the_line(tmp_path, text, line, words):
    path = write(tmp_path, text)
    for read in (
        lambda: list(read_jsonl(path, max_line=150_000)),
        lambda: JsonlDataset(path, max_line=150_000, check=True),
        lambda: list(JsonlDataset(path, max_line=150_000)),
    ):
        with pytest.raises(DataError, match=words) as caught:
            read()
        assert caught.value.line == line and caught.value.file == str(path)
        assert len(str(caught.value)) < 1000


def test_a_line_of_a_gigabyte_is_bounded(tmp_path):
    path = write(tmp_path, '{"a": 1}\n')
    os.truncate(path, 1 << 30)  # a hole: costs no disk
    for read in (read_jsonl, read_csv):
        tracemalloc.start()
        with pytest.raises(DataError, match="line 2 is longer than 16,777,216 bytes"):
            list(read(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100e6


def test_a_broken_line_inside_the_loader_is_named(tmp_path):
    path = write(tmp_path, "1\n2\nthree\n")
    with pytest.raises(DataError, match="sample 2 could not be read") as caught:
        list(DataLoader(JsonlDataset(path), 2, workers=1))
    assert f"{path}:3" in str(caught.value)


def test_jsonl_refuses(tmp_path):
    with pytest.raises(DataError, match="gunzip"):
        JsonlDataset(write(tmp_path, gzip.compress(b"1\n")))
    with pytest.raises(DataError, match="cannot be read"):
        JsonlDataset(tmp_path / "no")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_csv(tmp_path / "no"))
    packed = gzip.compress(json.dumps(list(range(1000))).encode() + b"\n")
    with pytest.raises(DataError, match="damaged gzip"):
        list(read_jsonl(write(tmp_path, packed[:-20])))
    path = write(tmp_path, "1\n2\n")
    data = JsonlDataset(path)
    write(tmp_path, "1\n22222\n")
    with pytest.raises(DataError, match="has changed"):
        data[1]
