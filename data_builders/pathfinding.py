"""Path finding on random boards, as krychu/hrm generates them.

Tokens: 0 floor, 1 wall, 2 start, 3 end, 4 path (answers only); nothing is ignored in the loss.
The path is the one that a breadth-first search finds that looks up, down, left, right
(datasets/build_boardpath_dataset.py of krychu/hrm), so it follows from the board alone.
"""

import argparse
import random
import time
from typing import Any

import numpy as np

from data_builders import grid_paths, leaks, writing
from data_builders.errors import require
from hrm_jax.data.puzzles import PuzzleSet

FLOOR, WALL, START, END, PATH = range(5)
EXAMPLES = """examples:
  python -m data_builders pathfinding --output-dir data/pathfinding-10
  python -m data_builders pathfinding --output-dir data/pathfinding-20 --board-size 20 \\
      --train-count 2000
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``build``, under their names."""
    parser.add_argument('--board-size', type=int, default=10, help='rows (default: 10)')
    parser.add_argument('--wall-prob', type=float, default=0.3, help='share of walls (0.3)')
    parser.add_argument('--train-count', type=int, default=4000, help='training boards (4000)')
    parser.add_argument('--val-count', type=int, default=500, help='test boards (500)')


def build(
    output_dir: str,
    *,
    seed: int = 0,
    board_size: int = 10,
    wall_prob: float = 0.3,
    train_count: int = 4000,
    val_count: int = 500,
    overwrite: bool = False,
    show: bool = True,
) -> dict[str, Any]:
    """Builds a path finding data set and returns its manifest.

    Args:
      output_dir: folder to make.
      seed: seed of the boards.
      board_size: rows of a board.
      wall_prob: chance of each cell to be a wall.
      train_count: training boards.
      val_count: boards of the split 'test'; no board stands in both.
      overwrite: replace an existing data set.
      show: show progress and a summary.

    Raises:
      BuildError: settings without enough different boards, or an output in use.
    """
    started = time.monotonic()
    options = {k: v for k, v in locals().items()
               if k not in ('output_dir', 'overwrite', 'show', 'started', 'seed')}  # fmt: skip
    output = writing.check_output(output_dir, overwrite)
    require(board_size >= 2, f'--board-size must be at least 2; got {board_size}.')
    require(0 <= wall_prob < 1, f'--wall-prob must lie in [0, 1); got {wall_prob}.')
    require(train_count > 0 and val_count > 0, '--train-count and --val-count must be at least 1.')
    total = train_count + val_count
    inputs, labels = unique_boards(total, board_size, wall_prob, random.Random(seed), show)
    parts = {'train': slice(0, train_count), 'test': slice(train_count, total)}
    splits = {
        split: writing.one_set(
            PuzzleSet.of_examples(inputs[part], labels[part]),
            vocab_size=5, ignore_label_id=None, task='pathfinding', transform='dihedral',
        )
        for split, part in parts.items()
    }  # fmt: skip
    report = leaks.exact_report(*((inputs[p], labels[p]) for p in parts.values()))
    return writing.write_dataset(
        output, 'pathfinding', splits, sources=[{'path': 'generated'}], seed=seed,
        options=options, started=started, notes={'leaks': report}, show=show,
    )  # fmt: skip


def unique_boards(
    count: int, size: int, wall_prob: float, rng: random.Random, show: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Draws different boards: uint8 [count, size * size] questions and answers.

    Raises:
      BuildError: the boards run out.
    """
    seen: dict[bytes, list[int]] = {}
    bar = iter(writing.progress(range(count), 'generating', show=show))
    misses = 0
    while len(seen) < count:
        board, answer, _ = draw_board(size, wall_prob, rng)
        key = bytes(board)
        misses = misses + 1 if key in seen else 0
        require(
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
    """Draws boards until one can be solved: question, answer, and how many were drawn.

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
    """Returns the cells between start and end that the answer marks; None without a way."""
    open_cells = [token != WALL for token in board]
    return grid_paths.first_path(open_cells, board.index(START), board.index(END), size)
