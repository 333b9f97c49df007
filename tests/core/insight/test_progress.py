"""Progress: silent when short, a bar in a terminal, lines in a pipe."""

import io

import pytest

from bestiary.core.insight import progress as module
from bestiary.core.insight.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_short_work_prints_nothing(clock):
    for file in (io.StringIO(), Terminal()):
        for _ in progress(range(1000), file=file):
            clock.now += 0.001
        assert file.getvalue() == ""


def test_lines_in_a_pipe(clock):
    file = io.StringIO()
    for _ in progress(range(100), what="reading", unit="images", file=file):
        clock.now += 0.5
    lines = file.getvalue().splitlines()
    # At 2 s, then every 10 s, and a last one.
    assert len(lines) == 6
    assert lines[0] == "reading: 4 of 100 images (4%), 2 images/s, 48 s left"
    assert lines[-1] == "reading: 100 of 100 images (100%), 2 images/s, 50 s"
    assert "\r" not in file.getvalue()


def test_a_last_line_that_would_repeat_the_one_before_is_not_printed(clock):
    file = io.StringIO()
    with progress(total=3, unit="images", file=file) as bar:
        clock.now += 15
        bar.update(3)
    assert len(file.getvalue().splitlines()) == 1


def test_bytes_and_unknown_total(clock):
    file = io.StringIO()
    with progress(what="fetching", unit="B", file=file) as bar:
        clock.now += 4
        bar.update(6_000_000, note="from the cache")
    assert file.getvalue().splitlines()[0] == "fetching: 6 MB, 1.5 MB/s, 4 s, from the cache"
    file = io.StringIO()
    with progress(total=2_000_000, what="fetching", unit="B", file=file) as bar:
        clock.now += 4
        bar.update(500_000)
    first = file.getvalue().splitlines()[0]
    assert first == "fetching: 500 kB of 2 MB (25%), 125 kB/s, 12 s left"


def test_work_that_counts_nothing_shows_the_time(clock):
    file = io.StringIO()
    with progress(what="fetching", file=file) as bar:
        clock.now += 3
        bar.update(0)
    assert file.getvalue().splitlines()[0] == "fetching: 3 s"


def test_long_durations(clock):
    file = io.StringIO()
    with progress(total=1000, file=file) as bar:
        clock.now += 100
        bar.update(10)
        clock.now += 20
        bar.update(90)
    first, second = file.getvalue().splitlines()[:2]
    assert first.endswith("2 h 45 min left")
    assert second.endswith("18 min 00 s left")


def test_bar_in_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    file = Terminal()
    with progress(total=50, what="reading", unit="files", file=file, delay=0) as bar:
        for _ in range(50):
            bar.update(1, note="loss 0.5")
    assert "\r" in file.getvalue()
    assert "reading" in file.getvalue()
    assert "loss 0.5" in file.getvalue()
    assert "50/50" in file.getvalue()
    assert " files/s" in file.getvalue()


def test_an_exception_passes_and_prints_no_last_line(clock):
    file = io.StringIO()
    bar = progress(total=10, file=file, delay=0)

    def work():
        with bar:
            bar.update(1)
            raise KeyError("x")

    with pytest.raises(KeyError):
        work()
    assert len(file.getvalue().splitlines()) == 1
    bar.close()
    bar.update(1)
    assert len(file.getvalue().splitlines()) == 1


def test_can_be_turned_off(monkeypatch):
    file = io.StringIO()
    monkeypatch.setenv("BESTIARY_PROGRESS", "0")
    assert list(progress([1, 2], file=file, delay=0)) == [1, 2]
    assert file.getvalue() == ""
    assert list(progress([1, 2], file=file, delay=0, enabled=True)) == [1, 2]
    assert file.getvalue() != ""


def test_a_closed_file_does_not_stop_the_work():
    file = io.StringIO()
    file.close()
    assert list(progress([1, 2, 3], file=file, delay=0)) == [1, 2, 3]


def test_no_console(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    assert list(progress([1, 2, 3], delay=0)) == [1, 2, 3]


def test_total_from_len_and_generators(clock):
    assert progress([1, 2, 3]).total == 3
    assert progress(x for x in [1]).total is None
    with pytest.raises(TypeError, match="update"):
        list(progress(total=3))
