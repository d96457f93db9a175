"""ARC grids."""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

from hrm_jax.errors import PuzzleError
from hrm_jax.tasks import puzzle_text
from hrm_jax.tasks.base import Task


class Arc(Task):
    """ARC grids on a square canvas: 0 padding, 1 end marker, colour c is token c + 2.

    The canvas has 30 x 30 cells, or fewer where the data set was built for smaller grids. The
    colours are those of ARC's own viewer.
    """

    name = 'arc'
    summary = 'ARC-AGI-1, ARC-AGI-2, ConceptARC'
    SIDE = 30
    COLOURS = 10
    PAD, END, FIRST_COLOUR = 0, 1, 2
    symmetries = 'arc'
    first_symbol = FIRST_COLOUR  # black too, as SE-RRM has it
    colours = (
        '#ffffff', '#f3f3f3', '#000000', '#0074d9', '#ff4136', '#2ecc40', '#ffdc00', '#aaaaaa',
        '#f012be', '#ff851b', '#7fdbff', '#870c25',
    )  # fmt: skip

    @staticmethod
    def encode(grid: Any, side: int = SIDE) -> np.ndarray:
        """Turns a grid of colours 0 to 9 into tokens, in the upper left corner.

        Args:
          grid: rows of colours.
          side: rows and columns of the canvas.

        Returns:
          int32 [side * side].

        Raises:
          PuzzleError: the grid is larger than the canvas, empty, or has another colour.
        """
        grid = np.asarray(grid)
        PuzzleError.require(
            grid.ndim == 2 and grid.size > 0 and max(grid.shape) <= side,
            f'an ARC grid for this canvas has 1 to {side} rows and columns; got {grid.shape}.',
        )
        PuzzleError.require(
            grid.dtype.kind in 'iu' and grid.min() >= 0 and grid.max() < Arc.COLOURS,
            'an ARC grid has the colours 0 to 9.',
        )
        rows, columns = grid.shape
        tokens = np.zeros((side, side), np.int32)
        tokens[:rows, :columns] = grid + Arc.FIRST_COLOUR
        tokens[rows : rows + 1, :columns] = Arc.END
        tokens[:rows, columns : columns + 1] = Arc.END
        return tokens.reshape(-1)

    @property
    def shape(self) -> tuple[int, int]:
        return self.side, self.side

    def symbol(self, token: int) -> str:
        return str(token - self.FIRST_COLOUR) if token >= self.FIRST_COLOUR else '.'

    def parse(self, text: str) -> np.ndarray:
        """Reads a grid: rows of digits, one a line or separated by ``/``."""
        rows = puzzle_text.nested(text) or puzzle_text.rows_of(text, '0123456789')
        rows = [row if isinstance(row, list) else ''.join(row.split()) for row in rows]
        for number, row in enumerate(rows, 1):
            PuzzleError.require(
                len(row) == len(rows[0]) and all(c.isdecimal() and len(c) == 1 for c in row),
                f'row {number} must have as many cells as row 1, each a colour 0..9; got {row!r}.',
            )
        return self.encode([list(map(int, row)) for row in rows], self.side)

    def extent(self, tokens: np.ndarray) -> tuple[int, int]:
        return self.decode(tokens).shape

    def finished(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        return answer  # end markers state its size

    def text(self, tokens: Sequence[int] | np.ndarray) -> str:
        return '/'.join(''.join(row) for row in self.cells(np.asarray(tokens)))

    @staticmethod
    def decode(tokens: Any) -> np.ndarray:
        """Turns tokens into the largest upper-left rectangle of colours, int32 [rows, columns]."""
        square, first = np.asarray(tokens, np.int32), Arc.FIRST_COLOUR
        side = math.isqrt(square.size)
        square = square.reshape(side, side)
        run = (square < first).argmax(1) + side * (square >= first).all(1)
        widths = np.minimum.accumulate(run)
        rows = int((widths * np.arange(1, side + 1)).argmax()) + 1
        return square[:rows, : widths[rows - 1]] - first
