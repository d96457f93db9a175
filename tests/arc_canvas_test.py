"""ARC on a canvas smaller than 30 x 30: building, augmentation, scoring, adaptation, solving."""

import dataclasses
import json

import numpy as np
import pytest

from data_builders import arc as builder
from hrm_jax.adaptation import task_files
from hrm_jax.data import augment, pipeline, records
from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.errors import BuildError, DatasetError, PuzzleError
from hrm_jax.scoring import arc as scoring
from hrm_jax.tasks import Arc

SIDE = 6


def _task(rng, side):
    pairs = [
        {key: rng.integers(0, 10, (side, side - 1)).tolist() for key in ('input', 'output')}
        for _ in range(4)
    ]
    return {'train': pairs[:3], 'test': pairs[3:]}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp('canvas') / 'source'
    rng = np.random.default_rng(0)
    for subset, sides in (('training', (3, 5, 6)), ('evaluation', (4, 6, 7))):
        (folder / subset).mkdir(parents=True)
        for number, side in enumerate(sides):
            path = folder / subset / f'{subset[0]}{number}.json'
            path.write_text(json.dumps(_task(rng, side)))
    return folder


@pytest.fixture(scope='module')
def built(source, tmp_path_factory):
    """The folder of the set, and its manifest."""
    folder = tmp_path_factory.mktemp('canvas') / 'set'
    manifest = builder.build(
        str(folder), source=[str(source)], side=SIDE, num_aug=5, show=False, allow_leaks=True
    )
    return folder, manifest


def _grids(cells, side):
    return [Arc.decode(row).tolist() for row in cells.reshape(-1, side * side)]


def test_larger_puzzles_are_left_out_by_name(built):
    folder, manifest = built
    assert manifest['notes']['too_large'] == ['e2']
    data = records.load(str(folder), 'train')
    assert data.metadata.seq_len == SIDE**2
    names = [name for puzzles in data.sets.values() for name in puzzles.names]
    assert sorted(names) == ['e0', 'e1', 't0', 't1', 't2']


def test_cells_are_those_of_the_usual_canvas(built, source, tmp_path):
    usual = tmp_path / 'usual'
    builder.build(str(usual), source=[str(source)], num_aug=5, show=False, allow_leaks=True)
    small, large = (records.load(str(folder), 'test') for folder in (built[0], usual))
    grids = []
    for data in (small, large):
        side, found = data.metadata.side, {}
        for puzzles in data.sets.values():
            maps = puzzles.maps
            for group, name in enumerate(puzzles.names):
                first = int(puzzles.group_indices[group])
                rows = np.arange(*puzzles.puzzle_indices[first : first + 2])
                cells = puzzles_lib.stored_examples(puzzles, data.metadata, rows)
                found[name] = [_grids(part, side) for part in cells]
                assert (maps[first] == augment.identity_map('arc', side)).all()
        grids.append(found)
    del grids[1]['e2']
    assert grids[0] == grids[1]


@pytest.mark.parametrize('augmentation', ['stored', 'on_the_fly'])
def test_augmented_rows_can_be_undone(built, augmentation):
    data = records.load(str(built[0]), 'train')
    [puzzles] = data.sets.values()
    examples = np.arange(len(puzzles.offsets))
    batch = pipeline.gather(
        puzzles, data.metadata, examples, augmentation, np.random.default_rng(0)
    )
    assert batch.inputs.shape == (len(examples), SIDE**2)
    boxes, bad = _boxes(batch.inputs)
    assert not bad.any()
    owners, within = puzzles.owners(examples)
    sides = puzzles.extents[puzzles.puzzle_first[owners] + within][:, :2]
    assert (np.sort(boxes[:, 2:]) == np.sort(sides)).all()  # a turn swaps them
    if augmentation == 'stored':
        assert (boxes[:, :2] == puzzles.offsets).all()


def _boxes(cells):
    from data_builders.check import arc_boxes

    return arc_boxes(cells.astype(np.uint8))


