"""Recorded computations: `record` a call, look at its graph, and `replay` it."""

from .files import load_graph, save_graph
from .record import Call, Graph, Ref, record
from .replay import replay

__all__ = ["Call", "Graph", "Ref", "load_graph", "record", "replay", "save_graph"]
