"""Loading, threads, forks, and misuse of the native kernels."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bestiary.core import native
from bestiary.core.errors import ConfigError, DtypeError, ShapeError

linux = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux")


def python(code: str, **environment: str) -> str:
    """Runs code in a fresh interpreter, without the variables of this library."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BESTIARY_")}
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@linux
def test_threads_start_at_the_first_parallel_call(built: None) -> None:
    code = """
import os, numpy as np
tasks = lambda: len(os.listdir("/proc/self/task"))
before = tasks()
from bestiary.core import native
assert native.info()["threads"] == 2, native.info()
assert native.info()["threads_started"] == 0 and tasks() == before
native.silu(np.ones(1000, np.float32))
assert native.info()["threads_started"] == 0 and tasks() == before
native.silu(np.ones(1_000_000, np.float32))
assert native.info()["threads_started"] == 1 and tasks() == before + 1
native.set_num_threads(4)
native.silu(np.ones(1_000_000, np.float32))
assert native.info()["threads_started"] == 3 and tasks() == before + 3
native.set_num_threads(1)
assert (native.silu(np.zeros(1_000_000, np.float32)) == 0).all()
"""
    python(code, BESTIARY_NUM_THREADS="2")


FORK = """
import os, sys, threading, numpy as np
from bestiary.core import native
x = np.random.default_rng(0).standard_normal(2_000_000).astype(np.float32)
want = native.gelu(x)
assert native.info()["threads_started"] == 2
stop = threading.Event()
def hammer():
    while not stop.is_set():
        native.gelu(x)
others = [threading.Thread(target=hammer) for _ in range(%d)]
for t in others:
    t.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        ok = native.info()["threads_started"] == 0
        ok = ok and np.array_equal(native.gelu(x), want) and np.array_equal(native.gelu(x), want)
        os._exit(0 if ok and native.info()["threads_started"] == 2 else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert np.array_equal(native.gelu(x), want)
stop.set()
for t in others:
    t.join()
"""


@linux
@pytest.mark.parametrize("others", [0, 2])
def test_fork_after_the_pool_has_run(built: None, others: int) -> None:
    """Also while other threads are inside kernels: the child starts with a pool of its own."""
    python(FORK % others, BESTIARY_NUM_THREADS="3")


