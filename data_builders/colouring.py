"""Builder of graph colouring sets: random graphs with a hidden colouring, one answer each.

A graph is drawn by hiding a colouring and joining vertices of different colours with a given
probability; then colours are taken from vertices, in a random order, as long as one colouring is
left. Tokens: 0 padding, 1 not joined, 2 joined, 3 open vertex, 4.. colours. No graph of a test
puzzle is the graph of a training puzzle, however its vertices are numbered: graphs are compared by
an invariant of equal graphs, colours left out.
"""

import hashlib
import time
from typing import Any

import numpy as np

from data_builders import holdout, leaks, writing
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax.data.puzzles import PuzzleSet
from hrm_jax.errors import BuildError
from hrm_jax.tasks import kind_of

_SMALLEST, _LARGEST = 4, 30  # vertices
_MISSES = 10_000  # draws in a row without a new graph, after which there are too few
EXAMPLES = """examples:
  python -m data_builders colouring --output-dir data/colouring-10
  python -m data_builders colouring --output-dir data/colouring-12 --vertices 12 --colours 4 \\
      --edge-prob 0.6
"""


@settings
class Options(WriterOptions):
    """Settings of a graph colouring data set."""

    vertices: int = option(10, help='vertices of a graph')
    colours: int = option(3, help='colours')
    edge_prob: float = option(0.5, help='share of the pairs of two colours that are joined')
    min_open: int = option(3, help='fewest vertices without a colour that a question has')
    train_count: int = option(2000, help='training puzzles')
    test_count: int = option(500, help='test puzzles')


@with_settings(Options)
def build(output_dir: str, options: Options) -> dict[str, Any]:
    """Builds a graph colouring data set and returns its manifest.

    Args:
      output_dir: folder to make.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: settings without enough different puzzles, or an output in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    kind = kind_of('colouring')
    BuildError.require(
        _SMALLEST <= options.vertices <= _LARGEST,
        f'--vertices must be in {_SMALLEST}..{_LARGEST}; got {options.vertices}.',
    )
    BuildError.require(
        2 <= options.colours <= kind.COLOURS,
        f'--colours must be in 2..{kind.COLOURS}; got {options.colours}.',
    )
    BuildError.require(
        0 < options.edge_prob <= 1, f'--edge-prob must be above 0 and at most 1; got '
        f'{options.edge_prob}.',
    )  # fmt: skip
    BuildError.require(
        0 < options.min_open < options.vertices,
        f'--min-open must be in 1..{options.vertices - 1}; got {options.min_open}.',
    )
    BuildError.require(
        options.train_count > 0 and options.test_count > 0,
        '--train-count and --test-count must be at least 1.',
    )
    rng = np.random.default_rng(options.seed)
    asked, answered, graphs = draw(options, options.train_count + options.test_count, rng)
    share = options.test_count / len(asked)
    parts = holdout.split(holdout.numbers_of(graphs), share, options.seed, 'graph colouring')
    made = {split: (asked[rows], answered[rows]) for split, rows in parts.items()}
    splits = {
        split: writing.one_set(
            PuzzleSet.of_examples(*sides),
            vocab_size=kind.FIRST_COLOUR + options.colours, task='colouring',
        )
        for split, sides in made.items()
    }  # fmt: skip
    report = leaks.exact_report(made['train'], made['test'])
    leaks.refuse(report, allowed=False)
    return writing.write_dataset(
        output, 'colouring', splits, options, sources=[{'path': 'generated'}], started=started,
        notes={'leaks': report, 'graphs': len(set(graphs))},
    )  # fmt: skip


def draw(
    options: Options, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draws different puzzles with one answer each.

    Returns:
      Questions and answers, uint8 [count, cells], and a text for each that equal graphs share.

    Raises:
      BuildError: there are not so many.
    """
    kind = kind_of('colouring')
    side, first = options.vertices, kind.FIRST_COLOUR
    task = kind(side * side, first + options.colours)
    made: dict[bytes, tuple[np.ndarray, str]] = {}
    misses = 0
    bar = iter(writing.progress(range(count), 'generating', show=options.show))
    while len(made) < count:
        BuildError.require(
            misses < _MISSES,
            f'only {len(made)} different puzzles with at least {options.min_open} open vertices '
            f'were found, not {count}. Ask for fewer, or change --edge-prob or --min-open.',
        )
        misses += 1
        colours = first + rng.integers(0, options.colours, side)
        apart = colours[:, None] != colours[None]
        joined = np.triu(apart & (rng.random((side, side)) < options.edge_prob), 1)
        joined |= joined.T
        answer = np.where(joined, kind.JOINED, kind.APART).astype(np.uint8)
        np.fill_diagonal(answer, colours)
        question = _opened(task, answer, rng)
        cells = question.reshape(-1)
        if task.difficulty(cells) < options.min_open or cells.tobytes() in made:
            continue
        made[cells.tobytes()] = answer.reshape(-1), invariant(joined)
        misses = 0
        next(bar)
    asked = np.frombuffer(b''.join(made), np.uint8).reshape(count, -1)
    answers = np.array([answer for answer, _ in made.values()])
    return asked, answers, [graph for _, graph in made.values()]


def _opened(task: Any, answer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Takes colours away in a random order, as long as one colouring is left."""
    question = answer.copy()
    for vertex in rng.permutation(len(answer)):
        colour = question[vertex, vertex]
        question[vertex, vertex] = task.OPEN
        if task.count_solutions(question.reshape(-1)) != 1:
            question[vertex, vertex] = colour
    return question


def invariant(joined: np.ndarray) -> str:
    """Returns a text that equal graphs share, whatever the numbers of their vertices.

    Vertices are told apart by their degrees, then again and again by those of their neighbours.
    Different graphs rarely share it; then they are on one side, too.

    Args:
      joined: bool [N, N], symmetric.
    """
    labels = joined.sum(1).astype(object)
    for _ in range(len(joined)):
        texts = [f'{own}:{sorted(labels[row].tolist(), key=str)}'
                 for own, row in zip(labels, joined, strict=True)]  # fmt: skip
        labels = np.array([hashlib.sha256(one.encode()).hexdigest()[:16] for one in texts], object)
    return ' '.join(sorted(labels.tolist()))
