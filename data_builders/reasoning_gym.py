"""Builder of data sets from the package reasoning-gym: any of its tasks with short answers.

The package draws the puzzles; training and test puzzles come from different seeds, and a test
question that occurs in training is left out. Tasks that state a grid and answer with a grid of the
same size (``mini_sudoku``, ``n_queens``, ``rotate_matrix``) become grids of words; all others are
texts, one token for each character, whose line breaks are the character ``↵``. The answer of the
package is the label; a task may accept other answers too, which only its own ``score_answer``
knows.

Settings of a task are given as --set KEY=VALUE, with values in JSON: --set min_empty=8
"""

from collections.abc import Iterator, Mapping, Sequence
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
_EMPTY = '.'  # of a cell of a grid
_FACTOR = 20  # puzzles that are drawn for each that is wanted, at most


@settings
class Options(WriterOptions):
    """Settings of a data set of the package reasoning-gym."""

    task: str = option(help='name of the task in the package')
    count: int = option(1000, help='training puzzles')
    test_count: int = option(200, help='test puzzles')
    max_length: int = option(
        400, help='most cells of a question or an answer; longer puzzles are left out'
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
    train = _draw(options, changes, 2 * options.seed, options.count, set())
    test = _draw(
        options, changes, 2 * options.seed + 1, options.test_count,
        {record.question for record in train},
    )  # fmt: skip
    form, parts = one_form({'train': train, 'test': test})
    name = f'rg_{options.task}'
    assert name not in tasks.TASKS
    rest = custom.Options(
        source=name, name=name, seed=options.seed, show=options.show, overwrite=options.overwrite
    )
    origin = [{'path': name, 'version': _version()}]
    return custom.write(
        output, parts, form, rest, started, origin, {'form': 'grid' if form.words else 'text'},
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
        except json.JSONDecodeError:
            found[key] = value
    return found


def _draw(
    options: Options, changes: Mapping[str, Any], seed: int, count: int, known: set[Grid]
) -> list[Record]:
    """Draws different puzzles whose questions are not in ``known``."""
    found: dict[Grid, Record] = {}
    seen = too_long = 0
    bar = iter(writing.progress(range(count), 'drawing', show=options.show))
    for number, entry in enumerate(_entries(options.task, changes, seed, _FACTOR * count)):
        seen = number + 1
        record = record_of(entry, f'{options.task}, seed {seed}, puzzle {number}')
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


def record_of(entry: Mapping[str, Any], where: str) -> Record:
    """Returns a puzzle of the package as cells: as grids if it has them, else as texts."""
    answer = str(entry['answer'])
    rows = [tuple(line.split()) for line in answer.strip('\n').split('\n')]
    shape = len(rows), len(rows[0])
    if len(rows) > 1 and shape[1] > 1 and all(len(row) == shape[1] for row in rows):
        for value in dict(entry.get('metadata') or {}).values():
            grid = _grid(value)
            if grid is not None and grid != tuple(rows) and (len(grid), len(grid[0])) == shape:
                return Record(grid, tuple(rows), '', where)
    question = str(entry['question'])
    return Record(_line(question), _line(answer), '', where)


def _grid(value: Any) -> Grid | None:
    """Rows of words; None where a value is not a rectangle of short words."""
    if not isinstance(value, list | tuple) or not value:
        return None
    if not all(isinstance(row, list | tuple) and row for row in value):
        return None
    if any(isinstance(cell, list | tuple | dict) for row in value for cell in row):
        return None
    grid = tuple(tuple(_EMPTY if cell in (None, '') else str(cell) for cell in row)
                 for row in value)  # fmt: skip
    words = all(len(cell.split()) == 1 for row in grid for cell in row)
    return grid if words and len({len(row) for row in grid}) == 1 else None


def _line(text: str) -> Grid:
    return (tuple(text.strip('\n').replace('\r', '').replace('\n', BREAK)),)


def one_form(
    parts: Mapping[str, Sequence[Record]],
) -> tuple[Form, dict[str, list[Record]]]:
    """Returns the form of all records; a set of grids and texts is refused.

    Raises:
      BuildError: some puzzles are grids and others are not.
    """
    grids = {len(record.question) > 1 for part in parts.values() for record in part}
    BuildError.require(
        len(grids) == 1,
        'the puzzles of this task are grids in part only, and a data set has one notation. Choose '
        'settings (--set) with which all of them are.',
    )
    return Form(words=grids.pop()), {split: list(part) for split, part in parts.items()}


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version('reasoning-gym')
    except metadata.PackageNotFoundError:
        return 'unknown'
