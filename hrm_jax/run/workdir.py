"""The working directory of a run: who may write it, and how a run is asked to stop.

Layout::

    config.json        the configuration of the last start; --workdir alone is enough afterwards
    metrics.jsonl      one record per train step (writers.py)
    timing.jsonl       speed and durations: everything that depends on the clock
    tensorboard/       the same metrics as event files
    checkpoints/STEP/  what a run resumes from (checkpoint/layout.py)
    set_aside/         checkpoints and records that a rewind or damage took out of the way
"""

from collections.abc import Callable
import contextlib
import errno
import math
import os
from pathlib import Path
import signal
import sys
import threading
import time
import typing

from hrm_jax import files, locks
from hrm_jax.errors import WorkdirError

CONFIG = 'config.json'
TIME_LIMIT = 'time limit'


def prepare(workdir: str | os.PathLike) -> Path:
    """Makes the folder and proves that it can be written.

    Returns:
      Its path, absolute, ``~`` expanded.

    Raises:
      WorkdirError: it cannot be made or written, or has a name that cannot be saved.
    """
    path = files.local_path(workdir, 'the working directory (--workdir)', WorkdirError)
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
def lock(workdir: Path, log: Callable[[str], None] = print) -> typing.Iterator[None]:
    """Holds the folder for this process; the lock ends with the process, however it ends.

    Raises:
      WorkdirError: another process holds it; its number and host are named.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.exclusive(workdir / '.lock', 'record', log=log))
        except locks.Held as error:
            raise WorkdirError(
                f'{workdir} is in use by another run ({error.owner}). Wait for it, stop it, or '
                f'give this run another --workdir. Nothing was changed.'
            ) from error
        yield


def remove_if_empty(folder: Path) -> None:
    """Takes back the folder of a run that was refused before it wrote anything."""
    with contextlib.suppress(OSError):
        folder.rmdir()


class _Output:
    """A stream whose closed reader asks the run to stop in place of ending it at once."""

    def __init__(self, stream: typing.Any, closed: Callable[[], None]):
        self._stream, self._closed = stream, closed

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        return self._try(self._stream.write, text) or len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, function: Callable, *arguments: typing.Any) -> typing.Any:
        try:
            return function(*arguments)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            silence(self._stream)
            self._closed()
            return None


def silence(stream: typing.Any) -> None:
    """Lets a stream write into nothing, where its pipe or terminal is gone."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class StopRequest:
    """Turns signals into a wish that the training loop reads between steps.

    SIGTERM and SIGINT, and SIGHUP (a closed terminal) unless nohup had it ignored; and a closed
    pipe behind standard output or error. A second SIGINT stops at once, for a person who does not
    want to wait.

    Attributes:
      name: 'SIGTERM', 'SIGINT', 'SIGHUP' or 'SIGPIPE' once one came, ``TIME_LIMIT`` once the
        deadline has passed, otherwise ''.
      deadline: of ``time.monotonic()``.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self.name = ''
        self.deadline = math.inf
        self._previous: dict[int, typing.Any] = {}
        self._streams: tuple[typing.Any, typing.Any] | None = None

    def __bool__(self) -> bool:
        return bool(self.name)

    def agreed(self) -> bool:
        """Whether to stop now; where there are several processes, the same answer in all."""
        if time.monotonic() >= self.deadline:
            self.name = self.name or TIME_LIMIT
        return bool(self)

    def _note(self, number: int, _frame: object) -> None:
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGHUP:
            self._leave_terminal()
        self.name = self.name or signal.Signals(number).name

    def _leave_terminal(self) -> None:
        for stream in self._streams or ():
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if os.isatty(stream.fileno()):
                    silence(stream)

    def _closed_pipe(self) -> None:
        self.name = self.name or 'SIGPIPE'

    def __enter__(self) -> 'StopRequest':
        if threading.current_thread() is threading.main_thread():
            for number in self._SIGNALS:
                # nohup: the run is to outlive its terminal.
                ignored = number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN
                if not ignored:
                    self._previous[number] = signal.signal(number, self._note)
        self._streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Output(one, self._closed_pipe) for one in self._streams)
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self._streams is not None  # set by __enter__
        sys.stdout, sys.stderr = self._streams
        for number, handler in self._previous.items():
            signal.signal(number, handler)
