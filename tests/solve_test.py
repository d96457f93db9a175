"""Solving: puzzles as text, the Solver, the command."""

import io
import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from hrm_jax import partitioning, tasks, train_state
from hrm_jax.cli import solve
from hrm_jax.config import ExperimentConfig
from hrm_jax.data import augment
from hrm_jax.errors import PuzzleError
from hrm_jax.inference import arc
from hrm_jax.inference.solver import Solver
from hrm_jax.run import backend
from hrm_jax.scoring import arc_names
from tests import commands


def make_solver(task='sudoku', vocab=6, cells=16, identifiers=1, transform='sudoku', **model):
    config = ExperimentConfig.from_dict({
        'model': {
            'vocab_size': vocab, 'seq_len': cells, 'num_puzzle_identifiers': identifiers,
            'H_cycles': 1, 'L_cycles': 1, 'H_layers': 1, 'L_layers': 1, 'hidden_size': 16,
            'num_heads': 2, 'puzzle_emb_ndim': 16, 'forward_dtype': 'float32', **model,
        },
        'act': {'halt_max_steps': 3},
    })  # fmt: skip
    devices = jax.devices()[:1]
    state = train_state.create(config, partitioning.make_mesh(devices))
    puzzles = tasks.kind_of(task)(cells, vocab)
    return Solver(config, state.weights, puzzles, transform, devices)


@pytest.fixture(scope='module')
def solver():
    return make_solver()


def puzzles(count):
    rng = np.random.default_rng(0)
    return [''.join('1' if i == c else '.' for i in range(16)) for c in rng.integers(0, 16, count)]


def test_answers_do_not_depend_on_company_or_batch_size(solver):
    several = puzzles(11)
    together = solver.solve(several)
    alone = [solver.solve([text])[0] for text in several[:3]]
    for one, same in zip(together, alone, strict=False):
        assert one.text == same.text
        assert one.steps == same.steps
        assert one.confidence == pytest.approx(same.confidence, abs=1e-5)
        assert 0 <= one.confidence <= 1
    assert solver.solve([]) == []
    counts = []
    solver.solve(several, progress=counts.append, steps=2, early_exit=False)
    assert sum(counts) == 11
    assert {s.steps for s in solver.solve(several, steps=2, early_exit=False)} == {2}


def test_samples_map_their_answers_back(solver, monkeypatch):
    """A model that answers the question itself must be unanimous under every symmetry."""
    monkeypatch.setattr(
        solver, '_answer',
        lambda views, *rest: {
            'predictions': views, 'q_halt': np.zeros(len(views)), 'steps': np.ones(len(views)),
        },
    )  # fmt: skip
    several = puzzles(4)
    for text, solution in zip(several, solver.solve(several, samples=8), strict=True):
        assert solver.task.text(solution.answer) == text
        assert solution.agreement == 1
    with pytest.raises(ValueError, match='samples must be 1 or more'):
        solver.solve(several, samples=0)


def test_samples_need_symmetries():
    with pytest.raises(ValueError, match='no known symmetries'):
        make_solver(task='lisp', transform='none').solve([np.zeros(16, int)], samples=2)


def test_arc_task_votes_over_known_and_random_views(monkeypatch):
    colours = '0123456789'
    names = ['<blank>', 'a', f'a_t3_{colours[::-1]}', f'a_t6_{colours}', 'b']
    maps = arc_names.PuzzleMaps.from_identifiers(names)
    solver = make_solver('arc', 12, 900, 5, 'arc')
    asked = []

    def copy(views, ids, *rest):
        asked.append(ids.tolist())
        return {'predictions': views, 'q_halt': np.zeros(len(views)), 'steps': np.ones(len(views))}

    monkeypatch.setattr(solver, '_answer', copy)
    grid = [[1, 2, 3], [4, 5, 6]]
    task = {'train': [], 'test': [{'input': grid, 'output': grid}, {'input': [[7]]}]}
    answers, known = arc.solve_task(solver, task, 'a', maps, samples=3)
    assert known
    assert asked == [[1, 2, 3]] * 2
    assert answers[0].attempts == [grid]
    assert answers[0].votes == [3]
    assert [answer.right for answer in answers] == [True, None]
    answers, known = arc.solve_task(solver, task, 'unknown', maps, samples=4)
    assert not known
    assert answers[0].attempts == [grid]
    task['test'][1]['input'] = [[7, 11]]
    with pytest.raises(PuzzleError, match=r'pair 2, input, row 1, column 2 .*got 11'):
        arc.solve_task(solver, task)
    assert augment.ARC_COLOURS == 10


