"""Builder of custom data sets: questions and answers from CSV or JSON lines, no Python needed.

CSV: a header with ``question`` and ``answer`` and, optionally, ``puzzle``. Every character of a
cell is a symbol, ``/``, ``*`` and blanks included. Line breaks within a quoted cell separate the
rows of a grid; without them a puzzle is a text. --rows=/ names other characters that separate rows
(``..#/S.G``), --blank=0._* characters that all mean an empty cell. With --words a cell is a word,
and words are separated by blanks (``3 14 15``).

JSON lines: one object per line with ``question``, ``answer`` and, optionally, ``puzzle``; the
values are texts as above, lists, or lists of rows.

Every different character, word or number becomes a token; smaller puzzles are padded. Records with
the same ``puzzle`` (a rule, a theme) share a learned vector; without it all records do. The build
ends with how the records were read, and one of them drawn from the stored tokens.
"""

import dataclasses
import json
import pathlib
import sys
import time
from typing import Any, Literal

import numpy as np

from data_builders import custom_records, holdout, leaks, sources, tables, writing
from data_builders.custom_records import Record
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax.data import text
from hrm_jax.data.names import BLANK_NAME, IDENTIFIERS, VOCABULARY, check_file_name
from hrm_jax.data.puzzles import PuzzleSet
from hrm_jax.errors import BuildError, PuzzleError
from hrm_jax.tasks import TASKS

EXAMPLES = """examples:
  python -m data_builders custom --output-dir data/mine --source FOLDER
  python -m data_builders custom --output-dir data/mine --source puzzles.jsonl \\
      --test-fraction 0.1 --transform dihedral --aug
  python -m data_builders custom --output-dir data/mine --source boards.csv --rows=/ --blank=0._*

FOLDER has train.csv and test.csv (or .csv.gz, .jsonl, .jsonl.gz), or a single file.
Then: python -m hrm_jax.main --config=configs/custom.py --config.data.path=data/mine --workdir=DIR
"""
_MOST_CELLS = 1 << 20  # of a puzzle, as of every data set
_DRAWN = (12, 72)  # rows and columns of the example that is shown


@settings
class Options(WriterOptions):
    """Settings of a custom data set."""

    seed: int = option(0, help='seed of the split of a single file')
    source: str = option(help='folder with train and test files, or a single file')
    test_fraction: float = option(0.1, help=holdout.FRACTION_HELP)
    words: bool = option(False, help='cells are words separated by blanks, not characters')
    rows: str = option(
        '', help="characters that separate rows, beside line breaks, e.g. '/'", unset='none'
    )
    blank: str = option(
        '', help="characters of an empty cell, e.g. '0._*'; the first is stored", unset='none'
    )
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
      BuildError: a malformed record (file and number are named), puzzles in several notations,
        leaks, or an output in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    turns = options.transform == 'dihedral'
    BuildError.require(not options.aug or turns, '--aug needs --transform dihedral.')
    check_file_name(options.name, '--name', BuildError)
    BuildError.require(
        options.name not in TASKS,
        f'--name must not be {", ".join(TASKS)}: their tokens have another meaning. Use the '
        f'builder of that name, or another --name.',
    )
    files = tables.files_of(options.source, custom_records.SUFFIXES)
    form = _form(options)
    parts = {split: custom_records.read(file, form) for split, file in files.items()}
    origin = [sources.fingerprint(file) for file in files.values()]
    return write(output, parts, form, options, started, origin)


