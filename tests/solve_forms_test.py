"""``hrm-jax solve``: where puzzles come from, and the forms of the answers."""

import base64
import io
import json
import re
import sys
import zlib

import jax
import numpy as np
from PIL import Image
import pytest

from hrm_jax import partitioning, tasks, train_state
from hrm_jax.cli import solve
from hrm_jax.config import ExperimentConfig
from hrm_jax.inference.solver import Solver
from hrm_jax.run import backend
from tests import browser as browser_lib
from tests import commands

UNIQUE, SEVERAL, NONE = '...4412.3...1.3.', '1..2.......3....', '123....4........'
SOLVED = '2314412332411432'


def make_solver(task, **model):
    q_head = model.get('q_head', True)
    config = ExperimentConfig.from_dict({
        'model': {
            'vocab_size': task.vocab_size, 'seq_len': task.seq_len, 'num_puzzle_identifiers': 3,
            'H_cycles': 1, 'L_cycles': 1, 'H_layers': 1, 'L_layers': 1, 'hidden_size': 16,
            'num_heads': 2, 'puzzle_emb_ndim': 16, 'forward_dtype': 'float32', **model,
        },
        'act': {'halt_max_steps': 3, 'halting': 'q_learning' if q_head else 'fixed'},
        'loss': {'q_weight': 0.5 if q_head else 0.0},
    })  # fmt: skip
    devices = jax.devices()[:1]
    state = train_state.create(config, partitioning.make_mesh(devices))
    return Solver(config, state.weights, task, 'none', devices)


@pytest.fixture(scope='module')
def solvers():
    words = ['<pad>', '.', 'a', 'b']
    vocabulary = {word: token for token, word in enumerate(words)}
    return {
        'sudoku': make_solver(tasks.Sudoku(16, 6)),
        'grids': make_solver(tasks.Task(12, 4, grid=(3, 4), vocabulary=vocabulary)),
        'paths': make_solver(tasks.PathFinding(16, 5), q_head=False),
        'arc': make_solver(tasks.Arc(900, 12)),
    }


@pytest.fixture
def command(solvers, monkeypatch, capsys):
    """Runs the command; what the model answers may be given."""

    def run(*arguments, task='sudoku', typed='', answers=None):
        solver = solvers[task]
        if answers is not None:
            tokens = np.stack([solver.task.parse(text) for text in answers])
            monkeypatch.setattr(
                solver, '_answer',
                lambda views, *rest: {'predictions': tokens, 'q_halt': np.zeros(len(views)),
                                      'steps': np.ones(len(views))},
            )  # fmt: skip
        monkeypatch.setattr(Solver, 'from_checkpoint', lambda *args, **kwargs: solver)
        monkeypatch.setattr(backend, 'enable_compilation_cache', lambda: None)
        monkeypatch.setattr(sys, 'stdin', io.StringIO(typed))
        status = commands.exit_code(solve.main, '--checkpoint', 'x', *arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_one_puzzle_is_shown_as_a_board(command):
    status, out, _ = command(UNIQUE, answers=[SOLVED])
    assert status == 0
    assert '. . | . 4    2 3 | 1 4' in out
    assert 'confidence 50.0%, 1 step, valid' in out
    assert 'solution' not in out
    board = '\n'.join(line.split('    ')[0] for line in out.splitlines()[2:7])
    assert command(board, answers=[SOLVED])[1] == out  # the board that it printed itself


@pytest.mark.parametrize(
    ('puzzle', 'note'),
    [(UNIQUE, ''), (SEVERAL, 'several solutions'), (NONE, 'no solution'), ('.' * 16, 'several')],
)
def test_puzzles_without_exactly_one_solution_are_noticed(command, puzzle, note):
    one = command(puzzle, answers=[SOLVED])[1]
    many = command(puzzle, UNIQUE, answers=[SOLVED, SOLVED])[1].splitlines()
    assert ('The puzzle has' in one) == bool(note)
    assert note in one.lower()
    assert note in many[0]
    assert 'solution' not in many[1]


@pytest.mark.parametrize('way', ['stdin', 'file', 'positional file'])
def test_lines_stay_lines(command, tmp_path, way):
    text = f'\ufeff# mine\n{UNIQUE}\n\n11..............\n  \n1,2\n{SEVERAL}\n'
    path = tmp_path / 'in.txt'
    path.write_text(text, encoding='utf-8')
    arguments = {'stdin': ('-',), 'file': ('--file', path), 'positional file': (path,)}[way]
    status, out, err = command(*arguments, typed=text, answers=[SOLVED, SOLVED])
    assert status == 1
    lines = out.split('\n')
    assert len(lines) == 8
    assert lines[0] == '# mine'
    assert lines[1] == f'{SOLVED}\t0.5000\t1\tvalid'
    assert lines[2] == ''
    assert lines[3].startswith('\t\t\terror: row 1, column 2 must differ')
    assert lines[5].startswith('\t\t\terror: a sudoku puzzle here must have 16 cells')
    assert lines[6].split('\t')[3] == 'invalid, the puzzle has several solutions'
    assert 'puzzle 2: row 1, column 2' in err
    header = command('--header', *arguments, typed=text, answers=[SOLVED, SOLVED])[1]
    assert header == 'answer\tconfidence\tsteps\tstatus\n' + out


def test_boards_over_lines_come_from_files_too(command):
    board = '1 . . 2\n. . . .\n. . . 3\n. . . .\n'
    status, out, _ = command('-', typed=f'{board}\n# another\n{board}', answers=[SOLVED, SOLVED])
    assert (status, len(out.splitlines())) == (0, 2)
    status, out, _ = command('-', typed='nothing\nat all\n')
    assert status == 1
    assert len(out.splitlines()) == 2


def test_a_single_line_of_a_file_is_still_a_line(command):
    assert command('-', typed=UNIQUE, answers=[SOLVED])[1] == f'{SOLVED}\t0.5000\t1\tvalid\n'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((), 'give puzzles by one of PUZZLE'),
        ((UNIQUE, '--random'), 'PUZZLE and --random cannot be given together'),
        (('--puzzle', UNIQUE, '--arc', 'x.json'), '--puzzle and --arc cannot'),
        (('--random', '0'), '--random must be 1 or more'),
        ((UNIQUE, '-o', 'x.pdf'), r'must end in \.html, .*got x\.pdf'),
    ],
)
def test_wrong_command_lines(command, arguments, message):
    status, out, err = command(*arguments)
    assert (status, out) == (2, '')
    assert re.search(message, err)


