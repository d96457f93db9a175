"""Scores by the rules of a task: what exact match misses, standard errors, and by difficulty.

A maze can have several shortest paths and a board several solutions, of which the label is one. So
beside ``exact`` (every scored cell equals the label) an answer is judged by ``Task.judge``, which
does not look at the label: ``valid_path`` and ``shortest_path`` of mazes, ``valid`` of Sudoku and
n-queens.
"""

from collections.abc import Callable, Iterable
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from hrm_jax.data.puzzles import PuzzleDataset
from hrm_jax.scoring import examples, predictions

EXACT = 'exact'
_BANDS = 5  # of difficulty, with about as many puzzles each


@dataclasses.dataclass(frozen=True)
class Band:
    """Puzzles of similar difficulty.

    Attributes:
      low, high: smallest and largest number of the task's ``difficulty``, or rating.
      puzzles: how many were answered.
      shares: measure -> share of them, 0..1.
      errors: measure -> standard error of that share.
    """

    low: float
    high: float
    puzzles: int
    shares: dict[str, float]
    errors: dict[str, float]


@dataclasses.dataclass(frozen=True)
class RuleScores:
    """Scores of a set of predictions.

    Attributes:
      puzzles: answered ones and missing ones.
      missing: those without a prediction; wrong by every measure.
      shares, errors: measure -> share of all puzzles in 0..1, and its standard error.
      difficulty: what the bands count (``givens``, ``path_length``); '' where nothing is known.
      bands: the answered puzzles by difficulty, rising.
      by_rating: the same by the ratings of their source; empty: the set has none.
    """

    puzzles: int
    missing: int
    shares: dict[str, float]
    errors: dict[str, float]
    difficulty: str
    bands: tuple[Band, ...]
    by_rating: tuple[Band, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def table(self) -> str:
        """Returns the bands as lines of text; '' where there are none."""
        names = list(self.shares)
        lines = []
        for title, bands in ((self.difficulty, self.bands), ('rating', self.by_rating)):
            if bands:
                heads = ''.join(f'  {name:>18}' for name in names)
                lines.append(f'  {title:>13} {"puzzles":>9}{heads}')
                lines += [self._line(band, names) for band in bands]
        return '\n'.join(lines)

    @staticmethod
    def _line(band: Band, names: list[str]) -> str:
        cells = (f'{band.shares[n]:.4f} +- {band.errors[n]:.4f}' for n in names)
        return f'  {f"{band.low:g}..{band.high:g}":>13} {band.puzzles:>9,}' + ''.join(
            f'  {cell:>18}' for cell in cells
        )


def standard_error(share: float, count: int) -> float:
    """Returns the standard error of a share of independent puzzles; NaN of none."""
    return math.sqrt(share * (1 - share) / count) if count else math.nan


def right_rows(predictions_BS: np.ndarray, labels_BS: np.ndarray) -> np.ndarray:
    """Whether every scored cell (label >= 0) is right, bool [B]."""
    return ((predictions_BS == labels_BS) | (labels_BS < 0)).all(axis=1)


def score(
    found: Iterable[predictions.PredictionFile], dataset: PuzzleDataset, only_answered: bool = False
) -> RuleScores:
    """Scores prediction files by exact match and by the rules of the data set's task.

    Args:
      found: the files; the rows of all of them count.
      dataset: the split that they answer.
      only_answered: puzzles without a prediction do not count; else they are wrong.

    Raises:
      PredictionError: the files do not fit the split, or lack predictions.
      PuzzleError: a question is not of the task.
    """
    task = dataset.metadata.task_of()
    right: dict[str, list[bool]] = {name: [] for name in (EXACT, *task.judged)}
    difficulties: list[int] = []
    rated: list[np.ndarray] = []
    # The rows of a chunk do not state their set, so ratings count where there is one.
    known = next(iter(dataset.ratings.values()), None) if len(dataset.sets) == 1 else None
    seen = examples.Seen(None if only_answered else dataset)
    for chunk in seen.chunks(found, 'inputs', 'labels', 'predictions', dataset=dataset):
        scored = (chunk['labels'] >= 0).any(axis=1)
        questions, answers, labels = (
            chunk[name][scored].astype(np.int32) for name in ('inputs', 'predictions', 'labels')
        )
        right[EXACT] += right_rows(answers, labels).tolist()
        if known is not None and 'example' in chunk:
            rated.append(known[chunk['example'][scored]])
        for question, answer in zip(questions, answers, strict=True):
            for name, value in task.judge(question, answer).items():
                right[name].append(value)
            if task.difficulty_name:
                difficulties.append(task.difficulty(question))
    arrays = {name: np.array(values, bool) for name, values in right.items()}
    ratings = np.concatenate(rated) if rated else np.zeros(0)
    missing = seen.missing_count
    shares, errors = _shares(arrays, missing)
    return RuleScores(
        puzzles=len(arrays[EXACT]) + missing,
        missing=missing,
        shares=shares,
        errors=errors,
        difficulty=task.difficulty_name,
        bands=_bands(np.array(difficulties), arrays),
        by_rating=_bands(ratings, arrays) if len(ratings) == len(arrays[EXACT]) else (),
    )


def score_folder(
    folder: pathlib.Path,
    dataset: PuzzleDataset,
    only_answered: bool,
    log: Callable[[str], None],
) -> dict[str, float]:
    """Scores an evaluation's own folder; logs the bands and returns metrics by set.

    Args:
      folder: of the predictions.
      dataset: the split that was evaluated.
      only_answered: not all of it was evaluated.
      log: prints a message.

    Returns:
      ``eval/<set>/<measure>`` of what the rules judge, and ``eval/<set>/<measure>_stderr`` of
      these and of ``exact_accuracy``.
    """
    by_set: dict[str, list[predictions.PredictionFile]] = {}
    for file in predictions.find([folder]):
        by_set.setdefault(file.set_name, []).append(file)
    values = {}
    for set_name, found in by_set.items():
        one = dataclasses.replace(
            dataset,
            metadata=dataclasses.replace(dataset.metadata, sets=(set_name,)),
            sets={set_name: dataset.sets[set_name]},
        )
        scores = score(found, one, only_answered)
        for name, share in scores.shares.items():
            if name != EXACT:
                values[f'eval/{set_name}/{name}'] = share
            called = 'exact_accuracy' if name == EXACT else name
            values[f'eval/{set_name}/{called}_stderr'] = scores.errors[name]
        if table := scores.table():
            log(f'{set_name} by {scores.difficulty or "rating"}:\n{table}')
    return values


def _shares(
    right: dict[str, np.ndarray], missing: int = 0
) -> tuple[dict[str, float], dict[str, float]]:
    shares, errors = {}, {}
    for name, values in right.items():
        count = len(values) + missing
        shares[name] = float(values.sum() / count) if count else math.nan
        errors[name] = standard_error(shares[name], count)
    return shares, errors


def _bands(difficulty_N: np.ndarray, right: dict[str, np.ndarray]) -> tuple[Band, ...]:
    """Splits the puzzles at quantiles; equal difficulties stay together."""
    if not difficulty_N.size:
        return ()
    quantiles = np.quantile(difficulty_N, np.arange(1, _BANDS) / _BANDS, method='higher')
    lowest = np.unique([difficulty_N.min(), *quantiles])
    band_N = np.searchsorted(lowest, difficulty_N, side='right')
    found = []
    for number in np.unique(band_N):
        inside = band_N == number
        shares, errors = _shares({name: values[inside] for name, values in right.items()})
        low, high = difficulty_N[inside].min().item(), difficulty_N[inside].max().item()
        found.append(Band(low, high, int(inside.sum()), shares, errors))
    return tuple(found)
