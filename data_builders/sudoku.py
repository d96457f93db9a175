"""Builder of Sudoku data sets: Sudoku-Extreme, CSV files, the original's folders, generated boards.

A CSV file names its columns in the first line: question (or quizzes, quiz, puzzle), answer (or
solutions, solution) and, for --min-difficulty alone, rating (or difficulty). A board is one
character per cell, in one line or with its rows separated by / or line breaks; empty cells are . 0
_ * or a blank, digits above 9 are letters from A on. One file is enough: --test-fraction of it is
held out.

The original (dataset/build_sudoku_dataset.py of sapientinc/HRM) reads the Hugging Face hub only
and has no seed. The augmentation draws the same maps: a permutation of the digits, a
transposition, a permutation of the bands and of the rows within each, and of the stacks and
columns.
"""

import dataclasses
import math
import pathlib
import time
from typing import Any, Literal

import numpy as np

from data_builders import board_text, holdout, leaks, sources, sudoku_hints, sudoku_rules, writing
from data_builders.options import WriterOptions, option, settings, with_settings
from data_builders.sources import Table
from data_builders.sudoku_boards import CLUES, GENERATED, generate
from hrm_jax.data import augment, records
from hrm_jax.data.puzzles import PuzzleSet
from hrm_jax.errors import BuildError
from hrm_jax.tasks import Sudoku

HUB = 'sapientinc/sudoku-extreme'
EXAMPLES = """examples:
  python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \\
      --subsample-size 1000 --num-aug 1000
  python -m data_builders sudoku --output-dir data/my-sudoku --source puzzles.csv
  python -m data_builders sudoku --output-dir data/sudoku4 --source generated --size 4 \\
      --train-count 20000 --test-count 1000
  python -m data_builders sudoku --output-dir data/sudoku-16x16 --source generated --size 16 \\
      --train-count 1000 --test-count 200
"""


@settings
class Options(WriterOptions):
    """Settings of a Sudoku data set."""

    seed: int = option(0, help='seed of subsampling, augmentation and generation')
    source: str = option(HUB, help=sources.SOURCE_HELP)
    test_fraction: float = option(0.1, help=holdout.FRACTION_HELP)
    subsample_size: int | None = option(
        None, help='training boards to draw, after the difficulty filter', unset='all'
    )
    test_subsample_size: int | None = option(
        None, help='test boards to draw, after the difficulty filter', unset='all'
    )
    min_difficulty: float | None = option(
        None, help='smallest rating of the boards that are kept, in both splits', unset='all boards'
    )
    num_aug: int = option(0, help='augmentations of each training board, beside the board itself')
    hints: bool = option(
        False,
        help='with each training board and augmentation a second one, some of whose empty cells '
        'are filled in (hint mixing)',
    )
    check_unique: bool = option(
        False, help='solve every board and refuse those without exactly one solution'
    )
    size: Literal[4, 6, 9, 16] = option(9, help='digits of generated boards')
    train_count: int = option(1000, help='generated training boards')
    test_count: int = option(200, help='generated test boards')
    min_givens: int | None = option(
        None,
        help='fewest givens of generated boards; without it 5, 10, 28 or 104, for the sizes 4, 6, '
        '9 and 16',
        unset='none',
    )
    max_givens: int | None = option(
        None, help='most givens of generated boards; without it 8, 16, 36 or 132', unset='none'
    )
    allow_leaks: bool = option(False, help=leaks.ALLOW_HELP)