def _arrays(path):
    """Arrays of a page."""
    text = path.read_text('utf-8')
    found = re.findall(r'id="array-(\w+)" data-type="(\w+)" data-shape="(.*?)">(.*?)<', text)
    return {
        name: np.frombuffer(zlib.decompress(base64.b64decode(packed)), kind).reshape(
            json.loads(shape)
        )
        for name, kind, shape, packed in found
    }


def test_the_ending_chooses_the_form(command, tmp_path):
    puzzles = (UNIQUE, SEVERAL, '.' * 16)
    for name in ('a.html', 'a.png', 'a.gif', 'a.json', 'a.jsonl', 'a.tsv', 'a.txt'):
        status, out, err = command(*puzzles, '-o', tmp_path / name)
        assert status == 0
        assert f'wrote {tmp_path / name}' in out + err
        assert ('shows one puzzle, here the first of 3' in err) == (name in ('a.png', 'a.gif'))
    assert _arrays(tmp_path / 'a.html')['predictions'].shape == (3, 3, 16)
    assert Image.open(tmp_path / 'a.png').format == 'PNG'
    with Image.open(tmp_path / 'a.gif') as gif:
        assert gif.n_frames == 4
    values = json.loads((tmp_path / 'a.json').read_text())
    lines = [json.loads(line) for line in (tmp_path / 'a.jsonl').read_text().splitlines()]
    assert values == lines
    assert [len(value['answer']) for value in values] == [16] * 3
    table = (tmp_path / 'a.tsv').read_text()
    assert table == (tmp_path / 'a.txt').read_text()
    assert len(table.splitlines()) == 3
    status, out, _ = command('-', '--show', 'json', typed=f'{UNIQUE}\n1\n')
    assert status == 1
    assert [sorted(json.loads(line)) for line in out.splitlines()][1] == ['error']


@pytest.mark.parametrize(
    'text', ['.a/bb', '.a\nbb', '| . a |\n| b b |', '[[".", "a"], ["b", "b"]]']
)
def test_custom_grids_come_back_as_they_are_written(command, text):
    status, out, _ = command(text, task='grids', answers=['baab/baab/baab'])
    assert status == 0
    assert out.splitlines()[-2:] == ['ba/ba', 'confidence 50.0%, 1 step, validity unknown']
    assert 'b a' in out.splitlines()[2]
    status, out, _ = command(
        '-', task='grids', typed='.a/bb\n..a\n', answers=['baab/baab/baab'] * 2
    )
    assert [line.split('\t')[0] for line in out.splitlines()] == ['ba/ba', 'baa']


