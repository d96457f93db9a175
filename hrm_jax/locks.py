"""Folders with one owner at a time, also where the file system has no locks.

The lock is a record or file lock of the kernel, which ends with its process however that ends.
Some file systems have none (Lustre without ``-o flock``, some FUSE and object stores): there a
lock file with host, process and a heartbeat takes its place. Both name their owner.
"""

from collections.abc import Callable, Iterator
import contextlib
import errno
import fcntl
import json
import os
from pathlib import Path
import socket
import threading
import time
from typing import Any, Literal

# What a file system without locks answers.
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)
HEARTBEAT = 10.0  # seconds between signs of life of a lock file's owner
EXPIRY = 60.0  # seconds without one after which the owner of another machine counts as dead
_told: set[str] = set()  # lock files that were announced


class Held(BlockingIOError):
    """Another process holds the lock.

    Attributes:
      owner: who and since when, as far as it is known.
    """

    def __init__(self, path: Path, owner: str):
        super().__init__(errno.EAGAIN, f'another process is using it ({owner})', str(path))
        self.owner = owner


@contextlib.contextmanager
def exclusive(
    path: Path,
    kind: Literal['record', 'file'] = 'record',
    wait: bool = False,
    log: Callable[[str], None] = print,
) -> Iterator[None]:
    """Holds a lock while the block runs.

    Args:
      path: the lock file; made when missing, and left in place.
      kind: ``record`` locks (lockf) are not inherited by forked workers and are one per process;
        ``file`` locks (flock) also exclude another thread that opens the file anew.
      wait: waits for the owner in place of raising.
      log: prints the message that the file system has no locks, once per lock.

    Raises:
      Held: another process has it; it is named.
      OSError: the file cannot be made or written.
    """
    lock = {'record': fcntl.lockf, 'file': fcntl.flock}[kind]
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            lock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno in _NO_LOCKS:
                with _lock_file(path, wait, log, error):
                    yield
                return
            text = os.pread(descriptor, 4000, 0).decode(errors='replace')
            raise Held(path, described(text)) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, owner().encode(), 0)
        yield
    finally:
        os.close(descriptor)


def exist_in(folder: Path) -> bool:
    """Whether the file system of a folder has locks."""
    probe = folder / f'.locks.{os.getpid()}'
    try:
        with probe.open('w') as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return True


def owner() -> str:
    """This process, as text that ``described`` reads."""
    facts = {
        'process': os.getpid(), 'host': socket.gethostname(), 'machine': _machine(),
        'started': _started(os.getpid()), 'since': time.strftime('%Y-%m-%d %H:%M:%S %z'),
    }  # fmt: skip
    return json.dumps(facts) + '\n'


def parsed(text: str) -> dict[str, Any]:
    """The facts in such a text; empty where it is none."""
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def described(text: str) -> str:
    """Names the owner in such a text."""
    facts = parsed(text)
    if 'process' not in facts:
        return text.strip()[:200] or 'an unknown process'
    return f'process {facts["process"]} on {facts.get("host")}, since {facts.get("since")}'


def _machine() -> str:
    """Identifies what a process number belongs to: this boot and this container."""
    found = []
    for read in (
        lambda: Path('/proc/sys/kernel/random/boot_id').read_text().strip(),
        lambda: os.readlink('/proc/self/ns/pid'),
    ):
        with contextlib.suppress(OSError):
            found.append(read())
    return ' '.join(found) or socket.gethostname()


def _started(process: int) -> str:
    """When a process began, in ticks since boot; a later one with its number differs."""
    try:
        return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[19]
    except (OSError, IndexError):
        return ''


def is_dead(facts: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine that exists no more."""
    process = facts.get('process')
    if facts.get('machine') != _machine() or type(process) is not int:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, or no process number
        return False
    return bool(facts.get('started')) and _started(process) != facts['started']


@contextlib.contextmanager
def _lock_file(
    path: Path, wait: bool, log: Callable[[str], None], reason: OSError
) -> Iterator[None]:
    """Holds ``path`` with the suffix ``.owner``, whose creation only one process can win."""
    file = path.with_name(f'{path.name}.owner')
    if str(file) not in _told:
        _told.add(str(file))
        log(
            f'note: the file system of {path.parent} has no locks ({reason.strerror}); the file '
            f'{file.name} takes their place.'
        )
    while not _created(file):
        before = _read(file)
        if before is None:
            continue
        if _is_gone(file, before, wait):
            _remove_stale(file, before)
        elif not wait and (now := _read(file)) is not None:
            raise Held(path, described(now))
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(file, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        facts = parsed(_read(file) or '')
        if (facts.get('process'), facts.get('machine')) == (os.getpid(), _machine()):
            file.unlink(missing_ok=True)


def _is_gone(file: Path, before: str, wait: bool) -> bool:
    """Whether the owner of a lock file has gone; asks as long as it takes to know.

    An owner on this machine is looked up. One of another machine is dead when its heartbeat stays
    away, which needs patience but no common clock.
    """
    facts = parsed(before)
    here, deadline = facts.get('machine') == _machine(), time.monotonic() + EXPIRY
    while _read(file) == before:
        if here and is_dead(facts):
            return True
        if here and not wait:
            return False
        if not here and time.monotonic() > deadline:
            return True
        time.sleep(min(0.5, EXPIRY / 10))
    return False  # it lives, or has left in the meantime


def _read(file: Path) -> str | None:
    """Content of a lock file; None where there is none."""
    try:
        return file.read_text(errors='replace')
    except OSError:
        return None


def _created(file: Path) -> bool:
    # Written beside and linked, so that nobody ever reads half of it.
    beside = file.with_name(f'{file.name}.{os.getpid()}.{threading.get_ident()}')
    beside.write_text(owner())
    try:
        os.link(beside, file)
        return True
    except FileExistsError:
        return False
    except OSError:  # no hard links here either
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            return False
        os.replace(beside, file)
        return True
    finally:
        beside.unlink(missing_ok=True)


def _remove_stale(file: Path, content: str) -> None:
    """Removes the file of a dead owner; of several that try, one succeeds."""
    aside = file.with_name(f'{file.name}.{os.getpid()}.stale')
    try:
        file.rename(aside)
    except OSError:
        return
    if _read(aside) != content:  # somebody was faster, and this is already the new owner's
        with contextlib.suppress(OSError):
            os.link(aside, file)
    aside.unlink(missing_ok=True)


def _beat(file: Path, ended: threading.Event) -> None:
    """Changes the file now and then while its owner lives."""
    facts, count = parsed(owner()), 0
    while not ended.wait(HEARTBEAT):
        count += 1
        text = json.dumps(facts | {'heartbeat': count}) + '\n'
        with contextlib.suppress(OSError):
            beside = file.with_name(f'{file.name}.{os.getpid()}.beat')
            beside.write_text(text)
            os.replace(beside, file)
