"""SLURM on this host: a controller and two nodes, and a job of two tasks that is disturbed."""

from collections.abc import Callable, Iterator
import contextlib
import os
from pathlib import Path
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

from experiments.cluster_test import peers, stores
from experiments.cluster_test.table import Failed, Row, Skipped
from experiments.fault_drill import lives

_PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch')
_PACKAGES = ('slurmctld', 'slurmd', 'slurm-client', 'munge')
_PATH = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'
_NODES = ('one', 'two')


def _configuration(folder: Path, host: str) -> str:
    ports = [lives.free_port() for _ in range(3)]
    return f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=20
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
KillWait=30
JobRequeue=1
SlurmdParameters=config_overrides
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=one,two Default=YES MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Installs SLURM with Debian's package manager where it is missing.

    Raises:
      Skipped: this user may not, or there is no such package.
    """
    missing = [name for name in _PROGRAMS if not shutil.which(name, path=_PATH)]
    if not missing and not os.geteuid():
        return
    if os.geteuid() or not shutil.which('apt-get'):
        raise Skipped(f'needs root and the programs of slurm-wlm and munge; missing: {missing}')
    print(f'installing {", ".join(_PACKAGES)} ...', flush=True)
    for words in (['update'], ['install', '-y', '--no-install-recommends', *_PACKAGES]):
        done = subprocess.run(
            ['apt-get', '-q', *words], env=os.environ | {'DEBIAN_FRONTEND': 'noninteractive'},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Skipped(f'apt-get {words[0]} failed: {done.stderr.strip().splitlines()[-1:]}')


class Cluster:
    """A controller and two nodes, each a daemon of its own.

    Args:
      folder: of their configuration, state and logs.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._daemons: dict[str, subprocess.Popen] = {}
        self.environment = os.environ | {'PATH': _PATH, 'SLURM_CONF': str(folder / 'slurm.conf')}

    def start(self) -> None:
        """Starts all daemons and waits for the nodes.

        Raises:
          Failed: they do not come up.
        """
        folder = self._folder
        for name in ('state', *(f'spool-{node}' for node in _NODES)):
            (folder / name).mkdir(parents=True)
        (folder / 'slurm.conf').write_text(_configuration(folder, socket.gethostname()))
        key = folder / 'munge.key'
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {'socket': 'socket', 'pid-file': 'pid', 'log-file': 'log', 'seed-file': 'seed'}
        flags = [f'--{flag}={folder}/munge.{name}' for flag, name in files.items()]
        self._start('munged', ['munged', '-F', '--force', f'--key-file={key}', *flags])
        self._start('controller', ['slurmctld', '-D'])
        for node in _NODES:
            self.start_node(node)
        deadline = time.monotonic() + 120
        while self.ask('sinfo', '-h', '-o', '%T') != 'idle':
            if time.monotonic() > deadline:
                raise Failed(f'the cluster does not come up; see {folder}')
            time.sleep(0.5)

    def _start(self, name: str, command: list[str]) -> None:
        with (self._folder / f'{name}.txt').open('a') as log:
            self._daemons[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        time.sleep(1.0)

    def start_node(self, node: str) -> None:
        """Starts a node, or starts it again."""
        self._start(node, ['slurmd', '-D', '-N', node])

    def kill_node(self, node: str, run: Path) -> None:
        """Kills a node's daemon, and all that it started for the run."""
        self._daemons[node].kill()
        self._daemons[node].wait()
        for task in _tasks(run, node):
            text = Path(f'/proc/{task}/stat').read_text()
            parent = int(text.rpartition(')')[2].split()[1])
            os.kill(parent, signal.SIGKILL)  # slurmstepd
            os.kill(task, signal.SIGKILL)

    def stop(self) -> None:
        """Ends all daemons."""
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()

    def ask(self, *words: str) -> str:
        """Runs a command of SLURM's and returns its output."""
        found = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False,
            timeout=stores.limit(300),
        )  # fmt: skip
        return found.stdout.strip()


def _tasks(run: Path, node: str) -> list[int]:
    """Numbers of the processes of a run on a node."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            words = (folder / 'cmdline').read_bytes().split(b'\0')
            its = (folder / 'environ').read_bytes().split(b'\0')
            task = b'hrm_jax.main' in words[:3] and f'--workdir={run}'.encode() in words
            if task and f'SLURMD_NODENAME={node}'.encode() in its:
                found.append(int(folder.name))
    return found


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Runs a cluster while the block runs.

    Raises:
      Skipped: this host cannot run one.
      Failed: it does not come up.
    """
    install()
    one = Cluster(folder)
    try:
        one.start()
        yield one
    finally:
        one.stop()


