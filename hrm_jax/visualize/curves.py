"""Curves of several runs over each other: as a picture, and as one self-contained page."""

from collections.abc import Sequence
import html
import math
import os
import pathlib
from typing import Any

from hrm_jax import files
from hrm_jax.run import comparison
from hrm_jax.visualize import document, figures

# Distinct also for colour-blind readers (Okabe and Ito), then repeated with another dash.
COLOURS = (
    '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#8a7a00',
)  # fmt: skip
_DASHES = ('-', '--', ':', '-.')
_COLUMNS = 2  # panels beside each other

_BODY = """<h1>{title}</h1>
<div id="table"></div>
<p class="faint">{legend}</p>
<div class="tools"><span>x axis:</span>
<select id="axis" aria-label="x axis"><option value="step">train steps</option>
<option value="flops">FLOPs of the training</option></select>
<label><input type="checkbox" id="seeds"> every seed</label></div>
<div id="legend"></div>
<div id="panels"></div>
<p id="error" class="error"></p>"""


def save_png(path: str | os.PathLike, compared: comparison.Comparison) -> pathlib.Path:
    """Draws a panel for each metric: the mean of every row, and a band of +- its spread.

    Args:
      path: of the picture; its suffix states the kind (.png, .svg, .pdf).
      compared: with at least one metric.
    """
    names = compared.metrics
    rows = math.ceil(len(names) / _COLUMNS)
    columns = min(len(names), _COLUMNS)
    # The labels have a strip of their own below the panels.
    figure = figures.new_figure(5.6 * columns, 3.6 * rows + 0.24 * len(compared.rows) + 0.3)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    handles = []
    for axes, name in zip(panels, names, strict=False):
        handles = [_draw(axes, row, name, number) for number, row in enumerate(compared.rows)]
        axes.set_title(name, fontsize=10)
        axes.set_xlabel('train steps')
        axes.grid(color='#e7eaf2', linewidth=0.8)
        axes.spines[['top', 'right']].set_visible(False)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    labels = [f'{row.label} ({_seeds(row)})' for row in compared.rows]
    figure.legend(handles, labels, loc='outside lower left', fontsize=8, frameon=False)
    return figures.save(figure, path)


def write_page(
    path: str | os.PathLike, compared: comparison.Comparison, title: str
) -> pathlib.Path:
    """Writes the table and the curves as a page; it appears whole or not at all.

    Args:
      path: of the HTML file.
      compared: the rows.
      title: of the page.
    """
    header, lines = comparison.table(compared)
    facts = {
        'header': header,
        'lines': lines,
        'metrics': list(compared.metrics),
        'rows': [_facts(row, compared.metrics, number) for number, row in enumerate(compared.rows)],
    }
    body = _BODY.format(title=html.escape(title), legend=html.escape(comparison.LEGEND))
    text = document.make(title, body, facts, 'curves.css', ('curves.js',))
    files.write_text(path, text)
    return pathlib.Path(path)


def _seeds(row: comparison.Row) -> str:
    return f'{len(row.runs)} seed{"s" if len(row.runs) > 1 else ""}'


def _look(number: int) -> tuple[str, str]:
    return COLOURS[number % len(COLOURS)], _DASHES[number // len(COLOURS) % len(_DASHES)]


def _draw(axes: Any, row: comparison.Row, name: str, number: int) -> Any:
    colour, dash = _look(number)
    curve = comparison.mean_curve(row, name)
    steps = [step for step, _ in curve]
    means = [value.mean for _, value in curve]
    spreads = [0.0 if math.isnan(value.spread) else value.spread for _, value in curve]
    marker = 'o' if len(steps) == 1 else None
    (line,) = axes.plot(steps, means, color=colour, linestyle=dash, marker=marker, linewidth=1.6)
    if any(spreads) and len(steps) == 1:
        axes.errorbar(steps, means, yerr=spreads, color=colour, capsize=4)
    elif any(spreads):
        low, high = (
            [mean + sign * spread for mean, spread in zip(means, spreads, strict=True)]
            for sign in (-1, 1)
        )
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    return line


def _facts(row: comparison.Row, metrics: Sequence[str], number: int) -> dict[str, Any]:
    """What curves.js draws of a row: [step, mean, spread] of each metric, and every seed."""
    colour, dash = _look(number)
    cost = row.runs[0].flops_per_step
    return {
        'label': f'{row.label} ({_seeds(row)})',
        'colour': colour,
        'dash': {'-': '', '--': '6 4', ':': '2 3', '-.': '6 3 2 3'}[dash],
        'flops': None if math.isnan(cost) else cost,
        'mean': {
            name: [
                [step, value.mean, 0 if math.isnan(value.spread) else value.spread]
                for step, value in comparison.mean_curve(row, name)
            ]
            for name in metrics
        },
        'seeds': {name: [run.curves.get(name, []) for run in row.runs] for name in metrics},
    }
