"""The HTML page: what Python writes, and what Chromium shows of it (where there is one)."""

import json
import re

import numpy as np
import pytest

from hrm_jax.cli import view as command
from hrm_jax.data import augment
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.scoring import predictions
from hrm_jax.tasks import Sudoku
from hrm_jax.visualize import page, trace
from tests import browser as browser_lib
from tests import commands, tiny_run

HOSTILE = '</script><script>document.title="owned"</script><img src=x onerror="document.title=1">'
rng = np.random.default_rng(0)


@pytest.fixture(scope='module')
def browser():
    with browser_lib.started() as one:
        yield one


def sudoku_set(names=('first', HOSTILE)):
    boards = np.array([[1, 2, 3, 4, 5] * 3 + [1]] * 2, np.uint8)
    maps = augment.random_maps('sudoku', rng.random((6, 17)), 4).astype(np.uint8)
    maps[[0, 3]] = augment.identity_map('sudoku', 4)
    one = puzzles_lib.PuzzleSet(
        boards, np.maximum(boards, 2), np.array([0, 3, 6]), np.arange(7),
        np.array([0, 0, 0, 1, 1, 1]), np.zeros(6, np.int32), maps=maps, names=names,
    )  # fmt: skip
    metadata = puzzles_lib.DatasetMetadata(
        6, 16, 1, 2, 1.0, ignore_label_id=None, task='sudoku', transform='sudoku'
    )
    return puzzles_lib.PuzzleDataset(metadata, {'all': one}, HOSTILE)


def arc_set(groups, puzzles_per_group):
    count = groups * puzzles_per_group
    extents = rng.integers(2, 9, (groups, 4)).astype(np.uint8)
    grids = np.zeros((2, groups, 30, 30), np.uint8)
    for row, (h, w, i, j) in enumerate(extents):
        grids[0, row, :h, :w] = rng.integers(2, 12, (h, w))
        grids[1, row, :i, :j] = rng.integers(2, 12, (i, j))
    maps = augment.random_maps('arc', rng.random((count, 10), np.float32), 30).astype(np.uint8)
    one = puzzles_lib.PuzzleSet(
        *grids.reshape(2, groups, 900), np.arange(0, count + 1, puzzles_per_group),
        np.arange(count + 1), np.repeat(np.arange(groups), puzzles_per_group),
        np.arange(1, count + 1, dtype=np.int32), maps=maps, extents=extents,
        names=tuple(f'name{k}' for k in range(groups)),
    )  # fmt: skip
    metadata = puzzles_lib.DatasetMetadata(
        12, 900, count + 1, groups, 1.0, task='arc', transform='arc'
    )
    return puzzles_lib.PuzzleDataset(metadata, {'all': one}, 'arc')


def test_page_is_one_file_without_outside_references(tmp_path):
    path = page.write_dataset(tmp_path / 'a.html', sudoku_set())
    text = path.read_text('utf-8')
    assert not re.search(r'<[^>]*\b(src|href)\s*=', text)
    assert not re.search(r'https?:|@import|url\(', text)
    assert "default-src 'none'" in text
    assert text.count('<script>') == 1
    facts = re.search(r'id="facts">(.*?)</script>', text, re.S)[1]
    assert json.loads(facts)['names'][1] == HOSTILE
    assert '<img' not in text


def test_large_sets_are_cut_at_groups(tmp_path):
    path = page.write_dataset(tmp_path / 'a.html', sudoku_set(), max_bytes=90)
    assert 'This page shows the first 1 of 2 groups.' in path.read_text('utf-8')


@pytest.mark.chromium
def test_hostile_names_stay_text(browser, tmp_path):
    browser.open(page.write_dataset(tmp_path / 'a.html', sudoku_set()))
    names = browser.run(
        "return [...document.querySelectorAll('#groups button')].map(b=>b.textContent)"
    )
    assert names == ['first (3)', HOSTILE + ' (3)']
    assert browser.run('return document.images.length') == 0
    assert browser.run('return document.title') == HOSTILE + ', all'
    assert browser.run("return document.querySelectorAll('script').length") == 9


@pytest.mark.chromium
def test_augmentations_in_the_page_are_the_loaders(browser, tmp_path):
    for dataset in (sudoku_set(), arc_set(3, 20)):
        browser.open(page.write_dataset(tmp_path / 'a.html', dataset))
        one, metadata = dataset.sets['all'], dataset.metadata
        got = browser.run(
            'const s = state.source, all = [];'
            'for (let p = 0; p < s.a.puzzle_first.data.length; p++) {'
            '  const f = s.a.puzzle_first.data[p], t = row(s.a.inputs, f);'
            '  const size = s.a.extents ? row(s.a.extents, f).slice(0, 2) : shapeOf(s, t);'
            '  all.push(augment(gridOf(s, t, size), s.transform, row(s.a.maps, p)));'
            '} return all'
        )
        wanted, _ = puzzles_lib.stored_examples(one, metadata, np.arange(one.num_examples))
        assert len(got) == len(wanted)
        for grid, tokens in zip(got, wanted.reshape(len(wanted), metadata.side, -1), strict=True):
            cells = np.array(grid['cells']).reshape(grid['h'], grid['w'])
            np.testing.assert_array_equal(cells, tokens[: grid['h'], : grid['w']])


