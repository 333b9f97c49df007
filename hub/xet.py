"""The accelerated route: large files in chunks from several places at once, through `hf_xet`.

Whatever goes wrong on it, the file is fetched by plain HTTP instead.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .web import Answer, Web, origin


def has_xet() -> bool:
    """Whether the client of the accelerated route is installed."""
    return importlib.util.find_spec("hf_xet") is not None


def usable_xet(web: Web, answer: Answer) -> bool:
    """Whether a file may come by xet: it is offered, and its keys are given out by the hub."""
    data = _data_of(web, answer)
    return data is not None and origin(data.refresh_route) == origin(web.settings.endpoint)


def _data_of(web: Web, answer: Answer) -> Any:
    if "x-xet-hash" not in answer.headers:
        return None
    from huggingface_hub import utils

    exported: Any = utils
    return exported.parse_xet_file_data_from_response(answer.hub, endpoint=web.settings.endpoint)


class _Bar:
    """What the client reports its progress to; notes when something last moved."""

    total: int | None = None
    n = 0

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self.moved = time.monotonic()
        self.done = 0

    def update(self, amount: float = 1) -> None:
        self.moved = time.monotonic()
        self.done += int(amount)
        self._advance(int(amount))

    def update_transfer(self, amount: float) -> None:
        self.moved = time.monotonic()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Rates are shown by our own bar."""

    set_transfer_postfix_str = set_postfix_str


def by_xet(web: Web, answer: Answer, part: Path, size: int, advance: Callable[[int], None]) -> bool:
    """Fetch a whole file; whether that worked. What it left otherwise is of no use.

    Args:
        advance: told of bytes as they come, and in the end to take all of them back.
    """
    from huggingface_hub.file_download import xet_get

    data, bar = _data_of(web, answer), _Bar(advance)
    failed: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            xet_get(
                incomplete_path=part,
                xet_file_data=data,
                headers=web.headers_for(data.refresh_route),
                expected_size=size,
                displayed_filename=part.name,
                _tqdm_bar=bar,
            )
        except BaseException as error:
            failed.append(error)
        done.set()

    threading.Thread(target=work, name="bestiary-xet", daemon=True).start()
    try:
        while not done.wait(0.1):
            if time.monotonic() - bar.moved > web.settings.stall:
                break
    finally:
        if not done.is_set():
            _abort()
        advance(-bar.done)
    return done.is_set() and not failed and part.exists() and part.stat().st_size == size


def _abort() -> None:
    with contextlib.suppress(ImportError, AttributeError):
        from huggingface_hub.utils import _xet

        abort: Any = _xet.abort_xet_session
        abort()
