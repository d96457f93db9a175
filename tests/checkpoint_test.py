import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from hrm_jax import partitioning, train_state
from hrm_jax.checkpoint import compatible, layout, retention, store
from hrm_jax.checkpoint.saver import Saver
from hrm_jax.config import CheckpointConfig
from hrm_jax.errors import CheckpointError
from tests import commands, tiny_run


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    config = tiny_run.config(tmp_path_factory.mktemp('data'))
    model = config.model.for_dataset(vocab_size=5, seq_len=16, num_puzzle_identifiers=3)
    return dataclasses.replace(config, model=model)


@pytest.fixture(scope='module')
def mesh():
    return partitioning.make_mesh()


@pytest.fixture(scope='module')
def state(config, mesh):
    return train_state.create(config, mesh)


def _meta(config, step, metric=None):
    metrics = {} if metric is None else {'eval/all/exact_accuracy': metric}
    return {'step': step, 'config': config.to_dict(), 'dataset': {}, 'metrics': metrics}


def _values(state):
    state = state.replace(rng=jax.random.key_data(state.rng))
    return [np.array(leaf) for leaf in jax.tree.leaves(state)]


@pytest.fixture(scope='module')
def saved(tmp_path_factory, config, state):
    """Workdir whose checkpoints 1..5 were scored so that 2 is the best."""
    workdir = tmp_path_factory.mktemp('saved')
    scores = {1: 0.1, 2: 0.9, 3: None, 4: 0.3, 5: None}
    with Saver(workdir, CheckpointConfig()) as saver:
        for step, score in scores.items():
            stepped = state.replace(step=jax.numpy.int32(step))
            assert saver.save(stepped, {'batches': step}, _meta(config, step, score))
        saver.wait()
        assert not saver.save(state, {}, _meta(config, 5))  # already there
    return workdir


def test_latest_and_best_are_kept_and_found(saved, tmp_path):
    assert layout.steps(saved) == [2, 4, 5]
    folder = saved / layout.FOLDER
    assert layout.resolve('latest', saved) == folder / '5'
    assert layout.resolve('best', saved) == folder / '2'
    assert layout.resolve('4', saved) == folder / '4'
    for path in (saved, folder, folder / '5'):
        assert layout.resolve(str(path), tmp_path) == folder / '5'
    with pytest.raises(CheckpointError, match=r'of step 3\. It has: 2, 4, 5'):
        layout.resolve('3', saved)
    with pytest.raises(CheckpointError, match='none of these'):
        layout.resolve('elsewhere', saved)
    with pytest.raises(CheckpointError, match='has no checkpoint yet'):
        layout.resolve('latest', tmp_path)


@pytest.mark.parametrize(('count', 'kept'), [(0, [6, 7]), (1, [3, 6, 7]), (2, [1, 3, 6, 7])])
def test_healthy_ones_are_kept_while_the_loss_climbs(tmp_path, config, state, count, kept):
    losses = {1: 1.0, 2: 3.0, 3: 0.9, 4: 2.0, 5: None, 6: 4.0, 7: 8.0}
    with Saver(tmp_path, CheckpointConfig(keep_best=0, keep_healthy=count)) as saver:
        for step, loss in losses.items():
            record = {} if loss is None else {'record': {'step': step, 'train/lm_loss': loss}}
            saver.save(state, {}, _meta(config, step) | record)
    assert layout.steps(tmp_path) == kept
    if count:
        assert retention.healthy_step(tmp_path) == 3


