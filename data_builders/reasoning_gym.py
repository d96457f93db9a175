"""Builder of data sets from the package reasoning-gym: any of its tasks with short answers.

The package draws the puzzles; training and test puzzles come from different seeds, and a test
question that occurs in training is left out. Tasks that state a grid and answer with a grid of the
same size, with the same words around it in every question (``mini_sudoku``, ``sudoku``), become
grids of words; all others are texts, one token for each character, whose line breaks are the
character ``↵``. The answer of the package is the label; a task may accept other answers too, which
only its own ``score_answer`` knows.

Settings of a task are given as --set KEY=VALUE, with values in JSON: --set min_empty=8
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import json
import time
from typing import Any

from data_builders import custom, writing
from data_builders.custom_records import Record
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax import tasks
from hrm_jax.data.text import Form, Grid
from hrm_jax.errors import BuildError

EXAMPLES = """examples:
  python -m data_builders reasoning_gym --output-dir data/mini-sudoku --task mini_sudoku \\
      --count 10000
  python -m data_builders reasoning_gym --output-dir data/sums --task chain_sum --count 5000 \\
      --set max_terms=3
Then: python -m hrm_jax.main --config=configs/custom.py --config.data.path=DIR --workdir=DIR
"""
BREAK = '↵'
_PEEK = 20  # puzzles that decide whether a task has grids
_FACTOR = 20  # puzzles that are drawn for each that is wanted, at most


@settings
class Options(WriterOptions):
    """Settings of a data set of the package reasoning-gym."""

    task: str = option(help='name of the task in the package')
    count: int = option(1000, help='training puzzles')
    test_count: int = option(200, help='test puzzles')
    max_length: int = option(
        800, help='most cells of a question or an answer; longer puzzles are left out'
    )
    set: Sequence[str] = option(
        (), help='settings of the task, KEY=VALUE with the value in JSON', unset='none'
    )


@with_settings(Options)
def build(output_dir: str, options: Options) -> dict[str, Any]:
    """Builds a data set of a task of reasoning-gym and returns its manifest.

    Args:
      output_dir: folder to make.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: the package is missing, an unknown task or setting, too few different puzzles, or
        an output in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    BuildError.require(
        options.count > 0 and options.test_count > 0 and options.max_length > 0,
        '--count, --test-count and --max-length must be at least 1.',
    )
    changes = read_settings(options.set)
    around = words_around(_entries(options.task, changes, 2 * options.seed, _PEEK))
    train = _draw(options, changes, 2 * options.seed, options.count, set(), around)
    test = _draw(
        options, changes, 2 * options.seed + 1, options.test_count,
        {record.question for record in train}, around,
    )  # fmt: skip
    parts = {'train': train, 'test': test}
    name = f'rg_{options.task}'
    assert name not in tasks.TASKS
    rest = custom.Options(
        source=name, name=name, seed=options.seed, show=options.show, overwrite=options.overwrite
    )
    origin = [{'path': name, 'version': _version()}]
    return custom.write(
        output, parts, Form(words=around is not None), rest, started, origin,
        {'form': 'text' if around is None else 'grid', 'instruction': around},
        options.recorded(),
    )  # fmt: skip


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Parses ``KEY=VALUE``; a value that is not JSON is a text."""
    found = {}
    for text in texts:
        key, equals, value = text.partition('=')
        BuildError.require(bool(key and equals), f'--set must be KEY=VALUE; got {text!r}.')
        try:
            found[key] = json.loads(value)
        except (ValueError, RecursionError):
            found[key] = value
    return found


def _draw(
    options: Options,
    changes: Mapping[str, Any],
    seed: int,
    count: int,
    known: set[Grid],
    around: str | None,
) -> list[Record]:
    """Draws different puzzles whose questions are not in ``known``."""
    found: dict[Grid, Record] = {}
    seen = too_long = 0
    bar = iter(writing.progress(range(count), 'drawing', show=options.show))
    for number, entry in enumerate(_entries(options.task, changes, seed, _FACTOR * count)):
        seen = number + 1
        record = record_of(entry, f'{options.task}, seed {seed}, puzzle {number}', around)
        if record is None:
            continue
        sizes = [len(grid) * len(grid[0]) for _, grid in record.sides()]
        if max(sizes) > options.max_length or not min(sizes):
            too_long += 1
        elif record.question not in known and record.question not in found:
            found[record.question] = record
            next(bar)
        if len(found) == count:
            break
    BuildError.require(
        len(found) == count,
        f'{options.task} must give {count} different puzzles of at most {options.max_length} cells '
        f'that are not in training; of {seen} there were {len(found)}, and {too_long} longer ones. '
        f'Ask for fewer, raise --max-length, or make the task larger with --set.',
    )
    return list(found.values())


def _entries(
    task: str, changes: Mapping[str, Any], seed: int, size: int
) -> Iterator[Mapping[str, Any]]:
    """Yields the puzzles of the package."""
    try:
        import reasoning_gym
    except ImportError:
        raise BuildError(
            'this builder needs the package reasoning-gym: pip install reasoning-gym.'
        ) from None
    try:
        dataset = reasoning_gym.create_dataset(task, size=size, seed=seed, **changes)
    except (ValueError, TypeError, AssertionError, KeyError) as error:
        raise BuildError(
            f'reasoning-gym cannot make the task {task!r} with the settings {dict(changes)}: '
            f'{error}'
        ) from None
    for number in range(size):
        yield dataset[number]


def words_around(entries: Iterable[Mapping[str, Any]]) -> str | None:
    """Returns what questions say around their grid; None where they have none, or it differs.

    Only where it is the same for all does the grid alone state the puzzle.
    """
    found = {None if (parts := grid_of(entry)) is None else parts[2] for entry in entries}
    return found.pop() if len(found) == 1 else None


def grid_of(entry: Mapping[str, Any]) -> tuple[Grid, Grid, str] | None:
    """Returns question and answer as grids, and the words around the grid of the question.

    None where the answer is no grid, or the question has no block of lines of its size; of several
    blocks the last one counts.
    """
    answer = _words(str(entry['answer']))
    height, width = len(answer), len(answer[0])
    if min(height, width) < 2 or any(len(row) != width for row in answer):
        return None
    lines = str(entry['question']).replace('\r', '').split('\n')
    for start in range(len(lines) - height, -1, -1):
        block = tuple(tuple(line.split()) for line in lines[start : start + height])
        if all(len(row) == width for row in block):
            around = '\n'.join([*lines[:start], BREAK, *lines[start + height :]])
            return block, answer, around
    return None


def record_of(entry: Mapping[str, Any], where: str, around: str | None) -> Record | None:
    """Returns a puzzle of the package as cells.

    Args:
      entry: from the package.
      where: its name, for messages.
      around: words around the grid of every question; None: puzzles are texts.

    Returns:
      None for a puzzle that has no grid, or other words around it.
    """
    if around is None:
        return Record(_line(str(entry['question'])), _line(str(entry['answer'])), '', where)
    parts = grid_of(entry)
    if parts is None or parts[2] != around:
        return None
    return Record(parts[0], parts[1], '', where)


def _words(text: str) -> Grid:
    return tuple(tuple(line.split()) for line in text.strip('\n').split('\n'))


def _line(text: str) -> Grid:
    return (tuple(text.strip('\n').replace('\r', '').replace('\n', BREAK)),)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version('reasoning-gym')
    except metadata.PackageNotFoundError:
        return 'unknown'
