"""How commands and runs end: exit codes, signals, closed pipes, memory, storage that is away."""

import dataclasses
import errno
import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

from hrm_jax import partitioning, train, train_state
from hrm_jax.checkpoint import digest_item, layout
from hrm_jax.checkpoint import saver as saver_lib
from hrm_jax.checkpoint.saver import Saver
from hrm_jax.cli import exits
from hrm_jax.config import CheckpointConfig
from hrm_jax.errors import (
    RESTART,
    CheckpointError,
    ConfigError,
    DeviceMemoryError,
    LostProcess,
    StorageError,
    UsageError,
)
from hrm_jax.run import backend, device_memory, workdir
from tests import commands, tiny_run

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT_OF_MEMORY = 'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 25769803776 bytes.'


@pytest.fixture(scope='module', autouse=True)
def _compiled():
    with commands.quick_compiles():
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return tiny_run.write_dataset(tmp_path_factory.mktemp('endings') / 'data')


def _ended(error):
    """Exit code of a command that raises the error."""

    def command():
        raise error

    with pytest.raises(SystemExit) as end:
        exits.run(command)
    return end.value.code


@pytest.mark.parametrize(
    ('error', 'code', 'text'),
    [
        (ConfigError('lr'), 1, 'error: lr'),
        (UsageError('flag'), 2, 'error: flag'),
        (LostProcess('process 3'), RESTART, 'error: process 3'),
        (StorageError('bucket'), RESTART, 'error: bucket'),
        (FloatingPointError('nan'), 1, 'error: nan'),
        (MemoryError('Unable to allocate 373 GiB'), 1, 'this machine has not enough memory'),
        (KeyboardInterrupt(), 130, 'interrupted'),
        (BrokenPipeError(errno.EPIPE, 'x'), 141, ''),
        (OSError(errno.ENOSPC, 'No space left', 'f'), 1, 'error: f: No space left'),
        (OSError(errno.ENAMETOOLONG, 'File name too long', 'f'), 1, 'error: f: File name'),
        (OSError(errno.EIO, 'Input/output error', 'f'), RESTART, 'error: f: Input/output'),
        (OSError(errno.ESTALE, 'Stale file handle', 'f'), RESTART, 'error: f: Stale'),
        (OSError(errno.ETIMEDOUT, 'timed out', 'f'), RESTART, 'error: f'),
        (jax.errors.JaxRuntimeError('INTERNAL: ECC error'), RESTART, 'INTERNAL: ECC error'),
        (jax.errors.JaxRuntimeError('UNAVAILABLE: peer lost'), RESTART, 'peer lost'),
        (jax.errors.JaxRuntimeError(OUT_OF_MEMORY), 1, 'needs more memory than a device has'),
    ],
)  # fmt: skip
def test_the_exit_code_says_who_must_act(capsys, error, code, text):
    assert _ended(error) == code
    captured = capsys.readouterr().err
    assert text in captured
    assert code == RESTART or 'Traceback' not in captured


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        exits.run(lambda: 1 // 0)
    with pytest.raises(OSError, match='odd'):
        exits.run(lambda: (_ for _ in ()).throw(OSError(errno.EDOM, 'odd')))


def _command(*words, stdout=None, **options):
    code = 'from hrm_jax.__main__ import main; main()'
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    return subprocess.Popen(
        [sys.executable, '-c', code, *map(str, words)], stdout=stdout, stderr=subprocess.PIPE,
        text=True, env=environment, cwd='/', **options,
    )  # fmt: skip


def test_a_closed_pipe_and_a_full_disk_end_quietly(data, tmp_path):
    config = tiny_run.config(data, train={'max_steps': 1})
    train.train(config, tmp_path / 'run', log=lambda _: None)
    words = ('checkpoints', 'inspect', tmp_path / 'run')
    reader, writer = os.pipe()
    os.close(reader)
    closed = _command(*words, stdout=writer)
    os.close(writer)
    assert closed.stderr.read() == ''
    assert closed.wait() == 141
    if os.path.exists('/dev/full'):
        with open('/dev/full', 'w') as full:
            command = _command(*words, stdout=full)
            assert command.stderr.read() == 'error: standard output: No space left on device\n'
            assert command.wait() == 1


def _wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)


def _ignore_hangup():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _hear_hangup():  # the tests themselves may run under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize(('ignored', 'code'), [(False, 129), (True, 143)])
def test_a_closed_terminal_saves_unless_nohup_says_otherwise(data, tmp_path, ignored, code):
    file = tiny_run.write_config_file(
        tmp_path / 'c.py', data, train={'epochs': 40000, 'eval_interval': 0}
    )
    flags = (f'--config={file}', f'--workdir={tmp_path / "run"}')
    prelude = _ignore_hangup if ignored else _hear_hangup
    command = commands.Command(tmp_path / 'out.txt', *flags, prelude=prelude)
    _wait_for(tmp_path / 'run' / 'checkpoints' / '3', command.process)
    os.kill(command.process.pid, signal.SIGHUP)
    if ignored:
        time.sleep(0.5)
        assert command.process.is_alive()
        os.kill(command.process.pid, signal.SIGTERM)
    found, text = command.wait()
    assert found == code, text
    assert 'stopped after step' in text
    assert layout.steps(tmp_path / 'run')


