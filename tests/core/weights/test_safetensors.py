"""TESTPLAN A, rows 8 to 10: values, layouts, and files that change; and how files are written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
import threading
import time

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy as published

from bestiary.core import weights
from bestiary.core.errors import DtypeError, WeightsError
from bestiary.core.weights import SafetensorsFile, load_bytes, load_file, save_bytes, save_file
from bestiary.core.weights.header import DTYPES


def same(got, want):
    """Equal in dtype (but for the byte order), shape and bits."""
    want = np.asarray(want)
    want = want if want.dtype.isnative else want.astype(want.dtype.newbyteorder("="))
    return (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes())


@pytest.fixture(params=["read", "mapped", "bytes"])
def reload(request, tmp_path):
    """Save arrays and load them again, each way."""

    def reload(tensors):
        path = tmp_path / "x.safetensors"
        save_file(tensors, path)
        if request.param == "bytes":
            return load_bytes(path.read_bytes())
        return load_file(path, mapped=request.param == "mapped")

    return reload


# Row 8


def test_row_8_all_bfloat16_patterns(reload, safetensors_bytes, entry, write):
    codes = np.arange(65536, dtype=np.uint16)
    path = write(
        safetensors_bytes({"a": entry("BF16", [65536], [0, 131072])}, codes.tobytes()), "b"
    )
    got = load_file(path)["a"]
    assert got.dtype == ml_dtypes.bfloat16
    assert (got.view(np.uint16) == codes).all()
    exact = (codes.astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(exact)
    assert (got[finite].astype(np.float32) == exact[finite]).all()
    assert same(reload({"a": got})["a"], got)


@pytest.mark.parametrize(
    "name, dtype", [("F8_E4M3", ml_dtypes.float8_e4m3fn), ("F8_E5M2", ml_dtypes.float8_e5m2)]
)
def test_row_8_all_float8_codes(reload, safetensors_bytes, entry, write, name, dtype):
    codes = np.arange(256, dtype=np.uint8)
    path = write(safetensors_bytes({"a": entry(name, [256], [0, 256])}, codes.tobytes()), "b")
    got = load_file(path)["a"]
    want = codes.view(dtype).astype(np.float32)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(np.float32), want)
    assert same(reload({"a": got})["a"], got)


def test_row_8_bfloat16_loads_as_fast_as_a_copy(tmp_path):
    array = np.ones(32_000_000, ml_dtypes.bfloat16)
    path = tmp_path / "x.safetensors"
    save_file({"a": array}, path)

    def fastest(action):
        times = []
        for _ in range(7):
            start = time.perf_counter()
            action()
            times.append(time.perf_counter() - start)
        return min(times)

    ratio = fastest(lambda: load_file(path)) / fastest(array.copy)
    print(f"bfloat16, 64 MB: {ratio:.2f} times a copy")
    assert ratio < 1.5


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_every_dtype(reload, dtype):
    values = np.arange(12).reshape(3, 4) % 2 if dtype.kind == "b" else np.arange(12).reshape(3, 4)
    assert same(reload({"a": values.astype(dtype)})["a"], values.astype(dtype))


# Row 9


def layouts():
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return {
        "contiguous": base,
        "transposed": base.T,
        "swapped axes": base.swapaxes(0, 1),
        "strided": base[:, ::2, 1::2],
        "reversed": base[::-1, :, ::-1],
        "broadcast": np.broadcast_to(base[0, 0], (5, 4)),
        "broadcast scalar": np.broadcast_to(np.float32(3), (2, 2)),
        "fortran": np.asfortranarray(base),
        "big-endian": base.astype(">f4"),
        "big-endian transposed": base.astype(">f4").T,
        "big-endian integers": np.arange(5, dtype=">i8"),
        "0-d": np.array(2.5),
        "0-d big-endian": np.array(2.5, ">f8"),
        "scalar": np.float64(2.5),
        "empty": np.zeros((0, 3), np.float16),
        "empty strided": base[:, :0, ::2],
        "offset": np.frombuffer(bytes(range(13)), np.uint8)[1:],
        "misaligned": np.frombuffer(bytes(range(13)), np.uint8)[1:].view(np.float32),
        "bool strided": (base > 5)[:, ::2],
        "bfloat16 transposed": base.astype(ml_dtypes.bfloat16).T,
        "bfloat16 reversed": base.astype(ml_dtypes.bfloat16)[::-1],
        "read-only": np.broadcast_to(base, base.shape),
    }


@pytest.mark.parametrize("name", layouts())
def test_row_9_layouts(reload, name):
    array = layouts()[name]
    assert same(reload({"a": array})["a"], array)


def test_row_9_all_layouts_in_one_file(reload):
    tensors = layouts()
    got = reload(tensors)
    assert got.keys() == tensors.keys()
    assert all(same(got[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("name", [n for n in layouts() if "bfloat16" not in n])
def test_row_9_the_published_reader_agrees(name):
    array = layouts()[name]
    assert same(published.load(save_bytes({"a": array}))["a"], array)


# Row 10


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": np.arange(100_000, dtype=np.float32), "b": np.ones(7, np.int8)}, path)
    return path


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda path: os.truncate(path, 1000), "1,000 now"),
        (lambda path: os.truncate(path, 0), "0 now"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "when it was opened"),
        (lambda path: path.write_bytes(path.read_bytes()), "written again"),
    ],
)
def test_row_10_a_file_that_changes_between_opening_and_reading(path, change, word):
    with SafetensorsFile(path) as file:
        early = file["a"]
        time.sleep(0.02)  # longer than a tick of the file system's clock
        change(path)
        with pytest.raises(WeightsError, match="changed") as caught:
            file["a"]
        assert word in str(caught.value)
        assert str(path) in str(caught.value)
    assert (early == np.arange(100_000)).all()


def test_row_10_a_replaced_file_is_read_as_it_was(path):
    with SafetensorsFile(path) as file:
        save_file({"a": np.zeros(3, np.float32)}, path)
        assert (file["a"] == np.arange(100_000)).all()
    assert load_file(path)["a"].shape == (3,)


def test_row_10_arrays_survive_truncation_in_a_process_that_is_not_killed(path):
    script = f"""
        import os
        from bestiary.core.weights import load
        tensors = load({str(path)!r})
        os.truncate({str(path)!r}, 0)
        assert (tensors["a"] == range(100_000)).all()
        print("alive")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout.strip()) == (0, "alive"), result.stderr


