"""Brings a prediction's question and answer back from its data set, and finds what is missing."""

from collections.abc import Iterable, Iterator

import numpy as np

from hrm_jax.data import puzzles as puzzles_lib
from hrm_jax.errors import PredictionError
from hrm_jax.scoring.predictions import PredictionFile
from hrm_jax.types import IGNORE_LABEL_ID

_ROWS = 4096


def chunks(
    file: PredictionFile,
    *names: str,
    dataset: puzzles_lib.PuzzleDataset | None = None,
    rows: int = _ROWS,
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
    present = [name for name in names if name not in (*lacking, 'example')]
    for chunk in file.chunks(*present, 'example', rows=rows):
        example = chunk['example']
        if example.size and not 0 <= example.min() <= example.max() < puzzles.num_examples:
            raise PredictionError(
                f'{file.path}: examples must be in 0..{puzzles.num_examples - 1}; got '
                f'{example.min()}..{example.max()}. The predictions are of another data set.'
            )
        inputs, labels = puzzles_lib.stored_examples(puzzles, metadata, example)
        if metadata.ignore_label_id is not None:
            ignored = labels == metadata.ignore_label_id
            labels = np.where(ignored, IGNORE_LABEL_ID, labels.astype(np.int32))
        found = {'inputs': inputs, 'labels': labels}
        yield chunk | {name: found[name] for name in lacking}


class Seen:
    """Reads predictions and finds the examples of a split that have none.

    Args:
      asked: the split that was asked for; None: whatever there is.

    Attributes:
      missing_count: examples with a scored cell and without a prediction, once all is read.
    """

    def __init__(self, asked: puzzles_lib.PuzzleDataset | None):
        self._asked = asked
        self._answered: dict[str, np.ndarray] = {}
        self._unnumbered = 0  # rows with a scored cell of files that do not number them
        if asked is not None:
            self._answered = {
                name: np.zeros(one.num_examples, bool) for name, one in asked.sets.items()
            }

    def chunks(
        self,
        files: Iterable[PredictionFile],
        *names: str,
        dataset: puzzles_lib.PuzzleDataset | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields the chunks of all files as the function ``chunks`` does; names have labels."""
        for file in files:
            numbered = self._asked is not None and 'example' in file.fields
            set_name = file.set_name or next(iter(self._answered), '')
            for chunk in chunks(file, *names, *(['example'] if numbered else []), dataset=dataset):
                if numbered and set_name in self._answered:
                    answered = self._answered[set_name]
                    example = chunk['example']
                    answered[example[(example >= 0) & (example < len(answered))]] = True
                elif self._asked is not None:
                    self._unnumbered += int((chunk['labels'] >= 0).any(1).sum())
                yield chunk

    def _missing(self) -> list[tuple[str, int]]:
        """(set, place) of every example without a prediction."""
        if self._asked is None:
            return []
        found = []
        for name, answered in self._answered.items():
            places = np.flatnonzero(~answered)
            one, metadata = self._asked.sets[name], self._asked.metadata
            for start in range(0, len(places), _ROWS):
                some = places[start : start + _ROWS]
                _, labels = puzzles_lib.stored_examples(one, metadata, some)
                scored = np.ones(labels.shape, bool)
                if metadata.ignore_label_id is not None:
                    scored = labels != metadata.ignore_label_id
                found += [(name, int(place)) for place in some[scored.any(1)]]
        return found

    @property
    def missing_count(self) -> int:
        return max(0, len(self._missing()) - self._unnumbered)

    def missing_names(self, most: int) -> list[str]:
        """Names the first missing examples; nothing where files do not number their rows."""
        if self._unnumbered:
            return []
        several = len(self._answered) > 1
        return [
            f'{name} example {place}' if several else f'example {place}'
            for name, place in self._missing()[:most]
        ]