class _Pipe(io.StringIO):
    """A stream whose reader leaves after it has seen a word."""

    def __init__(self, last):
        super().__init__()
        self._last, self._left = last, False

    def write(self, text):
        self.flush()
        self._left = self._last in text
        return len(text)

    def flush(self):
        if self._left:
            raise BrokenPipeError(errno.EPIPE, 'Broken pipe')


@pytest.mark.parametrize('name', ['stdout', 'stderr'])
def test_a_run_whose_output_is_no_longer_read_saves_and_ends(data, tmp_path, monkeypatch, name):
    config = tiny_run.config(data, train={'max_steps': 40, 'eval_interval': 0})
    monkeypatch.setattr(sys, name, _Pipe('compiled' if name == 'stdout' else 'train'))
    outcome = train.train(config, tmp_path / 'run')
    assert outcome.signal == 'SIGPIPE'
    assert 0 < outcome.step < 40
    assert layout.steps(tmp_path / 'run')[-1] == outcome.step
    assert exits.EXIT_CODES[outcome.signal] == 141


def test_streams_are_put_back(monkeypatch):
    before = sys.stdout, sys.stderr
    found = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    with workdir.StopRequest() as stop:
        assert sys.stdout is not before[0]
        os.kill(os.getpid(), signal.SIGHUP)
        assert (bool(stop), stop.name) == (True, 'SIGHUP')
    signal.signal(signal.SIGHUP, found)
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize(
    'text',
    [
        OUT_OF_MEMORY,
        'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space '
        'hbm. Used 18.11G of 15.48G hbm. Exceeded hbm capacity by 2.63G.',
        'RESOURCE_EXHAUSTED: Failed to allocate request for 2.0GiB (2147483648B) on device',
        'INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory',
    ],
)
def test_too_little_device_memory_names_what_helps(data, tmp_path, monkeypatch, text):
    def fail(*_):
        raise jax.errors.JaxRuntimeError(text)

    make = train.train_step.make_train_steps

    def broken(*arguments):
        fail.lower = make(*arguments).lower
        return fail

    monkeypatch.setattr(train.train_step, 'make_train_steps', broken)
    with pytest.raises(DeviceMemoryError) as error:
        train.train(tiny_run.config(data), tmp_path, log=lambda _: None)
    message = str(error.value)
    for part in (
        'a train step needs more memory', text[:60], 'the compiled program needs', 'B per device',
        '--config.train.micro_batches=2 (now 1', '--config.model.remat=true',
        '--config.train.global_batch_size (now 8)', '--dry-run',
    ):  # fmt: skip
        assert part in message
    assert 'disk' not in message
    already = tiny_run.config(data, model={'remat': True}, train={'micro_batches': 4})
    again = str(device_memory.explain(jax.errors.JaxRuntimeError(text), already))
    assert 'micro_batches=8 (now 4' in again
    assert 'remat' not in again


@pytest.mark.parametrize(
    ('text', 'is_memory'),
    [
        ('RESOURCE_EXHAUSTED: write: [OS error 28: No space left on device]', False),
        ('INTERNAL: out of range', False), ('UNAVAILABLE: socket closed', False),
        (OUT_OF_MEMORY, True),
    ],
)  # fmt: skip
def test_what_is_about_memory(text, is_memory):
    assert device_memory.is_about_memory(jax.errors.JaxRuntimeError(text)) == is_memory
    assert not device_memory.is_about_memory(ValueError(text))


@pytest.fixture(scope='module')
def state(data):
    config = tiny_run.config(data)
    sizes = {'vocab_size': 5, 'seq_len': 16, 'num_puzzle_identifiers': 3}
    config = dataclasses.replace(config, model=config.model.for_dataset(**sizes))
    return config, train_state.create(config, partitioning.make_mesh())


def _meta(config, step):
    return {'step': step, 'config': config.to_dict(), 'dataset': {}, 'metrics': {}}


@pytest.mark.parametrize(
    ('text', 'kind', 'words'),
    [
        (OUT_OF_MEMORY, CheckpointError, 'not enough memory'),
        ('RESOURCE_EXHAUSTED: [OS error 28: No space left on device]', CheckpointError, 'disk is'),
        ('Disk quota exceeded', CheckpointError, 'the disk is full'),
        ('PERMISSION_DENIED: no', CheckpointError, 'PERMISSION_DENIED'),
        ('UNAVAILABLE: 503 Service Unavailable', StorageError, '503'),
        ('Error 429 Too Many Requests', StorageError, '429'),
        ('DEADLINE_EXCEEDED: barrier timed out', StorageError, 'barrier'),
        ('[OS error 5: Input/output error]', StorageError, 'Input/output'),
        ('[OS error 116: Stale file handle]', StorageError, 'Stale'),
    ],
)
def test_why_a_save_failed(tmp_path, text, kind, words):
    with Saver(tmp_path, CheckpointConfig()) as saver:
        failure = saver._failure('could not take step 1', OSError(text))
    assert type(failure) is kind
    assert words in str(failure)
    assert ('disk is full' in str(failure)) == ('disk' in words)


