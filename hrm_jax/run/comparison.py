"""Comparison of runs: what differs between them, what came out, at what speed and cost.

Runs that differ in their seed only are one row: mean and spread (sample standard deviation) over
the seeds. Nothing is read but config.json, metrics.jsonl and timing.jsonl of each.
"""

from collections.abc import Iterable, Mapping, Sequence
import csv
import dataclasses
import io
import json
import math
from pathlib import Path
import statistics
from typing import Any

from hrm_jax import curriculum, files
from hrm_jax.config import ExperimentConfig
from hrm_jax.errors import ConfigError, WorkdirError
from hrm_jax.run.workdir import CONFIG
from hrm_jax.run.writers import read_records

# Settings that do not make a run another experiment: names, places, and what only shows it.
_IGNORED = ('name', 'seed', 'logging.', 'checkpoint.directory', 'data.source', 'eval.save_outputs')
_READABLE = 3  # settings that fit into a label
_SHOWN = ('/exact_accuracy', '/accuracy')


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One run as its files describe it.

    Attributes:
      path: its folder.
      config: of its last start.
      steps: train steps with a record.
      curves: metric of evaluations -> (step, value) of every evaluation.
      steps_per_second: median of the logged speeds; NaN: none was logged.
      flops_per_step: matrix products of a train step on the whole batch, as a mean over the stages
        of a curriculum; NaN: not counted.
    """

    path: Path
    config: ExperimentConfig
    steps: int
    curves: dict[str, list[tuple[int, float]]]
    steps_per_second: float
    flops_per_step: float


@dataclasses.dataclass(frozen=True)
class Spread:
    """Mean and spread over seeds.

    Attributes:
      mean: NaN where no run has a value.
      spread: sample standard deviation; NaN of less than two values.
      count: values.
    """

    mean: float
    spread: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> 'Spread':
        found = [value for value in values if math.isfinite(value)]
        spread = statistics.stdev(found) if len(found) > 1 else math.nan
        return cls(statistics.fmean(found) if found else math.nan, spread, len(found))

    def text(self, digits: int = 4) -> str:
        if math.isnan(self.mean):
            return ''
        mean = f'{self.mean:.{digits}g}'
        return mean if math.isnan(self.spread) else f'{mean} +- {self.spread:.2g}'


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that are equal but for their seed.

    Attributes:
      settings: key -> value, of those that differ between the rows.
      runs: of each seed.
      steps: train steps, the fewest and the most of the runs.
      final, best: metric -> over the seeds: of the last evaluation; of each run's best one.
      steps_per_second: over the seeds.
      flops: of the training up to its last step, over the seeds.
      name: folder of the runs, where it tells the rows apart and their settings are many; else ''.
    """

    settings: dict[str, Any]
    runs: tuple[RunRecord, ...]
    steps: tuple[int, int]
    final: dict[str, Spread]
    best: dict[str, Spread]
    steps_per_second: Spread
    flops: Spread
    name: str = ''

    @property
    def label(self) -> str:
        if self.name:
            return self.name
        if not self.settings:
            return self.runs[0].config.name
        return ', '.join(f'{key}={_shown(value)}' for key, value in self.settings.items())


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rows in the order in which their first runs were named, and the metrics that tables show."""

    rows: tuple[Row, ...]
    metrics: tuple[str, ...]


def find_runs(places: Sequence[str | Path]) -> list[Path]:
    """Returns the runs that folders are, or directly hold, in order of their names.

    Raises:
      WorkdirError: a folder is missing, or is no run and has none.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if (place / CONFIG).is_file():
            runs = [place]
        else:
            runs = sorted(path.parent for path in place.glob(f'*/{CONFIG}'))
        WorkdirError.require(
            bool(runs),
            f'{place} must be the folder of a run or of a sweep; it has no {CONFIG}, and no folder '
            f'in it has one. Give the --workdir of a run or of a sweep.',
        )
        found += [run for run in runs if run.resolve() not in {one.resolve() for one in found}]
    return found


