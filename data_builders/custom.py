"""A task of one's own: questions and answers from CSV or JSON lines, no Python needed.

CSV: a header with ``question`` and ``answer`` and, if wanted, ``puzzle``. A cell is one
character; rows of a grid are parted by ``/`` (``..#/S.G``). With --words a cell is a word and
spaces part them (``3 14 15/9 2 6``).

JSON lines: one object per line with ``question``, ``answer`` and perhaps ``puzzle``; the values
are strings as above, lists, or lists of rows.

Every different character, word or number becomes a token; smaller grids are padded. Records
with the same ``puzzle`` (a rule, a theme) share a learned vector; without it all records do.
"""

import argparse
import csv
import dataclasses
import gzip
import json
import pathlib
import time
from typing import Any

import numpy as np

from data_builders import leaks, sources, writing
from data_builders.errors import BuildError, require
from hrm_jax.data.puzzles import BLANK_NAME, PuzzleSet

SUFFIXES = ('.csv', '.csv.gz', '.jsonl', '.jsonl.gz')
TRANSFORMS = ('none', 'dihedral')
EXAMPLES = """examples:
  python -m data_builders custom --output-dir data/mine --source FOLDER
  python -m data_builders custom --output-dir data/mine --source puzzles.jsonl \\
      --test-fraction 0.1 --transform dihedral --aug

FOLDER holds train.csv and test.csv (or .csv.gz, .jsonl, .jsonl.gz).
Then: python -m hrm_jax.main --config=configs/custom.py --config.data.path=data/mine --workdir=DIR
"""