class _Storage:
    """Fails the first saves, in orbax's thread, as a bucket does that does not answer."""

    def __init__(self, monkeypatch, failures):
        self.failures, self.now = failures, 0.0
        write = digest_item.DigestHandler._write_now

        def failing(handler, directory, args):
            if self.failures:
                self.failures -= 1
                raise OSError('UNAVAILABLE: the bucket does not answer')
            write(handler, directory, args)

        monkeypatch.setattr(digest_item.DigestHandler, '_write_now', failing)

    def clock(self):
        return self.now


def test_a_save_is_tried_again_while_training_continues(tmp_path, monkeypatch, state):
    config, state = state
    logged, storage = [], _Storage(monkeypatch, 1)
    with Saver(tmp_path, CheckpointConfig(), logged.append, clock=storage.clock) as saver:
        saver.save(state, {}, _meta(config, 1))
        saver.wait()
        assert saver.is_behind
        assert 'Training continues; the next attempt is in 5 s' in logged[0]
        assert not saver.save_is_due()
        storage.now = 6.0
        assert saver.save_is_due()
        saver.save(state, {}, _meta(config, 4))
        saver.wait()
        assert not saver.is_behind
        assert not saver.save_is_due()
    assert layout.steps(tmp_path)[-1] == 4


def test_patience_with_storage_ends(tmp_path, monkeypatch, state):
    config, state = state
    storage = _Storage(monkeypatch, 99)
    pauses = []
    with Saver(
        tmp_path, CheckpointConfig(), pauses.append, patience=100.0, clock=storage.clock
    ) as saver:
        for step in range(1, 5):
            storage.now += 30.0
            saver.save(state, {}, _meta(config, step))
            saver.wait()
        storage.now += 30.0

        def save():  # either of the two may be the first to see the failure
            saver.save(state, {}, _meta(config, 5))
            saver.wait()

        with pytest.raises(StorageError, match='does not answer') as error:
            save()
        assert error.value.exit_code == RESTART
        storage.failures = 0
    assert [line.split('attempt is in ')[1].split(' s')[0] for line in pauses] == [
        '5', '10', '20', '40',
    ]  # fmt: skip


def test_a_run_outlives_storage_that_is_away_for_a_while(data, tmp_path, monkeypatch):
    monkeypatch.setattr(saver_lib, '_PAUSES', (0.0,))
    _Storage(monkeypatch, 2)
    logged = []
    config = tiny_run.config(data, train={'max_steps': 10})
    assert train.train(config, tmp_path / 'run', log=logged.append).step == 10
    assert layout.steps(tmp_path / 'run')[-1] == 10
    assert any('Training continues' in line for line in logged)
    undisturbed = train.train(config, tmp_path / 'whole', log=lambda _: None)
    assert undisturbed.step == 10
    same = [(tmp_path / name / 'metrics.jsonl').read_bytes() for name in ('run', 'whole')]
    assert same[0] == same[1]


@pytest.mark.parametrize('home', ['unset', 'read-only', 'a file'])
def test_without_a_home_there_is_no_cache_and_no_error(tmp_path, monkeypatch, home):
    for name in ('JAX_COMPILATION_CACHE_DIR', 'XDG_CACHE_HOME', 'HOME'):
        monkeypatch.delenv(name, raising=False)
    if home == 'unset':

        def no_home(*_):
            raise RuntimeError('Could not determine home directory.')

        monkeypatch.setattr(pathlib.Path, 'home', no_home)
    elif home == 'a file':
        (tmp_path / 'file').write_text('')
        monkeypatch.setenv('HOME', str(tmp_path / 'file'))
    else:
        monkeypatch.setenv('HOME', str(tmp_path))
        (tmp_path / '.cache' / 'hrm_jax' / 'compiled').mkdir(parents=True)
        monkeypatch.setattr(os, 'access', lambda *_: False)
    before = jax.config.jax_compilation_cache_dir
    assert backend._cache_folder() is None
    backend.enable_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == before


def test_the_platforms_that_cannot_run_it_are_named():
    script = 'import sys; sys.modules["fcntl"] = None; import {}'
    for module in ('hrm_jax', 'data_builders.sudoku', 'hrm_jax.__main__'):
        done = subprocess.run(
            [sys.executable, '-c', script.format(module)], cwd=ROOT, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert 'use it inside WSL2' in done.stderr.splitlines()[-1]
    intel = (
        'import platform, sys\nplatform.system = lambda: "Darwin"\n'
        'platform.machine = lambda: "x86_64"\nsys.modules["jax"] = None\nimport hrm_jax'
    )
    done = subprocess.run(
        [sys.executable, '-c', intel], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert 'no packages for Macs with Intel processors' in done.stderr
