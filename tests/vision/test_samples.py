"""The photographs that ship with the package."""

from __future__ import annotations

from bestiary.core.data.images import read_image
from bestiary.vision.samples import FOLDER, SUBJECTS, sample_photographs


def test_every_photograph_is_small_readable_and_has_a_source() -> None:
    photographs = sample_photographs()
    assert len(photographs) >= 6
    sources = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in sources.splitlines() if "|" in line}
    for path in photographs:
        assert path.stat().st_size < 100_000
        assert 300 <= min(read_image(path).size) <= max(read_image(path).size) <= 640
        assert "CC0" in rows[path.name] or "public domain" in rows[path.name]
    assert {name for name in rows if name.endswith(".jpg")} == {p.name for p in photographs}
    assert set(SUBJECTS) == {p.stem for p in photographs}
