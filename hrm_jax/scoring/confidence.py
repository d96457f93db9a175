"""Confidence of a model in its answers: is q_halt calibrated, and does it rank right above wrong?

The halting head learns the probability that the answer is right, so sigmoid(q_halt) is compared
with what came of it: Brier score (Brier 1950), reliability bins and expected calibration error
(Guo et al. 2017, arXiv:1706.04599), accuracy at coverage (selective prediction, El-Yaniv and Wiener
2010).
"""

from collections.abc import Iterable
import dataclasses
from typing import Any

import numpy as np

from hrm_jax.data.puzzles import PuzzleDataset
from hrm_jax.errors import PredictionError
from hrm_jax.scoring import examples, rules
from hrm_jax.scoring.predictions import PredictionFile

COVERAGES = tuple(tenth / 10 for tenth in range(1, 11))


@dataclasses.dataclass(frozen=True)
class Bin:
    """Puzzles of similar confidence.

    Attributes:
      low, high: limits of the bin.
      puzzles: how many are in it.
      confidence: their mean confidence.
      accuracy: share of them that is solved, and its standard error.
    """

    low: float
    high: float
    puzzles: int
    confidence: float
    accuracy: float
    error: float


@dataclasses.dataclass(frozen=True)
class Confidence:
    """How well sigmoid(q_halt) predicts whether an answer is right.

    Attributes:
      puzzles: how many.
      accuracy: share that is solved exactly.
      confidence: mean of sigmoid(q_halt).
      brier: mean squared difference of confidence and outcome; 0 is perfect.
      brier_of_accuracy: of a constant confidence equal to ``accuracy``: what must be beaten.
      calibration_error: mean distance of confidence and accuracy over the bins, by puzzles.
      bins: of equal width, those with puzzles.
      coverage: share of the most confident puzzles -> accuracy on them; puzzles of equal
        confidence count by their mean.
    """

    puzzles: int
    accuracy: float
    confidence: float
    brier: float
    brier_of_accuracy: float
    calibration_error: float
    bins: tuple[Bin, ...]
    coverage: dict[float, float]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def measure(q_halt_N: np.ndarray, right_N: np.ndarray, bins: int = 10) -> Confidence:
    """Compares halting logits with outcomes.

    Args:
      q_halt_N: float [N], logits.
      right_N: bool [N], whether each answer is right.
      bins: number of bins between 0 and 1.

    Raises:
      PredictionError: there is nothing to compare.
    """
    PredictionError.require(
        len(q_halt_N) > 0 and len(q_halt_N) == len(right_N),
        f'confidence needs one logit and one outcome for each puzzle, and at least one puzzle; '
        f'got {len(q_halt_N)} and {len(right_N)}. Evaluate a split with answers.',
    )
    PredictionError.require(
        bool(np.isfinite(q_halt_N).all()),
        'q_halt must be finite to be a confidence; it holds NaN or infinities. Evaluate again.',
    )
    PredictionError.require(bins > 0, f'bins must be at least 1; got {bins}.')
    chance = np.exp(-np.logaddexp(0, -np.asarray(q_halt_N, np.float64)))
    right = np.asarray(right_N, bool)
    accuracy = float(right.mean())
    found = _bins(chance, right, bins)
    distances = (one.puzzles * abs(one.confidence - one.accuracy) for one in found)
    return Confidence(
        puzzles=len(right),
        accuracy=accuracy,
        confidence=float(chance.mean()),
        brier=float(np.mean((chance - right) ** 2)),
        brier_of_accuracy=accuracy * (1 - accuracy),
        calibration_error=float(sum(distances) / len(right)),
        bins=found,
        coverage=_accuracy_at_coverage(np.asarray(q_halt_N, np.float64), right),
    )


def measure_files(
    found: Iterable[PredictionFile], dataset: PuzzleDataset | None = None, bins: int = 10
) -> Confidence:
    """Measures the confidence of saved predictions.

    Args:
      found: files with ``q_halt`` and predictions; every row with a scored cell counts.
      dataset: gives labels, if the files have none.
      bins: as in ``measure``.

    Raises:
      PredictionError: labels or logits are missing, or all logits are equal.
    """
    logits, right = [], []
    for file in found:
        for chunk in examples.chunks(file, 'labels', 'predictions', 'q_halt', dataset=dataset):
            labels = chunk['labels'].astype(np.int32)
            scored = (labels >= 0).any(axis=1)
            logits.append(chunk['q_halt'][scored].reshape(-1))
            right.append(rules.right_rows(chunk['predictions'], labels)[scored])
    q_halt = np.concatenate(logits) if logits else np.zeros(0)
    PredictionError.require(
        len(q_halt) < 2 or bool((q_halt != q_halt[0]).any()),
        'q_halt must differ between puzzles; it is the same for all. A model without a halting '
        'head (model.q_head=False) has no confidence.',
    )
    return measure(q_halt, np.concatenate(right) if right else np.zeros(0, bool), bins)


def _bins(chance: np.ndarray, right: np.ndarray, count: int) -> tuple[Bin, ...]:
    place = np.minimum((chance * count).astype(int), count - 1)
    found = []
    for number in np.unique(place):
        inside = place == number
        puzzles, accuracy = int(inside.sum()), float(right[inside].mean())
        found.append(
            Bin(
                low=float(number / count),
                high=float((number + 1) / count),
                puzzles=puzzles,
                confidence=float(chance[inside].mean()),
                accuracy=accuracy,
                error=rules.standard_error(accuracy, puzzles),
            )
        )
    return tuple(found)


def _accuracy_at_coverage(q_halt: np.ndarray, right: np.ndarray) -> dict[float, float]:
    """By logits, as probabilities near 1 become equal in floats."""
    _, group, sizes = np.unique(-q_halt, return_inverse=True, return_counts=True)
    solved = np.bincount(group, weights=right)
    # Within a group of equals the expected number that is solved grows in proportion.
    ends, totals = np.cumsum(sizes), np.cumsum(solved)
    found = {}
    for coverage in COVERAGES:
        wanted = max(1.0, coverage * len(right))
        expected = np.interp(wanted, np.concatenate([[0], ends]), np.concatenate([[0], totals]))
        found[coverage] = float(expected / wanted)
    return found
