"""Lives of a run: its processes, started, disturbed at a chosen moment, and awaited."""

import dataclasses
import os
from pathlib import Path
import random
import signal
import socket
import subprocess
import time

from hrm_jax.errors import UserError

MOMENTS = ('starting', 'running', 'saving', 'evaluating')


class DrillError(UserError):
    """A run did not survive as it must."""


@dataclasses.dataclass
class Life:
    """One start of the run.

    Attributes:
      processes: how many it has.
      hit: process that the signal goes to; None: nobody disturbs it.
      signal: name of the signal.
      moment: of MOMENTS, when it came.
      codes: exit codes.
      outlived: seconds until the last process had ended after the signal.
    """

    processes: int
    hit: int | None = None
    signal: str = ''
    moment: str = ''
    codes: tuple[int, ...] = ()
    outlived: float = 0.0


def free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def start(words: list[str], processes: int, devices: int, logs: Path) -> list[subprocess.Popen]:
    """Starts all processes of a life; their output goes to files in ``logs``."""
    logs.mkdir(parents=True)
    port = free_port()
    environment = dict(
        os.environ,
        JAX_PLATFORMS='cpu',
        XLA_FLAGS=f'--xla_force_host_platform_device_count={devices // processes}',
    )
    started = []
    for number in range(processes):
        own = [] if processes == 1 else [
            f'--coordinator_address=127.0.0.1:{port}', f'--num_processes={processes}',
            f'--process_id={number}',
        ]  # fmt: skip
        with (logs / f'{number}.txt').open('w') as file:
            started.append(
                subprocess.Popen([*words, *own], stdout=file, stderr=file, env=environment)
            )
    return started


def wait_for_moment(moment: str, life: list, logs: Path, run: Path, pause: float) -> bool:
    """Returns when the moment has come, False if the run ended before."""

    def text() -> str:
        return (logs / '0.txt').read_text(errors='replace')

    def saving() -> bool:
        return any((run / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))

    ready = {
        'starting': lambda: True,
        'running': lambda: 'ran the first step' in text(),
        'saving': saving,
        'evaluating': lambda: 'evaluate:' in text(),
    }[moment]
    is_old = moment == 'saving'  # what the life before left, until this one clears it away
    while is_old or not ready():
        is_old = is_old and saving()
        if life[0].poll() is not None:
            return False
        time.sleep(0.002 if moment == 'saving' else 0.02)
    if moment in ('starting', 'running'):
        time.sleep(pause)
    return life[0].poll() is None


def end_of(life: list[subprocess.Popen], limit: float) -> tuple[int, ...]:
    """Waits for all processes.

    Raises:
      DrillError: one is still there after ``limit`` seconds; it is killed.
    """
    deadline = time.monotonic() + limit
    try:
        return tuple(p.wait(max(0.1, deadline - time.monotonic())) for p in life)
    except subprocess.TimeoutExpired:
        for process in life:
            process.kill()
        raise DrillError(f'a process was still running after {limit:.0f} s') from None


def live(
    words: list[str],
    processes: int,
    devices: int,
    logs: Path,
    run: Path,
    rng: random.Random,
    pause: float,
    limit: float,
    disturbed: bool,
) -> tuple[Life, bool]:
    """Runs one life.

    Args:
      words: the command line of one process.
      processes, devices: how many, and devices of all of them together.
      logs: folder of the output.
      run: working directory of the run.
      rng: draws moment, process and signal.
      pause: longest time in seconds between the first step and the signal.
      limit: seconds that a process may outlive another one.
      disturbed: whether a signal is sent.

    Returns:
      The life and whether the run has ended.

    Raises:
      DrillError: a process outlives the others, or an undisturbed life fails.
    """
    life = Life(processes)
    started = start(words, processes, devices, logs)
    if disturbed:
        life.moment = rng.choice(MOMENTS)
        longest = 5.0 if life.moment == 'starting' else pause
        if wait_for_moment(life.moment, started, logs, run, rng.uniform(0, longest)):
            life.hit = rng.randrange(processes)
            life.signal = rng.choice(('SIGKILL', 'SIGTERM'))
            started[life.hit].send_signal(getattr(signal, life.signal))
            began = time.monotonic()
            life.codes = end_of(started, limit)
            life.outlived = time.monotonic() - began
            return life, all(code == 0 for code in life.codes)
    life.codes = end_of(started, 3600)
    if any(life.codes):
        output = (logs / '0.txt').read_text(errors='replace')[-3000:]
        raise DrillError(f'an undisturbed life ended with {life.codes}:\n{output}')
    return life, True
