"""Huge pages for the arrays of a CPU: 2 MB at a time from Linux in place of 4 kB.

XLA asks the C library for the memory of a step and gives it back at the end; touched anew, its
pages then take up to a quarter of a step. With large pages that are kept they take next to nothing.
The C library reads how it is to ask for memory before Python starts, so a command that trains
starts itself again, once, with ``GLIBC_TUNABLES``. Numbers do not change.
"""

from collections.abc import Iterable, Mapping
import contextlib
import os
from pathlib import Path
import platform
import sys

VARIABLE = 'GLIBC_TUNABLES'
_KEPT = 2**31  # bytes up to which memory is asked for once and kept for the next step
# One arena: those of other threads than the first give large memory back at once.
TUNABLES = (
    f'glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold={_KEPT}'
    f':glibc.malloc.trim_threshold={_KEPT}'
)
_SETTING = Path('/sys/kernel/mm/transparent_hugepage/enabled')
_ACCELERATORS = ('nvidia[0-9]*', 'kfd', 'accel[0-9]*', 'vfio/[0-9]*')  # in /dev: GPUs, TPUs
_FIRST_VERSION = (2, 35)  # of glibc that knows glibc.malloc.hugetlb


def pay(
    environment: Mapping[str, str] = os.environ,
    setting: Path = _SETTING,
    devices: Path = Path('/dev'),
    library: Iterable[str] | None = None,
) -> bool:
    """Whether a process of these surroundings would be faster with ``TUNABLES``.

    Args:
      environment: its variables; a ``GLIBC_TUNABLES`` of the user's, also an empty one, stays.
      setting: where Linux says who gets huge pages: those who ask (madvise), all or nobody.
      devices: where GPUs and TPUs would be, which compute in memory of their own.
      library: name and version of the C library.
    """
    if VARIABLE in environment:
        return False
    name, version = platform.libc_ver() if library is None else library
    numbers = tuple(int(part) for part in version.split('.')[:2] if part.isdecimal())
    if name != 'glibc' or numbers < _FIRST_VERSION:
        return False
    platforms = environment.get('JAX_PLATFORMS', '')
    if platforms and not platforms.startswith('cpu'):
        return False
    if not platforms and any(any(devices.glob(pattern)) for pattern in _ACCELERATORS):
        return False
    try:
        return '[madvise]' in setting.read_text()
    except OSError:
        return False


def are_ours(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process was started again by ``start_with_them``, or by one that was."""
    return environment.get(VARIABLE) == TUNABLES


def start_with_them() -> None:
    """Starts this command again with ``TUNABLES`` where they pay; else returns.

    To be called by a program's own start alone, before it has done anything.
    """
    if not pay() or not sys.executable or sys.gettrace() is not None:
        return
    sys.stdout.flush()
    with contextlib.suppress(OSError):  # then it goes on as it is
        os.execve(
            sys.executable,
            [sys.executable, *sys.orig_argv[1:]],
            {**os.environ, VARIABLE: TUNABLES},
        )
