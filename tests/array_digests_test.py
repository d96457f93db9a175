"""Digests: equal on devices and in numpy, changed by any damage, compared whenever it is read."""

import dataclasses
import json
import random
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from hrm_jax import partitioning, train, train_state
from hrm_jax.checkpoint import digests, layout, store
from hrm_jax.cli import checkpoints
from hrm_jax.errors import CheckpointError, DamagedCheckpoint
from hrm_jax.interop import formats
from tests import commands, tiny_run


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_run.write_dataset(tmp_path_factory.mktemp('digests') / 'data')


@pytest.fixture(scope='module')
def run(data, tmp_path_factory):
    """A run with the checkpoints 3 and 6."""
    workdir = tmp_path_factory.mktemp('run') / 'run'
    settings = {'train': {'max_steps': 6}, 'checkpoint': {'keep_latest': 3}}
    train.train(tiny_run.config(data, **settings), workdir, log=lambda _: None)
    assert layout.steps(workdir) == [3, 6]
    return workdir


@pytest.mark.parametrize(
    ('dtype', 'shape'),
    [
        (np.float32, (5, 7)), (np.int32, (3, 4, 5)), (np.bool_, (9,)), (np.float32, ()),
        (ml_dtypes.bfloat16, (300, 2)), (np.uint8, (2**16 + 3,)), (np.float16, (4, 0)),
    ],
)  # fmt: skip
def test_devices_and_numpy_agree(dtype, shape):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    [found] = digests.start({'x': jnp.asarray(array)}).fetch().values()
    assert found == digests.of_numpy(array)
    assert found == digests.of_numpy(array.copy(order='F'))
    assert digests.of_numpy(array.astype(np.float64)).startswith('float64')


def _changes(array):
    """The array with every kind of small damage, each once."""
    words = array.view(np.uint32).reshape(-1)
    for place in range(0, words.size, 5):
        for bit in (0, 1, 15, 30, 31):
            yield [(place, words[place] ^ np.uint32(1 << bit))]
    for place in range(0, words.size - 9, 7):
        yield [(place, words[place + 1]), (place + 1, words[place])]  # swapped
        # The same bit of two words: such changes must not cancel each other.
        yield [(place + k, words[place + k] ^ np.uint32(1 << 31)) for k in (0, 9)]


@pytest.mark.parametrize('kind', ['normal', 'zeros'])
def test_any_changed_bit_and_any_swap_changes_the_digest(kind):
    array = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    array = np.zeros_like(array) if kind == 'zeros' else array
    seen, count = {digests.of_numpy(array)}, 1
    for change in _changes(array):
        changed = array.copy()
        for place, word in change:
            changed.view(np.uint32).reshape(-1)[place] = word
        if changed.tobytes() != array.tobytes():
            seen.add(digests.of_numpy(changed))
            count += 1
    assert len(seen) == count
    assert digests.of_numpy(array) != digests.of_numpy(array.reshape(400))


def test_every_array_has_the_name_that_its_file_has(run):
    path = layout.resolve('latest', run)
    saved = digests.read(path)
    for item in {name.split('.')[0] for name in saved['arrays']}:
        wanted = {n.partition('.')[2] for n in saved['arrays'] if n.startswith(f'{item}.')}
        assert digests.stored_names(path / item) == wanted


def _same(one, other):
    flat = jax.tree_util.tree_leaves_with_path
    return all(
        a == b and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for (a, x), (b, y) in zip(flat(one), flat(other), strict=True)
    )


def test_no_flipped_bit_is_read_without_an_error(run, tmp_path):
    copy = tmp_path / 'checkpoints' / '6'
    shutil.copytree(layout.resolve('latest', run), copy)
    good, meta = store.read_arrays(copy), layout.read_meta(copy)
    files = [path for path in sorted(copy.rglob('*')) if path.is_file() and path.stat().st_size]
    sizes = [path.stat().st_size for path in files]
    draw, refused = random.Random(0), 0
    for _ in range(60):
        [path] = draw.choices(files, sizes)
        content = bytearray(path.read_bytes())
        place = draw.randrange(len(content))
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        try:
            assert _same(store.read_arrays(copy), good), path
            assert layout.read_meta(copy) == meta, path
        except DamagedCheckpoint:
            refused += 1
        path.write_bytes((layout.resolve('latest', run) / path.relative_to(copy)).read_bytes())
    assert refused > 20


