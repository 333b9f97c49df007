"""The board's server: what it answers, to whom, and what nobody gets (TESTPLAN G)."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestiary as bt
from bestiary.core.errors import ConfigError, DataError
from bestiary.core.insight.board import server as server_module
from bestiary.core.insight.board.content import Board, picture_kind
from bestiary.core.insight.board.export import export
from bestiary.core.insight.board.page import ASSETS, PAGE, POLICY, SCRIPTS, STYLE, asset
from bestiary.core.insight.board.sampling import rebinned, smoothed, thinned
from bestiary.core.insight.board.server import BoardServer
from bestiary.core.insight.runs.reader import Series, read_run

sys.path.insert(0, str(Path(__file__).parent))
try:
    from board_runs import EVIL, demo_run, hostile_run
finally:
    sys.path.pop(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("board") / "runs"
    demo_run(root / "a", seed=0)
    demo_run(root / "within" / "b", seed=1)
    hostile_run(root / "hostile")
    return root


@contextmanager
def serving(board: Board, **options: Any) -> Iterator[BoardServer]:
    with BoardServer(board, port=0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[BoardServer]:
    with serving(Board(folder)) as found:
        yield found


def get(
    server: BoardServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; the path is sent as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    given = {
        "Host": f"127.0.0.1:{server.port}",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def ask(server: BoardServer, path: str) -> Any:
    status, _, body = get(server, path)
    assert status == 200, body
    return json.loads(body)


# -- what is answered ---------------------------------------------------------------------------


def test_runs_are_told_and_then_only_what_changed(server: BoardServer) -> None:
    found = ask(server, "/api/runs")
    assert [row["name"] for row in found["runs"]] == ["a", "hostile", "within/b"]
    a = found["runs"][0]
    assert a["status"] == "finished" and a["step"] == 59 and a["hyperparameters"]["lr"] == 0.1
    loss = found["tags"]["scalars"].index("train/loss")
    figures = a["figures"][str(loss)]
    assert figures["best"] <= figures["last"] and loss in found["lower"] and loss in found["main"]
    assert a["structure"] and a["profile"] and not found["runs"][1]["profile"]
    assert ask(server, f"/api/runs?since={found['version']}")["runs"] == []


def test_numbers_are_told_by_tag(server: BoardServer, folder: Path) -> None:
    tags = ask(server, "/api/runs")["tags"]["scalars"]
    loss = tags.index("train/loss")
    found = ask(server, f"/api/scalars?tag={loss}")
    series = read_run(folder / "a").scalars["train/loss"]
    assert sorted(found["runs"]) == ["0", "2"]
    assert found["runs"]["0"]["x"] == series.steps.tolist()
    np.testing.assert_allclose(found["runs"]["0"]["y"], series.values, rtol=1e-6)
    assert ask(server, f"/api/scalars?tag={loss}&since={found['version']}")["runs"] == {}
    part = ask(server, f"/api/scalars?tag={loss}&runs=2&low=10&high=20&smooth=0.9")["runs"]
    assert list(part) == ["2"] and part["2"]["x"] == list(range(9, 22))
    wanted = read_run(folder / "within" / "b").scalars["train/loss"].smoothed(0.9)[9:22]
    np.testing.assert_allclose(part["2"]["sy"], wanted, rtol=1e-5)
    wall = ask(server, f"/api/scalars?tag={loss}&axis=wall&width=10")["runs"]["0"]
    assert wall["x"][-1] == pytest.approx(series.times[-1]) and len(wall["x"]) <= 22
    odd = ask(server, f"/api/scalars?tag={tags.index('broken')}")["runs"]["0"]
    assert (odd["odd"], odd["first_odd"], odd["y"]) == (1, 3, [1.0])


def test_other_kinds_are_told(server: BoardServer) -> None:
    tags = ask(server, "/api/runs")["tags"]
    tag = tags["histograms"].index("parameters/weight")
    spread = ask(server, f"/api/histograms?run=0&tag={tag}")
    assert spread["steps"] == [0, 10, 20, 30, 40] and len(spread["rows"][0]) == 64
    assert [sum(row) for row in spread["rows"]] == pytest.approx([500] * 5, rel=1e-4)
    tag = tags["images"].index("samples")
    assert ask(server, f"/api/images?run=2&tag={tag}")["steps"] == [0, 10, 20, 30, 40]
    status, headers, body = get(server, f"/api/image?run=2&tag={tag}&place=4")
    assert (status, headers["Content-Type"]) == (200, "image/png") and body[:4] == b"\x89PNG"
    tag = tags["texts"].index("notes")
    assert ask(server, f"/api/texts?run=0&tag={tag}")["texts"] == ["# A title\nwords"]
    tag = tags["confusions"].index("held-out")
    found = ask(server, f"/api/confusions?run=0&tag={tag}")
    assert found["steps"] == [10, 20]
    assert found["matrices"][1] == {
        "labels": ["cat", "dog", "bird"],
        "counts": [[28, 2, 0], [1, 29, 0], [3, 0, 27]],
        "classes": 3,
        "accuracy": pytest.approx(84 / 90),
    }
    details = ask(server, "/api/details?run=0")
    first = details["structure"]["children"]["0"]
    assert first["class"] == "Linear" and first["inputs"] == "(5, 4)"
    assert any(row[0] == "linear" for row in details["profile"]["ops"])
    assert {row[0] for row in details["profile"]["modules"]} >= {"Sequential", "Sequential/2/0"}
    assert details["versions"]["numpy"] == np.__version__


def test_of_many_classes_those_confused_most_are_told(tmp_path: Path) -> None:
    counts = np.diag(np.full(300, 10))
    counts[7, 250] = 5
    with bt.Run(tmp_path / "many") as run:
        run.confusion("test", counts, [f"c{i}" for i in range(300)], 1)
    board = Board(tmp_path)
    board.update(force=True)
    (matrix,) = board.confusions(0, 0)["matrices"]
    assert len(matrix["labels"]) == 100 and {"c7", "c250"} <= set(matrix["labels"])
    assert matrix["classes"] == 300 and matrix["accuracy"] == pytest.approx(3000 / 3005)


def test_the_page_and_its_files(server: BoardServer) -> None:
    status, headers, body = get(server, "/")
    assert status == 200 and headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY and b"onclick" not in body and b"style=" not in body
    for name in (*SCRIPTS, STYLE):
        assert f"assets/{name}".encode() in body
        status, headers, content = get(server, f"/assets/{name}")
        assert status == 200 and content.decode() == asset(name)
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert {path.name for path in ASSETS.iterdir()} == {*SCRIPTS, STYLE, PAGE}
    status, headers, packed = get(server, "/assets/main.js", Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed).decode() == asset("main.js")
    assert get(server, "/", "HEAD")[2] == b""
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert get(server, "/api/runs", method)[0] == 501


def test_nothing_of_the_page_is_from_elsewhere() -> None:
    for path in ASSETS.iterdir():
        text = path.read_text()
        assert not re.search(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text), path
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                     "new Function", "@import"):  # fmt: skip
            assert word not in text, f"{word} in {path}"


def test_a_run_that_goes_on_is_followed(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.overview()["count"] == 0
    with bt.Run(tmp_path / "a") as run:
        run.scalars({"loss": 1.0, "other": 2.0}, 0)
        run.flush()
        board.update(force=True)
        first = board.overview()
        assert first["runs"][0]["status"] == "running"
        seen = {tag: board.scalars(tag)["version"] for tag in (0, 1)}
        run.scalar("loss", 0.5, 1)
        run.scalar("new", 0.5, 1)
        run.flush()
        board.update(force=True)
        second = board.overview(first["version"])
        assert [row["run"] for row in second["runs"]] == [0]
        assert second["tags"]["scalars"] == ["loss", "other", "new"]  # numbers stay
        assert board.scalars(0, since=seen[0])["runs"][0]["y"] == [1.0, 0.5]
        assert board.scalars(1, since=seen[1])["runs"] == {}
    with bt.Run(tmp_path / "b") as run:
        run.scalar("loss", 1.0, 0)
    board.update(force=True)
    third = board.overview(second["version"])
    assert {row["run"]: row["status"] for row in third["runs"]} == {0: "finished", 1: "finished"}


# -- who may ask (51) ---------------------------------------------------------------------------


def test_it_listens_on_loopback(server: BoardServer) -> None:
    assert server.server_address[0] == "127.0.0.1" and server.token is None
    assert server.url == f"http://127.0.0.1:{server.port}/"


@pytest.mark.parametrize(
    "host, status",
    [
        ("127.0.0.1:{}", 200),
        ("localhost:{}", 200),
        ("LocalHost:{}", 200),
        ("[::1]:{}", 200),
        ("evil.example:{}", 403),
        ("localhost.evil.example:{}", 403),
        ("127.0.0.1", 403),
        ("127.0.0.1:1", 403),
        ("user@127.0.0.1:{}", 403),
        ("127.0.0.1:{}/x", 403),
        ("127.0.0.1:99999999", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_other_names_are_refused(server: BoardServer, host: str, status: int) -> None:
    for path in ("/", "/api/runs", "/assets/main.js"):
        assert get(server, path, Host=host.format(server.port))[0] == status


def test_other_origins_are_refused(server: BoardServer) -> None:
    own = f"http://127.0.0.1:{server.port}"
    assert get(server, "/api/runs", Origin=own)[0] == 200
    for origin in ("null", "http://evil.example", own.replace("http", "https"), own + "0", ""):
        status, _, body = get(server, "/api/runs", Origin=origin)
        assert status == 403 and b"runs" not in body.replace(b"other sites", b"")
    assert get(server, "/api/runs", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert get(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    assert get(server, "/api/runs")[1]["Cross-Origin-Resource-Policy"] == "same-origin"


def test_beyond_loopback_a_token_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = server_module.hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(server_module.hmac, "compare_digest", compare)
    with serving(Board(folder), host="0.0.0.0", names=["box.example"]) as server:
        assert server.token is not None and len(server.token) >= 40
        token = server.token
        for path in ("/", "/api/runs", "/?token=wrong", "/api/runs?token=", "/assets/main.js"):
            status, _, body = get(server, path)
            assert status == 401 and token.encode() not in body
        assert compared  # in constant time
        assert get(server, "/api/runs", Cookie=f"bestiary_board_{server.port}=é")[0] == 401
        assert get(server, "/api/runs", Authorization=f"Bearer {token}")[0] == 200
        status, headers, _ = get(server, f"/?token={token}")
        assert status == 303 and headers["Location"] == "/"
        assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Strict" in headers["Set-Cookie"]
        cookie = headers["Set-Cookie"].split(";")[0]
        assert get(server, "/api/runs", Cookie=cookie)[0] == 200
        named = f"box.example:{server.port}"
        assert get(server, "/", Cookie=cookie, Host=named)[0] == 200
        assert get(server, "/", Cookie=cookie, Host=f"evil.example:{server.port}")[0] == 403


def test_a_port_in_use_is_named(server: BoardServer, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"--port 0"):
        BoardServer(Board(folder), port=server.port)
    with pytest.raises(ConfigError, match="cannot listen on 203"):
        BoardServer(Board(folder), "203.0.113.9")
    with pytest.raises(DataError, match="no folder"):
        Board(folder / "nothing")


# -- what nobody gets (52) ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/assets/../server.py",
        "/assets/%2e%2e/server.py",
        "/assets/%252e%252e/server.py",
        "/assets/..;/server.py",
        "/assets/main.js%00.png",
        "/assets//etc/passwd",
        "//etc/passwd",
        "/etc/passwd",
        "/assets/",
        "/api/",
        "/api/runs/",
        "/api/image?run=../../&tag=0&place=0",
        "/api/image?run=%2e%2e&tag=0&place=0",
        "/api/image?run=0&tag=0&place=-1",
        "/api/image?run=-1&tag=0&place=0",
        "/api/image?run=0;tag=0;place=0",
        "/api/image?run=0&tag=99999999999999999999&place=0",
        "/api/image?run=0&tag=%00&place=0",
        "/api/image?run=0",
        "/api/details?run=99",
        "/api/details?run=¹",
        "/api/texts?run=0&tag=77",
        "/api/histograms?run=0&tag=-1",
        "/api/scalars?tag=0&axis=__class__",
        "/api/scalars?tag=0&low=nan",
        "/api/scalars?tag=0&smooth=1",
        "/api/scalars?tag=0&width=1e9",
        "/api/scalars?tag=0&runs=0,,x",
        "/api/scalars?" + "a=1&" * 60,
        "/api/scalars?tag=" + "1" * 5000,
    ],
)  # fmt: skip
def test_names_lead_nowhere(server: BoardServer, folder: Path, path: str) -> None:
    (folder.parent / "secret.txt").write_text("swordfish")
    raw = path.encode("utf-8").decode("latin-1")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        request = (
            f"GET {raw} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(request.encode("latin-1"))
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.split()[1] in (b"400", b"404", b"414"), answer[:200]
    assert b"swordfish" not in answer and b"root:" not in answer and b"Traceback" not in answer


def test_logged_names_and_pages_are_inert(server: BoardServer) -> None:
    """What is answered is JSON that no browser takes for a page; pictures are pictures only."""
    found = ask(server, "/api/runs")
    run = next(row["run"] for row in found["runs"] if row["name"] == "hostile")
    assert found["runs"][run]["hyperparameters"][EVIL] == EVIL
    tag = found["tags"]["images"].index(EVIL)
    assert ask(server, f"/api/images?run={run}&tag={tag}")["shown"] == [False]
    status, headers, body = get(server, f"/api/image?run={run}&tag={tag}&place=0")
    assert status == 404 and headers["Content-Type"] == "application/json" and b"svg" not in body
    for path in ("/api/runs", f"/api/texts?run={run}&tag=0"):
        headers = get(server, path)[1]
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == POLICY
    assert picture_kind(b"<svg") is None and picture_kind(b"RIFF____WEBP") == "image/webp"


def test_links_that_lead_out_are_not_read(tmp_path: Path) -> None:
    demo_run(tmp_path / "secret")
    root = tmp_path / "runs"
    demo_run(root / "good")
    (root / "linked").symlink_to(tmp_path / "secret", target_is_directory=True)
    for name, pattern in (("events", "events*"), ("about", "run.json"), ("measured", "pro*.json")):
        path = next(demo_run(root / name).glob(pattern))
        path.unlink()
        path.symlink_to(next((tmp_path / "secret").glob(pattern)))
    board = Board(root)
    found = board.overview()
    assert [row["name"] for row in found["runs"]] == ["good", "measured"]
    assert {text.split(":")[0] for text in found["refused"]} == {"events", "about"}
    assert board.details(1)["profile"] is None and board.details(0)["profile"] is not None
    os.mkfifo(root / "good" / "pipe.tfevents.1")
    (root / "about" / "run.json").unlink()
    os.mkfifo(root / "about" / "run.json")
    board.update(force=True)  # waits for nobody


# -- damage (53) --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_damaged_runs_are_shown_as_far_as_they_can_be_read(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    folder = demo_run(tmp_path / "run")
    for path in folder.iterdir():
        data = bytearray(path.read_bytes())
        for _ in range(generator.randint(1, 5)):
            place = generator.randrange(len(data))
            if generator.random() < 0.5:
                data[place] ^= 1 << generator.randrange(8)
            else:
                data[place : place + 8] = generator.randbytes(8)
        path.write_bytes(data[: generator.randrange(len(data))] if seed % 3 == 0 else data)
    board = Board(tmp_path)
    found = board.overview()
    json.dumps(found, allow_nan=False)
    for row in found["runs"]:
        board.details(row["run"])
        for tag in row["has"]["histograms"]:
            json.dumps(board.histograms(row["run"], tag), allow_nan=False)
        for tag in row["has"]["scalars"]:
            json.dumps(board.scalars(tag), allow_nan=False)
    export(board, tmp_path / "report.html")


@pytest.mark.parametrize(
    "about",
    [
        {"hyperparameters": [1], "structure": {"children": {"a": 3}}, "command": 3, "versions": 1},
        {"hyperparameters": {"a": {"b": 1}, "c": [1]}, "started": "now", "ended": True},
        {"started": float("nan"), "status": {"x": 1}, "structure": {"class": None}},
        {"hyperparameters": {"x": float("inf")}, "started": 1e300, "process": -1},
    ],
)
def test_foreign_descriptions_do_no_harm(tmp_path: Path, about: dict[str, Any]) -> None:
    folder = demo_run(tmp_path / "run")
    (folder / "run.json").write_text(json.dumps(about))
    for profile in (
        "[1]",
        '{"ops": [[1]]}',
        '{"ops": [], "modules": [], "seconds": "x"}',
        "[" * 9999,
    ):
        (folder / "profile.json").write_text(profile)
        board = Board(tmp_path)
        json.dumps([board.overview(), board.details(0)], allow_nan=False)
        assert board.details(0)["profile"] is None


# -- series, and one file -----------------------------------------------------------------------


def test_extremes_are_kept_when_a_series_is_thinned() -> None:
    rng = np.random.default_rng(0)
    x, y = np.arange(10_000.0), rng.normal(size=10_000)
    y[[17, 7003]] = 99, -99
    kept = thinned(x, y, 100)
    assert {0, 17, 7003, 9999} <= set(kept.tolist()) and len(kept) <= 202
    assert (np.diff(kept) > 0).all()
    for pixel in range(100):  # every pixel has its own least and greatest
        inside = y[pixel * 100 : (pixel + 1) * 100 - 1]
        drawn = y[kept[(kept >= pixel * 100) & (kept < (pixel + 1) * 100)]]
        assert drawn.max() >= inside.max() and drawn.min() <= inside.min()
    early = thinned(x, y, 100, log=True)
    assert (early < 100).sum() > (kept < 100).sum()
    assert len(thinned(np.zeros(1000), y[:1000], 10)) <= 4
    assert thinned(np.zeros(0), np.zeros(0), 10).tolist() == []


@pytest.mark.parametrize("weight", [0.0, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("spike", [0.0, 1e9])
def test_smoothing_is_that_of_series(weight: float, spike: float) -> None:
    values = np.random.default_rng(1).normal(size=3000)
    values[100] += spike
    series = Series(np.arange(3000), np.arange(3000), values)
    found = smoothed(values, weight)
    np.testing.assert_allclose(found, series.smoothed(weight), atol=1e-5 * max(spike * 1e-3, 1))
    assert smoothed(np.array([2.0]), 0.9).tolist() == [2.0]


def test_histograms_keep_their_counts_on_other_edges() -> None:
    found = rebinned(np.array([0.0, 1.0, 3.0]), np.array([4.0, 2.0]), np.array([0, 0.5, 2, 3.0]))
    np.testing.assert_allclose(found, [2, 3, 1])


def test_a_report_is_one_file_that_asks_for_nothing(folder: Path, tmp_path: Path) -> None:
    path = export(Board(folder), tmp_path / "report.html")
    text = path.read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)(?!#panel)[^"']*["']""", text.split(
        '<script type="application/json"')[0])  # fmt: skip
    assert "default-src 'none'" in text and "unsafe" not in text.split("</head>")[0]
    block = re.search(r'<script type="application/json" id="content">(.*?)</script>', text, re.S)
    assert block is not None
    assert "<" not in block[1]  # no text of a log can end the block
    content = json.loads(block[1])
    assert len(content["runs"]["runs"]) == 3
    assert content["runs"]["runs"][1]["hyperparameters"][EVIL] == EVIL
    pictures = [value for key, value in content.items() if key.startswith("image?")]
    assert len(pictures) == 10 and all(p.startswith("data:image/png;base64,") for p in pictures)


NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="no Node.js")
def test_the_pages_plain_functions() -> None:
    script = (
        asset("values.js")
        + """
    const check = (a, b) => { if (JSON.stringify(a) !== JSON.stringify(b))
      throw new Error(`${JSON.stringify(a)} is not ${JSON.stringify(b)}`); };
    const row = { name: "Big-net", status: "finished", step: 10, seconds: 3,
      hyperparameters: { lr: 0.01, opt: "Adam", "__proto__x": 1 } };
    for (const [text, is] of [["", true], ["big", true], ["small", false], ["lr<0.1", true],
      ["lr>=0.01 big", true], ["lr=0.01", true], ["lr!=0.01", false], ["opt=adam", true],
      ["opt!=sgd", true], ["status=failed", false], ["step>5", true], ["none=3", false],
      ["constructor=3", false], ["lr<", false]])
      check([text, board.matches(board.parseFilter(text), row)], [text, is]);
    check(board.ticks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
    check(board.ticks(3, 3, 5), [3]);
    check(board.logTicks(0.01, 1000), [0.01, 0.1, 1, 10, 100, 1000]);
    check(board.logTicks(12, 38), [20, 30]);
    check(board.smoothed([1, null, 3], 0.5).map((v) => +v.toFixed(4)), [1, 1, 2.3333]);
    const mixed = [3, null, "b", 1, "a"];
    const sorted = (down) => [...mixed].sort((a, b) => board.compare(a, b, down));
    check(sorted(false), [1, 3, "a", "b", null]);
    check(sorted(true), [3, 1, "b", "a", null]);
    check([0, 1, 2.5, 9].map((x) => board.before([1, 2, 3], x)), [-1, 0, 1, 2]);
    check([0, 1234567, 1e-7, 0.25, null].map(board.short), ["0", "1,234,567", "1e-7", "0.25", "–"]);
    check([2e-6, 0.5, 90, 3600 * 3].map(board.seconds), ["2.00 µs", "500 ms", "90 s", "3 h 0 min"]);
    const styles = new Set();
    for (let i = 0; i < 35; i++) styles.add(JSON.stringify(board.style(i, false)));
    check(styles.size, 35);
    """
    )
    assert NODE is not None
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
