"""Pictures and pages show characters in their grid: no token ids, no -100, no padding, all rows."""

import dataclasses
import json
import re

import numpy as np
import pytest

from hrm_jax import tasks
from hrm_jax.cli import view
from hrm_jax.data import arrays, records
from hrm_jax.visualize import animation, arc_pictures, boards, document, figures, page, trace
from tests import browser as browser_lib
from tests import commands

GRID = tasks.Task(12, 5, grid=(4, 3), vocabulary={w: k for k, w in enumerate(['<pad>', *'1aX.'])})
SIX = tasks.Sudoku(36, 8)
WORDS = tasks.Lisp(
    30, 6, vocabulary={w: k for k, w in enumerate(['<pad>', '(', ')', '+', 'x', '12'])}
)


def texts_of(task, tokens, wrong=None):
    """Characters that a figure draws, and where."""
    figure = figures.new_figure(2, 2)
    axes = figure.add_subplot()
    nothing = np.zeros(len(tokens), bool)
    figures.draw_board(axes, tokens, task, nothing, nothing if wrong is None else wrong)
    return {(int(y), int(x)): t.get_text() for t in axes.texts for x, y in [t.get_position()]}


def test_a_grid_is_drawn_with_its_characters_and_all_its_rows():
    tokens = np.array([1, 2, 0, 3, 4, 0, 2, 2, 0, 4, 1, 0])
    assert texts_of(GRID, tokens) == {
        (0, 0): '1', (0, 1): 'a', (1, 0): 'X', (1, 1): '.', (2, 0): 'a', (2, 1): 'a', (3, 0): '.',
        (3, 1): '1',
    }  # fmt: skip
    assert boards.board_lines(tokens, GRID) == ['1 a', 'X .', 'a a', '. 1']


def test_digits_of_any_sudoku_are_those_of_the_rules():
    tokens = np.arange(36) % 6 + 2
    drawn = texts_of(SIX, tokens)
    assert [drawn[0, column] for column in range(6)] == list('123456')
    assert boards.board_lines(tokens, SIX)[0] == '1 2 3 | 4 5 6'


def test_unscored_labels_are_drawn_as_nothing():
    tokens = np.array([1, 2, -100, 3, 4, -100] + [-100] * 6)
    drawn = texts_of(GRID, tokens)
    assert sorted(drawn.values()) == ['.', '1', 'X', 'a']
    label = np.full(36, -100)
    assert set(texts_of(SIX, label).values()) == {'?'}  # no padding stands on a Sudoku
    assert '-100' not in str(texts_of(tasks.Task(4, 3), np.array([1, -100, 2, -100])))


def test_texts_are_broken_into_lines():
    tokens = np.array([1, 3] + [4, 5] * 10 + [2] + [0] * 7)
    cells = boards.arrangement(WORDS, tokens)
    assert cells.shape == (2, 12)
    assert sorted(cells[cells >= 0]) == list(range(23))
    assert texts_of(WORDS, tokens)[0, 3] == '12'


@pytest.mark.parametrize('task', [GRID, SIX, WORDS, tasks.Maze(25, 6), tasks.Arc(900, 12)])
def test_every_kind_of_task_becomes_every_kind_of_picture(task, tmp_path):
    rng = np.random.default_rng(0)
    if task.name == 'arc':
        tokens = np.stack([tasks.Arc.encode(rng.integers(0, 10, (3, 4))) for _ in range(2)])
    else:
        tokens = rng.integers(1, task.vocab_size, (2, task.seq_len))
    labels = np.where(np.arange(task.seq_len) > task.seq_len - 3, -100, tokens)
    seen = trace.Trace(tokens, labels, np.stack([tokens] * 2), *np.zeros((2, 2, 2)))
    figure = figures.draw_reasoning(seen, 0, task)
    assert len(figure.axes) == 4
    figures.save(figures.draw_puzzles(tokens, labels, task), tmp_path / 'a.png')
    animation.save_gif(seen, 0, task, tmp_path / 'a.gif', dpi=30)
    page.write_trace(tmp_path / 'a.html', seen, task)
    unknown = dataclasses.replace(seen, labels=np.full_like(labels, -100))
    assert len(figures.draw_reasoning(unknown, 0, task).axes) == 3  # there is no solution to draw


def test_arc_is_cropped():
    grid = np.ones((2, 5), int)
    tokens = tasks.Arc.encode(grid)
    tokens[400:] = 7  # what a model writes beyond the end
    assert boards.arrangement(tasks.Arc(900, 12), tokens).shape == (2, 5)
    figure = arc_pictures.draw([[('test 1', grid.tolist()), ('attempt 1', [[0]])]])
    assert [axes.images[0].get_array().shape[:2] for axes in figure.axes] == [(2, 5), (1, 1)]


def test_the_colour_of_unsure_is_none_of_a_tasks_colours():
    unsure = tasks.CELL_COLOURS['unsure']
    assert f'--unsure: {unsure};' in (document.STATIC / 'page.css').read_text()
    colours = [c for kind in tasks.TASKS.values() for c in kind.colours]

    def rgb(colour):
        return np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])

    assert min(np.abs(rgb(unsure) - rgb(c)).max() for c in colours) > 60


@pytest.fixture(scope='module')
def browser():
    with browser_lib.started() as one:
        yield one


def facts_of(path):
    return json.loads(re.search(r'id="facts">(.*?)</script>', path.read_text(), re.S)[1])


