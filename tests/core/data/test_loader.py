"""DataLoader with threads: the same batches with any number of workers, order, errors, ends."""

import gc
import signal
import threading
import time

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core.data import (
    ArrayDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    ImageFolder,
    IterableDataset,
    MapDataset,
    RandomSampler,
    Subset,
    WeightedRandomSampler,
    sample_rng,
)
from bestiary.core.errors import ConfigError, DataError, DeviceError, ShapeError

WORKERS = [0, 1, 3]


class Noisy(Dataset):
    """Samples with noise of their own; every third takes longer."""

    def __init__(self, count=23):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index % 3 == 0:
            time.sleep(0.001)
        return np.float32(index) + sample_rng().random(2, np.float32) / 2, index


class NoisyStream(IterableDataset):
    def __init__(self, count=23):
        self.count = count

    def __iter__(self):
        for number in range(self.count):
            yield number + sample_rng().random() / 2


def noisy(value):
    return value + 100 * sample_rng().random()


def flat(batches):
    return [[array.array.tolist() for array in batch] for batch in batches]


@pytest.fixture(autouse=True)
def no_threads_left():
    yield
    if workers_alive():
        gc.collect()  # an iterator in a traceback of pytest's
    assert workers_alive() == []


def workers_alive():
    return [t.name for t in threading.enumerate() if t.name.startswith("bestiary-data")]


# -- the same batches -------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_do_not_depend_on_workers(workers, shuffle):
    wanted, found = (
        DataLoader(Noisy(), 4, shuffle=shuffle, seed=7, workers=w) for w in (0, workers)
    )
    for _ in range(3):
        assert flat(found) == flat(wanted)


def test_epochs_differ_and_seeds_decide():
    loader = DataLoader(Noisy(), 4, shuffle=True, seed=7)
    first, second = flat(loader), flat(loader)
    assert first != second
    loader.set_epoch(0)
    assert flat(loader) == first
    assert flat(DataLoader(Noisy(), 4, shuffle=True, seed=8)) != first
    # Without shuffling the order stays and the noise changes.
    plain = DataLoader(Noisy(), 23, seed=7)
    (a,), (b,) = list(plain), list(plain)
    assert a[1].tolist() == b[1].tolist() and a[0].tolist() != b[0].tolist()


def test_manual_seed_decides_without_a_seed():
    found = []
    for seed in (5, 5, 6):
        bt.manual_seed(seed)
        found.append(flat(DataLoader(Noisy(), 4, shuffle=True, workers=2)))
    assert found[0] == found[1] != found[2]


def test_a_sample_that_comes_twice_is_augmented_twice():
    (batch,) = DataLoader(Noisy(), 2, sampler=[5, 5], seed=0)
    assert batch[1].tolist() == [5, 5]
    assert batch[0][0].tolist() != batch[0][1].tolist()


@pytest.mark.parametrize("workers", WORKERS)
def test_random_collate_is_reproducible(workers):
    def mix(samples):
        return np.asarray([number for _, number in samples]) + sample_rng().random()

    loader = DataLoader(Noisy(), 4, seed=1, collate=mix, workers=workers)
    values = [batch.tolist() for batch in loader]
    assert values == [b.tolist() for b in DataLoader(Noisy(), 4, seed=1, collate=mix)]


@pytest.mark.parametrize("workers", WORKERS)
def test_streams(workers):
    stream = MapDataset(MapDataset(NoisyStream(10), noisy), lambda x: (x, 1))
    loader = DataLoader(stream, 4, seed=2, workers=workers)
    first = flat(loader)
    assert [len(batch[0]) for batch in first] == [4, 4, 2]
    assert first == flat(DataLoader(stream, 4, seed=2))
    assert flat(loader) != first
    assert [len(b[0]) for b in DataLoader(stream, 4, drop_last=True, workers=workers)] == [4, 4]


def test_whole_batches_are_gathered():
    images, labels = np.random.default_rng(0).random((50, 3)), np.arange(50)
    taken = []

    class Watched(ArrayDataset):
        def __getitem__(self, index):
            taken.append(index)
            return super().__getitem__(index)

    data = Watched(images, labels)
    for x, y in DataLoader(Subset(data, range(40)), 8, shuffle=True, seed=0, workers=2):
        np.testing.assert_array_equal(x.array, images[y.array])
    assert taken == []
    list(DataLoader(data, 8, collate=list))  # a collate of one's own gets samples
    assert len(taken) == 50


# -- shapes of the result ---------------------------------------------------------------------


def test_batches_are_tensors():
    (batch,) = DataLoader([{"x": np.zeros((2, 3), np.uint8), "name": "a"}] * 2, 2)
    assert isinstance(batch["x"], bt.Tensor) and batch["x"].shape == (2, 2, 3)
    assert batch["x"].dtype == np.uint8 and batch["name"] == ["a", "a"]


