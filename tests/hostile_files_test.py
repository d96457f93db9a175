"""Files of a checkpoint, of predictions and of others that are damaged or made to do harm."""

import io
import json
import shutil
import time
import zipfile

import numpy as np
import pytest
import tensorstore

from data_builders import reasoning_gym
from hrm_jax import locks
from hrm_jax.checkpoint import layout, store, weights_only
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import (
    CheckpointError,
    ConfigError,
    DamagedCheckpoint,
    DatasetError,
    PredictionError,
)
from hrm_jax.inference import saved_task
from hrm_jax.interop import original_config, safetensors_io
from hrm_jax.scoring import predictions
from hrm_jax.types import Weights
from tests.npy_sets import header

DEEP = '[' * 100_000


def safetensors(path, text):
    path.write_bytes(len(text).to_bytes(8, 'little') + text.encode())
    return path


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        (DEEP, 'not JSON'),
        ('{"a":' * 50_000, 'not JSON'),
        ('{"__metadata__": null}', 'an object of texts'),
        ('{"__metadata__": [1]}', 'an object of texts'),
        ('{"__metadata__": {"hrm_jax": 7}}', 'an object of texts'),
        ('{"w": null}', 'malformed'),
        ('{"w": []}', 'malformed'),
        ('{"w": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}', 'malformed'),
        ('{"w": {"dtype": "F32", "shape": null, "data_offsets": [0, 4]}}', 'malformed'),
        ('{"w": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}', 'not integers'),
        ('{"w": {"dtype": "F32", "shape": [100000000000], "data_offsets": [0, 400000000000]}}',
         'truncated'),
    ],
)  # fmt: skip
def test_headers_of_safetensors(tmp_path, text, match):
    with pytest.raises(CheckpointError, match=match):
        safetensors_io.read_safetensors(safetensors(tmp_path / 'x.safetensors', text))


def doubling(levels):
    """Lines each of which repeats the one before ten times."""
    lines = ['a0: xxxxxxxxxx']
    lines += [f'a{k}: "' + f'${{.a{k - 1}}}' * 10 + '"' for k in range(1, levels)]
    return '\n'.join(lines)


def aliases(levels):
    """Aliases of aliases: 10^levels values."""
    lines = ['a0: &a0 [x]']
    lines += [f'a{k}: &a{k} [{", ".join([f"*a{k - 1}"] * 10)}]' for k in range(1, levels)]
    return '\n'.join(lines)


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        (doubling(18), 'must be at most 10,000 characters'),
        (aliases(10), 'must have at most 100,000 values'),
        ('a: &a [*a]', 'nested at most 100 deep|neither YAML nor JSON'),
        (DEEP, 'neither YAML nor JSON'),
        ('null', 'must hold a mapping'),
        ('\x00', 'neither YAML nor JSON'),
        ('x: ' + 'y' * (1 << 20), 'must have at most 1,048,576 bytes'),
    ],
)  # fmt: skip
def test_configurations_of_others(tmp_path, text, match):
    (tmp_path / 'all_config.yaml').write_text(text)
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=match):
        original_config.read_mapping(tmp_path / 'all_config.yaml')
    assert time.monotonic() - began < 30


def zipped(path, content, claimed=None):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('predictions.npy', content)
    if claimed is not None:  # the size in the directory at the end
        data = bytearray(path.read_bytes())
        place = data.rindex(b'PK\x01\x02') + 24
        data[place : place + 4] = claimed.to_bytes(4, 'little')
        path.write_bytes(bytes(data))
    return path


def read_all(path):
    [file] = predictions.find([path])
    return list(file.chunks('predictions'))


@pytest.mark.parametrize(
    ('content', 'match'),
    [
        (header('(400000000000, 4)'), 'must have'),
        (header('(-6, 4)') + bytes(24), 'plain rows'),
        (header('(' * 3000), 'damaged'),
        (header('()') + bytes(1), 'plain rows'),
        (header('(6, 4)', '|O') + bytes(200), 'plain rows'),
        (header('(6, 4)') + bytes(20), 'is truncated'),
        (b'', 'damaged'),
        (b'\x80\x04K\x01.', 'damaged'),
    ],
)
@pytest.mark.filterwarnings('ignore::RuntimeWarning')
def test_members_of_predictions(tmp_path, content, match):
    with pytest.raises(PredictionError, match=match):
        read_all(zipped(tmp_path / 'x.npz', content))


def test_a_directory_that_claims_gigabytes(tmp_path):
    path = zipped(tmp_path / 'x.npz', header('(4000000000, 1)'), claimed=4_000_000_100)
    with pytest.raises(PredictionError, match='must have 4,000,000,000 bytes'):
        read_all(path)


def test_a_member_that_was_flipped(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, np.random.default_rng(0).integers(0, 9, (500, 9)).astype(np.uint8))
    path = zipped(tmp_path / 'x.npz', buffer.getvalue())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(PredictionError, match='damaged'):
        read_all(path)


