"""A data set has a digest, and one that changes while a run reads it is noticed."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

pytest.importorskip('tensorflow_datasets')
pytest.importorskip('array_record')

from data_builders import check, pathfinding, sudoku
from hrm_jax.data import npy_folder, pipeline, puzzles, records
from hrm_jax.data.metadata import DatasetMetadata
from hrm_jax.errors import DatasetError
from tests.npy_sets import FACTS, npy


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    """A set whose cells stay in their files, and its files."""
    monkeypatch.setattr(npy_folder, '_IN_MEMORY_BYTES', 8)
    root = npy(tmp_path / 'set')
    data = records.load(root, 'train')
    assert {file.path.name for file in data.sets['all'].files} == {
        'all__inputs.npy', 'all__labels.npy'
    }  # fmt: skip
    return data, root / 'train' / 'all__inputs.npy'


def several(batches):
    """Takes the batches of some epochs."""
    for _ in range(20):
        next(batches)


def shrink(path):
    os.truncate(path, path.stat().st_size // 2)


def rewrite(path):
    np.save(path, np.load(path)[::-1].copy())


def replace(path):
    text = path.read_bytes()
    path.unlink()
    path.with_suffix('.keep').write_bytes(b'')  # so that the inode is another one
    path.write_bytes(text)


@pytest.mark.parametrize('prefetch', [False, True])
@pytest.mark.parametrize('change', [shrink, rewrite, replace, pathlib.Path.unlink])
def test_a_mapped_set_that_changes_is_noticed(mapped, change, prefetch):
    data, path = mapped
    batches = pipeline.train_iterator(data, 2, 0, prefetch=prefetch)
    next(batches)
    change(path)
    with pytest.raises(DatasetError, match=r'all__inputs\.npy must stay as it is while a run read'):
        several(batches)


def test_a_shrunken_set_is_noticed_in_an_evaluation(mapped):
    data, path = mapped
    batches = pipeline.eval_batches(data, 2)
    next(batches)
    shrink(path)
    with pytest.raises(DatasetError, match='bytes 152 before, 76 now'):
        next(batches)


def test_a_change_that_keeps_size_and_time_is_noticed_at_an_epoch(mapped):
    data, path = mapped
    batches = pipeline.train_iterator(data, 2, 0, prefetch=False)
    next(batches)
    before = path.stat()
    with path.open('r+b') as file:
        file.seek(-24, os.SEEK_END)
        file.write(bytes([5] * 24))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DatasetError, match='its content is another one'):
        several(batches)


def test_a_set_in_memory_is_not_watched(tmp_path):
    data = records.load(npy(tmp_path / 'set'), 'train')
    assert data.sets['all'].files == ()
    shrink(tmp_path / 'set' / 'train' / 'all__inputs.npy')
    batches = pipeline.train_iterator(data, 2, 0, prefetch=False)
    for _ in range(9):
        next(batches)


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp('built') / 'set'
    pathfinding.build(str(out), board_size=4, train_count=20, val_count=5, show=False)
    return out


def digest_of(root, split='train'):
    return records.load(root, split).digest


def test_the_digest_is_recorded_and_is_that_of_the_content(built, tmp_path):
    data = records.load(built, 'train')
    stated = json.loads((built / 'train' / 'dataset.json').read_text())['digest']
    assert data.digest == data.stored_digest == stated
    assert puzzles.content_digest(data.metadata, data.sets) == stated
    assert digest_of(built, 'test') != stated
    # Without the key it is computed, once.
    out = pathlib.Path(shutil.copytree(built, tmp_path / 'set'))
    for split in ('train', 'test'):
        file = out / split / 'dataset.json'
        facts = json.loads(file.read_text())
        del facts['digest']
        file.write_text(json.dumps(facts))
    manifest = json.loads((out / records.MANIFEST).read_text())
    for split in ('train', 'test'):
        name = f'{split}/dataset.json'
        manifest['files'][name] = (out / name).stat().st_size
    (out / records.MANIFEST).write_text(json.dumps(manifest))
    old = records.load(out, 'train')
    assert (old.stored_digest, old.digest) == ('', stated)


def test_no_metadata_of_older_checkpoints_has_changed():
    """A resumed run compares these keys with those of its checkpoint."""
    assert [field.name for field in dataclasses.fields(DatasetMetadata)][:13] == [
        'vocab_size', 'seq_len', 'num_puzzle_identifiers', 'total_groups', 'mean_puzzle_examples',
        'pad_id', 'ignore_label_id', 'blank_identifier_id', 'sets', 'task', 'transform',
        'cell_bytes', 'held_out',
    ]  # fmt: skip
    assert 'digest' not in DatasetMetadata(6, 4, 1, 1, 1.0).to_json()


def test_equal_sets_have_one_digest_and_others_another(tmp_path):
    settings = {'source': 'generated', 'size': 4, 'train_count': 20, 'test_count': 5, 'show': False}
    digests = {
        name: sudoku.build(str(tmp_path / name), **(settings | more)) and digest_of(tmp_path / name)
        for name, more in {
            'a': {}, 'b': {}, 'seed': {'seed': 1}, 'more': {'train_count': 21},
            'augmented': {'num_aug': 1},
        }.items()
    }  # fmt: skip
    assert digests.pop('a') == digests['b']
    assert len(set(digests.values())) == 4


@pytest.mark.parametrize('field', ['inputs', 'labels', 'puzzle_identifiers', 'group_indices'])
def test_any_changed_value_changes_the_digest(tmp_path, field):
    data = records.load(npy(tmp_path / 'set'), 'train')
    one = data.sets['all']
    values = getattr(one, field).copy()
    values.reshape(-1)[1] ^= 1
    other = dataclasses.replace(one, **{field: values})
    assert puzzles.content_digest(data.metadata, {'all': other}) != data.digest


def test_the_digest_ignores_how_values_are_stored(tmp_path):
    wide = {f: np.arange(24).reshape(6, 4).astype(np.int64) % 5 + 1 for f in ('inputs', 'labels')}
    assert digest_of(npy(tmp_path / 'a')) == digest_of(npy(tmp_path / 'b', **wide))
    task = {'task': 'lisp', 'held_out': None, 'total_groups': 2}
    assert digest_of(npy(tmp_path / 'c', task)) == digest_of(tmp_path / 'a')
    assert digest_of(npy(tmp_path / 'd', {'ignore_label_id': -100})) != digest_of(tmp_path / 'a')


def test_a_mapped_set_has_the_digest_of_one_in_memory(mapped, monkeypatch):
    data, path = mapped
    monkeypatch.undo()
    assert records.load(path.parent.parent, 'train').digest == data.digest


@pytest.mark.parametrize('value', [7, None, 'abc', 'g' * 32, '../../x'])
def test_a_digest_of_another_form(tmp_path, value):
    with pytest.raises(DatasetError, match=r'dataset\.json: digest must be 32 hexadecimal digits'):
        records.load(npy(tmp_path / 'set', {'digest': value}), 'train')


def test_the_check_compares_the_digest(tmp_path):
    root = npy(tmp_path / 'set', {'task': 'x'})
    for split in ('train', 'test'):
        file = root / split / 'dataset.json'
        file.write_text(json.dumps(FACTS | {'task': 'x', 'digest': digest_of(root)}))
    assert not [fault for fault in check.report(str(root), 10)[1] if 'digest' in fault]
    labels = np.load(root / 'train' / 'all__labels.npy')
    labels[0, 0] ^= 1
    np.save(root / 'train' / 'all__labels.npy', labels)
    faults = check.report(str(root), 10)[1]
    assert 'train: the puzzles are not those whose digest dataset.json states' in faults


def test_examples_without_an_answer_are_a_fault(tmp_path):
    labels = np.arange(24).reshape(6, 4) % 5 + 1
    labels[2] = 0
    root = npy(tmp_path / 'set', {'task': 'x'}, labels=labels)
    faults = check.report(str(root), 10)[1]
    assert 'train: 1 examples have no answer: no label of theirs counts' in faults
    assert records.load(root, 'train').has_answers
    assert not records.load(npy(root, labels=np.zeros((6, 4), np.uint8)), 'train').has_answers