@with_settings(Options)
def build(output_dir: str, options: Options) -> dict[str, Any]:
    """Builds a Sudoku data set and returns its manifest.

    Generated sets split the *solutions*: no test solution is the solution of a training board,
    augmented or not. With any source, an augmentation that leads to a test solution is drawn
    again.

    Args:
      output_dir: folder to make.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: an unusable source, a contradictory board, or an output folder in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    BuildError.require(
        options.num_aug >= 0, f'--num-aug must not be negative; got {options.num_aug}.'
    )
    lowest = options.min_difficulty
    BuildError.require(
        lowest is None or math.isfinite(lowest), f'--min-difficulty must be a number; got {lowest}.'
    )
    BuildError.require(
        options.source == GENERATED or options.min_givens is options.max_givens is None,
        f'--min-givens and --max-givens are of generated boards: they need --source {GENERATED}.',
    )
    rng = np.random.default_rng(options.seed)
    sizes = {'train': options.subsample_size, 'test': options.test_subsample_size}
    if options.source == GENERATED:
        BuildError.require(
            options.min_difficulty is None and set(sizes.values()) == {None},
            '--min-difficulty and --subsample-size choose from boards that exist. For generated '
            'ones use --train-count and --test-count.',
        )
        boards = generate(
            options.size, options.train_count, options.test_count, rng, options.show,
            options.min_givens, options.max_givens,
        )  # fmt: skip
        size, origin = options.size, [{'path': GENERATED, 'size': options.size}]
    else:
        boards, origin = _read(options)
        boards = {
            split: sources.subsample(part, sizes[split], rng) for split, part in boards.items()
        }
        size = side_of(boards['train'])
    for part in boards.values():
        check(part, options.check_unique, options.show)
    report = leaks.exact_report(*(
        (boards[split].questions, boards[split].answers) for split in ('train', 'test')
    ))  # fmt: skip
    leaks.refuse(report, options.allow_leaks)
    maps, rejected = draw_maps(
        boards['train'], boards['test'].answers, options.num_aug, rng, options.show
    )
    # Small boards have few solutions; for large ones only drawn augmentations show it.
    held_out = size < 9 or (rejected > 0 if options.num_aug else None)
    hints_rng = rng if options.hints else None
    splits = {
        'train': make_split(boards['train'], maps, held_out, hints_rng),
        'test': make_split(boards['test'], None, held_out=False),
    }
    return writing.write_dataset(
        output, 'sudoku', splits, options, sources=origin, started=started,
        notes={'augmentations_drawn_again': rejected, 'leaks': report},
        also=lambda folder: write_ratings(folder, boards['test']),
    )  # fmt: skip


def write_ratings(folder: pathlib.Path, boards: Table) -> None:
    """Writes the ratings of the test boards, for scores by rating, where the source has them."""
    if np.isfinite(boards.ratings).all():
        np.save(folder / 'test' / records.ratings_file('all'), boards.ratings.astype(np.float32))


def side_of(boards: Table) -> int:
    """Returns the rows of the boards."""
    return round(boards.questions.shape[1] ** 0.5)


def make_split(
    boards: Table, maps: np.ndarray | None, held_out: bool | None, hints_rng=None
) -> writing.Split:
    """Encodes digits as tokens (0 padding, 1 blank, 2.. digits) and groups augmentations.

    Args:
      boards: digits.
      maps: uint8 [N, 1 + augmentations, M], or None.
      held_out: see ``writing.one_set``.
      hints_rng: draws hints (sudoku_hints.py); None: there are none.
    """
    puzzles = PuzzleSet.of_examples(boards.questions, boards.answers)
    if hints_rng is not None:
        copies = 1 if maps is None else maps.shape[1]
        puzzles = sudoku_hints.mix(boards.questions, boards.answers, copies, hints_rng)
        maps = None if maps is None else np.repeat(maps, 2, axis=1)
    elif maps is not None:
        groups, each = maps.shape[:2]
        count = np.arange(groups * each + 1)
        puzzles = dataclasses.replace(
            puzzles,
            group_indices=count[::each],
            puzzle_indices=count,
            puzzle_first=np.repeat(np.arange(groups), each),
            puzzle_identifiers=np.zeros(groups * each, np.int32),
        )
    puzzles = dataclasses.replace(
        puzzles,
        inputs=puzzles.inputs + np.uint8(1),
        labels=puzzles.labels + np.uint8(1),
        maps=None if maps is None else maps.reshape(-1, maps.shape[-1]),
    )
    return writing.one_set(
        puzzles,
        vocab_size=side_of(boards) + 2,
        task='sudoku',
        transform='sudoku',
        held_out=held_out,
    )


def _read(options: Options) -> tuple[dict[str, Table], list[dict[str, Any]]]:
    """Returns the boards of each split that are difficult enough, and the manifest's sources."""
    source, lowest = options.source, options.min_difficulty
    if sources.is_array_folder(source):
        BuildError.require(lowest is None, f'{source} has no ratings for --min-difficulty.')
        boards = {split: _from_folder(source, split) for split in ('train', 'test')}
        return boards, [{'path': f'{source}/{split}'} for split in boards]
    found = sources.csv_files(source)
    boards, origin = {}, []
    for split, path in found.items():
        table = encode(
            sources.read_csv(path, ratings=lowest is not None, flat=board_text.flat_sudoku)
        )
        if lowest is not None:
            table = table.take(table.ratings >= lowest)
            BuildError.require(
                len(table.ratings) > 0, f'{table.path}: no board has a rating of {lowest:g}.'
            )
        boards[split] = table
        origin.append(sources.fingerprint(path))
    if '' in boards:
        boards = hold_out(boards[''], options.test_fraction, options.seed)
    return boards, origin


def _from_folder(source: str, split: str) -> Table:
    dataset, questions, answers = sources.read_folder(source, split)
    side = dataset.metadata.side
    BuildError.require(
        dataset.metadata.vocab_size == side + 2 and min(questions.min(), answers.min()) > 0,
        f'{source} has no Sudokus: tokens must be 1 for a blank and 2..n+1 for digits.',
    )
    return Table.unrated(questions - 1, answers - 1, f'{source}/{split}')