def test_lengths():
    data = Noisy(10)
    assert len(DataLoader(data, 3)) == len(list(DataLoader(data, 3))) == 4
    assert len(DataLoader(data, 3, drop_last=True)) == 3
    assert [len(y) for _, y in DataLoader(data, 3, drop_last=True, workers=1)] == [3, 3, 3]
    assert len(DataLoader(data, None)) == 10
    assert DataLoader(data, 3).last_batch_size == 1
    assert DataLoader(data, 5).last_batch_size == 5
    assert DataLoader(data, 3, drop_last=True).last_batch_size == 3
    assert DataLoader(NoisyStream(), 3).last_batch_size is None
    with pytest.raises(TypeError, match="len"):
        len(DataLoader(NoisyStream(), 3))

    class Sized(NoisyStream):
        def __len__(self):
            return self.count

    assert len(DataLoader(MapDataset(Sized(10), noisy), 3)) == 4


def test_without_batches():
    items = list(DataLoader(Noisy(3), None, workers=2))
    assert [item[0].shape for item in items] == [(2,)] * 3
    assert [item[1] for item in items] == [0, 1, 2]
    assert [float(x) for x in DataLoader(NoisyStream(2), None, seed=0)] == pytest.approx(
        [0.25, 1.25], abs=0.25
    )


def test_nothing_to_read():
    assert list(DataLoader([], 4, workers=2)) == []
    assert list(DataLoader(NoisyStream(0), 4, workers=2)) == []


def test_samplers():
    data = [10, 11, 12, 13]
    assert [b.tolist() for b in DataLoader(data, 2, sampler=[3, 0, 0])] == [[13, 10], [10]]
    assert [b.tolist() for b in DataLoader(data, 2, sampler=np.array([3, 0]))] == [[13, 10]]
    batches = [[0], [1, 2, 3]]
    assert [b.tolist() for b in DataLoader(data, batch_sampler=batches)] == [[10], [11, 12, 13]]
    own = RandomSampler(data, seed=3)
    assert sorted(x for b in DataLoader(data, 1, sampler=own) for x in b.tolist()) == data
    heavy = WeightedRandomSampler([0, 0, 0, 1], seed=0)
    assert {x for b in DataLoader(data, 1, sampler=heavy) for x in b.tolist()} == {13}


def test_device():
    (batch,) = DataLoader([1.0, 2.0], 2, device="cpu")
    assert batch.device == "cpu"
    if not bt.core.devices.cuda_is_available():
        with pytest.raises(DeviceError):
            DataLoader([1.0], device="cuda")


def test_set_epoch_reaches_the_data_set():
    class Curriculum(Noisy):
        def set_epoch(self, epoch):
            self.epoch = epoch

        def __getitem__(self, index):
            return self.epoch

    loader = DataLoader(Curriculum(2), 2, workers=1)
    assert [next(iter(loader)).tolist() for _ in range(3)] == [[0, 0], [1, 1], [2, 2]]
    assert loader.epoch == 2


@pytest.mark.parametrize(
    "options, words",
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"workers": -1}, "workers"),
        ({"prefetch": 0}, "prefetch"),
        ({"seed": -1}, "seed"),
        ({"processes": True}, "workers="),
        ({"persistent": True}, "processes=True"),
        ({"shuffle": True, "sampler": [1]}, "two orders"),
        ({"batch_sampler": [[1]], "batch_size": 2}, "batch_sampler decides"),
        ({"batch_sampler": [[1]], "shuffle": True}, "batch_sampler decides"),
        ({"batch_size": None, "drop_last": True}, "drop_last"),
        ({"batch_size": None, "collate": list}, "collate"),
        ({"collate": 3}, "function"),
    ],
)
def test_arguments_that_make_no_sense(options, words):
    with pytest.raises(ConfigError, match=words):
        DataLoader([1, 2, 3], **options)


def test_a_stream_cannot_be_shuffled():
    for options in ({"shuffle": True}, {"sampler": [1]}, {"batch_sampler": [[1]]}):
        with pytest.raises(ConfigError, match="is a stream"):
            DataLoader(NoisyStream(), **options)


def test_repr():
    assert repr(DataLoader(Noisy(), 4, workers=2)) == (
        "DataLoader(Noisy, batch_size=4, workers=2 threads)"
    )


# -- reading ahead ----------------------------------------------------------------------------


def test_reading_ahead_is_bounded():
    started = []

    class Counting(Dataset):
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            started.append(index)
            return index

    iterator = iter(DataLoader(Counting(), 10, workers=2, prefetch=3))
    for delivered in range(1, 4):
        next(iterator)
        time.sleep(0.05)
        assert len(started) <= 10 * (delivered + 2 * 3)
    deadline = time.monotonic() + 10
    while len(started) < 90 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(started) == 90  # and it does read ahead
    iterator.close()


