"""Boards as people write them against the token ids of the data sets.

Token 0 is padding in every data set here. A Sudoku cell that is empty is written 0 (or ``.``)
by everybody, and is token 1; digit d is token d + 1. A maze has a token for each character. ARC
puts colour c on token c + 2, in a square of 30 x 30 whose right and lower edge is marked by
token 1.
"""

from typing import Any

import numpy as np

MAZE_CHARACTERS = '# SGo'  # tokens 1 to 5; o marks the path
_ARC_SIDE = 30


def encode_sudoku(board: Any) -> np.ndarray:
    """Turns a Sudoku into tokens, int32 [cells].

    Args:
      board: digits with 0 for empty cells, as an array of any shape, nested lists, or text in
        which ``.`` is empty too and white space is skipped.

    Raises:
      ValueError: a cell is not a digit.
    """
    if isinstance(board, str):
        digits = ''.join(board.split()).replace('.', '0')
        if not digits.isascii() or not digits.isdigit():
            raise ValueError(f'a Sudoku has digits and dots only; got {board!r:.100}.')
        board = [int(digit) for digit in digits]
    cells = np.asarray(board)
    if cells.dtype.kind not in 'iu' or cells.size == 0 or cells.min() < 0 or cells.max() > 9:
        raise ValueError('a Sudoku has whole numbers from 0 (empty) to 9.')
    return cells.reshape(-1).astype(np.int32) + 1


def decode_sudoku(tokens: Any) -> np.ndarray:
    """Turns tokens back into digits, int32 [side, side]; empty cells are 0, padding is -1."""
    cells = np.asarray(tokens, np.int32).reshape(-1) - 1
    side = round(cells.size**0.5)
    return cells.reshape(side, side)


def encode_maze(maze: str) -> np.ndarray:
    """Turns the rows of a maze (``#`` wall, space floor, S start, G goal) into tokens, int32.

    Args:
      maze: rows separated by line ends, or all in one.

    Raises:
      ValueError: another character.
    """
    text = maze.replace('\n', '')
    unknown = set(text) - set(MAZE_CHARACTERS)
    if unknown or not text:
        raise ValueError(f'a maze has the characters {MAZE_CHARACTERS!r} only; got {unknown}.')
    return np.array([MAZE_CHARACTERS.index(c) + 1 for c in text], np.int32)


def decode_maze(tokens: Any, columns: int = 0) -> str:
    """Turns tokens into rows of characters; padding is ``?``. 0 columns: as many as rows."""
    tokens = np.asarray(tokens, np.int32).reshape(-1)
    columns = columns or round(tokens.size**0.5)
    text = ''.join(('?' + MAZE_CHARACTERS)[token] for token in tokens)
    return '\n'.join(text[i : i + columns] for i in range(0, len(text), columns))


def encode_arc(grid: Any) -> np.ndarray:
    """Turns a grid of colours 0 to 9 into tokens, int32 [900], in the upper left corner.

    Raises:
      ValueError: the grid is larger than 30 x 30, empty, or has another colour.
    """
    grid = np.asarray(grid)
    if grid.ndim != 2 or grid.size == 0 or max(grid.shape) > _ARC_SIDE:
        raise ValueError(f'an ARC grid has 1 to 30 rows and columns; got {grid.shape}.')
    if grid.dtype.kind not in 'iu' or grid.min() < 0 or grid.max() > 9:
        raise ValueError('an ARC grid has the colours 0 to 9.')
    rows, columns = grid.shape
    tokens = np.zeros((_ARC_SIDE, _ARC_SIDE), np.int32)
    tokens[:rows, :columns] = grid + 2
    tokens[rows : rows + 1, :columns] = 1
    tokens[:rows, columns : columns + 1] = 1
    return tokens.reshape(-1)


def decode_arc(tokens: Any) -> np.ndarray:
    """Turns tokens into the largest upper-left rectangle of colours, int32 [rows, columns]."""
    square = np.asarray(tokens, np.int32).reshape(_ARC_SIDE, _ARC_SIDE)
    widths = np.minimum.accumulate((square < 2).argmax(1) + _ARC_SIDE * (square >= 2).all(1))
    rows = int((widths * np.arange(1, _ARC_SIDE + 1)).argmax()) + 1
    return square[:rows, : widths[rows - 1]] - 2
