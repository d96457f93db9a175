"""Boards as people write them, as one character per cell.

Rows may be separated by line breaks or ``/``. Sudokus may also have a blank, comma, semicolon or
bar between all cells, and ``.``, ``0``, ``_``, ``*`` or a blank for an empty cell.
"""

from collections.abc import Collection
import re

EMPTY = '.0_* '  # of a Sudoku
_GAPS = ' ,;|'


def rows_of(text: str) -> list[str]:
    """Returns the rows of a text; line breaks at its ends do not count."""
    return re.split('\r\n|[/\r\n]', text.strip('\r\n'))


def flat_maze(text: str) -> str:
    """Returns the cells of a maze in one line; blanks are cells."""
    return ''.join(rows_of(text))


def flat_sudoku(text: str, cells: Collection[int] = (16, 36, 81, 256)) -> str:
    """Returns the cells of a Sudoku in one line.

    Args:
      text: the board.
      cells: numbers of cells that boards in one line have.

    Returns:
      One character per cell; where no reading gives a board, the text without blanks around it,
      whose length is wrong.
    """
    rows = rows_of(text)
    wanted = cells if len(rows) == 1 else (len(rows),)
    found = [_without_gaps(row, wanted) for row in rows]
    return ''.join(found) if all(len(row) in wanted for row in found) else text.strip()


def _without_gaps(row: str, wanted: Collection[int]) -> str:
    """Returns one character per cell where the row has a wanted number of them.

    Blanks around a row may be cells, so they are taken away only where that gives no board.
    """
    for candidate in (row, row.strip()):
        if len(candidate) in wanted:
            return candidate
        gaps = set(candidate[1::2])
        if (len(candidate) + 1) / 2 in wanted and len(gaps) == 1 and gaps <= set(_GAPS):
            return candidate[::2]
    return row.strip()
