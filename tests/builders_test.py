"""What all builders share, and the builders of mazes, boards and expressions."""

import dataclasses
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import (
    arc,
    check,
    commandline,
    folder_format,
    lisp,
    maze,
    pathfinding,
    sudoku,
    writing,
)
from hrm_jax.data import pipeline, records
from hrm_jax.errors import BuildError
from tests.builder_sources import arc_tree, cells, sudoku_folder, write_csv


def test_output_folder_is_respected(tmp_path):
    out = tmp_path / 'out'

    def build(**kwargs):
        return pathfinding.build(
            str(out), board_size=4, train_count=20, val_count=5, show=False, **kwargs
        )

    build()
    before = cells(records.load(out, 'train'))
    with pytest.raises(BuildError, match=r'exists.*--overwrite'):
        build(seed=1)
    np.testing.assert_array_equal(cells(records.load(out, 'train')), before)
    build(seed=1, overwrite=True)
    assert (cells(records.load(out, 'train'))[0] != before[0]).any()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out']
    foreign = tmp_path / 'thesis'
    foreign.mkdir()
    (foreign / 'chapter1.tex').touch()
    with pytest.raises(BuildError, match='is not a data set'):
        pathfinding.build(str(foreign), overwrite=True, show=False)
    with (
        writing.replacing(tmp_path / 'busy'),
        pytest.raises(BuildError, match='another build is writing'),
    ):
        pathfinding.build(str(tmp_path / 'busy'), train_count=9, val_count=2, show=False)


def test_a_set_appears_by_one_rename(tmp_path):
    output = tmp_path / 'out'
    with writing.replacing(output) as folder:
        inode, device = folder.stat().st_ino, folder.stat().st_dev
        assert not output.exists()
    assert (output.stat().st_ino, output.stat().st_dev) == (inode, device)
    assert [p.name for p in tmp_path.iterdir()] == ['out']


def test_failed_build_leaves_the_old_set(tmp_path, monkeypatch):
    out = tmp_path / 'out'
    settings = {'board_size': 4, 'train_count': 20, 'val_count': 5, 'show': False}
    pathfinding.build(str(out), **settings)
    before = cells(records.load(out, 'train'))
    monkeypatch.setattr(writing, '_versions', lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pathfinding.build(str(out), seed=1, overwrite=True, **settings)
    np.testing.assert_array_equal(cells(records.load(out, 'train')), before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out']


@pytest.mark.parametrize(
    ('damage', 'what'),
    [
        ('truncate', 'must have .* bytes; it has'),
        ('remove', 'it is missing'),
        ('manifest', 'no readable manifest'),
        ('version', 'format version 9'),
    ],
)
def test_damaged_records_are_refused(tmp_path, damage, what):
    out = tmp_path / 'out'
    pathfinding.build(str(out), board_size=4, train_count=20, val_count=5, show=False)
    (records_file,) = out.glob('*-train.array_record*')
    manifest = out / records.MANIFEST
    if damage == 'truncate':
        os.truncate(records_file, records_file.stat().st_size // 2)
    elif damage == 'remove':
        records_file.unlink()
    elif damage == 'manifest':
        manifest.unlink()
    else:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), 'format_version': 9}))
    with pytest.raises(
        records.DatasetError, match=rf'{what}.*python -m data_builders .* --overwrite'
    ):
        records.load(out, 'train')


def test_mazes(tmp_path):
    out = tmp_path / 'out'
    maze.build(str(out), source='generated', size=7, train_count=12, test_count=4, aug=True,
               check_paths=True, show=False)  # fmt: skip
    train = records.load(out, 'train')
    inputs, labels = cells(train)
    assert train.sets['all'].num_groups == 12
    assert len(inputs) == 96
    assert not len(maze.find_wrong(inputs, labels, 7))
    np.testing.assert_array_equal(inputs[6].reshape(7, 7), inputs[0].reshape(7, 7).T)
    longer = labels.copy()
    cell = np.flatnonzero((inputs[0] == maze.SPACE) & (labels[0] != maze.PATH))[0]
    longer[0, cell] = maze.PATH
    cut = labels.copy()
    cut[1, np.flatnonzero(labels[1] == maze.PATH)[:1]] = maze.SPACE
    np.testing.assert_array_equal(maze.find_wrong(inputs, longer, 7), [0])
    assert 1 in maze.find_wrong(inputs, cut, 7) or not (labels[1] == maze.PATH).any()


