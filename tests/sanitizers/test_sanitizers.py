"""A part of the tests of the kernels under sanitizers, and that they would find what is wrong.

`python tests/sanitizers/check_kernels.py address` (or thread) runs all of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from check_kernels import ROOT, build, environment, missing

PART = {
    "address": [
        "tests/core/native/test_native_conv.py",
        "tests/core/native/test_native_decode.py",
        "tests/core/native/test_native_any_shape.py",
        "tests/core/native/test_native_against_bodies.py",
    ],
    "thread": [
        "tests/core/native/test_native_conv.py",
        "tests/core/native/test_native_pooling.py",
        "tests/core/native/test_native_runtime.py",
        "-k",
        "(threads or pool or grad) and not fork and not start",
    ],
}
# A kernel that is told of more numbers than there are, and two threads that add to one array.
WRONG = {
    "address": """
import numpy as np
from bestiary.core.native import runtime
x, out = np.ones(2000, np.float32), np.ones(1999, np.float32)
runtime.run("relu", (x, out), (), (), 2000, 4000)
""",
    "thread": """
import threading, numpy as np
from bestiary.core.native import runtime
x, out = np.ones(400_000, np.float32), np.zeros(400_000, np.float32)
def add():
    for _ in range(20):
        runtime.run("added", (x, out), (), (), 400_000, 1000)
threads = [threading.Thread(target=add) for _ in range(2)]
for t in threads:
    t.start()
for t in threads:
    t.join()
""",
}
SAID = {"address": "heap-buffer-overflow", "thread": "data race"}


@pytest.fixture(scope="module", params=["address", "thread"])
def kind(request: pytest.FixtureRequest) -> str:
    why = missing(request.param)
    if why is not None:
        pytest.skip(why)
    return str(request.param)


@pytest.fixture(scope="module")
def environ(kind: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return environment(kind, build(kind, Path(tmp_path_factory.mktemp(kind))))


def python(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environ | {"BESTIARY_NUM_THREADS": "3"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernels_under_a_sanitizer(kind: str, environ: dict[str, str]) -> None:
    options = ["-m", "pytest", "-q", "-p", "extension", "-p", "no:cacheprovider"]
    found = python(environ, *options, *PART[kind])
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    assert " passed" in found.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_sanitizer_finds_what_is_wrong(kind: str, environ: dict[str, str]) -> None:
    found = python(environ, "-c", "import extension\n" + WRONG[kind])
    assert found.returncode != 0
    assert SAID[kind] in found.stderr