def test_python_threads_share_the_pool(isa: str) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(300_000).astype(np.float32) for _ in range(6)]
    want = [native.silu(x) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(native.silu(inputs[i]), want[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_environment(built: None) -> None:
    load = "from bestiary.core import native; f = native.info(); "
    show = load + "print(f['available'], f['threads'])"
    assert python(show, BESTIARY_NUM_THREADS="5").split() == ["True", "5"]
    assert python(show, BESTIARY_NUM_THREADS="none").split()[1] == python(show).split()[1]
    assert python(show, BESTIARY_NATIVE="0").split()[0] == "False"
    assert python(load + "print(f['isa'])", BESTIARY_NATIVE="generic").strip() == "generic"
    if hasattr(os, "sched_getaffinity"):
        pin = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        assert python(pin + show).split() == ["True", "1"]


def test_info_and_command(built: None) -> None:
    facts = native.info()
    assert facts["available"]
    assert facts["isa"] in facts["isas"]
    assert facts["isas"][-1] == "generic"
    out = subprocess.run(
        [sys.executable, "-m", "bestiary.core.native"], capture_output=True, text=True, check=True
    ).stdout
    assert f"isas: {', '.join(facts['isas'])}" in out


def test_without_the_extension() -> None:
    code = """
import sys
sys.modules["bestiary.core.native._native"] = None
from bestiary.core import native
from bestiary.core.errors import MissingExtra
import numpy as np, runpy
assert not native.available() and native.info() == {"built": False, "available": False}
for call in (lambda: native.gelu(np.ones(3, np.float32)), native.get_num_threads,
             lambda: native.set_num_threads(1), lambda: native.set_isa("generic")):
    try:
        call()
    except MissingExtra as error:
        assert "C compiler" in str(error)
    else:
        raise AssertionError
try:
    runpy.run_module("bestiary.core.native", run_name="__main__")
except SystemExit as stop:
    assert stop.code == 1
"""
    assert "built: False" in python(code)


def test_settings_are_checked(isa: str) -> None:
    with pytest.raises(ConfigError):
        native.set_num_threads(0)
    with pytest.raises(ValueError, match="not usable"):
        native.set_isa("sse9")
    native.set_num_threads(10**9)
    assert native.get_num_threads() <= 1024


def test_raw_calls_never_crash(built: None) -> None:
    """The checks of the C side, under the typed wrappers."""
    from bestiary.core.native import _native, runtime

    x, y = np.zeros(4, np.float32), np.zeros(4, np.float32)
    erf = _native.kernels["erf"]

    def refused(error: type[Exception], *call: Any) -> None:
        with pytest.raises(error):
            _native.run(*call)

    refused(TypeError, erf, (x, y), (), ())
    refused(TypeError, erf, [x, y], (), (), 4, 4)
    refused(TypeError, erf, (x,), (), (), 4, 4)
    refused(TypeError, erf, (x, None), (), (), 4, 4)
    refused(TypeError, erf, (x, "text"), (), (), 4, 4)
    refused(TypeError, erf, (x.astype(np.float64), y), (), (), 4, 4)
    refused(TypeError, erf, (x.view(np.int32), y), (), (), 4, 4)
    refused(TypeError, erf, (x.view(np.complex64), y), (), (), 4, 4)
    refused(TypeError, erf, (x.astype(">f4"), y), (), (), 4, 4)
    refused(ValueError, erf, (x[::2], y), (), (), 2, 4)
    refused(ValueError, erf, (x, y), (), (), 4, 0)
    refused(ValueError, 10_000, (x, y), (), (), 4, 4)
    refused(ValueError, -1, (x, y), (), (), 4, 4)
    refused(TypeError, erf, (x, y), ("a",), (), 4, 4)
    refused(TypeError, erf, (x, y), (0,) * 21, (), 4, 4)
    refused(OverflowError, erf, (x, y), (2**70,), (), 4, 4)
    frozen = np.zeros(4, np.float32)
    frozen.flags.writeable = False
    refused(ValueError, erf, (x, frozen), (), (), 4, 4)
    raw = np.zeros(17, np.uint8)[1:].view(np.float32)
    refused(TypeError, erf, (raw, y), (), (), 4, 4)
    runtime.run("erf", (x, y), (), (), -5, 4)  # nothing to do


def test_convolution_misuse_raises(isa: str) -> None:
    def zeros(*shape: int) -> Any:
        return np.zeros(shape, np.float32)

    x, w = zeros(1, 5, 5, 4), zeros(3, 3, 4)
    packed = native.pack_weight(zeros(8, 4, 3, 3))
    for call in (
        lambda: native.im2col(x[0], (3, 3)),
        lambda: native.im2col(x, (6, 3)),
        lambda: native.im2col(x, (3, 3), groups=3),
        lambda: native.im2col(x, (3, 3), out=zeros(1, 9, 35)),
        lambda: native.col2im(zeros(1, 9, 36), (1, 5, 6, 4), (3, 3)),
        lambda: native.depthwise_conv2d(x, zeros(3, 3, 5)),
        lambda: native.depthwise_conv2d(x, w, zeros(3)),
        lambda: native.depthwise_conv2d(x, w, out=zeros(1, 3, 3, 5)),
        lambda: native.depthwise_conv2d_input_grad(zeros(1, 3, 3, 4), w, (1, 6, 5, 4)),
        lambda: native.depthwise_conv2d_weight_grad(zeros(1, 3, 3, 4), x, (2, 3)),
        lambda: native.conv2d(zeros(1, 5, 5, 3), packed),
        lambda: native.conv2d(x, packed, zeros(7)),
        lambda: native.conv2d(x, packed, add=zeros(1, 5, 5, 8)),
        lambda: native.pack_weight(zeros(8, 4, 3, 3), groups=3),
        lambda: native.pack_weight(zeros(8, 0, 3, 3)),
    ):
        with pytest.raises(ShapeError):
            call()
    for settings in ({"stride": (0, 1)}, {"dilation": (1, 0)}, {"padding": (0, -1, 0, 0)}):
        with pytest.raises(ConfigError):
            native.im2col(x, (3, 3), **settings)
    with pytest.raises(ConfigError, match="64"):
        native.depthwise_conv2d(zeros(1, 70, 70, 4), zeros(65, 1, 4))
    with pytest.raises(DtypeError):
        native.conv2d(x.astype(np.float64), packed)
    with pytest.raises(ValueError, match="C-contiguous"):
        native.depthwise_conv2d(x.transpose(0, 2, 1, 3), w)


def test_weights_packed_for_another_instruction_set_are_refused(built: None) -> None:
    facts = native.info()
    if len(facts["isas"]) < 2:
        pytest.skip("one instruction set only")
    packed = native.pack_weight(np.ones((40, 4, 1, 1), np.float32))
    try:
        native.set_isa("generic")
        with pytest.raises(ShapeError):
            native.conv2d(np.ones((1, 2, 2, 4), np.float32), packed)
    finally:
        native.set_isa(facts["isa"])


@pytest.mark.slow
def test_more_elements_than_32_bits_count(isa: str) -> None:
    x = np.zeros((2**25 + 3, 64), np.float32)  # 8.6 GB of address space, hardly any of it memory
    x[-1] = 3.0
    assert_array_equal(native.channel_sum(x), 3.0)


_REUSE = """
import resource
import numpy as np
import bestiary.core.native
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(150):
    np.empty(2**24, np.float32)[::512] = 1  # 64 MiB, each page touched, freed at once
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's allocator")
def test_freed_memory_is_kept_unless_told_otherwise() -> None:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}

    def faults(**extra: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", _REUSE], env=own | extra))

    kept = faults()
    assert faults(BESTIARY_KEEP_MEMORY="0") > 4 * kept
    assert faults(MALLOC_ARENA_MAX="2") > 4 * kept


def test_sources_are_in_the_source_distribution() -> None:
    """Each C file is named in pyproject.toml, or a build from the sdist would lack it."""
    root = Path(native.__file__).parents[2]
    text = (root / "pyproject.toml").read_text() if (root / "pyproject.toml").exists() else ""
    if not text:
        pytest.skip("not in a source tree")
    for path in (root / "core" / "native").glob("*.[ch]"):
        assert f'"core/native/{path.name}"' in text
