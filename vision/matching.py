"""The assignment problem: pairs of least total cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.errors import DataError, ShapeError

Array = np.ndarray[Any, Any]


def assign(cost: Any) -> tuple[Array, Array]:
    """The pairs (row, column) of least total cost, each row and each column used at most once.

    As many pairs as the shorter axis is long. Shortest augmenting paths: O(n^2 m) steps, of which
    the innermost are NumPy's.

    Args:
        cost: what each pair costs, finite.
    Shape:
        (N, M) -> (min(N, M),), (min(N, M),), rows in ascending order
    Raises:
        ShapeError: not two axes.
        DataError: a cost is not finite.
    Source: Crouse 2016, "On implementing 2D rectangular assignment algorithms".
    """
    table = np.asarray(cost, np.float64)
    if table.ndim != 2:
        raise ShapeError(f"assign: costs have two axes, got shape {table.shape}.", got=table.shape)
    if not np.isfinite(table).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(table))[0])
        raise DataError(f"assign: the cost of pair {place} is {table[place]}: not finite.")
    if table.shape[0] > table.shape[1]:
        columns, rows = assign(table.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    count, width = table.shape
    of_row, of_column = np.full(count, -1), np.full(width, -1)
    # Prices keep `cost - price of row - price of column` non-negative, and zero for chosen pairs.
    row_price, column_price = np.zeros(count), np.zeros(width)
    for start in range(count):
        end, shortest, path, seen = _shortest_path(table, start, row_price, column_price, of_column)
        used = np.flatnonzero(seen)
        length = shortest[end]
        row_price[start] += length
        inner = used[of_column[used] >= 0]
        row_price[of_column[inner]] += length - shortest[inner]
        column_price[used] -= length - shortest[used]
        column = end
        while True:  # along the path back to its start, every row changes its column
            row = int(path[column])
            of_column[column] = row
            of_row[row], column = column, int(of_row[row])
            if row == start:
                break
    return np.arange(count), of_row


def _shortest_path(
    table: Array, start: int, row_price: Array, column_price: Array, of_column: Array
) -> tuple[int, Array, Array, Array]:
    """Dijkstra's way from a row to the nearest free column.

    Returns:
        That column, distances to the columns, the row before each, the columns passed.
    """
    width = table.shape[1]
    shortest = np.full(width, np.inf)
    path = np.full(width, -1)
    seen = np.zeros(width, bool)
    row, length = start, 0.0
    while True:
        distance = length + table[row] - row_price[row] - column_price
        better = ~seen & (distance < shortest)
        shortest[better], path[better] = distance[better], row
        column = int(np.argmin(np.where(seen, np.inf, shortest)))
        length = float(shortest[column])
        if of_column[column] < 0:
            return column, shortest, path, seen
        seen[column] = True
        row = int(of_column[column])