def test_shortest_means_shortest():
    board = '     ' + ' ### ' + ' ### ' + ' ### ' + 'S   G'
    short = '     ' + ' ### ' + ' ### ' + ' ### ' + 'SoooG'
    around = 'ooooo' + 'o###o' + 'o###o' + 'o###o' + 'S   G'
    code = {c: k for k, c in enumerate(maze.CHARACTERS, start=1)}
    rows = [np.array([[code[c] for c in text]]) for text in (board, short, around)]
    assert not len(maze.find_wrong(rows[0], rows[1], 5))
    assert len(maze.find_wrong(rows[0], rows[2], 5)) == 1


@pytest.mark.parametrize(
    ('question', 'answer', 'match'),
    [
        ('S x#  # G', 'Soo#  # G', 'record 1: a question must be made of'),
        ('S  #  ##G', 'Soo# o# G', 'record 1: the answer must equal the question'),
        ('S  ## G', 'Soo##oG', 'must be square'),
        ('S  ## ##G', 'S  ## ##G', 'record 1: the answer is not a shortest path'),
    ],
)
def test_bad_mazes(tmp_path, question, answer, match):
    for split in ('train', 'test'):
        write_csv(tmp_path / f'{split}.csv', [('', question, answer, 0)])
    with pytest.raises(BuildError, match=match):
        maze.build(str(tmp_path / 'out'), source=str(tmp_path), check_paths=True, show=False)


def test_pathfinding_is_deterministic_and_split(tmp_path):
    boards, answers = pathfinding.unique_boards(40, 5, 0.3, random.Random(3))
    again, _ = pathfinding.unique_boards(40, 5, 0.3, random.Random(3))
    np.testing.assert_array_equal(boards, again)
    assert len(np.unique(boards, axis=0)) == 40
    assert ((answers == pathfinding.PATH) <= (boards == pathfinding.FLOOR)).all()
    with pytest.raises(BuildError, match='different 2 x 2 boards'):
        pathfinding.unique_boards(100, 2, 0.3, random.Random(0))
    pathfinding.build(str(tmp_path / 'out'), board_size=4, train_count=20, val_count=5, show=False)
    dataset = records.load(tmp_path / 'out', 'train')
    batch = pipeline.gather(dataset.sets['all'], dataset.metadata, np.arange(20))
    assert (batch.labels == 0).any()  # floor is learned
    assert not (batch.labels == -100).any()


@pytest.mark.parametrize(
    ('text', 'simple'),
    [
        ('(+ 2 3)', '5'), ('(/ 7 -2)', '-4'), ('(/ 3 0)', '(/ 3 0)'), ('(+ 0 x)', 'x'),
        ('(* x 1)', 'x'), ('(* (/ 1 0) 0)', '0'), ('(- (+ x y) (+ x y))', '0'),
        ('(/ y y)', '1'), ('(/ x 1)', 'x'), ('(- 0 x)', '(- 0 x)'), ('(/ 0 x)', '(/ 0 x)'),
        ('(+ (* 2 3) (- z 0))', '(+ 6 z)'), ('(% x 0)', '(% x 0)'),
    ],
)  # fmt: skip
def test_lisp_simplifies_once_from_the_leaves(text, simple):
    assert lisp.show_expression(lisp.simplify(lisp.parse(text))) == simple


def test_lisp_set(tmp_path):
    out = tmp_path / 'out'
    lisp.build(str(out), num_samples=60, seq_len=40, show=False)
    train, test = (records.load(out, split) for split in ('train', 'test'))
    assert (train.metadata.total_groups, test.metadata.total_groups) == (54, 6)
    vocabulary = json.loads((out / 'vocab.json').read_text())
    words = {k: token for token, k in vocabulary.items()}
    for question, answer in zip(*cells(train), strict=True):
        text, simple = (' '.join(words[t] for t in row if t) for row in (question, answer))
        assert lisp.tokens(lisp.simplify(lisp.parse(text))) == simple.split()
    with pytest.raises(BuildError, match='Raise --seq-len'):
        lisp.build(str(tmp_path / 'short'), num_samples=60, seq_len=10, show=False)


def _assert_same(a, b, fields=('inputs', 'labels', 'puzzle_identifiers')):
    whole = [pipeline.gather(d.sets['all'], d.metadata, np.arange(d.sets['all'].num_examples))
             for d in (a, b)]  # fmt: skip
    for field in fields:
        np.testing.assert_array_equal(*(getattr(w, field) for w in whole))


