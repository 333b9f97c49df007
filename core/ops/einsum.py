"""Einstein summation, as matrix products.

An expression is planned once for its subscripts and numbers of axes; operands are then brought
together two at a time, so that every contraction is a product of matrices.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ShapeError
from .elementwise import multiply
from .linalg import _diagonal, _matmul
from .reduction import _sum
from .shape import permute_dims, reshape, rounded_once

if TYPE_CHECKING:
    from ..tensor import Tensor

Labels = tuple[str, ...]


@rounded_once
def einsum(subscripts: str, /, *operands: Tensor) -> Tensor:
    """Sums of products over named axes: `einsum("btd,nd->btn", x, w)`.

    A letter in several operands is multiplied along; one that is not in the result is summed
    over; `...` stands for axes that broadcast. Without `->` the result has the letters that
    occur once, in alphabetical order.

    Raises:
        ConfigError: the subscripts do not parse or do not fit the operands.
        ShapeError: a letter has different sizes.
    """
    names, result = _parse(subscripts, tuple(x.ndim for x in operands))
    sizes = _sizes(subscripts, operands, names)
    terms = []
    for x, labels in zip(operands, names, strict=True):
        terms.append(_single(x, labels, sizes))
    while len(terms) > 1:
        i, j = _cheapest(terms, result, sizes)
        second, first = terms.pop(j), terms.pop(i)
        needed = set(result).union(*(labels for _, labels in terms))
        terms.insert(
            0,
            _pair(
                *_reduced(*first, needed | set(second[1])),
                *_reduced(*second, needed | set(first[1])),
                needed,
            ),
        )
    x, labels = _reduced(*terms[0], set(result))
    out = permute_dims(x, tuple(labels.index(name) for name in result if name in labels))
    shape = tuple(sizes[name] for name in result)
    return out if out.shape == shape else reshape(out, shape)


@lru_cache(maxsize=512)
def _parse(subscripts: str, ndims: tuple[int, ...]) -> tuple[tuple[Labels, ...], Labels]:
    """The labels of each operand and of the result; axes of an ellipsis count from the right."""

    def wrong(why: str) -> ConfigError:
        return ConfigError(
            f'einsum: {why} in "{subscripts}".\nFor example: bt.einsum("ij,jk->ik", a, b)',
            subscripts=subscripts,
        )

    left, arrow, right = subscripts.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ndims):
        raise wrong(f"{len(parts)} terms for {len(ndims)} tensors")
    names = []
    for part, ndim in zip(parts, ndims, strict=True):
        before, dots, after = part.partition("...")
        if not (before + after).isalpha() and before + after:
            raise wrong(f"{part!r} is not made of letters")
        count = ndim - len(before) - len(after)
        if count < 0 or (count and not dots):
            raise wrong(f"the term {part!r} does not name the {ndim} axes of its tensor")
        names.append((*before, *(f".{i}" for i in range(count, 0, -1)), *after))
    longest = max((sum(n[0] == "." for n in labels) for labels in names), default=0)
    ellipsis = tuple(f".{i}" for i in range(longest, 0, -1))
    if arrow:
        before, dots, after = right.partition("...")
        result = (*before, *(ellipsis if dots else ()), *after)
    else:
        letters = [n for labels in names for n in labels if n[0] != "."]
        result = (*ellipsis, *sorted(n for n in set(letters) if letters.count(n) == 1))
    known = {n for labels in names for n in labels}
    for name in result:
        if name not in known or result.count(name) > 1:
            raise wrong(f"{name!r} of the result is in no term, or twice")
    return tuple(names), result


def _sizes(subscripts: str, operands: Any, names: tuple[Labels, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for x, labels in zip(operands, names, strict=True):
        for name, size in zip(labels, x.shape, strict=True):
            known = sizes.setdefault(name, size)
            if known == 1:
                sizes[name] = size
            elif size not in (1, known):
                raise ShapeError(
                    f'einsum "{subscripts}": {name!r} has size {known} and size {size} in '
                    f"{', '.join(str(tuple(x.shape)) for x in operands)}.",
                    label=name,
                    expected=known,
                    got=size,
                )
    return sizes


def _single(x: Any, labels: Labels, sizes: dict[str, int]) -> tuple[Any, Labels]:
    """One operand without repeated letters and without axes that it is broadcast along."""
    wide = [i for i, n in enumerate(labels) if x.shape[i] == sizes[n] or x.shape[i] != 1]
    if len(wide) < len(labels):
        x = reshape(x, tuple(x.shape[i] for i in wide))
        labels = tuple(labels[i] for i in wide)
    while len(set(labels)) < len(labels):
        name = next(n for n in labels if labels.count(n) > 1)
        i = labels.index(name)
        j = labels.index(name, i + 1)
        rest = [k for k in range(len(labels)) if k not in (i, j)]
        x = _diagonal(permute_dims(x, (*rest, i, j)), offset=0)
        labels = (*(labels[k] for k in rest), name)
    return x, labels


def _reduced(x: Any, labels: Labels, needed: set[str]) -> tuple[Any, Labels]:
    """Summed over what nobody needs any more."""
    axes = tuple(i for i, n in enumerate(labels) if n not in needed)
    if not axes:
        return x, labels
    return _sum(x, axis=axes), tuple(n for n in labels if n in needed)


def _cheapest(terms: Any, result: Labels, sizes: dict[str, int]) -> tuple[int, int]:
    """The pair whose product is smallest."""
    if len(terms) == 2:
        return 0, 1
    best = None
    for i in range(len(terms)):
        for j in range(i + 1, len(terms)):
            others = set(result).union(*(t[1] for k, t in enumerate(terms) if k not in (i, j)))
            kept = (set(terms[i][1]) | set(terms[j][1])) & others
            cost = math.prod(sizes[n] for n in kept)
            if best is None or cost < best[0]:
                best = (cost, i, j)
    assert best is not None
    return best[1], best[2]


def _pair(a: Any, la: Labels, b: Any, lb: Labels, needed: set[str]) -> tuple[Any, Labels]:
    """The product of two operands, summed over the letters that only they have."""
    both = [n for n in la if n in lb]
    batch = [n for n in both if n in needed]
    inner = [n for n in both if n not in needed]
    left = [n for n in la if n not in lb]
    right = [n for n in lb if n not in la]
    shape_a, shape_b = dict(zip(la, a.shape, strict=True)), dict(zip(lb, b.shape, strict=True))

    def arranged(x: Any, labels: Labels, shape: dict[str, int], *groups: list[str]) -> Any:
        order = [*batch, *(n for group in groups for n in group)]
        x = permute_dims(x, tuple(labels.index(n) for n in order))
        merged = [math.prod(shape[n] for n in group) for group in groups]
        return reshape(x, (*(shape[n] for n in batch), *merged))

    kept = [shape_a[n] for n in batch + left] + [shape_b[n] for n in right]
    labels = (*batch, *left, *right)
    if not inner:
        out = multiply(arranged(a, la, shape_a, left, []), arranged(b, lb, shape_b, [], right))
    elif not left and not right:
        x, y = arranged(a, la, shape_a, inner), arranged(b, lb, shape_b, inner)
        out = _sum(multiply(x, y), axis=-1)
    else:
        out = _matmul(arranged(a, la, shape_a, left, inner), arranged(b, lb, shape_b, inner, right))
    return reshape(out, tuple(kept)), labels
