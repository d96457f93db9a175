"""SLURM on this host: a controller and two nodes, and a job of two tasks that is disturbed."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import time

from experiments.cluster_test import stores
from experiments.cluster_test.table import Failed, Row, Skipped
from experiments.fault_drill import lives

_PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch')
_PATH = f'{os.environ.get("PATH", "")}:/usr/sbin:/sbin'


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


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Runs a cluster of two nodes while the block runs; returns the environment of its users.

    Raises:
      Skipped: this host cannot run one.
      Failed: it does not come up.
    """
    missing = [name for name in _PROGRAMS if not shutil.which(name, path=_PATH)]
    if missing or os.geteuid():
        raise Skipped(f'needs root and the programs of slurm-wlm and munge; missing: {missing}')
    for name in ('state', 'spool-one', 'spool-two'):
        (folder / name).mkdir(parents=True)
    (folder / 'slurm.conf').write_text(_configuration(folder, socket.gethostname()))
    key = folder / 'munge.key'
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = os.environ | {'PATH': _PATH, 'SLURM_CONF': str(folder / 'slurm.conf')}
    commands = [
        ['munged', '-F', '--force', f'--key-file={key}', f'--socket={folder}/munge.socket',
         f'--pid-file={folder}/munge.pid', f'--log-file={folder}/munge.log',
         f'--seed-file={folder}/munge.seed'],
        ['slurmctld', '-D'], ['slurmd', '-D', '-N', 'one'], ['slurmd', '-D', '-N', 'two'],
    ]  # fmt: skip
    daemons = []
    try:
        for command in commands:
            with (folder / f'{command[0]}_{len(daemons)}.txt').open('w') as log:
                daemons.append(
                    subprocess.Popen(
                        command, stdout=log, stderr=log, env=environment, start_new_session=True
                    )
                )
            time.sleep(1.0)
        deadline = time.monotonic() + 60
        while _ask(environment, 'sinfo', '-h', '-o', '%T') != 'idle':
            if time.monotonic() > deadline:
                raise Failed(f'the cluster does not come up; see {folder}')
            time.sleep(0.5)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()


def _ask(environment: dict[str, str], *words: str) -> str:
    found = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return found.stdout.strip()


def requeued(data: Path, folder: Path) -> Row:
    """A job of two tasks on two nodes: asked to stop, requeued, a task killed; same bytes."""
    began, quiet, run = time.monotonic(), folder / 'slurm_undisturbed', folder / 'slurm_run'
    steps = 400
    words = stores.command(data, quiet, steps=steps)
    if any(lives.end_of(lives.start(words, 2, 2, folder / 'logs_slurm_quiet'), 600)):
        raise Failed('the undisturbed pair failed')
    with cluster(folder / 'slurm') as environment:
        environment |= {
            'PYTHON': sys.executable, 'JAX_PLATFORMS': 'cpu',
            # The names of the nodes are SLURM's alone, so JAX could not look them up.
            'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{lives.free_port()}',
            'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
        }  # fmt: skip
        output = folder / 'slurm.txt'
        job = _ask(
            environment, 'sbatch', '--parsable', '--nodes=2', '--ntasks-per-node=1',
            '--cpus-per-task=1', '--gpus-per-node=0', '--time=60', f'--output={output}',
            'experiments/launch/slurm.sh',
            *stores.command(data, run, steps=steps)[3:], '--heartbeat-timeout=10',
        )  # fmt: skip
        if not job.isdecimal():
            raise Failed('sbatch refused the job')
        done = []
        for what in ('TERM', 'requeue', 'kill'):
            _wait_for_save(run, environment, job)
            if what == 'TERM':
                _ask(environment, 'scancel', '--signal=TERM', '--batch', job)
            elif what == 'requeue':
                _ask(environment, 'scontrol', 'requeue', job)
            else:
                _kill_one_task(run)
            done.append(what)
            _wait(lambda: _is_new_life(environment, job, len(done)), 300, what)
        _wait(lambda: _ask(environment, 'squeue', '-h', '-j', job) == '', 600, 'its end')
    if stores.metrics_of(run) != stores.metrics_of(quiet):
        raise Failed('metrics.jsonl is not that of the undisturbed pair')
    return Row('SLURM, 2 tasks on 2 nodes', f'{", ".join(done)}: resumed, same bytes', began)


def _wait(ready, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise Failed(f'SLURM: waited {seconds:.0f} s after {what}')
        time.sleep(0.5)


def _saves(run: Path) -> int:
    numbers = [int(p.name) for p in (run / 'checkpoints').glob('[0-9]*') if p.name.isdecimal()]
    return max(numbers, default=0)


def _wait_for_save(run: Path, environment: dict[str, str], job: str) -> None:
    before = _saves(run)
    _wait(lambda: _saves(run) > before, 300, f'the last event: no save ({job})')


def _is_new_life(environment: dict[str, str], job: str, restarts: int) -> bool:
    text = _ask(environment, 'scontrol', 'show', 'job', job)
    return f'Restarts={restarts}' in text and 'JobState=RUNNING' in text


def _kill_one_task(run: Path) -> None:
    for folder in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            words = (folder / 'cmdline').read_bytes().split(b'\0')
            if b'hrm_jax.main' in words and f'--workdir={run}'.encode() in words:
                os.kill(int(folder.name), signal.SIGKILL)
                return
    raise Failed('no task was found')
