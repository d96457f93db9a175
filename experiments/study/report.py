"""Tables, verdicts and the plot of the study, from the records of its runs."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math
from pathlib import Path
import statistics

from experiments.study.runs import Record
from hrm_jax.run.comparison import Spread
from hrm_jax.visualize import figures

BASELINE = 'trm'


@dataclasses.dataclass(frozen=True)
class Row:
    """One arm on one task, with one test.

    Attributes:
      task, arm, test: which.
      values: accuracy of each seed.
      puzzles: test puzzles of each seed.
      runs: their records.
    """

    task: str
    arm: str
    test: str
    values: tuple[float, ...]
    puzzles: int
    runs: tuple[Record, ...]

    @property
    def spread(self) -> Spread:
        return Spread.of(self.values)


def row_of(
    records: Iterable[Record], task: str, arm: str, test: str, measure: str, puzzles: int
) -> Row | None:
    """Returns the row of an arm; None where it has no run, or no such test."""
    runs = [one for one in records if (one.task, one.arm) == (task, arm) and test in one.tests]
    if not runs:
        return None
    runs.sort(key=lambda one: one.seed)
    values = tuple(float(one.tests[test][measure]) for one in runs)
    return Row(task, arm, test, values, puzzles, tuple(runs))


def standard_error(row: Row) -> float:
    """Standard error of a row's mean: of the seeds, but at least that of the test puzzles.

    All seeds answer the same puzzles, so these do not average out.
    """
    mean = statistics.fmean(row.values)
    sampling = math.sqrt(mean * (1 - mean) / row.puzzles)
    if len(row.values) < 2:
        return math.nan
    return max(statistics.stdev(row.values) / math.sqrt(len(row.values)), sampling)


def verdict(row: Row, baseline: Row | None) -> str:
    """Whether a row differs from the baseline's by more than two standard errors."""
    if baseline is None or (row.arm == baseline.arm and row.test == baseline.test):
        return ''
    difference = statistics.fmean(row.values) - statistics.fmean(baseline.values)
    error = math.hypot(standard_error(row), standard_error(baseline))
    text = f'{100 * difference:+.1f}'
    if math.isnan(error):
        return f'{text}, one seed shows no spread'
    if abs(difference) <= 2 * error:
        return f'{text} +- {100 * error:.1f}: within the spread'
    return f'{text} +- {100 * error:.1f}: {"helps" if difference > 0 else "hurts"}'


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [list(header), ['---'] * len(header), *map(list, lines)]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows) + '\n'


def table(rows: Sequence[Row], scores: Mapping[str, str]) -> str:
    """One line for each row.

    Args:
      rows: of one task.
      scores: arm -> the test that it is judged by.
    """
    by_test = {row.test: row for row in rows if row.arm == BASELINE}
    lines = []
    for row in rows:
        against = by_test.get(row.test)
        judged = verdict(row, against)
        name = f'**{row.arm}**' if scores.get(row.arm) == row.test else row.arm
        first = row.runs[0]
        lines.append([
            name, row.test, percent(row.spread), str(len(row.values)), judged,
            f'{first.steps:,}', f'{first.flops:.3g}', f'{first.gflops[row.test]:.3g}',
            f'{first.parameters[0]:,}',
            f'{statistics.fmean(one.core_seconds for one in row.runs) / 60:.1f}',
        ])  # fmt: skip
    header = ['arm', 'test', 'solved, %', 'seeds', 'against TRM, same test', 'steps',
              'training FLOP', 'GFLOP a puzzle', 'parameters', 'core-minutes a run']  # fmt: skip
    return markdown(header, lines)


def is_further(row: Row) -> bool:
    """Whether the test is more than the trained model at some depth."""
    return not row.test.startswith('D')


def percent(spread: Spread) -> str:
    if math.isnan(spread.mean):
        return ''
    mean = f'{100 * spread.mean:.1f}'
    return mean if math.isnan(spread.spread) else f'{mean} +- {100 * spread.spread:.1f}'


def plot(
    parts: Mapping[str, Sequence[Row]], scores: Mapping[str, str], path: Path, title: str
) -> None:
    """A panel for each task: every row with its seeds, the best at the top; TRM as a line.

    Args:
      parts: title of a task -> its rows.
      scores: arm -> the test that it is judged by; only those rows and further tests are drawn.
      path: .png.
      title: of the figure.
    """
    drawn = {
        name: sorted(
            (
                row
                for row in rows
                if row.test == scores.get(row.arm) or not row.test.startswith('D')
            ),
            key=lambda row: statistics.fmean(row.values),
        )
        for name, rows in parts.items()
    }
    height = max((len(rows) for rows in drawn.values()), default=1)
    figure = figures.new_figure(4.6 * len(drawn), 0.32 * height + 1.4)
    for axes, (name, rows) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(),
                                  strict=True):  # fmt: skip
        base = [row for row in rows if row.arm == BASELINE and row.test == scores.get(BASELINE)]
        for number, row in enumerate(rows):
            mean = 100 * statistics.fmean(row.values)
            colour = '#9aa0ab' if row.arm in (BASELINE, 'hrm') else '#2f5fd0'
            if is_further(row):
                colour = '#c0873a'
            axes.plot([100 * value for value in row.values], [number] * len(row.values), 'o',
                      color=colour, alpha=0.55, markersize=5)  # fmt: skip
            axes.plot([mean, mean], [number - 0.32, number + 0.32], color=colour, linewidth=2)
        for row in base:
            axes.axvline(100 * statistics.fmean(row.values), color='#9aa0ab', linestyle=':')
        labels = [f'{row.arm}, {row.test}' if is_further(row) else row.arm for row in rows]
        axes.set_yticks(range(len(rows)), labels, fontsize='small')
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_title(name, fontsize='medium')
        axes.set_xlabel('solved, % (dots: seeds, bars: means)', fontsize='small')
        axes.grid(axis='x', alpha=0.3)
    figure.suptitle(title, fontsize='medium')
    figures.save(figure, path)