@dataclasses.dataclass(frozen=True)
class Record:
    """One example as text: grids are tuples of rows, rows tuples of tokens."""

    question: tuple[tuple[str, ...], ...]
    answer: tuple[tuple[str, ...], ...]
    puzzle: str
    where: str


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``build``, under their names."""
    parser.add_argument('--source', required=True, help='folder with train and test, or one file')
    parser.add_argument(
        '--test-fraction', type=float, default=0.1,
        help='share of a single file that is held out (default: 0.1)',
    )  # fmt: skip
    parser.add_argument('--words', action='store_true', help='cells are words, not characters')
    parser.add_argument('--transform', choices=TRANSFORMS, default='none',
                        help='dihedral: square grids may be turned and mirrored')  # fmt: skip
    parser.add_argument('--aug', action='store_true', help='store all 8 turned versions')
    parser.add_argument('--name', default='custom', help='name of the task')
    leaks.add_flag(parser)


def build(
    output_dir: str,
    *,
    source: str,
    seed: int = 0,
    test_fraction: float = 0.1,
    words: bool = False,
    transform: str = 'none',
    aug: bool = False,
    name: str = 'custom',
    allow_leaks: bool = False,
    overwrite: bool = False,
    show: bool = True,
) -> dict[str, Any]:
    """Builds a data set of a user's own records and returns its manifest.

    Args:
      output_dir: folder to make.
      source: folder with train and test files, or one file.
      seed: seed of the split of a single file.
      test_fraction: share of a single file that is held out.
      words: strings hold words parted by spaces, one per cell.
      transform: 'dihedral' when a turned puzzle is a puzzle of the same task.
      aug: store the 8 turned versions of each training record.
      name: name of the task.
      allow_leaks: build even when test records occur in training.
      overwrite: replace an existing data set.
      show: show progress and a summary.

    Raises:
      BuildError: a malformed record (file and number are named), leaks, or an output in use.
    """
    started = time.monotonic()
    options = {k: v for k, v in locals().items()
               if k not in ('output_dir', 'overwrite', 'show', 'started', 'seed')}  # fmt: skip
    output = writing.check_output(output_dir, overwrite)
    records, origin = _read_splits(source, test_fraction, words, seed)
    every = [record for part in records.values() for record in part]
    height, width = _canvas(every)
    vocabulary = _vocabulary(every)
    require(
        transform == 'none' or height == width,
        f'--transform dihedral needs square grids; the largest is {height} x {width}.',
    )
    require(not aug or transform != 'none', '--aug needs --transform dihedral.')
    names = [BLANK_NAME, *sorted({record.puzzle for record in every} - {''})]
    number = {'': 0, **{puzzle: k for k, puzzle in enumerate(names[1:], start=1)}}
    splits, rows = {}, {}
    for split, part in records.items():
        dtype = np.uint8 if len(vocabulary) < 256 else np.uint16
        inputs, labels = np.zeros((2, len(part), height, width), dtype)
        for k, record in enumerate(part):
            for cells, grid in ((inputs, record.question), (labels, record.answer)):
                ids = [[vocabulary[token] for token in row] for row in grid]
                cells[k, : len(ids), : len(ids[0])] = ids
        rows[split] = inputs.reshape(len(part), -1), labels.reshape(len(part), -1)
        ids = np.array([number[record.puzzle] for record in part], np.int32)
        puzzles = _puzzles(*rows[split], ids, aug and split == 'train')
        splits[split] = writing.one_set(
            puzzles, num_puzzle_identifiers=len(names), vocab_size=len(vocabulary) + 1,
            task=name, transform=transform,
        )  # fmt: skip
    report = leaks.exact_report(rows['train'], rows['test'])
    leaks.refuse(report, allow_leaks)

    def write_names(folder: pathlib.Path) -> None:
        (folder / 'vocab.json').write_text(json.dumps({'<pad>': 0, **vocabulary}))
        (folder / 'identifiers.json').write_text(json.dumps(names))

    return writing.write_dataset(
        output, name, splits, sources=origin, seed=seed, options=options, started=started,
        notes={'leaks': report, 'grid': [height, width]}, show=show, also=write_names,
    )  # fmt: skip


def _puzzles(inputs, labels, ids: np.ndarray, aug: bool) -> PuzzleSet:
    """Groups records of one puzzle, or leaves each record a group of its own."""
    if not ids.any():
        puzzles = PuzzleSet.of_examples(inputs, labels)
        if not aug:
            return puzzles
        return _turned(puzzles, np.arange(len(ids) + 1))
    order = np.argsort(ids, kind='stable')
    values, starts = np.unique(ids[order], return_index=True)
    bounds = np.append(starts, len(ids))
    puzzles = PuzzleSet(
        inputs=inputs[order],
        labels=labels[order],
        group_indices=np.arange(len(values) + 1),
        puzzle_indices=bounds,
        puzzle_first=bounds[:-1],
        puzzle_identifiers=values.astype(np.int32),
    )
    return _turned(puzzles, bounds) if aug else puzzles


def _turned(puzzles: PuzzleSet, bounds: np.ndarray) -> PuzzleSet:
    groups = len(bounds) - 1
    return dataclasses.replace(
        puzzles,
        group_indices=np.arange(groups + 1) * 8,
        puzzle_indices=np.append(0, np.cumsum(np.repeat(np.diff(bounds), 8))),
        puzzle_first=np.repeat(bounds[:-1], 8),
        puzzle_identifiers=np.repeat(puzzles.puzzle_identifiers, 8),
        maps=np.tile(np.arange(8, dtype=np.uint8), groups)[:, None],
    )


def source_files(source: str) -> dict[str, pathlib.Path]:
    """Returns the files of a source: 'train' and 'test' of a folder, or '' for a single file.

    Raises:
      BuildError: it is not there, or the folder has not one file for each split.
    """
    path = pathlib.Path(source).expanduser()
    files = {}
    if path.is_dir():
        for split in ('train', 'test'):
            found = [path / f'{split}{s}' for s in SUFFIXES if (path / f'{split}{s}').is_file()]
            require(
                len(found) == 1,
                f'{path} must hold one file {split} with one of the endings '
                f'{", ".join(SUFFIXES)}; it has {len(found)}.',
            )
            files[split] = found[0]
        return files
    require(path.is_file(), f'--source {source} does not exist. Give a folder or a file.')
    return {'': path}


def _read_splits(source: str, test_fraction: float, words: bool, seed: int) -> tuple[dict, list]:
    files = source_files(source)
    origin = [sources.fingerprint(file) for file in files.values()]
    if '' not in files:
        return {split: read_records(file, words) for split, file in files.items()}, origin
    every = read_records(files[''], words)
    count = round(len(every) * test_fraction)
    require(
        0 < count < len(every),
        f'--test-fraction {test_fraction} of {len(every)} records must leave records on both '
        f'sides.',
    )
    order = np.random.default_rng(seed).permutation(len(every))
    parts = {'train': np.sort(order[count:]), 'test': np.sort(order[:count])}
    return {split: [every[k] for k in chosen] for split, chosen in parts.items()}, origin


def read_records(path: pathlib.Path, words: bool = False) -> list[Record]:
    """Reads a CSV or JSON-lines file; ``words``: strings are words parted by spaces.

    Raises:
      BuildError: an unknown ending, missing fields, ragged grids; names file and record.
    """
    require(
        path.name.endswith(SUFFIXES),
        f'{path} must have one of the endings {", ".join(SUFFIXES)}.',
    )
    opener = gzip.open if path.name.endswith('.gz') else open
    records = []
    try:
        with opener(path, 'rt', newline='', encoding='utf-8-sig') as file:
            parse = _csv_objects if '.csv' in path.suffixes else _json_objects
            for number, values in enumerate(parse(file, path), start=1):
                where = f'{path}, record {number}'
                grids = []
                for field in ('question', 'answer'):
                    require(
                        values.get(field) not in (None, '', []),
                        f'{where} must have a {field}.',
                    )
                    grids.append(_grid(values[field], words, f'{where}, {field}'))
                puzzle = values.get('puzzle')
                puzzle = '' if puzzle is None else str(puzzle)
                records.append(Record(*grids, puzzle, where))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BuildError(f'{path} cannot be read: {error}') from None
    require(bool(records), f'{path} has no records.')
    return records


def _csv_objects(file, path: pathlib.Path):
    reader = csv.DictReader(file)
    header = reader.fieldnames or []
    require(
        {'question', 'answer'} <= set(header),
        f'{path} must have the columns question and answer in its first line; got '
        f'{",".join(header)[:120] or "nothing"}.',
    )
    for number, row in enumerate(reader, start=1):
        require(
            None not in row and None not in row.values(),
            f'{path}, record {number}: {len(header)} columns are needed.',
        )
        yield row


def _json_objects(file, path: pathlib.Path):
    for number, line in enumerate(filter(str.strip, file), start=1):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise BuildError(f'{path}, record {number} is no JSON: {error}') from None
        require(isinstance(values, dict), f'{path}, record {number} must be a JSON object.')
        yield values


def _grid(value: Any, words: bool, where: str) -> tuple[tuple[str, ...], ...]:
    if isinstance(value, str):
        rows = value.split('/')
        grid = [tuple(row.split()) if words else tuple(row) for row in rows]
    elif isinstance(value, list) and all(isinstance(row, list) for row in value):
        grid = [tuple(map(str, row)) for row in value]
    elif isinstance(value, list):
        grid = [tuple(map(str, value))]
    else:
        raise BuildError(f'{where} must be a string, a list, or a list of rows.')
    require(bool(grid[0]), f'{where} must not be empty.')
    require(
        len({len(row) for row in grid}) == 1,
        f'{where}: all rows of a grid must have one length; got '
        f'{sorted({len(row) for row in grid})}.',
    )
    return tuple(grid)


def _canvas(records: list[Record]) -> tuple[int, int]:
    grids = [grid for record in records for grid in (record.question, record.answer)]
    return max(len(grid) for grid in grids), max(len(grid[0]) for grid in grids)


def _vocabulary(records: list[Record]) -> dict[str, int]:
    words = {
        token
        for record in records
        for grid in (record.question, record.answer)
        for row in grid
        for token in row
    }
    require(len(words) < 65536, f'there are {len(words)} different tokens; at most 65535 fit.')
    return {token: k for k, token in enumerate(sorted(words), start=1)}
