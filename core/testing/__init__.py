"""Checks for your own operations and models: gradients by differences, closeness of tensors."""

from __future__ import annotations

from .closeness import assert_close
from .gradcheck import gradcheck

__all__ = ["assert_close", "gradcheck"]
