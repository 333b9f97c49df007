"""Run logs: what is written is read back, by TensorBoard too, whatever happens to the file."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bestiary as bt
from bestiary.core import wire
from bestiary.core.errors import ConfigError, DataError
from bestiary.core.insight.runs import events
from bestiary.core.insight.runs.crc32c import crc32c, rows
from bestiary.core.insight.runs.frames import find_records, frame
from bestiary.core.insight.runs.reader import event_files, read_run, runs_in
from bestiary.core.insight.runs.structure import structure
from bestiary.core.insight.runs.writer import Run

DATA = Path(__file__).parent.parent.parent / "references" / "data" / "tensorboard"


def only_file(folder: Path) -> Path:
    (path,) = event_files(folder)
    return path


def small_run(folder: Path, count: int = 20) -> Path:
    with Run(folder, {"lr": 1e-3}) as run:
        for step in range(count):
            run.scalars({"loss": 1 / (step + 1), "long/name/of/a/number": step}, step)
        run.histogram("weights", np.arange(100.0), 3)
        run.text("note", "with **words**", 2)
        run.image("picture", np.zeros((4, 6, 3), np.uint8), 1)
    return only_file(folder)


# -- checksums and frames ----------------------------------------------------------------------


def plain(data: bytes) -> int:
    """Bit by bit, from the definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_checksums_are_right_at_every_length() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720's check value
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43
    generator = random.Random(3)
    for length in (0, 1, 2, 3, 4, 5, 255, 256, 257, 258, 511, 512, 513, 1000, 2049):
        data = generator.randbytes(length)
        assert crc32c(data) == plain(data), length
    table = np.frombuffer(generator.randbytes(7 * 33), np.uint8).reshape(7, 33)
    assert rows(table).tolist() == [plain(row.tobytes()) for row in table]


def test_frames_are_found_and_damage_is_named() -> None:
    records = [b"", b"a", b"some more", b"x" * 5000, *[b"equal %d" % i for i in range(9)]]
    data = b"".join(map(frame, records))

    def kept(changed: bytes) -> tuple[list[bytes], list[str], int]:
        found = find_records(changed)
        pairs = zip(found.firsts.tolist(), found.lengths.tolist(), strict=True)
        return [changed[a : a + n] for a, n in pairs], found.problems, found.end

    assert kept(data) == (records, [], len(data))
    for cut in range(len(data) - 1, len(data) - 40, -1):  # a record that is being written
        read, problems, end = kept(data[:cut])
        assert read == records[: len(read)] and problems == [] and end <= cut
    start = len(frame(b"")) + len(frame(b"a"))
    broken = bytearray(data)
    broken[start + 14] ^= 1  # within the data of the third
    read, problems, _ = kept(bytes(broken))
    assert read == [*records[:2], *records[3:]] and len(problems) == 1 and "damaged" in problems[0]
    broken = bytearray(data)
    broken[start + 3] = 0x7F  # a length of gigabytes
    read, problems, _ = kept(bytes(broken))
    assert read == [*records[:2], *records[3:]] and "no records" in problems[0]
    read, problems, end = kept(data + bytes(range(1, 60)))
    assert read == records and "no record begins" in problems[0] and end == len(data) + 59


def test_numbers_of_any_size_are_coded() -> None:
    for value in (0, 1, 127, 128, 300, 2**31, 2**62, -1, -(2**40)):
        data = wire.varint(value)
        read, end = wire.read_varint(data, 0)
        assert wire.signed(read) == value and end == len(data)
    for broken in (b"\x80", b"\xff" * 12, b"\x0a\x05ab", b"\x0f", b"\x09\x00"):
        with pytest.raises(DataError):
            list(wire.fields(broken))


# -- a run --------------------------------------------------------------------------------------


