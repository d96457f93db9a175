"""Places of checkpoints: local folders and gs://, written as people write them.

orbax and tensorstore glob the paths that they get, and take a backslash for a slash: in a folder
with such characters a save ends without an error and cannot be read. They are given a link of
plain characters there (``plain``).
"""

from collections.abc import Iterator
import contextlib
import hashlib
import os
from pathlib import Path
import re
import tempfile
from typing import cast

from etils import epath

from hrm_jax import files
from hrm_jax.errors import CheckpointError

# What orbax writes to besides local disks.
SCHEMES = ('gs',)
_MARK = 'commit_success.txt'  # orbax's last object of a checkpoint on object storage
_SCHEME = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*):/')
_SPECIAL = re.compile(r'[*?\[\]\\]|[^\x20-\x7e]')


def as_path(text: str | os.PathLike) -> Path:
    """Returns a path with ``~`` expanded; of etils, with the same methods, for gs://.

    Raises:
      CheckpointError: storage that cannot be written, or no path at all.
    """
    text = os.fspath(text)
    if not text.strip():
        raise CheckpointError('the path of a checkpoint must not be empty.')
    text = text.removeprefix('file://')
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Path(files.expanded(text))
    if scheme[1] not in SCHEMES or not text.startswith(f'{scheme[0]}/'):
        raise CheckpointError(
            f'checkpoints are stored on local disks or under gs://BUCKET/...; got {text!r}.'
        )
    return cast(Path, epath.Path(text))


def absolute(path: Path) -> Path:
    """What orbax asks for; other storage has no relative paths."""
    return path if '://' in str(path) else path.absolute()


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is on object storage, which renames nothing and has no folders."""
    return '://' in os.fspath(path)


def check_installed(path: Path) -> None:
    """Raises CheckpointError where the package for a kind of storage is missing."""
    try:
        path.exists()
    except ImportError as error:
        raise CheckpointError(
            f'checkpoint.directory={path} needs a package for that storage: {error}.'
        ) from error


def files_below(folder: Path) -> Iterator[Path]:
    """Yields all files below a folder, sorted by name within each folder."""
    for path in sorted(folder.iterdir(), key=lambda one: one.name):
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def move(folder: Path, target: Path) -> None:
    """Moves a checkpoint; on object storage object by object.

    There the mark of a whole checkpoint is copied last and deleted first. So a process that dies in
    between leaves a whole checkpoint at one of the places, or at both.
    """
    if not is_remote(folder):
        folder.rename(target)
        return
    paths = sorted(files_below(folder), key=lambda path: path == folder / _MARK)
    for path in paths:
        new = target / path.relative_to(folder)
        new.parent.mkdir(parents=True, exist_ok=True)
        path.copy(new, overwrite=True)  # pyright: ignore[reportAttributeAccessIssue] # etils'
    for path in reversed(paths):
        path.unlink(missing_ok=True)


def near(path: str, run: Path, has: str = '*/dataset.json') -> str:
    """Finds a folder that a run recorded, from any folder and after the run was moved.

    Args:
      path: as recorded: absolute, or relative to the folder in which the run was started.
      run: folder of the run, or a checkpoint in it.
      has: pattern of what a folder must have to be the one that is looked for.

    Returns:
      ``path`` where it is absolute and exists; else a folder seen from the run or one of the
      folders above it; else, where there is none, ``path`` as it came.
    """
    if not path or '://' in path or not isinstance(run, Path):
        return path
    given, run = Path(os.path.expanduser(path)), run.absolute()
    if given.is_absolute() and given.exists():
        return str(given)
    parts = given.parts[1:] if given.is_absolute() else given.parts
    # Of an absolute path that is gone its ending: /old/place/runs/mine/dataset -> dataset.
    endings = [parts[k:] for k in range(len(parts))] if given.is_absolute() else [parts]
    for ending in endings:
        for base in (run, *run.parents):
            found = base.joinpath(*ending)
            if ending and any(found.glob(has)):
                return str(found)
    return str(given.absolute()) if given.exists() else path


def plain(folder: Path) -> Path:
    """Returns a path to an existing folder that orbax and tensorstore take as it is.

    The folder itself, or a link to it in the folder for temporary files.

    Raises:
      CheckpointError: no such link can be made.
    """
    folder = absolute(folder)
    if '://' in str(folder) or not _SPECIAL.search(str(folder)):
        return folder
    name = hashlib.blake2b(os.fsencode(folder), digest_size=12).hexdigest()
    problem = 'the folders for temporary files have such characters too'
    for place in _link_folders():
        link = place / name / folder.name if not _SPECIAL.search(folder.name) else place / name
        try:
            link.parent.mkdir(exist_ok=True, mode=0o700)
            if not link.is_symlink() or os.readlink(link) != str(folder):
                beside = link.with_name(f'{link.name}.{os.getpid()}')
                beside.unlink(missing_ok=True)
                beside.symlink_to(folder)
                beside.replace(link)
            return link
        except OSError as error:
            problem = f'{link.parent}: {error.strerror}'
    raise CheckpointError(
        f'the path {folder} has characters that the storage library takes for a pattern '
        f'([ ] * ? or a backslash, or other than ASCII), and no link to it can be made '
        f'({problem}). Choose a path without them.'
    )


def _link_folders() -> Iterator[Path]:
    """Folders of this user alone, whose paths have plain characters."""
    for base in dict.fromkeys((tempfile.gettempdir(), '/tmp', '/dev/shm', '/var/tmp')):
        folder = Path(base) / f'hrm_jax-links-{os.getuid()}'
        if _SPECIAL.search(str(folder)):
            continue
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            facts = folder.lstat()
            # Not a link or folder that somebody else has put there.
            if facts.st_uid == os.getuid() and not folder.is_symlink():
                yield folder