def test_row_10_rewritten_while_it_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    versions = [save_bytes({"a": np.full(250_000, v, np.float32)}) for v in range(3)]
    path.write_bytes(versions[0])
    done = threading.Event()

    def rewrite():
        count = 0
        while not done.is_set():
            count += 1
            path.write_bytes(versions[count % 3])  # truncates first, as careless programs do
            time.sleep(0.012)

    writer = threading.Thread(target=rewrite)
    writer.start()
    outcomes = {"loaded": 0, "refused": 0}
    end = time.monotonic() + 1.5
    try:
        while time.monotonic() < end:
            try:
                array = load_file(path)["a"]
            except WeightsError:
                outcomes["refused"] += 1
            else:
                outcomes["loaded"] += 1
                assert (array == array[0]).all()
    finally:
        done.set()
        writer.join()
    print(f"rewritten while read: {outcomes}")
    assert min(outcomes.values()) > 0


def test_row_10_mapped_arrays_are_copied_on_write(path):
    before = path.read_bytes()
    with SafetensorsFile(path, mapped=True) as file:
        array, again = file["a"], file["a"]
    assert np.shares_memory(array, again)
    array[:] = 7
    assert (array == 7).all()
    assert path.read_bytes() == before
    assert (load_file(path)["a"] == np.arange(100_000)).all()


