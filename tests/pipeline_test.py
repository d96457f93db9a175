"""Batches from sets in memory, and folders in the original's format."""

import dataclasses
import json
import sys

import numpy as np
import pytest

import hrm_jax.data
from hrm_jax.data import augment, blocks, pipeline, records, sampling
from hrm_jax.data.puzzles import DatasetMetadata, PuzzleDataset, PuzzleSet
from hrm_jax.errors import ConfigError


def _sudoku(groups=6, augmentations=3, seed=0, **changes):
    """Boards of noise with stored maps; the transform does not care about the rules."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(1, 11, (2, groups, 81)).astype(np.uint8)
    maps = augment.random_maps('sudoku', rng.random((groups * augmentations, 34)), 9)
    count = np.arange(groups * augmentations + 1)
    puzzles = PuzzleSet(
        cells[0], cells[1], count[::augmentations], count,
        np.repeat(np.arange(groups), augmentations),
        np.zeros(len(maps), np.int32), maps,
    )  # fmt: skip
    metadata = DatasetMetadata(11, 81, 1, groups, 1.0, task='sudoku', transform='sudoku', **changes)
    return PuzzleDataset(metadata, {'all': puzzles}, 'noise')


def _arc(groups=5, augmentations=4, seed=0):
    """Groups of 1..4 un-padded pairs with stored maps and offsets."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(1, 5, groups)
    extents = rng.integers(1, 31, (pairs.sum(), 4)).astype(np.uint8)
    cells = np.zeros((2, pairs.sum(), 30, 30), np.uint8)
    for k, (a, b, c, d) in enumerate(extents):
        cells[0, k, :a, :b] = rng.integers(2, 12, (a, b))
        cells[1, k, :c, :d] = rng.integers(2, 12, (c, d))
    maps = augment.random_maps('arc', rng.random((groups * augmentations, 10)), 30)
    counts = np.repeat(pairs, augmentations)
    firsts = np.repeat(np.cumsum(pairs) - pairs, augmentations)
    ends = np.concatenate([[0], np.cumsum(counts)])
    stored = np.concatenate([np.arange(f, f + n) for f, n in zip(firsts, counts, strict=True)])
    dihedral = np.repeat(maps[:, 0], counts)
    offsets = augment.random_offsets(rng.random((len(stored), 2)), extents[stored], dihedral)
    puzzles = PuzzleSet(
        cells[0].reshape(-1, 900), cells[1].reshape(-1, 900),
        np.arange(groups + 1) * augmentations, ends, firsts,
        np.arange(1, len(maps) + 1, dtype=np.int32), maps, extents,
        offsets.astype(np.uint8), tuple(f'puzzle{k}' for k in range(groups)),
    )  # fmt: skip
    metadata = DatasetMetadata(12, 900, len(maps) + 1, groups, ends[-1] / len(maps),
                               task='arc', transform='arc')  # fmt: skip
    return PuzzleDataset(metadata, {'all': puzzles}, 'arc noise')


def _rows(batches):
    return [np.concatenate([getattr(b, f) for b in batches])
            for f in ('inputs', 'labels', 'puzzle_identifiers')]  # fmt: skip


@pytest.mark.parametrize('augmentation', ['stored', 'on_the_fly', 'translation'])
@pytest.mark.parametrize('make', [_sudoku, _arc])
def test_processes_share_one_global_batch(make, augmentation):
    dataset = make()
    if make is _sudoku and augmentation == 'translation':
        with pytest.raises(ConfigError, match='translation'):
            pipeline.train_iterator(dataset, 12, 0, augmentation=augmentation)
        return
    kwargs = {'augmentation': augmentation, 'prefetch': False}
    alone = pipeline.train_iterator(dataset, 12, 4, **kwargs)
    parts = [
        pipeline.train_iterator(dataset, 12, 4, r, **kwargs) for r in np.split(np.arange(12), 3)
    ]
    for _ in range(8):
        batch = next(alone)
        for got, want in zip(_rows([next(p) for p in parts]), _rows([batch]), strict=True):
            np.testing.assert_array_equal(got, want)
        assert batch.inputs.dtype == batch.labels.dtype == np.int32


