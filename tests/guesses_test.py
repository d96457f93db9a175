"""Chains that begin with guesses: what is guessed, and which attempt is gone on with."""

import numpy as np
import pytest

from hrm_jax.inference import guesses
from hrm_jax.tasks import Maze, Sudoku

TASK = Sudoku(16, 6)


def tokens(text: str) -> np.ndarray:
    return np.array([1 + int(c) for c in text.replace(' ', '').replace('.', '0')], np.int32)


ASKED = tokens('1... .... .... ....')
# Two 3s in the first column, two 2s in the second row; the given 1 has become a 4.
ATTEMPT = tokens('4234 3422 2143 3312')


def shown(cells: np.ndarray) -> str:
    return ''.join('x' if cell else '.' for cell in cells)


def test_undisputed_cells_contradict_no_others_and_no_givens():
    # With the given: 1234 / 3422 / 2143 / 3312
    assert shown(TASK.undisputed(ASKED, ATTEMPT)) == '.xxx' + '.x..' + 'xxxx' + '..x.'
    solution = tokens('1234 3412 2143 4321')
    assert shown(TASK.undisputed(ASKED, solution)) == '.' + 15 * 'x'
    padding = np.where(solution == 3, 0, solution)  # no symbol at all is no guess
    assert not TASK.undisputed(ASKED, padding)[solution == 3].any()


def test_what_is_undisputed_can_be_asked():
    filled = guesses.question(TASK, ASKED, ATTEMPT, 16, np.random.default_rng(0))
    TASK.check_question(filled)
    free = TASK.undisputed(ASKED, ATTEMPT)
    np.testing.assert_array_equal(filled, np.where(free, ATTEMPT, ASKED))


@pytest.mark.parametrize('count', [0, 1, 5])
def test_as_many_cells_are_guessed_as_asked_for(count):
    rng = np.random.default_rng(0)
    filled = [guesses.question(TASK, ASKED, ATTEMPT, count, rng) for _ in range(20)]
    assert {int((one != ASKED).sum()) for one in filled} == {count}
    assert len({one.tobytes() for one in filled}) > 5 or count == 0


def test_a_solution_is_gone_on_with_else_the_least_disputed_attempt():
    solution = tokens('1234 3412 2143 4321')
    worse = np.full_like(ASKED, 2)
    assert guesses.best(TASK, ASKED, [worse, ATTEMPT, solution]) == 2
    assert guesses.best(TASK, ASKED, [worse, ATTEMPT, worse]) == 1


def test_only_sudokus_take_guesses():
    maze = Maze(25, 6)
    assert (TASK.takes_guesses, maze.takes_guesses) == (True, False)
    assert not maze.undisputed(np.zeros(25, int), np.zeros(25, int)).any()


def test_rounds_guess_more_and_more_up_to_three():
    assert [guesses.number_of(k) for k in range(9)] == [0, 1, 1, 2, 2, 3, 3, 3, 3]
