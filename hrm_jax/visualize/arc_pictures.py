"""An ARC task with a model's attempts, as a page, a picture or an animation."""

from collections.abc import Mapping, Sequence
import io
import os
from typing import Any

import numpy as np

from hrm_jax import files
from hrm_jax.inference.arc import ArcAnswer
from hrm_jax.tasks import Arc
from hrm_jax.visualize import figures, page

_MILLISECONDS = 1200  # of a frame


def boards_of(task: Mapping[str, Any], answers: Sequence[ArcAnswer]) -> list[list[tuple[str, Any]]]:
    """Returns one list of (caption, rows of colours) per test: question, attempts, truth if known.

    Args:
      task: parsed JSON.
      answers: one per test.
    """
    found = []
    for number, (answer, pair) in enumerate(zip(answers, task['test'], strict=True), 1):
        boards = [(f'test {number}', answer.question)]
        for place, grid in enumerate(answer.attempts, 1):
            votes = answer.votes[place - 1]
            caption = f'attempt {place}: {votes} vote{"s" * (votes != 1)}'
            if answer.right_attempt is not None:
                caption += ', right' if answer.right_attempt == place else ', wrong'
            boards.append((caption, grid or [[0]]))
        if len(answer.attempts) == 1:
            boards.append(('attempt 2: the same', answer.attempts[0] or [[0]]))
        if 'output' in pair:
            boards.append(('solution', pair['output']))
        found.append(boards)
    return found


def save(
    path: str | os.PathLike,
    form: str,
    name: str,
    task: Mapping[str, Any],
    answers: Sequence[ArcAnswer],
) -> None:
    """Writes the file; it appears whole or not at all.

    Args:
      path: of the file.
      form: html (with the task's demonstrations), png or gif.
      name: of the task.
      task: parsed JSON.
      answers: one per test.
    """
    tests = boards_of(task, answers)
    if form == 'html':
        pairs = [
            [('question', pair['input']), ('answer', pair['output'])]
            for pair in task.get('train') or []
            if isinstance(pair, Mapping) and {'input', 'output'} <= set(pair)
        ]
        page.write_arc_task(path, name, pairs, tests)
    elif form == 'png':
        figures.save(draw(tests, name), path)
    else:
        _save_gif(path, tests)


def draw(tests: Sequence[Sequence[tuple[str, Any]]], title: str = '') -> Any:
    """Draws the boards of every test in a row; returns a matplotlib figure."""
    columns = max(map(len, tests))
    figure = figures.new_figure(2.4 * columns, 2.7 * len(tests) + 0.3)
    for row, boards in enumerate(tests):
        for place, (caption, grid) in enumerate(boards):
            axes = figure.add_subplot(len(tests), columns, row * columns + place + 1)
            _draw_grid(axes, grid)
            axes.set_title(caption, fontsize=9)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _draw_grid(axes: Any, grid: Any) -> None:
    task = Arc(Arc.SIDE**2, Arc.COLOURS + Arc.FIRST_COLOUR)
    tokens, nothing = Arc.encode(np.array(grid)), np.zeros(Arc.SIDE**2, bool)
    figures.draw_board(axes, tokens, task, nothing, nothing)


def _save_gif(path: str | os.PathLike, tests: Sequence[Sequence[tuple[str, Any]]]) -> None:
    from PIL import Image

    frames = []
    for caption, grid in (board for boards in tests for board in boards):
        figure = figures.new_figure(3.2, 3.6)
        axes = figure.add_subplot()
        _draw_grid(axes, grid)
        axes.set_title(caption, fontsize=9)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=90, format='png')
        frames.append(Image.open(picture).convert('P', palette=Image.Palette.ADAPTIVE))
    with files.replacing(path) as beside:
        frames[0].save(
            beside, format='GIF', save_all=True, append_images=frames[1:], duration=_MILLISECONDS,
            loop=0,
        )  # fmt: skip
