"""Multi-process runs: initialization, agreement, and detection of missing processes.

The engine is JAX's own multi-controller runtime (``jax.distributed``); this file only starts
it, compares what the processes were started with, and asks it about stop signals.
"""

from collections.abc import Iterator, Mapping
import contextlib
import functools
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from typing import Any

import jax
from jax.experimental import multihost_utils

from hrm_jax.checkpoint.compatible import differences
from hrm_jax.errors import RESTART, ClusterError, LostProcess
from hrm_jax.run.workdir import TIME_LIMIT, StopRequest

START_TIMEOUT = 300  # seconds
_NAME_SECONDS = 30.0  # seconds that a name may take to be known: pods get theirs late
_SOON = 10  # seconds that the others get to read why all of them stop


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment shows that this process was started as one of several.

    SLURM (srun), Open MPI, JAX's own variables, GKE and XPK on TPU slices. A TPU pod that is
    reached by ssh shows nothing: --distributed=on states it there.
    """

    def several(name: str) -> bool:
        return environment.get(name, '').isdigit() and int(environment[name]) > 1

    in_slurm_step = 'SLURM_PROCID' in environment and 'SLURM_STEP_NODELIST' in environment
    return (
        (in_slurm_step and several('SLURM_NTASKS'))
        or several('OMPI_COMM_WORLD_SIZE')
        or 'JAX_COORDINATOR_ADDRESS' in environment
        or 'MEGASCALE_COORDINATOR_ADDRESS' in environment
        or ',' in environment.get('TPU_WORKER_HOSTNAMES', '')
    )


def start(
    mode: str = 'auto',
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    start_timeout: int = START_TIMEOUT,
    heartbeat_timeout: int = 100,
) -> None:
    """Joins the processes of a run; must come before anything else asks JAX for devices.

    Args:
      mode: ``on``; ``off``; ``auto``: on where flags or the environment ask for it.
      coordinator_address: HOST:PORT of process 0; None: found out by JAX, like the next two.
      num_processes, process_id: how many there are, and which this is (from 0).
      start_timeout: seconds until all have to be there.
      heartbeat_timeout: seconds after which a process that no longer answers ends the others.

    Raises:
      ClusterError: the flags are incomplete or contradict each other, the port is in use, or
        nothing states who the others are.
    """
    explicit = {'coordinator_address': coordinator_address, 'num_processes': num_processes,
                'process_id': process_id}  # fmt: skip
    given = [name for name, value in explicit.items() if value is not None]
    if mode == 'off' and given:
        raise ClusterError(f'--distributed=off and --{given[0]} contradict each other; drop one.')
    if mode == 'off' or (mode == 'auto' and not given and not is_wanted(os.environ)):
        return
    if given and len(given) < 3:
        missing = ', '.join(f'--{name}' for name in explicit if name not in given)
        raise ClusterError(f'--{given[0]} needs the others as well; missing: {missing}.')
    if given:
        assert coordinator_address is not None  # all three are given
        assert num_processes is not None
        assert process_id is not None
        _check_explicit(coordinator_address, num_processes, process_id)
    known = coordinator_address or os.environ.get('JAX_COORDINATOR_ADDRESS', '')
    host = known.rpartition(':')[0]
    if host := host or _first_node(os.environ.get('SLURM_STEP_NODELIST', '')):
        _check_name(host)
    name = f'process {process_id} of {num_processes}' if given else 'this process'
    where = coordinator_address or 'the address that JAX finds'

    def give_up():
        print(
            f'error: {name} waited {start_timeout} s at {where}. Process 0 is not there, or '
            f'another one is missing: the output of process 0 names it. Start all of them, or '
            f'raise --start_timeout.', file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(RESTART)

    # Process 0 ends after naming who is missing, the others a little later.
    watchdog = threading.Timer(start_timeout + _SOON, give_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        with _registration_within(start_timeout):
            jax.distributed.initialize(
                coordinator_address,
                num_processes,
                process_id,
                initialization_timeout=start_timeout + 2 * _SOON,
                heartbeat_timeout_seconds=heartbeat_timeout,
                shutdown_timeout_seconds=heartbeat_timeout,
                cluster_detection_method='deactivate' if given else None,
            )
    except (ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        silent = any(word in first for word in ('DEADLINE_EXCEEDED', 'UNAVAILABLE', 'imed out'))
        raise (LostProcess if silent else ClusterError)(
            f'the processes of the run cannot be joined: {first}. Give --coordinator_address, '
            f'--num_processes and --process_id, or --distributed=off for a single process.'
        ) from error
    finally:
        watchdog.cancel()


@contextlib.contextmanager
def _registration_within(seconds: int) -> Iterator[None]:
    """Lets process 0 name those who are missing after so long (JAX: after an hour)."""
    from jax._src.lib import _jax

    made = _jax.get_distributed_runtime_service
    _jax.get_distributed_runtime_service = functools.partial(made, cluster_register_timeout=seconds)
    try:
        yield
    finally:
        _jax.get_distributed_runtime_service = made


def _first_node(nodes: str) -> str:
    """The first of SLURM's list of nodes: 'gpu-01' of 'gpu-[01-04,7],cpu-1'."""
    found = re.match(r'([^,\[]+)(?:\[([^,\-\]]+))?', nodes)
    return (found[1] + (found[2] or '')) if found else ''


