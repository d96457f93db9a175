"""Builder of custom data sets: questions and answers from CSV or JSON lines, no Python needed.

CSV: a header with ``question`` and ``answer`` and, optionally, ``puzzle``. A cell is one
character; rows of a grid are separated by ``/`` (``..#/S.G``). With --words a cell is a word,
and words are separated by spaces (``3 14 15/9 2 6``).

JSON lines: one object per line with ``question``, ``answer`` and, optionally, ``puzzle``; the
values are strings as above, lists, or lists of rows.

Every different character, word or number becomes a token; smaller grids are padded. Records
with the same ``puzzle`` (a rule, a theme) share a learned vector; without it all records do.
"""

import csv
import dataclasses
import gzip
import json
import pathlib
import time
from typing import Any, Literal

import numpy as np

from data_builders import leaks, sources, writing
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax.data.puzzles import BLANK_NAME, PuzzleSet
from hrm_jax.errors import BuildError

SUFFIXES = ('.csv', '.csv.gz', '.jsonl', '.jsonl.gz')
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


@settings
class Options(WriterOptions):
    """Settings of a custom data set."""

    seed: int = option(0, help='seed of the split of a single file')
    source: str = option(help='folder with train and test files, or a single file')
    test_fraction: float = option(0.1, help='share of a single file that is held out for testing')
    words: bool = option(False, help='cells are words separated by spaces, not characters')
    transform: Literal['none', 'dihedral'] = option(
        'none', help="'dihedral': a rotated or mirrored puzzle is a puzzle of the same task"
    )
    aug: bool = option(False, help='store the 8 dihedral versions of each training record')
    name: str = option('custom', help='name of the task')
    allow_leaks: bool = option(False, help=leaks.ALLOW_HELP)


@with_settings(Options)
def build(output_dir: str, options: Options) -> dict[str, Any]:
    """Builds a data set of a user's own records and returns its manifest.

    Args:
      output_dir: folder to make.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: a malformed record (file and number are named), leaks, or an output in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    records, origin = _read_splits(
        options.source, options.test_fraction, options.words, options.seed
    )
    every = [record for part in records.values() for record in part]
    height, width = _canvas(every)
    vocabulary = _vocabulary(every)
    turns = options.transform == 'dihedral'
    BuildError.require(
        not turns or height == width,
        f'--transform dihedral needs square grids; the largest is {height} x {width}.',
    )
    BuildError.require(not options.aug or turns, '--aug needs --transform dihedral.')
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
        puzzles = _puzzles(*rows[split], ids, options.aug and split == 'train')
        splits[split] = writing.one_set(
            puzzles, num_puzzle_identifiers=len(names), vocab_size=len(vocabulary) + 1,
            task=options.name, transform=options.transform,
        )  # fmt: skip
    report = leaks.exact_report(rows['train'], rows['test'])
    leaks.refuse(report, options.allow_leaks)

    def write_names(folder: pathlib.Path) -> None:
        (folder / 'vocab.json').write_text(json.dumps({'<pad>': 0, **vocabulary}))
        (folder / 'identifiers.json').write_text(json.dumps(names))

    return writing.write_dataset(
        output, options.name, splits, options, sources=origin, started=started,
        notes={'leaks': report, 'grid': [height, width]}, also=write_names,
    )  # fmt: skip


def _puzzles(inputs, labels, ids: np.ndarray, aug: bool) -> PuzzleSet:
    """Returns records grouped by puzzle; without puzzles each record is a group of its own."""
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
      BuildError: it does not exist, or the folder does not have one file for each split.
    """
    path = pathlib.Path(source).expanduser()
    files = {}
    if path.is_dir():
        for split in ('train', 'test'):
            found = [path / f'{split}{s}' for s in SUFFIXES if (path / f'{split}{s}').is_file()]
            BuildError.require(
                len(found) == 1,
                f'{path} must have one file {split} with one of the endings '
                f'{", ".join(SUFFIXES)}; it has {len(found)}.',
            )
            files[split] = found[0]
        return files
    BuildError.require(
        path.is_file(), f'--source {source} does not exist. Give a folder or a file.'
    )
    return {'': path}


def _read_splits(source: str, test_fraction: float, words: bool, seed: int) -> tuple[dict, list]:
    files = source_files(source)
    origin = [sources.fingerprint(file) for file in files.values()]
    if '' not in files:
        return {split: read_records(file, words) for split, file in files.items()}, origin
    every = read_records(files[''], words)
    count = round(len(every) * test_fraction)
    BuildError.require(
        0 < count < len(every),
        f'--test-fraction {test_fraction} of {len(every)} records must leave records on both '
        f'sides.',
    )
    order = np.random.default_rng(seed).permutation(len(every))
    parts = {'train': np.sort(order[count:]), 'test': np.sort(order[:count])}
    return {split: [every[k] for k in chosen] for split, chosen in parts.items()}, origin


def read_records(path: pathlib.Path, words: bool = False) -> list[Record]:
    """Reads a CSV or JSON-lines file; ``words``: strings are words separated by spaces.

    Raises:
      BuildError: an unknown ending, missing fields, ragged grids; names file and record.
    """
    BuildError.require(
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
                    BuildError.require(
                        values.get(field) not in (None, '', []),
                        f'{where} must have {"an answer" if field == "answer" else "a question"}.',
                    )
                    grids.append(_grid(values[field], words, f'{where}, {field}'))
                puzzle = values.get('puzzle')
                puzzle = '' if puzzle is None else str(puzzle)
                records.append(Record(*grids, puzzle, where))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise BuildError(f'{path} cannot be read: {error}') from None
    BuildError.require(bool(records), f'{path} has no records.')
    return records


def _csv_objects(file, path: pathlib.Path):
    reader = csv.DictReader(file)
    header = reader.fieldnames or []
    BuildError.require(
        {'question', 'answer'} <= set(header),
        f'{path} must have the columns question and answer in its first line; got '
        f'{",".join(header)[:120] or "nothing"}.',
    )
    for number, row in enumerate(reader, start=1):
        BuildError.require(
            None not in row and None not in row.values(),
            f'{path}, record {number}: {len(header)} columns are needed.',
        )
        yield row


def _json_objects(file, path: pathlib.Path):
    for number, line in enumerate(filter(str.strip, file), start=1):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise BuildError(f'{path}, record {number} is not JSON: {error}') from None
        BuildError.require(
            isinstance(values, dict), f'{path}, record {number} must be a JSON object.'
        )
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
    BuildError.require(bool(grid[0]), f'{where} must not be empty.')
    BuildError.require(
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
    BuildError.require(
        len(words) < 65536, f'there are {len(words)} different tokens; at most 65535 fit.'
    )
    return {token: k for k, token in enumerate(sorted(words), start=1)}
