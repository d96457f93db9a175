"""Weights and data that do not belong together are refused; so is a resume on other data."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from hrm_jax import eval_checkpoint, train
from hrm_jax.checkpoint import compatible, data_facts, layout
from hrm_jax.cli import score
from hrm_jax.data import records
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import formats
from hrm_jax.scoring import predictions
from tests import commands, tiny_run

NAMES = ['<blank>', 'one', 'two', 'two_t3_0213456789']
IDS = len(NAMES)


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


def _dataset(folder, names=NAMES, seed=0, words=None):
    """A set whose puzzles have the identifiers 1, 2, 3, 1 ...; ``names`` says of what."""
    tiny_run.write_dataset(folder, seed)
    for split in ('train', 'test'):
        path = folder / split
        count = len(np.load(path / 'all__puzzle_identifiers.npy'))
        np.save(path / 'all__puzzle_identifiers.npy', np.arange(count, dtype=np.int32) % 3 + 1)
        metadata = json.loads((path / 'dataset.json').read_text())
        metadata['num_puzzle_identifiers'] = len(names)
        (path / 'dataset.json').write_text(json.dumps(metadata))
    (folder / 'identifiers.json').write_text(json.dumps(names))
    if words:
        (folder / 'vocab.json').write_text(json.dumps({word: k for k, word in enumerate(words)}))
    return folder


def _config(data, **sections):
    section = {'max_steps': 3} | sections.pop('train', {})
    return tiny_run.config(data, train=section, **sections)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return _dataset(tmp_path_factory.mktemp('meaning') / 'data')


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run') / 'run'
    train.train(_config(data), folder, log=lambda _: None)
    return folder


def _evaluate(data, run, logged=None, **sections):
    log = (lambda _: None) if logged is None else logged.append
    return eval_checkpoint.evaluate_checkpoint(_config(data, **sections), run, log=log)


def test_other_puzzles_with_the_same_identifiers_are_normal_use(run, data, tmp_path):
    logged = []
    _evaluate(data, run, logged)
    _evaluate(_dataset(tmp_path / 'others', seed=1), run, logged)
    trm = [name.replace('_t3_', '|||t3|||') for name in NAMES]  # the same in TRM's spelling
    _evaluate(_dataset(tmp_path / 'trm', trm), run, logged)
    assert not any('note' in line or 'blank' in line for line in logged)
    # A test split alone, whose own identifiers are those of the training.
    alone = _dataset(tmp_path / 'alone')
    shutil.rmtree(alone / 'train')
    _evaluate(alone, run, logged)


def test_test_puzzles_of_the_training_set_are_reported(run, data, tmp_path):
    copy = shutil.copytree(data, tmp_path / 'copy')
    shutil.rmtree(copy / 'train')  # it is the run's own that is looked at
    file = copy / 'test' / 'all__inputs.npy'
    questions = np.load(file)
    questions[[2, 4, 9]] = np.load(data / 'train' / 'all__inputs.npy')[[0, 7, 59]]
    np.save(file, questions)
    logged = []
    _evaluate(copy, run, logged)
    [note] = [line for line in logged if 'in the training set' in line]
    assert note.startswith("note: 3 of 10 puzzles of 'test' are in the training set of this model")
    assert str(data) in note


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['<blank>', 'two', 'one', 'two_t3_0213456789'], 'stand for other puzzles'),
        (['<blank>', 'one', 'two', 'two_t4_0213456789'], 'stand for other puzzles'),
        (['<blank>', 'one', 'two', 'two_t3_0213456798'], 'stand for other puzzles'),
        ([*NAMES, 'three'], r'has 5 puzzle identifiers'),
    ],
)
def test_identifiers_of_other_puzzles_are_refused(run, tmp_path, names, message):
    other = _dataset(tmp_path / 'other', names)
    with pytest.raises(CheckpointError, match=f'{message}.*identifiers=blank'):
        _evaluate(other, run)
    logged = []
    _evaluate(other, run, logged, eval={'identifiers': 'blank'})
    assert any('answered with the blank identifier' in line for line in logged)


def test_blank_answers_as_if_no_puzzle_were_known_and_keeps_the_identifiers(run, data, tmp_path):
    plain = tiny_run.write_dataset(tmp_path / 'plain')  # the same puzzles, all with identifier 0
    blank = {'identifiers': 'blank'}
    for halting in ('max', 'adaptive'):
        expected = _evaluate(plain, run, eval={'halting': halting})
        own = _evaluate(data, run, eval={'halting': halting})
        assert _evaluate(data, run, eval={'halting': halting} | blank) == expected
        assert own != expected
        [file] = predictions.find([run / 'predictions' / 'step_3_test'])
        ids = np.concatenate([c['puzzle_identifiers'] for c in file.chunks('puzzle_identifiers')])
        _evaluate(data, run, eval={'halting': halting} | blank)
        [file] = predictions.find([run / 'predictions' / 'step_3_test'])
        again = np.concatenate([c['puzzle_identifiers'] for c in file.chunks('puzzle_identifiers')])
        assert sorted(ids) == sorted(again) == sorted(np.arange(10) % 3 + 1)


def test_other_words_and_lengths_are_refused(tmp_path):
    data = _dataset(tmp_path / 'data', words='_abcd')
    run = tmp_path / 'run'
    train.train(_config(data), run, log=lambda _: None)
    _evaluate(_dataset(tmp_path / 'same', words='_abcd', seed=1), run)
    with pytest.raises(CheckpointError, match='tokens stand for other symbols'):
        _evaluate(_dataset(tmp_path / 'other', words='_abdc'), run)
    dataset = records.load(data, 'test')
    longer = dataclasses.replace(dataset.metadata, seq_len=25, vocab_size=6)
    with pytest.raises(CheckpointError, match=r'vocab_size is 6, not 5; seq_len is 25, not 16'):
        compatible.check_data(
            formats.load(run).config.model, {}, dataclasses.replace(dataset, metadata=longer), run
        )


def test_checkpoints_without_digests_compare_what_is_known(run, data, tmp_path):
    saved = formats.load(run)
    meta = {name: value for name, value in saved.meta.items() if name != 'data_facts'}
    logged = []
    permuted = records.load(_dataset(tmp_path / 'p', [NAMES[k] for k in (0, 2, 1, 3)]), 'test')
    model = saved.config.model
    assert compatible.check_data(model, meta, permuted, run, log=logged.append)
    assert len(logged) == 1
    assert 'only their number, 4, was compared' in logged[0]
    more = dataclasses.replace(
        permuted, metadata=dataclasses.replace(permuted.metadata, num_puzzle_identifiers=9)
    )
    with pytest.raises(CheckpointError, match='4 rows'):
        compatible.check_data(model, meta, more, run)
    # A model that knows the blank identifier only answers any puzzle with it.
    one = dataclasses.replace(model, num_puzzle_identifiers=1)
    assert not compatible.check_data(one, meta, more, run, log=logged.append)


def test_predictions_are_scored_on_the_puzzles_that_they_answer(run, data, tmp_path, capsys):
    _evaluate(data, run)
    folder = run / 'predictions' / 'step_3_test'
    facts = predictions.folder_metadata(folder)
    assert facts['digest'] == records.load(data, 'test').digest
    assert facts['training_digest'] == records.load(data, 'train').digest
    compatible.check_predictions(facts, records.load(data, 'test'), folder, 'test')
    other = _dataset(tmp_path / 'other', [NAMES[k] for k in (0, 2, 1, 3)])
    with pytest.raises(CheckpointError, match='whose puzzle identifiers are not those of'):
        compatible.check_predictions(facts, records.load(other, 'test'), folder, 'test')
    assert commands.exit_code(score.main, 'arc', folder, '--data', other) == 1
    assert 'puzzle identifiers are not those of' in capsys.readouterr().err


def test_a_resume_refuses_another_training_set_of_the_same_sizes(run, data, tmp_path):
    copy = tmp_path / 'run'
    shutil.copytree(run, copy)
    rebuilt = _dataset(tmp_path / 'rebuilt', seed=1)
    with pytest.raises(CheckpointError, match='--accept-data-change'):
        train.train(_config(rebuilt, train={'max_steps': 6}), copy, log=lambda _: None)
    assert layout.steps(copy) == [3]
    elsewhere = tmp_path / 'copied'
    shutil.copytree(data, elsewhere)
    train.train(_config(elsewhere, train={'max_steps': 6}), copy, log=lambda _: None)
    logged = []
    outcome = train.train(
        _config(rebuilt, train={'max_steps': 9}), copy, log=logged.append, accept_data_change=True
    )
    assert outcome.step == 9
    assert any('warning: the training set is not the one of' in line for line in logged)
    facts = layout.read_meta(layout.resolve('latest', copy))['data_facts']
    assert facts['digest'] == records.load(rebuilt, 'train').digest
    # From then on it is the run's data set.
    train.train(_config(rebuilt, train={'max_steps': 12}), copy, log=lambda _: None)


def test_a_new_run_does_not_take_over_rows_of_other_puzzles(run, data, tmp_path):
    other = _dataset(tmp_path / 'other', [NAMES[k] for k in (0, 2, 1, 3)])
    with pytest.raises(CheckpointError, match=r'train\.puzzle_table'):
        train.train(_config(other), tmp_path / 'new', str(run), log=lambda _: None)
    old = formats.load(run).weights.puzzle_table
    assert np.abs(old[1:]).max() > 0
    for choice, expected in (('zeros', np.zeros_like(old)), ('mean', old * 0 + old.mean(0)),
                             ('overlap', old)):  # fmt: skip
        frozen = {'max_steps': 1, 'puzzle_table': choice}
        slow = {'puzzle_emb_lr': 0.0}
        config = _config(other, train=frozen, optimizer=slow)
        outcome = train.train(config, tmp_path / choice, str(run), log=lambda _: None)
        found = np.asarray(jax.device_get(outcome.state.weights.puzzle_table))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_facts_of_records_and_of_their_export_agree(tmp_path):
    from data_builders import arc, folder_format

    grid = [[1, 2], [3, 4]]
    for subset in ('training', 'evaluation'):
        (tmp_path / 'source' / subset).mkdir(parents=True)
        for k in range(2):
            pair = {'input': [[k, 5], *grid], 'output': grid}
            turned = {'input': [*grid, [k, 5]], 'output': grid[::-1]}
            task = {'train': [pair, turned], 'test': [turned | {'input': [[9, k], [1, 1]]}]}
            file = tmp_path / 'source' / subset / f'{subset}{k}.json'
            file.write_text(json.dumps(task))
    flags = {'num_aug': 2, 'allow_leaks': True, 'show': False}
    arc.build(str(tmp_path / 'set'), source=str(tmp_path / 'source'), **flags)
    folder_format.export_folder(str(tmp_path / 'set'), str(tmp_path / 'npy'))
    facts = []
    for folder in ('set', 'npy'):
        splits = {name: records.load(tmp_path / folder, name) for name in ('train', 'test')}
        facts.append(data_facts.data_facts(splits)['identifiers'])
    assert facts[0] == facts[1]
    assert len(set(facts[0].values())) == 3
