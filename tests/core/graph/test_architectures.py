"""Every registered architecture, and every agent's network, compiled against itself as it is."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from architecture_cases import CONFIGS, FOLDERS, Subject, networks_of, observations, subject

import bestiary as bt
from bestiary.core.graph.trees import flattened
from bestiary.core.notice import CompileWarning, forget_warnings
from bestiary.hub.registry import architectures
from bestiary.rl.agents import ALGORITHMS

NAMES = sorted({*FOLDERS, *CONFIGS})
#: Architectures that cannot be compiled as a whole, and what the warning says of them.
EAGER = {
    "fcos": "its result holds a ndarray",  # the places of the map, which callers take as an array
    "vqvae": "depends on the values of its inputs",  # which entry of the codebook is the nearest
}
#: Agents whose networks are asked by arrays, of which nothing can be compiled.
BY_ARRAYS = {"RecurrentPPO"}


def same(found: Any, wanted: Any) -> None:
    (ours, tree), (theirs, same_tree) = flattened(found), flattened(wanted)
    assert repr(tree) == repr(same_tree)
    for got, want in zip((x.numpy() for x in ours), (x.numpy() for x in theirs), strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype
        if want.size:
            finite = np.abs(want[np.isfinite(want)])
            scale = max(1.0, float(finite.max())) if finite.size else 1.0
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * scale)


def compiled_equals_eager(case: Subject) -> None:
    fast = bt.compile(case.function)
    with bt.inference_mode():
        first = fast(*case.inputs(0))
        assert len(fast.explain()) == 1, "it was not compiled"
        same(first, case.function(*case.inputs(0)))
        for seed in (0, 1, 2):
            same(fast(*case.inputs(seed)), case.function(*case.inputs(seed)))


def test_every_architecture_is_here() -> None:
    """Pipelines are made of parts that are architectures of their own."""
    assert {a.name for a in architectures() if not a.parts} == set(NAMES)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in EAGER])
def test_architecture(name: str) -> None:
    compiled_equals_eager(subject(name))


@pytest.mark.parametrize("name", EAGER)
def test_those_that_look_at_values_say_so_and_are_right(name: str) -> None:
    forget_warnings()
    case = subject(name)
    fast = bt.compile(case.function)
    with bt.inference_mode():
        with pytest.warns(CompileWarning, match=EAGER[name]) as said:
            fast(*case.inputs(0))
        assert "it runs as it is, which is correct, and slower" in str(said[0].message)
        assert not fast.explain()
        for seed in (1, 2):
            same(fast(*case.inputs(seed)), case.function(*case.inputs(seed)))


def test_fcos_without_its_places() -> None:
    case = subject("fcos")
    compiled_equals_eager(Subject(lambda x: case.function(x)[:3], case.inputs))


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_agents(name: str) -> None:
    networks = networks_of(name)
    assert networks
    for module in networks.values():
        inputs = partial(observations, name, module)
        if name in BY_ARRAYS:
            fast = bt.compile(module)
            with bt.inference_mode():
                same(fast(*inputs(0)), module(*inputs(0)))
            assert not fast.explain()
        else:
            compiled_equals_eager(Subject(module, inputs))
