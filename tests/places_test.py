"""Paths of runs and checkpoints: odd characters, ~, other storage, moved folders."""

import dataclasses
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from hrm_jax import Solver, files, partitioning, train, train_state
from hrm_jax.checkpoint import layout, places, store
from hrm_jax.checkpoint.saver import Saver
from hrm_jax.config import CheckpointConfig
from hrm_jax.errors import CheckpointError, UserError, WorkdirError
from hrm_jax.interop import formats
from hrm_jax.run import workdir
from tests import commands, tiny_run


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    config = tiny_run.config(tmp_path_factory.mktemp('data'))
    sizes = {'vocab_size': 5, 'seq_len': 16, 'num_puzzle_identifiers': 3}
    return dataclasses.replace(config, model=config.model.for_dataset(**sizes))


@pytest.fixture(scope='module')
def state(config):
    return train_state.create(config, partitioning.make_mesh())


def _meta(config, step=1):
    return {'step': step, 'config': config.to_dict(), 'dataset': {}, 'metrics': {}}


def _assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(
    'name',
    ['lr=[1e-3]', 'a\\b', 'all*', 'why?', '%41', 'größe', "it's {1} & 2", '[!a]-[a-z]', '雪'],
)
def test_checkpoints_can_be_read_whatever_the_folder_is_called(tmp_path, config, state, name):
    run = tmp_path / name / 'run'
    # Neighbours that a pattern in the path would match.
    for other in ('alle', 'whyy', 'lr=1', 'a', 'b-b'):
        decoy = tmp_path / other / 'run' / 'checkpoints' / '1' / 'params' / 'ocdbt.process_0'
        decoy.mkdir(parents=True)
    run.mkdir(parents=True)
    with Saver(run, CheckpointConfig()) as saver:
        saver.save(state, {'examples': 8}, _meta(config))
        saver.wait()
    path = layout.resolve('latest', run)
    assert path == run / layout.FOLDER / '1'
    mesh = partitioning.make_mesh()
    read, position = store.restore(path, train_state.abstract(config, mesh))
    assert position == {'examples': 8}
    _assert_equal(read.weights, state.weights)
    _assert_equal(read.opt_state, state.opt_state)
    _assert_equal(store.read_model(path).weights.params, state.weights.params)
    # After a rename, and through a conversion into such a folder and out of it.
    (tmp_path / name).rename(tmp_path / 'plain')
    again = layout.resolve('latest', tmp_path / 'plain' / 'run')
    _assert_equal(store.read_model(again).weights.params, state.weights.params)
    formats.save(formats.load(again), tmp_path / 'x.safetensors', 'safetensors', use_ema=False)
    formats.save(formats.load(tmp_path / 'x.safetensors'), tmp_path / name, 'orbax')
    _assert_equal(formats.load(tmp_path / name).weights.params, state.weights.params)


def test_a_path_that_cannot_be_linked_is_refused_before_anything_is_written(
    tmp_path, config, monkeypatch
):
    monkeypatch.setattr(places, '_link_folders', lambda: iter(()))
    with pytest.raises(CheckpointError, match=r'characters that the storage library takes'):
        Saver(tmp_path / 'a[b]', CheckpointConfig())
    (tmp_path / 'plain').mkdir()
    with Saver(tmp_path / 'plain', CheckpointConfig()):
        pass


def test_a_save_that_cannot_be_opened_is_noticed_before_it_counts(
    tmp_path, config, state, monkeypatch
):
    # What orbax does with such a path: no error, a warning, and files that cannot be opened.
    monkeypatch.setattr('hrm_jax.checkpoint.saver.plain', lambda folder: folder)
    run = tmp_path / 'lr=[1e-3]'
    run.mkdir()
    with Saver(run, CheckpointConfig()) as saver:

        def save():  # either of the two may be the first to see it
            saver.save(state, {}, _meta(config))
            saver.wait()

        with pytest.raises(CheckpointError, match='could not take step 1'):
            save()


