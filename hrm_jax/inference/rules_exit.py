"""Leaving as soon as an answer obeys the rules: for models that do not decide when to halt.

A complete Sudoku that keeps the givens and has no digit twice in a unit is a solution, whatever the
model goes on to think: no later step can make it better. So the rule needs no logit, and no answer
that it accepts is wrong where a puzzle has one solution.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hrm_jax import tasks
from hrm_jax.tasks import sudoku_search
from hrm_jax.tasks.sudoku import Sudoku

# (questions, answers), int32 [B, S] token ids -> bool [B]
Solved = Callable[[jax.Array, jax.Array], jax.Array]
_LARGEST_SIDE = 16  # sums of bits fit in int32


def of_task(task: tasks.Task) -> Solved | None:
    """Whether answers obey the rules of a task, as ``task.is_valid`` says; None: not known here."""
    if not isinstance(task, Sudoku) or not 0 < task.side <= _LARGEST_SIDE:
        return None
    side, blank = task.side, task.blank
    units_US = sudoku_search.units(side)

    def solved(questions_BS: jax.Array, answers_BS: jax.Array) -> jax.Array:
        kept_B = ((questions_BS == blank) | (questions_BS == answers_BS)).all(-1)
        digits_BS = answers_BS - (blank + 1)
        complete_B = ((digits_BS >= 0) & (digits_BS < side)).all(-1)
        bits_BS = jnp.left_shift(1, jnp.clip(digits_BS, 0, side - 1))
        # ``side`` powers of two make this sum only where each of them is there once.
        distinct_B = (bits_BS[:, units_US].sum(-1) == 2**side - 1).all(-1)
        return kept_B & complete_B & distinct_B

    return solved