@pytest.mark.chromium
def test_groups_pages_and_search(browser, tmp_path):
    browser.open(page.write_dataset(tmp_path / 'a.html', arc_set(120, 25)))
    assert browser.run("return document.querySelectorAll('#groups li').length") == 50
    assert browser.run("return document.querySelectorAll('#cards canvas').length") == 20
    browser.run(
        "const f = document.getElementById('filter'); f.value = 'NAME11'; f.oninput();"
        "document.querySelectorAll('#groups button')[10].click()"
    )
    assert browser.run("return document.querySelectorAll('#groups li').length") == 11
    assert browser.run('return state.group') == 119
    browser.run("document.querySelectorAll('#cards .pager button')[3].click()")
    assert browser.run('return state.page') == 2
    assert browser.run("return document.querySelectorAll('#cards .card').length") == 5


@pytest.mark.chromium
def test_a_trace_plays(browser, tmp_path):
    labels = np.array([[2, 3, 4, 5] * 4, [5, 4, 3, 2] * 4])
    steps = np.stack([np.where(np.arange(16) < 5 * (3 - k), 2, labels) for k in range(4)])
    q = np.linspace(-3, 3, 8, dtype=np.float32).reshape(4, 2)
    confidence = np.full((4, 2, 16), 0.5, np.float32)
    seen = trace.Trace(np.ones_like(labels), labels, steps, q, q, confidence)
    browser.open(page.write_trace(tmp_path / 'a.html', seen, Sudoku(16, 6)))
    assert browser.run("return document.getElementById('says').textContent").startswith(
        'step 1 of 4'
    )
    browser.run("document.querySelectorAll('#groups button')[1].click()")
    browser.run("document.getElementById('play').click()")
    says = browser.wait(
        "const t = document.getElementById('says').textContent; return t.includes('step 4') && t"
    )
    assert says == 'step 4 of 4 · thinks it is right: 95.3 % · 0 wrong'
    assert browser.run("return document.getElementById('play').textContent") == '▶ play'
    browser.run("const s = document.getElementById('step'); s.value = 2; s.oninput()")
    wrong = int((steps[1, 1] != labels[1]).sum())
    assert browser.run("return document.getElementById('says').textContent").endswith(
        f'{wrong} wrong'
    )


@pytest.mark.chromium
def test_predictions_mark_wrong_cells_and_texts(browser, tmp_path):
    labels = np.array([[1, 2, -100, -100]])
    rows = {
        'predictions': np.array([[1, 3, 2, 0]]),
        'labels': labels,
        'inputs': np.array([[1, 1, 1, 0]]),
    }
    vocabulary = ['<pad>', '(', HOSTILE, 'x']
    browser.open(page.write_predictions(tmp_path / 'a.html', [rows], 'lisp', 't', vocabulary))
    assert browser.run("return [...document.querySelectorAll('.bad')].map(b=>b.textContent)") == [
        'x'
    ]
    assert browser.run('return document.images.length') == 0
    assert '1 wrong' in browser.run("return document.querySelector('.card h2').textContent")


@pytest.mark.chromium
def test_the_page_opens_picked_files(browser, tmp_path):
    browser.open(page.write_dataset(tmp_path / 'a.html', sudoku_set()))
    rows = {'preds': np.array([[2, 3] * 8]), 'labels': np.array([[2, 3] * 7 + [2, 4]]),
            'q_halt_logits': np.zeros(1, np.float32)}  # fmt: skip
    np.savez_compressed(tmp_path / 'p.npz', **rows)
    browser.pick('#pick-file', tmp_path / 'p.npz')
    head = browser.wait(
        "const h = document.querySelector('.card h2');"
        "return h.textContent.includes('wrong') && h.textContent"
    )
    assert head == 'example 0 · 1 wrong · thinks it is right: 50.0 %'
    (tmp_path / 'bad.npz').write_bytes(b'nothing at all, but long enough')
    browser.pick('#pick-file', tmp_path / 'bad.npz')
    assert 'cannot be shown' in browser.wait("return document.getElementById('error').textContent")
    folder = tiny_run.write_dataset(tmp_path / 'folder')
    browser.pick('#pick-folder', folder)
    browser.wait("return state.source.title === 'picked folder, test'")
    assert browser.run('return state.source.count') == tiny_run.TEST


def test_command_shows_data_sets_and_predictions(tmp_path, capsys):
    data = tiny_run.write_dataset(tmp_path / 'data')
    assert commands.exit_code(command.main, data, '-o', tmp_path / 'a.html') == 0
    assert 'data-shape="[10, 16]"' in (tmp_path / 'a.html').read_text('utf-8')
    with predictions.Writer(tmp_path / 'p', 'all', {'data': str(data), 'split': 'test'}) as writer:
        writer.add(predictions=np.ones((3, 16), np.uint8), example=np.array([2, 0, 1]))
    assert commands.exit_code(command.main, tmp_path / 'p', '-o', tmp_path / 'b.html') == 0
    assert 'array-labels' in (tmp_path / 'b.html').read_text('utf-8')
    assert commands.exit_code(command.main, tmp_path / 'none') == 1
    assert 'error: ' in capsys.readouterr().err