@pytest.mark.parametrize('facts', [
    {'process_count': 10**9, 'rows': []}, {'process_count': 0, 'rows': []},
    {'process_count': True, 'rows': []}, {'process_count': 1, 'rows': None}, {},
])  # fmt: skip
def test_records_of_predictions(tmp_path, facts):
    np.savez(tmp_path / 'all-p000-00000.npz', predictions=np.zeros((1, 4), np.uint8))
    (tmp_path / 'all-p000.json').write_text(json.dumps(facts))
    with pytest.raises(PredictionError, match='process_count, a whole number'):
        predictions.find([tmp_path])


@pytest.mark.parametrize(
    'text', [DEEP, 'null', '[]', '{"process": 1e400}', '{"process": "x", "host": []}', '\x00']
)
def test_owners_of_locks(text):
    assert locks.described(text)
    assert not locks.is_dead(locks.parsed(text))


def test_an_owner_whose_number_no_process_has():
    facts = locks.parsed(locks.owner())
    assert not locks.is_dead(facts | {'process': 10**30})
    assert not locks.is_dead(facts | {'process': None})


@pytest.mark.parametrize('text', [DEEP, 'null', '[]', '{"seed": NaN}', '{"seed": {}}', '{'])
def test_configurations_of_ours(text):
    with pytest.raises(ConfigError):
        ExperimentConfig.from_json(text)


def test_settings_of_a_puzzle_maker():
    found = reasoning_gym.read_settings([f'a={DEEP}', 'b=[1]', 'c=[1', f'd={"9" * 5000}'])
    assert found == {'a': DEEP, 'b': [1], 'c': '[1', 'd': '9' * 5000}


@pytest.mark.parametrize('text', [DEEP, 'null', '\x00', None])
def test_what_a_data_set_states_to_a_solver(tmp_path, text):
    """Where the checkpoint does not name the task, its data set is asked."""
    file = tmp_path / 'test' / 'dataset.json'
    file.parent.mkdir()
    if text is None:
        with file.open('wb') as sparse:
            sparse.truncate(3 << 30)
    else:
        file.write_text(text)
    saved = store.SavedModel(0, Weights({}, {}, None), None, ExperimentConfig(), {})
    what = 'be JSON' if text else 'have at most 268,435,456 bytes'
    with pytest.raises(DatasetError, match=rf'test/dataset\.json must {what}'):
        saved_task.task_of(saved, tmp_path, '', print)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint of weights, as one from before digests."""
    config = ExperimentConfig()
    weights = Weights({'w': np.arange(6, dtype=np.float32)}, {'c': np.ones(2, np.float32)}, None)
    path = weights_only.write_model(
        tmp_path, store.SavedModel(7, weights, None, config, {'step': 7})
    )
    shutil.rmtree(path / 'digests')
    meta = json.loads((path / 'meta' / 'metadata').read_text())
    del meta['has_digests']
    meta['config']['model']['puzzle_emb_ndim'] = 0
    (path / 'meta' / 'metadata').write_text(json.dumps(layout.sealed(meta)))
    return path


def test_arrays_that_no_memory_holds(saved):
    assert store.read_model(saved).weights.params['w'].shape == (6,)
    kvstore = {'driver': 'ocdbt', 'base': f'file://{saved}/params/', 'path': 'w/'}
    shape = {'shape': [10**6, 10**6], 'chunks': [10**3, 10**3], 'dtype': '<f4'}
    tensorstore.open(
        {'driver': 'zarr', 'kvstore': kvstore, 'metadata': shape},
        create=True, delete_existing=True,
    ).result()  # fmt: skip
    with pytest.raises(DamagedCheckpoint, match=r'params states arrays of 4,000\.0 GB'):
        store.read_model(saved)


@pytest.mark.parametrize('text', [DEEP, 'null', '7', '[]', '{"step": 1e999}', '\x00', ''])
@pytest.mark.parametrize('name', ['meta/metadata', 'digests/digests.json'])
def test_json_of_a_checkpoint(saved, name, text):
    file = saved / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(DamagedCheckpoint, match=r'step 7 cannot be read'):
        store.read_model(saved)


@pytest.mark.parametrize('name', ['meta/metadata', 'digests/digests.json'])
def test_json_of_a_checkpoint_that_claims_gigabytes(saved, name):
    file = saved / name
    file.parent.mkdir(exist_ok=True)
    with file.open('wb') as sparse:
        sparse.truncate(3 << 30)
    with pytest.raises(DamagedCheckpoint, match='has 3,221,225,472 bytes'):
        store.read_model(saved)


@pytest.mark.parametrize(
    ('section', 'values', 'match'),
    [
        ('optimizer', {'lr': 1e300}, r'optimizer\.lr must be a number that float32 can hold'),
        ('optimizer', {'weight_decay': float('nan')}, r'weight_decay must be a finite number'),
        ('optimizer', {'beta2': float('-inf')}, r'beta2 must be a finite number'),
        ('train', {'epochs': 10**30}, r'train\.epochs must be below'),
        ('checkpoint', {'keep_healthy': 2**31}, r'checkpoint\.keep_healthy must be below'),
        ('eval', {'depth_multiples': (2**40,)}, r'eval\.depth_multiples must be below'),
        ('model', {'H_cycles': -(10**12)}, r'model\.H_cycles must be'),
    ],
)
def test_numbers_of_settings(section, values, match):
    with pytest.raises(ConfigError, match=match):
        ExperimentConfig.from_dict({section: values})
