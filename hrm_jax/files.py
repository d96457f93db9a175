"""The one atomic writer: files and folders that appear whole or not at all."""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
from pathlib import Path
import shutil
from typing import Any, Literal

from hrm_jax.errors import UserError


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path beside ``path`` to write a file to, which then takes the place of ``path``.

    The bytes are on the disk before the name is: a reader or a crash sees the old file or the new
    one, whole. After an error ``path`` is what it was before, and nothing else remains.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same suffix, by which some writers choose a format; not mkstemp, whose files nobody but
    # their owner may read.
    beside = path.with_name(f'.{path.stem}.{os.getpid()}.tmp{path.suffix}')
    try:
        yield beside
        with open(beside, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Replaces a UTF-8 text file as a whole."""
    with replacing(path) as beside:
        beside.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def new_folder(
    path: str | os.PathLike, existing: Literal['refuse', 'replace', 'add'] = 'refuse'
) -> Iterator[Path]:
    """Yields a folder beside ``path`` (of the same name) to fill, which then takes its place.

    After an error, or when the process is killed, ``path`` is what it was before; what a killed
    process left behind is removed by the next one.

    Args:
      path: the folder.
      existing: what to do with a folder of this name: refuse, replace it as a whole, or add the
        new files to it (files of the same name are replaced).

    Raises:
      FileExistsError: there is one, and ``existing`` is ``refuse``.
      BlockingIOError: another process is writing the same folder.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old, lock_path = (
        path.parent / f'.{path.name}.{what}' for what in ('partial', 'old', 'lock')
    )
    with lock_path.open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            if old.exists() and not path.exists():
                old.rename(path)  # a process was killed between its last two steps
            for left in (partial, old):
                shutil.rmtree(left, ignore_errors=True)
            if existing == 'refuse' and path.exists():
                raise FileExistsError(f'{path} exists already')
            folder = partial / path.name
            folder.mkdir(parents=True)
            yield folder
            if existing == 'add' and path.exists():
                for file in sorted(folder.iterdir()):
                    os.replace(file, path / file.name)
            else:
                if path.exists():
                    path.rename(old)
                folder.rename(path)
                shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            lock_path.unlink(missing_ok=True)


def read_text(path: str | os.PathLike, kind: type[UserError] = UserError) -> str:
    """Reads a UTF-8 text file.

    Raises:
      UserError: of the given kind; it is not UTF-8.
      OSError: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise kind(f'{path} must be a text file in UTF-8; {error}.') from error


def read_json(path: str | os.PathLike, kind: type[UserError] = UserError) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: of the given kind; it is not JSON (the place is named).
      OSError: it cannot be read.
    """
    try:
        return json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError as error:
        raise kind(f'{path} must be a JSON file; {error}.') from error
