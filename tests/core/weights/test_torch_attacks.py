"""TESTPLAN A, row 14 and ERRORS 27: torch checkpoints that were made to do harm."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pickle
import random
import struct
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.core.weights import load, pickle_reader, read_checkpoint, torch_layouts, zip_reader

DATA = Path(__file__).parents[2] / "references" / "data" / "torch_checkpoints"
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


@pytest.fixture(scope="module", autouse=True)
def _warm():
    """The standard library imports a few of its own modules late, on the first use of a file."""
    for name in ("zip_nested", "legacy_nested", "tar"):
        read_checkpoint(DATA / f"{name}.pt")


def refused(path, *words):
    """The file is refused with these words, and reading it imports and costs nothing."""
    modules = set(sys.modules)
    imported = []
    real = builtins.__import__

    def spy(name, globals=None, *args, **kwargs):
        imported.append(name)
        return real(name, globals, *args, **kwargs)

    builtins.__import__ = spy
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError) as caught:
            read_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        builtins.__import__ = real
    assert not imported
    assert set(sys.modules) == modules
    assert peak < 100e6
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message
    assert len(message.splitlines()) <= 12
    assert max(map(len, message.splitlines())) < 1000
    return caught.value


def wrapped(layout, program, torch_zip):
    """A pickle program as a plain pickle, or where each layout keeps its value."""
    if layout == "plain":
        return program
    if layout == "zip":
        return torch_zip(program)
    return MAGIC + b"\x80\x02M\xe9\x03." + b"\x80\x02}." + program


LAYOUTS = pytest.mark.parametrize("layout", ["zip", "legacy", "plain"])


class Evil:
    """Leaves a sentinel when it is unpickled."""

    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


class EvilState(Evil):
    def __reduce__(self):
        return eval, (f"open({str(self.sentinel)!r}, 'w')",), {"state": 1}


@pytest.mark.parametrize("evil", [Evil, EvilState])
@pytest.mark.parametrize(
    "layout, protocol",
    # Plain pickles of the text protocols are not taken for checkpoints at all.
    [
        (name, n)
        for name in ("zip", "legacy", "plain")
        for n in range(6)
        if name != "plain" or n > 1
    ],
)
def test_row_14_reduce_never_runs(tmp_path, write, torch_zip, layout, evil, protocol):
    sentinel = tmp_path / "sentinel"
    program = pickle.dumps({"weight": evil(sentinel)}, protocol)
    path = write(wrapped(layout, program, torch_zip), "x.pt")
    name = "posix.system" if evil is Evil else ("builtins.eval", "__builtin__.eval")[protocol < 3]
    caught = refused(path, repr(name), "nothing was imported or executed")
    assert caught.got == name
    assert not sentinel.exists()


NAMES = [
    "os.system",
    "posix.system",
    "nt.system",
    "builtins.eval",
    "builtins.exec",
    "builtins.getattr",
    "__builtin__.eval",
    "__builtin__.file",
    "subprocess.Popen",
    "importlib.import_module",
    "functools.partial",
    "operator.attrgetter",
    "webbrowser.open",
    "shutil.rmtree",
    "numpy.load",
    "numpy.core.multiarray._reconstruct",
    "numpy.testing._private.utils.runstring",
    "numpy.ndarray",
    "torch.load",
    "torch.hub.load",
    "torch.storage._load_from_bytes",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_tensor",
    "torch._tensor._rebuild_from_type_v2",
    "torch.jit._pickle.build_intlist",
    "torch.nn.modules.linear.Linear",
    "torch.QInt8Storage",
    "torch.FloatStorage.from_file",
    "collections.OrderedDict.fromkeys",
    "collections.defaultdict",
    "argparse.Namespace",
    "__main__.Config",
    "bestiary.core.errors._rebuild",
    "copyreg._reconstructor",
    "_codecs.lookup",
    ".",
    "x.",
]


@LAYOUTS
@pytest.mark.parametrize("name", NAMES)
def test_row_14_globals_are_refused_by_name(write, torch_zip, layout, name):
    module, _, attribute = name.rpartition(".")
    short = [bytes([0x8C, len(word)]) + word.encode() for word in (module, attribute)]
    for program in (
        b"\x80\x02c%s\n%s\n." % (module.encode(), attribute.encode()),
        b"\x80\x04" + b"".join(short) + b"\x93.",
        b"\x80\x02}(K\x01c%s\n%s\nu." % (module.encode(), attribute.encode()),
    ):
        caught = refused(write(wrapped(layout, program, torch_zip), "x.pt"), "import")
        assert caught.got == name
        assert name in str(caught)


def test_row_14_dotted_names_do_not_reach_into_what_is_allowed(write, torch_zip):
    """Pickle protocol 4 looks up "OrderedDict.fromkeys" in parts; here it is one unknown name."""
    for module, name in [
        ("collections", "OrderedDict.__init__"),
        ("torch", "Size.__class__.__base__.__subclasses__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ]:
        words = [bytes([0x8C, len(w)]) + w.encode() for w in (module, name)]
        path = write(torch_zip(b"\x80\x04" + b"".join(words) + b"\x93."), "x.pt")
        assert refused(path).got == f"{module}.{name}"


def test_names_are_escaped(write, torch_zip):
    path = write(torch_zip(b"\x80\x02c\x1b[31mx\nevil\n."), "x.pt")
    assert "\x1b" not in str(refused(path))
    path = write(torch_zip(b"\x80\x02X\x90\xd0\x03\0" + b"x" * 250_000 + b"X\x01\0\0\0y\x93."), "x")
    assert len(str(refused(path))) < 1000


T = b"ctorch._utils\n_rebuild_tensor_v2\n"
S = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ"
END = b"\x89}tR."


@pytest.mark.parametrize(
    "program, word",
    [
        (b"(S'a'\ni__main__\nX\n.", "0x69"),  # INST
        (b"(cos\nsystem\nS'a'\no.", "os.system"),  # OBJ would follow
        (b"(NS'a'\no.", "0x6f"),
        (b"\x82\x01.", "0x82"),  # EXT1
        (b"\x97.", "0x97"),  # NEXT_BUFFER
        (b"\x98.", "0x98"),
        (b"\xff.", "0xff"),
        (b"\x80\x06N.", "protocol 6"),
        (b"K\x01K\x02.", "2 values"),
        (b".", "0 values"),
        (b"(.", "1 values"),
        (b"0.", "does not fit"),
        (b"N)R.", "calls"),
        (b"K\x01K\x02\x85R.", "calls"),
        (b"ctorch\nFloatStorage\n)R.", "calls"),
        (b"ctorch\nfloat32\n)R.", "calls"),
        (b"ccollections\nOrderedDict\nNR.", "arguments"),
        (b"ccollections\nOrderedDict\nK\x05\x85R.", "OrderedDict"),
        (b"ccollections\nOrderedDict\n)}X\x01\0\0\0aK\x01s\x92.", "keyword"),
        (b"ctorch\nSize\nX\x01\0\0\0a\x85R.", "size"),
        (b"]}b.", "sets the state"),
        (b"K\x01}b.", "sets the state"),
        (b"ccollections\nOrderedDict\n}b.", "sets the state"),
        (b"ctorch\nfloat32\n}b.", "sets the state"),
        (b"c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0hex\x86R.", "encoded"),
        (b"cnumpy\ndtype\nX\x01\0\0\0O\x85R.", "NumPy"),
        (b"cnumpy\ndtype\nX\x02\0\0\0f4\x85R(K\x03X\x01\0\0\0<N](eNJ\xff\xff\xff\xfftb.", "fields"),
        (b"cnumpy\ndtype\nX\x02\0\0\0f4\x85R(K\x03X\x01\0\0\0>NNNtb.", "byte order"),
        (b"cnumpy._core.multiarray\nscalar\nNN\x86R.", "bytes"),
        (b"](e.", None),
        (b"](e(e.", None),
        (b"]K\x01(e.", "list"),
        (b"h\x05.", "does not fit"),
        (b"}]K\x01s.", "key"),
        (b"}}K\x01s.", "key"),
        (b"}(K\x01u.", "without a value"),
        (b"}\x8a\x11" + (2**130).to_bytes(17, "little") + b"Ns.", "key"),
        (b"\x8f(]\x90.", "member of a set"),
        (b"(]\x91.", "member of a set"),
        (b"}K\x01\x85Ns.", "key"),
        (b"\x8b\xff\xff\xff\x7f.", "bytes"),
        (b"I" + b"9" * 5000 + b"\n.", "1,000"),
        (b"Ixyz\n.", "does not fit"),
        (b"Fxyz\n.", "does not fit"),
        (b"S'\\x41'\n.", "plain"),
        (b"Q.", "does not fit"),
        (b"NQ.", "persistent"),
        (b"S'0'\nQ.", "persistent"),
        (b"(X\x06\0\0\0modulec__main__\nNet\nNNtQ.", "__main__.Net"),
        (b"(X\x07\0\0\0storageNX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ.", "type"),
        (T + b"(NK\0K\x01\x85K\x01\x85" + END, "not a storage"),
        (T + b"(" + S + b"K\x01K\x02\x85K\x01\x85" + END, "reaches"),
        (T + b"(" + S + b"K\0K\x03\x85K\x01\x85" + END, "reaches"),
        (T + b"(" + S + b"K\0K\x02\x85K\x02\x85" + END, "reaches"),
        (T + b"(" + S + b"K\0K\x02\x85J\xff\xff\xff\xff\x85" + END, "at least 0"),
        (T + b"(" + S + b"J\xff\xff\xff\xffK\x01\x85K\x01\x85" + END, "at least 0"),
        (T + b"(" + S + b"K\0K\x01K\x01\x86K\x01\x85" + END, "2 dimensions with 1"),
        (T + b"(" + S + b"K\0G?\xf0\0\0\0\0\0\0\x85K\x01\x85" + END, "whole"),
        (T + b"(" + S + b"K\0(" + b"K\x01" * 65 + b"t(" + b"K\x01" * 65 + b"t" + END, "65"),
        # 10**12 elements that are all the first one
        (T + b"(" + S + b"K\0\x8a\x06\0\x10\xa5\xd4\xe8\0\x85K\0\x85" + END, "repeats"),
        (T + b"(" + S + b"K\0\x8a\x08" + b"\xff" * 7 + b"\x7f\x85K\0\x85" + END, "no array"),
        (T + b"(" + S + b"K\0(K\0\x8a\x08" + b"\xff" * 7 + b"\x7ft(K\0K\0t" + END, "no array"),
        (T + b"(" + S + b"K\0K\x01\x85K\x01\x85\x89}}X\x01\0\0\0xNstR.", "metadata"),
        (b"ctorch._utils\n_rebuild_parameter\n(N\x88}tR.", "parameter"),
        (b"N", "too early"),
        (b"X\xff\xff\xff\x7fabc", "too early"),
        (b"\x8d" + b"\xff" * 8, "too early"),
        (b"", "too early"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_row_14_malformed_programs(write, torch_zip, program, word):
    path = write(torch_zip(program, {"0": bytes(8)}), "x.pt")
    if word is None:
        read_checkpoint(path)
    else:
        refused(path, word)


def test_inert_values_do_not_leak(write, torch_zip):
    """The name of an allowed function, left where a value should be."""
    for program in (T + b".", b"](ctorch\nFloatStorage\ne.", b"ccollections\nOrderedDict\n."):
        refused(write(torch_zip(program), "x.pt"), "stands where a value")


def test_row_14_bool_bytes(write, torch_zip):
    program = (T + b"(" + S + b"K\0K\x02\x85K\x01\x85" + END).replace(b"Float", b"Bool")
    path = write(torch_zip(program, {"0": b"\x01\x00"}), "x.pt")
    assert read_checkpoint(path).tolist() == [True, False]
    refused(write(torch_zip(program, {"0": b"\x01\x02"}), "x.pt"), "value 2")


def test_row_14_deep_cyclic_and_shared_values(write, torch_zip):
    cycle = read_checkpoint(write(torch_zip(b"]q\0h\0a."), "x.pt"))
    assert cycle[0] is cycle
    refused(write(torch_zip(b"]" * 200 + b"a" * 199 + b"."), "x.pt"), "nested")
    refused(write(torch_zip(b")" + b"\x85" * 100_000 + b"."), "x.pt"), "nested")
    # Sixty lists, each with the one before it twice: 2**60 values if they were unfolded.
    double = b"K\x01q\0" + b"".join(b"](h%ch%ceq%c0" % (i, i, i + 1) for i in range(60)) + b"h\x3c."
    start = time.perf_counter()
    value = read_checkpoint(write(torch_zip(b"0".join([double[:4], double[4:]])), "x.pt"))
    assert time.perf_counter() - start < 1
    assert value[0] is value[1]


def test_row_14_caps_on_programs(write, torch_zip, monkeypatch):
    monkeypatch.setattr(pickle_reader, "MAX_INSTRUCTIONS", 1000)
    refused(write(torch_zip(b"]" * 1001 + b"."), "x.pt"), "1,000 instructions")
    monkeypatch.setattr(torch_layouts, "MAX_PICKLE_BYTES", 10_000)
    refused(write(torch_zip(b"N" * 10_000 + b"."), "x.pt"), "10,001", "10,000")


def test_row_14_the_worst_program_under_the_cap(write, torch_zip):
    """As many empty sets as instructions are allowed, scaled down a hundredfold."""
    count = pickle_reader.MAX_INSTRUCTIONS // 100
    path = write(torch_zip(b"\x8f" * count + b"."), "x.pt")
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(WeightsError):
        read_checkpoint(path)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6
    assert seconds < 2


# Zip archives


def plain_zip(*members, **options):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return bytearray(memory.getvalue())


GOOD = ("archive/data.pkl", b"\x80\x02N.")


@pytest.mark.parametrize(
    "name", ["../x", "archive/../../x", "/etc/passwd", "a\\..\\x", "C:/x", "a//b", "./a", "a/."]
)
def test_row_14_member_names_that_climb(tmp_path, write, name):
    path = write(bytes(plain_zip(GOOD, (name, b"x"))), "x.pt")
    refused(path, "not a plain path")
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def central(name, header, size, packed=None, flags=0, method=0):
    packed = size if packed is None else packed
    fields = struct.pack("<6H3L5H2L", 0, 20, flags, method, 0, 0, 0, packed, size, len(name),
                         0, 0, 0, 0, 0, header)  # fmt: skip
    return b"PK\x01\x02" + fields + name


def raw_zip(body, directory, count):
    end = struct.pack("<4H2LH", 0, 0, min(count, 65535), min(count, 65535), len(directory),
                      len(body), 0)  # fmt: skip
    return body + directory + b"PK\x05\x06" + end


def local(name, data):
    return (
        b"PK\x03\x04" + struct.pack("<5H3L2H", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name + data
    )


def test_row_14_a_hundred_thousand_members(write):
    one = central(b"m", 0, 0)
    directory = one * 100_000
    body = local(b"m", b"")
    locator_at = len(body) + len(directory)
    record = b"PK\x06\x06" + struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, 100_000, 100_000,
                                         len(directory), len(body))  # fmt: skip
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, locator_at, 1)
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    path = write(body + directory + record + locator + end, "x.pt")
    start = time.process_time()
    caught = refused(path, "100,000", "65,535")
    assert time.process_time() - start < 0.5
    assert caught.got == 100_000


def test_row_14_many_members_by_zipfile(write):
    members = [(f"archive/data/{i}", b"") for i in range(2000)]
    path = write(bytes(plain_zip(GOOD, *members)), "x.pt")
    assert read_checkpoint(path) is None


def test_row_14_compression(write):
    big = ("archive/data/0", bytes(10_000_000))
    data = bytes(plain_zip(GOOD, big, compression=zipfile.ZIP_DEFLATED))
    assert len(data) < 20_000  # more than 500:1
    caught = refused(write(data, "x.pt"), "compressed")
    # data.pkl comes first and is compressed too
    assert caught.member == "archive/data.pkl"
    lying = raw_zip(local(b"archive/data.pkl", b"N."), central(b"archive/data.pkl", 0, 2000, 2), 1)
    refused(write(lying, "x.pt"), "2 bytes unpack to 2,000")


def test_row_14_overlapping_members(write):
    body = local(b"archive/data.pkl", b"N.") + local(b"archive/data/0", bytes(100))
    at = len(local(b"archive/data.pkl", b"N."))
    directory = central(b"archive/data.pkl", 0, 2) + central(b"archive/data/0", at, 100)
    assert read_checkpoint(write(raw_zip(body, directory, 2), "x.pt")) is None
    twice = directory + central(b"archive/data/1", at, 100)
    refused(write(raw_zip(body, twice, 3), "x.pt"), "reaches into the next")
    beyond = central(b"archive/data.pkl", 0, 2) + central(b"archive/data/0", at, 101)
    refused(write(raw_zip(body, beyond, 2), "x.pt"), "reaches into the next")


def test_row_14_other_damage_of_archives(write):
    body = local(b"archive/data.pkl", b"N.")
    entry = central(b"archive/data.pkl", 0, 2)
    good = raw_zip(body, entry, 1)
    assert read_checkpoint(write(good, "x.pt")) is None
    for data, word in [
        (raw_zip(body, entry * 2, 2), "Two members"),
        (raw_zip(body, entry, 2), "damaged"),
        (raw_zip(body, entry + b"x", 1), "longer"),
        (raw_zip(body, central(b"archive/data.pkl", 0, 2, flags=1), 1), "encrypted"),
        (raw_zip(body, central(b"archive/data.pkm", 0, 2), 1), "not a torch checkpoint"),
        (raw_zip(local(b"archive/data.pkx", b"N."), entry, 1), "another name"),
        (raw_zip(body, central(b"archive/data.pkl", 2**32 - 1, 2), 1), "64-bit"),
        (raw_zip(body, central(b"\xff", 0, 2), 1), "UTF-8"),
        (b"PK\x03\x04" + good, "ends at byte"),
        (good + b"x", "end record is damaged"),
        (good[:-1], "truncated"),
        (good[:-30], "truncated"),
        (body, "truncated"),
        (bytes(plain_zip()), "0 members named"),
        (bytes(plain_zip(GOOD, ("other/data.pkl", b"N."))), "2 members named"),
        (bytes(plain_zip(GOOD, ("archive/constants.pkl", b"N."))), "TorchScript"),
        (bytes(plain_zip(GOOD, ("archive/byteorder", b"middle"))), "byte order"),
        (bytes(plain_zip(GOOD, ("archive/byteorder", bytes(17)))), "limit is 16"),
    ]:
        refused(write(data, "x.pt"), word)


def test_row_14_missing_and_misshapen_storages(write, torch_zip):
    program = T + b"(" + S + b"K\0K\x02\x85K\x01\x85" + END
    assert read_checkpoint(write(torch_zip(program, {"0": bytes(8)}), "x.pt")).shape == (2,)
    refused(write(torch_zip(program), "x.pt"), "missing", "8 bytes")
    refused(write(torch_zip(program, {"0": bytes(7)}), "x.pt"), "it has 7")
    refused(write(torch_zip(program, {"0": bytes(9)}), "x.pt"), "it has 9")
    twice = S + S.replace(b"K\x02tQ", b"K\x01tQ") + b"\x86."
    refused(write(torch_zip(twice, {"0": bytes(8)}), "x.pt"), "two ways")


def test_row_14_a_member_beyond_the_end(write):
    name = b"archive/data.pkl"
    header = bytearray(local(name, b"N."))
    header[28:30] = b"\xff\xff"  # the length of the extra field
    path = write(raw_zip(bytes(header), central(name, 0, 2), 1), "x.pt")
    refused(path, "beyond the end")


def test_the_cap_on_members_is_below_the_attack():
    assert zip_reader.MAX_MEMBERS < 100_000


# The older layouts


@pytest.mark.parametrize("name", ["legacy_module", "tar"])
def test_truncation_at_every_byte_is_an_error(write, name):
    """Cut anywhere, the file is refused; in all but a few places the message says truncated."""
    data = (DATA / f"{name}.pt").read_bytes()
    end = len(data) if name == "legacy_module" else 3584 + 105
    said = 0
    for size in range(20, end, 7):
        with pytest.raises(WeightsError) as caught:
            load(write(data[:size], "x.pt"))
        said += "truncated" in str(caught.value) and f"{size:,} bytes" in str(caught.value)
    assert said > 0.6 * len(range(20, end, 7))


@pytest.mark.parametrize("old, new, word", [
    (b"M\xe9\x03.", b"M\xea\x03.", "protocol"),
    (struct.pack("<q", 54), struct.pack("<q", 53), "its length says 53"),
    (struct.pack("<q", 54), struct.pack("<q", -1), "its length says -1"),
    (struct.pack("<q", 54), struct.pack("<q", 2**40), "its length says"),
    (b"ctorch\nLongStorage", b"ctorch\nFloatStorage", None),
])  # fmt: skip
def test_legacy_files_that_contradict_themselves(write, old, new, word):
    data = (DATA / "legacy_module.pt").read_bytes()
    assert old in data
    path = write(data.replace(old, new, 1), "x.pt")
    refused(path, *([word] if word else []))


def test_tar_files_that_contradict_themselves(write):
    data = (DATA / "tar.pt").read_bytes()
    for old, new, word in [
        (b"storages", b"storagex", "no member storages"),
        (b"pickle\0", b"pickl\0\0", "no member pickle"),
        (struct.pack("<q", 12), struct.pack("<q", -12), "negative"),
        (struct.pack("<q", 12), struct.pack("<q", 2**50), "truncated"),
        (struct.pack("<iiq", 2, 0, 3), struct.pack("<iiq", 65, 0, 3), "65 dimensions"),
        (struct.pack("<iiq", 2, 0, 3), struct.pack("<iiq", -1, 0, 3), "-1 dimensions"),
        (b"200", b"999", "names no tensor"),
    ]:
        assert old in data, old
        refused(write(data.replace(old, new, 1), "x.pt"), word)


# Random damage


@pytest.mark.parametrize(
    "name", ["zip_nested", "zip_dtypes", "legacy_nested", "legacy_views", "tar"]
)
def test_random_damage_gives_values_or_our_error(write, name):
    """Whatever is in the file: an array, or a WeightsError; never another exception."""
    data = (DATA / f"{name}.pt").read_bytes()
    rng = random.Random(name)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(600):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(damaged))
            kind = rng.randrange(4)
            if kind == 0:
                damaged[at] = rng.randrange(256)
            elif kind == 1:
                damaged[at] ^= 1 << rng.randrange(8)
            elif kind == 2:
                del damaged[at : at + rng.randint(1, 8)]
            else:
                damaged[at:at] = rng.randbytes(rng.randint(1, 8))
        try:
            read_checkpoint(write(bytes(damaged), "x.pt"), mapped=rng.random() < 0.5)
            outcomes["read"] += 1
        except WeightsError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_random_programs_give_values_or_our_error(write, torch_zip):
    rng = np.random.default_rng(0)
    used = [code for code, op in enumerate(pickle_reader._OPERATIONS) if op is not None]
    for _ in range(3000):
        codes = rng.choice(used, size=int(rng.integers(1, 40))).astype(np.uint8).tobytes()
        with contextlib.suppress(WeightsError):
            read_checkpoint(write(torch_zip(codes + b"."), "x.pt"))
