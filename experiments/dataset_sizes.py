"""Sizes of the known data sets, so that nothing has to be built before compiling or timing."""

from collections.abc import Mapping
import dataclasses

from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError

# Beginning of data.path -> vocabulary, cells, puzzle identifiers; the first that fits.
KNOWN = {
    'data/sudoku-4x4': (6, 16, 1),
    'data/sudoku-6x6': (8, 36, 1),
    'data/sudoku-16x16': (18, 256, 1),
    'data/sudoku': (11, 81, 1),
    'data/maze-30x30': (6, 900, 1),
    'data/arc-1-concept-aug-1000': (12, 900, 876_412),
    'data/arc-2': (12, 900, 1_000_000),  # to the nearest million
    'data/pathfinding-10': (5, 100, 1),
    'data/pathfinding-20': (5, 400, 1),
}
_NAMES = ('vocab_size', 'seq_len', 'num_puzzle_identifiers')


def fill_in(
    config: ExperimentConfig, known: Mapping[str, tuple[int, int, int]] = KNOWN
) -> ExperimentConfig:
    """Returns the experiment with the sizes of its data set; what it states itself stays.

    Args:
      config: the experiment.
      known: as ``KNOWN``.

    Raises:
      ConfigError: the data set is none of the known ones, and sizes are missing.
    """
    found = next((v for k, v in known.items() if config.data.path.startswith(k)), (0, 0, 0))
    sizes = {
        name: getattr(config.model, name) or size for name, size in zip(_NAMES, found, strict=True)
    }
    missing = [name for name, size in sizes.items() if not size]
    if missing:
        flags = ' '.join(f'--config.model.{name}=...' for name in missing)
        raise ConfigError(
            f'the sizes of {config.data.path or "the data set"} are not known here. Give them '
            f'with {flags}'
        )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes))