def test_row_10_only_mapped_when_asked(path):
    for array in load_file(path).values():
        assert array.base is None
        assert array.flags.writeable
    assert load_file(path, mapped=True)["a"].base is not None


def test_misaligned_tensors_are_copied_when_mapped(write, safetensors_bytes, entry):
    header = {"a": entry("U8", [1], [0, 1]), "b": entry("F32", [2], [1, 9])}
    text = json.dumps(header)
    data = b"\x07" + np.float32([1.5, -2]).tobytes()
    for pad in range(8):
        path = write(safetensors_bytes(text + " " * pad, data))
        array = load_file(path, mapped=True)["b"]
        assert array.flags.aligned
        assert array.tolist() == [1.5, -2]
        array[0] = 3


def test_opening_500_mb_mapped_takes_under_20_ms(tmp_path, safetensors_bytes, entry):
    count, size = 100, 5_000_000
    header = {
        f"h.{i}.weight": entry("F32", [size // 4], [i * size, (i + 1) * size]) for i in range(count)
    }
    path = tmp_path / "model.safetensors"
    text = json.dumps(header)
    with open(path, "wb") as file:
        file.write(safetensors_bytes(text + " " * (-len(text) % 8)))  # aligned, as writers do
        file.truncate(file.tell() + count * size)  # sparse
    times = []
    for _ in range(5):
        start = time.perf_counter()
        tensors = load_file(path, mapped=True)
        times.append(time.perf_counter() - start)
        assert tensors["h.99.weight"][-1] == 0
    print(f"500 MB mapped: {min(times) * 1e3:.2f} ms")
    assert min(times) < 0.020


# Reading


def test_lazy_reading(path):
    with SafetensorsFile(path) as file:
        assert list(file) == ["a", "b"]
        assert len(file) == 2
        assert "a" in file
        assert "c" not in file
        assert file.info("a") == (np.dtype(np.float32), (100_000,))
        assert file.infos()["b"].dtype == np.int8
        assert file.get("c") is None
        with pytest.raises(KeyError):
            file["c"]
        assert "model.safetensors" in repr(file)
        assert file == file
        assert file != dict(file)
    assert file.metadata == {}
    with pytest.raises(ValueError, match="closed"):
        file["a"]


def test_metadata(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros(1)}, path, {"format": "np", "é": "☕\n\0"})
    with SafetensorsFile(path) as file:
        assert file.metadata == {"format": "np", "é": "☕\n\0"}
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "np", "é": "☕\n\0"}