def read_run(place: Path) -> RunRecord:
    """Reads one run; one that is still training is read as far as it is.

    Raises:
      ConfigError: its config.json is damaged.
    """
    values = files.read_json(place / CONFIG, ConfigError, dict)
    try:
        config = ExperimentConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f'{place / CONFIG}: {error}') from None
    records = read_records(place / 'metrics.jsonl')
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        for name, value in record.items():
            if name.startswith('eval/') and isinstance(value, int | float):
                curves.setdefault(name, []).append((record['step'], float(value)))
    timing = read_records(place / 'timing.jsonl')
    speeds = [one['steps_per_second'] for one in timing if one.get('steps_per_second')]
    try:
        cost = curriculum.flops_of_a_step(config)
    except NotImplementedError:
        cost = math.nan
    return RunRecord(
        path=place,
        config=config,
        steps=max((record['step'] for record in records), default=0),
        curves=curves,
        steps_per_second=statistics.median(speeds) if speeds else math.nan,
        flops_per_step=cost,
    )


def compare(runs: Sequence[RunRecord], metrics: Sequence[str] = ()) -> Comparison:
    """Groups runs by their settings and compares the groups.

    Args:
      runs: at least one.
      metrics: that tables and plots show, names or ends of names; (): accuracies and what the
        runs call their best metric.

    Raises:
      WorkdirError: a metric that no run has.
    """
    flat = [_settings(run.config) for run in runs]
    keys = [key for key in flat[0] if any(one.get(key) != flat[0].get(key) for one in flat)]
    groups: dict[str, list[int]] = {}
    for number, one in enumerate(flat):
        groups.setdefault(json.dumps([one.get(key) for key in keys]), []).append(number)
    grouped = [[runs[m] for m in members] for members in groups.values()]
    names = _folders(grouped) if len(keys) > _READABLE else [''] * len(grouped)
    rows = tuple(
        _row({key: flat[members[0]].get(key) for key in keys}, own, name)
        for members, own, name in zip(groups.values(), grouped, names, strict=True)
    )
    return Comparison(rows, _metrics(runs, metrics))


def lower_is_better(run: RunRecord, name: str) -> bool:
    """Direction of a metric: losses fall, and the best metric as the run states."""
    best = run.config.checkpoint
    return best.best_mode == 'min' if name == best.best_metric else name.endswith('_loss')


def mean_curve(row: Row, name: str) -> list[tuple[int, Spread]]:
    """Returns a metric over the seeds at every step that all runs with this metric evaluated."""
    curves = [dict(run.curves[name]) for run in row.runs if name in run.curves]
    common = set.intersection(*map(set, curves)) if curves else set()
    return [(step, Spread.of(curve[step] for curve in curves)) for step in sorted(common)]


def as_json(compared: Comparison) -> str:
    """Returns everything: settings, runs, all metrics."""

    def spread(value: Spread) -> dict[str, Any]:
        numbers = {'mean': value.mean, 'spread': value.spread}
        known = {name: None if math.isnan(x) else x for name, x in numbers.items()}
        return {**known, 'count': value.count}

    rows = [
        {
            'name': row.name,
            'settings': row.settings,
            'runs': [str(run.path) for run in row.runs],
            'seeds': [run.config.seed for run in row.runs],
            'steps': list(row.steps),
            'final': {name: spread(value) for name, value in row.final.items()},
            'best': {name: spread(value) for name, value in row.best.items()},
            'steps_per_second': spread(row.steps_per_second),
            'flops': spread(row.flops),
        }
        for row in compared.rows
    ]
    return json.dumps({'metrics': list(compared.metrics), 'rows': rows}, indent=2)


