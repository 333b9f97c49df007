"""Rename tables."""

from __future__ import annotations

import numpy as np
import pytest

from bestiary.core.errors import WeightsError
from bestiary.hub.rename import renamed, transposed


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
