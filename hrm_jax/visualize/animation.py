"""The reasoning as a GIF: one frame per ACT step."""

import io
import os
import pathlib

import numpy as np

from hrm_jax import files
from hrm_jax.tasks import Task
from hrm_jax.visualize import figures
from hrm_jax.visualize.trace import Trace


def save_gif(
    seen: Trace,
    row: int,
    task: Task,
    path: str | os.PathLike,
    seconds: float = 0.7,
    dpi: int = 90,
) -> pathlib.Path:
    """Writes the board after every step, wrong cells red where the labels are known.

    Args:
      seen: from ``trace.trace``.
      row: which puzzle of it.
      task: symbols, colours and boxes.
      path: of the GIF; it appears whole or not at all.
      seconds: how long a frame stands; the last one stands three times as long.
      dpi: pixels per inch of a frame of 3.2 x 3.6 inches.
    """
    from PIL import Image

    given = figures.given_cells(seen.inputs[row], task)
    titles = ['question']
    for step in range(seen.num_steps):
        share = 1 / (1 + np.exp(-seen.q_halt[step, row]))
        title = f'step {step + 1} of {seen.num_steps}'
        titles.append(f'{title}, thinks it is right: {share:.0%}' if seen.has_q else title)
    frames = []
    panels = figures.panels(seen, row, task)
    for title, (tokens, wrong, cells) in zip(titles, panels, strict=False):  # not the solution
        figure = figures.new_figure(3.2, 3.6)
        axes = figure.add_subplot()
        figures.draw_board(axes, tokens, task, given, wrong, cells)
        axes.set_title(title, fontsize=9)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=dpi, format='png')
        frames.append(Image.open(picture).convert('P', palette=Image.Palette.ADAPTIVE))
    durations = [round(1000 * seconds)] * len(frames)
    durations[-1] *= 3
    with files.replacing(path) as beside:
        frames[0].save(
            beside,
            format='GIF',
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
        )
    return pathlib.Path(path)
