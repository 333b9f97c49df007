"""How the tensors of a file fit those of a model, and one error that says all that does not.

Layer numbers are collapsed: twelve missing tensors `h.0.attn.bias` to `h.11.attn.bias` are one
line, `h.{0-11}.attn.bias`.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..dtypes import DType, kind_of
from ..errors import DtypeError, WeightsError
from .source import quoted

_NUMBER = re.compile(r"(?<![^.])([0-9]{1,9})(?![^.])")  # a whole part of a dotted name
_MAX_PREFIX_PARTS = 3
_NEAR = 0.6
_COMPARED = 2_000  # names; similarity is quadratic
_OLD_NAMES = {"weight": "gamma", "bias": "beta"}  # of normalisations in older files
_LINES = 12


class Spec(Protocol):
    """Anything with a shape and a dtype: an array, a tensor, a `TensorInfo`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> DType: ...


@dataclass(frozen=True)
class Comparison:
    """The differences between the tensors found and those wanted.

    `misshapen` and `mistyped` give (found, wanted) by name. Types are wrong when their kinds
    differ (integers for floats); another precision of the same kind is only listed in `cast`.
    """

    missing: list[str]
    unexpected: list[str]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    mistyped: dict[str, tuple[DType, DType]]
    cast: list[str]
    total: int

    @property
    def fits(self) -> bool:
        """Whether every tensor can be loaded."""
        return not (self.missing or self.unexpected or self.misshapen or self.mistyped)


class Pattern(NamedTuple):
    """Names that differ in their layer numbers only."""

    text: str
    names: list[str]

    def __str__(self) -> str:
        text = quoted(self.text)[1:-1]
        return text if len(self.names) == 1 else f"{text} ({len(self.names)})"


def compare(found: Mapping[str, Spec], wanted: Mapping[str, Spec]) -> Comparison:
    """Compare the tensors of a file with those of a model, by name."""
    misshapen, mistyped, cast = {}, {}, []
    for name, want in wanted.items():
        got = found.get(name)
        if got is None:
            continue
        if tuple(got.shape) != tuple(want.shape):
            misshapen[name] = tuple(got.shape), tuple(want.shape)
        if got.dtype != want.dtype:
            if _kind(got.dtype) != _kind(want.dtype):
                mistyped[name] = got.dtype, want.dtype
            else:
                cast.append(name)
    return Comparison(
        [name for name in wanted if name not in found],
        [name for name in found if name not in wanted],
        misshapen,
        mistyped,
        cast,
        len(wanted),
    )


def _kind(dtype: DType) -> str:
    try:
        return kind_of(dtype)
    except DtypeError:
        return "float"  # the float8 types, which have no arithmetic


def require_match(
    found: Mapping[str, Spec],
    wanted: Mapping[str, Spec],
    *,
    where: str = "the weights",
    model: str = "the model",
) -> Comparison:
    """Raise one error that lists everything that does not fit.

    Args:
        found: the tensors of the file.
        wanted: the tensors of the model.
        where: what to call the file in the message.
        model: what to call the model.

    Returns:
        The comparison, in which nothing but `cast` is filled.

    Raises:
        WeightsError: with `missing`, `unexpected`, `misshapen`, `mistyped`, and `prefix`, the
            prefix that explains the difference, or None.
    """
    result = compare(found, wanted)
    if not result.fits:
        raise misfit(result, where=where, model=model)
    return result