def write(
    output: pathlib.Path,
    parts: dict[str, list[Record]],
    form: text.Form,
    options: Options,
    started: float,
    origin: list[dict[str, Any]],
    notes: dict[str, Any] | None = None,
    recorded: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes records as a data set and returns its manifest.

    Args:
      output: from ``writing.check_output``.
      parts: records of 'train' and 'test', or of '', from which some are held out.
      form: how they are written.
      options: their name, symmetries, seed.
      started: ``time.monotonic()`` at the start of the build.
      origin: the manifest's sources.
      notes: more facts of the manifest.
      recorded: its options; None: those of ``options``.

    Raises:
      BuildError: puzzles in several notations, or leaks.
    """
    turns = options.transform == 'dihedral'
    every = [record for part in parts.values() for record in part]
    custom_records.check_shapes(every)
    reading = make_reading(every, custom_records.written_form(every, form))
    BuildError.require(
        not turns or reading.height == reading.width,
        f'--transform dihedral needs square grids; the largest is {reading.height} x '
        f'{reading.width}.',
    )
    cells = {split: _encoded(part, reading) for split, part in parts.items()}
    if '' in parts:
        keys = cells[''][0]
        keys = holdout.without_turns(keys, reading.width) if turns else holdout.as_bytes(keys)
        chosen = holdout.split(
            holdout.numbers_of(keys), options.test_fraction, options.seed, options.source
        )
        parts = {split: [every[k] for k in rows] for split, rows in chosen.items()}
        cells = {split: tuple(side[rows] for side in cells['']) for split, rows in chosen.items()}
    report = leaks.exact_report(cells['train'], cells['test'])
    leaks.refuse(report, options.allow_leaks)
    names = [BLANK_NAME, *sorted({record.puzzle for record in every} - {''})]
    number = {'': 0, **{puzzle: k for k, puzzle in enumerate(names[1:], start=1)}}
    # Where answers have the size of their questions, nobody has to learn it.
    sized = any(_size(record.question) != _size(record.answer) for record in every)
    splits = {}
    for split, part in parts.items():
        ids = np.array([number[record.puzzle] for record in part], np.int32)
        puzzles = _puzzles(*cells[split], ids, options.aug and split == 'train')
        splits[split] = writing.one_set(
            puzzles, num_puzzle_identifiers=len(names), vocab_size=len(reading.vocabulary) + 1,
            task=options.name, transform=options.transform, ignore_label_id=None if sized else 0,
        )  # fmt: skip

    def write_names(folder: pathlib.Path) -> None:
        (folder / VOCABULARY).write_text(json.dumps({text.PAD: 0, **reading.vocabulary}))
        (folder / IDENTIFIERS).write_text(json.dumps(names))
        (folder / text.READING).write_text(reading.to_json())

    manifest = writing.write_dataset(
        output, options.name, splits, options, started=started, also=write_names, sources=origin,
        notes={'leaks': report, 'grid': [reading.height, reading.width], **(notes or {})},
        recorded=recorded,
    )  # fmt: skip
    if options.show:
        print(describe(reading, every, parts['train'][0].where, cells['train']), file=sys.stderr)
    return manifest


def _form(options: Options) -> text.Form:
    try:
        return text.Form(options.words, options.rows, options.blank)
    except PuzzleError as error:
        raise BuildError(f'--rows, --blank, --words: {error}') from None


def make_reading(records: list[Record], form: text.Form) -> text.Reading:
    """Returns the canvas that all puzzles fit on, with their vocabulary.

    Raises:
      BuildError: the memory is too small for it, or there are too many tokens.
    """
    sizes = [
        (len(grid), len(grid[0]), record.where) for record in records for _, grid in record.sides()
    ]
    tallest, widest = (max(sizes, key=lambda one, k=k: one[k]) for k in (0, 1))
    height, width = tallest[0], widest[1]
    what = (
        f'{tallest[2]} has {height:,} rows and {widest[2]} has {width:,} columns, which makes a '
        f'canvas of {height * width:,} cells for each of {len(records):,} records. Leave such '
        f'records out. It'
    )
    BuildError.require(
        height * width <= _MOST_CELLS,
        f'{what} must have at most {_MOST_CELLS:,} cells.',
    )
    # Two arrays of at most 2 bytes a cell, checked before they are made.
    writing.require_memory(4 * len(records) * height * width, what)
    return text.Reading(form, height, width, custom_records.vocabulary(records))


def _size(grid: text.Grid) -> tuple[int, int]:
    return len(grid), len(grid[0])


def _encoded(records: list[Record], reading: text.Reading) -> tuple[np.ndarray, np.ndarray]:
    dtype = np.uint8 if len(reading.vocabulary) < 256 else np.uint16
    inputs, labels = np.zeros((2, len(records), reading.height * reading.width), dtype)
    for k, record in enumerate(records):
        inputs[k], labels[k] = reading.encode(record.question), reading.encode(record.answer)
    return inputs, labels


def describe(
    reading: text.Reading,
    records: list[Record],
    first: str,
    cells: tuple[np.ndarray, np.ndarray],
) -> str:
    """Returns how the records were read, with the first of ``cells`` drawn from its tokens."""
    lengths = [len(grid[0]) for record in records for _, grid in record.sides()]
    unit = 'words' if reading.form.words else 'characters'
    if reading.kind == 'text':
        what = f'texts of {min(lengths)} to {max(lengths)} {unit}'
    else:
        what = f'grids of up to {reading.height} rows and {reading.width} columns of {unit}'
    lines = [
        f'read as {what}; {len(reading.vocabulary)} tokens: {reading.symbols()}',
        f'  {first}:',
    ]
    for name, side in zip(('question', 'answer'), cells, strict=True):
        rows = reading.decode(side[0]).split('\n')
        shown = [row[: _DRAWN[1]] + ' ...' * (len(row) > _DRAWN[1]) for row in rows[: _DRAWN[0]]]
        shown += ['...'] * (len(rows) > _DRAWN[0])
        lines += [f'  {name if k == 0 else "":8}  |{row}' for k, row in enumerate(shown)]
    if reading.kind == 'text' and all(map(_looks_like_rows, records)):
        lines.append(
            'Between the / of every puzzle stand rows of one length. If they are rows, build with '
            '--rows=/.'
        )
    return '\n'.join(lines)


def _looks_like_rows(record: Record) -> bool:
    """Whether ``/`` divides both sides of a record into rows of one length."""
    for _, grid in record.sides():
        rows = ''.join(grid[0]).split('/')
        if len(rows) == 1 or len({len(row) for row in rows}) > 1:
            return False
    return True


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
