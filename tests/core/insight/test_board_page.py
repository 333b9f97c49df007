"""The page in a real browser: every view drawn from real runs, script in logs inert.

Needs playwright and a Chromium on the path; neither is a dependency, so that this is skipped where
one is missing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bestiary.core.insight.board.content import Board
from bestiary.core.insight.board.export import export
from bestiary.core.insight.board.server import BoardServer

sys.path.insert(0, str(Path(__file__).parent))
try:
    from board_runs import demo_run, hostile_run
finally:
    sys.path.pop(0)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="no Chromium or no playwright",
)
VIEWS = (
    *("scalars", "runs", "histograms", "images", "confusions", "texts", "model", "profile"),
    "system",
)
SHOTS = os.environ.get("BOARD_SHOTS")  # a folder to keep screenshots in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page") / "runs"
    for seed in range(3):
        demo_run(root / f"run{seed}", seed=seed)
    hostile_run(root / "hostile")
    return root


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with BoardServer(Board(folder), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def page_at(browser: Any, address: str, **options: Any) -> Iterator[Any]:
    """A page whose errors, and whose requests to anywhere else, fail the test."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 2200}, **options})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    base = address.split("?")[0]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    assert problems == []
    assert [url for url in asked if not url.startswith((base, "data:"))] == []
    assert page.evaluate("window.hacked") is None
    context.close()


def shot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def inked(page: Any) -> list[int]:
    """How many pixels of each canvas in the panel are drawn."""
    found = page.evaluate("""[...document.querySelectorAll('#panel canvas.whole')].map(c => {
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n; })""")
    assert isinstance(found, list)
    return found


def open_view(page: Any, view: str) -> None:
    page.click(f"#tab-{view}")
    page.wait_for_timeout(400)


@pytest.mark.parametrize("how", ["served", "exported"])
def test_every_view_is_drawn(
    browser: Any, address: str, folder: Path, tmp_path: Path, how: str
) -> None:
    if how == "exported":
        address = export(Board(folder), tmp_path / "report.html").as_uri()
    with page_at(browser, address, offline=how == "exported") as page:
        page.wait_for_selector("#runs li:nth-child(4)")
        for view in VIEWS:
            open_view(page, view)
            shot(page, f"{how}-{view}")
            text = page.inner_text("#panel")
            match view:
                case "scalars":
                    assert "train/loss" in text and "1 not finite, first at 3" in text
                    assert all(n > 200 for n in inked(page)) and len(inked(page)) >= 4
                case "runs":
                    assert "0.001" in text and "run2" in text and "best" in text
                case "histograms":
                    assert len(inked(page)) >= 4 and min(inked(page)) > 300
                case "confusions":
                    assert "accuracy 93.3 %" in text and "step 20, 2 of 2" in text
                    assert len(inked(page)) >= 3 and min(inked(page)) > 300
                    page.locator("#panel canvas.whole").last.focus()
                    for key in ("ArrowDown", "ArrowRight"):
                        page.keyboard.press(key)
                    assert "cat taken for dog: 2, 6.7 % of cat" in page.inner_text("#panel")
                case "images":
                    assert page.evaluate(
                        "[...document.querySelectorAll('#panel img[src]')].every("
                        "i => i.complete && i.naturalWidth === 24)"
                    )
                    assert "step 40, 5 of 5" in text
                case "texts":
                    assert "# A title" in text and "onerror" in text  # shown, not run
                case "model":
                    page.select_option("#panel select", label="run1")
                    page.wait_for_timeout(200)
                    text = page.inner_text("#panel")
                    assert "Linear" in text and "58 parameters" in text and "in 1 call" in text
                case "profile":
                    assert "linear" in text and inked(page)[0] > 1000
                    page.select_option("#kind", "flame")
                    assert inked(page)[0] > 1000
                case "system":
                    assert "system/cpu" in text


def test_charts_are_smoothed_zoomed_and_read_by_keyboard(browser: Any, address: str) -> None:
    with page_at(browser, address) as page:
        page.wait_for_selector("#panel .card canvas")
        page.wait_for_timeout(500)
        page.evaluate(
            "const s = document.getElementById('smooth'); s.value = 0.7;"
            "s.dispatchEvent(new Event('input'))"
        )
        card = page.locator(".card", has_text="train/loss")
        card.locator("> canvas").focus()
        for key in ("ArrowRight", "+"):
            page.keyboard.press(key)
            page.wait_for_timeout(300)
        assert "run1: 0." in card.locator(".readout").inner_text()
        shot(page, "zoomed")
        page.get_by_label("log y").check()
        page.get_by_label("log x").check()
        page.wait_for_timeout(300)
        shot(page, "log")
        page.keyboard.press("Escape")
        page.locator("#tab-scalars").focus()
        page.keyboard.press("ArrowRight")
        assert page.get_attribute("#tab-runs", "aria-selected") == "true"


def test_runs_are_filtered_and_sorted(browser: Any, address: str) -> None:
    with page_at(browser, address) as page:
        page.wait_for_selector("#runs li")
        open_view(page, "runs")
        page.fill("#filter", "lr<0.05")
        names = "[...document.querySelectorAll('#panel tbody td:first-child')].map(c => c.title)"
        assert sorted(page.evaluate(names)) == ["run1", "run2"]
        page.click("th button:has-text('lr')")
        assert page.evaluate(names) == ["run2", "run1"]
        page.click("th button:has-text('lr')")
        assert page.evaluate(names) == ["run1", "run2"]


def test_a_run_that_goes_on_is_followed(browser: Any, tmp_path: Path) -> None:
    import bestiary as bt

    with bt.Run(tmp_path / "one") as run, BoardServer(Board(tmp_path), port=0) as server:
        run.scalar("loss", 1.0, 1)
        run.flush()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with page_at(browser, server.url) as page:
            page.wait_for_selector("#panel .card")
            run.scalars({"loss": 0.5, "another": 2.0}, 7)
            run.flush()
            page.wait_for_selector("#panel .card:has-text('another')", timeout=15_000)
        server.shutdown()
        thread.join()


def test_networks_called_apart_are_timed(browser: Any, tmp_path: Path) -> None:
    """Both players of a GAN, of one module or several, that are never called as a whole."""
    import bestiary as bt

    nets = {"maker": bt.nn.Sequential(bt.nn.Linear(4, 4)), "judge": bt.nn.Linear(4, 1)}
    for name, both in (("dict", nets), ("module", bt.nn.ModuleDict(nets))):
        with bt.Run(tmp_path / name) as run:
            run.model(both)
            with run.profiled():
                nets["judge"](nets["maker"](bt.zeros((5, 4))))
    with BoardServer(Board(tmp_path), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with page_at(browser, server.url) as page:
            page.wait_for_selector("#runs li:nth-child(2)")
            open_view(page, "model")
            for name in ("dict", "module"):
                page.select_option("#panel select", label=name)
                page.wait_for_timeout(200)
                assert page.inner_text("#panel").count("in 1 call") == 2
                shot(page, f"apart-{name}")
        server.shutdown()
        thread.join()


def test_a_phone_in_the_dark(browser: Any, address: str) -> None:
    size = {"width": 360, "height": 740}
    with page_at(browser, address, viewport=size, color_scheme="dark") as page:
        page.wait_for_selector("#panel .card canvas")
        for view in VIEWS:
            open_view(page, view)
            shot(page, f"phone-{view}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, view
        colour = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert colour == "rgb(21, 23, 27)"
