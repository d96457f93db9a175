"""TFDS builders, one per task, that write array_record files without TensorFlow.

They differ in name only: the fields of a record are defined once, in hrm_jax/data/blocks.py.
"""

from collections.abc import Iterable, Iterator
import contextlib
import io
import pathlib
import shutil

import numpy as np
import tensorflow_datasets as tfds

from hrm_jax.data import blocks as blocks_lib
from hrm_jax.data import records
from hrm_jax.errors import BuildError


class _PuzzleRecords(tfds.core.GeneratorBasedBuilder):
    """TFDS builder that writes blocks of puzzles in the given order."""

    VERSION = tfds.core.Version(f'{records.FORMAT_VERSION}.0.0')
    SKIP_REGISTERING = True

    def __init__(self, *, blocks: dict[str, Iterable[dict[str, np.ndarray]]], **kwargs):
        self._blocks = blocks
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        vector = tfds.features.Tensor(
            shape=(None,), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description='Puzzles for hierarchical reasoning models; see hrm_jax/data/blocks.py.',
            features=tfds.features.FeaturesDict(dict.fromkeys(blocks_lib.FIELDS, vector)),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        del dl_manager  # the task's builder has read its sources
        return {split: self._generate_examples(blocks) for split, blocks in self._blocks.items()}

    def _generate_examples(self, blocks: Iterable[dict[str, np.ndarray]]) -> Iterator:
        yield from enumerate(blocks)


class Sudoku(_PuzzleRecords):
    """Sudoku boards and their solutions."""


class Maze(_PuzzleRecords):
    """Mazes and their shortest paths."""


class Arc(_PuzzleRecords):
    """ARC-AGI puzzles: un-padded pairs and lists of augmentations."""


class Lisp(_PuzzleRecords):
    """Arithmetic expressions and their simplified forms."""


class Pathfinding(_PuzzleRecords):
    """Random boards and the shortest path that a breadth-first search finds."""


class Custom(_PuzzleRecords):
    """Questions and answers of a custom task, and sets imported from other folders."""


_BUILDERS = {c.__name__.lower(): c for c in (Sudoku, Maze, Arc, Lisp, Pathfinding, Custom)}


def write(
    folder: pathlib.Path, task: str, blocks: dict[str, Iterable[dict[str, np.ndarray]]]
) -> None:
    """Writes the record files and TFDS's own description of them into ``folder``.

    Args:
      folder: an existing, empty folder.
      task: name of the files; a name without a builder of its own is written as 'custom'.
      blocks: split -> records.

    Raises:
      BuildError: the disk is full or fails.
    """
    tfds.disable_progress_bar()
    kind = _BUILDERS.get(task, Custom)
    builder = kind(blocks=blocks, data_dir=str(folder / 'tfds'), file_format='array_record')
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it downloads
            builder.download_and_prepare()
    except (OSError, RuntimeError) as error:  # array_record reports disks as RuntimeError
        reason = str(error).splitlines()[0]
        raise BuildError(
            f'the records could not be written ({reason}). Is the disk full?'
        ) from error
    made = pathlib.Path(builder.data_dir)
    for file in made.iterdir():
        file.rename(folder / file.name)
    shutil.rmtree(folder / 'tfds')