@pytest.mark.parametrize('form', ['hrm', 'trm'])
@pytest.mark.parametrize('task', ['arc', 'sudoku', 'lisp', 'pathfinding'])
def test_export_and_import(tmp_path, task, form):
    out = tmp_path / 'built'
    if task == 'arc':
        arc.build(str(out), source=arc_tree(tmp_path / 'raw'), num_aug=3, show=False)
    elif task == 'sudoku':
        sudoku.build(str(out), source=sudoku_folder(tmp_path / 'csv'), num_aug=2, show=False)
    elif task == 'lisp':
        lisp.build(str(out), num_samples=30, show=False)
    else:
        pathfinding.build(str(out), board_size=4, train_count=20, val_count=5, show=False)
    folder_format.export_folder(str(out), str(tmp_path / 'npy'), form=form, show=False)
    folder_format.import_folder(str(tmp_path / 'npy'), str(tmp_path / 'back'), show=False)
    for split in ('train', 'test'):
        built, npy, back = (records.load(tmp_path / n, split) for n in ('built', 'npy', 'back'))
        _assert_same(built, npy)
        _assert_same(built, back)
        assert npy.metadata.total_groups == built.metadata.total_groups
        facts = json.loads((tmp_path / 'npy' / split / 'dataset.json').read_text())
        assert ('total_puzzles' in facts) == (form == 'trm')
        names = json.loads((tmp_path / 'npy' / 'identifiers.json').read_text())
        if task == 'arc':
            assert sum('|||' in n for n in names) == (12 if form == 'trm' else 0)
            assert len(names) == facts['num_puzzle_identifiers']
        elif task == 'lisp':
            assert names[:3] == ['<pad>', '(', ')']
        else:
            assert names == ['<blank>']
    assert check.report(str(tmp_path / 'npy'), 1000)[1] == []


def test_check_finds_faults(tmp_path):
    out = tmp_path / 'npy'
    sudoku.build(str(tmp_path / 'a'), source=sudoku_folder(tmp_path / 'csv'), show=False)
    folder_format.export_folder(str(tmp_path / 'a'), str(out), show=False)
    assert commandline.main(['check', str(out)]) == 0
    labels = np.load(out / 'train' / 'all__labels.npy')
    labels[1, :2] = labels[1, 1::-1]
    np.save(out / 'train' / 'all__labels.npy', labels)
    assert commandline.main(['check', str(out)]) == 1
    _, faults = check.report(str(out), 100)
    assert any('record 2: the answer breaks the rules' in f for f in faults)
    facts = json.loads((out / 'train' / 'dataset.json').read_text())
    (out / 'train' / 'dataset.json').write_text(json.dumps({**facts, 'total_groups': 4}))
    assert any('total_groups is 4, but there are 3' in f for f in check.report(str(out), 100)[1])


def test_command_line(tmp_path, capsys):
    out = str(tmp_path / 'out')
    flags = ['pathfinding', '--output-dir', out, '--board-size', '4', '--train-count', '20',
             '--val-count', '5']  # fmt: skip
    assert commandline.main(flags) == 0
    assert '20 groups' in capsys.readouterr().err
    assert commandline.main(flags) == 1
    assert capsys.readouterr().err.startswith(f'error: {out} exists')
    with pytest.raises(SystemExit, match='0'):
        commandline.main(['sudoku', '--help'])
    assert 'examples:' in capsys.readouterr().out
    # A list flag replaces its default.
    flags = commandline.parse(['arc', '--output-dir', 'x', '--source', 'arc2'])
    assert flags['source'] == ['arc2']


def test_a_closed_pipe_ends_quietly(tmp_path):
    out = str(tmp_path / 'out')
    pathfinding.build(out, board_size=4, train_count=20, val_count=5, show=False)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, '-m', 'data_builders', 'check', out],
        stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, '')


def test_killed_builds_leave_nothing_that_loads(tmp_path):
    out = tmp_path / 'out'
    command = [sys.executable, '-m', 'data_builders', 'pathfinding', '--output-dir', str(out),
               '--board-size', '6', '--train-count', '3000', '--quiet']  # fmt: skip
    for delay in (0.5, 1.0, 1.5):
        process = subprocess.Popen(command)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if out.exists():
            assert records.load(out, 'train').sets['all'].num_examples == 3000
            break
        with pytest.raises(records.DatasetError, match='there is no data set'):
            records.load(out, 'train')


def test_manifest_counts_match(tmp_path):
    pathfinding.build(str(tmp_path / 'o'), board_size=4, train_count=20, val_count=5, show=False)
    manifest = json.loads((tmp_path / 'o' / records.MANIFEST).read_text())
    assert manifest['seed'] == 0
    assert set(manifest['versions']) == {'hrm_jax', 'python', 'numpy', 'tensorflow_datasets'}
    sizes = {n: (tmp_path / 'o' / n).stat().st_size for n in manifest['files']}
    assert sizes == manifest['files']
    dataset = records.load(tmp_path / 'o', 'train')
    assert dataclasses.asdict(dataset.metadata)['task'] == 'pathfinding'