def test_workers_read_side_by_side():
    inside, most = [0], [0]
    lock = threading.Lock()

    class Slow(Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, index):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            with lock:
                inside[0] -= 1
            return index

    assert [b.item() for b in DataLoader(Slow(), 1, workers=4)] == list(range(12))
    assert 2 <= most[0] <= 4


def test_the_wait_is_measured():
    class Slow(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            time.sleep(0.04)
            return index

    loader = DataLoader(Slow(), 1)
    start = time.perf_counter()
    for _ in loader:
        time.sleep(0.05)
    elapsed = time.perf_counter() - start
    assert 0.16 <= loader.wait_seconds <= elapsed - 0.2  # the loop's own time is not in it
    ahead = DataLoader(Slow(), 1, workers=4)
    for _ in ahead:
        time.sleep(0.05)
    assert ahead.wait_seconds < 0.16  # about that for the first


def test_worker_init():
    seen = []
    list(DataLoader(range(40), 1, workers=3, worker_init=seen.append))
    assert set(seen) <= {0, 1, 2} and len(seen) == len(set(seen)) > 0

    def broken(number):
        raise OSError("no scratch disk")

    with pytest.raises(OSError, match="no scratch disk"):
        list(DataLoader(range(4), 1, workers=2, worker_init=broken))


# -- ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", WORKERS)
def test_break_and_exception(workers):
    loader = DataLoader(Noisy(200), 2, workers=workers)
    for _ in loader:
        break

    def fail():
        for _ in loader:
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(list(loader)) == 100


def test_a_forgotten_iterator_ends_its_threads():
    iterator = iter(DataLoader(Noisy(200), 2, workers=2))
    next(iterator)
    assert len(workers_alive()) == 2
    del iterator
    assert workers_alive() == []


def test_two_loops_at_once():
    loader = DataLoader(range(6), 2, workers=2)
    pairs = [(a.tolist(), b.tolist()) for a in loader for b in loader]
    assert len(pairs) == 9 and pairs[5] == ([2, 3], [4, 5])


def test_batches_are_not_kept_alive():
    class Tracked(Dataset):
        alive = 0

        def __len__(self):
            return 60

        def __getitem__(self, index):
            return np.zeros(1000)

    import weakref

    references = []
    for batch in DataLoader(Tracked(), 2, workers=2, prefetch=1):
        references.append(weakref.ref(batch))
        del batch
        assert sum(reference() is not None for reference in references) <= 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an alarm signal")
@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c(workers):
    class Slow(Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, index):
            time.sleep(0.05)
            return index

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.12)
        with pytest.raises(KeyboardInterrupt):
            list(DataLoader(Slow(), 10, workers=workers))
        assert time.monotonic() - start < 1.5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_program_that_ends_in_the_middle(tmp_path):
    import subprocess
    import sys

    program = tmp_path / "program.py"
    program.write_text(
        "from bestiary.core.data import DataLoader\n"
        "iterator = iter(DataLoader(range(1000), 2, workers=3))\n"
        "next(iterator)\nprint('end')\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


# -- errors -----------------------------------------------------------------------------------


class Broken(Dataset):
    def __init__(self, bad=13):
        self.bad = bad

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return self.read(index)

    def read(self, index):
        if index == self.bad:
            raise OSError("disk gone")
        return index

    def file_of(self, index):
        return f"/data/{index}.jpg"


@pytest.mark.parametrize("workers", WORKERS)
def test_a_failed_sample_is_named(workers):
    """ERRORS 23: the sample's index and file, the worker's own traceback."""
    loader = DataLoader(Subset(Broken(), range(19, -1, -1)), 4, workers=workers)
    batches = iter(loader)
    assert next(batches).tolist() == [19, 18, 17, 16]  # those before it are delivered
    with pytest.raises(DataError) as caught:
        list(batches)
    error, text = caught.value, str(caught.value)
    assert error.index == 6 and error.file == "/data/13.jpg" and error.error == "OSError"
    assert text.startswith("sample 6 could not be read: OSError: disk gone\n  file: /data/13.jpg")
    assert "in read" in text and 'raise OSError("disk gone")' in text and "test_loader.py" in text
    assert "dataset[6]" in text
    assert ("worker thread" in text) == (workers > 0)
    assert "Traceback (most recent call last)" in error.traceback
    assert isinstance(error.__cause__, OSError)
    assert len(text.splitlines()) <= 12


def test_the_file_that_an_exception_names():
    class Opens(Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            with open("/nowhere/at/all.txt"):
                pass

    with pytest.raises(DataError, match=r"file: /nowhere/at/all\.txt"):
        list(DataLoader(Opens()))


def test_a_broken_image_is_named(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{number}.png")
    bad = tmp_path / "dog" / "1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    data = MapDataset(ImageFolder(tmp_path), lambda s: (np.asarray(s[0]), s[1]))
    with pytest.raises(DataError) as caught:
        list(DataLoader(ConcatDataset([data, data]), 2, workers=2))
    assert caught.value.index == 4 and caught.value.file == str(bad)
    assert str(caught.value).count(str(bad)) >= 1


def test_no_exception_is_swallowed():
    class Stops(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise StopIteration

    for workers in (0, 1):
        with pytest.raises(DataError, match="StopIteration"):
            list(DataLoader(Stops(), workers=workers))


@pytest.mark.parametrize("workers", WORKERS)
def test_an_index_out_of_range(workers):
    with pytest.raises(DataError, match=r"sample 99 could not be read: IndexRangeError"):
        list(DataLoader(Subset(Noisy(), range(5)), 2, sampler=[0, 99], workers=workers))
    with pytest.raises(DataError, match="sample 7 is outside"):
        list(DataLoader(ArrayDataset(np.zeros(5)), 2, sampler=[0, 7], workers=workers))


@pytest.mark.parametrize("workers", WORKERS)
def test_a_failing_sampler_and_stream(workers):
    def numbers():
        yield 0
        yield 1
        raise RuntimeError("sampler broke")

    batches = iter(DataLoader([1, 2, 3], 1, sampler=numbers(), workers=workers))
    assert [next(batches).item(), next(batches).item()] == [1, 2]
    with pytest.raises(RuntimeError, match="sampler broke"):
        next(batches)

    class BrokenStream(IterableDataset):
        def __iter__(self):
            yield from range(5)
            raise RuntimeError("stream broke")

    batches = iter(DataLoader(BrokenStream(), 2, workers=workers))
    assert [next(batches).tolist(), next(batches).tolist()] == [[0, 1], [2, 3]]
    with pytest.raises(RuntimeError, match="stream broke"):
        next(batches)


def test_a_failing_transform_of_a_stream():
    def fail(x):
        raise ValueError(f"bad value {x}")

    with pytest.raises(DataError, match="sample 0 could not be read: ValueError: bad value") as e:
        list(DataLoader(MapDataset(NoisyStream(), fail), 2, workers=1))
    assert "dataset[0]" not in str(e.value)


def folder_of(tmp_path, images):
    (tmp_path / "a").mkdir()
    for name, image in images.items():
        image.save(tmp_path / "a" / name)
    return ImageFolder(tmp_path, transform=lambda im: np.asarray(im).transpose(2, 0, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_unequal_size(tmp_path, workers):
    """ERRORS 24: both files and shapes, and what to do."""
    data = folder_of(
        tmp_path, {"1.png": Image.new("RGB", (8, 8)), "2.png": Image.new("RGB", (9, 8))}
    )
    with pytest.raises(ShapeError) as caught:
        list(DataLoader(data, 2, workers=workers))
    error, text = caught.value, str(caught.value)
    for words in ("1.png", "2.png", "(3, 8, 8)", "(3, 8, 9)", "Resize((224, 224))", "entry [0]"):
        assert words in text
    assert error.indices == (0, 1) and error.shapes == ((3, 8, 8), (3, 8, 9))
    assert error.files == tuple(path for path, _ in data.samples)
    assert len(text.splitlines()) <= 12


@pytest.mark.parametrize(
    "first, second, words",
    [
        (np.zeros((3, 8, 8)), np.zeros((1, 8, 8)), r'convert\("RGB"\)'),
        (np.zeros((8, 8, 4)), np.zeros((8, 8, 3)), r'convert\("RGB"\)'),
        (np.zeros((8, 8)), np.zeros((3, 8, 8)), "lacks an axis"),
        (np.zeros(5), np.zeros(7), "pad"),
        ([1, 2], [1, 2, 3], "collate="),
    ],
)
def test_other_unequal_shapes(first, second, words):
    with pytest.raises(ShapeError, match=words) as caught:
        list(DataLoader([(first, 0), (first, 0), (second, 1)], 3))
    assert caught.value.indices == (0, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_collate(workers):
    def fail(samples):
        raise KeyError("pixel_values")

    with pytest.raises(DataError) as caught:
        list(DataLoader(range(6), 3, collate=fail, workers=workers))
    assert caught.value.batch == 0 and caught.value.indices == [0, 1, 2]
    assert "pixel_values" in str(caught.value) and "in fail" in str(caught.value)
    with pytest.raises(DataError, match="Pillow images have no batch"):
        list(DataLoader([Image.new("RGB", (2, 2))], workers=workers))
