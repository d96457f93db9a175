"""Reader: parses text into expressions.

Blanks separate tokens, ``;`` starts a comment, ``'e`` is ``(quote e)``, strings know the
escapes n, t, " and \\ and may span lines. ``#t`` and ``#f`` are booleans; whatever the host
reads as an integer (also 0x..) or float is a number; anything else is a symbol.

With ``quirks`` only a blank or parenthesis ends a symbol or number, as in the original: ``a;b``
and ``1"2"`` are symbols there. By default ``;`` and ``"`` end it too.
"""

import re
import sys
from typing import Any

from hrm_jax.lisp import errors, values

_BLANKS = ' \t\r\n'
_HEX = re.compile(r'-?0x[0-9a-fA-F]+\Z')
_DECIMAL = re.compile(r'[+-]?[0-9_]+\Z')
_ESCAPES = {'n': '\n', 't': '\t'}
_WORD_END = re.compile(r'[ \t\r\n()";]')
_WORD_END_QUIRKS = re.compile(r'[ \t\r\n()]')
# Longest integer that the host reads from text by default (it takes quadratic time).
MAX_DIGITS = 4300

QUOTE = values.Symbol('quote')


class _String(str):
    """A string literal's content, distinct from a symbol's token."""

    __slots__ = ()


class Reader:
    """Reads expressions; equal symbols are one object unless ``quirks`` is set."""

    def __init__(self, quirks: bool = False):
        self._quirks = quirks
        self._symbols: dict[str, values.Symbol] = {'quote': QUOTE}

    def symbol(self, text: str) -> values.Symbol:
        if self._quirks:
            return values.Symbol(text)
        return self._symbols.setdefault(text, values.Symbol(text))

    def read_all(self, text: str) -> list[Any]:
        """Returns every expression of ``text``.

        Raises:
          LispParseError: a list or string is not closed, a ``)`` closes nothing, a quote has
            nothing to quote, or an integer has more than ``MAX_DIGITS`` digits.
        """
        done: list[Any] = []
        items, quotes = done, 0  # list under construction; quotes waiting for their expression
        opened: list[tuple[list[Any], int, int]] = []  # outer lists, quotes, where they opened
        for token, position in self._tokens(text):
            if token == '(' and type(token) is str:
                opened.append((items, quotes, position))
                items, quotes = [], 0
                continue
            if token == "'" and type(token) is str:
                quotes += 1
                continue
            if token == ')' and type(token) is str:
                if quotes or not opened:
                    raise self._error("unexpected ')'", text, position)
                datum = values.make_list(items) if items or not self._quirks else values.Nil()
                items, quotes, _ = opened.pop()
            elif type(token) is _String:
                datum = str(token)
            else:
                datum = self._atom(token, text, position)
            for _ in range(quotes):
                datum = values.make_list([self.symbol('quote'), datum])
            quotes = 0
            items.append(datum)
        if quotes:
            raise self._error('unexpected EOF while reading', text, len(text))
        if opened:
            raise self._error("missing ')' in list", text, opened[-1][2])
        return done

    def _error(self, message: str, text: str, position: int) -> errors.LispParseError:
        if not self._quirks:
            line = text.count('\n', 0, position) + 1
            column = position - text.rfind('\n', 0, position)
            message += f' (line {line}, column {column})'
        return errors.LispParseError(message)

    def _tokens(self, text: str):
        position, end = 0, len(text)
        word_end = _WORD_END_QUIRKS if self._quirks else _WORD_END
        while position < end:
            char = text[position]
            if char in _BLANKS:
                position += 1
            elif char == ';':
                newline = text.find('\n', position)
                position = end if newline < 0 else newline + 1
            elif char in "()'":
                yield char, position
                position += 1
            elif char == '"':
                content, after = self._string(text, position)
                yield _String(content), position
                position = after
            else:
                match = word_end.search(text, position)
                after = match.start() if match else end
                yield text[position:after], position
                position = after

    def _string(self, text: str, start: int) -> tuple[str, int]:
        pieces, position = [], start + 1
        while position < len(text):
            char = text[position]
            if char == '"':
                return ''.join(pieces), position + 1
            if char == '\\' and position + 1 < len(text):
                position += 1
                char = _ESCAPES.get(text[position], text[position])
            pieces.append(char)
            position += 1
        raise self._error('unterminated string literal', text, start)

    def _atom(self, token: str, text: str, position: int) -> Any:
        if token == '#t':
            return True
        if token == '#f':
            return False
        if _HEX.match(token):
            return int(token, 16)
        if len(token) > MAX_DIGITS and not self._quirks and _DECIMAL.match(token):
            raise self._error(
                f'an integer must have at most {MAX_DIGITS} digits; got {len(token)}',
                text,
                position,
            )
        for read in (int, float):
            try:
                return read(token)
            except ValueError:
                pass
        return self.symbol(sys.intern(token))


def open_parentheses(text: str, quirks: bool = False) -> tuple[int, bool]:
    """Returns how many lists are open at the end of ``text`` and whether a string is.

    The first number is -1 as soon as a ``)`` closes nothing. With ``quirks`` parentheses in
    comments count, as in the original's REPL.
    """
    depth, in_string, in_comment, escaped = 0, False, False, False
    for char in text:
        if in_comment:
            in_comment = char != '\n'
        elif in_string:
            if escaped:
                escaped = False
            elif char == '\\':
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char == ';' and not quirks:
            in_comment = True
        elif char == '(':
            depth += 1
        elif char == ')':
            depth -= 1
            if depth < 0:
                return -1, False
    return depth, in_string
    return depth, in_string
