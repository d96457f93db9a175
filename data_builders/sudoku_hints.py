"""Hint mixing: beside every training board a second one with some of its empty cells filled in.

Source: arXiv 2601.10679; renrua52/hrm-mechanistic-analysis, the flag --hint of
dataset/build_sudoku_dataset.py. A draw of a board's group gives a hinted one half of the time.
"""

import numpy as np

from data_builders import writing
from hrm_jax.data import hints
from hrm_jax.data.puzzles import PuzzleSet


def filled(questions_NS: np.ndarray, answers_NS: np.ndarray, chosen_NS: np.ndarray) -> np.ndarray:
    """Returns the questions with the chosen cells as in the answers."""
    return np.where(chosen_NS, answers_NS, questions_NS)


def draw(questions_NS: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws which empty cells (digit 0) are filled in: 1 to all but one of them, bool [N, S].

    Boards with fewer than two empty cells get no hint; the original stops at those with one.
    """
    blank_NS = questions_NS == 0
    count_N = blank_NS.sum(1)
    hints_N = np.where(count_N > 1, rng.integers(1, np.maximum(count_N, 2)), 0)
    return hints.chosen(blank_NS, hints_N, rng.random(questions_NS.shape))


def mix(
    questions_GS: np.ndarray, answers_GS: np.ndarray, copies: int, rng: np.random.Generator
) -> PuzzleSet:
    """Returns groups of ``2 * copies`` puzzles: each copy of a board and its hinted twin.

    Args:
      questions_GS, answers_GS: digits of the boards.
      copies: the board and its augmentations, whose maps apply to both.
      rng: draws the hints, new ones for every copy.
    """
    groups, cells = questions_GS.shape
    writing.require_memory(
        2 * groups * copies * cells, f'{groups:,} boards with {copies:,} hinted copies each'
    )
    questions = np.empty((groups, 1 + copies, cells), questions_GS.dtype)
    questions[:, 0] = questions_GS
    for question, answer, rows in zip(questions_GS, answers_GS, questions[:, 1:], strict=True):
        same = np.broadcast_to(question, rows.shape)
        rows[:] = filled(same, answer, draw(same, rng))
    examples = PuzzleSet.of_examples(
        questions.reshape(-1, cells), np.repeat(answers_GS, 1 + copies, axis=0)
    )
    first = np.arange(groups)[:, None, None] * (1 + copies)
    twin = np.stack([np.zeros(copies, np.int64), 1 + np.arange(copies)], axis=1)
    count = np.arange(2 * groups * copies + 1)
    return PuzzleSet(
        examples.inputs,
        examples.labels,
        group_indices=count[:: 2 * copies],
        puzzle_indices=count,
        puzzle_first=(first + twin).reshape(-1),
        puzzle_identifiers=np.zeros(len(count) - 1, np.int32),
    )
