"""Recorded computations: `record` a call, look at its graph, and `replay` it."""

from .record import Call, Graph, Ref, record
from .replay import replay

__all__ = ["Call", "Graph", "Ref", "record", "replay"]
