"""The number of CPU devices: what is chosen, who is asked first, and that a run keeps it."""

import json
import os
from pathlib import Path
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from hrm_jax import eval_step, partitioning, train, train_state
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import UsageError
from hrm_jax.run import cpu_devices
from hrm_jax.types import Batch
from tests import commands, tiny_run

_ROOT = Path(__file__).parents[1]


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
    def paying(cores, rows=128, **sections):
        return cpu_devices.paying(_config(evaluated=rows, **sections), cores)

    assert [paying(cores) for cores in (1, 2, 3, 4, 8, 15, 16)] == [1, 2, 2, 4, 8, 8, 1]
    assert [paying(2, rows) for rows in (6, 7, 8)] == [1, 1, 2]  # four rows each
    assert paying(4, 122) == 1  # it would leave two of four cores idle
    assert paying(2, model={'hidden_size': 512, 'num_heads': 8}) == 2
    assert paying(2, model={'hidden_size': 1024, 'num_heads': 8}) == 1
    assert paying(2, model={'num_puzzle_identifiers': 65_535}) == 2
    assert paying(2, model={'num_puzzle_identifiers': 65_536}) == 1  # a copy on each device
    assert paying(2, mesh={'fsdp': 2}) == 1  # somebody has arranged the devices
    assert paying(2, eval={'halting': 'adaptive'}) == 1  # its rows meet


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

    assert choose() == cpu_devices.Choice(1)  # a new run
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
    # Evaluations look at their own batch, and take what pays.
    new = choose(training=False)
    assert (new.number, new.waits) == (2, False)
    assert new.why == 'CPU devices: 2 on 2 cores, 32 rows each'
    assert choose(None, 1, training=False) == choose(None, 0, training=False) == new
    assert choose(training=False, config=_config(evaluated=9)) == cpu_devices.Choice(0)
    assert choose(training=False, alone=False) == cpu_devices.Choice(0)
    adaptive = _config(eval={'halting': 'adaptive'})
    assert choose(None, 2, training=False, config=adaptive) == cpu_devices.Choice(2)
    assert choose(None, 2, training=False, config=_config(rows=3, evaluated=10)).number == 2
    assert choose(None, 2, training=False, config=_config(evaluated=9)).number == 1
    of_checkpoint = _config(evaluated=9, mesh={'cpu_devices': 2})
    assert choose(training=False, config=of_checkpoint).number == 1
    assert choose(4, 2, training=False) == cpu_devices.Choice(4, waits=False)
    assert choose(4, 2, training=False, alone=False) == cpu_devices.Choice(4)
    with pytest.raises(UsageError, match=r'--cpu-devices 2, XLA_FLAGS 4\. Keep one'):
        choose(2, xla=4)
    with pytest.raises(UsageError, match='must be 1 or more; got 0'):
        choose(0)


_XLA = '--xla_force_host_platform_device_count='


def test_threads_outnumber_what_collectives_hold(monkeypatch):
    def applied(number, environment, waits=True):
        updates = []
        monkeypatch.setattr('jax.config.update', lambda *update: updates.append(update))
        choice = cpu_devices.Choice(number, waits=waits)
        assert cpu_devices.apply(choice, environment) == choice
        return updates

    environment = {}
    assert applied(0, environment) == []
    assert applied(1, environment) == [('jax_num_cpu_devices', 1)]
    assert environment == {}  # one device: everything as it was
    assert applied(3, environment) == [('jax_num_cpu_devices', 3)]
    assert int(environment['NPROC']) >= 3 * 8
    assert environment['XLA_FLAGS'] == '--xla_cpu_multi_thread_eigen=false'
    environment = {}
    applied(3, environment, waits=False)
    assert environment['NPROC'] == '3'  # none waits for another
    own = {'XLA_FLAGS': f'{_XLA}2 --xla_cpu_multi_thread_eigen=true', 'NPROC': '5'}
    assert applied(2, dict(own)) == []
    environment = dict(own)
    applied(2, environment)
    assert environment == own  # what a user has set stays