def _flip(run, item):
    """Flips a bit of the largest file of an item, of those that hold values."""
    path = layout.resolve('latest', run) / item
    files = [p for p in path.rglob('*') if p.is_file() and p.name != 'commit_success.txt']
    file = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize('item', ['opt_state', 'carry', 'params', 'data', 'meta', 'digests'])
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(run, data, tmp_path, item):
    copy = tmp_path / 'run'
    shutil.copytree(run, copy)
    _flip(copy, item)
    logged = []
    config = tiny_run.config(data, train={'max_steps': 6})
    train.train(config, copy, log=logged.append)
    text = '\n'.join(logged)
    assert 'warning: the checkpoint of step 6 cannot be read' in text
    assert 'resumed from step 3' in text
    assert (copy / 'set_aside' / '6.0').is_dir()
    assert (copy / 'metrics.jsonl').read_bytes() == (run / 'metrics.jsonl').read_bytes()
    assert _same(*(store.read_arrays(layout.resolve('latest', one)) for one in (copy, run)))


@pytest.mark.parametrize('item', ['opt_state', 'carry', 'ema', 'rng', 'digests', 'params'])
def test_a_checkpoint_without_one_of_its_folders_is_damaged(run, tmp_path, item):
    copy = tmp_path / 'run'
    shutil.copytree(run, copy)
    path = layout.resolve('latest', copy)
    shutil.rmtree(path / item)
    for read in (store.read_arrays, store.read_model, store.verify):
        with pytest.raises(DamagedCheckpoint, match=f'it has no {item}'):
            read(path)


def test_devices_compare_what_they_restore(run, data, tmp_path, monkeypatch):
    path = layout.resolve('latest', run)
    config = tiny_run.config(data)
    sizes = {'vocab_size': 5, 'seq_len': 16, 'num_puzzle_identifiers': 1}
    config = dataclasses.replace(config, model=config.model.for_dataset(**sizes))
    abstract = train_state.abstract(config, partitioning.make_mesh())
    store.restore(path, abstract)
    saved = digests.read(path)
    changed = dict(saved['arrays'])
    changed['opt_state.weights.0.count'] = changed['carry.steps']
    monkeypatch.setattr(digests, 'read', lambda _: saved | {'arrays': changed})
    with pytest.raises(DamagedCheckpoint, match=r'opt_state\.weights\.0\.count is not what was'):
        store.restore(path, abstract)


def test_weights_alone_are_no_damage_and_no_run(run, data, tmp_path):
    formats.save(formats.load(run), tmp_path / 'x.safetensors', 'safetensors')
    formats.save(formats.load(tmp_path / 'x.safetensors'), tmp_path / 'ours', 'orbax')
    assert store.verify(layout.resolve('latest', tmp_path / 'ours')).endswith('all as saved')
    with pytest.raises(CheckpointError, match='has weights only'):
        train.train(tiny_run.config(data, train={'max_steps': 9}), tmp_path / 'ours')


def test_the_command_names_what_is_damaged(run, tmp_path, capsys):
    copy = tmp_path / 'run'
    shutil.copytree(run, copy)
    assert commands.exit_code(checkpoints.main, 'verify', '--workdir', copy) == 0
    assert capsys.readouterr().out.count('all as saved') == 2
    _flip(copy, 'ema')
    assert commands.exit_code(checkpoints.main, 'verify', copy) == 1
    text = capsys.readouterr().out
    assert text.count('all as saved') == 1
    assert '/6: damaged' in text
    assert commands.exit_code(checkpoints.main, 'verify', copy / 'checkpoints' / '3') == 0
    assert '/3: ' in capsys.readouterr().out


def test_checkpoints_of_before_have_no_digests_and_are_read(run, tmp_path, data):
    copy = tmp_path / 'run'
    shutil.copytree(run, copy)
    for step in (3, 6):
        path = copy / layout.FOLDER / str(step)
        shutil.rmtree(path / digests.ITEM)
        meta = json.loads((path / 'meta' / 'metadata').read_text())
        for name in ('digest', 'has_digests', 'data_facts'):
            del meta[name]
        (path / 'meta' / 'metadata').write_text(json.dumps(meta))
    assert 'without digests' in store.verify(path)
    logged = []
    outcome = train.train(tiny_run.config(data, train={'max_steps': 9}), copy, log=logged.append)
    assert outcome.step == 9
    assert any('has no digest of its training set' in line for line in logged)
    assert digests.read(layout.resolve('latest', copy)) is not None
