"""Mazes: Maze-Hard from the hub, CSV files, the original's folders, or small generated ones.

The rules are those of dataset/build_maze_dataset.py of sapientinc/HRM: one character per cell,
``#`` wall, space, ``S`` start, ``G`` goal, and ``o`` for the path in answers.
"""

import argparse
import dataclasses
import time
from typing import Any

import numpy as np

from data_builders import grid_paths, leaks, sources, writing
from data_builders.errors import require
from hrm_jax.data.puzzles import PuzzleSet

HUB = 'sapientinc/maze-30x30-hard-1k'
GENERATED = 'generated'
CHARACTERS = '# SGo'  # tokens 1..5; 0 is padding
WALL, SPACE, START, GOAL, PATH = range(1, 6)
EXAMPLES = """examples:
  python -m data_builders maze --output-dir data/maze-30x30-hard-1k
  python -m data_builders maze --output-dir data/mazes --source FOLDER_WITH_CSV_FILES --aug
  python -m data_builders maze --output-dir data/maze9 --source generated --size 9
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``build``, under their names."""
    parser.add_argument(
        '--source', default=HUB,
        help="folder with train.csv and test.csv (or .csv.gz), folder of the original's .npy "
             "files, hub data set, or 'generated' (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument('--subsample-size', type=int, help='training mazes to draw')
    parser.add_argument('--aug', action='store_true', help='add the 8 turned versions of each')
    parser.add_argument('--check-paths', action='store_true',
                        help='refuse answers that are no shortest paths')  # fmt: skip
    parser.add_argument('--size', type=int, default=9, help='rows of generated mazes (default: 9)')
    parser.add_argument('--train-count', type=int, default=1000, help='generated training mazes')
    parser.add_argument('--test-count', type=int, default=200, help='generated test mazes')
    leaks.add_flag(parser)


def build(
    output_dir: str,
    *,
    source: str = HUB,
    seed: int = 0,
    subsample_size: int | None = None,
    aug: bool = False,
    check_paths: bool = False,
    size: int = 9,
    train_count: int = 1000,
    test_count: int = 200,
    allow_leaks: bool = False,
    overwrite: bool = False,
    show: bool = True,
) -> dict[str, Any]:
    """Builds a maze data set and returns its manifest.

    Args:
      output_dir: folder to make.
      source: see ``add_flags``.
      seed: seed of subsampling and generation.
      subsample_size: training mazes to draw; None: all.
      aug: the 8 dihedral versions of each training maze, in the order of their ids.
      check_paths: refuse answers that are no shortest paths.
      size: rows of generated mazes.
      train_count: generated training mazes.
      test_count: generated test mazes.
      allow_leaks: build even when test mazes occur in training.
      overwrite: replace an existing data set.
      show: show progress and a summary.

    Raises:
      BuildError: an unusable source, an unknown character, leaks, or an output in use.
    """
    started = time.monotonic()
    options = {k: v for k, v in locals().items()
               if k not in ('output_dir', 'overwrite', 'show', 'started', 'seed')}  # fmt: skip
    output = writing.check_output(output_dir, overwrite)
    rng = np.random.default_rng(seed)
    if source == GENERATED:
        tables, origin = generate(size, train_count, test_count, rng, show), [{'path': GENERATED}]
    else:
        tables, origin = _read(source)
        for table in tables.values():
            check_answers(table)
        tables['train'] = sources.subsample(tables['train'], subsample_size, rng)
    sides = {table.questions.shape[1] for table in tables.values()}
    require(len(sides) == 1, f'train and test mazes must have one size; got {sorted(sides)} cells.')
    side = round(sides.pop() ** 0.5)
    if check_paths:
        for table in tables.values():
            wrong = np.zeros(len(table.questions), bool)
            wrong[find_wrong(table.questions, table.answers, side)] = True
            table.refuse(wrong, 'the answer is no shortest path')
    report = leaks.exact_report(*(
        (tables[split].questions, tables[split].answers) for split in ('train', 'test')
    ))  # fmt: skip
    leaks.refuse(report, allow_leaks)
    splits = {name: make_split(table, aug and name == 'train') for name, table in tables.items()}
    return writing.write_dataset(
        output, 'maze', splits, sources=origin, seed=seed, options=options, started=started,
        notes={'leaks': report}, show=show,
    )  # fmt: skip


def find_wrong(inputs: np.ndarray, labels: np.ndarray, side: int) -> np.ndarray:
    """Returns the numbers of mazes whose answer is no shortest path."""
    tokens = {'wall': WALL, 'start': START, 'end': GOAL, 'path': PATH}
    return grid_paths.wrong_paths(inputs, labels, side, **tokens)


def encode(table: sources.Table) -> sources.Table:
    """Turns characters into tokens 1..5.

    Raises:
      BuildError: a character that is none of ``CHARACTERS``, or a maze that is not square.
    """
    side = round(table.questions.shape[1] ** 0.5)
    require(
        side * side == table.questions.shape[1],
        f'{table.path}, record 1: a maze must be square; got {table.questions.shape[1]} cells.',
    )
    codes = np.zeros(256, np.uint8)
    codes[np.frombuffer(CHARACTERS.encode(), np.uint8)] = np.arange(1, len(CHARACTERS) + 1)
    questions, answers = codes[table.questions], codes[table.answers]
    for what, cells in (('question', questions), ('answer', answers)):
        table.refuse(
            (cells == 0).any(axis=1), f'a {what} must be made of the characters {CHARACTERS!r}'
        )
    return dataclasses.replace(table, questions=questions, answers=answers)


def check_answers(table: sources.Table) -> None:
    """Raises BuildError where an answer differs from its question in more than the path."""
    same = np.where(table.answers == PATH, table.questions, table.answers) == table.questions
    table.refuse(~same.all(axis=1), 'the answer must equal the question except for the path')


def _read(source: str) -> tuple[dict[str, sources.Table], list[dict[str, Any]]]:
    tables, origin = {}, []
    for split in ('train', 'test'):
        if sources.is_array_folder(source):
            _, questions, answers = sources.read_folder(source, split)
            path = f'{source}/{split}'
            require(
                min(questions.min(), answers.min()) >= WALL
                and max(questions.max(), answers.max()) <= PATH,
                f'{path} holds no mazes: tokens must lie in {WALL}..{PATH}.',
            )
            tables[split] = sources.Table.unrated(questions, answers, path)
            origin.append({'path': path})
        else:
            path = sources.find_csv(source, split)
            tables[split] = encode(sources.read_csv(path))
            origin.append(sources.fingerprint(path))
    return tables, origin


def make_split(table: sources.Table, aug: bool) -> writing.Split:
    """Lays mazes out as a split; ``aug``: with their 8 turned versions."""
    puzzles = PuzzleSet.of_examples(table.questions, table.answers)
    if aug:
        groups = len(table.questions)
        count = np.arange(8 * groups + 1)
        puzzles = dataclasses.replace(
            puzzles,
            group_indices=count[::8],
            puzzle_indices=count,
            puzzle_first=np.repeat(np.arange(groups), 8),
            puzzle_identifiers=np.zeros(8 * groups, np.int32),
            maps=np.tile(np.arange(8, dtype=np.uint8), groups)[:, None],
        )
    return writing.one_set(puzzles, vocab_size=6, task='maze', transform='dihedral')


def generate(
    size: int, train_count: int, test_count: int, rng: np.random.Generator, show: bool = False
) -> dict[str, sources.Table]:
    """Makes mazes without loops, so that the path is the only one; all are different.

    Raises:
      BuildError: a size below 5, or more mazes than there are.
    """
    require(size >= 5, f'--size must be at least 5; got {size}.')
    require(
        train_count > 0 and test_count > 0, '--train-count and --test-count must be at least 1.'
    )
    seen: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    total, tries = train_count + test_count, 0
    bar = iter(writing.progress(range(total), 'generating', show=show))
    while len(seen) < total:
        tries += 1
        require(tries < 20 * total + 1000, f'there are not {total} different mazes of size {size}.')
        board, answer = _one_maze(size, rng)
        if seen.setdefault(board.tobytes(), (board, answer))[0] is board:
            next(bar)
    boards, answers = (np.array(column) for column in zip(*seen.values(), strict=True))
    parts = {'train': slice(0, train_count), 'test': slice(train_count, None)}
    return {
        split: sources.Table.unrated(boards[part], answers[part], GENERATED)
        for split, part in parts.items()
    }


def _one_maze(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Carves a spanning tree by a random depth-first walk over every other cell."""
    board = np.full((size, size), WALL, np.uint8)
    rooms = (size - 1) // 2
    stack = [(0, 0)]
    board[1, 1] = SPACE
    while stack:
        row, column = stack[-1]
        near = [
            (row + a, column + b)
            for a, b in ((-1, 0), (1, 0), (0, -1), (0, 1))
            if 0 <= row + a < rooms and 0 <= column + b < rooms
            and board[2 * (row + a) + 1, 2 * (column + b) + 1] == WALL
        ]  # fmt: skip
        if not near:
            stack.pop()
            continue
        r, c = near[rng.integers(len(near))]
        board[2 * r + 1, 2 * c + 1] = board[row + r + 1, column + c + 1] = SPACE
        stack.append((r, c))
    cells = board.reshape(-1)
    start, goal = rng.choice(np.flatnonzero(cells == SPACE), 2, replace=False)
    answer = cells.copy()
    path = grid_paths.first_path((cells != WALL).tolist(), int(start), int(goal), size)
    answer[path] = PATH
    for grid in (cells, answer):
        grid[start], grid[goal] = START, GOAL
    return cells, answer
