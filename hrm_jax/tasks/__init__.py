"""The tasks: what their tokens mean, how people write them, their rules, symmetries and colours.

One class per task, the only definition of it: builders, loader, scoring, solver, pages and
converters read it from here. A new task is a subclass of ``Task`` in a file of this folder (and a
builder). No JAX, so that data sets can be built on machines without it.
"""

import importlib
import math
import pkgutil

import numpy as np

from hrm_jax.tasks.arc import Arc
from hrm_jax.tasks.base import CELL_COLOURS, TASKS, Board, Task
from hrm_jax.tasks.lisp import Lisp
from hrm_jax.tasks.paths import Maze, PathFinding
from hrm_jax.tasks.sudoku import Sudoku
from hrm_jax.tasks.sudoku_search import box_shape

__all__ = [
    'CELL_COLOURS', 'TASKS', 'Arc', 'Board', 'Lisp', 'Maze', 'PathFinding', 'Sudoku', 'Task',
    'box_shape', 'guess', 'infer', 'kind_of',
]  # fmt: skip

# Importing a module of this folder puts its tasks into TASKS: a new task is a new file.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_module.name}')


def kind_of(name: str) -> type[Task]:
    """Returns the class of a task; tasks of other names are plain ``Task``."""
    return TASKS.get(name, Task)


def guess(
    vocab_size: int, seq_len: int, has_vocabulary: bool, inputs: np.ndarray, labels: np.ndarray
) -> str:
    """Guesses the task of a folder whose metadata does not name it, from sizes and content.

    Args:
      vocab_size, seq_len: of the folder.
      has_vocabulary: whether there is a ``vocab.json``.
      inputs, labels: some examples, int [B, S].

    Returns:
      A name of ``TASKS``, or '' where nothing fits.
    """
    if has_vocabulary:
        return 'lisp'
    side = math.isqrt(seq_len)
    if side * side != seq_len or not len(inputs):
        return ''
    if (vocab_size, side) == (Arc.COLOURS + Arc.FIRST_COLOUR, Arc.SIDE):
        return 'arc'
    for kind in (Maze, PathFinding):
        ends = all(((inputs == token).sum(1) == 1).all() for token in (kind.START, kind.END))
        if vocab_size == len(kind.symbols) and ends:
            return kind.name
    # 4x4 Sudokus and mazes have the same sizes: what distinguishes them is that every digit stands
    # as often in an answer as every other.
    digits = all(((labels == token).sum(1) == side).all() for token in range(2, side + 2))
    return 'sudoku' if vocab_size == side + 2 and side > 1 and digits else ''


def infer(vocab_size: int, seq_len: int) -> str:
    """Infers the task of a model whose checkpoint does not name it, from its sizes alone.

    Sizes that two tasks share (4x4 Sudokus and mazes) give the more frequent one; what is inferred
    is shown to the user, who may state another.

    Returns:
      A name of ``TASKS``, or '' where nothing fits.
    """
    side = math.isqrt(seq_len)
    if side * side != seq_len:
        return ''
    if (vocab_size, side) == (Arc.COLOURS + Arc.FIRST_COLOUR, Arc.SIDE):
        return Arc.name
    if vocab_size == side + 2 and 4 <= side <= len(Sudoku.symbols) - 2:
        return Sudoku.name
    for kind in (Maze, PathFinding):
        if vocab_size == len(kind.symbols):
            return kind.name
    return ''
