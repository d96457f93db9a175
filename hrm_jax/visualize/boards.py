"""Boards as text."""

from collections.abc import Sequence

import numpy as np

from hrm_jax.errors import PuzzleError
from hrm_jax.tasks import Task


def board_lines(tokens_S: np.ndarray, task: Task) -> list[str]:
    """Returns a square board as lines of equal width, boxes set apart.

    Raises:
      PuzzleError: the number of cells is not a square.
    """
    side = task.side
    PuzzleError.require(side > 0, f'a board needs a square number of cells; got {len(tokens_S)}.')
    rows, columns = task.boxes or (side, side)
    lines = []
    for row in np.reshape(tokens_S, (side, side)):
        cells = [task.symbol(int(token)) for token in row]
        parts = [cells[i : i + columns] for i in range(0, side, columns)]
        lines.append(' | '.join(' '.join(part) for part in parts))
    if task.boxes:
        rule = '-+-'.join('-' * (2 * columns - 1) for _ in range(side // columns))
        for i in reversed(range(rows, side, rows)):
            lines.insert(i, rule)
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
