"""Hint mixing: boards with some of their empty cells filled in, as easier puzzles to learn from.

Source: arXiv 2601.10679; renrua52/hrm-mechanistic-analysis, the flag --hint of
dataset/build_sudoku_dataset.py. It writes a hinted twin beside every training board, so that a draw
of a board gives a hinted one half of the time; data_builders/sudoku_hints.py does the same. Here
also: the same in every batch anew, with other hints at every visit (``data.hint_prob``).

An empty cell is one whose question is not yet its answer, whatever the tokens are.
"""

import numpy as np

from hrm_jax.data.puzzles import PuzzleDataset
from hrm_jax.errors import ConfigError


def check(dataset: PuzzleDataset, probability: float) -> None:
    """Raises ConfigError when questions are not their answers with cells left open."""
    task = dataset.metadata.task
    ConfigError.require(
        probability == 0 or task == 'sudoku',
        f'data.hint_prob={probability} fills in empty cells of Sudoku boards; {dataset.path} has '
        f'task {task!r}. Leave it at 0.',
    )


def uniforms_needed(cells: int) -> int:
    """Returns how many uniform numbers ``mixed`` wants for one board."""
    return 2 + cells


def chosen(empty_BS: np.ndarray, hints_B: np.ndarray, uniforms_BS: np.ndarray) -> np.ndarray:
    """Chooses empty cells, each with equal probability.

    Args:
      empty_BS: bool, the empty cells of each board.
      hints_B: how many of them.
      uniforms_BS: numbers in [0, 1).

    Returns:
      bool [B, S].
    """
    order_BS = np.where(empty_BS, uniforms_BS, 1.0)
    rank_BS = order_BS.argsort(1).argsort(1)
    return empty_BS & (rank_BS < hints_B[:, None])


def mixed(
    inputs_BS: np.ndarray, labels_BS: np.ndarray, probability: float, uniforms_BK: np.ndarray
) -> np.ndarray:
    """Returns the questions, some of them with 1 to all but one of their empty cells filled in.

    Args:
      inputs_BS, labels_BS: tokens; given cells are their own answers, and a negative label is none.
      probability: of hints, for each board. Boards with fewer than two empty cells get none; the
        original stops at those with one.
      uniforms_BK: numbers in [0, 1), [B, ``uniforms_needed(S)``].
    """
    empty_BS = (inputs_BS != labels_BS) & (labels_BS >= 0)
    count_B = empty_BS.sum(1)
    hints_B = 1 + (uniforms_BK[:, 1] * (count_B - 1)).astype(np.int64)
    has_hints_B = (uniforms_BK[:, 0] < probability) & (count_B > 1)
    filled_BS = chosen(empty_BS, np.where(has_hints_B, hints_B, 0), uniforms_BK[:, 2:])
    return np.where(filled_BS, labels_BS, inputs_BS)
