"""Tables, verdicts and plots of the path finding study."""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import json
from pathlib import Path
import statistics

from hrm_jax.visualize import figures


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: architecture, updates per batch, updates within a segment."""

    architecture: str
    train_segments: int
    H_cycles: int
    L_cycles: int

    @property
    def cycles(self) -> int:
        return self.H_cycles * self.L_cycles

    @property
    def slug(self) -> str:
        name = {'H/L': 'hl', 'H-only (bptt)': 'bptt', 'H-only (detached)': 'detached'}
        return f'{name[self.architecture]}-seg{self.train_segments}-{self.H_cycles}x{self.L_cycles}'


@dataclasses.dataclass(frozen=True)
class Result:
    """One run: board accuracy, acc4x and cell accuracy at every evaluation."""

    row: Row
    seed: int
    board: list[float]
    deeper: list[float]
    cells: list[float]
    seconds: float

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> 'Result':
        values = json.loads(text)
        return cls(**values | {'row': Row(**values['row'])})


def best(values: Sequence[float]) -> float:
    return max(values)


def top3(values: Sequence[float]) -> float:
    return statistics.fmean(sorted(values)[-3:])


def last5(values: Sequence[float]) -> float:
    return statistics.fmean(values[-5:])


AVERAGES: dict[str, Callable[[Sequence[float]], float]] = {
    'best': best, 'top 3': top3, 'last 5': last5,
}  # fmt: skip


def _spread(values: Sequence[float]) -> str:
    """Mean and half range over seeds."""
    half = (max(values) - min(values)) / 2
    return f'{statistics.fmean(values):.3f} +-{half:.3f}'


def _markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [list(header), ['---'] * len(header), *map(list, lines)]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows) + '\n'


def rows_of(results: Sequence[Result]) -> list[Row]:
    return list(dict.fromkeys(result.row for result in results))


def _cells(results: Sequence[Result], average) -> list[str]:
    boards = [average(r.board) for r in results]
    deeper = [average(r.deeper) for r in results]
    gaps = [b - a for a, b in zip(boards, deeper, strict=True)]
    return [_spread(boards), _spread(deeper), f'{statistics.fmean(gaps):+.3f}']


def all_runs(results: Sequence[Result]) -> str:
    """One line for each row of the study: mean and half range over its seeds."""
    header = ['variant', 'train segments', 'HxL']
    for name in AVERAGES:
        header += [f'board, {name}', f'acc4x, {name}', 'gap']
    lines = []
    for row in rows_of(results):
        own = [r for r in results if r.row == row]
        line = [row.architecture, str(row.train_segments), f'{row.H_cycles}x{row.L_cycles}']
        for average in AVERAGES.values():
            line += _cells(own, average)
        lines.append(line)
    return _markdown(header, lines)


def aggregate(results: Sequence[Result], name: str, key: Callable[[Row], object]) -> str:
    """One line for each value of a setting: mean over its rows, half range over the seeds."""
    header = [name, 'rows', *(f'{part}, {a}' for a in AVERAGES for part in ('board', 'acc4x'))]
    seeds = sorted({r.seed for r in results})
    lines = []
    for value in sorted({key(r.row) for r in results}, key=str):
        group = [r for r in results if key(r.row) == value]
        line = [str(value), str(len(rows_of(group)))]
        for average in AVERAGES.values():
            for part in ('board', 'deeper'):
                line.append(_spread([
                    statistics.fmean(average(getattr(r, part)) for r in group if r.seed == seed)
                    for seed in seeds
                ]))  # fmt: skip
        lines.append(line)
    return _markdown(header, lines)


def verdict(differences: Sequence[float]) -> str:
    """Verdict of differences, one for each seed: their range must not reach across 0."""
    mean, low, high = statistics.fmean(differences), min(differences), max(differences)
    text = f'{mean:+.3f} (seeds: {low:+.3f} to {high:+.3f})'
    if len(differences) < 2:
        return f'{text}: inconclusive, one seed shows no spread'
    if low > 0:
        return f'{text}: yes'
    if high < 0:
        return f'{text}: no, the other way round'
    return f"{text}: inconclusive, the seeds' spread covers the difference"


def _pairs(results: Sequence[Result]) -> list[tuple[Row, Row]]:
    rows = rows_of(results)
    return [
        (row, dataclasses.replace(row, train_segments=4))
        for row in rows
        if row.train_segments == 2 and dataclasses.replace(row, train_segments=4) in rows
    ]


def findings(results: Sequence[Result]) -> str:
    """The study's two findings, at this size: by the last evaluations, seed by seed."""
    seeds = sorted({r.seed for r in results})
    board = {(r.row, r.seed): last5(r.board) for r in results}
    gaps = {(r.row, r.seed): last5(r.deeper) - last5(r.board) for r in results}
    rows, pairs = rows_of(results), _pairs(results)
    lines = []

    def over(name: str, per_seed: list[float]) -> None:
        lines.append([name, verdict(per_seed)])

    if pairs:
        over(
            '4 train segments against 2, all pairs of rows',
            [statistics.fmean(board[b, s] - board[a, s] for a, b in pairs) for s in seeds],
        )
        for a, b in pairs:
            name = f'- {a.architecture}, {a.H_cycles}x{a.L_cycles}'
            over(name, [board[b, s] - board[a, s] for s in seeds])
    over(
        '8 test segments against 2, all rows',
        [statistics.fmean(gaps[row, s] for row in rows) for s in seeds],
    )
    for row in rows:
        name = f'- {row.architecture}, {row.H_cycles}x{row.L_cycles}, {row.train_segments} segments'
        over(name, [gaps[row, s] for s in seeds])
    return _markdown(['Does more help? (board accuracy, last 5)', 'difference'], lines)


