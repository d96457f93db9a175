"""Search on one grid of open and closed cells: distances, and how many shortest paths there are."""

from collections.abc import Iterator

import numpy as np


def distances(open_S: np.ndarray, start: int, side: int) -> dict[int, int]:
    """Counts moves from a start cell to every cell, four neighbours, over open cells.

    Args:
      open_S: bool [side * side], cells that can be entered.
      start: a cell.
      side: rows of the square board.

    Returns:
      Cell -> moves of the cells that can be reached, the nearest first.
    """
    is_open = open_S.tolist()
    moves, front = {start: 0}, [start]
    while front:
        following = []
        for cell in front:
            for near in _neighbours(cell, side):
                if is_open[near] and near not in moves:
                    moves[near] = moves[cell] + 1
                    following.append(near)
        front = following
    return moves


def count_shortest(open_S: np.ndarray, start: int, end: int, side: int) -> int:
    """Counts the shortest paths between two cells, four neighbours, over open cells.

    Args:
      open_S: bool [side * side], cells that can be entered, the two ends among them.
      start, end: cells.
      side: rows of the square board.

    Returns:
      Their number, exact however large; 0: the end cannot be reached.
    """
    moves = distances(open_S, start, side)
    ways = dict.fromkeys(moves, 0)
    ways[start] = 1
    for cell, far in moves.items():  # nearest first, so that all that lead here are counted
        for near in _neighbours(cell, side):
            if moves.get(near) == far - 1:
                ways[cell] += ways[near]
    return ways.get(end, 0)


def _neighbours(cell: int, side: int) -> Iterator[int]:
    row, column = divmod(cell, side)
    if row > 0:
        yield cell - side
    if row < side - 1:
        yield cell + side
    if column > 0:
        yield cell - 1
    if column < side - 1:
        yield cell + 1
