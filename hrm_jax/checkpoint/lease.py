"""One writer per ``checkpoint.directory``, on disks and on gs://.

On disks the lock of locks.py. Object storage has no locks: there an object ``writer.json`` names
the owner (host, process) and changes with every heartbeat; it is created, renewed and taken over
only where its generation is the one that was seen, so that of several writers one succeeds. Whoever
does not renew it for ``EXPIRY`` seconds counts as dead. No common clock is needed.
"""

from collections.abc import Callable, Iterator
import contextlib
import json
import os
from pathlib import Path
import threading
import time
from typing import Any

from hrm_jax import locks
from hrm_jax.checkpoint import places
from hrm_jax.errors import CheckpointError, StorageError, WorkdirError

NAME = 'writer.json'
HEARTBEAT = 10.0  # seconds between signs of life
EXPIRY = 60.0  # seconds without one after which the owner counts as dead
GRACE = 120.0  # seconds that a new owner waits: a preempted machine saves, and leaves
ANSWER = 60.0  # seconds that the storage may take for an answer


class Lease:
    """The right to write in a directory."""

    def __init__(self) -> None:
        self._lost_to = ''

    def lose(self, owner: str) -> None:
        """Another process has it now."""
        self._lost_to = owner or 'an unknown process'

    def check(self) -> None:
        """Raises WorkdirError where another process has taken the directory over."""
        if self._lost_to:
            raise WorkdirError(
                f'checkpoint.directory belongs to another run now ({self._lost_to}), because this '
                f'one gave no sign of life for {EXPIRY:.0f} s. It ends, so that nothing is '
                f'overwritten; the other one continues from the last checkpoint.'
            )


@contextlib.contextmanager
def held(directory: Path, log: Callable[[str], None] = print) -> Iterator[Lease]:
    """Holds a directory while the block runs.

    Args:
      directory: of ``places.as_path``; made when missing.
      log: prints that this process waits for another one.

    Raises:
      WorkdirError: another process has it, and still has after ``GRACE`` seconds.
      StorageError: the storage does not answer.
      CheckpointError: it cannot be written.
    """
    lease = Lease()
    if places.is_remote(directory):
        holding = _object(directory, lease, log)
    else:
        holding = _lock(directory, log)
    with holding:
        yield lease


class _Patience:
    """Waits for an owner to leave, and raises once that takes too long."""

    def __init__(self, directory: Path, log: Callable[[str], None]):
        self._directory, self._log = directory, log
        self._until = time.monotonic() + GRACE
        self._told = False

    def wait(self, owner: str) -> None:
        if time.monotonic() >= self._until:
            raise WorkdirError(
                f'{self._directory} is in use by another run ({owner}). Wait for it, stop it, or '
                f'give this run another checkpoint.directory. Nothing was changed.'
            )
        if not self._told:
            self._told = True
            self._log(
                f'note: {self._directory} is in use ({owner}); waiting for up to {GRACE:.0f} s.'
            )
        time.sleep(min(1.0, EXPIRY / 10, GRACE / 10))


@contextlib.contextmanager
def _lock(directory: Path, log: Callable[[str], None]) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    patience = _Patience(directory, log)
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locks.exclusive(directory / '.lock', 'record', log=log))
                break
            except locks.Held as error:
                patience.wait(error.owner)
        yield


@contextlib.contextmanager
def _object(directory: Path, lease: Lease, log: Callable[[str], None]) -> Iterator[None]:
    store = _Store(directory)
    mine = locks.parsed(locks.owner()) | {'key': os.urandom(8).hex()}
    generation = _acquired(store, mine, _Patience(directory, log))
    ended = threading.Event()
    beat = threading.Thread(
        target=_beat, args=(store, mine, generation, lease, ended), daemon=True, name='lease'
    )
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join(ANSWER)
        with contextlib.suppress(CheckpointError):
            text, now = store.read()
            if locks.parsed(text).get('key') == mine['key']:
                store.write(None, now)


def _acquired(store: '_Store', mine: dict[str, Any], patience: _Patience) -> bytes:
    """Returns the generation of the object that names this process."""
    seen, since = b'', time.monotonic()
    while True:
        text, generation = store.read()
        if generation != seen:
            seen, since = generation, time.monotonic()
        dead = locks.is_dead(locks.parsed(text))  # on this machine that can be looked up
        if not text or dead or time.monotonic() - since > EXPIRY:
            if new := store.write(mine, generation):
                return new
            continue  # another process was faster
        patience.wait(locks.described(text))


def _beat(
    store: '_Store', mine: dict[str, Any], generation: bytes, lease: Lease, ended: threading.Event
) -> None:
    count = 0
    while not ended.wait(HEARTBEAT):
        count += 1
        with contextlib.suppress(CheckpointError):  # it may answer next time
            if new := store.write(mine | {'heartbeat': count}, generation):
                generation = new
                continue
            text, now = store.read()
            if locks.parsed(text).get('key') != mine['key']:
                lease.lose(locks.described(text))
                return
            generation = now  # a write whose answer was lost


class _Store:
    """The object, with conditional writes, which etils has not."""

    def __init__(self, directory: Path):
        self._directory, self._opened = directory, None

    def _answer(self, ask: Callable[[Any], Any]) -> Any:
        import tensorstore

        try:
            if self._opened is None:
                opening = tensorstore.KvStore.open(f'{self._directory}/')
                self._opened = opening.result(timeout=ANSWER)
            return ask(self._opened).result(timeout=ANSWER)
        except TimeoutError as error:
            raise StorageError(
                f'{self._directory} did not answer for {ANSWER:.0f} s. The same command resumes '
                f'once it does.'
            ) from error
        except Exception as error:  # tensorstore raises ValueError and its relatives
            first = (str(error).splitlines() or [''])[0][:300]
            raise CheckpointError(
                f'checkpoint.directory={self._directory} cannot be written: {first}'
            ) from error

    def read(self) -> tuple[str, bytes]:
        found = self._answer(lambda store: store.read(NAME))
        return found.value.decode(errors='replace'), found.stamp.generation

    def write(self, facts: dict[str, Any] | None, generation: bytes) -> bytes:
        """Writes, or deletes (None), if nobody else has; returns the new generation, or b''."""
        text = None if facts is None else json.dumps(facts).encode()
        return self._answer(lambda store: store.write(NAME, text, if_equal=generation)).generation