@pytest.mark.parametrize('side', [4, 6, 30])
def test_an_augmentation_is_undone_on_any_canvas(side):
    rng = np.random.default_rng(side)
    grid = rng.integers(0, 10, (4, 3)).astype(np.uint8)
    tokens = Arc.encode(grid, side).astype(np.uint8)[None].repeat(8, 0)
    maps = augment.random_maps('arc', rng.random((8, 10), np.float32), side).astype(np.uint8)
    maps[:, 0] = np.arange(8)
    cells = np.where(tokens < 2, 0, tokens)
    extents = np.tile([[4, 3]], (8, 1))
    moved = augment.place_arc(cells, extents, maps, np.zeros((8, 2), np.uint8))
    back = scoring.undo(moved, augment.inverse_maps('arc', maps, side))
    assert all(one == scoring.to_bytes(grid.tolist()) for one in back)


@pytest.mark.parametrize('side', [0, 31])
def test_a_side_that_is_no_canvas_is_refused(source, tmp_path, side):
    with pytest.raises(BuildError, match=r'--side must be in 1\.\.30'):
        builder.build(str(tmp_path / 'x'), source=[str(source)], side=side, show=False)


def test_a_side_that_leaves_no_puzzle_is_refused(source, tmp_path):
    with pytest.raises(BuildError, match='no puzzle has grids of at most 2'):
        builder.build(str(tmp_path / 'x'), source=[str(source)], side=2, show=False)
    assert not (tmp_path / 'x').exists()


def test_a_grid_beyond_the_canvas_is_refused():
    with pytest.raises(PuzzleError, match='1 to 6 rows and columns'):
        Arc.encode(np.zeros((7, 2), int), 6)
    task = Arc(seq_len=36, vocab_size=12)
    assert task.parse('12/34').shape == (36,)
    with pytest.raises(PuzzleError, match='1 to 6 rows'):
        task.parse('/'.join(['1'] * 7))


def test_tasks_beyond_the_model_are_left_out(source):
    asked = task_files.read(str(source), 'evaluation')
    fitting = task_files.fitting(asked, SIDE)
    assert list(fitting.tasks) == ['e0', 'e1']
    assert fitting.tests == asked.tests  # the submission has them all
    assert '7 rows' in fitting.left_out['e2']
    assert '6 x 6' in fitting.left_out['e2']
    # A test input counts as well as a demonstration.
    task = asked.tasks['e2']
    task['train'] = asked.tasks['e0']['train']
    assert 'e2' in task_files.fitting(asked, SIDE).left_out
    with pytest.raises(DatasetError, match='at most 2 rows'):
        task_files.fitting(dataclasses.replace(asked), 2)


def test_a_first_answer_of_another_size_is_drawn(tmp_path, capsys):
    pair = {'input': [[1, 2]], 'output': [[3], [4], [5]]}
    (tmp_path / 'source' / 'training').mkdir(parents=True)
    path = tmp_path / 'source' / 'training' / 'a.json'
    path.write_text(json.dumps({'train': [pair], 'test': []}))
    builder.build(
        str(tmp_path / 'set'), source=[str(tmp_path / 'source')], side=4, num_aug=0,
        test_subsets=(),
    )  # fmt: skip
    shown = capsys.readouterr().err.splitlines()
    first = shown.index('  |1 2|   |3|')
    assert shown[first + 1 : first + 3] == ['          |4|', '          |5|']


def test_synthetic_pairs_beyond_the_canvas_are_not_drawn(source, tmp_path):
    synthetic = tmp_path / 're_arc' / 'tasks'
    synthetic.mkdir(parents=True)
    small, large = ([{key: [[n] * size] * size for key in ('input', 'output')} for n in range(4)]
                    for size in (3, 9))  # fmt: skip
    (synthetic / 't0.json').write_text(json.dumps(small + large))
    (synthetic / 'new.json').write_text(json.dumps(large))
    manifest = builder.build(
        str(tmp_path / 'set'), source=[str(source)], side=SIDE, num_aug=0, show=False,
        synthetic=[f'{synthetic.parent}=0.6'], allow_leaks=True,
    )  # fmt: skip
    assert manifest['sources'][-1]['pairs'] == 4
    data = records.load(str(tmp_path / 'set'), 'train')
    assert 'new' not in [name for puzzles in data.sets.values() for name in puzzles.names]
