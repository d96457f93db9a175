"""The number of CPU devices: what is chosen, who is asked first, and that a run keeps it."""

import json

import pytest

from hrm_jax import train
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import UsageError
from hrm_jax.run import cpu_devices
from tests import commands, tiny_run


def _config(rows=64, evaluated=0, **sections):
    values = {
        'model': {'hidden_size': 64, 'num_heads': 2},
        'train': {'global_batch_size': rows},
        'eval': {'global_batch_size': evaluated},
    }
    for name, changes in sections.items():
        values[name] = values.get(name, {}) | changes
    return ExperimentConfig.from_dict(values)


def test_as_many_as_pay():
    paying = cpu_devices.paying
    assert [paying(_config(128), cores) for cores in (1, 2, 3, 4, 16)] == [1, 2, 2, 4, 4]
    assert paying(_config(rows=63), 4) == 1
    assert paying(_config(rows=192, evaluated=180), 4) == 4  # both batches divide
    assert paying(_config(rows=256, train={'micro_batches': 4}), 4) == 2  # 32 rows in each part
    assert paying(_config(rows=4096), 64) == 8
    assert paying(_config(model={'hidden_size': 512, 'num_heads': 8}), 4) == 1
    assert paying(_config(mesh={'fsdp': 2}), 4) == 1  # somebody has arranged the devices


def test_cores_are_those_that_the_process_may_use(tmp_path):
    quota = tmp_path / 'cpu.max'
    everything = cpu_devices.cores({}, quota)
    assert everything >= 1
    quota.write_text('100000 100000\n')
    assert cpu_devices.cores({}, quota) == 1
    quota.write_text('50000 100000\n')
    assert cpu_devices.cores({}, quota) == 1
    quota.write_text('max 100000\n')
    assert cpu_devices.cores({}, quota) == everything
    assert cpu_devices.cores({'OMP_NUM_THREADS': '1'}, quota) == 1


def test_who_is_asked(monkeypatch):
    monkeypatch.setattr(cpu_devices, 'cores', lambda environment: 2)

    def choose(*args, xla=None, jax=None, config=_config(), **more):
        environment = {} if xla is None else {'XLA_FLAGS': '--a=1 ' + _XLA + str(xla)}
        environment |= {} if jax is None else {'JAX_NUM_CPU_DEVICES': str(jax)}
        return cpu_devices.choose(config, *args, environment=environment, **more)

    new = choose()
    assert new.number == 2
    assert new.why.startswith('CPU devices: 2 on 2 cores (32 rows each; ')
    assert 'more would not pay' in choose(config=_config(rows=63)).why
    assert choose(1) == cpu_devices.Choice(1)
    assert choose(xla=4) == choose(jax=4) == cpu_devices.Choice(4)
    assert choose(config=_config(mesh={'cpu_devices': 3})).number == 3
    assert choose(alone=False).number == 0  # one of several processes: as JAX has it
    # A run keeps its number, those from before there was one have what JAX gives.
    assert choose(None, 2) == cpu_devices.Choice(2)
    assert choose(None, 0) == cpu_devices.Choice(0)
    assert choose(None, 2, config=_config(mesh={'cpu_devices': 2})) == cpu_devices.Choice(2)
    other = choose(4, 2)
    assert other.number == 4
    assert other.why.startswith('note: 4 CPU devices (--cpu-devices); the run has had 2.')
    assert choose(1, 0) == cpu_devices.Choice(1)
    assert 'the run has had 1.' in choose(2, 0).why
    # Evaluations never choose, and look at their own batch.
    assert choose(None, None, training=False).number == 0
    assert choose(None, 2, training=False, config=_config(rows=3, evaluated=10)).number == 2
    assert choose(None, 2, training=False, config=_config(evaluated=9)).number == 1
    of_checkpoint = _config(evaluated=9, mesh={'cpu_devices': 2})
    assert choose(training=False, config=of_checkpoint).number == 1
    with pytest.raises(UsageError, match=r'--cpu-devices 2, XLA_FLAGS 4\. Keep one'):
        choose(2, xla=4)
    with pytest.raises(UsageError, match='must be 1 or more; got 0'):
        choose(0)


_XLA = '--xla_force_host_platform_device_count='


def test_threads_outnumber_what_collectives_hold(monkeypatch):
    def applied(number, environment):
        updates = []
        monkeypatch.setattr('jax.config.update', lambda *update: updates.append(update))
        choice = cpu_devices.Choice(number)
        assert cpu_devices.apply(choice, environment) == choice
        return updates

    environment = {}
    assert applied(0, environment) == []
    assert applied(1, environment) == [('jax_num_cpu_devices', 1)]
    assert environment == {}  # one device: everything as it was
    assert applied(3, environment) == [('jax_num_cpu_devices', 3)]
    assert int(environment['NPROC']) >= 3 * 8
    assert environment['XLA_FLAGS'] == '--xla_cpu_multi_thread_eigen=false'
    own = {'XLA_FLAGS': f'{_XLA}2 --xla_cpu_multi_thread_eigen=true', 'NPROC': '5'}
    assert applied(2, dict(own)) == []
    environment = dict(own)
    applied(2, environment)
    assert environment == own  # what a user has set stays


def test_where_jax_runs_already_nothing_changes():
    import jax

    before = jax.device_count()
    assert cpu_devices.apply(cpu_devices.Choice(before + 1), {}) == cpu_devices.Choice()
    assert jax.device_count() == before


def _as_on_two_cores():
    import os

    del os.environ['XLA_FLAGS']
    cpu_devices.cores = lambda *_: 2


def test_a_run_keeps_its_number(tmp_path):
    data = tiny_run.write_dataset(tmp_path / 'data')
    settings = {
        'train': {'global_batch_size': 64, 'max_steps': 5},
        'model': {'forward_dtype': 'float32'},
        'eval': {'global_batch_size': 64},
    }
    file = tiny_run.write_config_file(tmp_path / 'config.py', data, **settings)

    def start(run, *flags):
        code, text = commands.run(
            tmp_path / 'log', f'--config={file}', f'--workdir={tmp_path / run}', *flags,
            prelude=_as_on_two_cores,
        )  # fmt: skip
        assert code == 0, text
        config = json.loads((tmp_path / run / 'config.json').read_text())
        return text, config['mesh']['cpu_devices']

    text, number = start('run')
    assert number == 2
    assert 'CPU devices: 2 on 2 cores (32 rows each;' in text
    assert '2 x cpu (data 2)' in text
    for flags in ([], ['--mode=eval']):  # the number of the run, without a word
        text, number = start('run', '--config.train.max_steps=8', *flags)
        assert number == 2
        assert 'CPU devices' not in text
    text, number = start('run', '--config.train.max_steps=10', '--cpu-devices=1')
    assert number == 1
    assert 'note: 1 CPU devices (--cpu-devices); the run has had 2.' in text
    assert 'resumed from step 8' in text
    assert '1 x cpu' in text
    # One device: byte for byte what JAX's own device gives.
    text, number = start('one', '--cpu-devices=1')
    assert number == 1
    assert 'CPU devices' not in text
    with commands.quick_compiles():
        train.train(tiny_run.config(data, **settings), tmp_path / 'own', log=lambda _: None)
    records = [(tmp_path / run / 'metrics.jsonl').read_bytes() for run in ('one', 'own', 'run')]
    assert records[0] == records[1]
    assert records[0] != records[2]
