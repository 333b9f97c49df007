"""Checkpoint folders: complete or absent, checked before use, never unpickled.

A checkpoint is a folder `step-00001200` with `tensors.safetensors`, `state.json` and a manifest
of sizes and sha256 sums. It is written under another name, flushed to disk and renamed, so that
a process killed at any moment leaves the earlier checkpoints and nothing half-made that could be
taken for one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, WeightsError
from ..paths import flush_folder
from ..weights.safetensors import load_file, save_file

_NAME = re.compile(r"step-(\d{8,})")
_PART = ".part"
_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_KEEPS_NO_MORE = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Checkpoint:
    """What one folder holds."""

    step: int
    tensors: dict[str, Any]
    state: dict[str, Any]
    folder: Path


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: where they are; made when the first one is saved.
        keep: how many of the newest to keep; those that are marked (`best`) are kept besides.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise ConfigError(f"keep must be at least 1, got {keep}")
        self.folder = Path(folder)
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the checkpoints that are there, oldest first; they may still be damaged."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(p.name) for p in self.folder.iterdir() if p.is_dir())
        return sorted(int(m.group(1)) for m in found if m is not None)

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> Path | None:
        """Write a checkpoint, then drop the oldest; returns its folder.

        A full disk is a warning, and None: training goes on, and the earlier ones stay.
        """
        target = self.path(step)
        part = target.with_name(target.name + _PART)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            part.mkdir()
            save_file(dict(tensors), part / _TENSORS)
            _write(part / _STATE, json.dumps(state))
            _write(part / _MANIFEST, json.dumps(_manifest(part), indent=1))
            flush_folder(part)
            if target.exists():
                _discard(target)
            os.replace(part, target)
            flush_folder(self.folder)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            if error.errno not in _KEEPS_NO_MORE:
                raise
            free = shutil.disk_usage(self.folder).free
            warnings.warn(
                f"the checkpoint of step {step} was not saved: the disk is full ({free:,} bytes "
                f"free in {self.folder}). Training goes on; the earlier checkpoints are intact.",
                stacklevel=2,
            )
            return None
        self._rotate()
        return target

    def mark(self, step: int, label: str) -> None:
        """Keep this checkpoint under a label, such as "best"; an earlier holder is let go."""
        _write(self.folder / f"{label}.txt", f"{step}\n")
        self._rotate()

    def marked(self, label: str) -> int | None:
        """The step that has the label."""
        try:
            text = (self.folder / f"{label}.txt").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return int(text) if text.isdigit() else None

    def load(self, step: int) -> Checkpoint:
        """Read a checkpoint.

        Raises:
            WeightsError: a file is missing, changed or unreadable; names it.
        """
        folder = self.path(step)
        check_manifest(folder)
        try:
            state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        except ValueError as error:
            raise WeightsError(f"{folder / _STATE} is no JSON: {error}") from None
        return Checkpoint(step, load_file(folder / _TENSORS), state, folder)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; says which ones were passed over, and why."""
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except WeightsError as error:
                warnings.warn(
                    f"the checkpoint {self.path(step).name} is damaged and was passed over: "
                    f"{error}",
                    stacklevel=2,
                )
        return None

    def _sweep(self) -> None:
        """Remove what a killed process left half-made."""
        for path in self.folder.glob(f"*{_PART}"):
            shutil.rmtree(path, ignore_errors=True)

    def _rotate(self) -> None:
        steps = self.steps()
        labels = {p.stem for p in self.folder.glob("*.txt")}
        kept = {self.marked(label) for label in labels} | set(steps[-self.keep :])
        for step in steps:
            if step not in kept:
                _discard(self.path(step))


def _discard(folder: Path) -> None:
    """Remove a checkpoint; killed half-way, nothing is left that could be taken for one."""
    gone = folder.with_name(f"{folder.name}.gone{_PART}")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _manifest(folder: Path) -> dict[str, Any]:
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name != _MANIFEST:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[path.name] = {"size": path.stat().st_size, "sha256": digest}
    return {"files": files}


def check_manifest(folder: Path) -> None:
    """Compare every file with the manifest.

    Raises:
        WeightsError: the manifest or a file is missing, or differs.
    """
    try:
        listed = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        expected = {str(name): (int(f["size"]), str(f["sha256"])) for name, f in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder.name}: its manifest cannot be read ({error})") from None
    for name in (_TENSORS, _STATE):
        if name not in expected:
            raise WeightsError(f"{folder.name}: its manifest does not list {name}")
    for name, (size, digest) in expected.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise WeightsError(f"{folder.name}: {name} is missing")
        if path.stat().st_size != size:
            raise WeightsError(
                f"{folder.name}: {name} has {path.stat().st_size:,} bytes, not {size:,}"
            )
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise WeightsError(f"{folder.name}: {name} has changed since it was saved")
