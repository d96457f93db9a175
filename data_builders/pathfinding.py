"""Builder of path finding data sets: random boards, as krychu/hrm generates them.

Tokens: 0 floor, 1 wall, 2 start, 3 end, 4 path (answers only); the loss ignores none of them.
The path is the one that a breadth-first search finds that looks up, down, left, right
(datasets/build_boardpath_dataset.py of krychu/hrm), so it follows from the board alone.
"""

import random
import time
from typing import Any

import numpy as np

from data_builders import grid_paths, leaks, writing
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax.data.puzzles import PuzzleSet
from hrm_jax.errors import BuildError
from hrm_jax.tasks import PathFinding

FLOOR, WALL, START, END, PATH = (
    PathFinding.FLOOR, PathFinding.WALL, PathFinding.START, PathFinding.END, PathFinding.PATH,
)  # fmt: skip
_LARGEST = 1024  # rows of a board: a million cells
EXAMPLES = """examples:
  python -m data_builders pathfinding --output-dir data/pathfinding-10
  python -m data_builders pathfinding --output-dir data/pathfinding-20 --board-size 20 \\
      --train-count 2000
"""


@settings
class Options(WriterOptions):
    """Settings of a path finding data set."""

    seed: int = option(0, help='seed of the boards')
    board_size: int = option(10, help='rows of a board')
    wall_prob: float = option(0.3, help='probability of each cell to be a wall')
    train_count: int = option(4000, help='training boards')
    val_count: int = option(500, help="boards of the split 'test'; no board is in both splits")


@with_settings(Options)
def build(output_dir: str, options: Options) -> dict[str, Any]:
    """Builds a path finding data set and returns its manifest.

    Args:
      output_dir: folder to make.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: settings without enough different boards, or an output in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    size, wall_prob = options.board_size, options.wall_prob
    BuildError.require(2 <= size <= _LARGEST, f'--board-size must be in 2..{_LARGEST}; got {size}.')
    BuildError.require(0 <= wall_prob < 1, f'--wall-prob must be in [0, 1); got {wall_prob}.')
    BuildError.require(
        options.train_count > 0 and options.val_count > 0,
        '--train-count and --val-count must be at least 1.',
    )
    total = options.train_count + options.val_count
    rng = random.Random(options.seed)
    inputs, labels = unique_boards(total, size, wall_prob, rng, options.show)
    parts = {'train': slice(0, options.train_count), 'test': slice(options.train_count, total)}
    splits = {
        split: writing.one_set(
            PuzzleSet.of_examples(inputs[part], labels[part]),
            vocab_size=5, ignore_label_id=None, task='pathfinding', transform='dihedral',
        )
        for split, part in parts.items()
    }  # fmt: skip
    report = leaks.exact_report(*((inputs[p], labels[p]) for p in parts.values()))
    return writing.write_dataset(
        output, 'pathfinding', splits, options, sources=[{'path': 'generated'}], started=started,
        notes={'leaks': report},
    )  # fmt: skip


def unique_boards(
    count: int, size: int, wall_prob: float, rng: random.Random, show: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Draws different boards: uint8 [count, size * size] questions and answers.

    Raises:
      BuildError: there are not enough different boards.
    """
    seen: dict[bytes, list[int]] = {}
    bar = iter(writing.progress(range(count), 'generating', show=show))
    misses = 0
    while len(seen) < count:
        board, answer, _ = draw_board(size, wall_prob, rng)
        key = bytes(board)
        misses = misses + 1 if key in seen else 0
        BuildError.require(
            misses < 10_000,
            f'only {len(seen)} different {size} x {size} boards were found, not {count}. Ask '
            f'for fewer, or for larger boards.',
        )
        if key not in seen:
            seen[key] = answer
            next(bar)
    inputs = np.frombuffer(b''.join(seen), np.uint8).reshape(count, -1)
    return inputs, np.array(list(seen.values()), np.uint8)


def draw_board(size: int, wall_prob: float, rng: random.Random) -> tuple[list[int], list[int], int]:
    """Draws boards until one can be solved; returns question, answer and the number drawn.

    The order of random numbers is the original's: row and column of the start, row and column
    of the end until it is another cell, then one number for every other cell.
    """
    attempts = 0
    while True:
        attempts += 1
        start = (rng.randrange(size), rng.randrange(size))
        end = start
        while end == start:
            end = (rng.randrange(size), rng.randrange(size))
        first, last = (cell[0] * size + cell[1] for cell in (start, end))
        board = [FLOOR] * (size * size)
        board[first], board[last] = START, END
        for cell in range(size * size):
            if cell not in (first, last) and rng.random() < wall_prob:
                board[cell] = WALL
        path = solve(board, size)
        if path is not None:
            answer = list(board)
            for cell in path:
                answer[cell] = PATH
            return board, answer, attempts


def solve(board: list[int], size: int) -> list[int] | None:
    """Returns the cells between start and end that the answer marks; None: there is no path."""
    open_cells = [token != WALL for token in board]
    return grid_paths.first_path(open_cells, board.index(START), board.index(END), size)