@pytest.mark.parametrize(
    'place', ['s3://bucket/run', 'S3://bucket/run', 'az://x/y', 'gs:/bucket/run', 'hdfs://x', ' ']
)
def test_storage_that_cannot_be_written_is_refused_at_the_start(tmp_path, place):
    data = tiny_run.write_dataset(tmp_path / 'data')
    config = tiny_run.config(data, checkpoint={'directory': place}, train={'max_steps': 1})
    before = set(os.listdir('.'))
    with pytest.raises(CheckpointError, match=r'local disks or under gs|must not be empty'):
        train.train(config, tmp_path / 'run', log=lambda _: None)
    assert set(os.listdir('.')) == before
    assert not (tmp_path / 'run' / layout.FOLDER).exists()
    if place.strip():
        for use in (
            lambda: formats.save(None, place, 'orbax'),
            lambda: workdir.prepare(place),
        ):
            with pytest.raises(UserError, match='on a disk of this machine'):
                use()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('', 'it is empty'), ('  ', 'it is empty'), ('a\nb', 'control characters'),
        ('a\x00b', 'control characters'), ('x' * 300, 'at most 255 bytes'),
        ('ü' * 200, 'at most 255 bytes'), ('x/' * 2500, 'at most 3800 bytes'),
        (os.fsdecode(b'\xff\xfe'), 'valid UTF-8'), ('~nobody-of-this-name/x', 'is HOME set'),
        ('gs://bucket/x', 'on a disk of this machine'),
    ],
)  # fmt: skip
def test_names_that_cannot_be_saved_are_refused(name, message):
    with pytest.raises(WorkdirError, match=message):
        files.local_path(name, 'the working directory', WorkdirError)


def test_the_tilde_is_expanded_wherever_a_path_is_taken(tmp_path, monkeypatch, config, state):
    home = tmp_path / 'home'
    home.mkdir()
    monkeypatch.setenv('HOME', str(home))
    monkeypatch.chdir(tmp_path)
    data = tiny_run.write_dataset(home / 'data')
    settings = {'train': {'max_steps': 1}, 'checkpoint': {'directory': '~/store'}}
    config = tiny_run.config(pathlib.Path('~/data'), **settings)
    train.train(config, '~/runs/x', log=lambda _: None)
    assert layout.steps('~/runs/x') == [1]
    assert layout.resolve('~/store', pathlib.Path()) == home / 'store' / layout.FOLDER / '1'
    formats.save(formats.load('~/runs/x'), '~/out/y.safetensors', 'safetensors')
    assert (home / 'out' / 'y.safetensors').is_file()
    assert Solver.from_checkpoint('~/out/y.safetensors', log=lambda _: None).task.seq_len == 16
    files.write_text('~/note.txt', 'x')
    assert files.read_text('~/note.txt') == (home / 'note.txt').read_text() == 'x'
    assert formats.load('~/runs/x').config.data.path == str(data)
    assert os.listdir(tmp_path) == ['home']


def test_a_run_finds_its_data_from_any_folder_and_after_it_was_moved(tmp_path, monkeypatch):
    project = tmp_path / 'project'
    tiny_run.write_dataset(project / 'data' / 'set')
    (project / 'runs').mkdir()
    monkeypatch.chdir(project)
    relative = tiny_run.config(pathlib.Path('data/set'), train={'max_steps': 1})
    train.train(relative, 'runs/one', log=lambda _: None)
    recorded = files.read_json('runs/one/config.json')['data']['path']
    assert recorded == str(project / 'data' / 'set')
    monkeypatch.chdir(tmp_path)
    assert formats.load(project / 'runs' / 'one').config.data.path == recorded
    # The whole project elsewhere: what was recorded is gone.
    project.rename(tmp_path / 'moved')
    found = formats.load(tmp_path / 'moved' / 'runs' / 'one').config.data.path
    assert found == str(tmp_path / 'moved' / 'data' / 'set')
    # Runs of earlier versions recorded the path as it was given.
    assert places.near('data/set', tmp_path / 'moved' / 'runs' / 'one') == found
    # A folder of the same name that is no data set is not it.
    (tmp_path / 'moved' / 'runs' / 'one' / 'data' / 'set').mkdir(parents=True)
    assert places.near('data/set', tmp_path / 'moved' / 'runs' / 'one') == found
    shutil.rmtree(tmp_path / 'moved' / 'data')
    assert formats.load(tmp_path / 'moved' / 'runs' / 'one').config.data.path == recorded


def test_checkpoints_elsewhere_are_found_from_any_folder(tmp_path, monkeypatch):
    data = tiny_run.write_dataset(tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    settings = {'checkpoint': {'directory': 'store'}, 'train': {'max_steps': 1}}
    train.train(tiny_run.config(data, **settings), 'run', log=lambda _: None)
    monkeypatch.chdir('/')
    assert layout.root(tmp_path / 'run') == tmp_path / 'store'
    # As earlier versions wrote it.
    (tmp_path / 'run' / layout.POINTER).write_text('store\n')
    assert layout.root(tmp_path / 'run') == tmp_path / 'store'
    assert layout.steps(tmp_path / 'run') == [1]