def table(compared: Comparison) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of the table, as texts."""
    keys = list(compared.rows[0].settings)
    named = any(row.name for row in compared.rows)
    header = [*(['run'] if named or not keys else []), *keys, 'seeds', 'steps']
    for name in compared.metrics:
        header += [f'{name} final', f'{name} best']
    header += ['steps/s', 'FLOP']
    lines = []
    for row in compared.rows:
        line = [row.label] if named or not keys else []
        line += [_shown(row.settings[key]) for key in keys]
        low, high = row.steps
        line += [str(len(row.runs)), f'{low}' if low == high else f'{low} to {high}']
        for name in compared.metrics:
            line += [one[name].text() if name in one else '' for one in (row.final, row.best)]
        line += [row.steps_per_second.text(3), _cost(row.flops)]
        lines.append(line)
    return header, lines


def as_markdown(compared: Comparison) -> str:
    """Returns the table with a sentence on what its numbers are."""
    header, lines = table(compared)
    cells = [[cell.replace('|', '\\|') for cell in line] for line in (header, *lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = [
        '| ' + ' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + ' |'
        for line in cells
    ]
    text.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join([*text, '', LEGEND])


def as_csv(compared: Comparison) -> str:
    """Returns one line per row; mean, spread and count in columns of their own."""
    keys = list(compared.rows[0].settings)
    columns = [(f'{name} {kind}', name, kind) for name in compared.metrics
               for kind in ('final', 'best')]  # fmt: skip
    parts = ('mean', 'spread', 'count')
    names = [name for name, _, _ in columns] + ['steps/s', 'FLOP']
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    more = [f'{name} {part}' for name in names for part in parts]
    writer.writerow(['run', *keys, 'seeds', 'fewest steps', 'most steps', *more])
    for row in compared.rows:
        by_kind = {'final': row.final, 'best': row.best}
        nothing = Spread.of(())
        spreads = [by_kind[kind].get(name, nothing) for _, name, kind in columns]
        spreads += [row.steps_per_second, row.flops]
        numbers = [getattr(one, part) for one in spreads for part in parts]
        shown = ['' if isinstance(x, float) and math.isnan(x) else x for x in numbers]
        seeds = ' '.join(str(run.config.seed) for run in row.runs)
        settings = (_shown(row.settings[key]) for key in keys)
        writer.writerow([row.label, *settings, seeds, *row.steps, *shown])
    return text.getvalue().rstrip('\n')


LEGEND = (
    'Mean +- sample standard deviation over seeds. final: of the last evaluation; best: of the '
    'best evaluation of each run, which is chosen on the same puzzles and so looks better than it '
    'is. '
    'FLOP: operations of the matrix products of the training (model/flops.py).'
)


def _folders(rows: Sequence[Sequence[RunRecord]]) -> list[str]:
    """Names of the rows: of the folders around their runs, or of the runs; '' if none differ."""
    around = [{run.path.resolve().parent.name for run in runs} for runs in rows]
    own = [{run.path.resolve().name for run in runs} for runs in rows]
    for folders in (around, own):
        names = [next(iter(one)) for one in folders if len(one) == 1]
        if len(set(names)) == len(rows):
            return names
    return [''] * len(rows)


def _row(settings: dict[str, Any], runs: list[RunRecord], called: str) -> Row:
    names = sorted({name for run in runs for name in run.curves})
    final, best = {}, {}
    for name in names:
        curves = [
            ([value for _, value in run.curves[name]], min if lower_is_better(run, name) else max)
            for run in runs if name in run.curves
        ]  # fmt: skip
        final[name] = Spread.of(values[-1] for values, _ in curves)
        best[name] = Spread.of(choose(values) for values, choose in curves)
    steps = [run.steps for run in runs]
    return Row(
        settings=settings,
        runs=tuple(runs),
        steps=(min(steps), max(steps)),
        final=final,
        best=best,
        steps_per_second=Spread.of(run.steps_per_second for run in runs),
        flops=Spread.of(run.flops_per_step * run.steps for run in runs),
        name=called,
    )


def _metrics(runs: Sequence[RunRecord], wanted: Sequence[str]) -> tuple[str, ...]:
    known = sorted({name for run in runs for name in run.curves})
    if not wanted:
        best = {run.config.checkpoint.best_metric for run in runs}
        shown = [name for name in known if name in best]
        return (*shown, *(n for n in known if n.endswith(_SHOWN) and n not in shown))
    found = []
    for name in wanted:
        matching = [one for one in known if one == name or one.endswith(f'/{name}')]
        WorkdirError.require(
            bool(matching), f'a metric must be one of {", ".join(known) or "none"}; got {name!r}.'
        )
        found += matching
    return tuple(dict.fromkeys(found))


def _settings(config: ExperimentConfig) -> dict[str, Any]:
    """Settings by their full keys, without those that do not make another experiment."""
    found: dict[str, Any] = {}

    def walk(values: Mapping[str, Any], prefix: str) -> None:
        for name, value in values.items():
            key = f'{prefix}{name}'
            if key.startswith(_IGNORED):
                continue
            if isinstance(value, Mapping):
                walk(value, f'{key}.')
            else:
                found[key] = value

    walk(config.to_dict(), '')
    if config.data.source:  # the set is then built in the folder of each run
        found['data.path'] = config.data.source
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ','.join(map(_shown, value))
    return f'{value:g}' if isinstance(value, float) else str(value)


def _cost(value: Spread) -> str:
    if math.isnan(value.mean):
        return ''
    return f'{value.mean:.3g}' + (f' +- {value.spread:.2g}' if value.spread > 0 else '')
