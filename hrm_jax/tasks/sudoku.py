"""Sudoku of any size."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from hrm_jax.errors import PuzzleError
from hrm_jax.tasks import puzzle_text, sudoku_search
from hrm_jax.tasks.base import Board
from hrm_jax.tasks.sudoku_search import box_shape


class Sudoku(Board):
    """Sudoku of any size: token 0 is padding, 1 an empty cell, digit d is d + 1.

    Digits above 9 are written as letters, large or small, or as numbers separated by blanks or
    commas. ``.``, 0, ``_`` and ``*`` are empty cells; so are blanks where they keep their places,
    and the empty fields of a table (commas, semicolons, tabs).
    """

    name = 'sudoku'
    summary = 'Sudoku boards and solutions'
    symbols = '?.123456789ABCDEFGHIJKLMNOP'
    aliases = {'0': 1, '_': 1, '*': 1} | dict(zip('abcdefghijklmnop', range(11, 27), strict=True))
    blank: ClassVar[int] = 1
    symmetries = 'sudoku'
    judged = ('valid',)
    difficulty_name = 'givens'
    first_symbol: ClassVar[int] = 2

    @property
    def boxes(self) -> tuple[int, int] | None:
        return box_shape(self.side) if self.side else None

    def with_side(self, side: int) -> 'Sudoku':
        most = len(self.symbols) - self.first_symbol
        PuzzleError.require(1 < side <= most, f'a Sudoku must have 2 to {most} rows; got {side}.')
        return dataclasses.replace(self, seq_len=side * side, vocab_size=side + self.first_symbol)

    def _cells(self, text: str) -> Sequence[str]:
        fields = puzzle_text.fields(text, self.side, self.written)
        if fields is not None:
            return [field or self.symbols[self.blank] for field in fields]
        words = ' '.join(puzzle_text.rows_of(text, self.written)).split()
        if len(words) == self.seq_len:
            return words
        cells = ''.join(words)
        if len(cells) < self.seq_len:
            rows = puzzle_text.rows_of(text, self.written | {' '})
            full = ''.join(puzzle_text.spread_rows(rows, self.side) or rows)
            if len(full) == self.seq_len:
                return full.replace(' ', self.symbols[self.blank])
        return cells

    def _token(self, word: str, cell: int) -> int:
        digits = self.vocab_size - 2
        token = self.aliases.get(word, self.symbols.find(word))
        if len(word) > 1:
            token = int(word) + 1 if word.isdecimal() else 0
        if 1 <= token <= digits + 1:
            return token
        highest = self.symbols[digits + 1]
        raise PuzzleError(
            f"{self.where(cell)} must be a digit 1..{highest}, or '.' or 0 for an empty cell; "
            f'got {word!r}.'
        )

    def check_question(self, tokens: np.ndarray) -> None:
        clash = self._clash(tokens)
        if clash is not None:
            cell, other, unit = clash
            raise PuzzleError(
                f'{self.where(cell)} must differ from {self.where(other)} in its {unit}; both are '
                f'{self.symbol(int(tokens[cell]))}.'
            )

    def is_valid(self, question: np.ndarray, answer: np.ndarray) -> bool | None:
        """Complete, the givens kept, and no digit twice in a row, column or box."""
        kept = (question == self.blank) | (question == answer)
        return bool(kept.all() and answer.min() > 1 and self._clash(answer) is None)

    @property
    def takes_guesses(self) -> bool:
        return bool(self.side)

    def undisputed(self, question: np.ndarray, attempt: np.ndarray) -> np.ndarray:
        is_open = question == self.blank
        board = np.where(is_open, attempt, question)
        units = sudoku_search.units(self.side)
        in_units = board[units]
        twice = (in_units[:, :, None] == in_units[:, None, :]).sum(-1) > 1
        disputed = np.zeros(board.shape, bool)
        np.logical_or.at(disputed, units.reshape(-1), twice.reshape(-1))
        return is_open & ~disputed & (board > self.blank)

    def difficulty(self, question: np.ndarray) -> int:
        """Digits that are given."""
        return int((question > self.blank).sum())

    def count_solutions(
        self, question: np.ndarray, limit: int = 2, max_nodes: int | None = None
    ) -> int | None:
        if not self.side:
            return None
        digits = np.maximum(question, self.blank) - self.blank
        return sudoku_search.searching(self.side).count(digits, limit, max_nodes)

    def _clash(self, tokens: np.ndarray) -> tuple[int, int, str] | None:
        """The first cell whose digit stands twice in a unit, the other cell, and the unit."""
        side, units = self.side, sudoku_search.units(self.side)
        in_units = np.sort(tokens[units], axis=1)
        if not ((in_units[:, 1:] == in_units[:, :-1]) & (in_units[:, 1:] > self.blank)).any():
            return None
        rows, columns = box_shape(side)
        for cell, token in enumerate(tokens):
            r, c = divmod(cell, side)
            for other in np.flatnonzero(tokens[:cell] == token) if token > self.blank else ():
                i, j = divmod(int(other), side)
                shared = {
                    'row': r == i,
                    'column': c == j,
                    'box': (r // rows, c // columns) == (i // rows, j // columns),
                }
                for unit in shared:
                    if shared[unit]:
                        return cell, int(other), unit
        return None

    @staticmethod
    def encode(board: Any) -> np.ndarray:
        """Turns a Sudoku into tokens, int32 [cells].

        Args:
          board: digits with 0 for empty cells, as an array of any shape, nested lists, or text as
            ``parse`` reads it.

        Raises:
          PuzzleError: a cell is not a digit.
        """
        if isinstance(board, str):
            cells = ''.join(board.split())
            return Sudoku(len(cells), len(Sudoku.symbols))._encoded(cells)
        digits = np.asarray(board)
        PuzzleError.require(
            digits.dtype.kind in 'iu' and digits.size > 0 and digits.min() >= 0
            and digits.max() < len(Sudoku.symbols) - 1,
            f'a Sudoku has whole numbers from 0 (empty) to {len(Sudoku.symbols) - 2}.',
        )  # fmt: skip
        return digits.reshape(-1).astype(np.int32) + 1

    def _encoded(self, cells: str) -> np.ndarray:
        PuzzleError.require(bool(cells), 'a Sudoku has digits and dots; got nothing.')
        return np.array([self._token(char, cell) for cell, char in enumerate(cells)], np.int32)

    @staticmethod
    def decode(tokens: Any) -> np.ndarray:
        """Turns tokens into digits, int32 [side, side]; empty cells are 0, padding is -1."""
        cells = np.asarray(tokens, np.int32).reshape(-1) - 1
        side = math.isqrt(cells.size)
        return cells.reshape(side, side)