def _check_name(host: str, seconds: float = _NAME_SECONDS) -> None:
    """Raises LostProcess soon where the machine of process 0 has a name that nobody knows."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.getaddrinfo(host.strip('[]'), None)
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise LostProcess(
                    f'the machine of process 0 is called {host!r}, and that name cannot be looked '
                    f'up from here ({error}). Correct the name, or give --coordinator_address, '
                    f'--num_processes and --process_id.'
                ) from error
        time.sleep(min(2.0, seconds / 5))


def _check_explicit(address: str, num_processes: int, process_id: int) -> None:
    host, _, port = address.rpartition(':')
    if not host or not port.isdigit():
        raise ClusterError(f'--coordinator_address must be HOST:PORT; got {address!r}.')
    if not 0 <= process_id < num_processes:
        raise ClusterError(
            f'--process_id must be in 0..{num_processes - 1} for --num_processes='
            f'{num_processes}; got {process_id}.'
        )
    if process_id == 0:
        with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(('', int(port)))
            except OSError as error:
                raise ClusterError(
                    f'port {port} of --coordinator_address is in use on this machine '
                    f'({error.strerror}). Wait for the other run, or give all processes '
                    f'another port.'
                ) from error


def is_first() -> bool:
    """Whether this process writes what all have in common: logs, messages, predictions."""
    return jax.process_index() == 0


def is_joined() -> bool:
    """Whether this process is one of several."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


@contextlib.contextmanager
def arrival(seconds: int = START_TIMEOUT) -> Iterator[dict[str, Any]]:
    """Holds all processes until each has prepared itself, and compares what they prepared.

    The body fills the dictionary that it gets with JSON-able facts that must be the same
    everywhere. A body that fails stops all processes.

    Raises:
      ClusterError: a process is missing after ``seconds``, has failed, or has other facts; it
        is named, with the facts that differ.
    """
    facts: dict[str, Any] = {}
    if not is_joined():
        yield facts
        return
    try:
        yield facts
    except Exception as error:
        _exchange({'failed': f'{error}', 'code': getattr(error, 'exit_code', 1)}, seconds=1)
        raise
    found = _exchange({'facts': facts}, seconds)
    _compare(found, seconds)
    # The first collective connects the processes, for which JAX allows 30 s: now, while all are
    # here, and not after one of them has compiled for longer than another.
    wait_for_all('arrived')


def _key(process: int) -> str:
    return f'hrm_jax/arrival/{process}'


def _exchange(own: Mapping[str, Any], seconds: int) -> dict[int, dict[str, Any]]:
    """Shows the others what this process has, and returns what those that came have."""
    from orbax.checkpoint import multihost

    client = multihost.get_jax_distributed_client()
    client.key_value_set(_key(jax.process_index()), json.dumps(own))
    deadline = time.monotonic() + seconds
    found = {}
    for process in range(jax.process_count()):
        left = max(1, int(1000 * (deadline - time.monotonic())))
        try:
            found[process] = json.loads(client.blocking_key_value_get(_key(process), left))
        except jax.errors.JaxRuntimeError:
            continue
        if 'failed' in found[process]:
            break
    return found


def _compare(found: Mapping[int, Mapping[str, Any]], seconds: int) -> None:
    failed = {process: it for process, it in found.items() if 'failed' in it}
    if failed:
        process, it = next(iter(failed.items()))
        # All end with the code of the one that failed: storage that does not answer is nothing
        # that a person must change.
        kind = LostProcess if it.get('code') == RESTART else ClusterError
        raise kind(f'process {process} could not begin: {it["failed"]}')
    missing = [process for process in range(jax.process_count()) if process not in found]
    if missing:
        raise LostProcess(
            f'process {", ".join(map(str, missing))} of {jax.process_count()} did not get ready '
            f'within {seconds} s. See its output; raise --start_timeout if it reads slow storage.'
        )
    for process, it in found.items():
        places = ('in process 0', f'in process {process}')
        other = differences(found[0]['facts'], it['facts'], places=places)
        if other:
            lines = '\n  '.join(other)
            raise ClusterError(
                f'all processes must be started with the same configuration and data; process '
                f'{process} differs from process 0:\n  {lines}'
            )


def wait_for_all(name: str) -> None:
    """Returns when every process got here."""
    if is_joined():
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def first_goes_first(name: str) -> Iterator[None]:
    """Lets process 0 run the body while the others wait, then those."""
    if not is_first():
        wait_for_all(name)
    yield
    if is_first():
        wait_for_all(name)


def leave(code: int) -> None:
    """Ends a process whose run has failed, without waiting for the others as Python would."""
    if is_joined():
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(1)  # the others get to print why they stop as well
        os._exit(code)


def from_first(value: int) -> int:
    """Returns process 0's value on every process."""
    return int(multihost_utils.broadcast_one_to_all(value)) if is_joined() else value


class SharedStop(StopRequest):
    """A stop request that all processes see after the same step.

    JAX passes SIGTERM (or another notice of preemption) of any process on to all, and signals
    at which of their next calls of ``agreed`` to stop.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGHUP)  # SIGTERM belongs to JAX

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0
        self._own = ''

    def _note(self, number: int, _frame: object) -> None:
        if self._own and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGHUP:
            self._leave_terminal()
        self._pass_on(signal.Signals(number).name)

    def _closed_pipe(self) -> None:
        self._pass_on('SIGPIPE')

    def _pass_on(self, name: str) -> None:
        self._own = self._own or name
        os.kill(os.getpid(), signal.SIGTERM)

    def agreed(self) -> bool:
        if time.monotonic() >= self.deadline and not self._own:
            self._pass_on(TIME_LIMIT)
        if not self.name and multihost_utils.reached_preemption_sync_point(self._calls):
            self.name = self._own or 'SIGTERM'
        self._calls += 1
        return bool(self)


def stop_request() -> StopRequest:
    """Stop requests of this run: its own signals, or those of any of its processes."""
    return SharedStop() if is_joined() else StopRequest()