def report(results: Sequence[Result], title: str) -> str:
    """All tables as Markdown."""
    seeds = len({r.seed for r in results})
    minutes = sum(r.seconds for r in results) / 60
    parts = [
        f'# Path finding: {title}, {seeds} seeds, {minutes:.1f} minutes of training\n',
        'Board accuracy with 2 test segments, acc4x with 8; mean +- half range over seeds.\n',
        '## Findings\n', findings(results),
        '## All rows\n', all_runs(results),
        '## By train segments\n',
        aggregate(results, 'train segments', lambda row: row.train_segments),
        '## By architecture\n', aggregate(results, 'architecture', lambda row: row.architecture),
        '## By cycles\n', aggregate(results, 'HxL', lambda row: row.cycles),
    ]  # fmt: skip
    return '\n'.join(parts)


def plots(results: Sequence[Result], folder: Path) -> None:
    """rows.png: the last evaluations of every row; curves.png: accuracy over the run."""
    rows = rows_of(results)
    figure = figures.new_figure(8, 0.45 * len(rows) + 1.5)
    axes = figure.subplots()
    for offset, part, label in ((0.2, 'board', '2 segments'), (-0.2, 'deeper', '8 segments')):
        values = [[last5(getattr(r, part)) for r in results if r.row == row] for row in rows]
        at = [number + offset for number in range(len(rows))]
        axes.barh(at, [statistics.fmean(v) for v in values], height=0.38, label=label)
        for y, own in zip(at, values, strict=True):
            axes.plot(own, [y] * len(own), 'k.', markersize=4)
    axes.set_yticks(range(len(rows)), [row.slug for row in rows])
    axes.invert_yaxis()
    axes.set(xlabel='board accuracy, mean of the last 5 evaluations (dots: seeds)')
    axes.legend(title='at test time')
    figures.save(figure, folder / 'rows.png')

    figure = figures.new_figure(8, 5)
    axes = figure.subplots()
    for row in rows:
        curves = [r.board for r in results if r.row == row]
        length = min(map(len, curves))
        mean = [statistics.fmean(curve[i] for curve in curves) for i in range(length)]
        axes.plot(range(1, length + 1), mean, label=row.slug)
    axes.set(xlabel='evaluation', ylabel='board accuracy, 2 segments, mean of seeds')
    axes.legend(fontsize=7)
    figures.save(figure, folder / 'curves.png')
