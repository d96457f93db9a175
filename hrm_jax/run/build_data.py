"""Builds the data set of a run from the file that ``data.source`` names.

The only module of this package that knows data_builders, and only when it is asked to.
"""

from collections.abc import Callable
import dataclasses
import os
from pathlib import Path

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
