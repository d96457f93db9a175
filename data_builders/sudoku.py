"""Sudoku: Sudoku-Extreme from the hub, CSV files, the original's folders, or generated boards.

The original (dataset/build_sudoku_dataset.py of sapientinc/HRM) reads the hub only and has no
seed. The augmentation draws the same maps: a permutation of the digits, a transposition, a
permutation of the bands and of the rows within each, and of the stacks and columns.
"""

import argparse
import dataclasses
import time
from typing import Any

import numpy as np

from data_builders import leaks, sources, sudoku_rules, writing
from data_builders.errors import BuildError, require
from data_builders.sources import Table
from hrm_jax.data import augment
from hrm_jax.data.puzzles import PuzzleSet

HUB = 'sapientinc/sudoku-extreme'
GENERATED = 'generated'
EXAMPLES = """examples:
  python -m data_builders sudoku --output-dir data/sudoku-extreme-1k-aug-1000 \\
      --subsample-size 1000 --num-aug 1000
  python -m data_builders sudoku --output-dir data/my-sudoku --source FOLDER_WITH_CSV_FILES
  python -m data_builders sudoku --output-dir data/sudoku4 --source generated --size 4 \\
      --train-count 20000 --test-count 1000
"""
# Digits left on generated boards: (fewest, most).
CLUES = {4: (5, 8), 6: (10, 16), 9: (28, 36)}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``build``, under their names."""
    parser.add_argument(
        '--source', default=HUB,
        help="folder with train.csv and test.csv (or .csv.gz), folder of the original's .npy "
             "files, hub data set, or 'generated' (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument('--subsample-size', type=int, help='training boards to draw')
    parser.add_argument('--test-subsample-size', type=int, help='test boards to draw')
    parser.add_argument('--min-difficulty', type=int, help='keep ratings of at least this')
    parser.add_argument('--num-aug', type=int, default=0, help='augmentations of each board')
    parser.add_argument(
        '--check-unique', action='store_true',
        help='solve every board and refuse those without exactly one solution',
    )  # fmt: skip
    parser.add_argument('--size', type=int, default=9, choices=(4, 6, 9),
                        help='digits of generated boards (default: 9)')  # fmt: skip
    parser.add_argument('--train-count', type=int, default=1000, help='generated training boards')
    parser.add_argument('--test-count', type=int, default=200, help='generated test boards')
    leaks.add_flag(parser)


def build(
    output_dir: str,
    *,
    source: str = HUB,
    seed: int = 0,
    subsample_size: int | None = None,
    test_subsample_size: int | None = None,
    min_difficulty: int | None = None,
    num_aug: int = 0,
    check_unique: bool = False,
    size: int = 9,
    train_count: int = 1000,
    test_count: int = 200,
    allow_leaks: bool = False,
    overwrite: bool = False,
    show: bool = True,
) -> dict[str, Any]:
    """Builds a Sudoku data set and returns its manifest.

    Generated sets split the *solutions*: no test solution is the solution of a training board,
    augmented or not. With any source, an augmentation that leads to a test solution is drawn
    again.

    Args:
      output_dir: folder to make.
      source: see ``add_flags``.
      seed: seed of subsampling, augmentation and generation.
      subsample_size: training boards to draw, after the difficulty filter; None: all.
      test_subsample_size: test boards to draw; None: all.
      min_difficulty: smallest rating kept, in both splits; None: all.
      num_aug: augmentations per training board, beside the board itself.
      check_unique: solve every board.
      size: digits of generated boards: 4, 6 or 9.
      train_count: generated training boards.
      test_count: generated test boards.
      allow_leaks: build even when test boards occur in training.
      overwrite: replace an existing data set.
      show: show progress and a summary.

    Raises:
      BuildError: an unusable source, a contradictory board, or an output folder in use.
    """
    started = time.monotonic()
    options = {k: v for k, v in locals().items()
               if k not in ('output_dir', 'overwrite', 'show', 'started', 'seed')}  # fmt: skip
    output = writing.check_output(output_dir, overwrite)
    require(num_aug >= 0, f'--num-aug must not be negative; got {num_aug}.')
    require(seed >= 0, f'--seed must not be negative; got {seed}.')
    rng = np.random.default_rng(seed)
    if source == GENERATED:
        require(
            min_difficulty is None and subsample_size is None and test_subsample_size is None,
            '--min-difficulty and --subsample-size choose from boards that exist. For generated '
            'ones use --train-count and --test-count.',
        )
        boards = generate(size, train_count, test_count, rng, show)
        origin = [{'path': GENERATED, 'size': size}]
    else:
        boards, origin = _read(
            source, min_difficulty, {'train': subsample_size, 'test': test_subsample_size}, rng
        )
        size = side_of(boards['train'])
    for part in boards.values():
        check(part, check_unique, show)
    report = leaks.exact_report(*(
        (boards[split].questions, boards[split].answers) for split in ('train', 'test')
    ))  # fmt: skip
    leaks.refuse(report, allow_leaks)
    maps, rejected = draw_maps(boards['train'], boards['test'].answers, num_aug, rng, show)
    # Small boards have few solutions; of large ones only augmentations that were drawn can tell.
    held_out = size < 9 or (rejected > 0 if num_aug else None)
    splits = {
        'train': make_split(boards['train'], maps, held_out),
        'test': make_split(boards['test'], None, held_out=False),
    }
    return writing.write_dataset(
        output, 'sudoku', splits, sources=origin, seed=seed, options=options,
        started=started, notes={'augmentations_drawn_again': rejected, 'leaks': report}, show=show,
    )  # fmt: skip


def side_of(boards: Table) -> int:
    """Returns the rows of the boards."""
    return round(boards.questions.shape[1] ** 0.5)


def make_split(boards: Table, maps: np.ndarray | None, held_out: bool | None) -> writing.Split:
    """Encodes digits as tokens (0 padding, 1 blank, 2.. digits) and groups augmentations."""
    puzzles = PuzzleSet.of_examples(boards.questions + np.uint8(1), boards.answers + np.uint8(1))
    if maps is not None:
        groups, each = maps.shape[:2]
        count = np.arange(groups * each + 1)
        puzzles = dataclasses.replace(
            puzzles,
            group_indices=count[::each],
            puzzle_indices=count,
            puzzle_first=np.repeat(np.arange(groups), each),
            puzzle_identifiers=np.zeros(groups * each, np.int32),
            maps=maps.reshape(groups * each, -1),
        )
    return writing.one_set(
        puzzles,
        vocab_size=side_of(boards) + 2,
        task='sudoku',
        transform='sudoku',
        held_out=held_out,
    )


def _read(
    source: str, min_difficulty: int | None, sizes: dict[str, int | None], rng
) -> tuple[dict[str, Table], list[dict[str, Any]]]:
    boards, origin = {}, []
    for split in ('train', 'test'):
        if sources.is_array_folder(source):
            dataset, questions, answers = sources.read_folder(source, split)
            side = dataset.metadata.side
            require(
                dataset.metadata.vocab_size == side + 2 and min(questions.min(), answers.min()) > 0,
                f'{source} holds no Sudokus: tokens must be 1 for a blank and 2..n+1 for digits.',
            )
            require(min_difficulty is None, f'{source} has no ratings for --min-difficulty.')
            table = Table.unrated(questions - 1, answers - 1, f'{source}/{split}')
            origin.append({'path': f'{source}/{split}'})
        else:
            path = sources.find_csv(source, split)
            table = encode(sources.read_csv(path))
            origin.append(sources.fingerprint(path))
        if min_difficulty is not None:
            table = table.take(table.ratings >= min_difficulty)
            require(
                len(table.ratings) > 0, f'{table.path}: no board has a rating of {min_difficulty}.'
            )
        boards[split] = sources.subsample(table, sizes[split], rng)
    return boards, origin


def encode(table: Table) -> Table:
    """Turns characters into digits; '.' and '0' are blanks."""
    side = round(table.questions.shape[1] ** 0.5)
    require(
        side * side == table.questions.shape[1] and side in CLUES,
        f'{table.path}, record 1: a board must have 16, 36 or 81 cells; got '
        f'{table.questions.shape[1]}.',
    )
    codes = np.full(256, 255, np.uint8)
    codes[[ord('.'), ord('0')]] = 0
    codes[ord('1') : ord('1') + side] = np.arange(1, side + 1)
    questions, answers = codes[table.questions], codes[table.answers]
    for what, cells in (('question', questions), ('answer', answers)):
        table.refuse(
            (cells == 255).any(axis=1),
            f'a {what} must be made of the digits 1..{side} and . or 0 for a blank',
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
        solver = sudoku_rules.Solver(size)
        for k, board in enumerate(writing.progress(boards.questions, 'solving', show=show)):
            found = solver.count(board)
            require(
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
      without augmentation, and how many were drawn again because their solution is in
      ``held_out_answers``.

    Raises:
      BuildError: a board leads to test solutions again and again.
    """
    if num_aug == 0:
        return None, 0
    size = side_of(train)
    identity = augment.identity_map('sudoku', size)
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


