"""Folders with one owner, with the kernel's locks and without any."""

import errno
import fcntl
import json
import multiprocessing
import os
import threading
import time

import pytest

from hrm_jax import files, locks, train
from hrm_jax.checkpoint import layout
from hrm_jax.errors import WorkdirError
from hrm_jax.run import workdir
from tests import commands, tiny_run


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks: Lustre without -o flock, some FUSE mounts."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, 'lockf', refuse)
    monkeypatch.setattr(fcntl, 'flock', refuse)
    monkeypatch.setattr(locks, 'HEARTBEAT', 0.05)
    monkeypatch.setattr(locks, 'EXPIRY', 0.4)


def _hold(path, held, end):
    with locks.exclusive(path, 'file'):
        held.set()
        end.wait(20)


def test_the_owner_of_a_held_folder_is_named(tmp_path):
    context = multiprocessing.get_context('spawn')
    held, end = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / '.out.lock', held, end))
    holder.start()
    try:
        assert held.wait(20)
        with pytest.raises(locks.Held) as error, files.new_folder(tmp_path / 'out'):
            pass
        assert f'process {holder.pid} on {os.uname().nodename}, since' in str(error.value)
        assert f'process {holder.pid} on' in error.value.owner
    finally:
        end.set()
        holder.join()
    with files.new_folder(tmp_path / 'out') as folder:
        (folder / 'x').write_text('x')
    assert os.listdir(tmp_path) == ['out']


def test_without_locks_a_file_takes_their_place_and_is_announced_once(tmp_path, no_locks):
    logged = []
    for _ in range(2):
        with workdir.lock(tmp_path, logged.append):
            owner = json.loads((tmp_path / '.lock.owner').read_text())
            assert owner['process'] == os.getpid()
            assert owner['host'] == os.uname().nodename
            with (
                pytest.raises(WorkdirError, match=f'in use .*process {os.getpid()} on'),
                workdir.lock(tmp_path, logged.append),
            ):
                pass
        assert not (tmp_path / '.lock.owner').exists()
    assert len(logged) == 1
    assert 'has no locks' in logged[0]


@pytest.mark.parametrize('code', [errno.EOPNOTSUPP, errno.ENOLCK])
def test_other_answers_of_file_systems_without_locks(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'flock', refuse)
    with files.new_folder(tmp_path / 'out'):
        assert (tmp_path / '.out.lock.owner').exists()
    assert not locks.exist_in(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ['out']


def _claim(tmp_path, **facts):
    path = tmp_path / '.lock.owner'
    own = json.loads(locks.owner())
    path.write_text(json.dumps(own | facts))
    return path


def test_the_file_of_a_dead_process_is_taken_over(tmp_path, no_locks):
    dead = multiprocessing.get_context('spawn').Process(target=int)
    dead.start()
    dead.join()
    _claim(tmp_path, process=dead.pid)
    with workdir.lock(tmp_path):
        pass
    _claim(tmp_path, started='1')  # a later process with the number of the dead one: this one
    with workdir.lock(tmp_path):
        pass
    (tmp_path / '.lock.owner').write_text('')  # it died before it had written
    with workdir.lock(tmp_path):
        pass


def test_another_machine_is_believed_while_its_heart_beats(tmp_path, no_locks):
    path = _claim(tmp_path, machine='another', host='node7', process=12)
    end = threading.Event()

    def beat():
        count = 0
        while not end.wait(0.05):
            count += 1
            _claim(tmp_path, machine='another', host='node7', process=12, heartbeat=count)

    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(WorkdirError, match='process 12 on node7'), workdir.lock(tmp_path):
        pass
    end.set()
    thread.join()
    began = time.monotonic()
    with workdir.lock(tmp_path):  # silent for longer than EXPIRY
        assert json.loads(path.read_text())['process'] == os.getpid()
    assert time.monotonic() - began > 0.3


def test_an_owner_shows_that_it_lives(tmp_path, no_locks):
    with workdir.lock(tmp_path):
        seen = set()
        deadline = time.monotonic() + 10
        while len(seen) < 3 and time.monotonic() < deadline:
            seen.add((tmp_path / '.lock.owner').read_text())
            time.sleep(0.02)
    assert len(seen) >= 3


def test_many_who_want_the_folder_get_it_one_after_the_other(tmp_path, no_locks):
    inside, most, order = [], [], []

    def work(number):
        with locks.exclusive(tmp_path / 'turn', 'file', wait=True, log=lambda _: None):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)
            order.append(number)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(order) == list(range(6))
    assert max(most) == 1


def test_a_run_trains_and_resumes_without_locks(tmp_path, no_locks):
    data = tiny_run.write_dataset(tmp_path / 'data')
    logged = []
    with commands.quick_compiles():
        for steps in (1, 2):
            config = tiny_run.config(data, train={'max_steps': steps})
            train.train(config, tmp_path / 'run', log=logged.append)
    assert layout.steps(tmp_path / 'run')[-1] == 2
    assert sum('has no locks' in line for line in logged) == 1
