"""Puzzles as people write them: frames, commas, comments and line ends around the cells.

Knows characters, not tasks: what a cell's character means is a task's matter. A
character that stands for a cell of the task is never taken for a frame, a separator or a comment.
"""

from collections.abc import Collection, Sequence
import itertools
import json
from typing import Any

from hrm_jax.errors import PuzzleError

BYTE_ORDER_MARK = '\ufeff'
_COMMENTS = ('#', '%', ';', '//')
# Of frames; U+2500 to U+257F are the box drawing characters.
_UPRIGHT = frozenset('|!│┃║')
_FIELD_MARKS = ',;\t'  # between the fields of a table
_SEPARATORS = frozenset(_FIELD_MARKS) | _UPRIGHT
_BOX = frozenset(map(chr, range(0x2500, 0x2580)))
_RULES = frozenset('-=_') | _BOX
_CORNERS = frozenset("+:.'*`, ") | _UPRIGHT


def is_comment(line: str, symbols: Collection[str]) -> bool:
    """Whether a line is a comment.

    Args:
      line: without its end.
      symbols: characters that stand for cells, or begin their words.
    """
    text = line.strip()
    row = text.count(';') > 1 and set(text) <= {';', ' ', *symbols}  # its first fields are empty
    return not row and text.startswith(tuple(m for m in _COMMENTS if m[0] not in symbols))


def _is_rule(line: str, symbols: Collection[str]) -> bool:
    """Whether a line is part of a frame: ``+---+---+``."""
    drawn = _RULES - set(symbols)
    ends = itertools.pairwise(line)
    return set(line) <= _RULES | _CORNERS and any(a in drawn and b in drawn for a, b in ends)


def _lines(text: str, symbols: Collection[str]) -> list[str]:
    """The rows of a text as they are written, without comments and frames."""
    if '\\' not in symbols:
        text = text.replace('\\n', '\n')
    lines = text.replace(BYTE_ORDER_MARK, '').splitlines()
    lines = [
        line for line in lines if not is_comment(line, symbols) and not _is_rule(line, symbols)
    ]
    return lines if '/' in symbols else [part for line in lines for part in line.split('/')]


def rows_of(text: str, symbols: Collection[str]) -> list[str]:
    """Returns the lines that hold cells, without frames and separators.

    Args:
      text: of one puzzle; rows are lines, or separated by ``/`` or ``\\n`` within one.
      symbols: characters that stand for cells. Blanks, and lines of nothing else, are kept only
        where one of them is a blank.
    """
    lines = _lines(text, symbols)
    dropped = dict.fromkeys((c for c in _SEPARATORS if c not in symbols), '')
    if ' ' in symbols:
        return [line.translate(str.maketrans(dropped)) for line in lines]
    dropped = dict.fromkeys(dropped, ' ')
    kept = [line.translate(str.maketrans(dropped)) for line in lines]
    return [line for line in kept if line.strip()]


def fields(text: str, side: int, symbols: Collection[str]) -> list[str] | None:
    """Returns the cells of a board written as a table, '' for empty ones, or None where it is none.

    Args:
      text: as for ``rows_of``, or all in one row; commas, semicolons or tabs between the cells, and
        perhaps one at the end of a line.
      side: rows and columns of the board.
      symbols: characters that stand for cells.

    Raises:
      PuzzleError: a row has more or fewer fields than the others need: what its cells are, cannot
        be told.
    """
    lines = _lines(text, symbols)
    for mark in (mark for mark in _FIELD_MARKS if side and mark not in symbols):
        rows = [line.split(mark) for line in lines if mark in line or line.strip()]
        rows = [row[:-1] if len(row) % side == 1 and not row[-1].strip() else row for row in rows]
        if {len(row) for row in rows} in ({side}, {side * side}):
            return [cell.strip() for row in rows for cell in row]
        empty = [mark + mark in line.replace(' ', '') for line in lines]
        PuzzleError.require(
            not any(empty),
            f'a row of a table must have {side} fields, empty ones too; got '
            f'{", ".join(str(len(row)) for row in rows[:side])}. Write . for an empty cell.',
        )
    return None


def trimmed(lines: Sequence[str], least: int = 0) -> list[str]:
    """Returns the lines without those at both ends that are empty, down to ``least`` lines."""
    lines = list(lines)
    while len(lines) > least and not lines[-1].strip():
        lines.pop()
    while len(lines) > least and not lines[0].strip():
        lines.pop(0)
    return lines


def spread_rows(rows: Sequence[str], side: int) -> list[str] | None:
    """Returns the rows of a board whose cells are blanks, or None where they are none.

    Rows may be spread (``# S . #``) and may lack blanks at their ends.

    Args:
      rows: of ``rows_of``.
      side: rows and columns of the board.
    """
    rows = trimmed(rows, side)
    if len(rows) != side:
        return None
    longest = max(map(len, rows))
    if longest <= side:
        return [row.ljust(side) for row in rows]
    wide = 2 * side - 1
    spread = [row.rstrip().ljust(wide) for row in rows]
    if all(len(row) == wide and not row[1::2].strip() for row in spread):
        return [row[::2] for row in spread]
    return None


def nested(text: str) -> list[list[str]] | None:
    """Returns the rows of a puzzle written as JSON lists, or None where it is not such text.

    Raises:
      PuzzleError: lists of something else than cells.
    """
    text = text.replace(BYTE_ORDER_MARK, '').strip()
    if not text.startswith('['):
        return None
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    rows = value if value and all(isinstance(row, list) for row in value) else [value]
    for row in rows:
        for cell in row:
            PuzzleError.require(
                isinstance(cell, (str, int)) and not isinstance(cell, bool),
                f'a puzzle in JSON must be a list of cells, or of rows of cells; got {cell!r}.',
            )
    return [[str(cell) for cell in row] for row in rows]


def blocks(text: str, symbols: Collection[str]) -> list[str]:
    """Returns the parts of a text that empty lines separate, without comments.

    Args:
      text: any number of boards.
      symbols: characters that stand for cells.
    """
    found: list[list[str]] = [[]]
    for line in text.replace(BYTE_ORDER_MARK, '').splitlines():
        if is_comment(line, symbols):
            continue
        if line.strip() or '\t' in line:  # of tabs alone: a row of empty fields
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    return ['\n'.join(lines) for lines in found if lines]
