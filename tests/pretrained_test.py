"""The installed Sudoku model: what a newcomer types first."""

import jax
import pytest

from hrm_jax import Solver
from hrm_jax.cli import play, solve
from hrm_jax.config import RolloutConfig
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import formats, pretrained
from tests import browser as browser_lib
from tests import commands

EASY = '53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79'
ANSWER = '534678912672195348198342567859761423426853791713924856961537284287419635345286179'
FRAMED = """
+-------+-------+-------+
| 5 3 . | . 7 . | . . . |
| 6 . . | 1 9 5 | . . . |
| . 9 8 | . . . | . 6 . |
+-------+-------+-------+
| 8 . . | . 6 . | . . 3 |
| 4 . . | 8 . 3 | . . 1 |
| 7 . . | . 2 . | . . 6 |
+-------+-------+-------+
| . 6 . | . . . | 2 8 . |
| . . . | 4 1 9 | . . 5 |
| . . . | . 8 . | . 7 9 |
+-------+-------+-------+
"""
UNSOLVABLE = '12345678.........9' + '.' * 63  # the last cell of the first row
SEVERAL = ANSWER.replace('1', '.').replace('2', '.')


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def test_the_first_example(capsys):
    assert commands.exit_code(solve.main, EASY) == 0
    printed = capsys.readouterr()
    assert ANSWER in printed.out
    assert ', valid' in printed.out
    assert 'model: sudoku9, installed with hrm_jax' in printed.err


def test_puzzles_of_all_kinds(tmp_path, capsys):
    lines = [EASY, EASY.replace('.', '0'), UNSOLVABLE, SEVERAL, '.' * 80]
    file = tmp_path / 'puzzles.txt'
    file.write_text('\n'.join(lines))
    assert commands.exit_code(solve.main, file, '--retries', '8', '--steps', '4') == 1
    rows = [line.split('\t') for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[:2]] == [ANSWER, ANSWER]
    status = [row[3] for row in rows]
    assert status[:2] == ['valid', 'valid']
    assert status[2] == 'invalid, the puzzle has no solution'
    assert 'the puzzle has several solutions' in status[3]
    assert '81' in status[4]


def test_a_board_in_a_frame(tmp_path, capsys):
    file = tmp_path / 'board.txt'
    file.write_text(FRAMED)
    assert commands.exit_code(solve.main, '--board', file) == 0
    assert ANSWER in capsys.readouterr().out


def test_what_is_not_solved_is_not_an_answer(capsys):
    assert commands.exit_code(solve.main, UNSOLVABLE, '--retries', '8', '--steps', '2') == 0
    text = capsys.readouterr().out
    assert 'attempt' in text.splitlines()[0]
    assert 'Unsolved: the last attempt, shown above, breaks the rules.' in text
    assert 'The puzzle has no solution.' in text


def test_from_python():
    solver = Solver.pretrained('sudoku9')
    [solution] = solver.solve([EASY])
    assert (solution.text, solution.valid) == (ANSWER, True)
    parameters = sum(x.size for x in jax.tree.leaves(solver.weights.params))
    assert f'| parameters | {parameters:,} ' in pretrained.card('sudoku9')
    for named in (formats.open_model('sudoku9')[0], formats.load('sudoku9')):
        assert named.config == solver.config
    with pytest.raises(CheckpointError, match=r"called 'sudoku10' is installed.*: sudoku9"):
        Solver.pretrained('sudoku10')


@pytest.mark.chromium
def test_the_page_of_the_installed_model_solves(tmp_path):
    page = tmp_path / 'sudoku.html'
    play.play(play.parser().parse_args(['-o', str(page)]))
    assert page.stat().st_size < 400_000
    with browser_lib.started() as browser:
        browser.open(page)
        browser.run("document.getElementById('solve').click()")
        text = browser.wait(
            "const v = document.getElementById('verdict'); return v.className && v.textContent", 60
        )
        shown = browser.run(
            "return [...document.querySelectorAll('.cell')].map((c) => c.textContent).join('')"
        )
    assert text.startswith('Solved: obeys all rules')
    assert shown == ANSWER


def test_slots_stay_in_the_caches_of_a_cpu(monkeypatch):
    solver = Solver.pretrained('sudoku9')
    assert solver._shapes(solver.config) == (1, 8)  # 93 kB for each
    chains = solver.with_eval(rollouts=RolloutConfig(16, select='rules', views='random'))
    assert chains._shapes(chains.config)[-1] == 256  # those of one puzzle side by side
    monkeypatch.setattr('hrm_jax.inference.solver._CACHED_BYTES', 1e9)
    assert solver._shapes(solver.config)[-1] == 256
