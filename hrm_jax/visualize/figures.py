"""Pictures through matplotlib, which is imported only when one is drawn."""

from collections.abc import Iterable, Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.tasks import CELL_COLOURS, Task
from hrm_jax.visualize import boards
from hrm_jax.visualize.trace import Trace

GIVEN, RIGHT, WRONG = (CELL_COLOURS[name] for name in ('given', 'answered', 'wrong'))
INK, LEARNED, BAD = (CELL_COLOURS[f'{name}_ink'] for name in ('given', 'answered', 'wrong'))
LINE = '#9aa0ab'
_GRID_LINES = 30  # rows up to which the cells of a coloured board are set apart


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
    axes: Any,
    tokens_S: np.ndarray,
    task: Task,
    given_S: np.ndarray,
    wrong_S: np.ndarray,
    cells_HW: np.ndarray | None = None,
) -> None:
    """Draws one board: given cells grey, wrong cells red.

    Args:
      axes: matplotlib axes.
      tokens_S: token ids to show; those below 0 (not scored) are drawn as padding.
      task: symbols, colours, shape and boxes.
      given_S: bool, cells that the question already states.
      wrong_S: bool, cells to mark.
      cells_HW: what is drawn where (boards.arrangement); None: all that the board uses.
    """
    tokens = np.where(np.asarray(tokens_S) < 0, task.pad_id, tokens_S)
    cells = boards.arrangement(task, tokens) if cells_HW is None else cells_HW
    if task.colours:
        _draw_colours(axes, tokens[cells], task, wrong_S[cells])
        return
    height, width = cells.shape
    empty = ' .' if task.symbols else ''  # of a task of one's own every character counts
    texts = {cell: task.symbol(int(tokens[cell])).strip(empty) for cell in cells.ravel()}
    longest = max(map(len, texts.values()), default=1)
    size = min(16.0, 80.0 / max(height, width)) * min(1.0, 2.4 / max(longest, 1))
    for (row, column), cell in np.ndenumerate(cells):
        if cell < 0 or (task.vocabulary and tokens[cell] == task.pad_id and not wrong_S[cell]):
            continue
        face = WRONG if wrong_S[cell] else GIVEN if given_S[cell] else RIGHT
        axes.add_patch(_square(column, row, face))
        known = given_S[cell] or task.blank is None
        ink = BAD if wrong_S[cell] else INK if known else LEARNED
        axes.text(column + 0.5, row + 0.52, texts[cell], ha='center', va='center', color=ink,
                  fontsize=size, fontweight='bold' if given_S[cell] else 'normal')  # fmt: skip
    if task.boxes or not task.vocabulary:
        rows, columns = task.boxes or (height, width)
        for y in range(0, height + 1, rows):
            axes.plot([0, width], [y, y], color=INK, linewidth=1.6, solid_capstyle='butt')
        for x in range(0, width + 1, columns):
            axes.plot([x, x], [0, height], color=INK, linewidth=1.6, solid_capstyle='butt')
    axes.set(xlim=(-0.04, width + 0.04), ylim=(height + 0.04, -0.04), aspect='equal')
    axes.set_axis_off()


