"""Shortest paths on grids: many boards at once, or one board with a fixed choice among equals."""

from collections import deque

import numpy as np


def distances(open_BS: np.ndarray, start_B: np.ndarray, side: int) -> np.ndarray:
    """Counts moves from a start cell to every cell, four neighbours, over open cells.

    Args:
      open_BS: bool [B, side * side], cells that can be entered.
      start_B: int [B], start cells.
      side: rows of the square boards.

    Returns:
      int32 [B, side * side]; -1 for cells that cannot be reached.
    """
    batch = len(open_BS)
    # A border of closed cells lets neighbours be slices.
    free = np.zeros((batch, side + 2, side + 2), bool)
    free[:, 1:-1, 1:-1] = open_BS.reshape(batch, side, side)
    front = np.zeros_like(free)
    row, column = np.divmod(start_B, side)
    front[np.arange(batch), row + 1, column + 1] = True
    result = np.where(front, 0, -1).astype(np.int32)
    step = 0
    while front.any():
        step += 1
        near = np.zeros_like(front)
        near[:, 1:] |= front[:, :-1]
        near[:, :-1] |= front[:, 1:]
        near[:, :, 1:] |= front[:, :, :-1]
        near[:, :, :-1] |= front[:, :, 1:]
        front = near & free & (result < 0)
        result[front] = step
    return result[:, 1:-1, 1:-1].reshape(batch, -1)


def wrong_paths(
    inputs_BS: np.ndarray,
    labels_BS: np.ndarray,
    side: int,
    *,
    wall: int,
    start: int,
    end: int,
    path: int,
) -> np.ndarray:
    """Finds boards whose label is not a shortest path from start to end.

    A label must equal its input except for path marks on open cells, and the marks with start
    and end must be one shortest path.

    Args:
      inputs_BS: tokens of the boards.
      labels_BS: tokens of the answers.
      side: rows of the square boards.
      wall: token of a closed cell.
      start: token of the start; end: of the end; path: of a marked cell.

    Returns:
      int [K], indices of the wrong boards.
    """
    marked = labels_BS == path
    kept = np.where(marked, inputs_BS, labels_BS) == inputs_BS
    right = kept.all(axis=1) & ~(marked & np.isin(inputs_BS, [wall, start, end])).any(axis=1)
    for token in (start, end):
        right &= (inputs_BS == token).sum(axis=1) == 1
    first, last = (inputs_BS == start).argmax(axis=1), (inputs_BS == end).argmax(axis=1)
    free = distances(inputs_BS != wall, first, side)
    length = free[np.arange(len(free)), last]
    # Walking on the marks alone must be as short as walking anywhere.
    on_path = marked | (inputs_BS == start) | (inputs_BS == end)
    along = distances(on_path, first, side)[np.arange(len(free)), last]
    right &= (length > 0) & (along == length) & (marked.sum(axis=1) == length - 1)
    return np.flatnonzero(~right)


def first_path(open_cells: list[bool], start: int, end: int, side: int) -> list[int] | None:
    """Finds the path of a breadth-first search that looks up, down, left, right.

    Returns:
      The cells strictly between start and end, from the end backwards; None: there is no path.
    """
    parent = {start: -1}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        if cell == end:
            break
        row, column = divmod(cell, side)
        for step, allowed in (
            (-side, row > 0),
            (side, row < side - 1),
            (-1, column > 0),
            (1, column < side - 1),
        ):
            near = cell + step
            if allowed and open_cells[near] and near not in parent:
                parent[near] = cell
                queue.append(near)
    if end not in parent:
        return None
    path, cell = [], parent[end]
    while cell not in (start, -1):
        path.append(cell)
        cell = parent[cell]
    return path
