"""Several processes: how they start, agree, stop and change their number."""

import functools
import json
import os
import signal
import socket
import time

import numpy as np
import pytest

from hrm_jax.checkpoint import layout
from hrm_jax.errors import CheckpointError, ClusterError, StorageError
from hrm_jax.run import distributed
from tests import commands, tiny_run


@pytest.mark.parametrize(('environment', 'wanted'), [
    ({}, False),
    ({'SLURM_PROCID': '1', 'SLURM_STEP_NODELIST': 'a[1-2]', 'SLURM_NTASKS': '2'}, True),
    ({'SLURM_PROCID': '0', 'SLURM_STEP_NODELIST': 'a1', 'SLURM_NTASKS': '1'}, False),
    ({'SLURM_NTASKS': '2'}, False),  # in an allocation, but not started by srun
    ({'OMPI_COMM_WORLD_SIZE': '4'}, True),
    ({'TPU_WORKER_HOSTNAMES': 'localhost'}, False),
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, True),
    ({'JAX_COORDINATOR_ADDRESS': 'a:1'}, True),
])  # fmt: skip
def test_what_shows_that_there_are_several_processes(environment, wanted):
    assert distributed.is_wanted(environment) == wanted


@pytest.mark.parametrize(('flags', 'message'), [
    ({'mode': 'off', 'num_processes': 2}, 'contradict each other'),
    ({'num_processes': 2}, 'missing: --coordinator_address, --process_id'),
    ({'coordinator_address': 'here', 'num_processes': 2, 'process_id': 0}, 'must be HOST:PORT'),
    ({'coordinator_address': 'a:1', 'num_processes': 2, 'process_id': 2}, 'must be in 0..1'),
])  # fmt: skip
def test_wrong_flags_are_refused(flags, message):
    with pytest.raises(ClusterError, match=message):
        distributed.start(**flags)


def test_a_port_in_use_is_refused():
    with socket.socket() as other:
        other.bind(('', 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ClusterError, match=f'port {port} .* is in use'):
            distributed.start('on', f'127.0.0.1:{port}', 2, 0)


def test_who_is_missing_has_failed_or_differs_is_named(monkeypatch):
    monkeypatch.setattr(distributed.jax, 'process_count', lambda: 3)
    same = {'facts': {'config': {'lr': 1}}}
    distributed._compare({0: same, 1: same, 2: same}, 5)
    with pytest.raises(ClusterError, match='process 1, 2 of 3 did not get ready within 5 s'):
        distributed._compare({0: same}, 5)
    with pytest.raises(ClusterError, match='process 1 could not begin: no data'):
        distributed._compare({0: same, 1: {'failed': 'no data'}}, 5)
    for error in (StorageError('it does not answer'), CheckpointError('no such bucket')):
        it = {'failed': str(error), 'code': error.exit_code}
        with pytest.raises(ClusterError, match=f'process 2 could not begin: {error}') as caught:
            distributed._compare({0: same, 1: same, 2: it}, 5)
        assert caught.value.exit_code == error.exit_code
    other = {'facts': {'config': {'lr': 2}}}
    message = r'process 2 differs .*\n  config.lr: 1 in process 0, 2 in process 2'
    with pytest.raises(ClusterError, match=message):
        distributed._compare({0: same, 1: same, 2: other}, 5)


def _devices(count):
    os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={count}'


class Pair:
    """Two processes of one device each that run the same command."""

    def __init__(self, folder, *arguments, of_second=()):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            address = f'127.0.0.1:{probe.getsockname()[1]}'
        self.parts = [
            commands.Command(
                folder / f'{number}.txt', *arguments, *(of_second if number else ()),
                f'--coordinator_address={address}', '--num_processes=2',
                f'--process_id={number}', '--heartbeat_timeout=10',
                prelude=functools.partial(_devices, 1),
            )
            for number in range(2)
        ]  # fmt: skip

    def wait(self):
        found = [part.wait() for part in self.parts]
        return [code for code, _ in found], [text for _, text in found]


def _losses(run):
    lines = (run / 'metrics.jsonl').read_text().splitlines()
    names = ('step', 'train/lm_loss', 'train/q_halt_loss', 'eval/all/lm_loss')
    return [[json.loads(line).get(name, 0) for name in names] for line in lines]


def test_two_processes_stop_together_and_go_on_as_one(tmp_path):
    data = tiny_run.write_dataset(tmp_path / 'data')
    file = tiny_run.write_config_file(
        tmp_path / 'config.py', data, model={'forward_dtype': 'float32'}
    )
    run, alone = tmp_path / 'run', tmp_path / 'alone'

    def flags(workdir, steps):
        return f'--config={file}', f'--workdir={workdir}', f'--config.train.max_steps={steps}'

    pair = Pair(tmp_path, *flags(run, 80))
    while len(layout.steps(run)) < 1 and pair.parts[0].process.is_alive():
        time.sleep(0.01)
    os.kill(pair.parts[1].process.pid, signal.SIGTERM)
    codes, texts = pair.wait()
    assert codes == [143, 143], texts
    stopped = layout.steps(run)[-1]
    assert f'SIGTERM: stopped after step {stopped} of 80' in texts[0]
    assert 'stopped' not in texts[1]  # one process speaks for all

    steps = stopped + 3
    for workdir in (run, alone):
        code, text = commands.run(
            tmp_path / 'out.txt', *flags(workdir, steps), prelude=functools.partial(_devices, 2)
        )
        assert code == 0, text
    ours, wanted = np.array(_losses(run)), np.array(_losses(alone))
    assert [int(step) for step in ours[:, 0]] == list(range(1, steps + 1))
    # A run that is stopped is not evaluated there, and the last step is.
    np.testing.assert_allclose(ours[:, 1:3], wanted[:, 1:3], rtol=1e-5)
    ends = [folder / layout.FOLDER / str(steps) for folder in (run, alone)]
    one, other = (json.loads((end / 'data' / 'metadata').read_text()) for end in ends)
    assert one == other

    codes, texts = Pair(
        tmp_path, *flags(tmp_path / 'third', 3), of_second=['--config.optimizer.lr=0.002']
    ).wait()
    assert codes == [1, 1], texts
    for text in texts:
        assert 'process 1 differs from process 0' in text
        assert 'config.optimizer.lr: 0.001 in process 0, 0.002 in process 1' in text


def test_a_process_that_never_comes_is_named(tmp_path):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    data = tiny_run.write_dataset(tmp_path / 'data')
    code, text = commands.run(
        tmp_path / 'out.txt',
        f'--config={tiny_run.write_config_file(tmp_path / "config.py", data)}',
        f'--workdir={tmp_path / "run"}', f'--coordinator_address=127.0.0.1:{port}',
        '--num_processes=3', '--process_id=0', '--start_timeout=2',
    )  # fmt: skip
    assert code != 0
    names = text[text.index('Some timed out task names:') :].splitlines()[1:3]
    assert names == ['1', '2'] or names[0].startswith(('1', '2'))
    assert not (tmp_path / 'run').exists()