def generate(
    size: int, train_count: int, test_count: int, rng: np.random.Generator, show: bool = False
) -> dict[str, Table]:
    """Makes boards with exactly one solution; test solutions never occur in training.

    Raises:
      BuildError: more boards are wanted than there are.
    """
    require(size in CLUES, f'--size must be one of {sorted(CLUES)}; got {size}.')
    require(
        train_count > 0 and test_count > 0, '--train-count and --test-count must be at least 1.'
    )
    counts = {'test': test_count, 'train': train_count}
    make = _generate_4 if size == 4 else _generate_by_solver
    return make(size, counts, rng, show)


def _generate_4(size: int, counts: dict[str, int], rng, show: bool) -> dict[str, Table]:
    """Picks clues of the 288 solutions at random and keeps those that fix the solution."""
    solutions = sudoku_rules.all_solutions_4()
    order = rng.permutation(len(solutions))
    # One solution in seven is for testing.
    pools = {'test': order[: len(order) // 7], 'train': order[len(order) // 7 :]}
    low, high = CLUES[4]
    boards = {}
    for split, count in counts.items():
        seen: dict[bytes, np.ndarray] = {}
        for _ in range(400):
            chosen = rng.choice(pools[split], 2048)
            clues = rng.integers(low, high + 1, len(chosen))
            kept = np.argsort(np.argsort(rng.random((len(chosen), 16)), axis=1)) < clues[:, None]
            # [boards, solutions]: how many clues a solution contradicts
            differs = (solutions[chosen][:, None] != solutions[None]) & kept[:, None]
            unique = (~differs.any(axis=2)).sum(axis=1) == 1
            for solution, mask in zip(solutions[chosen[unique]], kept[unique], strict=True):
                board = solution * mask
                seen.setdefault(board.tobytes(), np.stack([board, solution]))
            if len(seen) >= count:
                break
        else:
            raise BuildError(
                f'there are not {count} different 4x4 boards for the split {split}; got '
                f'{len(seen)}. Ask for fewer.'
            )
        pairs = np.stack(list(seen.values())[:count])
        sides = (np.ascontiguousarray(pairs[:, k]) for k in (0, 1))
        boards[split] = Table.unrated(*sides, GENERATED)
    return boards


def _generate_by_solver(size: int, counts: dict[str, int], rng, show: bool) -> dict[str, Table]:
    solver = sudoku_rules.Solver(size)
    low, high = CLUES[size]
    boards, held_out = {}, set()
    for split, count in counts.items():
        questions, answers = [], []
        for _ in writing.progress(range(count), f'generating {split}', show=show):
            solution = solver.random_solution(rng)
            while split == 'train' and solution.tobytes() in held_out:
                solution = solver.random_solution(rng)
            questions.append(solver.dig(solution, int(rng.integers(low, high + 1)), rng))
            answers.append(solution)
        if split == 'test':
            held_out = {answer.tobytes() for answer in answers}
        boards[split] = Table.unrated(np.array(questions), np.array(answers), GENERATED)
    return boards
