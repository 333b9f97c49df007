"""Labelled pictures on disk, and splitting them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bestiary.core.errors import DataError
from bestiary.vision.labelled import HELD_OUT, TRAIN, folds, labelled_pictures, stratified


def picture(path, colour=(10, 20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(path)


def test_a_folder_for_each_class(tmp_path):
    for name in ("dog/1.png", "dog/2.png", "cat/a.jpg"):
        picture(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    found = labelled_pictures(tmp_path)
    assert found.labels == ["cat", "dog"] and found.counts.tolist() == [1, 2]
    assert [p.name for p in found.paths] == ["a.jpg", "1.png", "2.png"] and not found.splits


def test_split_folders(tmp_path):
    for name in ("train/cat/1.png", "train/dog/1.png", "val/dog/2.png"):
        picture(tmp_path / name)
    found = labelled_pictures(tmp_path)
    assert found.labels == ["cat", "dog"]
    assert found.splits == [TRAIN, TRAIN, HELD_OUT] and found.targets.tolist() == [0, 1, 1]


def test_a_csv_file(tmp_path):
    for name in ("x/1.png", "x/2.png"):
        picture(tmp_path / name)
    (tmp_path / "list.csv").write_text("path,label\nx/1.png,cat\nx/2.png,dog\n")
    found = labelled_pictures(tmp_path / "list.csv")
    assert found.labels == ["cat", "dog"] and found.targets.tolist() == [0, 1]
    (tmp_path / "bad.csv").write_text("path,label\nx/1.png,cat\nx/none.png,dog\n")
    with pytest.raises(DataError, match=r"none\.png"):
        labelled_pictures(tmp_path / "bad.csv")


def test_too_few_classes_and_missing_data(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    with pytest.raises(DataError, match=r"one class, 'cat'.*\n.*folder of its own"):
        labelled_pictures(tmp_path)
    (tmp_path / "list.csv").write_text("path,label\ncat/1.png,cat\n")
    with pytest.raises(DataError, match=r"one class, 'cat'.*\n.*1\.jpg,cat"):
        labelled_pictures(tmp_path / "list.csv")
    with pytest.raises(DataError, match=r"1\.png is neither a folder nor a CSV file"):
        labelled_pictures(tmp_path / "cat" / "1.png")
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"1 of 2 folders hold no pictures: dog\n"):
        labelled_pictures(tmp_path)
    for name in ("train/cat/1.png", "train/dog/1.png", "val/dog/1.png"):
        picture(tmp_path / "split" / name)
    (tmp_path / "split" / "train" / "dog" / "1.png").unlink()
    with pytest.raises(DataError, match="split, train: 1 of 2 folders"):
        labelled_pictures(tmp_path / "split")
    with pytest.raises(DataError, match="no folder or CSV"):
        labelled_pictures(tmp_path / "none")


def test_every_class_gives_its_share():
    targets = np.repeat([0, 1, 2], [100, 10, 2])
    train, held = stratified(targets, 0.2, seed=0)
    assert np.bincount(targets[held]).tolist() == [20, 2, 1]
    assert sorted([*train, *held]) == list(range(112))
    assert not np.array_equal(held, stratified(targets, 0.2, seed=1)[1])
    np.testing.assert_array_equal(held, stratified(targets, 0.2, seed=0)[1])


def test_a_single_picture_is_trained_on():
    train, held = stratified(np.array([0, 0, 0, 1]), 0.5, seed=0)
    assert 3 in train and 3 not in held


def test_folds_share_every_class():
    targets = np.repeat([0, 1, 2], [50, 11, 4])
    parts = folds(targets, 5, seed=0)
    assert sorted(np.concatenate(parts)) == list(range(65))
    for part in parts:
        counts = np.bincount(targets[part], minlength=3)
        assert counts[0] == 10 and counts[1] in (2, 3) and counts[2] in (0, 1)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
