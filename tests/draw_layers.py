"""Draws the table of tests/layers.py as docs/layers.svg.

python -m tests.draw_layers > docs/layers.svg

Text only, and the same text for the same table: layers_test.py holds the committed file to it.
"""

import fnmatch
import textwrap
from xml.sax.saxutils import escape

from tests.layers import CORE, FREE, LAYERS, WITHOUT_JAX

COMMAND = 'python -m tests.draw_layers > docs/layers.svg'

WIDTH, MARGIN, GAP = 900, 20, 8
LEFT = 60  # of the boxes; the arrow is left of it
PAD = 12  # between the border of a box and its text
LINE = 17  # from one line of text to the next
# Average width of a character in the widest of the common fonts: nothing can be measured here.
NAME_CHARACTER, PURPOSE_CHARACTER = 8.4, 6.9

# Class of a box -> what it means.
KINDS = {
    'plain': 'imported without JAX',
    'core': 'needs JAX, but no optional package',
    'shell': 'may import optional packages',
}
# Light and dark: page, text, second text, arrow; then fill and border of each kind.
COLOURS = {
    'light': (
        '#ffffff', '#1f2328', '#59636e', '#8c959f',
        {'plain': ('#f6f8fa', '#c3cbd3'), 'core': ('#e3f0ff', '#8db8ea'),
         'shell': ('#fdeed8', '#e0b473')},
    ),
    'dark': (
        '#0d1117', '#f0f6fc', '#a9b4bf', '#7d8590',
        {'plain': ('#1c222a', '#3d454f'), 'core': ('#12294a', '#2f5f9e'),
         'shell': ('#3a2a12', '#8a6324')},
    ),
}  # fmt: skip


def _kind(name: str) -> str:
    """Class of a box by what the tables demand of its modules."""
    path = f'hrm_jax/{name}'
    for kind, patterns in (('plain', WITHOUT_JAX), ('core', CORE)):
        if any(path == p or fnmatch.fnmatch(path, p) for p in patterns):
            return kind
    return 'shell'


def _style() -> str:
    def rules(page, text, second, arrow, kinds):
        yield f'.page{{fill:{page}}} text{{fill:{text}}} .purpose,.note{{fill:{second}}}'
        yield f'.arrow{{stroke:{arrow}}} .head{{fill:{arrow}}}'
        for kind, (fill, border) in kinds.items():
            yield f'.{kind}{{fill:{fill};stroke:{border}}}'

    lines = [
        'text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif}',
        '.name{font:600 14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}',
        '.arrow{fill:none;stroke-width:2}',
        *rules(*COLOURS['light']),
        '@media (prefers-color-scheme:dark){',
        *rules(*COLOURS['dark']),
        '}',
    ]
    return '\n'.join(lines)


def _text(kind: str, x: float, y: float, text: str, more: str = '') -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}"{more}>{escape(text)}</text>'


def _box(kind: str, x: float, y: float, width: float, height: float, more: str = '') -> str:
    size = f'width="{width:g}" height="{height:g}" rx="{min(6, height // 4):g}"'
    return f'<rect class="{kind}" x="{x:g}" y="{y:g}" {size}{more}/>'


def _wrapped(text: str, limit: int) -> list[str]:
    """Lines of at most ``limit`` characters, as few as possible and about equally long."""
    lines = textwrap.wrap(text, limit, break_long_words=False)
    for narrower in range(limit - 1, 0, -1):
        found = textwrap.wrap(text, narrower, break_long_words=False)
        if len(found) > len(lines):
            break
        lines = found
    return lines


def _row(row: dict[str, str], y: float, border: str = '') -> tuple[list[str], float]:
    """Elements of the boxes of one row, left to right, and the height of the row."""
    width = (WIDTH - MARGIN - LEFT - GAP * (len(row) - 1)) / len(row)
    if len(row) == 1:
        ((name, purpose),) = row.items()
        beside = LEFT + PAD + max(14, len(name) + 2) * NAME_CHARACTER
        height = 2 * PAD + LINE - 4
        middle = y + height / 2 + 4
        texts = [
            _text('name', LEFT + PAD, middle, name),
            _text('purpose', beside, middle, purpose),
        ]
        return [_box(_kind(name), LEFT, y, width, height, border), *texts], height
    wrapped = {
        name: _wrapped(purpose, int((width - 2 * PAD) / PURPOSE_CHARACTER))
        for name, purpose in row.items()
    }
    height = 2 * PAD + LINE * max(1 + len(lines) for lines in wrapped.values()) - 4
    found = []
    for number, (name, lines) in enumerate(wrapped.items()):
        x = LEFT + number * (width + GAP)
        found += [_box(_kind(name), x, y, width, height), _text('name', x + PAD, y + 24, name)]
        found += [
            _text('purpose', x + PAD, y + 24 + LINE * line, text)
            for line, text in enumerate(lines, start=1)
        ]
    return found, height


def svg() -> str:
    """Returns the picture: the highest layer at the top, lines that end with a newline."""
    body, y = [], 44.0
    x = float(LEFT)
    for kind, meaning in KINDS.items():
        body += [_box(kind, x, 18, 14, 14), _text('note', x + 21, 30, meaning)]
        x += 21 + len(meaning) * PURPOSE_CHARACTER + 24
    top = y
    for row in reversed(LAYERS):
        boxes, height = _row(row, y)
        body += boxes
        y += height + GAP
    bottom = y - GAP
    x = LEFT - 26
    body += [
        f'<path class="arrow" d="M{x} {top:g}V{bottom - 10:g}"/>',
        f'<path class="head" d="M{x} {bottom:g}l-6 -12h12z"/>',
        _text('note', x - 10, (top + bottom) / 2, 'imports go down',
              f' text-anchor="middle" transform="rotate(-90 {x - 10} {(top + bottom) / 2:g})"'),
    ]  # fmt: skip
    y += GAP
    for name, purpose in FREE.items():
        alone = {name: f'{purpose}: imports none of the others, and all may import it'}
        boxes, height = _row(alone, y, ' stroke-dasharray="5 4"')
        body += boxes
        y += height + GAP
    rule = 'A module imports those below it, those to its left in its row, and files of its folder.'
    body.append(_text('note', LEFT, y + 12, rule))
    height = y + 12 + MARGIN
    return '\n'.join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" role="img">',
        '<title>The layers of hrm_jax; imports go down only</title>',
        f'<!-- {COMMAND} -->',
        f'<style>\n{_style()}\n</style>',
        f'<rect class="page" width="{WIDTH}" height="{height:g}" rx="8"/>',
        *body,
        '</svg>\n',
    ])  # fmt: skip


if __name__ == '__main__':
    print(svg(), end='')
