"""Puzzles as people write them, and whether an answer is one.

Sudoku: one character per cell, digits, ``.`` or 0 for an empty one. Mazes: ``#`` wall, blank or
``.`` floor, ``S`` start, ``G`` goal, ``o`` path. Boards for path finding: ``#``, ``.``, ``S``,
``E`` end, ``*`` path. Lisp: tokens between blanks. Anything else: token ids between blanks.
"""

import collections
from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from hrm_jax.data.augment import box_shape

# Task -> what a person may write -> token.
_CELLS = {
    'maze': {'#': 1, ' ': 2, '.': 2, 'S': 3, 'G': 4},
    'pathfinding': {'.': 0, ' ': 0, '#': 1, 'S': 2, 'E': 3},
}
# Task -> character of every token.
_SYMBOLS = {'maze': '?# SGo', 'pathfinding': '.#SE*'}
# Task -> (wall, start, end, path) tokens.
_PATHS = {'maze': (1, 3, 4, 5), 'pathfinding': (1, 2, 3, 4)}
_EMPTY = ('.', '0', '_')


class PuzzleError(ValueError):
    """A puzzle that can not be read; the text names the cell."""


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """How a task writes its tokens.

    Attributes:
      task: name of the task, '' for unknown ones.
      seq_len: cells of a puzzle.
      vocab_size: tokens.
      pad_id: fills up texts that are shorter than ``seq_len`` (Lisp).
      vocabulary: token -> id, for tasks that have one.
    """

    task: str
    seq_len: int
    vocab_size: int
    pad_id: int = 0
    vocabulary: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def side(self) -> int:
        """Rows of a square board; 0 where an example is no square."""
        side = round(self.seq_len**0.5)
        return side if side * side == self.seq_len else 0

    @property
    def is_board(self) -> bool:
        return self.task in ('sudoku', *_CELLS)

    def where(self, cell: int) -> str:
        """Names a cell, counted from 1."""
        if not self.side:
            return f'cell {cell + 1}'
        return f'row {cell // self.side + 1}, column {cell % self.side + 1}'

    def parse(self, text: str) -> np.ndarray:
        """Reads one puzzle, in one line or (boards) in one line per row.

        Returns:
          int32 [seq_len].

        Raises:
          PuzzleError: too few or many cells, an unknown character, or givens of a Sudoku that
            contradict each other; the first such cell is named.
        """
        if self.is_board:
            rows = text.strip('\r\n').splitlines()
            cells = ''.join(rows) if self.task != 'sudoku' else ''.join(text.split())
            tokens = [self._token(char, cell) for cell, char in enumerate(cells[: self.seq_len])]
            if len(cells) != self.seq_len:
                raise PuzzleError(
                    f'a {self.task} puzzle here must have {self.seq_len} cells '
                    f'({self.side} x {self.side}); got {len(cells)}. '
                    + (
                        f'The first one missing is {self.where(len(cells))}.'
                        if len(cells) < self.seq_len
                        else f'Nothing may follow {self.where(self.seq_len - 1)}.'
                    )
                )
        else:
            words = text.split()
            if not 0 < len(words) <= self.seq_len:
                raise PuzzleError(
                    f'a puzzle here must have 1 to {self.seq_len} tokens; got {len(words)}.'
                )
            tokens = [self._word(word, cell) for cell, word in enumerate(words)]
            tokens += [self.pad_id] * (self.seq_len - len(tokens))
        result = np.array(tokens, np.int32)
        if self.task == 'sudoku':
            clash = self._clash(result)
            if clash is not None:
                raise PuzzleError(clash)
        elif self.task in _PATHS:
            self._check_ends(result)
        return result

    def text(self, tokens: Sequence[int]) -> str:
        """Writes tokens in one line, as ``parse`` reads them."""
        if self.task == 'sudoku':
            return ''.join('.' if t == 1 else str(t - 1) if t > 1 else '?' for t in tokens)
        if self.task in _SYMBOLS:
            return ''.join(_SYMBOLS[self.task][t] for t in tokens)
        names = {token: word for word, token in self.vocabulary.items()}
        return ' '.join(names.get(int(t), str(int(t))) for t in tokens if t != self.pad_id)

    def is_valid(self, question: np.ndarray, answer: np.ndarray) -> bool | None:
        """Says whether an answer obeys the rules of the task; None where those are unknown.

        Sudoku: complete, the givens kept, no digit twice. Mazes and boards: nothing but floor
        has become path, and it leads from start to end.
        """
        if self.task == 'sudoku':
            kept = (question == 1) | (question == answer)
            return bool(kept.all() and answer.min() > 1 and self._clash(answer) is None)
        if self.task in _PATHS:
            return self._connects(question, answer)
        return None

    def _token(self, char: str, cell: int) -> int:
        if self.task == 'sudoku':
            if char in _EMPTY:
                return 1
            if char.isdecimal() and char.isascii() and int(char) <= self.vocab_size - 2:
                return int(char) + 1
            wanted = f"a digit 1..{self.vocab_size - 2}, or '.' or 0 for an empty cell"
        else:
            known = _CELLS[self.task]
            if char in known:
                return known[char]
            wanted = 'one of ' + ' '.join(repr(c) for c in known)
        raise PuzzleError(f'{self.where(cell)} must be {wanted}; got {char!r}.')

    def _word(self, word: str, cell: int) -> int:
        if word in self.vocabulary:
            return self.vocabulary[word]
        if not self.vocabulary and word.isdecimal() and int(word) < self.vocab_size:
            return int(word)
        wanted = 'a token of vocab.json' if self.vocabulary else f'an id 0..{self.vocab_size - 1}'
        raise PuzzleError(f'{self.where(cell)} must be {wanted}; got {word!r}.')

    def _clash(self, tokens: np.ndarray) -> str | None:
        """Names the first digit that stands twice in a row, column or box."""
        rows, columns = box_shape(self.side)
        for cell, token in enumerate(tokens):
            if token <= 1:
                continue
            r, c = divmod(cell, self.side)
            for other in np.flatnonzero(tokens[:cell] == token):
                i, j = divmod(int(other), self.side)
                units = {
                    'row': r == i,
                    'column': c == j,
                    'box': (r // rows, c // columns) == (i // rows, j // columns),
                }
                for unit, shared in units.items():
                    if shared:
                        return (
                            f'{self.where(cell)} must differ from {self.where(int(other))} in its '
                            f'{unit}; both are {token - 1}.'
                        )
        return None

    def _check_ends(self, tokens: np.ndarray) -> None:
        _, *ends, _ = _PATHS[self.task]
        for token in ends:
            found = np.flatnonzero(tokens == token)
            if len(found) != 1:
                places = '; '.join(self.where(int(cell)) for cell in found) or 'none'
                raise PuzzleError(f'there must be one {_SYMBOLS[self.task][token]}; got {places}.')

    def _connects(self, question: np.ndarray, answer: np.ndarray) -> bool:
        wall, start, end, path = _PATHS[self.task]
        changed = question != answer
        if (answer[changed] != path).any() or np.isin(question[changed], (wall, start, end)).any():
            return False
        side = self.side
        reached = collections.deque(np.flatnonzero(answer == start).tolist())
        seen = set(reached)
        while reached:
            cell = reached.popleft()
            r, c = divmod(cell, side)
            for i, j in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
                next_cell = i * side + j
                if not (0 <= i < side and 0 <= j < side) or next_cell in seen:
                    continue
                if answer[next_cell] == end:
                    return True
                if answer[next_cell] == path:
                    seen.add(next_cell)
                    reached.append(next_cell)
        return False