def test_where_jax_runs_already_nothing_changes():
    before = jax.device_count()
    assert cpu_devices.apply(cpu_devices.Choice(before + 1), {}) == cpu_devices.Choice()
    assert jax.device_count() == before


def _as_on_two_cores():
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

    text, number = start('run', '--cpu-devices=2')
    assert number == 2
    assert '2 x cpu (data 2)' in text
    for flags in ([], ['--mode=eval']):  # the number of the run, without a word
        text, number = start('run', '--config.train.max_steps=8', *flags)
        assert number == 2
        assert 'note:' not in text
        assert 'CPU devices:' not in text
    text, number = start('run', '--config.train.max_steps=10', '--cpu-devices=1')
    assert number == 1
    assert 'note: 1 CPU devices (--cpu-devices); the run has had 2.' in text
    assert 'resumed from step 8' in text
    assert '1 x cpu' in text
    # A new run has one device: byte for byte what JAX's own device gives.
    text, number = start('one')
    assert number == 1
    assert 'CPU devices' not in text
    with commands.quick_compiles():
        train.train(tiny_run.config(data, **settings), tmp_path / 'own', log=lambda _: None)
    records = [(tmp_path / run / 'metrics.jsonl').read_bytes() for run in ('one', 'own', 'run')]
    assert records[0] == records[1]
    assert records[0] != records[2]
    # An evaluation takes what pays, and scores as one device does.
    tables = [start('one', '--mode=eval', *flags)[0] for flags in ([], ['--cpu-devices=1'])]
    assert 'CPU devices: 2 on 2 cores, 32 rows each' in tables[0]
    assert 'CPU devices:' not in tables[1]
    scores = [re.findall(r'(?m)^.*accuracy.*$', text) for text in tables]
    assert scores[0] == scores[1] != []


def test_the_devices_of_an_evaluation_do_not_wait():
    code = 'from tests import cpu_devices_test as t; t.compare(1); t.compare(65536)'
    environment = os.environ | {'XLA_FLAGS': f'{_XLA}2', 'NPROC': '2'}
    subprocess.run([sys.executable, '-c', code], env=environment, check=True, cwd=_ROOT)


def compare(table):
    """No collectives, with which 2 threads on 2 devices could hang; the answers of one device."""
    sizes = {'vocab_size': tiny_run.VOCAB, 'seq_len': tiny_run.CELLS}
    model = {**sizes, 'num_puzzle_identifiers': table, 'forward_dtype': 'float32'}
    config = tiny_run.config(Path('-'), model=model)
    cells = np.random.default_rng(0).integers(1, tiny_run.VOCAB, (2, 8, tiny_run.CELLS))
    batch = Batch(*cells.astype(np.int32), np.arange(8, dtype=np.int32) % table)
    one, two = (partitioning.make_mesh(jax.devices()[:n]) for n in (1, 2))
    saved = jax.device_get(train_state.create(config, one).weights)
    found = []
    for mesh in one, two:
        given = train_state.put_weights(config, mesh, saved), partitioning.put_global(batch, mesh)
        compiled = jax.jit(eval_step.make_eval_step(config, mesh, True)).lower(*given).compile()
        program = compiled.as_text()
        waiting = ('all-reduce', 'all-gather', 'all-to-all', 'collective', 'reduce-scatter')
        assert not [word for word in waiting if word in program]
        found.append(jax.device_get(compiled(*given)))
    for name in 'logits', 'q_halt':  # products of fewer rows are rounded otherwise
        parts, total = (getattr(one, name) for one in found[::-1])
        np.testing.assert_allclose(parts, total, rtol=0, atol=1e-5)
    for name, total in vars(found[0].sums).items():
        parts = getattr(found[1].sums, name)
        assert parts.shape == (2,)
        np.testing.assert_allclose(parts.sum(), total, rtol=1e-6)