def test_a_model_without_q_head_states_no_confidence(command, tmp_path):
    board = 'S...#.#.....#..E'
    status, out, _ = command(board, task='paths')
    assert status == 0
    assert 'confidence' not in out
    assert command('-', task='paths', typed=board)[1].split('\t')[1] == ''
    assert json.loads(command(board, '--show', 'json', task='paths')[1])['confidence'] is None
    command(board, '-o', tmp_path / 'a.html', task='paths')
    assert 'q_halt' not in _arrays(tmp_path / 'a.html')


TASK = {
    'train': [{'input': [[1, 2]], 'output': [[2], [1]]}],
    'test': [{'input': [[1, 2], [3, 4]], 'output': [[1, 2], [3, 4]]}, {'input': [[5]]}],
}


@pytest.fixture
def arc_task(tmp_path, solvers, monkeypatch):
    """A model that answers a task's question itself."""
    path = tmp_path / 'abc.json'
    path.write_text(json.dumps(TASK))
    monkeypatch.setattr(
        solvers['arc'], '_answer',
        lambda views, *rest: {'predictions': views, 'q_halt': np.zeros(len(views)),
                              'steps': np.ones(len(views))},
    )  # fmt: skip
    return path


def test_an_arc_task_is_shown_with_its_attempts(command, arc_task, tmp_path):
    status, out, _ = command('--arc', arc_task, task='arc')
    assert status == 0
    assert 'test 1    attempt 1\n\n1 2       1 2\n3 4       3 4\n' in out
    assert 'attempt 1 is right' in out
    assert out.count('attempt 2 is the same: all views agree') == 2
    assert command(arc_task, task='arc')[1] == out  # named by the file's ending
    lines = command('--arc', arc_task, '--show', 'json', task='arc')[1].splitlines()
    assert [json.loads(line)['right_attempt'] for line in lines] == [1, None]
    for name in ('a.html', 'a.png', 'a.gif', 'a.json', 'a.txt'):
        assert f'wrote {tmp_path / name}' in command(arc_task, '-o', tmp_path / name, task='arc')[1]
    assert json.loads((tmp_path / 'a.json').read_text()) == {
        'abc': [
            {'attempt_1': [[1, 2], [3, 4]], 'attempt_2': [[1, 2], [3, 4]]},
            {'attempt_1': [[5]], 'attempt_2': [[5]]},
        ]
    }
    assert (tmp_path / 'a.txt').read_text() == out
    with Image.open(tmp_path / 'a.gif') as gif:
        assert gif.n_frames == 7  # question, attempt, the same, solution; and without a solution


def test_a_file_that_is_missing_is_not_only_called_a_bad_puzzle(command):
    status, _, error = command('nofile.txt')
    assert status == 1
    assert 'there is no file nofile.txt, and as a puzzle: ' in error
    assert 'there is no file' not in command('12x4' * 4)[2]


def test_one_task_of_a_file_of_several_is_named(command, arc_task, tmp_path):
    alone = command('--arc', arc_task, task='arc')[1]
    several = tmp_path / 'several.json'
    several.write_text(json.dumps({'x:y': TASK, 'abc': TASK, 'c': TASK, 'd': TASK}))
    assert command('--arc', f'{several}:abc', task='arc')[1] == alone
    for wrong in (several, f'{several}:e'):
        status, _, error = command('--arc', wrong, task='arc')
        assert status == 1
        assert f'{several} must hold one task' in error
        assert 'named as FILE:NAME; it holds 4: x:y, abc, c, ...' in error


@pytest.mark.chromium
def test_the_page_of_an_arc_task_shows_tests_and_demonstrations(command, arc_task, tmp_path):
    command(arc_task, '-o', tmp_path / 'a.html', task='arc')
    with browser_lib.started() as browser:
        browser.open(tmp_path / 'a.html')
        captions = "return [...document.querySelectorAll('figcaption')].map(c => c.textContent)"
        assert browser.run(captions) == [
            'test 1', 'attempt 1: 1 vote, right', 'attempt 2: the same', 'solution',
        ]  # fmt: skip
        assert browser.run("return document.getElementById('about').textContent") == (
            '2 tests, 1 demonstration'
        )
        browser.run("document.querySelectorAll('#groups button')[2].click()")
        assert browser.run(captions) == ['question', 'answer']