def test_what_is_logged_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    module = bt.nn.Sequential(bt.nn.Linear(3, 4), bt.nn.ReLU())
    settings = {"lr": 1e-3, "name": "first", "deep": True, "sizes": [3, 4], "nothing": None}
    with Run(tmp_path / "run", settings, module=module) as run:
        for step in range(50):
            run.scalars({"loss": 1 / (step + 1), "lr": 0.1}, step * 1000)
        run.scalar("odd", float("nan"), 1)
        run.scalar("odd", float("inf"), 2)
        run.scalar("odd", bt.tensor(2.5), 3)
        run.scalar("odd", np.float32(3), 2**40)
        run.scalar("größe/✓", 1e300, 5)
        run.histogram("weights", rng.normal(size=(20, 30)), 7)
        run.histogram("one value", bt.full((5,), 2.0), 7)
        run.histogram("not finite", np.array([np.nan, 1.0, np.inf, 3.0]), 7)
        run.image("picture", picture, 7)
        run.image("picture", Image.fromarray(picture[..., 0]), 8)
        run.image("picture", picture / 255, 9)
        run.text("note", "# Title\nwith <b>text</b>")
    log = read_run(tmp_path / "run")
    assert log.problems == [] and log.status == "finished"
    np.testing.assert_allclose(log.scalars["loss"].values, 1 / np.arange(1, 51), rtol=1e-6)
    np.testing.assert_array_equal(log.scalars["loss"].steps, np.arange(50) * 1000)
    assert (np.diff(log.scalars["loss"].times) >= 0).all()
    odd = log.scalars["odd"]
    assert odd.steps.tolist() == [1, 2, 3, 2**40]
    np.testing.assert_array_equal(odd.values, [np.nan, np.inf, 2.5, 3])
    assert log.scalars["größe/✓"].last == math.inf  # 32 bits have no 1e300
    spread = log.histograms["weights"][0]
    assert spread.step == 7 and spread.content.counts.sum() == 600
    assert (np.diff(spread.content.edges) > 0).all()
    assert log.histograms["one value"][0].content.counts.sum() == 5
    assert log.histograms["not finite"][0].content.counts.sum() == 2
    pictures = log.images["picture"]
    np.testing.assert_array_equal(np.asarray(pictures[0].image()), picture)
    assert pictures[1].image().mode == "L" and [p.step for p in pictures] == [7, 8, 9]
    np.testing.assert_array_equal(np.asarray(pictures[2].image()), picture)
    assert log.texts["note"][0].content == "# Title\nwith <b>text</b>"
    about = log.about
    assert about["hyperparameters"] == {
        "lr": 1e-3, "name": "first", "deep": True, "sizes": "3, 4", "nothing": "None",
    }  # fmt: skip
    assert about["structure"]["children"]["0"]["class"] == "Linear"
    assert about["structure"]["parameters"] == 16 and about["versions"]["numpy"] == np.__version__
    assert about["device"] == "cpu" and about["ended"] >= about["started"]


def test_no_environment_variable_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mine")
    monkeypatch.setenv("SOME_PASSWORD", "swordfish")
    small_run(tmp_path / "run")
    for path in (tmp_path / "run").iterdir():
        content = path.read_bytes()
        assert b"hf_secret_of_mine" not in content and b"swordfish" not in content
        assert b"SOME_PASSWORD" not in content


def test_a_log_is_read_while_it_is_written(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.scalar("loss", 1.0, 0)
    run.flush()
    log = read_run(tmp_path / "run")
    assert log.status == "running" and len(log.scalars["loss"]) == 1
    assert not log.update()
    for step in range(1, 30):
        run.scalar("loss", 1.0, step)
    run.flush()
    path = only_file(tmp_path / "run")
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])  # as if the last record were half there
    assert log.update() and len(log.scalars["loss"]) == 29
    path.write_bytes(whole)
    assert log.update() and log.scalars["loss"].steps.tolist() == list(range(30))
    run.close()
    log.update()
    assert log.status == "finished" and log.problems == []
    with pytest.raises(ConfigError, match="closed"):
        run.scalar("loss", 1.0, 31)


def test_a_resumed_run_counts_its_newest_values(tmp_path: Path) -> None:
    for start, value in ((0, 1.0), (5, 2.0)):
        with Run(tmp_path / "run") as run:
            for step in range(start, start + 10):
                run.scalar("loss", value, step)
    series = read_run(tmp_path / "run").scalars["loss"]
    assert series.steps.tolist() == list(range(15))
    assert series.values.tolist() == [1.0] * 5 + [2.0] * 10


KILLED = """
import sys, time
from bestiary.core.insight.runs.writer import Run
run = Run(sys.argv[1])
step = 0
while True:
    run.scalar("time", time.time(), step)
    run.scalar("step", step, step)
    step += 1
    time.sleep(0.002)
"""


