"""The report of a comparison: Markdown, a plot and the curves as JSON."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
import math
from pathlib import Path
import statistics
from typing import Any

from experiments import originals
from experiments.outcome import compare
from experiments.outcome.cases import Case
from experiments.outcome.runs import SIDES, Result
from hrm_jax import files

COLOURS = {'original': '#c0504d', 'ours': '#2f6db5'}
AXES = {'exact_accuracy': 'puzzles exactly right', 'accuracy': 'cells right',
        'lm_loss': 'loss of the answer', 'acc4x': 'right with 4x the segments'}  # fmt: skip


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _verdicts(found: Sequence[compare.Verdict]) -> str:
    def row(v: compare.Verdict) -> list[str]:
        margin = '' if math.isnan(v.margin) else f' +- {v.margin:.4f}'
        return [v.what, v.original.text(), v.ours.text(), f'{v.difference:+.4f}{margin}', v.text]

    header = ['', 'original', 'ours', 'difference, 95 % interval', 'verdict']
    return _table(header, map(row, found))


def _evaluations(results: Sequence[Result], metrics: Sequence[str]) -> str:
    columns = [compare.evaluations(results, name) for name in metrics]
    header = ['step', *(f'{name}, {side}' for name in metrics for side in SIDES)]
    rows = []
    for entries in zip(*columns, strict=True):
        row = [str(entries[0][0])]
        for _, found in entries:
            row += [found.original.text(), found.ours.text()]
        rows.append(row)
    return _table(header, rows)


def _settings(case: Case) -> str:
    """What the configuration has that differs from the defaults of ``ExperimentConfig``."""
    config = case.config(0, '')
    base = originals.flatten(type(config)())
    changed = {
        key: value
        for key, value in originals.flatten(config).items()
        if value != base[key] and originals.has_influence(key)
    }
    return ', '.join(f'`{key}={value}`' for key, value in sorted(changed.items()))


def section(case: Case, results: Sequence[Result], trouble: Sequence[str]) -> str:
    """The part of one original."""
    original = originals.ORIGINALS[case.name]
    lines = [f'## {case.title}: beside {original.repository}\n']
    lines += [f'**Not compared:** {text}\n' for text in trouble]
    whole = compare.comparable(results)
    if not whole:
        return '\n'.join(lines)
    seeds = ' and '.join(f'{len(compare.of_side(whole, side))} of {side}' for side in SIDES)
    theirs = next(r for r in whole if r.side == 'original')
    stand_ins = ', '.join(theirs.facts.get('stand_ins', ())) or 'none'
    lines += [
        f'{theirs.facts["parameters"]:,} parameters on both sides, {case.train:,} training and '
        f'{case.test:,} test puzzles, {whole[0].steps[-1]:,} train steps; seeds: {seeds}. Packages '
        f'replaced in the original: {stand_ins}.\n',
        f'Settings of both sides beyond the defaults: {_settings(case)}.\n',
        _verdicts(compare.verdicts(whole, case.metrics, case.test)) + '\n',
        'Mean and standard deviation over the seeds at every evaluation:\n',
        _evaluations(whole, case.metrics) + '\n',
    ]
    return '\n'.join(lines)


def page(
    header: Mapping[str, str],
    cases: Sequence[Case],
    results: Sequence[Result],
    trouble: Mapping[str, Sequence[str]],
    picture: str,
) -> str:
    """The whole report as Markdown.

    Args:
      header: date, command, machine and the like.
      cases: all of the study.
      results: finished runs.
      trouble: case -> why something of it was not compared.
      picture: name of the plot.
    """
    facts = '\n'.join(f'- {name}: {value}' for name, value in header.items())
    parts = [
        f"""# Outcome: the originals' own code and this project, trained alike

{facts}

Each original is trained by its own code (model, losses, optimizer steps, loader and loop of a
checkout) and ours by `hrm_jax.train`, on the same folder and with the same settings. Seeds are the
same numbers but other draws: initial weights, order and exploration are not shared, so that two
curves differ at least by what two seeds differ by. Values are means +- standard deviations over the
seeds. A verdict takes the 95 % interval of the difference (Student's t, variances pooled); of
twenty verdicts on equal programs one is beyond it by chance. Times are not compared here:
`experiments.benchmark` does that.
""",
        f'![Curves of both sides]({picture})\n' if results else '',
        *(
            section(case, [r for r in results if r.case == case.name], trouble.get(case.name, ()))
            for case in cases
        ),
    ]
    return '\n'.join(part for part in parts if part)


def plot(cases: Sequence[Case], results: Sequence[Result], path: Path) -> Path | None:
    """Draws the first two metrics of every case: seeds thin, means thick; None: nothing to draw."""
    from hrm_jax.visualize import figures

    found = {
        case: whole
        for case in cases
        if (whole := compare.comparable([r for r in results if r.case == case.name]))
    }
    if not found:
        return None
    figure = figures.new_figure(4.6 * len(found), 6.4)
    grid = figure.subplots(2, len(found), squeeze=False)
    for column, (case, whole) in enumerate(found.items()):
        shown = (case.metrics[0], case.metrics[-1])
        for axes, name in zip(grid[:, column], shown, strict=True):
            for side in SIDES:
                curves = [(r.steps, r.metrics[name]) for r in compare.of_side(whole, side)]
                for steps, values in curves:
                    axes.plot(steps, values, color=COLOURS[side], linewidth=0.7, alpha=0.55)
                mean = [statistics.fmean(v) for v in zip(*(v for _, v in curves), strict=True)]
                label = f'{side} ({len(curves)} seeds)'
                axes.plot(curves[0][0], mean, color=COLOURS[side], linewidth=2.2, label=label)
            axes.set(xlabel='train step', ylabel=AXES[name])
            axes.grid(alpha=0.25)
        grid[0, column].set_title(case.title)
        grid[0, column].legend()
    return figures.save(figure, path)


def write(
    output: str,
    header: Mapping[str, str],
    cases: Sequence[Case],
    results: Sequence[Result],
    trouble: Mapping[str, Sequence[str]],
) -> None:
    """Replaces OUTPUT.md, OUTPUT.png and OUTPUT.json."""
    target = Path(f'{output}.md')
    target.parent.mkdir(parents=True, exist_ok=True)
    picture = plot(cases, results, Path(f'{output}.png'))
    name = picture.name if picture else ''
    files.write_text(target, page(header, cases, results, trouble, name))
    content: dict[str, Any] = {
        'header': dict(header),
        'results': [dataclasses.asdict(result) for result in results],
    }
    files.write_text(f'{output}.json', json.dumps(content) + '\n')
