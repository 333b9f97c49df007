"""README and docs are run and followed: code, shown output, commands, links, navigation.

Python blocks of a page run in order and share their names, in an empty folder that holds
`photo.jpg` and `pets/` (a folder of pictures for each of two classes). A comment in front of a
block changes that:

    <!-- skip: reason -->       is not run
    <!-- network: reason -->    runs only in the test marked `network`

Each page runs in a process of its own (this file, as a script), because examples register
operations and models.

A `text` block that follows a Python block is what that block prints; `...` stands for anything.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

FENCE = re.compile(
    r"(?P<marker><!-- (?P<kind>skip|network)(?P<reason>[^>]*) -->\n+)?"
    r"^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"(?<!\!)\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")


@dataclass
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    line: int
    kind: str | None
    reason: str
    between: str  # the text between the block before and this one


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found, end = [], 0
    for m in FENCE.finditer(text):
        line = text.count("\n", 0, m.start("text"))
        between = text[end : m.start()]
        reason = (m["reason"] or "").lstrip(":").strip()
        found.append(Block(m["language"], m["text"], line, m["kind"], reason, between))
        end = m.end()
    return found


def execute(page: Path, network: bool) -> int:
    """Run the Python blocks; returns how many ran."""
    module = types.ModuleType("page")  # dataclasses want the module that they are in
    sys.modules["page"] = module
    ran = 0
    found = blocks(page)
    for i, block in enumerate(found):
        if block.language != "python" or block.kind == "skip":
            continue
        if block.kind == "network" and not network:
            continue
        code = compile("\n" * block.line + block.text, str(page), "exec")
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(code, vars(module))
        ran += 1
        after = found[i + 1] if i + 1 < len(found) else None
        if after is not None and after.language == "text" and not after.between.strip():
            same = doctest.OutputChecker().check_output(
                after.text, said.getvalue(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            )
            assert same, f"{page.name}:{after.line}: it prints\n{said.getvalue()}"
    return ran


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The folder in which the examples run."""
    from PIL import Image

    samples = ROOT / "vision" / "assets" / "samples"
    shutil.copy(samples / "espresso.jpg", tmp_path / "photo.jpg")
    for name in ("cat", "dog"):
        folder = tmp_path / "pets" / name
        folder.mkdir(parents=True)
        with Image.open(samples / f"{name}.jpg") as image:
            for i in range(8):
                edge = 10 * i
                part = image.crop((edge, edge, image.width - 5 * i, image.height - edge))
                part.convert("RGB").resize((256, 256)).save(folder / f"{i}.jpg")
    return tmp_path


def run(page: Path, desk: Path, *options: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(page), *options],
        cwd=desk,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_examples(page: Path, desk: Path) -> None:
    run(page, desk, HF_HUB_OFFLINE="1", PIP_NO_INDEX="1")


WITH_NETWORK = [p for p in PAGES if any(b.kind == "network" for b in blocks(p))]


@pytest.mark.network
@pytest.mark.parametrize("page", WITH_NETWORK, ids=lambda p: p.name)
def test_examples_with_network(page: Path, desk: Path) -> None:
    run(page, desk, "--network")


def test_there_are_examples() -> None:
    python = [b for p in PAGES for b in blocks(p) if b.language == "python"]
    assert len(python) >= 30
    for block in (b for p in PAGES for b in blocks(p) if b.kind):
        assert block.reason, block.text


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_exist(page: Path) -> None:
    """Every `bestiary COMMAND --option` of a shell block is one that there is."""
    import click

    from bestiary.hub.cli import cli

    for block in blocks(page):
        if block.language not in ("sh", "bash", "console"):
            continue
        for raw in block.text.splitlines():
            words = shlex.split(raw.removeprefix("$ "), comments=True)
            while words and not words[0].endswith("bestiary"):
                words.pop(0)
            if len(words) < 2 or words[1].startswith("-"):
                continue
            context = cli.make_context("bestiary", [], resilient_parsing=True)
            command = cli.get_command(context, words[1])
            assert command is not None, f"{page.name}:{block.line}: {raw}"
            while isinstance(command, click.Group):  # bestiary cache list
                words.pop(1)
                command = command.get_command(context, words[1])
                assert command is not None, f"{page.name}:{block.line}: {raw}"
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
            if words[1] == "train" and len(words) > 2:  # each recipe has settings of its own
                from bestiary.hub.commands.train import options_of

                options |= options_of(words[2])
            used = {w.split("=")[0] for w in words[2:] if w.startswith("-") and w != "-"}
            assert used <= options, f"{page.name}:{block.line}: {raw}"


def anchors(page: Path) -> set[str]:
    """The anchors that headings get, as mkdocs makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.finditer(text):
        target, _, anchor = link["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {link[0]}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name}: {link[0]}"


def test_navigation_lists_every_page() -> None:
    listed = re.findall(r":\s*(\S+\.md)\s*$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    on_disk = {p.relative_to(ROOT / "docs").as_posix() for p in PAGES if p.name != "README.md"}
    assert set(listed) == on_disk


def test_readme_commands() -> None:
    """Two commands, each one line that makes its own environment; .ci/run runs the second."""
    text = (ROOT / "README.md").read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith("python3 -m venv")]
    tour, tests = lines
    assert tour.endswith("bestiary tour")
    assert tests.endswith("-m pytest")


def test_the_check_sees(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match="it prints"):
        execute(page, network=False)
    page.write_text("<!-- skip: no GPU here -->\n\n```python\n1 / 0\n```\n")
    assert execute(page, network=True) == 0
    page.write_text("```python\n1 / 0\n```\n")
    with pytest.raises(ZeroDivisionError):
        execute(page, network=False)


if __name__ == "__main__":
    execute(Path(sys.argv[1]), network="--network" in sys.argv)
