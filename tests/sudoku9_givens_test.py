"""What the installed model solves by number of givens: kept answers, and their table."""

import types

import numpy as np

from experiments import sudoku9_givens
from hrm_jax import files, tasks
from hrm_jax.errors import WorkdirError


class Fake:
    """Solves boards by 64 steps alone."""

    def __init__(self):
        self.task = tasks.Sudoku(81, 11)
        self.asked = []

    def solve(self, questions, *, steps, early_exit=True, retries=0):
        self.asked.append((len(questions), steps, early_exit, retries))
        answer = np.full(81, 2, np.int32) if steps == 64 else np.ones(81, np.int32)
        return [types.SimpleNamespace(answer=answer, steps=steps / 2, chains=2)] * len(questions)


def test_answers_are_kept_and_counted(tmp_path):
    questions = np.ones((30, 81), np.int32)
    for number in range(30):
        questions[number, : 20 + number] = 3
    labels, path, fake = np.full((30, 81), 2, np.int32), tmp_path / 'x.json', Fake()
    sudoku9_givens.measure(fake, questions[:25], labels[:25], path)
    assert fake.asked == [(25, 16, False, 0), (25, 64, False, 0), (25, 16, True, 64)]
    found = sudoku9_givens.measure(fake, questions, labels, path)
    assert [count for count, *_ in fake.asked[3:]] == [5, 5, 5]
    assert found == files.read_json(path, WorkdirError, list)
    assert found[3] == [23, 0, 16.0, 1, 64.0, 0, 16.0]
    lines = sudoku9_givens.table(found, 0.5).splitlines()
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines[2:]]
    assert [row[:2] for row in rows[:2]] == [['20 to 23', '4'], ['24 to 28', '5']]
    assert rows[-1] == ['20 to 49', '30', '0.0%', '8', '100.0%', '32', '0.0%', '8']
    assert sum(int(row[1]) for row in rows[:-1]) == 30


def test_boards_with_the_same_givens_are_one_band():
    lines = sudoku9_givens.table([[30, 1, 16, 1, 64, 1, 2]] * 3, 1.0).splitlines()
    assert len(lines) == 4
    assert lines[2] == lines[3] == '| 30 | 3 | 100.0% | 16 | 100.0% | 64 | 100.0% | 2 |'