def _draw_colours(axes: Any, tokens_HW: np.ndarray, task: Task, wrong_HW: np.ndarray) -> None:
    """Draws a board whose tokens are colours; wrong cells get a red frame."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    colours = np.array([to_rgb(colour) for colour in task.colours])
    known = np.clip(tokens_HW, 0, len(colours) - 1)
    height, width = tokens_HW.shape
    axes.imshow(colours[known], extent=(0, width, height, 0), interpolation='nearest')
    if max(height, width) <= _GRID_LINES:
        for y in range(height + 1):
            axes.axhline(y, color=LINE, linewidth=0.5)
        for x in range(width + 1):
            axes.axvline(x, color=LINE, linewidth=0.5)
    for row, column in np.argwhere(wrong_HW):
        corner = (column + 0.1, row + 0.1)
        axes.add_patch(Rectangle(corner, 0.8, 0.8, fill=False, edgecolor=BAD, linewidth=1.2))
    if task.symbols:  # letters show where a path begins and ends
        for (row, column), token in np.ndenumerate(tokens_HW):
            if task.symbol(int(token)) in 'SGE':
                axes.text(column + 0.5, row + 0.52, task.symbol(int(token)), ha='center',
                          va='center', color=INK, fontsize=min(14.0, 60.0 / height))  # fmt: skip
    axes.set(xticks=[], yticks=[])


def given_cells(question_S: np.ndarray, task: Task) -> np.ndarray:
    """Bool [S], cells that a question states; none where the task has no empty cells."""
    if task.blank is None:
        return np.zeros(len(question_S), bool)
    return question_S != task.blank


def panels(seen: Trace, row: int, task: Task) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns what is drawn of a puzzle: its question, the answers, and the solution if known.

    Args:
      seen: from ``trace.trace``.
      row: which puzzle of it.
      task: of the puzzles.

    Returns:
      (tokens [S], wrong cells bool [S], arrangement [H, W]) of each; answers and solution share an
      arrangement.
    """
    question, labels, wrong = seen.inputs[row], seen.labels[row], seen.wrong[:, row]
    known = np.where(labels < 0, task.pad_id, labels)
    answers = [task.finished(question, answer) for answer in seen.predictions[:, row]]
    # A wrong cell is shown, wherever it is.
    answers = [np.where(w, a, f) for w, a, f in zip(wrong, seen.predictions[:, row], answers,
                                                    strict=True)]  # fmt: skip
    clean, is_known = np.zeros_like(wrong[0]), bool((labels >= 0).any())
    cells = boards.arrangement(task, *([known] if is_known else []), *answers)
    found = [(question, clean, boards.arrangement(task, question))]
    found += [(answer, w, cells) for answer, w in zip(answers, wrong, strict=True)]
    return found + ([(known, clean, cells)] if is_known else [])


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
            draw_board(axes, tokens, task, given_cells(inputs_BS[place], task), clean)
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
    given, known = given_cells(seen.inputs[row], task), bool((seen.labels[row] >= 0).any())
    names = ['question']
    for step in range(seen.num_steps):
        wrong = int(seen.wrong[step, row].sum())
        share = 1 / (1 + np.exp(-seen.q_halt[step, row]))
        lines = [f'after step {step + 1}']
        lines += [f'{wrong} wrong' if wrong else 'all right'] if known else []
        lines += [f'thinks it is right: {share:.0%}'] if seen.has_q else []
        names.append('\n'.join(lines))
    names += ['solution'] if known else []

    columns = min(len(names), 6)
    lines = -(-len(names) // columns)
    figure = new_figure(1.9 * columns, 2.45 * lines + 0.3)
    for place, (name, panel) in enumerate(zip(names, panels(seen, row, task), strict=True)):
        tokens, wrong, cells = panel
        axes = figure.add_subplot(lines, columns, place + 1)
        draw_board(axes, tokens, task, given, wrong, cells)
        axes.set_title(name, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def mean_of_last(values: np.ndarray, window: int) -> np.ndarray:
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
    axes.plot(steps, mean_of_last(loss, window), color=LEARNED, label='training' + smooth)
    steps, loss = series(records, f'eval/{set_name}/lm_loss')
    axes.plot(steps, loss, 'o-', color=BAD, markersize=4, label='unseen puzzles')
    axes.set(xlabel='train step', ylabel='token loss', yscale='log')

    accuracy = figure.add_subplot(1, 2, 2)
    steps, exact = series(records, 'train/exact_accuracy')
    accuracy.plot(steps, mean_of_last(exact, window), color=LEARNED, label='training' + smooth)
    steps, exact = series(records, f'eval/{set_name}/exact_accuracy')
    accuracy.plot(steps, exact, 'o-', color=BAD, markersize=4, label='unseen puzzles')
    accuracy.set(xlabel='train step', ylabel='puzzles exactly right', ylim=(-0.02, 1.02))

    for each in (axes, accuracy):
        each.grid(alpha=0.25)
        each.legend(fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure
