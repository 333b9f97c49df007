"""Images in folders and tables."""

import os
import sys

import numpy as np
import pytest
from PIL import Image

from bestiary.core.data import DataLoader, ImageFolder, ImageTable
from bestiary.core.errors import DataError


def make(root, *paths):
    for number, path in enumerate(paths):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".png":
            Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
        else:
            file.write_bytes(b"x")


def names(data, root):
    return [os.path.relpath(path, root).replace(os.sep, "/") for path, _ in data.samples]


def test_folder_per_class(tmp_path):
    make(
        tmp_path,
        "dog/2.png",
        "cat/b.png",
        "cat/a.png",
        "dog/more/below/1.PNG",
        "dog/notes.txt",
        "dog/.hidden.png",
        "cat/__MACOSX/a.png",
        ".git/x.png",
        "readme.txt",
    )
    data = ImageFolder(tmp_path)
    assert data.classes == ["cat", "dog"] and data.class_to_index == {"cat": 0, "dog": 1}
    assert names(data, tmp_path) == ["cat/a.png", "cat/b.png", "dog/2.png", "dog/more/below/1.PNG"]
    assert data.labels.tolist() == [0, 0, 1, 1] and data.labels.dtype == np.int64
    assert data.counts == {"cat": 2, "dog": 2} and data.skipped == 1
    image, label = data[-2]
    assert image.mode == "RGB" and image.getpixel((0, 0)) == (0, 0, 0) and label == 1
    assert data.file_of(1) == str(tmp_path / "cat" / "b.png")
    assert repr(data) == "ImageFolder(4 images, 2 classes)"
    assert ImageFolder.splits(tmp_path) == []


def test_transform_and_loader(tmp_path):
    make(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(5)))
    data = ImageFolder(tmp_path, transform=lambda im: np.asarray(im).transpose(2, 0, 1))
    batches = list(DataLoader(data, 4, workers=2))
    assert batches[0][0].shape == (4, 3, 4, 4)
    assert [int(x) for _, y in batches for x in y.tolist()] == [0] * 5 + [1] * 5


@pytest.mark.parametrize("spelling", ["val", "valid", "Validation"])
def test_parts(tmp_path, spelling):
    make(tmp_path, "train/cat/1.png", "train/dog/1.png", "train/cow/1.png")
    make(tmp_path, f"{spelling}/dog/1.png", "test/cow/1.png")
    assert ImageFolder.splits(tmp_path) == ["train", "val", "test"]
    val = ImageFolder(tmp_path, "val")
    assert val.classes == ["cat", "cow", "dog"]  # those of training: labels mean the same
    assert val.labels.tolist() == [2]
    assert ImageFolder(tmp_path, "validation").labels.tolist() == [2]
    assert ImageFolder(tmp_path, "test").labels.tolist() == [1]
    assert len(ImageFolder(tmp_path, "train")) == 3
    with pytest.raises(DataError, match=r"ImageFolder\(root, 'train'\)") as caught:
        ImageFolder(tmp_path)
    assert caught.value.splits == ["test", "train", "val"]
    with pytest.raises(DataError, match="no part 'extra'"):
        ImageFolder(tmp_path, "extra")


def test_a_class_named_train_is_a_class(tmp_path):
    make(tmp_path, "train/1.png", "plane/1.png")
    assert ImageFolder(tmp_path).classes == ["plane", "train"]


def test_a_class_that_training_does_not_have(tmp_path):
    make(tmp_path, "train/cat/1.png", "val/cat/1.png", "val/yak/1.png")
    with pytest.raises(DataError, match="yak"):
        ImageFolder(tmp_path, "val")
    with pytest.raises(DataError, match=r"known ones: cat"):
        ImageFolder(tmp_path, "train", classes=["dog", "yak"])
    assert ImageFolder(tmp_path, "train", classes=["dog", "cat"]).labels.tolist() == [1]


def test_links(tmp_path):
    make(tmp_path, "real/1.png", "set/cat/2.png")
    try:
        (tmp_path / "set" / "dog").symlink_to(tmp_path / "real", target_is_directory=True)
        (tmp_path / "set" / "cat" / "circle").symlink_to(
            tmp_path / "set" / "cat", target_is_directory=True
        )
    except OSError:
        pytest.skip("no symbolic links here")
    data = ImageFolder(tmp_path / "set")
    assert names(data, tmp_path) == ["set/cat/2.png", "set/dog/1.png"]


@pytest.mark.parametrize(
    "paths, words",
    [
        (["1.png", "2.png"], r"no folders in it, but 2 images.*\n.*cat/1\.jpg"),
        (["cat/a.txt", "dog/b.txt"], r"no image in them \(2 other files\)"),
        ([], "no folders in it"),
    ],
)
def test_nothing_to_read(tmp_path, paths, words):
    make(tmp_path, *paths)
    with pytest.raises(DataError, match=words) as caught:
        ImageFolder(tmp_path)
    assert caught.value.file == str(tmp_path)


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        ImageFolder(tmp_path / "nothing")
    make(tmp_path, "a.txt")
    with pytest.raises(DataError, match="cannot be listed"):
        ImageFolder(tmp_path / "a.txt")


# -- tables -----------------------------------------------------------------------------------


def table(tmp_path, text):
    make(tmp_path, "images/1.png", "images/2.png", "images/3.png")
    path = tmp_path / "labels.csv"
    path.write_text(text, "utf-8")
    return path


def test_table(tmp_path):
    path = table(tmp_path, "path,label\nimages/1.png,dog\nimages/2.png, cat\n\nimages/3.png,dog\n")
    data = ImageTable(path)
    assert data.classes == ["cat", "dog"] and data.labels.tolist() == [1, 0, 1]
    assert data[1][0].getpixel((0, 0)) == (1, 0, 0)
    assert data.file_of(0) == str(tmp_path / "images/1.png")
    chosen = ImageTable(path, classes=["dog", "cat"])
    assert chosen.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "labels, classes, numbers",
    [
        ("0 2 2", ["0", "1", "2"], [0, 2, 2]),
        ("2 10 2", [str(i) for i in range(11)], [2, 10, 2]),
        ("1001 7 1001", ["7", "1001"], [1, 0, 1]),
        ("007 1 007", ["007", "1"], [0, 1, 0]),
        ("-1 1 1", ["-1", "1"], [0, 1, 1]),
    ],
)
def test_numbers_as_labels(tmp_path, labels, classes, numbers):
    rows = "".join(f"images/{i}.png;{label}\n" for i, label in enumerate(labels.split(), 1))
    data = ImageTable(table(tmp_path, "file;class\n" + rows))
    assert data.classes == classes and data.labels.tolist() == numbers


def test_columns(tmp_path):
    path = table(tmp_path, "id,label,image\n7,a,1.png\n8,b,2.png\n")
    data = ImageTable(path, root=tmp_path / "images")
    assert data.labels.tolist() == [0, 1]
    path = table(tmp_path, "x,y,z\n7,images/1.png,a\n")
    assert ImageTable(path, image="y", label="z").classes == ["a"]
    with pytest.raises(DataError, match=r"no column 'q'.*\n.*x, y, z"):
        ImageTable(path, image="q")


@pytest.mark.parametrize(
    "header", ["File Name,class_name", "photo,kind", "kind,photo", "kind,image_path", "x,Label"]
)
def test_columns_that_can_only_be_one(tmp_path, header):
    row = "a,images/1.png" if header.startswith("kind") else "images/1.png,a"
    data = ImageTable(table(tmp_path, f"{header}\n{row}\n"))
    assert data.classes == ["a"] and names(data, tmp_path) == ["images/1.png"]


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "images/1.png,a\nimages/2.png,b\n",
            r"no header: .*'images/1\.png, a'.*\n.*\n.*path,label",
        ),
        ("path,label\nimages/1.png,a\nimages/2.png, \n", r"labels\.csv:3: the column 'label' is"),
        ("path,label\n ,a\n", r"labels\.csv:2: the column 'path' is empty"),
        ("id,name,kind\n1,x,a\n", r"no column 'path'"),
        ("a,b,label\n1.png,2.png,x\n", r"several columns that could be the path: a, b"),
        ("path,kind,size\nimages/1.png,a,3\n", r"could be the label: kind, size.*\n.*'label'"),
    ],
)
def test_tables_that_could_mean_several_things(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        ImageTable(table(tmp_path, text))


def test_tables_refused(tmp_path):
    path = table(tmp_path, "path,label\nimages/1.png,a\nimages/no.png,b\nimages/nor.png,b\n")
    with pytest.raises(DataError, match="2 of the 3 images") as caught:
        ImageTable(path)
    assert "labels.csv:3" in str(caught.value) and "no.png" in str(caught.value)
    with pytest.raises(DataError, match=r"labels\.csv:3: the class 'b'"):
        ImageTable(path, classes=["a"])
    with pytest.raises(DataError, match="no rows"):
        ImageTable(table(tmp_path, "path,label\n"))
    with pytest.raises(DataError, match="line 2 has 3 fields"):
        ImageTable(table(tmp_path, "path,label\na,b,c\n"))
    with pytest.raises(DataError, match="no column 'label'"):
        ImageTable(table(tmp_path, "path\nimages/1.png\n"))


@pytest.mark.skipif(sys.platform == "win32", reason="file names there are not bytes")
def test_names_in_other_writing(tmp_path):
    make(tmp_path, "größe/å ß 日本.png")
    assert ImageFolder(tmp_path)[0][0].size == (4, 4)
