"""Curves of two sides against each other: spread, difference, verdict.

A difference counts when it is larger than what another draw of the seeds would give by itself: when
0 is outside of its 95 % interval (Student's t, both sides' variances pooled). Shares are not taken
for more certain than their test set: their variance is at least that of a share of N puzzles.
"""

from collections.abc import Sequence
import dataclasses
import math
import statistics

from experiments.outcome.runs import SIDES, OutcomeError, Result

CONFIDENCE = 0.95
SHARES = ('exact_accuracy', 'accuracy', 'acc4x')


@dataclasses.dataclass(frozen=True)
class Side:
    """Mean and standard deviation over the seeds of one side (NaN for one seed)."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def text(self) -> str:
        spread = '' if math.isnan(self.spread) else f' +- {self.spread:.4f}'
        return f'{self.mean:.4f}{spread}'


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A number of both sides, and whether they differ.

    Attributes:
      what: the number, in words.
      original, ours: over the seeds.
      margin: half of the interval of the difference; NaN with one seed on a side.
    """

    what: str
    original: Side
    ours: Side
    margin: float

    @property
    def difference(self) -> float:
        return self.ours.mean - self.original.mean

    @property
    def differs(self) -> bool:
        """Whether the difference is beyond the spread."""
        return abs(self.difference) > self.margin

    @property
    def text(self) -> str:
        if math.isnan(self.margin):
            return 'inconclusive: one seed shows no spread'
        if self.differs:
            return f'ours is {"higher" if self.difference > 0 else "lower"}, beyond the spread'
        return 'no difference beyond the spread'


def judge(
    what: str, original: Sequence[float], ours: Sequence[float], least_variance: float = 0.0
) -> Verdict:
    """Compares a number of both sides.

    Args:
      what: the number, in words.
      original, ours: its value for each seed.
      least_variance: of a single value, however equal the seeds are.
    """
    sides = Side(tuple(original)), Side(tuple(ours))
    counts = [len(side.values) for side in sides]
    margin = math.nan
    if min(counts) > 1:
        from scipy import stats

        freedom = sum(counts) - 2
        squares = sum((n - 1) * s.spread**2 for n, s in zip(counts, sides, strict=True))
        variance = max(squares / freedom, least_variance)
        error = math.sqrt(variance * sum(1 / n for n in counts))
        margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Verdict(what, *sides, margin)


def of_side(results: Sequence[Result], side: str) -> list[Result]:
    """The results of one side, by seed."""
    return sorted((r for r in results if r.side == side), key=lambda r: r.seed)


def check(results: Sequence[Result]) -> None:
    """Raises OutcomeError unless all runs of a case were evaluated alike, on equal models."""
    steps = {tuple(result.steps) for result in results}
    OutcomeError.require(
        len(steps) == 1,
        f'both sides of {results[0].case} must be evaluated after the same steps; got '
        f'{" and ".join(str(list(found)) for found in sorted(steps))}.',
    )
    sizes = {result.facts['parameters'] for result in results}
    OutcomeError.require(
        len(sizes) == 1,
        f'both sides of {results[0].case} must train the same number of parameters; got '
        f'{" and ".join(f"{size:,}" for size in sorted(sizes))}.',
    )


def comparable(results: Sequence[Result]) -> list[Result]:
    """The results of one case where both sides have some; seeds are no pairs, so that all count."""
    return list(results) if all(of_side(results, side) for side in SIDES) else []


def verdicts(results: Sequence[Result], metrics: Sequence[str], puzzles: int) -> list[Verdict]:
    """The verdicts on one case: each metric at the end, and the first over the whole training.

    Args:
      results: of one case.
      metrics: their names; the first decides.
      puzzles: of the test set, all sides the same.

    Raises:
      OutcomeError: the runs cannot be compared.
    """
    check(results)
    sides = [of_side(results, side) for side in SIDES]

    def verdict(what: str, name: str, number) -> Verdict:
        values = [[number(result.metrics[name]) for result in side] for side in sides]
        share = statistics.fmean(values[0] + values[1])
        least = share * (1 - share) / puzzles if name in SHARES else 0.0
        return judge(what, *values, least_variance=max(least, 0.0))

    found = [verdict(f'{name}, last evaluation', name, lambda curve: curve[-1]) for name in metrics]
    first = metrics[0]
    found.insert(1, verdict(f'{first}, mean of all evaluations', first, statistics.fmean))
    return found


def evaluations(results: Sequence[Result], metric: str) -> list[tuple[int, Verdict]]:
    """Step and comparison of a metric at every evaluation."""
    check(results)
    sides = [of_side(results, side) for side in SIDES]
    return [
        (step, judge(metric, *([r.metrics[metric][i] for r in side] for side in sides)))
        for i, step in enumerate(results[0].steps)
    ]
