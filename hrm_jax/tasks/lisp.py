"""Lisp expressions."""

from collections.abc import Sequence

import numpy as np

from hrm_jax.tasks import puzzle_text
from hrm_jax.tasks.base import Task


class Lisp(Task):
    """Lisp expressions to simplify: words of a vocabulary, separated by blanks."""

    name = 'lisp'
    summary = 'simplification of Lisp expressions'

    def _rows(self, text: str) -> list[Sequence[str]]:
        rows = puzzle_text.rows_of(text, self.written | {'/', '-'})
        return [row.replace('(', ' ( ').replace(')', ' ) ').split() for row in rows]

    def finished(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Ends the answer where its first expression ends: what follows was never trained."""
        depth = 0
        for cell, token in enumerate(answer):
            depth += {'(': 1, ')': -1}.get(self.symbol(int(token)), 0)
            if depth <= 0:
                return np.where(np.arange(len(answer)) > cell, self.pad_id, answer)
        return answer