def test_a_killed_run_loses_a_second_at_most(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "run")])
    deadline = time.time() + 60
    while time.time() < deadline:
        if runs_in(tmp_path) and read_run(tmp_path / "run").scalars.get("step") is not None:
            break
        time.sleep(0.05)
    time.sleep(1.2)
    killed = time.time()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    log = read_run(tmp_path / "run")
    assert log.problems == [] and log.status == "lost"
    assert killed - log.scalars["step"].times[-1] < 1.0
    assert len(log.scalars["step"]) == log.scalars["step"].last + 1


def test_the_status_tells_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Run(tmp_path / "a"):
        1 / 0  # noqa: B018
    with pytest.raises(KeyboardInterrupt), Run(tmp_path / "b"):
        raise KeyboardInterrupt
    assert [read_run(tmp_path / n).status for n in "ab"] == ["failed", "stopped"]
    assert [p.name for p in runs_in(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files_show_what_can_be_read(tmp_path: Path, seed: int) -> None:
    path = small_run(tmp_path / "run")
    generator = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 6)):
        place = generator.randrange(len(data))
        match generator.randrange(4):
            case 0:
                data[place] ^= 1 << generator.randrange(8)
            case 1:
                del data[place : place + generator.randint(1, 30)]
            case 2:
                data[place:place] = generator.randbytes(generator.randint(1, 30))
            case _:
                data[place : place + 8] = struct.pack("<Q", generator.randrange(1 << 33))
    path.write_bytes(data)
    log = read_run(tmp_path / "run")
    for tag, series in log.scalars.items():
        for step, value in zip(series.steps.tolist(), series.values.tolist(), strict=True):
            true = 1 / (step + 1) if tag == "loss" else step
            assert value == pytest.approx(true, rel=1e-6)
    assert sum(len(s) for s in log.scalars.values()) >= 10 or log.problems


@pytest.mark.parametrize("seed", range(20))
def test_events_of_random_bytes_do_no_harm(tmp_path: Path, seed: int) -> None:
    """Sound frames around nonsense: the readable part is shown, the rest named."""
    generator = random.Random(seed)
    sound = events.scalar(1.0, 3, "loss", 0.5)
    records = [sound]
    for _ in range(40):
        nonsense = bytearray(generator.choice((sound, events.text(1.0, 2, "t", "words" * 9))))
        for _ in range(generator.randint(1, 5)):
            nonsense[generator.randrange(len(nonsense))] = generator.randrange(256)
        records.append(bytes(nonsense) if generator.random() < 0.7 else generator.randbytes(30))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "events.out.tfevents.1").write_bytes(b"".join(map(frame, records)))
    log = read_run(folder)
    assert "loss" in log.scalars
    repr(log)


def test_nothing_is_read_of_a_file_of_nonsense(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(os.urandom(100_000))
    (tmp_path / "run.json").write_text("[[[")
    log = read_run(tmp_path)
    assert log.scalars == {} and len(log.problems) >= 2 and log.status == "unknown"


def test_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="no run can be written"):
        Run(tmp_path / "file" / "run")
    with pytest.raises(ConfigError, match="'net' is Linear"):
        Run(tmp_path / "run", {"net": bt.nn.Linear(2, 2)})
    with Run(tmp_path / "run") as run:
        for step in (-1, 1.5, True, 2**63):
            with pytest.raises(DataError, match="step"):
                run.scalar("loss", 1.0, step)  # type: ignore[arg-type]
        with pytest.raises(DataError, match="loss: a number"):
            run.scalar("loss", "many", 1)
        with pytest.raises(DataError, match="a tag is text"):
            run.scalar("", 1.0, 1)
        for picture in (np.zeros((3, 4, 5)), np.zeros((2, 2), np.int32), np.zeros((0, 4))):
            with pytest.raises(DataError, match="a picture is"):
                run.image("p", picture, 1)
    (tmp_path / "within" / "a").mkdir(parents=True)
    small_run(tmp_path / "within" / "a")
    with pytest.raises(DataError, match="Runs within it: a"):
        read_run(tmp_path / "within")
    log = read_run(tmp_path / "within" / "a")
    with pytest.raises(DataError, match="it has: long/name/of/a/number, loss"):
        log.plot("accuracy")
    with pytest.raises(DataError, match="weight"):
        log.scalars["loss"].smoothed(1.0)


