"""A file of kernels that is there and cannot be used: one warning, and the slower way."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from bestiary.core import native
from bestiary.core.native import loading, runtime

# Python in which the extension is the file of an argument, and a network in eager and compiled use.
CODE = """
import importlib.util, sys, warnings
import numpy as np
NAME = "bestiary.core.native._native"
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == NAME and len(sys.argv) > 1:
            return importlib.util.spec_from_file_location(name, sys.argv[1])
sys.meta_path.insert(0, Finder)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import bestiary as bt
    from bestiary.core import native
    net = bt.nn.Sequential(bt.nn.Conv2d(3, 4, 3), bt.nn.GroupNorm(2, 4), bt.nn.SiLU()).eval()
    for p in net.parameters():
        p.array[...] = np.linspace(-1, 1, p.size).reshape(p.shape)
    x = bt.tensor(np.linspace(-2, 2, 600, dtype=np.float32).reshape(2, 3, 10, 10))
    fast = bt.compile(net)
    with bt.inference_mode():
        eager = net(x).numpy()
        assert np.allclose(fast(x).numpy(), eager, atol=1e-5)
        assert np.allclose(fast(x).numpy(), eager, atol=1e-5)
print(native.available(), round(float(np.abs(eager).sum()), 3))
for w in said:
    print(w.category.__name__, w.message)
"""


def used(path: Path | None = None, **environment: str) -> list[str]:
    """What it prints with the extension in a file, or with the installed one."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BESTIARY_")}
    arguments = [] if path is None else [str(path)]
    found = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


@pytest.fixture(scope="module")
def answer() -> str:
    """The sum that every way of computing gives."""
    first, *said = used(BESTIARY_NATIVE="0")
    assert first.startswith("False") and not said
    return first.split()[1]


def elf(machine: int) -> bytes:
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    return head + b"\x03\x00" + machine.to_bytes(2, "little") + bytes(44)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"this is no library", "does not load"),
        (b"", "does not load"),
        (elf(0x1234), "for another kind of processor"),
    ],
    ids=["text", "empty", "machine"],
)
def test_files_that_are_no_good(tmp_path: Path, answer: str, content: bytes, words: str) -> None:
    path = tmp_path / f"_native{EXTENSION_SUFFIXES[0]}"
    path.write_bytes(content)
    first, *said = used(path)
    assert first == f"False {answer}"
    text = "\n".join(said)
    assert text.count("NativeWarning") == 1
    assert f"{path}" in text and words in text
    assert "pip install --force-reinstall --no-deps bestiary" in text
    first, *said = used(path, BESTIARY_NATIVE="0")
    assert first == f"False {answer}" and not said


def test_a_library_that_is_another(tmp_path: Path, answer: str) -> None:
    """Of the same machine, and no extension of that name."""
    import _ctypes

    source = getattr(_ctypes, "__file__", None)
    if source is None:
        pytest.skip("built into Python")
    path = tmp_path / f"_native{EXTENSION_SUFFIXES[0]}"
    path.write_bytes(Path(source).read_bytes())
    first, *said = used(path)
    assert first == f"False {answer}"
    assert "PyInit__native" in "\n".join(said)


def test_for_another_python(tmp_path: Path) -> None:
    error = ImportError("cannot import name '_native'", path=str(tmp_path / "__init__.py"))
    assert loading._problem(error, tmp_path) is None  # never built: no mistake
    (tmp_path / "_native.cpython-26-mips-linux-gnu.so").touch()
    said = loading._problem(error, tmp_path)
    assert said is not None and "_native.cpython-26-mips-linux-gnu.so is for another Python" in said
    (tmp_path / f"_native{EXTENSION_SUFFIXES[0]}").touch()
    assert loading._problem(error, tmp_path) is None


def test_built_from_older_sources(
    built: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bestiary.core.notice import NativeWarning, forget_warnings

    assert loading.load() is runtime._native
    monkeypatch.setattr(loading, "NAMES", loading.NAMES | {"zeta"})
    monkeypatch.setattr(loading, "problem", None)
    forget_warnings()
    with pytest.warns(NativeWarning, match="from other sources than these: it has no kernel zeta"):
        assert loading.load() is None
    assert loading.load() is None  # said once
    monkeypatch.setattr(runtime, "_BUILT", False)
    facts = native.info()
    assert facts["built"] is False and "zeta" in facts["problem"]
    from bestiary.hub.commands.doctor import _native, advise

    assert _native(facts) == "cannot be used"
    blas = {"forced_by": {}}
    (said,) = advise({"blas": blas, "native": facts})
    assert "zeta" in said and "pip install" in said


def test_every_kernel_is_named(built: None) -> None:
    """So that a file that lacks one is known to be old."""
    assert set(runtime.KERNELS) == loading.NAMES, "core/native/loading.py names every kernel"


def test_an_instruction_set_that_is_not_there(built: None, answer: str) -> None:
    first, *said = used(BESTIARY_NATIVE="avx1024")
    assert first == f"True {answer}"
    assert len(said) == 1 and "BESTIARY_NATIVE=avx1024 is no instruction set" in said[0]
    for name in native.info()["isas"]:
        assert used(BESTIARY_NATIVE=name) == [f"True {answer}"]
