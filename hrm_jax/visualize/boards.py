"""Token ids as characters, and boards as text."""

from collections.abc import Sequence

import numpy as np

# Task -> character of every token id. Other tasks show token ids.
SYMBOLS = {'sudoku': ' .123456789', 'maze': '?# SGo', 'pathfinding': '.#SE*'}
# Task -> colour of every token id, for pictures; ARC's are those of its own viewer.
COLOURS = {
    'maze': ('#dddddd', '#2b2f38', '#ffffff', '#2ecc40', '#e0483d', '#8fb4ff'),
    'pathfinding': ('#ffffff', '#2b2f38', '#2ecc40', '#e0483d', '#8fb4ff'),
    'arc': (
        '#ffffff', '#f3f3f3', '#000000', '#0074d9', '#ff4136', '#2ecc40', '#ffdc00', '#aaaaaa',
        '#f012be', '#ff851b', '#7fdbff', '#870c25',
    ),
}  # fmt: skip


def symbol(task: str, token: int) -> str:
    """Returns what stands for a token on a board; '?' for an id outside the alphabet."""
    symbols = SYMBOLS.get(task)
    if symbols is None:
        return str(token)
    return symbols[token] if 0 <= token < len(symbols) else '?'


def box_side(task: str, side: int) -> int:
    """Returns the side of a Sudoku's boxes (3 of 9, 2 of 4); 0 for boards without boxes."""
    root = round(side**0.5)
    return root if task == 'sudoku' and root * root == side else 0


def board_lines(tokens_S: np.ndarray, task: str) -> list[str]:
    """Returns a square board as lines of equal width, Sudoku boxes set apart.

    Raises:
      ValueError: the number of cells is no square.
    """
    side = round(len(tokens_S) ** 0.5)
    if side * side != len(tokens_S):
        raise ValueError(f'a board needs a square number of cells; got {len(tokens_S)}.')
    box = box_side(task, side)
    rows = []
    for row in np.reshape(tokens_S, (side, side)):
        cells = [symbol(task, int(token)) for token in row]
        parts = [cells[i : i + box] for i in range(0, side, box)] if box else [cells]
        rows.append(' | '.join(' '.join(part) for part in parts))
    if box:
        rule = '-+-'.join('-' * (2 * box - 1) for _ in range(side // box))
        for i in reversed(range(box, side, box)):
            rows.insert(i, rule)
    return rows


def side_by_side(titles: Sequence[str], boards: Sequence[list[str]], gap: int = 4) -> str:
    """Returns boards next to each other, each under its title."""
    columns = [[title, '', *board] for title, board in zip(titles, boards, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        (' ' * gap).join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    ]
    return '\n'.join(line.rstrip() for line in lines)