def test_a_file_object_that_is_dropped_closes_itself(path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        SafetensorsFile(path)["b"]
    for _ in range(20):
        with pytest.raises(WeightsError):
            SafetensorsFile(path, max_header_bytes=3)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_not_a_regular_file(tmp_path):
    with pytest.raises(WeightsError, match="not a regular file"):
        SafetensorsFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="not a regular file"):
        SafetensorsFile(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        SafetensorsFile(tmp_path / "absent")


def test_threads_may_share_a_file(tmp_path):
    path = tmp_path / "x.safetensors"
    tensors = {str(i): np.full(50_000, i, np.int32) for i in range(16)}
    save_file(tensors, path)
    wrong = []
    with SafetensorsFile(path) as file:

        def read():
            for name in list(file) * 5:
                if not (file[name] == int(name)).all():
                    wrong.append(name)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


# Writing


def test_the_bytes_are_those_of_the_published_writer():
    tensors = {n: a for n, a in layouts().items() if n in ("contiguous", "0-d", "empty", "offset")}
    tensors |= {'é\x01"': np.array([True]), "c": np.ones(2, np.complex64), "u": np.ones(3, "u2")}
    for metadata in (None, {"k": "v"}):
        assert save_bytes(tensors, metadata) == published.save(tensors, metadata)


def test_order_and_alignment_depend_on_content_alone(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        f"{i}": np.ones(int(rng.integers(0, 5)), dtype)
        for i, dtype in enumerate(list(DTYPES.values()) * 3)
    }
    shuffled = dict(reversed(tensors.items()))
    data = save_bytes(tensors, {"a": "1", "b": "2"})
    assert data == save_bytes(shuffled, {"b": "2", "a": "1"})
    assert int.from_bytes(data[:8], "little") % 8 == 0
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    for array in load_file(path, mapped=True).values():
        assert array.flags.aligned
        assert not array.flags.owndata


@pytest.mark.parametrize(
    "array", [1.5, [1, 2], None, memoryview(b"ab")], ids=lambda array: type(array).__name__
)
def test_only_arrays_are_saved(array):
    with pytest.raises(DtypeError, match="'a' is"):
        save_bytes({"a": array})


@pytest.mark.parametrize(
    "dtype", ["c16", "O", "U3", "S3", "M8[s]", "i4,f4", ml_dtypes.float8_e4m3fnuz, np.longdouble]
)
def test_dtypes_that_cannot_be_saved(dtype):
    with pytest.raises(DtypeError, match=r"'a' cannot be saved(.|\n)*astype"):
        save_bytes({"a": np.zeros(2, dtype)})


def test_names_and_metadata_that_cannot_be_saved():
    array = np.zeros(1)
    for name in ("__metadata__", 3, None, b"a"):
        with pytest.raises(WeightsError, match="cannot be the name"):
            save_bytes({name: array})
    for metadata in ({"a": 1}, {1: "a"}, {"a": None}):
        with pytest.raises(WeightsError, match="texts only"):
            save_bytes({"a": array}, metadata)
    with pytest.raises(WeightsError, match="surrogate"):
        save_bytes({"\ud800": array})
    with pytest.raises(WeightsError, match="save_sharded"):
        save_bytes({"a": array}, {"a": "x" * 26_000_000})


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.zeros(3)}, path)
    before = path.read_bytes()
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_file({"a": np.ones(5)}, path)
    assert calls
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_saving_flushes_file_and_folder_and_renames(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        kind = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("fsync folder" if kind else "fsync file")
        fsync(descriptor)

    def record_replace(source, target):
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    save_file({"a": np.ones(5)}, tmp_path / "x.safetensors")
    assert events == ["fsync file", "rename", "fsync folder"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_follows_the_umask(tmp_path, mask):
    old = os.umask(mask)
    try:
        save_file({"a": np.ones(5)}, tmp_path / "x.safetensors")
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(tmp_path / "x.safetensors").st_mode) == 0o666 & ~mask


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    blob, link = tmp_path / "blob", tmp_path / "model.safetensors"
    blob.write_bytes(b"content-addressed")
    link.symlink_to(blob)
    save_file({"a": np.ones(5)}, link)
    assert blob.read_bytes() == b"content-addressed"
    assert not link.is_symlink()


def test_the_longest_file_name(tmp_path):
    path = tmp_path / ("x" * 255)
    save_file({"a": np.ones(5)}, path)
    assert load_file(path)["a"].sum() == 5


def test_public_names():
    assert all(hasattr(weights, name) for name in weights.__all__)


def test_a_state_dict_is_saved_as_it_is(tmp_path):
    import bestiary as bt

    x = bt.tensor([[1.0, 2.0]], requires_grad=True)
    half = bt.tensor([3.0], dtype=bt.bfloat16)
    save_file({"x": x, "y": x.T, "half": half}, tmp_path / "t.safetensors")
    read = load_file(tmp_path / "t.safetensors")
    assert read["x"].tolist() == [[1.0, 2.0]]
    assert read["y"].tolist() == [[1.0], [2.0]]
    assert read["half"].dtype == bt.bfloat16
    weights.save_sharded({"x": x, "y": x.T, "half": half}, tmp_path, max_shard_bytes=8)
    assert weights.load(tmp_path / "model.safetensors.index.json")["y"].tolist() == [[1.0], [2.0]]
