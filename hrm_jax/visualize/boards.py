"""Boards as text, and which cells of a puzzle a picture shows where."""

from collections.abc import Sequence
import math

import numpy as np

from hrm_jax.errors import PuzzleError
from hrm_jax.tasks import Task

_LINE = 12  # cells of a line of text in a picture


def arrangement(task: Task, *boards: np.ndarray) -> np.ndarray:
    """Returns which cell is drawn where, int [rows, columns]; -1: none.

    Padding around a grid is left out; texts are broken into lines.

    Args:
      task: of the puzzles.
      *boards: int [S] each, all of which have to fit.
    """
    extents = [task.extent(board) for board in boards]
    rows, columns = (max(1, *sizes) for sizes in zip(*extents, (1, 1), strict=True))
    cells = np.arange(task.seq_len).reshape(task.shape)[:rows, :columns]
    if task.is_board:
        return cells
    if task.drawn_shape != task.shape:
        return np.arange(task.seq_len).reshape(task.drawn_shape)
    lines = math.ceil(columns / _LINE)
    width = math.ceil(columns / lines)
    padded = np.full(lines * width, -1)
    padded[:columns] = cells[0]
    return padded.reshape(lines, width)


def board_lines(tokens_S: np.ndarray, task: Task) -> list[str]:
    """Returns a board as lines of equal width, boxes set apart, padding around it left out.

    Raises:
      PuzzleError: a square board of another number of cells.
    """
    square = not task.symbols or (task.side > 0 and len(tokens_S) == task.seq_len)
    PuzzleError.require(square, f'a board needs a square number of cells; got {len(tokens_S)}.')
    cells = task.cells(np.asarray(tokens_S))
    width = max((len(cell) for row in cells for cell in row), default=0)
    rows, columns = task.boxes or (len(cells), max(map(len, cells), default=0))
    lines = []
    for row in cells:
        padded = [cell.rjust(width) for cell in row]
        parts = [padded[i : i + columns] for i in range(0, len(padded), columns)]
        lines.append(' | '.join(' '.join(part) for part in parts))
    if task.boxes:
        part = '-' * ((width + 1) * columns - 1)
        for i in reversed(range(rows, len(cells), rows)):
            lines.insert(i, '-+-'.join([part] * (len(cells[0]) // columns)))
    return lines


def side_by_side(titles: Sequence[str], boards: Sequence[list[str]], gap: int = 4) -> str:
    """Returns boards next to each other, each under its title."""
    columns = [[title, '', *board] for title, board in zip(titles, boards, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        (' ' * gap).join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    ]
    return '\n'.join(line.rstrip() for line in lines)
