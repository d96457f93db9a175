"""Paths as people give them, and the one atomic writer: whole files and folders, or none."""

from collections.abc import Iterator
import contextlib
import json
import os
from pathlib import Path
import re
import shutil
from typing import Any, Literal

from hrm_jax import locks
from hrm_jax.errors import UserError

MAX_JSON_BYTES = 1 << 28  # the names of ARC's 876,412 puzzle identifiers take 22 MB
_SCHEME = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*):/')
_MAX_NAME = 255  # bytes of a name that file systems take
_MAX_PATH = 3800  # bytes, less than Linux takes, because more names follow


def expanded(path: str | os.PathLike, kind: type[UserError] = UserError) -> str:
    """Returns a path with its ``~`` expanded, which shells leave alone in ``--flag=~/x``.

    Raises:
      UserError: of the given kind; the ``~`` belongs to no user, and would become a folder of that
        name.
    """
    text = os.path.expanduser(os.fspath(path))
    kind.require(
        not re.match(r'~[^/]*(/|$)', text) or os.path.lexists(text),
        f'{os.fspath(path)!r} begins with the home folder of a user that this machine does not '
        f'know (is HOME set?). Give the folder itself.',
    )
    return text


def local_path(path: str | os.PathLike, what: str, kind: type[UserError] = UserError) -> Path:
    """Returns a path of this machine's disks that can be written, absolute, ``~`` expanded.

    Args:
      path: as it was given; ``file://`` is understood.
      what: names it in messages, e.g. ``--workdir``.
      kind: of the errors.

    Raises:
      UserError: of the given kind; the path is empty, on other storage, or has a name that
        cannot be saved.
    """
    text = os.fspath(path)
    kind.require(
        bool(text.strip()),
        f'{what} must name a folder or file; it is empty. Was a shell variable not set?',
    )
    text = text.removeprefix('file://')
    scheme = _SCHEME.match(text)
    kind.require(
        scheme is None,
        f'{what} must be on a disk of this machine; got {text!r}. Only checkpoints can be stored '
        f'elsewhere: --config.checkpoint.directory=gs://BUCKET/RUN',
    )
    text = os.path.abspath(expanded(text, kind))
    check_names(text, what, kind)
    return Path(text)


def check_names(path: str, what: str, kind: type[UserError] = UserError) -> None:
    """Checks that files below a path can be made, named in messages and recorded as UTF-8.

    Raises:
      UserError: of the given kind; which name cannot be saved.
    """
    control = [char for char in path if ord(char) < 32 or ord(char) == 127]
    kind.require(
        not control,
        f'{what} must not have control characters; got {path!r}. Choose another name.',
    )
    undecodable = any('\ud800' <= char <= '\udfff' for char in path)
    kind.require(not undecodable, f'{what} must be valid UTF-8; got {path!r}. Choose another name.')
    for name in path.split('/'):
        size = len(os.fsencode(name))
        kind.require(
            size <= _MAX_NAME,
            f'{what} must have names of at most {_MAX_NAME} bytes; {name[:40]}... has {size}.',
        )
    size = len(os.fsencode(path))
    kind.require(
        size <= _MAX_PATH,
        f'{what} must have at most {_MAX_PATH} bytes; {path[:40]}... has {size}.',
    )


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path beside ``path`` to write a file to, which then takes the place of ``path``.

    The bytes are on the disk before the name is: a reader or a crash sees the old file or the new
    one, whole. After an error ``path`` is what it was before, and nothing else remains.
    """
    path = Path(expanded(path)).absolute()
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
      locks.Held: another process is writing the same folder; it is named.
    """
    path = Path(expanded(path)).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old, lock_path = (
        path.parent / f'.{path.name}.{what}' for what in ('partial', 'old', 'lock')
    )
    with locks.exclusive(lock_path, 'file'):
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
    """Reads a UTF-8 text file, with or without a byte order mark.

    Raises:
      UserError: of the given kind; it is not UTF-8.
      OSError: it cannot be read.
    """
    try:
        return Path(expanded(path)).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise kind(f'{path} must be a text file in UTF-8; {error}.') from error


def visible(path: str | os.PathLike) -> bool:
    """Whether a file or folder is one that a user sees.

    Names that begin with a dot are not: ``._NAME`` is what macOS leaves beside NAME on foreign
    disks, and ``.ipynb_checkpoints`` has old copies of files.
    """
    return not Path(path).name.startswith('.')


def read_json(
    path: str | os.PathLike, kind: type[UserError] = UserError, want: type | None = None
) -> Any:
    """Reads a JSON file.

    Args:
      path: the file.
      kind: of the errors.
      want: type that the value must have, e.g. dict; None: any.

    Raises:
      UserError: of the given kind; it is not JSON (the place is named), of another type, or larger
        than any JSON file that this program reads.
      OSError: it cannot be read.
    """
    path = Path(expanded(path))
    with open(path, 'rb') as file:
        # Not read(): a sparse or damaged file may claim more than the memory holds.
        size = os.fstat(file.fileno()).st_size
        kind.require(
            size <= MAX_JSON_BYTES,
            f'{path} must have at most {MAX_JSON_BYTES:,} bytes; it has {size:,}.',
        )
        return parse_json(file.read(), path, kind, want)


def parse_json(
    text: str | bytes, where: Any, kind: type[UserError] = UserError, want: type | None = None
) -> Any:
    """Parses JSON; the errors are those of ``read_json``.

    Args:
      text: what is parsed; bytes are UTF-8, with or without a byte order mark.
      where: names its place in messages.
      kind, want: as in ``read_json``.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):  # of equal keys only the last would remain
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise kind(f'{where} must have every key once; {shown(twice)} occurs again.')
        return values

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except kind:
        raise
    except RecursionError:
        raise kind(
            f'{where} must be JSON of few levels; it is nested too deep to be read.'
        ) from None
    except ValueError as error:
        raise kind(f'{where} must be JSON; {error}.') from None
    if want is not None and not isinstance(value, want):
        names = {dict: 'an object', list: 'a list', str: 'a text'}
        raise kind(f'{where} must be JSON with {names[want]}; got {shown(value)}.')
    return value


def shown(value: Any) -> str:
    """Returns a JSON value for a message: short, whatever its size and depth."""
    if isinstance(value, dict):
        return f'an object with {len(value)} keys'
    if isinstance(value, list | tuple):
        return f'a list of {len(value)} values'
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 70 else f'{text[:70]}...'
