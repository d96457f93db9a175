"""Pictures through matplotlib, which is imported only when one is drawn."""

from collections.abc import Iterable, Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.tasks import Task
from hrm_jax.visualize.trace import Trace

GIVEN, RIGHT, WRONG = '#e4e4e4', '#ffffff', '#f6b2a8'
INK, LEARNED, BAD = '#222222', '#1f5fa8', '#b3261e'


def new_figure(width: float, height: float):
    """Returns a figure that needs no display and leaves pyplot's state alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: str | os.PathLike, dpi: int = 130) -> pathlib.Path:
    """Writes a figure; the file appears whole or not at all."""
    with files.replacing(path) as beside:
        figure.savefig(beside, dpi=dpi)
    return pathlib.Path(path)


def draw_board(
    axes: Any, tokens_S: np.ndarray, task: Task, given_S: np.ndarray, wrong_S: np.ndarray
) -> None:
    """Draws one square board: given cells grey, wrong cells red.

    Args:
      axes: matplotlib axes.
      tokens_S: token ids to show.
      task: symbols, colours and boxes.
      given_S: bool, cells that the question already states.
      wrong_S: bool, cells to mark.
    """
    side = round(len(tokens_S) ** 0.5)
    if task.colours:
        _draw_colours(axes, np.reshape(tokens_S, (side, side)), task, wrong_S)
        return
    size = min(16.0, 80.0 / side)
    for cell, token in enumerate(tokens_S):
        row, column = divmod(cell, side)
        face = WRONG if wrong_S[cell] else GIVEN if given_S[cell] else RIGHT
        axes.add_patch(_square(column, row, face))
        text = task.symbol(int(token)).strip(' .')
        ink = BAD if wrong_S[cell] else INK if given_S[cell] else LEARNED
        axes.text(column + 0.5, row + 0.52, text, ha='center', va='center', color=ink,
                  fontsize=size, fontweight='bold' if given_S[cell] else 'normal')  # fmt: skip
    rows, columns = task.boxes or (side, side)
    for y in range(0, side + 1, rows):
        axes.plot([0, side], [y, y], color=INK, linewidth=1.6, solid_capstyle='butt')
    for x in range(0, side + 1, columns):
        axes.plot([x, x], [0, side], color=INK, linewidth=1.6, solid_capstyle='butt')
    axes.set(xlim=(-0.04, side + 0.04), ylim=(side + 0.04, -0.04), aspect='equal')
    axes.set_axis_off()


def _draw_colours(axes: Any, tokens_HW: np.ndarray, task: Task, wrong_S: np.ndarray) -> None:
    """Draws a board whose tokens are colours; wrong cells get a red frame."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    colours = np.array([to_rgb(colour) for colour in task.colours])
    known = np.clip(tokens_HW, 0, len(colours) - 1)
    height, width = tokens_HW.shape
    axes.imshow(colours[known], extent=(0, width, height, 0), interpolation='nearest')
    for cell in np.flatnonzero(wrong_S):
        row, column = divmod(int(cell), width)
        corner = (column + 0.1, row + 0.1)
        axes.add_patch(Rectangle(corner, 0.8, 0.8, fill=False, edgecolor=BAD, linewidth=1.2))
    axes.set(xticks=[], yticks=[])


def draw_puzzles(inputs_BS: np.ndarray, labels_BS: np.ndarray, task: Task, title: str = '') -> Any:
    """Draws square puzzles with their answers below; returns a matplotlib figure.

    Args:
      inputs_BS, labels_BS: int token ids; labels below 0 are drawn as padding.
      task: symbols, colours and boxes.
      title: stands above all.
    """
    figure = new_figure(2.2 * len(inputs_BS), 4.7)
    clean = np.zeros(inputs_BS.shape[1], bool)
    for row, name in enumerate(('question', 'answer')):
        for place, tokens in enumerate((inputs_BS, labels_BS)[row]):
            axes = figure.add_subplot(2, len(inputs_BS), row * len(inputs_BS) + place + 1)
            draw_board(axes, np.maximum(tokens, 0), task, inputs_BS[place] != task.blank, clean)
            axes.set_title(name, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _square(x: float, y: float, face: str):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor=face, edgecolor='#9a9a9a', linewidth=0.6)


def draw_reasoning(seen: Trace, row: int, task: Task, title: str = '') -> Any:
    """Draws the question, the answer after every ACT step with its wrong cells, the solution.

    Args:
      seen: from ``trace.trace``.
      row: which puzzle of it.
      task: symbols, colours and boxes.
      title: stands above all.

    Returns:
      A matplotlib figure.
    """
    given = seen.inputs[row] != task.blank
    clean = np.zeros_like(given)
    panels = [('question', seen.inputs[row], clean)]
    for step in range(seen.num_steps):
        wrong = seen.wrong[step, row]
        share = 1 / (1 + np.exp(-seen.q_halt[step, row]))
        note = 'all right' if not wrong.any() else f'{wrong.sum()} wrong'
        name = f'after step {step + 1}\n{note}\nthinks it is right: {share:.0%}'
        panels.append((name, seen.predictions[step, row], wrong))
    panels.append(('solution', seen.labels[row], clean))

    columns = min(len(panels), 6)
    lines = -(-len(panels) // columns)
    figure = new_figure(1.9 * columns, 2.45 * lines + 0.3)
    for place, (name, tokens, wrong) in enumerate(panels):
        axes = figure.add_subplot(lines, columns, place + 1)
        draw_board(axes, tokens, task, given, wrong)
        axes.set_title(name, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _mean_of_last(values: np.ndarray, window: int) -> np.ndarray:
    """Running mean over the last ``window`` values, over fewer at the start."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)


def series(records: Iterable[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and values of one metric of metrics.jsonl, absent and null left out."""
    found = [(r['step'], r[name]) for r in records if r.get(name) is not None]
    steps, values = zip(*found, strict=True) if found else ((), ())
    return np.asarray(steps), np.asarray(values, float)


def draw_learning_curve(
    records: Sequence[Mapping[str, Any]], set_name: str = 'all', title: str = ''
) -> Any:
    """Draws token loss and accuracies over the train steps.

    Args:
      records: of metrics.jsonl.
      set_name: which evaluated set to show.
      title: stands above all.

    Returns:
      A matplotlib figure.
    """
    figure = new_figure(9, 3.4)
    window = max(1, len(records) // 50)
    smooth = f' (mean of the last {window} steps)' if window > 1 else ''

    axes = figure.add_subplot(1, 2, 1)
    steps, loss = series(records, 'train/lm_loss')
    axes.plot(steps, loss, color=LEARNED, alpha=0.2, linewidth=0.6)
    axes.plot(steps, _mean_of_last(loss, window), color=LEARNED, label='training' + smooth)
    steps, loss = series(records, f'eval/{set_name}/lm_loss')
    axes.plot(steps, loss, 'o-', color=BAD, markersize=4, label='unseen puzzles')
    axes.set(xlabel='train step', ylabel='token loss', yscale='log')

    accuracy = figure.add_subplot(1, 2, 2)
    steps, exact = series(records, 'train/exact_accuracy')
    accuracy.plot(steps, _mean_of_last(exact, window), color=LEARNED, label='training' + smooth)
    steps, exact = series(records, f'eval/{set_name}/exact_accuracy')
    accuracy.plot(steps, exact, 'o-', color=BAD, markersize=4, label='unseen puzzles')
    accuracy.set(xlabel='train step', ylabel='puzzles exactly right', ylim=(-0.02, 1.02))

    for each in (axes, accuracy):
        each.grid(alpha=0.25)
        each.legend(fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
