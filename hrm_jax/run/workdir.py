"""The working directory of a run: who may write it, and how a run is asked to stop.

Layout::

    config.json        the configuration of the last start
    metrics.jsonl      one record per train step (writers.py)
    timing.jsonl       speed and durations: everything that depends on the clock
    tensorboard/       the same metrics as event files
    checkpoints/STEP/  what a run continues from (checkpoint.py)
    set_aside/         checkpoints that a rewind to an earlier step took out of the way
"""

import contextlib
import fcntl
import os
from pathlib import Path
import signal
import socket
import threading
import typing

from hrm_jax.errors import WorkdirError


def prepare(workdir: str | os.PathLike) -> Path:
    """Makes the folder and proves that it can be written.

    Raises:
      WorkdirError: it can not be made or written.
    """
    path = Path(workdir)
    probe = path / f'.probe.{os.getpid()}'
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b'')
        probe.unlink()
    except OSError as error:
        raise WorkdirError(
            f'the working directory {path} must be a folder that this user can write: '
            f'{error.strerror}. Choose another --workdir or correct its permissions.'
        ) from error
    return path


@contextlib.contextmanager
def lock(workdir: Path) -> typing.Iterator[None]:
    """Holds the folder for this process; the lock ends with the process, however it ends.

    A record lock (not flock), because data workers made by fork must not inherit it.

    Raises:
      WorkdirError: another process holds it; its number and host are named.
    """
    path = workdir / '.lock'
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 200, 0).decode(errors='replace').strip()
            raise WorkdirError(
                f'{workdir} is in use by another run ({owner or "owner unknown"}). Wait for it, '
                f'stop it, or give this run another --workdir. Nothing was changed.'
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)
        yield
    finally:
        os.close(descriptor)


class StopRequest:
    """Turns SIGTERM and SIGINT into a wish that the training loop reads between steps.

    A second SIGINT stops at once, for a person who does not want to wait.

    Attributes:
      name: 'SIGTERM' or 'SIGINT' once one came, otherwise ''.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.name = ''
        self._previous: dict[int, typing.Any] = {}

    def __bool__(self) -> bool:
        return bool(self.name)

    def agreed(self) -> bool:
        """Whether to stop now; where there are several processes, the same answer in all."""
        return bool(self)

    def _note(self, number: int, _frame: object) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

    def __enter__(self) -> 'StopRequest':
        if threading.current_thread() is threading.main_thread():
            self._previous = {n: signal.signal(n, self._note) for n in self._SIGNALS}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
