"""The time that an adaptation may take, counted over restarts."""

import contextlib
import json
import math
from pathlib import Path
import threading
import time

from hrm_jax import files
from hrm_jax.errors import WorkdirError

FILE = 'time.json'
_EVERY = 5.0  # seconds between two records: a kill loses no more
_MARGIN = 0.02  # share of the time for writing what was found


class Budget:
    """Minutes of one command and what is left of them; time before a kill counts.

    Args:
      folder: where the time is recorded.
      minutes: cap; 0: none.
      started: ``time.monotonic()`` when the process began.
    """

    def __init__(self, folder: Path, minutes: float, started: float):
        self._path, self._started = folder / FILE, started
        self._before = 0.0
        if self._path.exists():
            recorded = files.read_json(self._path, WorkdirError, dict).get('seconds')
            WorkdirError.require(
                isinstance(recorded, int | float) and recorded >= 0,
                f'{self._path} must state seconds, 0 or more; got {files.shown(recorded)}. Remove '
                f'it to begin with the whole time.',
            )
            self._before = float(recorded)
        seconds = minutes * 60
        margin = max(min(5.0, 0.2 * seconds), _MARGIN * seconds)
        self.capped = minutes > 0
        # On the clock of time.monotonic().
        self.deadline = math.inf
        if self.capped:
            self.deadline = started + seconds - margin - self._before
        self._stop = threading.Event()

    @property
    def used(self) -> float:
        """Seconds so far, those of earlier starts included."""
        return self._before + time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def share(self, parts: int) -> float:
        """The deadline of the first of so many equal parts of what is left."""
        return time.monotonic() + self.left / parts if self.capped else math.inf

    def record(self) -> None:
        """Writes the time used."""
        files.write_text(self._path, json.dumps({'seconds': round(self.used, 1)}))

    @contextlib.contextmanager
    def recorded(self):
        """Records the time used every few seconds while the body runs."""

        def work() -> None:
            while not self._stop.wait(_EVERY):
                with contextlib.suppress(OSError):  # a full disk must not end the run here
                    self.record()

        self.record()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()
            self.record()
