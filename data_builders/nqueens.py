"""Builder of N-Queens data sets: some queens of a board are placed, exactly one board fits.

Tokens: 0 padding, 1 empty, 2 queen. All solutions are enumerated, and divided into training and
test solutions with everything that turning and mirroring makes of them: no answer of a test
puzzle, nor a map of it, is the answer of a training puzzle.
"""

import time
from typing import Any

import numpy as np

from data_builders import holdout, leaks, writing
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax.data.puzzles import PuzzleSet
from hrm_jax.errors import BuildError
from hrm_jax.tasks import kind_of

_SMALLEST, _LARGEST = 6, 13  # queens; 13 have 73,712 solutions
_MISSES = 100_000  # draws in a row without a new question, after which there are too few
EXAMPLES = """examples:
  python -m data_builders nqueens --output-dir data/nqueens-10
  python -m data_builders nqueens --output-dir data/nqueens-8 --board-size 8 --min-givens 1 \\
      --train-count 200 --test-count 40
"""


@settings
class Options(WriterOptions):
    """Settings of an N-Queens data set."""

    board_size: int = option(10, help='queens, rows and columns')
    min_givens: int = option(2, help='fewest queens that a question has')
    max_givens: int = option(5, help='most queens that a question has')
    train_count: int = option(1000, help='training puzzles')
    test_count: int = option(1000, help='test puzzles')
    test_fraction: float = option(0.25, help='share of the solutions that test puzzles have')


@with_settings(Options)
def build(output_dir: str, options: Options) -> dict[str, Any]:
    """Builds an N-Queens data set and returns its manifest.

    Args:
      output_dir: folder to make.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: settings without enough different puzzles, or an output in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    size, low, high = options.board_size, options.min_givens, options.max_givens
    BuildError.require(
        _SMALLEST <= size <= _LARGEST,
        f'--board-size must be in {_SMALLEST}..{_LARGEST}; got {size}.',
    )
    BuildError.require(
        0 < low <= high < size,
        f'--min-givens and --max-givens must be in 1..{size - 1}, in this order; got {low}, '
        f'{high}.',
    )
    BuildError.require(
        options.train_count > 0 and options.test_count > 0,
        '--train-count and --test-count must be at least 1.',
    )
    holdout.check_fraction(options.test_fraction)
    found = solutions(size)
    parts = holdout.split(orbits(found), options.test_fraction, options.seed, 'N-Queens')
    rng = np.random.default_rng(options.seed)
    counts = {'train': options.train_count, 'test': options.test_count}
    made = {
        split: questions(found, parts[split], count, (low, high), rng)
        for split, count in counts.items()
    }
    splits = {
        split: writing.one_set(
            PuzzleSet.of_examples(*made[split]),
            vocab_size=3, ignore_label_id=0, task='nqueens', transform='dihedral',
        )
        for split in counts
    }  # fmt: skip
    report = leaks.exact_report(made['train'], made['test'])
    return writing.write_dataset(
        output, 'nqueens', splits, options, sources=[{'path': 'generated'}], started=started,
        notes={'leaks': report, 'solutions': {name: len(part) for name, part in parts.items()}},
    )  # fmt: skip


def solutions(size: int) -> np.ndarray:
    """Returns the column of the queen of every row, for all solutions: uint8 [N, size]."""
    boards = np.zeros((1, 0), np.int8)
    columns = np.arange(size, dtype=np.int8)
    for row in range(size):
        wider = np.repeat(boards, size, axis=0)
        column = np.tile(columns, len(boards))[:, None]
        distance = row - np.arange(row, dtype=np.int8)
        free = (wider != column) & (np.abs(wider - column) != distance)
        boards = np.concatenate([wider, column], axis=1)[free.all(1)]
    return boards.astype(np.uint8)


def orbits(found: np.ndarray) -> np.ndarray:
    """Returns int64 [N], one number for all solutions that turning and mirroring make equal.

    Args:
      found: all solutions, [N, size].
    """
    size = found.shape[1]
    inverse = np.argsort(found, axis=1).astype(np.uint8)  # mirrored in the diagonal
    maps = [
        side
        for columns in (found, inverse)
        for turned in (columns, columns[:, ::-1])
        for side in (turned, size - 1 - turned)
    ]
    weights = np.int64(size) ** np.arange(size)
    return holdout.numbers_of(np.min([m.astype(np.int64) @ weights for m in maps], 0).tolist())


def questions(
    found: np.ndarray, part: np.ndarray, count: int, givens: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draws different questions with one answer: uint8 [count, size * size] each.

    Args:
      found: all solutions, [N, size].
      part: numbers of those that may be answers.
      count: of the questions.
      givens: fewest and most queens of a question, both included.

    Raises:
      BuildError: there are not so many.
    """
    kind, size = kind_of('nqueens'), found.shape[1]
    empty, queen = kind.EMPTY, kind.QUEEN
    made: dict[bytes, np.ndarray] = {}
    misses = 0
    while len(made) < count:
        BuildError.require(
            misses < _MISSES,
            f'only {len(made)} different puzzles were found, not {count}. Ask for fewer, or allow '
            f'more givens (--max-givens).',
        )
        columns = found[rng.choice(part)]
        rows = rng.permutation(size)[: rng.integers(givens[0], givens[1], endpoint=True)]
        misses += 1
        if (found[:, rows] == columns[rows]).all(1).sum() > 1:
            continue
        question, answer = np.full((2, size, size), empty, np.uint8)
        question[rows, columns[rows]] = queen
        answer[np.arange(size), columns] = queen
        if question.tobytes() not in made:
            made[question.tobytes()] = answer.reshape(-1)
            misses = 0
    asked = np.frombuffer(b''.join(made), np.uint8).reshape(count, -1)
    return asked, np.array(list(made.values()))
