"""The progress bar of everything that takes long."""

import sys

import jax


class Progress:
    """Progress bar through tqdm where it is installed, else a line now and then.

    Only the first of several processes shows it.

    Args:
      title: stands before the bar.
      total, initial: steps in all, and those already done.
      unit: what is counted.
    """

    def __init__(self, title: str, total: int, initial: int = 0, unit: str = 'step'):
        self._bar = None
        self._silent = jax.process_index() > 0
        try:
            import tqdm
        except ImportError:
            tqdm = None
        if tqdm is not None and not self._silent:
            # A file or pipe keeps every refresh for ever, a terminal does not.
            pause = 0.2 if sys.stderr.isatty() else 10.0
            self._bar = tqdm.tqdm(
                desc=title, total=total, initial=initial, unit=unit, mininterval=pause,
                dynamic_ncols=True, leave=True, file=sys.stderr,
                bar_format='{desc}: {percentage:3.0f}% {bar:12} {n_fmt}/{total_fmt} '
                '[{elapsed}<{remaining}{postfix}]',
            )  # fmt: skip
        self._title, self._total, self._done, self._text = title, total, initial, ''

    def update(self, steps: int, text: str | None = None) -> None:
        """Advances by ``steps``; ``text`` stands behind the bar."""
        self._done += steps
        self._text = self._text if text is None else text
        if self._bar is not None:
            if text is not None:
                self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(steps)
        elif text is not None:
            self.say(f'{self._title}: {self._done}/{self._total} {text}')

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
