"""Brings a prediction's question and answer back from the data set it was made on."""

from collections.abc import Iterator

import numpy as np

from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.errors import PredictionError
from hrm_jax.scoring.predictions import PredictionFile
from hrm_jax.types import IGNORE_LABEL_ID


def chunks(
    file: PredictionFile,
    *names: str,
    dataset: puzzles_lib.PuzzleDataset | None = None,
    rows: int = 4096,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the named fields; ``inputs`` and ``labels`` come from ``dataset`` if need be.

    Raises:
      PredictionError: neither the file nor the data set has what is asked for.
    """
    lacking = [name for name in ('inputs', 'labels') if name in names and name not in file.fields]
    if not lacking or dataset is None or 'example' not in file.fields:
        yield from file.chunks(*names, rows=rows)
        return
    set_name = file.set_name or dataset.metadata.sets[0]
    if set_name not in dataset.sets:
        raise PredictionError(
            f'{file.path} is about the set {set_name!r}; {dataset.path} has '
            f'{", ".join(dataset.sets)}. Give the data set that the predictions were made on.'
        )
    puzzles, metadata = dataset.sets[set_name], dataset.metadata
    present = [name for name in names if name not in lacking]
    for chunk in file.chunks(*present, 'example', rows=rows):
        example = chunk['example']
        if example.size and not 0 <= example.min() <= example.max() < puzzles.num_examples:
            raise PredictionError(
                f'{file.path}: examples must lie in 0..{puzzles.num_examples - 1}; got '
                f'{example.min()}..{example.max()}. The predictions are of another data set.'
            )
        inputs, labels = puzzles_lib.stored_examples(puzzles, metadata, example)
        if metadata.ignore_label_id is not None:
            ignored = labels == metadata.ignore_label_id
            labels = np.where(ignored, IGNORE_LABEL_ID, labels.astype(np.int32))
        found = {'inputs': inputs, 'labels': labels}
        yield chunk | {name: found[name] for name in lacking}
