"""One writer per checkpoint.directory: on a server of object storage, and on a disk."""

import json
import multiprocessing
import os
import threading
import time

import pytest

from experiments.cluster_test import gcs_server
from hrm_jax import locks
from hrm_jax.checkpoint import lease, places
from hrm_jax.errors import CheckpointError, StorageError, WorkdirError

NAME = 'run/writer.json'


@pytest.fixture(scope='module')
def _server():
    with gcs_server.serving() as (store, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture
def store(_server, monkeypatch):
    _server.objects.clear()
    _server.status = 0
    for name, value in (('HEARTBEAT', 0.1), ('EXPIRY', 0.8), ('GRACE', 1.5), ('ANSWER', 3.0)):
        monkeypatch.setattr(lease, name, value)
    return _server


class Remote:
    """A path of etils without the package that would read and write it."""

    def __init__(self, text):
        self._text = text

    def __str__(self):
        return self._text

    __fspath__ = __str__

    def __truediv__(self, name):
        return Remote(f'{self._text}/{name}')


PLACE = Remote(f'gs://{gcs_server.BUCKET}/run')


def _others(store, machine='another boot', **facts):
    facts = {'process': 5, 'host': 'elsewhere', 'machine': machine, 'since': 'noon'} | facts
    store.put(NAME, json.dumps(facts).encode(), {})


def test_the_owner_is_named_renews_its_lease_and_leaves(store):
    with lease.held(PLACE) as mine:
        first = json.loads(store.objects[NAME][0])
        assert first['process'] == os.getpid()
        time.sleep(0.5)
        assert json.loads(store.objects[NAME][0])['heartbeat'] >= 1
        mine.check()
    assert NAME not in store.objects


def test_a_second_writer_is_refused_while_the_first_lives(store):
    log = []
    with lease.held(PLACE):
        with (
            pytest.raises(WorkdirError, match=f'process {os.getpid()} on'),
            lease.held(PLACE, log.append),
        ):
            raise AssertionError('two writers')
        assert NAME in store.objects
    assert 'waiting for up to' in log[0]


def test_a_preempted_machine_may_leave_in_its_grace_period(store):
    left, order = threading.Event(), []

    def first():
        with lease.held(PLACE):
            left.set()
            time.sleep(0.6)
            order.append('first ends')

    thread = threading.Thread(target=first)
    thread.start()
    left.wait()
    with lease.held(PLACE):
        order.append('second begins')
    thread.join()
    assert order == ['first ends', 'second begins']


@pytest.mark.parametrize('content', [None, b'', b'{"process"', b'[]', b'\xff\xfe'])
def test_an_owner_without_a_heartbeat_is_dead(store, content):
    _others(store)
    if content is not None:
        store.put(NAME, content, {})
    began = time.monotonic()
    with lease.held(PLACE):
        assert json.loads(store.objects[NAME][0])['process'] == os.getpid()
    assert content == b'' or time.monotonic() - began > lease.EXPIRY


def test_a_dead_process_of_this_machine_is_known_at_once(store, monkeypatch):
    monkeypatch.setattr(lease, 'EXPIRY', 60.0)
    child = multiprocessing.get_context('spawn').Process(target=int)
    child.start()
    child.join()
    _others(store, machine=json.loads(locks.owner())['machine'], process=child.pid)
    began = time.monotonic()
    with lease.held(PLACE):
        assert time.monotonic() - began < 5


def test_a_run_that_was_taken_over_stops_writing(store):
    with lease.held(PLACE) as mine:
        _others(store)
        time.sleep(1.0)
        with pytest.raises(WorkdirError, match='process 5 on elsewhere'):
            mine.check()
    assert json.loads(store.objects[NAME][0])['process'] == 5  # it is not ours to remove


def test_a_short_outage_costs_no_lease(store):
    with lease.held(PLACE) as mine:
        store.status = 403
        time.sleep(0.4)
        store.status = 0
        time.sleep(0.4)
        mine.check()
        assert json.loads(store.objects[NAME][0])['process'] == os.getpid()


@pytest.mark.parametrize(('status', 'kind'), [(403, CheckpointError), (503, StorageError)])
def test_storage_that_refuses_is_told_from_storage_that_is_away(store, status, kind):
    store.status = status
    with pytest.raises(CheckpointError) as caught, lease.held(PLACE):
        raise AssertionError('no storage')
    store.status = 0
    assert type(caught.value) is kind


def _hold(folder, ready, end):
    with lease.held(places.as_path(folder)):
        ready.set()
        end.wait(60)


def test_on_a_disk_too(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, 'GRACE', 0.3)
    context = multiprocessing.get_context('spawn')
    ready, end = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path / 'shared'), ready, end))
    other.start()
    assert ready.wait(60)
    with (
        pytest.raises(WorkdirError, match=f'process {other.pid} on'),
        lease.held(tmp_path / 'shared'),
    ):
        raise AssertionError('two writers')
    end.set()
    other.join()
    with lease.held(tmp_path / 'shared'):
        pass
