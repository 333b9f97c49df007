"""Rename tables."""

from __future__ import annotations

import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.hub.rename import join, renamed, transposed


def test_numbers_words_and_dropped_names():
    table = {
        "h.{}.attn.bias": None,
        "h.{}.attn.c_attn.weight": transposed("h.{}.attn.c_attn.weight"),
        "encoder.stages.{}.layers.{}.{rest}": "layer{}.{}.{rest}",
        "pooler.{rest}": "head.{rest}",
    }
    found = renamed(
        [
            "h.3.attn.bias",
            "h.12.attn.c_attn.weight",
            "encoder.stages.0.layers.11.conv.weight",
            "pooler.weight",
            "kept.as.it.is",
        ],
        table,
    )
    assert {old: new for old, (new, _) in found.items()} == {
        "h.12.attn.c_attn.weight": "h.12.attn.c_attn.weight",
        "encoder.stages.0.layers.11.conv.weight": "layer0.11.conv.weight",
        "pooler.weight": "head.weight",
        "kept.as.it.is": "kept.as.it.is",
    }
    apply = found["h.12.attn.c_attn.weight"][1]
    assert apply(np.zeros((2, 3))).shape == (3, 2)


def test_a_number_is_digits_only_and_a_dot_is_a_dot():
    table = {"a.{}.b": "x.{}"}
    assert renamed(["a.1.b", "a.1c.b", "aX1.b"], table)["a.1.b"][0] == "x.1"
    assert renamed(["a.1c.b"], table) == {"a.1c.b": ("a.1c.b", None)}
    assert renamed(["aX1Xb"], table) == {"aX1Xb": ("aX1Xb", None)}


def test_two_tensors_with_one_name_are_refused():
    with pytest.raises(WeightsError, match=r"'a'.*'b'.*'c'"):
        renamed(["a", "b"], {"a": "c", "b": "c"})


JOIN = {"blocks.{}.qkv.{rest}": ("blocks.{}.q.{rest}", "blocks.{}.k.{rest}")}


def test_parts_are_put_one_below_the_other_in_the_order_of_the_table():
    state = {
        "blocks.0.k.weight": np.full((2, 3), 2.0),
        "blocks.0.q.weight": np.full((4, 3), 1.0),
        "blocks.11.q.bias": np.zeros(4),
        "blocks.11.k.bias": np.ones(2),
        "norm.weight": np.zeros(3),
    }
    join(state, JOIN)
    assert set(state) == {"blocks.0.qkv.weight", "blocks.11.qkv.bias", "norm.weight"}
    assert state["blocks.0.qkv.weight"][:, 0].tolist() == [1, 1, 1, 1, 2, 2]
    assert state["blocks.11.qkv.bias"].tolist() == [0, 0, 0, 0, 1, 1]


def test_an_incomplete_group_is_left_for_strict_loading_to_name():
    state = {"blocks.0.q.weight": np.zeros((4, 3))}
    join(state, JOIN)
    assert set(state) == {"blocks.0.q.weight"}