def test_every_array_comes_back_as_it_was(saved, config, mesh, state):
    read, data = store.restore(layout.resolve('latest', saved), train_state.abstract(config, mesh))
    assert data == {'batches': 5}
    assert int(read.step) == 5
    for one, other in zip(_values(read.replace(step=state.step)), _values(state), strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()
    for one, other in zip(jax.tree.leaves(read), jax.tree.leaves(state), strict=True):
        assert one.sharding == other.sharding


def test_inference_reads_numpy_arrays(saved, state):
    model = store.read_model(layout.resolve('best', saved))
    assert model.step == 2
    assert model.config.model.num_puzzle_identifiers == 3
    read, made = (model.weights, model.ema), (state.weights, state.ema)
    assert jax.tree.structure(read) == jax.tree.structure(made)
    for one, other in zip(jax.tree.leaves(read), jax.tree.leaves(made), strict=True):
        assert isinstance(one, np.ndarray)
        assert one.dtype == other.dtype
        assert one.tobytes() == np.asarray(other).tobytes()
    assert model.inference_weights().params is model.ema
    assert model.inference_weights(use_ema=False).params is model.weights.params


def test_a_state_may_be_donated_while_it_is_being_saved(tmp_path, config, mesh, state):
    overwrite = jax.jit(
        lambda s: s.replace(weights=jax.tree.map(lambda x: x * 0 - 1, s.weights)), donate_argnums=0
    )
    copy = jax.tree.map(jax.numpy.copy, state)
    with Saver(tmp_path, CheckpointConfig()) as saver:
        saver.save(copy, {}, _meta(config, 1))
        for _ in range(20):
            copy = overwrite(copy)
        jax.block_until_ready(copy)
    read = store.read_model(layout.resolve('1', tmp_path)).weights
    for one, other in zip(jax.tree.leaves(read), jax.tree.leaves(state.weights), strict=True):
        assert one.tobytes() == np.asarray(other).tobytes()


def _files(folder):
    return [path for path in sorted(folder.rglob('*')) if path.is_file()]


def test_whatever_is_cut_off_a_checkpoint_is_noticed_or_harmless(
    saved, tmp_path, config, mesh, state
):
    shutil.copytree(saved, tmp_path / 'run')
    folder = tmp_path / 'run' / layout.FOLDER / '5'
    abstract = train_state.abstract(config, mesh)
    largest = {}
    for path in _files(folder):  # the largest file of every kind
        kind = (path.relative_to(folder).parts[0], path.parent.name, path.suffix)
        if kind[0] in ('params', 'meta', 'data') and path.stat().st_size > 100:
            largest[kind] = max(path, largest.get(kind, path), key=lambda p: p.stat().st_size)
    refused = []
    for path in largest.values():
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        try:
            read, _ = store.restore(folder, abstract)
        except CheckpointError as error:
            refused.append(str(error))
        else:
            for one, other in zip(_values(read)[1:], _values(state)[1:], strict=True):
                assert one.tobytes() == other.tobytes(), path
        path.write_bytes(content)
    assert len(refused) >= 3
    assert all('the checkpoint of step 5 cannot be read' in text for text in refused)
    assert all('--checkpoint=4' in text for text in refused)
    store.restore(folder, abstract)


def test_an_evaluation_can_be_added_later(saved, tmp_path, config):
    shutil.copytree(saved, tmp_path / 'run')
    path = layout.resolve('latest', tmp_path / 'run')
    layout.add_evaluation(path, _meta(config, 5, 0.95))
    assert layout.resolve('best', tmp_path / 'run') == path
    with Saver(tmp_path / 'run', CheckpointConfig()) as saver:
        assert saver._manager.metrics(5) == {'eval/all/exact_accuracy': 0.95}


def test_only_the_listed_keys_may_change(config, tmp_path):
    def changed(**sections):
        values = config.to_dict()
        for section, changes in sections.items():
            values[section] = values[section] | changes
        return type(config).from_dict(values)

    def check(new, dataset):
        compatible.check_same_experiment(_meta(config, 1) | {'dataset': {'v': 1}}, new, dataset,
                                            tmp_path)  # fmt: skip

    check(changed(logging={'wandb': True}, data={'path': 'x'}, train={'max_steps': 7}), {'v': 1})
    with pytest.raises(CheckpointError) as error:
        check(changed(optimizer={'lr': 0.5}, train={'epochs': 64}), {'v': 2})
    text = str(error.value)
    assert 'optimizer.lr: 0.001 in the checkpoint, 0.5 now' in text
    assert 'train.epochs: 32 in the checkpoint, 64 now' in text
    assert 'data set v: 1 in the checkpoint, 2 now' in text
    with pytest.raises(CheckpointError, match=r'model\.hidden_size: 16 .* 32 now'):
        compatible.check_same_model(_meta(config, 1), changed(model={'hidden_size': 32}), tmp_path)
    compatible.check_same_model(_meta(config, 1), changed(model={'remat': True}), tmp_path)
    older = json.loads(json.dumps(_meta(config, 1)))
    del older['config']['model']['remat']  # a key that the checkpoint's version did not know
    compatible.check_same_model(older, config, tmp_path)
