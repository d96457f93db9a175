"""The memory of steps is kept where that pays, and left alone where it is not ours."""

import subprocess
import sys

import pytest

from hrm_jax.config import ExperimentConfig
from hrm_jax.run import kept_memory
from tests import tiny_run

SIZES = {'vocab_size': 6, 'seq_len': 16, 'hidden_size': 64, 'num_heads': 2, 'H_layers': 1,
         'L_layers': 1}  # fmt: skip


def experiment(rows=32, micro_batches=1, path='', **model):
    return ExperimentConfig.from_dict({
        'model': SIZES | model, 'data': {'path': path},
        'train': {'global_batch_size': rows, 'micro_batches': micro_batches},
    })  # fmt: skip


def test_it_pays_for_large_steps():
    assert not kept_memory.pays(experiment())
    assert kept_memory.pays(experiment(rows=256))
    assert not kept_memory.pays(experiment(rows=256, micro_batches=8))
    assert kept_memory.pays(experiment(hidden_size=512))
    assert kept_memory.pays(experiment(hidden_size=128, symbol_exchange='mean', seq_len=81))


def test_sizes_are_those_of_the_data(tmp_path):
    unknown = {'vocab_size': 0, 'seq_len': 0, 'hidden_size': 128}
    assert kept_memory.pays(experiment(**unknown, path=str(tmp_path / 'none')))
    data = tiny_run.write_dataset(tmp_path / 'data')
    assert not kept_memory.pays(experiment(**unknown, path=str(data)))
    (data / 'train/dataset.json').write_text('{"vocab_size": ')  # the reader's to say so
    assert kept_memory.pays(experiment(**unknown, path=str(data)))


def test_what_is_not_ours_is_left_alone(tmp_path):
    ours = {'environment': {}, 'devices': tmp_path, 'library': 'glibc'}
    assert kept_memory.is_ours(**ours)
    assert not kept_memory.is_ours(**ours | {'environment': {'GLIBC_TUNABLES': ''}})
    assert not kept_memory.is_ours(**ours | {'environment': {'JAX_PLATFORMS': 'cuda'}})
    assert not kept_memory.is_ours(**ours | {'library': ''})
    (tmp_path / 'nvidiactl').touch()  # a driver without a GPU
    assert kept_memory.is_ours(**ours)


@pytest.mark.parametrize('name', ['nvidia0', 'kfd', 'accel3', 'vfio/0'])
def test_a_gpu_or_tpu_computes_in_its_own_memory(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert not kept_memory.is_ours({}, tmp_path, 'glibc')
    assert kept_memory.is_ours({'JAX_PLATFORMS': 'cpu'}, tmp_path, 'glibc')


PROGRAM = """
import resource, sys
from hrm_jax.run import kept_memory
print(kept_memory.keep() if sys.argv[1] == 'kept' else False)
import jax
step = jax.jit(lambda x: (x + 1, x * 2))
x = jax.numpy.ones((3200, 3200))
for turn in range(2):  # first until there is enough
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(24):
        jax.block_until_ready(step(x))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not kept_memory.is_ours({'JAX_PLATFORMS': 'cpu'}), reason='not the C library of GNU'
)
def test_steps_take_no_new_pages(monkeypatch):
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
    pages = {}
    for way in ('kept', 'new'):
        command = [sys.executable, '-c', PROGRAM, way]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert printed[0] == str(way == 'kept')
        pages[way] = int(printed[1])
    assert pages['new'] > 400_000  # twice 41 MB of 4 kB pages, 24 times
    assert pages['kept'] < 100_000
