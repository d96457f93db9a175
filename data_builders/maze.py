"""Builder of maze data sets: Maze-Hard, CSV files, the original's folders, generated mazes.

The rules are those of dataset/build_maze_dataset.py of sapientinc/HRM: one character per cell,
``#`` wall, space, ``S`` start, ``G`` goal, and ``o`` for the path in answers. Rows may be separated
by / or line breaks. A CSV file has the columns question and answer; of a single file
--test-fraction is held out.
"""

import dataclasses
import time
from typing import Any

import numpy as np

from data_builders import board_text, grid_paths, holdout, leaks, sources, writing
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax.data.puzzles import PuzzleSet
from hrm_jax.errors import BuildError
from hrm_jax.tasks import Maze

HUB = 'sapientinc/maze-30x30-hard-1k'
GENERATED = 'generated'
CHARACTERS = Maze.symbols[1:]  # of the tokens 1..5; 0 is padding
WALL, SPACE, START, GOAL, PATH = Maze.WALL, Maze.FLOOR, Maze.START, Maze.END, Maze.PATH
_LARGEST = 1024  # rows of a generated maze: a million cells
EXAMPLES = """examples:
  python -m data_builders maze --output-dir data/maze-30x30-hard-1k
  python -m data_builders maze --output-dir data/mazes --source mazes.csv --aug
  python -m data_builders maze --output-dir data/maze9 --source generated --size 9
  python -m data_builders maze --output-dir data/maze-unique --source generated --size 30 \\
      --min-path 100 --max-path 140 --test-count 1000
"""


@settings
class Options(WriterOptions):
    """Settings of a maze data set."""

    seed: int = option(0, help='seed of subsampling and generation')
    source: str = option(HUB, help=sources.SOURCE_HELP)
    test_fraction: float = option(0.1, help=holdout.FRACTION_HELP)
    subsample_size: int | None = option(None, help='training mazes to draw', unset='all')
    aug: bool = option(
        False, help='store the 8 dihedral versions of each training maze, in the order of their ids'
    )
    check_paths: bool = option(False, help='refuse answers that are not shortest paths')
    size: int = option(9, help='rows of generated mazes')
    train_count: int = option(1000, help='generated training mazes')
    test_count: int = option(200, help='generated test mazes')
    min_path: int = option(1, help='fewest moves of the path of a generated maze')
    max_path: int | None = option(
        None, help='most moves of the path of a generated maze', unset='none'
    )
    allow_leaks: bool = option(False, help=leaks.ALLOW_HELP)


@with_settings(Options)
def build(output_dir: str, options: Options) -> dict[str, Any]:
    """Builds a maze data set and returns its manifest.

    Args:
      output_dir: folder to make.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: an unusable source, an unknown character, leaks, or an output in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    rng = np.random.default_rng(options.seed)
    if options.source == GENERATED:
        paths = (options.min_path, options.max_path)
        tables = generate(
            options.size, options.train_count, options.test_count, rng, options.show, paths
        )
        origin = [{'path': GENERATED}]
    else:
        BuildError.require(
            (options.min_path, options.max_path) == (1, None),
            '--min-path and --max-path are of generated mazes. Leave them out, or add --source '
            'generated.',
        )
        tables, origin = _read(options)
        for table in tables.values():
            check_answers(table)
        tables['train'] = sources.subsample(tables['train'], options.subsample_size, rng)
    sides = {table.questions.shape[1] for table in tables.values()}
    BuildError.require(
        len(sides) == 1, f'train and test mazes must have one size; got {sorted(sides)} cells.'
    )
    side = round(sides.pop() ** 0.5)
    if options.check_paths:
        for table in tables.values():
            wrong = np.zeros(len(table.questions), bool)
            wrong[find_wrong(table.questions, table.answers, side)] = True
            table.refuse(wrong, 'the answer is not a shortest path')
    report = leaks.exact_report(*(
        (tables[split].questions, tables[split].answers) for split in ('train', 'test')
    ))  # fmt: skip
    leaks.refuse(report, options.allow_leaks)
    splits = {
        name: make_split(table, options.aug and name == 'train') for name, table in tables.items()
    }
    return writing.write_dataset(
        output, 'maze', splits, options, sources=origin, started=started, notes={'leaks': report}
    )


def find_wrong(inputs: np.ndarray, labels: np.ndarray, side: int) -> np.ndarray:
    """Returns the numbers of the mazes whose answer is not a shortest path."""
    tokens = {'wall': WALL, 'start': START, 'end': GOAL, 'path': PATH}
    return grid_paths.wrong_paths(inputs, labels, side, **tokens)


def encode(table: sources.Table) -> sources.Table:
    """Turns characters into tokens 1..5.

    Raises:
      BuildError: a character that is not in ``CHARACTERS``, or a maze that is not square.
    """
    side = round(table.questions.shape[1] ** 0.5)
    BuildError.require(
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


def _read(options: Options) -> tuple[dict[str, sources.Table], list[dict[str, Any]]]:
    """Returns the mazes of each split, as tokens, and the manifest's sources."""
    source, tables, origin = options.source, {}, []
    if sources.is_array_folder(source):
        for split in ('train', 'test'):
            _, questions, answers = sources.read_folder(source, split)
            path = f'{source}/{split}'
            BuildError.require(
                min(questions.min(), answers.min()) >= WALL
                and max(questions.max(), answers.max()) <= PATH,
                f'{path} has no mazes: tokens must be in {WALL}..{PATH}.',
            )
            tables[split] = sources.Table.unrated(questions, answers, path)
            origin.append({'path': path})
        return tables, origin
    for split, path in sources.csv_files(source).items():
        tables[split] = encode(sources.read_csv(path, flat=board_text.flat_maze))
        origin.append(sources.fingerprint(path))
    if '' in tables:
        tables = hold_out(tables[''], options.test_fraction, options.seed)
    return tables, origin


