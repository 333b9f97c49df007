"""The tests of the kernels in C under sanitizers, with each instruction set, and without kernels.

    python tests/sanitizers/check_kernels.py address        # errors of memory, undefined behaviour
    python tests/sanitizers/check_kernels.py thread         # races
    python tests/sanitizers/check_kernels.py avx2           # or avx512, generic, none: forced
    python tests/sanitizers/check_kernels.py none tests/vision -k compiled   # other tests

The last kinds run the tests of core, vision and text unless told otherwise, which takes minutes.
For a sanitizer the extension is built in a temporary folder, with the flags of pyproject.toml and
the sanitizer's, and put in the place of the installed one. Needs GCC and its sanitizer libraries.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FORCED = ("avx512", "avx2", "generic", "none")
FORCED_TESTS = ["tests/core", "tests/vision", "tests/text"]
SANITIZERS = {"address": "address,undefined", "thread": "thread"}
OPTIONS = {
    "address": {
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",  # Python itself leaves memory behind
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    },
    "thread": {"TSAN_OPTIONS": "halt_on_error=1"},
}
# Left out is what forks, which the thread sanitizer refuses, and what counts threads or pages.
DEFAULT = ["tests/core/native", "-k", "not fork and not threads_start and not freed_memory"]


def search_path() -> str:
    """Where the plugin is, and what was there before."""
    return os.pathsep.join(p for p in (str(HERE), os.environ.get("PYTHONPATH", "")) if p)


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "gcc"))


def library(name: str) -> str | None:
    """The path of a library of the compiler; None if it has none."""
    try:
        answer = subprocess.check_output([*compiler(), f"-print-file-name={name}"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    path = Path(answer.strip())
    return str(path.resolve()) if path.is_absolute() and path.exists() else None


def missing(kind: str) -> str | None:
    """Why a sanitizer cannot be used here; None if it can."""
    if sys.platform != "linux":
        return "the sanitizers are put into Python by LD_PRELOAD, which needs Linux"
    name = {"address": "libasan.so", "thread": "libtsan.so"}[kind]
    if library(name) is None:
        return f"{' '.join(compiler())} has no {name}"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers are not installed"
    return None


def build(kind: str, folder: Path) -> Path:
    """The extension with a sanitizer, in a folder."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        (extension,) = tomllib.load(file)["tool"]["setuptools"]["ext-modules"]
    flags = [flag for flag in extension["extra-compile-args"] if flag not in ("-O3", "-g0")]
    out = folder / "_native.so"
    subprocess.run(
        [
            *compiler(),
            *("-shared", "-fPIC", "-O2", "-ftree-vectorize", "-g1", "-fno-omit-frame-pointer"),
            *flags,
            f"-fsanitize={SANITIZERS[kind]}",
            "-fno-sanitize-recover=all",
            f"-I{sysconfig.get_paths()['include']}",
            *(str(ROOT / source) for source in extension["sources"]),
            *("-o", str(out), "-lm"),
        ],
        check=True,
    )
    return out


def environment(kind: str, extension: Path) -> dict[str, str]:
    """What a process needs to use an extension that was built with a sanitizer."""
    first = library({"address": "libasan.so", "thread": "libtsan.so"}[kind])
    # libstdc++ too, or exceptions in other extensions are not found by the sanitizer.
    preloaded = [path for path in (first, library("libstdc++.so.6")) if path]
    return {
        **os.environ,
        **OPTIONS[kind],
        "LD_PRELOAD": " ".join(preloaded),
        "BESTIARY_TEST_EXTENSION": str(extension),
        "PYTHONPATH": search_path(),
        "OPENBLAS_NUM_THREADS": "1",
    }


def pytest(arguments: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, text=True)


def main(arguments: list[str]) -> int:
    kind, *rest = arguments or ["--help"]
    if kind == "none":  # the variable is for the processes that tests start
        env = {**os.environ, "BESTIARY_NATIVE": "0", "BESTIARY_TEST_EXTENSION": ""}
        env["PYTHONPATH"] = search_path()
        return pytest(["-p", "extension", *(rest or FORCED_TESTS)], env).returncode
    if kind in FORCED:
        return pytest(rest or FORCED_TESTS, {**os.environ, "BESTIARY_NATIVE": kind}).returncode
    if kind not in SANITIZERS:
        print(__doc__)
        return 2
    why = missing(kind)
    if why is not None:
        print(f"the {kind} sanitizer cannot be used here: {why}")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        env = environment(kind, build(kind, Path(folder)))
        return pytest(["-p", "extension", *(rest or DEFAULT)], env=env).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