@pytest.mark.parametrize('prefetch', [False, True])
@pytest.mark.parametrize('augmentation', ['stored', 'on_the_fly'])
def test_resume_gives_the_same_batches(prefetch, augmentation):
    if prefetch:
        pytest.importorskip('grain')

    def make():
        return pipeline.train_iterator(_arc(), 6, 4, augmentation=augmentation, prefetch=prefetch)

    straight = make()
    want = [next(straight) for _ in range(9)]
    stopped = make()
    for _ in range(4):
        next(stopped)
    state = json.loads(json.dumps(stopped.get_state()))
    assert state['batches'] == 4
    assert state['examples'] == 24
    resumed = make()
    resumed.set_state(state)
    got = [next(resumed) for _ in range(5)]
    for a, b in zip(_rows(got), _rows(want[4:]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_grain_no_difference(monkeypatch):
    first = next(pipeline.train_iterator(_sudoku(), 8, 1))
    monkeypatch.setitem(sys.modules, 'grain', None)
    monkeypatch.delitem(sys.modules, 'hrm_jax.data.grain_source', raising=False)
    monkeypatch.delattr(hrm_jax.data, 'grain_source', raising=False)
    second = pipeline.train_iterator(_sudoku(), 8, 1)
    assert isinstance(second, pipeline._PlainIterator)
    np.testing.assert_array_equal(first.inputs, next(second).inputs)


def test_stored_maps_are_applied():
    dataset = _sudoku()
    puzzles = dataset.sets['all']
    batch = pipeline.gather(puzzles, dataset.metadata, np.arange(18))
    for k in range(18):
        moved = augment.apply_sudoku(puzzles.inputs[k // 3][None], puzzles.maps[k][None], 9)
        np.testing.assert_array_equal(batch.inputs[k], moved[0])


def test_on_the_fly_sudoku_is_endless_and_right():
    dataset = _sudoku(groups=1, augmentations=1)
    batches = pipeline.train_iterator(dataset, 64, 0, augmentation='on_the_fly', prefetch=False)
    rows = _rows([next(batches) for _ in range(4)])[0]
    assert len(np.unique(rows, axis=0)) == len(rows)
    base = np.bincount(dataset.sets['all'].inputs[0], minlength=11)
    for row in rows:  # blanks stay, digits are relabelled
        counts = np.bincount(row, minlength=11)
        assert counts[1] == base[1]
        assert sorted(counts[2:]) == sorted(base[2:])


def test_on_the_fly_arc_moves_all_but_one_of_a_visit():
    dataset = _arc(groups=3, augmentations=2)
    puzzles = dataset.sets['all']
    examples = np.arange(puzzles.puzzle_indices[1])  # one whole puzzle
    still = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        fresh = pipeline.gather(puzzles, dataset.metadata, examples, 'translation', rng)
        corner = fresh.inputs[:, 0] > 1
        assert corner.any()
        still += corner.sum() == 1
        assert (fresh.puzzle_identifiers == puzzles.puzzle_identifiers[0]).all()
    assert still > 50


@pytest.mark.parametrize('augmentation', ['stored', 'on_the_fly'])
def test_several_sets_are_one_pool(augmentation):
    parts = {'a': _arc(seed=1).sets['all'], 'b': _arc(groups=3, seed=2).sets['all']}
    metadata = dataclasses.replace(_arc().metadata, sets=('a', 'b'), total_groups=8)
    dataset = PuzzleDataset(metadata, parts, 'two sets')
    kwargs = {'augmentation': augmentation, 'prefetch': False}
    whole = pipeline.train_iterator(dataset, 12, 0, **kwargs)
    rows = np.split(np.arange(12), 2)
    halves = [pipeline.train_iterator(dataset, 12, 0, half, **kwargs) for half in rows]
    for _ in range(6):
        batch = next(whole)
        for got, want in zip(_rows([next(h) for h in halves]), _rows([batch]), strict=True):
            np.testing.assert_array_equal(got, want)
    if augmentation == 'stored':
        plan = sampling.BatchPlan(list(parts.values()), 12, 0)
        iterator = pipeline.train_iterator(dataset, 12, 0, prefetch=False)
        for _ in range(6):
            chosen, batch = next(plan), next(iterator)
            first = chosen < parts['a'].num_examples
            local = np.where(first, chosen, chosen - parts['a'].num_examples)
            for name, mask in (('a', first), ('b', ~first)):
                want = pipeline.gather(parts[name], metadata, local[mask])
                np.testing.assert_array_equal(batch.inputs[mask], want.inputs)
    names = [name for name, _, _ in pipeline.eval_batches(dataset, 64)]
    assert sorted(set(names)) == ['a', 'b']


@pytest.mark.parametrize(('held_out', 'match'), [(True, 'filtered'), (None, 'nobody has looked')])
def test_held_out_answers_forbid_fresh_maps(held_out, match):
    dataset = _sudoku(held_out=held_out)
    dataset = dataclasses.replace(
        dataset, metadata=DatasetMetadata.from_json(dataset.metadata.to_json())
    )
    with pytest.raises(ConfigError, match=match):
        pipeline.train_iterator(dataset, 8, 0, augmentation='on_the_fly')


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize(('size', 'limit'), [(4, 0), (8, 0), (8, 5), (64, 0)])
def test_evaluation_covers_every_example_once(size, limit, processes):
    dataset = _arc()
    puzzles = dataset.sets['all']
    total = min(puzzles.num_examples, limit or puzzles.num_examples)
    whole = pipeline.gather(puzzles, dataset.metadata, np.arange(total))
    parts = [list(pipeline.eval_batches(dataset, size, rows, limit))
             for rows in np.split(np.arange(size), processes)]  # fmt: skip
    count = pipeline.num_eval_batches(dataset, size, limit)
    assert [len(p) for p in parts] == [count] * processes
    rows = _rows([parts[k][b][1] for b in range(count) for k in range(processes)])
    assert sum(real for _, _, real in parts[0]) == total
    for got, want in zip(rows, _rows([whole]), strict=True):
        assert len(got) == count * size
        np.testing.assert_array_equal(got[:total], want)
    assert (rows[0][total:] == 0).all()
    assert (rows[1][total:] == -100).all()
    assert (rows[2][total:] == 0).all()


@pytest.mark.parametrize('make', [_sudoku, _arc])
@pytest.mark.parametrize('block', [1, 3, 1000])
def test_blocks_round_trip(make, block):
    dataset = make()
    encoded = list(blocks.encode('all', dataset.sets['all'], dataset.metadata, block))
    assert all(value.dtype == np.uint8 for b in encoded for value in b.values())
    got = blocks.decode(encoded, dataset.metadata)['all']
    for field in ('inputs', 'labels', 'group_indices', 'puzzle_indices', 'puzzle_first',
                  'puzzle_identifiers', 'maps', 'extents', 'offsets', 'names'):  # fmt: skip
        np.testing.assert_array_equal(getattr(got, field), getattr(dataset.sets['all'], field))


def _write_folder(root, dtype=np.uint8, **changes):
    arrays = {
        'inputs': np.arange(24).reshape(6, 4) % 5, 'labels': np.arange(24).reshape(6, 4) % 5,
        'puzzle_identifiers': [0, 1, 2], 'puzzle_indices': [0, 1, 3, 6],
        'group_indices': [0, 1, 3], **changes,
    }  # fmt: skip
    metadata = {
        'vocab_size': 5, 'seq_len': 4, 'num_puzzle_identifiers': 3, 'total_groups': 2,
        'mean_puzzle_examples': 2.0, 'pad_id': 0, 'ignore_label_id': 0,
        'blank_identifier_id': 0, 'sets': ['all'], 'total_puzzles': 3,
    }  # fmt: skip
    (root / 'train').mkdir()
    (root / 'train' / 'dataset.json').write_text(json.dumps(metadata))
    for field, values in arrays.items():
        kind = dtype if field in ('inputs', 'labels') else np.int32
        np.save(root / 'train' / f'all__{field}.npy', np.asarray(values, kind))


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int64])
def test_npy_folder(tmp_path, dtype):
    _write_folder(tmp_path, dtype)
    dataset = records.load(tmp_path, 'train')
    assert dataset.sets['all'].inputs.dtype == np.uint8
    assert dataset.metadata.total_groups == 2
    batch = pipeline.gather(dataset.sets['all'], dataset.metadata, np.array([5, 1]))
    np.testing.assert_array_equal(batch.inputs, [[0, 1, 2, 3], [4, 0, 1, 2]])
    np.testing.assert_array_equal(batch.labels, [[-100, 1, 2, 3], [4, -100, 1, 2]])
    np.testing.assert_array_equal(batch.puzzle_identifiers, [2, 1])


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'labels': np.full((6, 4), 7)}, 'labels must be in 0..4'),
        ({'inputs': np.full((6, 4), 5)}, 'inputs must be in 0..4'),
        ({'inputs': np.zeros((6, 3))}, 'rows of seq_len 4'),
        ({'labels': np.zeros((5, 4))}, '6 inputs and 5 labels'),
        ({'puzzle_identifiers': [0, 1, 3]}, r'puzzle_identifiers\.npy must be in 0\.\.2; got'),
        ({'puzzle_indices': [0, 1, 3, 5]}, 'number of examples'),
        ({'group_indices': [0, 2, 2]}, 'group_indices must rise'),
    ],
)
@pytest.mark.parametrize('dtype', [np.uint8, np.int64])
def test_damaged_npy_folder(tmp_path, changes, match, dtype):
    _write_folder(tmp_path, dtype, **changes)
    with pytest.raises(records.DatasetError, match=match):
        records.load(tmp_path, 'train')


def test_half_written_npy_folder(tmp_path):
    _write_folder(tmp_path)
    labels = tmp_path / 'train' / 'all__labels.npy'
    labels.write_bytes(labels.read_bytes()[:-5])
    with pytest.raises(records.DatasetError, match='truncated'):
        records.load(tmp_path, 'train')
    labels.unlink()
    with pytest.raises(records.DatasetError, match='missing'):
        records.load(tmp_path, 'train')


def test_missing_data_names_the_builder(tmp_path):
    with pytest.raises(records.DatasetError, match='python -m data_builders sudoku --output-dir'):
        records.load(tmp_path / 'sudoku-extreme-1k', 'train')
    with pytest.raises(records.DatasetError, match='data_builders'):
        records.load(tmp_path, 'train')
    with pytest.raises(records.DatasetError, match=r'data\.path'):
        records.load('', 'train')
    _write_folder(tmp_path)
    with pytest.raises(records.DatasetError, match=r"no split 'test' \(it has: train"):
        records.load(tmp_path, 'test')