def misfit(
    result: Comparison, *, where: str = "the weights", model: str = "the model"
) -> WeightsError:
    """The error for a comparison that does not fit; it has at most 12 lines."""
    prefix, cure = _prefix_cure(result)
    lines = [f"{where} do not fit {model}; nothing was loaded."]
    hints = cure or _nearest(result) or _head_hint(result)
    room = _LINES - len(lines) - len(hints)
    sections: list[tuple[str, list[str]]] = [
        ("Missing", [str(pattern) for pattern in group(result.missing)]),
        ("Unexpected", [str(pattern) for pattern in group(result.unexpected)]),
        ("Other shape (file, model)", _pairs(result.misshapen)),
        ("Other kind of dtype (file, model)", _pairs(result.mistyped)),
    ]
    counts = [
        len(result.missing),
        len(result.unexpected),
        len(result.misshapen),
        len(result.mistyped),
    ]
    filled = [(t, rows, n) for (t, rows), n in zip(sections, counts, strict=True) if n]
    share = max(1, room // len(filled) - 1)
    for title, rows, count in filled:
        lines.append(
            f"{title}, {count:,} of {result.total:,}:"
            if title == "Missing"
            else f"{title}, {count:,}:"
        )
        lines += _joined(rows, share)
    return WeightsError(
        "\n".join(lines + hints),
        missing=result.missing,
        unexpected=result.unexpected,
        misshapen=result.misshapen,
        mistyped=result.mistyped,
        prefix=prefix,
    )


def group(names: Iterable[str]) -> list[Pattern]:
    """Names by pattern: those that differ in their numbers only are one, in order of appearance."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        # Alternately text and numbers; the pattern is the texts.
        groups.setdefault(tuple(_NUMBER.split(name)[::2]), []).append(name)
    return [Pattern(_with_ranges(texts, members), members) for texts, members in groups.items()]


def _with_ranges(texts: tuple[str, ...], names: Sequence[str]) -> str:
    """The pattern with the numbers that occur in each place: `h.{0-11}.bias`."""
    columns = zip(*(map(int, _NUMBER.split(name)[1::2]) for name in names), strict=True)
    places = [_ranges(sorted(set(column))) for column in columns]
    return texts[0] + "".join(place + text for place, text in zip(places, texts[1:], strict=True))


def _ranges(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return "{" + ",".join(texts[:4]) + (",..." if texts[4:] else "") + "}"


def _pairs(table: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """One text for each pattern and pair of values: `h.{0-11}.w: (4, 4), (2, 4)`."""
    by_value: dict[tuple[Any, Any], list[str]] = {}
    for name, pair in table.items():
        by_value.setdefault(pair, []).append(name)
    rows = []
    for (got, want), names in by_value.items():
        turned = isinstance(got, tuple) and len(got) > 1 and got == want[::-1] and got != want
        note = " transposed?" if turned else ""
        rows += [f"{pattern}: {got}, {want}{note}" for pattern in group(names)]
    return rows


def _joined(rows: Sequence[str], lines: int) -> list[str]:
    """The rows on so many indented lines; what does not fit is counted."""
    texts: list[str] = []
    done = 0
    for line in range(lines):
        text = ""
        while done < len(rows) and len(text) + len(rows[done]) <= 100:
            text += (", " if text else "    ") + rows[done]
            done += 1
        if not text and done < len(rows):  # one row longer than a line
            text = "    " + rows[done][:140]
            done += 1
        if line == lines - 1 and done < len(rows):
            text += f", and {len(rows) - done} more patterns"
        if text:
            texts.append(text)
    return texts


def _prefix_cure(result: Comparison) -> tuple[str | None, list[str]]:
    """The prefix that one side has and the other lacks, and the lines that cure it."""
    if not result.missing or not result.unexpected:
        return None, []
    missing, unexpected = set(result.missing), set(result.unexpected)
    extra, gain = _best_prefix(unexpected, missing)
    lacking, other_gain = _best_prefix(missing, unexpected)
    if max(gain, other_gain) < max(2, 0.5 * min(len(missing), len(unexpected))):
        return None, []
    if gain >= other_gain:
        return extra, [
            f"{gain} names in the file only have {extra!r} in front. Without it:",
            f"    weights = {{name.removeprefix({extra!r}): w for name, w in weights.items()}}",
        ]
    return lacking, [
        f"{other_gain} names in the model have {lacking!r} in front that the file lacks. With it:",
        f"    weights = {{{lacking!r} + name: w for name, w in weights.items()}}",
    ]


def _best_prefix(longer: set[str], shorter: set[str]) -> tuple[str, int]:
    """The prefix whose removal turns most names of one set into names of the other."""
    gains: Counter[str] = Counter()
    for name in longer:
        parts = name.split(".")
        for count in range(1, min(_MAX_PREFIX_PARTS, len(parts) - 1) + 1):
            if ".".join(parts[count:]) in shorter:
                gains[".".join(parts[:count]) + "."] += 1
    if not gains:
        return "", 0
    return max(gains.items(), key=lambda item: (item[1], -len(item[0]), item[0]))


def _nearest(result: Comparison) -> list[str]:
    """For a few missing names, the most similar unexpected ones, each used once."""
    free = {pattern.text: pattern for pattern in group(result.unexpected[:_COMPARED])}
    pairs = []
    for pattern in group(result.missing[:_COMPARED])[:20]:
        near = _similar(pattern.text, free)
        if near is not None:
            pairs.append(f"{free.pop(near).text} -> {pattern.text}")
    return ["Similar names (file -> model):", *_joined(pairs, 2)] if pairs else []


def _similar(wanted: str, free: Iterable[str]) -> str | None:
    """The most similar name, of those with the same last part if there is one."""
    start, _, end = wanted.rpartition(".")
    for last in (end, _OLD_NAMES.get(end)):
        named = [name for name in free if name.rpartition(".")[2] == last]
        near = difflib.get_close_matches(f"{start}.{last}", named, n=1, cutoff=_NEAR)
        if near:
            return near[0]
    near = difflib.get_close_matches(wanted, free, n=1, cutoff=_NEAR)
    return near[0] if near and _kind_of_name(near[0]) in ("", _kind_of_name(wanted)) else None


def _kind_of_name(name: str) -> str:
    """Weight or bias, as far as the name tells; empty where it does not."""
    end = name.rpartition(".")[2]
    return end if end in ("weight", "bias") else ""


def _head_hint(result: Comparison) -> list[str]:
    """A classifier of another size: one or two tensors that differ in their first axis only."""
    if result.missing or result.unexpected or not 1 <= len(result.misshapen) <= 2:
        return []
    sizes = set()
    for got, want in result.misshapen.values():
        if not got or len(got) != len(want) or got[1:] != want[1:]:
            return []
        sizes.add((got[0], want[0]))
    if len(sizes) != 1:
        return []
    ((file_size, model_size),) = sizes
    return [
        f"The head has {file_size} outputs in the file and {model_size} in the model. To load all "
        "but the head:",
        f"    bt.load(name, num_classes={model_size})",
    ]