def predictions(task, count=5, wrong=(1, 3)):
    rng = np.random.default_rng(0)
    labels = rng.integers(1, task.vocab_size, (count, task.seq_len))
    answers = labels.copy()
    for row in wrong:
        answers[row, 0] = labels[row, 0] % (task.vocab_size - 1) + 1
    return {'inputs': labels, 'labels': labels, 'predictions': answers, 'steps': np.ones(count)}


@pytest.mark.chromium
def test_the_list_marks_right_and_wrong_and_can_show_wrong_only(browser, tmp_path):
    path = page.write_predictions(tmp_path / 'a.html', [predictions(GRID)], GRID, 'mine')
    browser.open(path)
    marks = (
        "return [...document.querySelectorAll('#groups .mark')].map(m => m.textContent).join('')"
    )
    assert browser.run(marks) == '✓✗✓✗✓'
    assert browser.run("return document.getElementById('about').textContent") == (
        '5 predictions, 3 right'
    )
    browser.run("document.getElementById('wrong-only').click()")
    assert browser.run(marks) == '✗✗'
    assert browser.run("return document.querySelector('.card h2').textContent").startswith(
        'example 1 · 1 wrong'
    )
    browser.run("document.querySelectorAll('#cards .pager button')[1].click()")
    assert browser.run('return state.group') == 3
    browser.run("document.getElementById('wrong-only').click()")
    assert browser.run(marks) == '✓✗✓✗✓'


@pytest.mark.chromium
def test_counts_have_their_plurals(browser, tmp_path):
    one = {name: rows[:1] for name, rows in predictions(GRID).items()}
    browser.open(page.write_predictions(tmp_path / 'a.html', [one], GRID, 'mine'))
    assert browser.run("return document.getElementById('about').textContent") == (
        '1 prediction, 1 right'
    )
    assert '1 step' in browser.run("return document.querySelector('.card h2').textContent")
    assert '1 steps' not in browser.run('return document.body.textContent')
    pager = browser.run("return document.getElementById('group-pager').textContent")
    assert pager.endswith('1 prediction')


@pytest.mark.chromium
def test_a_trace_opens_at_a_telling_puzzle_and_fills_the_window(browser, tmp_path):
    labels = np.array([[2, 3, 4, 5] * 4] * 3)
    steps = np.stack([labels] * 3)
    steps[0, 1, :6] = 2  # wrong at first, then right
    seen = trace.Trace(np.ones_like(labels), labels, steps, *np.zeros((2, 3, 3), np.float32))
    path = page.write_trace(tmp_path / 'a.html', seen, tasks.Sudoku(16, 6))
    assert facts_of(path)['first'] == 1
    browser.open(path)
    assert browser.run('return state.group') == 1
    width = "return document.querySelector('#cards canvas').getBoundingClientRect().width"
    assert browser.run(width) > 250
    room = 'return document.documentElement.scrollWidth - document.documentElement.clientWidth'
    assert browser.run(room) == 0


@pytest.mark.chromium
@pytest.mark.parametrize('task', [GRID, tasks.Sudoku(81, 11), tasks.Maze(900, 6)])
def test_narrow_screens_need_no_scrolling_to_the_side(browser, tmp_path, task):
    rows = predictions(task)
    browser.open(page.write_predictions(tmp_path / 'a.html', [rows], task, 'a long title ' * 5))
    browser.narrow(360)
    try:
        browser.open(tmp_path / 'a.html')
        scroll = 'return document.documentElement.scrollWidth'
        assert browser.run(scroll) <= 360
        order = (
            "return document.querySelector('section').getBoundingClientRect().top <"
            " document.querySelector('nav').getBoundingClientRect().top"
        )
        assert browser.run(order)  # the puzzle before the list
    finally:
        browser.narrow(0)


@pytest.mark.chromium
def test_pages_show_the_characters_and_rows_of_a_custom_set(browser, tmp_path):
    texts = [f'{a}{b}\n{b}{a}\na{a}' for a in 'abX' for b in '01X']
    examples = arrays.encode(texts, texts)
    splits = {'train': np.arange(6), 'test': np.arange(6, 9)}
    arrays.write(tmp_path / 'set', splits, examples, [''] * 9)
    assert commands.exit_code(view.main, tmp_path / 'set', '-o', tmp_path / 'a.html') == 0
    browser.open(tmp_path / 'a.html')
    drawn = browser.run(
        'const s = state.source, t = row(s.a.inputs, 0), g = gridOf(s, t, shapeOf(s, t));'
        'return [g.h, g.w, g.cells.map(c => s.look.symbols[c]).join("")]'
    )
    [first] = records.load(tmp_path / 'set', 'test').sets['all'].inputs[:1]
    text = records.load(tmp_path / 'set', 'test').metadata.task_of().text(first)
    assert drawn == [3, 2, text.replace('/', '')]
    assert commands.exit_code(view.main, tmp_path / 'set', '-o', tmp_path / 'a.png') == 0
    assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')


def test_an_ending_that_cannot_be_shown_is_refused(tmp_path, capsys):
    examples = arrays.encode(['ab', 'ba', 'aa'], ['ab', 'ba', 'aa'])
    arrays.write(tmp_path / 'set', {'test': np.arange(3)}, examples, [''] * 3)
    for name in ('a.gif', 'a.pdf'):
        assert commands.exit_code(view.main, tmp_path / 'set', '-o', tmp_path / name) == 2
        assert 'must be shown as .html or .png' in capsys.readouterr().err
        assert not (tmp_path / name).exists()
