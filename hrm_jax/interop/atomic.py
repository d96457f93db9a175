"""Files and folders that appear whole or not at all."""

from collections.abc import Iterator
import contextlib
import os
import shutil
import tempfile


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[str]:
    """Gives a name beside ``path`` to write a file to, which then takes the place of ``path``.

    After an error the file under ``path`` is what it was before, and nothing else remains.
    """
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # Not mkstemp, whose files nobody but their owner may read.
    beside = f'{path}.tmp-{os.getpid()}'
    try:
        yield beside
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[str]:
    """Gives a folder beside ``path`` to fill, whose files then move into ``path``.

    Files of the same name in an existing ``path`` are replaced, others stay. After an error
    nothing has moved.
    """
    path = os.path.abspath(path)
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    beside = tempfile.mkdtemp(dir=parent, prefix=f'.{os.path.basename(path)}.tmp-')
    try:
        yield beside
        os.makedirs(path, exist_ok=True)
        for name in sorted(os.listdir(beside)):
            os.replace(os.path.join(beside, name), os.path.join(path, name))
    finally:
        shutil.rmtree(beside, ignore_errors=True)
