"""Chains that begin with guesses, for puzzles whose answer broke the rules.

A model fills in what follows from a puzzle and errs where nothing does. So such a chain is given a
few cells more: symbols of the last attempt that contradict no others. With right guesses the rest
may follow; wrong ones end in answers that break the rules, which nobody takes for a solution. The
search is random and learned at once: the model proposes, the rules accept, labels take no part.
"""

from collections.abc import Sequence

import numpy as np

from hrm_jax.tasks import Task


def number_of(round_: int) -> int:
    """Guessed cells of each chain of a round: 0, 1, 1, 2, 2, and then 3.

    More at once are rarely all right; attempts get better from round to round, and then more are.
    """
    return min((round_ + 1) // 2, 3)


def question(
    task: Task, asked: np.ndarray, attempt: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns a question with some of its open cells filled in, int32 [S].

    Args:
      task: knows which cells of an attempt contradict no others.
      asked: the question itself, int32 [S].
      attempt: an answer that breaks the rules, int32 [S].
      count: cells to fill in, at most.
      rng: chooses them.
    """
    free = np.flatnonzero(task.undisputed(asked, attempt))
    guessed = rng.choice(free, min(count, len(free)), replace=False)
    filled = asked.copy()
    filled[guessed] = attempt[guessed]
    return filled


def best(task: Task, asked: np.ndarray, answers: Sequence[np.ndarray]) -> int:
    """Which answer to go on with: one that obeys the rules, else the least disputed one."""
    worth = [
        asked.size + 1 if task.is_valid(asked, answer) else task.undisputed(asked, answer).sum()
        for answer in answers
    ]
    return int(np.argmax(worth))