class Job:
    """A job of two tasks on two nodes, by the recipe experiments/launch/slurm.sh.

    Args:
      one: the cluster.
      words: flags of hrm_jax.main.
      run: workdir.
      output: file of the job's output.
    """

    def __init__(self, one: Cluster, words: list[str], run: Path, output: Path):
        self._cluster, self._run, self._output = one, run, output
        self._words, self.number = words, ''

    def submit(self) -> None:
        """Gives the job to the queue."""
        self.number = self._cluster.ask(
            'sbatch', '--parsable', '--nodes=2', '--ntasks-per-node=1', '--cpus-per-task=1',
            '--gpus-per-node=0', '--time=60', f'--output={self._output}',
            'experiments/launch/slurm.sh', *self._words,
        )  # fmt: skip
        if not self.number.isdecimal():
            raise Failed('sbatch refused the job')

    def facts(self) -> str:
        return self._cluster.ask('scontrol', 'show', 'job', self.number)

    def restarts(self) -> int:
        found = re.search(r'Restarts=(\d+)', self.facts())
        return int(found[1]) if found else 0

    def disturb(self, what: str) -> None:
        """Does something to the running job, and waits until it runs again.

        Raises:
          Failed: it does not.
        """
        ask, before = self._cluster.ask, self.restarts()
        match what:
            case 'TERM to the batch shell':
                ask('scancel', '--signal=TERM', '--batch', self.number)
            case 'requeue':
                ask('scontrol', 'requeue', self.number)
            case 'time limit':
                # The notice comes five minutes before the end, so at once.
                self._limit(self._minutes() + 2)
            case 'a task killed':
                tasks = _tasks(self._run, _NODES[1])
                if not tasks:
                    raise Failed('no task was found')
                os.kill(tasks[0], signal.SIGKILL)
            case 'a node dead':
                self._cluster.kill_node(_NODES[1], self._run)
                _wait(lambda: self.restarts() > before, 300, what)
                self._cluster.start_node(_NODES[1])
            case 'scancel':
                ask('scancel', self.number)
                _wait(lambda: not self.is_queued(), 300, what)
                if 'JobState=CANCELLED' not in self.facts():
                    raise Failed('a job that was cancelled came back')
                return self.submit()
            case _:
                raise ValueError(what)
        _wait(lambda: self.restarts() > before, 400, what)
        if what == 'time limit':
            self._limit(60)
        _wait(self._runs, 300, what)
        return None

    def _runs(self) -> bool:
        facts = self.facts()
        if 'Reason=BeginTime' in facts:  # SLURM holds a job that was requeued for two minutes
            self._cluster.ask('scontrol', 'update', f'JobId={self.number}', 'StartTime=now')
        return 'JobState=RUNNING' in facts

    def _limit(self, minutes: int) -> None:
        self._cluster.ask('scontrol', 'update', f'JobId={self.number}', f'TimeLimit={minutes}')

    def _minutes(self) -> int:
        """Minutes that the job has run, rounded up."""
        found = re.search(r'RunTime=(\d+):(\d+):(\d+)', self.facts())
        return int(found[1]) * 60 + int(found[2]) + 1 if found else 1

    def is_queued(self) -> bool:
        return self._cluster.ask('squeue', '-h', '-j', self.number) != ''


EVENTS = (
    'TERM to the batch shell', 'requeue', 'time limit', 'a task killed', 'a node dead', 'scancel'
)  # fmt: skip


def requeued(data: Path, folder: Path) -> Row:
    """A job of two tasks on two nodes is disturbed in every way of EVENTS; same bytes."""
    began, run = time.monotonic(), folder / 'slurm_run'
    # SLURM looks at time limits twice a minute: the run must still be there then.
    steps, every = 1500, 10
    with cluster(folder / 'slurm') as one:
        whole = peers.undisturbed(data, folder, 'slurm_undisturbed', steps, every)
        one.environment |= {
            'PYTHON': sys.executable, 'JAX_PLATFORMS': 'cpu',
            # The names of the nodes are SLURM's alone, so JAX could not look them up.
            'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{lives.free_port()}',
            'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
        }  # fmt: skip
        words = stores.command(data, run, steps=steps, every=every)[3:]
        words += [f'--heartbeat-timeout={stores.limit(20)}']
        job = Job(one, words, run, folder / 'slurm.txt')
        job.submit()
        for event in EVENTS:
            _wait_for_save(run, job)
            job.disturb(event)
            print(f'SLURM: {event}: runs again', flush=True)
        _wait(lambda: not job.is_queued(), 1200, 'its end')
    if stores.metrics_of(run) != whole:
        raise Failed('metrics.jsonl is not that of the undisturbed pair')
    text = f'{", ".join(EVENTS)}: resumed each time, {steps} steps, same bytes'
    return Row('SLURM, 2 tasks on 2 nodes', text, began)


def _wait(ready: Callable[[], bool], seconds: float, what: str) -> None:
    seconds = stores.limit(seconds)
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise Failed(f'SLURM: waited {seconds:.0f} s after {what}')
        time.sleep(0.5)


def _saves(run: Path) -> int:
    numbers = [int(p.name) for p in (run / 'checkpoints').glob('[0-9]*') if p.name.isdecimal()]
    return max(numbers, default=0)


def _wait_for_save(run: Path, job: Job) -> None:
    before, running = _saves(run), time.monotonic()
    while _saves(run) <= before:
        if not job.is_queued():
            raise Failed(f'job {job.number} ended before its next save')
        if time.monotonic() - running > stores.limit(600):
            raise Failed(f'job {job.number} did not save within {stores.limit(600)} s')
        time.sleep(0.5)
