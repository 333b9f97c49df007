"""Licences of models: what a repository says, whether it permits commercial use, and the notice.

A model whose licence forbids commercial use, or whose publisher asks for agreement first, says
so when it is loaded for the first time on a machine.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ..core.paths import home
from .card import Card

# Identifiers of the hub (SPDX in lower case, and its own). Source: each licence's text.
_PERMITS = frozenset(
    """
    afl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc0-1.0
    cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-2.0
    ecl-2.0 epl-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0
    lppl-1.3c mit mit-0 mpl-2.0 ms-pl ncsa odc-by ofl-1.1 osl-3.0 pddl postgresql unlicense
    wtfpl zlib
    """.split()
)
# Listed by the hub, with conditions of their own.
_CONDITIONS = frozenset(
    """
    bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m creativeml-openrail-m
    deepfloyd-if-license gemma llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 openrail openrail++
    other
    """.split()
)
_FORBIDS = re.compile(r"(^|-)nc(-|$)|non-?commercial|research-only")
_SECTION = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"([A-Za-z_]\w*):[ \t]*(.*)")
_README_BYTES = 1_000_000


def permits_commercial(license: str | None) -> bool | None:
    """Whether a licence permits commercial use; None for those with conditions of their own."""
    if not license:
        return None
    name = license.strip().lower().replace("_", "-").replace(" ", "-")
    if _FORBIDS.search(name):
        return False
    return True if name in _PERMITS else None


def hub_license(license: str | None) -> tuple[str, str | None]:
    """A licence as the hub writes it: its identifier, and the name of one that it does not list."""
    if not license:
        return "unknown", None
    name = license.strip().lower().replace("_", "-").replace(" ", "-")
    if name in _PERMITS or name.startswith("cc-by-nc") or name in _CONDITIONS:
        return name, None
    return "other", license


def front_matter(readme: Path) -> dict[str, str]:
    """The plain `key: value` lines that a model card begins with.

    Lists and nested values are passed over; a key whose value is nested has the value "".
    """
    try:
        with open(readme, encoding="utf-8", errors="replace") as file:
            found = _SECTION.match(file.read(_README_BYTES))
    except OSError:
        return {}
    lines = found.group(1).splitlines() if found is not None else []
    pairs = (match for line in lines if (match := _LINE.fullmatch(line.rstrip())))
    return {match[1]: match[2].strip().strip("\"'")[:300] for match in pairs}


def describe(card: Card, folder: Path) -> None:
    """Fill the licence of a card from the model card of a repository, where it is not known."""
    said = front_matter(folder / "README.md")
    if card.license is None:  # an entry's own was read from a source that is named there
        name = said.get("license_name") if said.get("license") == "other" else said.get("license")
        card.license = name or None
        card.commercial = permits_commercial(card.license)
    if any(key.startswith("extra_gated") for key in said):
        card.gated = True


def notice(card: Card) -> str | None:
    """What to say of a model whose licence restricts it; None for others."""
    where = f" ({card.source})" if card.source else ""
    known = card.license or "unknown"
    if card.commercial is False:
        return f"{card.name}: its licence, {known}, does not permit commercial use{where}"
    if card.gated:
        return f"{card.name}: its publisher asks for agreement to its licence, {known}{where}"
    return None


def show_once(card: Card) -> None:
    """Print the notice on the error output, the first time on this machine."""
    text = notice(card)
    if text is None:
        return
    mark = re.sub(r"[^\w.-]+", "--", f"{card.name}-{card.license}")[:200]
    path = home() / "licences" / mark
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("x").close()
    except FileExistsError:
        return
    except OSError:  # a home that cannot be written: shown by every process
        pass
    print(text, file=sys.stderr, flush=True)
