"""The command line: help, exit codes, JSON, and errors without tracebacks (TESTPLAN 50)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bestiary.core.weights import save_file
from bestiary.hub.cli import _COMMANDS, _run


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    code = "from bestiary.hub.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("command", ["", *_COMMANDS])
def test_help_and_bad_arguments(command, capfd):
    arguments = [command] if command else []
    assert _run([*arguments, "--help"]) == 0
    assert "Usage:" in capfd.readouterr().out
    assert _run([*arguments, "--no-such-option"]) == 2
    assert "No such option" in capfd.readouterr().err


def test_help_answers_at_once():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        assert run("--help").returncode == 0
        times.append(time.perf_counter() - start)
    bare = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        bare.append(time.perf_counter() - start)
    # 0.3 s on a quiet machine; in terms of an empty interpreter, so that a busy one passes too.
    assert min(times) < max(0.3, 8 * min(bare))


def test_version(capfd):
    from bestiary import __version__

    assert _run(["--version"]) == 0
    assert capfd.readouterr().out.strip() == f"bestiary {__version__}"


def test_a_command_that_is_not_there_gets_the_nearest(capfd):
    assert _run(["predit"]) == 2
    assert "Did you mean 'predict'?" in capfd.readouterr().err


def test_list_and_info(capfd):
    assert _run(["list", "efficientnet-lite*"]) == 0
    out = capfd.readouterr().out
    assert "efficientnet-lite0" in out and "resnet" not in out
    assert _run(["list", "--json", "--task", "image-classification"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert {"name", "license", "sources"} <= set(rows[0])
    assert _run(["info", "efficientnet_lite0", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["name"] == "efficientnet-lite0"
    assert _run(["info", "resnet50"]) == 0
    assert "not pinned" in capfd.readouterr().out


def test_errors_have_no_traceback_unless_asked():
    quiet = run("info", "no-such-model")
    assert quiet.returncode == 1
    assert quiet.stderr.startswith("error: there is no model named")
    assert "Traceback" not in quiet.stderr
    loud = run("--debug", "info", "no-such-model")
    assert loud.returncode == 1 and "Traceback" in loud.stderr


def test_doctor(capfd):
    assert _run(["doctor", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["libraries"]["numpy"] == np.__version__
    assert {"kernels", "threads", "forced_by"} <= set(found["blas"])
    assert _run(["doctor"]) == 0
    assert "BLAS kernels" in capfd.readouterr().out


def test_doctor_warns_of_variables_that_force_slower_kernels(capfd, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    assert _run(["doctor"]) == 0
    assert "unset OPENBLAS_CORETYPE" in capfd.readouterr().out


def test_check_names_broken_values(tmp_path, capfd):
    good = tmp_path / "with space ü.safetensors"
    save_file({"a": np.ones((2, 3), np.float32), "n": np.array([1, 2])}, good)
    assert _run(["check", str(good)]) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[0] == f"sound: {good}"
    assert said[1] == "2 tensors (1 int64, 1 float32), 8 values, 40 B"
    assert said[2:] == ["largest: a 2x3, n 2", "every tensor: --all"]
    assert _run(["check", str(good), "--all"]) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[0].split() == ["tensor", "dtype", "shape", "values"]
    assert ["a", "float32", "2x3", "1", "..", "1"] in [line.split() for line in said[1:3]]
    assert said[4] == f"sound: {good}" and len(said) == 6
    bad = tmp_path / "bad.safetensors"
    save_file({"w": np.array([1.0, np.nan, np.inf], np.float32)}, bad)
    assert _run(["check", str(bad), "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert not found["sound"]
    assert (found["tensors"][0]["nan"], found["tensors"][0]["infinite"]) == (1, 1)
    assert _run(["check", str(bad)]) == 1
    said = capfd.readouterr()
    assert said.out.startswith(f"broken: {bad}\n1 tensor (1 float32), 3 values, 12 B\n")
    assert said.out.splitlines()[3].split() == ["w", "float32", "3", "1", "1", "1", "..", "1"]
    assert said.err == "1 of them hold NaN or infinite values\n"
    many = {f"w{i}": np.array([np.inf], np.float32) for i in range(23)}
    save_file(many, bad)
    assert _run(["check", str(bad)]) == 1
    assert "... and 3 more broken ones" in capfd.readouterr().out
    (tmp_path / "junk.safetensors").write_bytes(b"<html>")
    assert _run(["check", str(tmp_path / "junk.safetensors")]) == 1
    assert "HTML" in capfd.readouterr().err


def test_a_closed_pipe_ends_it_quietly():
    process = subprocess.Popen(
        [sys.executable, "-c", "from bestiary.hub.cli import main; main()", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert error == b""


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or os.name == "nt", reason="POSIX signals")
def test_ctrl_c_gives_130():
    code = (
        "import os, signal, threading\n"
        "from bestiary.hub import cli\n"
        "cli.cli.main = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT)\n"
        "cli.main(['list'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130 and "interrupted" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_of_ours_is_said_in_one_line(capfd, monkeypatch):
    from bestiary.hub.commands import catalog

    def faulty(name):
        raise AttributeError("no such thing")

    monkeypatch.setattr(catalog, "get", faulty)
    assert _run(["info", "resnet18"]) == 1
    said = capfd.readouterr().err
    assert said.startswith("error: AttributeError: no such thing\n")
    assert "fault of bestiary" in said and "Traceback" not in said
    with pytest.raises(AttributeError):
        _run(["--debug", "info", "resnet18"])


def test_info_of_a_folder(capfd, tmp_path):
    import bestiary as bt

    folder = bt.load("resnet-cifar10").save(tmp_path / "mine")
    assert _run(["info", str(folder)]) == 0
    said = capfd.readouterr().out
    assert "resnet-cifar10" in said and "833,824" in said and "92.58 %" in said
    assert _run(["info", str(folder), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["task"] == "image-classification"
    assert _run(["info", str(tmp_path)]) == 1
    assert "no config.json" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("before", "given", "wanted"),
    [("", None, "19"), ("", "7", "7"), ("import numpy", None, "None")],
)
def test_threads_of_blas_wait_shortly(before: str, given: str | None, wanted: str) -> None:
    name = "OPENBLAS_THREAD_TIMEOUT"
    code = f"""
{before}
import os
import bestiary.hub.cli as cli
cli._run = lambda arguments: print(os.environ.get("{name}"))
cli.main([])
"""
    here = {key: value for key, value in os.environ.items() if key != name}
    here |= {} if given is None else {name: given}
    run = subprocess.run([sys.executable, "-c", code], env=here, capture_output=True, text=True)
    assert run.stdout.strip() == wanted, run.stderr