def hold_out(mazes: sources.Table, fraction: float, seed: int) -> dict[str, sources.Table]:
    """Splits mazes so that no maze, turned or not, is on both sides."""
    side = round(mazes.questions.shape[1] ** 0.5)
    groups = holdout.numbers_of(holdout.without_turns(mazes.questions, side))
    parts = holdout.split(groups, fraction, seed, mazes.path)
    return {split: mazes.take(chosen) for split, chosen in parts.items()}


def make_split(table: sources.Table, aug: bool) -> writing.Split:
    """Returns mazes as a split; ``aug``: with their 8 dihedral versions."""
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
    size: int,
    train_count: int,
    test_count: int,
    rng: np.random.Generator,
    show: bool = False,
    paths: tuple[int, int | None] = (1, None),
) -> dict[str, sources.Table]:
    """Generates different mazes without loops, so that there is only one path.

    Args:
      size: rows and columns.
      train_count, test_count: mazes of each split.
      rng: draws them.
      show: a progress bar.
      paths: fewest and most moves from start to goal, both included; None: any number.

    Raises:
      BuildError: a size below 5, or more mazes than there are.
    """
    BuildError.require(5 <= size <= _LARGEST, f'--size must be in 5..{_LARGEST}; got {size}.')
    BuildError.require(
        train_count > 0 and test_count > 0, '--train-count and --test-count must be at least 1.'
    )
    BuildError.require(
        paths[0] > 0 and (paths[1] is None or paths[0] <= paths[1]),
        f'--min-path and --max-path must be at least 1, in this order; got {paths[0]}, {paths[1]}.',
    )
    seen: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    total, tries = train_count + test_count, 0
    bar = iter(writing.progress(range(total), 'generating', show=show))
    limited = f' with paths of {paths[0]} to {paths[1] or "any number of"} moves'
    while len(seen) < total:
        tries += 1
        BuildError.require(
            tries < 20 * total + 1000,
            f'there are not {total} different mazes of size {size}'
            + (limited if paths != (1, None) else '')
            + '.',
        )
        cells = _carve(size, rng)
        ends = _ends(cells, size, rng, paths)
        if ends is None:
            continue
        board, answer = _with_path(cells, *ends, size)
        if seen.setdefault(board.tobytes(), (board, answer))[0] is board:
            next(bar)
    boards, answers = (np.array(column) for column in zip(*seen.values(), strict=True))
    parts = {'train': slice(0, train_count), 'test': slice(train_count, None)}
    return {
        split: sources.Table.unrated(boards[part], answers[part], GENERATED)
        for split, part in parts.items()
    }


def _carve(size: int, rng: np.random.Generator) -> np.ndarray:
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
    return board.reshape(-1)


def _ends(
    cells: np.ndarray, size: int, rng: np.random.Generator, paths: tuple[int, int | None]
) -> tuple[int, int] | None:
    """Draws start and goal; None where no goal is as far from the start as ``paths`` asks."""
    floor = np.flatnonzero(cells == SPACE)
    if paths == (1, None):
        start, goal = rng.choice(floor, 2, replace=False)
        return int(start), int(goal)
    start = rng.choice(floor)
    moves = grid_paths.distances(cells[None] != WALL, np.array([start]), size)[0]
    most = paths[1] or cells.size
    goals = np.flatnonzero((moves >= paths[0]) & (moves <= most))
    return (int(start), int(rng.choice(goals))) if len(goals) else None


def _with_path(
    cells: np.ndarray, start: int, goal: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the question with these ends, and its answer."""
    question, answer = cells.copy(), cells.copy()
    answer[grid_paths.first_path((cells != WALL).tolist(), start, goal, size)] = PATH
    for grid in (question, answer):
        grid[start], grid[goal] = START, GOAL
    return question, answer
