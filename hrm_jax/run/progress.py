"""The progress bar of everything that takes long, and durations as people say them."""

from collections.abc import Sequence
import math
import sys
from typing import Any

import jax

_BAR = 10  # characters
_HEADS = {4: 2}  # of the forms of a line's head, those for so many facts; else all
_DAY, _YEAR = 86_400, 365.25 * 86_400


def duration(seconds: float) -> str:
    """Returns a time: 05:12, 3:05:12, 2 d 3 h, 1.4 years."""
    if not math.isfinite(seconds) or seconds < 0:
        return '?'
    if seconds >= 1000 * _YEAR:
        return f'{seconds / _YEAR:,.0f} years'
    if seconds >= _YEAR:
        return f'{seconds / _YEAR:.1f} years'
    whole = round(seconds)
    if whole >= _DAY:
        hours = round(seconds / 3600)
        return f'{hours // 24} d {hours % 24} h'
    hours, minutes = whole // 3600, whole // 60 % 60
    return f'{hours}:{minutes:02}:{whole % 60:02}' if hours else f'{minutes:02}:{whole % 60:02}'


def line(
    title: str,
    done: int,
    total: int,
    elapsed: float,
    left: float | None,
    facts: Sequence[str],
    width: int | None = None,
) -> str:
    """Returns the line of a bar, without what is least needed where it would be too long.

    Args:
      title: stands first.
      done, total: of what is counted.
      elapsed, left: seconds; None: not known.
      facts: stand at the end, the most important one first.
      width: characters of the terminal; None: any number.
    """
    share = done / total if total else 1.0
    filled = round(_BAR * min(share, 1.0))
    count, remaining = f'{done}/{total}', '?' if left is None else duration(left)
    full, short = f'[{duration(elapsed)}<{remaining}', f'[{remaining} left'
    heads = (
        f'{title}: {share:4.0%} {"█" * filled}{" " * (_BAR - filled)} {count} {full}',
        f'{title}: {share:4.0%} {count} {full}',
        f'{title}: {share:4.0%} {count} {short}',
        f'{title}: {share:4.0%} {short}',
    )
    # The bar goes first, then the least important facts.
    for kept in range(len(facts), -1, -1):
        for head in heads[: _HEADS.get(kept)]:
            text = f'{", ".join([head, *facts[:kept]])}]'
            if width is None or len(text) < width:
                return text
    return text[: max(width or 0, 1) - 1]


class Progress:
    """Progress bar through tqdm where it is installed, else a line now and then.

    Only the first of several processes shows it.

    Args:
      title: stands before the bar.
      total, initial: steps in all, and those already done.
      unit: what is counted.
    """

    def __init__(self, title: str, total: int, initial: int = 0, unit: str = 'step'):
        self._bar: Any = None
        self._silent = jax.process_index() > 0
        self._facts: Sequence[str] = ()
        try:
            import tqdm
        except ImportError:
            tqdm = None
        if tqdm is not None and not self._silent:
            # A file or pipe keeps every refresh for ever, a terminal does not.
            pause = 0.2 if sys.stderr.isatty() else 10.0
            self._bar = _bar_class(tqdm.tqdm, lambda: self._facts)(
                desc=title, total=total, initial=initial, unit=unit, mininterval=pause,
                dynamic_ncols=True, leave=True, file=sys.stderr,
            )  # fmt: skip
        self._title, self._total, self._done, self._text = title, total, initial, ''
        self._shown = False

    def update(self, steps: int, *facts: str, minor: bool = False) -> None:
        """Advances by ``steps``.

        Args:
          steps: how many are newly done.
          *facts: stand behind the bar from now on, the most important one first; none: as before.
          minor: not worth a line of its own where there is no bar (the first ones are).
        """
        self._done += steps
        if facts:
            self._facts, self._text = facts, ', '.join(facts)
        if self._bar is not None:
            self._bar.update(steps)
            if facts and not self._shown:
                self._bar.refresh()
        elif facts and not (minor and self._shown):
            self.say(f'{self._title}: {self._done}/{self._total} {self._text}')
        self._shown = self._shown or bool(facts)

    def say(self, message: str) -> None:
        """Prints a line without tearing the bar."""
        if self._bar is not None:
            self._bar.write(message, file=sys.stderr)
        elif not self._silent:
            print(message, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the bar as it is; may be called again."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _bar_class(base: type, facts: Any) -> type:
    """A tqdm bar whose line is made here."""

    class Bar(base):
        def __str__(self) -> str:
            now = self.format_dict
            newly = now['n'] - now['initial']
            rate = now['rate'] or (newly / now['elapsed'] if now['elapsed'] > 0 else 0)
            left = (now['total'] - now['n']) / rate if rate else None
            return line(
                now['prefix'], now['n'], now['total'], now['elapsed'], left, facts(), now['ncols']
            )

    return Bar