def test_a_chart_and_an_average(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    log = read_run(tmp_path / "run")
    drawn = np.asarray(log.plot("loss", "long/name/of/a/number"))
    assert drawn.shape == (420, 720, 3) and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 5
    assert log._repr_png_().startswith(b"\x89PNG")
    smooth = log.scalars["loss"].smoothed(0.5)
    assert smooth[0] == 1 and (np.diff(smooth) < 0).all()
    assert (smooth[1:] > log.scalars["loss"].values[1:]).all()


def test_a_structure_has_every_module() -> None:
    found = structure(bt.nn.Sequential(bt.nn.Linear(3, 4), bt.nn.Sequential(bt.nn.Linear(4, 5))))
    assert found["class"] == "Sequential" and found["parameters"] == 16 + 25
    inner = found["children"]["1"]["children"]["0"]
    assert inner["class"] == "Linear" and inner["parameters"] == 25 and inner["children"] == {}


# -- TensorBoard ---------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["torch", "tensorboard"])
def test_logs_of_tensorboards_writers_are_read(writer: str) -> None:
    expected = json.loads((DATA / "expected.json").read_text())
    log = read_run(DATA / writer)
    assert log.problems == []
    series = log.scalars["loss"]
    np.testing.assert_array_equal(series.steps, expected["steps"])
    np.testing.assert_allclose(series.values, expected["loss"], rtol=1e-6)
    spread = log.histograms["weights"][0]
    assert spread.content.counts.sum() == 1000 and spread.step == 4
    low, high = expected["range"]
    assert spread.content.edges[0] == pytest.approx(low, abs=0.1)
    assert spread.content.edges[-1] == pytest.approx(high, abs=0.1)
    picture = next(iter(log.images.values()))[0]
    assert picture.image().size == (6, 5) and picture.step == 4
    assert next(iter(log.texts.values()))[0].content == "some **text**"


@pytest.mark.reference
def test_tensorboard_reads_our_logs(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError
    )
    small_run(tmp_path / "run")
    found = accumulator.EventAccumulator(str(tmp_path / "run")).Reload()
    tags = found.Tags()
    assert set(tags["scalars"]) == {"loss", "long/name/of/a/number"}
    assert [e.step for e in found.Scalars("loss")] == list(range(20))
    assert found.Scalars("loss")[4].value == pytest.approx(0.2)
    spread = found.Histograms("weights")[0].histogram_value
    assert spread.num == 100 and sum(spread.bucket) == 100 and spread.max == 99
    assert found.Images("picture")[0].width == 6
    assert found.Tensors("note")[0].tensor_proto.string_val == [b"with **words**"]
    assert "_hparams_/session_start_info" in found.summary_metadata


# -- use of the machine, profiles ----------------------------------------------------------------


def test_use_of_the_machine_is_logged(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run, Run(tmp_path / "without", system=False):
        deadline = time.time() + 30
        while time.time() < deadline and "system/cpu" not in read_run(tmp_path / "run").scalars:
            time.sleep(0.1)
        begun = run.about["begun"]
    log = read_run(tmp_path / "run")
    assert log.scalars["system/cpu"].values[0] >= 0 and log.scalars["system/cpu"].steps[0] >= 1
    if sys.platform == "linux":
        assert 5 < log.scalars["system/memory"].last < 1e6
    assert read_run(tmp_path / "without").scalars == {}
    with Run(tmp_path / "run") as again:  # its seconds go on from the first beginning
        assert again.about["begun"] == begun
    (tmp_path / "run" / "run.json").write_text('{"begun": NaN}')
    with Run(tmp_path / "run") as again:
        assert again.about["begun"] == again.about["started"]


def test_a_profile_is_kept(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for size in (2, 3):
            with bt.profile() as found:
                bt.nn.Linear(size, 4)(bt.zeros((1, size)))
            run.profile(found)
        with pytest.raises(DataError, match="got dict"):
            run.profile({})  # type: ignore[arg-type]
    kept = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert kept == json.loads(json.dumps(found.to_dict()))