def hold_out(boards: Table, fraction: float, seed: int) -> dict[str, Table]:
    """Splits boards so that no question and no solution is on both sides."""
    keys = (
        holdout.numbers_of(holdout.as_bytes(side)) for side in (boards.questions, boards.answers)
    )
    parts = holdout.split(holdout.joined(*keys), fraction, seed, boards.path)
    return {split: boards.take(chosen) for split, chosen in parts.items()}


def encode(table: Table) -> Table:
    """Turns characters into digits; any of ``board_text.EMPTY`` is an empty cell."""
    cells = table.questions.shape[1]
    side = round(cells**0.5)
    BuildError.require(
        side * side == cells and side in CLUES,
        f'{table.path}, record 1: a board must have 16, 36, 81 or 256 cells; got {cells}.',
    )
    codes = np.full(256, 255, np.uint8)
    codes[[ord(char) for char in board_text.EMPTY]] = 0
    for digit, char in enumerate(Sudoku.symbols[2 : 2 + side], 1):
        codes[[ord(char), ord(char.lower())]] = digit
    questions, answers = codes[table.questions], codes[table.answers]
    for what, digits in (('question', questions), ('answer', answers)):
        table.refuse(
            (digits == 255).any(axis=1),
            f'a {what} must be made of the digits 1..{Sudoku.symbols[side + 1]} and one of '
            f'{board_text.EMPTY!r} for an empty cell',
        )
    return dataclasses.replace(table, questions=questions, answers=answers)


def check(boards: Table, unique: bool = False, show: bool = False) -> None:
    """Checks that every answer is a solution of its question.

    Raises:
      BuildError: names the record of the first board that fails.
    """
    size = side_of(boards)
    boards.refuse(
        ~sudoku_rules.valid_solutions(boards.answers, size),
        'the answer breaks the rules of Sudoku',
    )
    clash = (boards.questions > 0) & (boards.questions != boards.answers)
    boards.refuse(clash.any(axis=1), 'the answer contradicts the question')
    if unique:
        solver = sudoku_rules.solver(size)
        for k, board in enumerate(writing.progress(boards.questions, 'solving', show=show)):
            found = solver.count(board)
            BuildError.require(
                found == 1,
                f'{boards.path}, record {boards.numbers[k]}: the board has '
                + ('no solution.' if found == 0 else 'more than one solution.'),
            )


def draw_maps(
    train: Table, held_out_answers: np.ndarray, num_aug: int, rng, show: bool = False
) -> tuple[np.ndarray | None, int]:
    """Draws the augmentations of every training board.

    Returns:
      uint8 maps [N, 1 + num_aug, M] (the first of each board changes nothing), or None
      without augmentation, and the number that were drawn again because their solution is
      in ``held_out_answers``.

    Raises:
      BuildError: nearly every augmentation of a board leads to a test solution.
    """
    if num_aug == 0:
        return None, 0
    size = side_of(train)
    identity = augment.identity_map('sudoku', size)
    writing.require_memory(
        len(train.answers) * (1 + num_aug) * len(identity),
        f'{len(train.answers):,} boards with {num_aug:,} augmentations each (--num-aug)',
    )
    maps = np.tile(identity, (len(train.answers), 1 + num_aug, 1))
    # A random 64-bit sum identifies a board; equal sums of different boards are no concern.
    weights = np.random.default_rng(0).integers(0, 1 << 63, size * size).astype(np.uint64)
    forbidden = np.unique(held_out_answers.astype(np.uint64) @ weights)
    wanted = augment.uniforms_needed('sudoku', size)
    rejected = 0
    for k, answer in enumerate(writing.progress(train.answers, 'augmenting', show=show)):
        missing = np.arange(1, 1 + num_aug)
        for _ in range(100):
            drawn = augment.random_maps('sudoku', rng.random((len(missing), wanted)), size)
            maps[k, missing] = drawn
            tokens = np.tile(answer + np.uint8(1), (len(missing), 1))
            moved = augment.apply_sudoku(tokens, drawn, size) - np.uint8(1)
            sums = moved.astype(np.uint64) @ weights
            place = np.minimum(np.searchsorted(forbidden, sums), len(forbidden) - 1)
            missing = missing[forbidden[place] == sums]
            rejected += len(missing)
            if not len(missing):
                break
        else:
            raise BuildError(
                f'{train.path}, record {train.numbers[k]} is turned into test solutions '
                f'by nearly every augmentation. Use fewer test boards, or --num-aug 0.'
            )
    return maps, rejected
