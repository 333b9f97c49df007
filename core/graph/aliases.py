"""Which values of a graph change in place: those that are written, and what shares their memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from .record import Graph, Ref


def written_operands(graph: Graph) -> set[int]:
    """Values that a call writes as one of its operands."""
    operands = (call.operands[place] for call in graph.calls for place in call.op.writes)
    return {operand.index for operand in operands if isinstance(operand, Ref)}


def changing(graph: Graph) -> set[int]:
    """External values whose memory a call writes, as an operand or through another view of it."""
    written = written_operands(graph)
    roots = [graph.external[i] for i in written if i in graph.external]
    spans = sorted(_span(array) for array in roots if type(array) is np.ndarray and array.size)
    if not spans:
        return {i for i in written if i in graph.external}
    starts = np.array([start for start, _ in spans])
    ends = np.maximum.accumulate([end for _, end in spans])
    found = set()
    for index, array in graph.external.items():
        if index in written:
            found.add(index)
        elif type(array) is np.ndarray and array.size:
            start, end = _span(array)
            before = int(np.searchsorted(starts, end)) - 1  # the last that begins before its end
            if before >= 0 and ends[before] > start:
                found.add(index)
    return found


def _span(array: Any) -> tuple[int, int]:
    start, end = np.lib.array_utils.byte_bounds(array)
    return int(start), int(end)
