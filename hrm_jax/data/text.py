"""How puzzles of a custom set are written as text, and how text becomes tokens and back.

By default every character is a symbol and line breaks separate rows: a puzzle of one row is a text,
one of several rows is a grid. What else separates rows, which characters are a blank cell, and
whether cells are words, is stated by whoever builds the set and kept beside it.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.data import names
from hrm_jax.errors import DatasetError, PuzzleError

# A puzzle as its cells: rows of tokens, all of one length.
Grid = tuple[tuple[str, ...], ...]

PAD = '<pad>'
_LONGEST = 1 << 20  # rows or columns of a canvas
READING = 'reading.json'  # file of a custom set


@dataclasses.dataclass(frozen=True)
class Form:
    """How a puzzle is written.

    Attributes:
      words: cells are words separated by blanks, not characters.
      rows: characters that separate rows, beside line breaks.
      blank: characters that all stand for an empty cell, which is stored as the first of them.
    """

    words: bool = False
    rows: str = ''
    blank: str = ''

    def __post_init__(self):
        both = set(self.rows) & set(self.blank)
        PuzzleError.require(
            not both and len(set(self.blank)) == len(self.blank),
            f'the characters between rows ({self.rows!r}) and those of an empty cell '
            f'({self.blank!r}) must all differ.',
        )
        PuzzleError.require(
            not self.words or not set(self.rows + self.blank) & set(' \t'),
            'a space separates words, so it cannot separate rows or be an empty cell too.',
        )

    def parse(self, text: str) -> Grid:
        """Splits a text into rows of cells.

        Raises:
          PuzzleError: it has no cells, or rows of several lengths.
        """
        text = text.strip('\r\n')  # line breaks at the ends are the writer's, no empty rows
        separators = '|'.join(['\r\n', '\n', '\r', *map(re.escape, self.rows)])
        rows = re.split(separators, text)
        if self.words:
            return self.of_rows([row.split() for row in rows])
        return self.of_rows(rows)

    def of_rows(self, rows: Sequence[Iterable[str]]) -> Grid:
        """Returns rows of cells as a grid, with one symbol for every empty cell.

        Raises:
          PuzzleError: there are no cells, or rows of several lengths.
        """
        blanks = set(self.blank)
        grid = tuple(
            tuple(self.blank[0] if cell in blanks else cell for cell in row) for row in rows
        )
        lengths = [len(row) for row in grid]
        PuzzleError.require(any(lengths), 'it must have cells; it is empty.')
        differs = next((k for k, length in enumerate(lengths) if length != lengths[0]), None)
        PuzzleError.require(
            differs is None,
            f'all rows of a grid must have one length; row 1 has {lengths[0]} cells and row '
            f'{(differs or 0) + 1} has {lengths[differs or 0]}.',
        )
        return grid

    def write(self, grid: Sequence[Sequence[str]]) -> str:
        """Returns the text of a grid, which ``parse`` reads: one line per row."""
        return '\n'.join((' ' if self.words else '').join(row) for row in grid)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How the texts of one set become token ids.

    Attributes:
      form: how a puzzle is written.
      height, width: rows and columns of the canvas; smaller puzzles are padded with id 0.
      vocabulary: token -> id, from 1.
    """

    form: Form
    height: int
    width: int
    vocabulary: Mapping[str, int]

    @property
    def kind(self) -> str:
        """'grid', or 'text' where every puzzle is one row."""
        return 'grid' if self.height > 1 else 'text'

    def encode(self, puzzle: str | Grid) -> np.ndarray:
        """Returns the token ids of a puzzle, int32 [height * width].

        Raises:
          PuzzleError: it is larger than the canvas, malformed, or has an unknown token.
        """
        grid = self.form.parse(puzzle) if isinstance(puzzle, str) else puzzle
        PuzzleError.require(
            len(grid) <= self.height and len(grid[0]) <= self.width,
            f'a puzzle here has at most {self.height} rows of {self.width} cells; got {len(grid)} '
            f'of {len(grid[0])}.',
        )
        cells = np.zeros((self.height, self.width), np.int32)
        for k, row in enumerate(grid):
            unknown = [token for token in row if token not in self.vocabulary]
            PuzzleError.require(
                not unknown,
                f'row {k + 1} has {unknown[:1]}, which is not a token of this set '
                f'({self.symbols()}).',
            )
            cells[k, : len(row)] = [self.vocabulary[token] for token in row]
        return cells.reshape(-1)

    def decode(self, tokens: Any) -> str:
        """Returns the text of token ids, without the padding below and to the right.

        Padding between cells, and an id of no token, are shown as '?'.
        """
        cells = np.asarray(tokens).reshape(self.height, self.width)
        rows, columns = (np.flatnonzero((cells != 0).any(axis=axis)) for axis in (1, 0))
        cells = cells[: rows.max(initial=-1) + 1, : columns.max(initial=-1) + 1]
        token_of = {number: token for token, number in self.vocabulary.items()}
        return self.form.write([[token_of.get(int(cell), '?') for cell in row] for row in cells])

    def symbols(self, limit: int = 40) -> str:
        """Returns the vocabulary for a message: a space is shown as ``' '``."""
        shown = [token if token.isprintable() and token.strip() else repr(token)
                 for token in list(self.vocabulary)[:limit]]  # fmt: skip
        return ' '.join(shown) + (' ...' if len(self.vocabulary) > limit else '')

    def to_json(self) -> str:
        """Returns the text of ``reading.json``; ``vocab.json`` has the vocabulary."""
        facts = {'kind': self.kind, 'height': self.height, 'width': self.width}
        return json.dumps(facts | dataclasses.asdict(self.form), indent=2)


def reading_of(folder: str | os.PathLike) -> Reading | None:
    """Returns how the texts of a custom set are read; None where the set does not state it.

    Raises:
      DatasetError: ``reading.json`` or ``vocab.json`` is damaged.
    """
    folder = pathlib.Path(folder).expanduser()
    if not (folder / READING).is_file():
        return None
    facts = files.read_json(folder / READING, DatasetError, dict)
    kinds = {'height': int, 'width': int, 'words': bool, 'rows': str, 'blank': str}
    wrong = [key for key, kind in kinds.items() if type(facts.get(key)) is not kind]
    wrong += [
        key for key in ('height', 'width') if key not in wrong and not 0 < facts[key] <= _LONGEST
    ]  # fmt: skip
    DatasetError.require(
        not wrong,
        f'{folder / READING} must have {", ".join(kinds)}, sizes in 1..{_LONGEST}; wrong: '
        f'{", ".join(wrong)}. Build the set again.',
    )
    form = Form(facts['words'], facts['rows'], facts['blank'])
    tokens = names.vocabulary_of(folder)
    vocabulary = {token: number for token, number in tokens.items() if number}
    return Reading(form, facts['height'], facts['width'], vocabulary)