@pytest.fixture
def command(solver, monkeypatch, capsys):
    monkeypatch.setattr(Solver, 'from_checkpoint', lambda *_args, **_options: solver)
    monkeypatch.setattr(backend, 'enable_compilation_cache', lambda: None)

    def run(*arguments, typed=''):
        monkeypatch.setattr(sys, 'stdin', io.StringIO(typed))
        status = commands.exit_code(solve.main, '--checkpoint', 'x', *arguments)
        return status, *capsys.readouterr()

    return run


def test_the_example_of_the_readme_runs(solver, monkeypatch, capsys):
    text = (pathlib.Path(__file__).parent.parent / 'README.md').read_text()
    [example] = [e for e in re.findall(r'```python\n(.*?)```', text, re.DOTALL) if 'Solver' in e]
    monkeypatch.setattr(Solver, 'from_checkpoint', lambda *_args, **_options: solver)
    names = {}
    exec(example, names)
    assert len(names['solution'].text) == 16
    assert names['solution'].text in capsys.readouterr().out


def test_command_shows_one_puzzle(command, tmp_path):
    status, out, _ = command('--puzzle', '1...............')
    assert status == 0
    assert 'puzzle' in out
    assert 'confidence' in out
    status, out, _ = command('--puzzle', '1...............', '--show', 'json')
    assert json.loads(out)['question'] == [2] + [1] * 15
    board = tmp_path / 'board.txt'
    board.write_text('1...\n....\n....\n....\n')
    assert command('--board', str(board))[0] == 0
    gif = tmp_path / 'a.gif'
    assert command('--puzzle', '1' + '.' * 15, '--show', 'gif', '-o', str(gif))[0] == 0
    assert gif.read_bytes()[:6] == b'GIF89a'


def test_command_rolls_out(command):
    puzzle, other = '1...............', '.2..............'
    options = ('--rollouts', '4', '--depth', '2', '--views', 'relabel', '--select', 'rules')
    status, out, err = command(puzzle, other, *options)
    assert status == 0
    assert len(out.splitlines()) == 2
    assert 'steps a puzzle in 4 chains, ' in err
    assert 'GFLOPs' in err
    status, _, err = command(puzzle, '--rollouts', '4')
    assert status == 1
    assert 'needs chains that differ' in err
    status, _, err = command(puzzle, '--rollouts', '4', '--noise', '-1')
    assert '--noise must not be negative' in err
    assert command(puzzle, '--rollouts', '2', '--views', 'random', '--samples', '2')[0] == 1


def test_command_reports_bad_puzzles_and_goes_on(command, tmp_path):
    typed = '1...............\n11..............\n\n...\n....4...........\n'
    status, out, err = command('-', typed=typed)
    assert status == 1
    lines = [line.split('\t') for line in out.splitlines()]
    assert [len(line) for line in lines] == [4, 4, 1, 4, 4]  # one line for each
    assert [line[-1].startswith('error: ') for line in lines] == [False, True, False, True, False]
    assert 'puzzle 2: row 1, column 2' in err
    assert 'puzzle 3: a sudoku puzzle here must have 16 cells' in err
    empty = tmp_path / 'empty.txt'
    empty.write_text('')
    status, out, err = command('--file', str(empty))
    assert (status, out) == (1, '')
    assert 'the input is empty' in err
    assert 'error: ' in command('--file', str(tmp_path / 'none.txt'))[2]
    empty.write_bytes(b'\xff\xfe')
    for arguments, message in (
        (('--file', empty), 'must be a text file in UTF-8'),
        (('--puzzle', '.' * 16, '--samples', 0), 'samples must be 1 or more; got 0'),
        (('--puzzle', '.' * 16, '--steps', -1), 'eval.halt_max_steps must not be negative'),
    ):
        status, out, err = command(*arguments)
        assert (status, out) == (1, '')
        assert message in err


def test_command_without_a_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'hrm_jax', 'solve', '--checkpoint', str(tmp_path), '--puzzle', '1'],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('error: ')
