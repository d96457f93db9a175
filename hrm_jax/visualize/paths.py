"""Boards of the path finding task after every update, as text, PNG and animated GIF.

Symbols and sizes are those of krychu/hrm, boardpath.py; the colours are those of all pictures here.
"""

from collections.abc import Sequence
import io
import math

import numpy as np

from hrm_jax.tasks import PathFinding

_CELL_WIDTH, _CELL_HEIGHT = 28.8, 24
_PADDING, _HEADER = 20, 67
_PAPER, _INK, _LINE = '#ffffff', '#222222', '#9aa0ab'
_MILLISECONDS = 1000


def side_of(tokens_S: np.ndarray) -> int:
    """Rows of a square board. Raises ValueError if it is not one."""
    side = math.isqrt(len(tokens_S))
    if side * side != len(tokens_S):
        raise ValueError(f'a board must be square; got {len(tokens_S)} cells')
    return side


def board_text(tokens_S: np.ndarray) -> str:
    """One line per row, cells separated by blanks."""
    side = side_of(tokens_S)
    rows = np.asarray(tokens_S).reshape(side, side)
    return '\n'.join(' '.join(PathFinding.symbols[token] for token in row) for row in rows)


def _font(size: int):
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _draw(tokens_S: np.ndarray, header: str):
    from PIL import Image, ImageDraw

    side = side_of(tokens_S)
    size = int(_CELL_WIDTH * side + 2 * _PADDING), int(_CELL_HEIGHT * side + _HEADER + _PADDING)
    image = Image.new('RGB', size, _PAPER)
    draw, font = ImageDraw.Draw(image), _font(16)
    draw.text((_PADDING, _PADDING), header, fill=_INK, font=_font(20))
    for cell, token in enumerate(np.asarray(tokens_S).tolist()):
        row, column = divmod(cell, side)
        x, y = _PADDING + _CELL_WIDTH * column, _HEADER + _CELL_HEIGHT * row
        box = (x, y, x + _CELL_WIDTH, y + _CELL_HEIGHT)
        draw.rectangle(box, fill=PathFinding.colours[token], outline=_LINE)
        if token in (PathFinding.START, PathFinding.END):
            middle = (x + _CELL_WIDTH / 2, y + _CELL_HEIGHT / 2)
            draw.text(middle, PathFinding.symbols[token], fill=_INK, font=font, anchor='mm')
    return image


def picture(tokens_S: np.ndarray, header: str = '') -> bytes:
    """PNG of one board."""
    return _saved(_draw(tokens_S, header), format='PNG')


def strip(frames_FS: Sequence[np.ndarray]) -> bytes:
    """PNG of all steps, side by side."""
    from PIL import Image

    images = [_draw(frame, f'step: {number:2d}') for number, frame in enumerate(frames_FS)]
    width, height = images[0].size
    whole = Image.new('RGB', (width * len(images), height), (0, 0, 0))
    for number, image in enumerate(images):
        whole.paste(image, (number * width, 0))
    return _saved(whole, format='PNG')


def animation(frames_FS: Sequence[np.ndarray]) -> bytes:
    """GIF of all steps, one second each, in an endless loop."""
    first, *rest = (_draw(frame, f'step: {number:2d}') for number, frame in enumerate(frames_FS))
    return _saved(
        first, format='GIF', save_all=True, append_images=rest, duration=_MILLISECONDS, loop=0
    )


def _saved(image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()
