"""Puzzles leave when their answer obeys the rules: the rule itself, and the loop that asks it."""

import dataclasses

import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.inference import rules_exit
from hrm_jax.inference.solver import Solver
from hrm_jax.tasks.sudoku import Sudoku
from tests import commands

PUZZLE = '53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79'


def _solved(side):
    """A solution of a board of some size, as tokens."""
    rows = {4: 2, 6: 2, 9: 3, 16: 4}[side]
    columns = side // rows
    shift = [i % rows * columns + i // rows for i in range(side)]
    return np.array([[(j + s) % side + 2 for j in range(side)] for s in shift], np.int32)


@pytest.mark.parametrize('side', [4, 6, 9, 16])
def test_the_rule_is_that_of_the_task(side):
    task = Sudoku(side * side, side + 2)
    right = _solved(side).reshape(-1)
    rng = np.random.default_rng(side)
    answers = [right]
    for _ in range(40):  # a digit changed, two cells or two rows exchanged, cells left open
        other = right.copy()
        cells = rng.integers(side * side, size=2)
        kind = rng.integers(4)
        if kind == 0:
            other[cells[0]] = rng.integers(0, side + 2)
        elif kind == 1:
            other[cells] = other[cells[::-1]]
        elif kind == 2:
            board = other.reshape(side, side)
            board[rng.permutation(side)[:2]] = board[rng.permutation(side)[:2]]
        else:
            other[cells] = 1
        answers.append(other)
    questions = np.where(rng.random((len(answers), side * side)) < 0.5, right, 1).astype(np.int32)
    questions[rng.random(len(answers)) < 0.2] = 1
    solved = rules_exit.of_task(task)
    assert solved is not None
    found = np.asarray(solved(questions, np.stack(answers)))
    expected = [task.is_valid(q, a) for q, a in zip(questions, answers, strict=True)]
    np.testing.assert_array_equal(found, expected)
    assert 0 < sum(expected) < len(expected)


def test_tasks_without_known_rules():
    assert rules_exit.of_task(tasks.kind_of('maze')(9, 6)) is None
    assert rules_exit.of_task(Sudoku(625, 27)) is None  # 25 rows: too many for 32 bits


def test_the_installed_model_leaves_when_it_is_right():
    with commands.quick_compiles():
        solver = Solver.pretrained('sudoku9')
        assert solver.config.act.halting == 'fixed'
        (early,) = solver.solve([PUZZLE])
        (whole,) = solver.solve([PUZZLE], early_exit=False)
        assert early.valid
        assert whole.valid
        np.testing.assert_array_equal(early.answer, whole.answer)
        assert early.steps < whole.steps == solver.config.eval_steps
        # One step earlier it was not yet right, and then no rule lets it go.
        (shorter,) = solver.solve([PUZZLE], steps=int(early.steps) - 1)
        assert shorter.steps == early.steps - 1
        assert not shorter.valid


def test_a_model_that_halts_by_itself_keeps_to_it(monkeypatch):
    solver = Solver.pretrained('sudoku9')
    act = dataclasses.replace(solver.config.act, halting='halt_only')
    solver.config = dataclasses.replace(solver.config, act=act)
    monkeypatch.setattr(rules_exit, 'of_task', lambda task: pytest.fail('was asked'))
    with commands.quick_compiles():
        solver.solve([PUZZLE], steps=1)
